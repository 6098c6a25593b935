"""Data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from kintsugi.core.errors import UnknownName
from kintsugi.core.registry import Registry
from kintsugi.data.dataset import Dataset

DATASETS: Registry[Callable[..., Dataset]] = Registry("data set", "kintsugi.data")


def load(name: str, **options: Any) -> Dataset:
    """A data set by its registered name.

    Raises:
        UnknownName: no such data set, or no such option of it.
    """
    make = DATASETS[name]
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise UnknownName(f"option of data set {name}", option, known)
    return make(**options)


def list_datasets() -> list[str]:
    """Names that :func:`load` knows."""
    return list(DATASETS)


def describe_dataset(name: str) -> str:
    """What it holds, where it comes from, and its options."""
    return f"{name}{inspect.signature(DATASETS[name], eval_str=False)}\n\n{inspect.getdoc(DATASETS[name]) or ''}"
