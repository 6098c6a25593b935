"""Small pieces of reStructuredText, written by the other extensions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def escape(text: str) -> str:
    """Plain text, so that none of it is markup; what stands in double backticks stays literal."""
    parts = re.split(r"(``.+?``)", text)
    return "".join(part if i % 2 else re.sub(r"([\\*`|]|_(?!\w))", r"\\\1", part) for i, part in enumerate(parts))


def heading(text: str, line: str = "=") -> str:
    """A heading with its underline."""
    return f"{text}\n{line * max(len(text), 4)}\n"


def bullets(items: Iterable[str]) -> str:
    """A list; an item's further lines are indented."""
    return "\n".join("- " + item.replace("\n", "\n  ") for item in items) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int] | None = None) -> str:
    """A list-table; cells are reStructuredText of one paragraph."""
    out = [".. list-table::", "   :header-rows: 1"]
    if widths:
        out.append(f"   :widths: {' '.join(map(str, widths))}")
    out.append("")
    for row in [head, *rows]:
        out += [f"   {'* -' if i == 0 else '  -'} {cell}".rstrip() for i, cell in enumerate(row)]
    return "\n".join(out) + "\n"


def write_if_changed(path: Path, text: str) -> Path:
    """Leave an equal file alone, so that Sphinx does not read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def remove_others(folder: Path, kept: Iterable[Path]) -> None:
    """Delete the generated pages that were not written this time."""
    keep = set(kept)
    for path in folder.glob("*.rst"):
        if path not in keep:
            path.unlink()
