"""The table of what ``import kintsugi`` offers, and no pages of modules that are gone."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from rst import escape, table, write_if_changed


def public_names() -> list[tuple[str, Any]]:
    """Each name in ``kintsugi.__all__`` with what it stands for."""
    import kintsugi

    return [(name, getattr(kintsugi, name)) for name in kintsugi.__all__ if not name.startswith("_")]


def link(thing: Any) -> str:
    """A reference to where it is explained."""
    if isinstance(thing, ModuleType):
        return f":py:mod:`{thing.__name__}`"
    return f":py:obj:`{thing.__qualname__} <{thing.__module__}.{thing.__qualname__}>`"


def names_table() -> str:
    """Name, what it is in one sentence, where it is explained."""
    rows = []
    for name, thing in public_names():
        summary = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")
        rows.append((f"``kg.{name}``", _linkless(summary), link(thing)))
    return table(("Name", "What it is", "Explained at"), rows, (20, 50, 30))


def _linkless(text: str) -> str:
    import re

    return escape(re.sub(r":\w+(?::\w+)?:`~?(?:[\w.]+\.)?(\w+)`", r"``\1``", text))


def _write(app: Any) -> None:
    folder = Path(app.srcdir) / "api" / "generated"
    write_if_changed(folder / "names.txt", names_table())
    for page in folder.glob("kintsugi*.rst"):
        try:
            gone = importlib.util.find_spec(page.stem) is None
        except ModuleNotFoundError:
            gone = True
        if gone:
            page.unlink()


def setup(app: Any) -> dict[str, bool]:
    """Before autosummary writes its pages."""
    app.connect("builder-inited", _write, priority=100)
    return {"parallel_read_safe": True}
