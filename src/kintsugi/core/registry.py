"""Named things, found by walking a package instead of keeping a list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from kintsugi.core.errors import ConfigError, UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> thing. ``home`` is the package that is imported, once and when first asked, so that it registers itself.

    Things from outside the library register with the same decorator; nothing else is needed.
    """

    def __init__(self, what: str, home: str) -> None:
        self.what, self.home = what, home
        self._things: dict[str, T] = {}
        self._versions: dict[str, int] = {}
        self._walked = False

    def register(self, name: str, version: int = 1) -> Callable[[T], T]:
        """Decorator. A second thing under the same name is an error, unless it is the same source imported again.

        Args:
            name: of the thing.
            version: raised whenever its numbers change; results and saved models carry it.
        """

        def add(thing: T) -> T:
            old = self._things.get(name)
            if old is not None and old is not thing and _source(old) != _source(thing):
                raise ConfigError(f"{self.what} {name!r} is registered twice: {old!r} and {thing!r}")
            self._things[name] = thing
            self._versions[name] = version
            return thing

        return add

    def version(self, name: str) -> int:
        """The version under which a thing is registered.

        Raises:
            UnknownName: no such thing.
        """
        self[name]
        return self._versions[name]

    def _walk(self) -> None:
        if not self._walked:
            self._walked = True  # before the import: what is imported may ask the registry
            try:
                package = importlib.import_module(self.home)
                for module in pkgutil.walk_packages(package.__path__, self.home + "."):
                    if not module.name.rpartition(".")[2].startswith("_"):  # private modules may be heavy
                        importlib.import_module(module.name)
            except BaseException:
                self._walked = False  # half a registry would answer with "unknown name" from now on
                raise

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            self._walk()
        if name not in self._things:
            raise UnknownName(self.what, name, self._things)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        self._walk()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        self._walk()
        return iter(sorted(self._things))

    def __len__(self) -> int:
        self._walk()
        return len(self._things)

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a glob."""
        return [name for name in self if fnmatchcase(name, pattern)]


def _source(thing: object) -> tuple[object, object]:
    """Where a class or function is written; for anything else itself."""
    return getattr(thing, "__module__", None), getattr(thing, "__qualname__", id(thing))
