"""What the entry of a data set in a suite is called, and which options it takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def label_of(entry: Mapping[str, Any]) -> str:
    """How a data set is called in tables and settings."""
    return str(entry.get("name") or entry.get("key") or Path(str(entry.get("file", ""))).stem)


def resolved(folder: Path, path: str) -> str:
    """Absolute, since a worker may be started elsewhere."""
    return str((folder / Path(path).expanduser()).resolve())


def options_of(key: str) -> Mapping[str, inspect.Parameter]:
    """The options of a registered data set, by name; none where there is no such data set."""
    from kintsugi.data.datasets import DATASETS

    return inspect.signature(DATASETS[key]).parameters if key in DATASETS else {}


def is_path(key: str, option: str) -> bool:
    """Whether an option of a registered data set is a path of a file or folder."""
    parameter = options_of(key).get(option)
    return parameter is not None and "Path" in str(parameter.annotation)
