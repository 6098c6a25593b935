"""What a person sees of training: a bar on a terminal, nothing in a file or a test."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self


class Progress:
    """One bar for a whole fit. ``show=None``: only when the error stream is a terminal."""

    def __init__(self, show: bool | None, title: str) -> None:
        self._show = sys.stderr.isatty() if show is None else show
        self._title, self._task = title, 0
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._show:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None, said="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, steps: int, doing: str) -> None:
        """A new stretch of work of so many steps."""
        if self._bar is not None:
            self._bar.reset(self._task, total=steps, description=f"{self._title} · {doing}")

    def advance(self, said: str = "") -> None:
        """One step done."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, said=said)
