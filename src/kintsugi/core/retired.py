"""Names of before: they are still read, with a warning that tells the name of today.

The glossary in the documentation lists old and new; no class, function, argument or field of today bears an old one.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kintsugi.core.errors import ConfigError

C = TypeVar("C", bound=type)

# Public names, by the package that hands them on.
NAMES: Mapping[str, Mapping[str, str]] = {
    "kintsugi": {"Part": "Component", "Lab": "Fixture", "check_of": "claims_of", "contract": "testing"},
    "kintsugi.core": {"Part": "Component", "Lab": "Fixture", "check_of": "claims_of"},
}


def warn(old: str, new: str, stacklevel: int = 3) -> None:
    """Tell the caller of the caller what a name is called now."""
    warnings.warn(f"{old} is called {new} now", DeprecationWarning, stacklevel=stacklevel + 1)


def renamed_arguments(**renamed: str) -> Callable[[C], C]:
    """Class decorator: the constructor reads arguments of before, ``old=new``, with a warning.

    Raises (when the class is made an instance of):
        ConfigError: an argument is given under both names.
    """

    def add(cls: C) -> C:
        plain = cls.__init__  # type: ignore[misc]

        @functools.wraps(plain)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            for old in renamed.keys() & kwargs.keys():
                new = renamed[old]
                if new in kwargs:
                    raise ConfigError(
                        f"{cls.__name__}: {old}= is called {new}= now, and both are given; leave {old}= out"
                    )
                warn(f"{cls.__name__}({old}=…)", f"{new}=", 2)
                kwargs[new] = kwargs.pop(old)
            plain(self, *args, **kwargs)

        cls.__init__ = init  # type: ignore[misc]
        return cls

    return add
