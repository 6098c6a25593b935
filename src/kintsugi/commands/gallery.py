"""The command that writes the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kintsugi.core.errors import ConfigError


def numbers(text: str) -> list[int]:
    """``"1,3,5"`` as severities, each once, in order.

    Raises:
        ConfigError: not one to five numbers from 1 to 5.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or any(word not in ("1", "2", "3", "4", "5") for word in words):
        raise ConfigError(f"--severities takes numbers from 1 to 5, such as 1,3,5, not {text!r}")
    return sorted({int(word) for word in words})


def write(
    out: Path,
    data: str | None,
    columns: Path | None,
    kinds: Sequence[str] | None,
    rows: int,
    seed: int,
    severities: Sequence[int],
    command: str,
) -> list[str]:
    """Write the file, say what is in it, and return what failed.

    Raises:
        ConfigError: arguments that do not fit; see :func:`~kintsugi.gallery.page.write_gallery`.
    """
    from rich.console import Console

    from kintsugi.commands.rows import read
    from kintsugi.gallery import write_gallery

    if columns is not None and data is None:
        raise ConfigError("--columns says how to read a file; name the file with --data")
    table = None if data is None else read(data, columns)
    failures = write_gallery(out, data=table, kinds=kinds, rows=rows, seed=seed, severities=severities, command=command)
    size = out.stat().st_size / 1e6
    Console(soft_wrap=True, highlight=False, markup=False).print(f"{out} ({size:.1f} MB) opens in any browser")
    return failures
