"""Names that are imported when they are first used, as the package's own stub file lists them."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kintsugi.core.retired import NAMES, warn

LINE = re.compile(r"^from (kintsugi[\w.]*) import (\w+) as (\w+)$", re.MULTILINE)


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` for a package.

    The list is ``__init__.pyi`` beside ``file``, which type checkers and editors read too: one name a line, as
    ``from kintsugi.place import thing as name``. ``name`` may be a module.
    """
    try:
        listed = Path(file).with_suffix(".pyi").read_text("utf-8")
    except NotADirectoryError as error:
        raise ImportError(f"{package} lies in an archive, and it needs to lie in a folder; install it") from error
    homes = {name: (place, thing) for place, thing, name in LINE.findall(listed)}

    def get(name: str) -> Any:
        today = NAMES.get(package, {}).get(name)
        if today is not None:
            warn(f"{package}.{name}", f"{package}.{today}", 2)
            return get(today)
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place, thing = homes[name]
        if place == package:  # a module of this very package
            return importlib.import_module(f"{place}.{thing}")
        module = importlib.import_module(place)
        value = getattr(module, thing) if hasattr(module, thing) else importlib.import_module(f"{place}.{thing}")
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*homes, *vars(sys.modules[package])}), sorted(homes)
