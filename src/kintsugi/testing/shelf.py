"""What was trained for one method, kept while that method is looked at and let go when others are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
CLASSES = 2  # a method that is compared with another one; hundreds of methods must not pile up


class Shelf:
    """Results of trainings by class and key, of the last few classes that were asked for.

    classes: how many.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        self.classes = classes
        self._kept: OrderedDict[Any, dict[Hashable, Any]] = OrderedDict()

    def get(self, cls: type[Any], key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under this key of this class, made where it is not there."""
        self._kept.setdefault(cls, {})
        self._kept.move_to_end(cls)
        while len(self._kept) > self.classes:
            self._kept.popitem(last=False)
        kept = self._kept[cls]
        if key not in kept:
            kept[key] = make()
        value: T = kept[key]
        return value

    def holds(self, cls: type[Any], key: Hashable) -> bool:
        """Is there something under this key?"""
        return key in self._kept.get(cls, {})

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


SHELF = Shelf()
