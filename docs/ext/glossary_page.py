"""The glossary of the contract's words, old and new, made from ``kintsugi.core.retired``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rst import escape, table, write_if_changed

from kintsugi.core.retired import GLOSSARY


def page() -> str:
    """A table to include."""
    rows = [(f"``{name.new}``", escape(name.meaning), f"``{name.old}``") for name in GLOSSARY]
    return table(("Word", "Meaning", "Was called"), rows, (28, 50, 22))


def _write(app: Any) -> None:
    write_if_changed(Path(app.srcdir) / "api" / "generated" / "glossary.txt", page())


def setup(app: Any) -> dict[str, Any]:
    """Sphinx extension."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}
