"""JSON from files that others wrote: one error with the file and the line, whatever Python's parser raises."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kintsugi.core.errors import DataError

DEEPEST = 100  # levels, one inside the other; what we write has ten, and Python's own functions end at about a thousand
LARGEST = 2**63  # SQLite, Arrow and NumPy hold whole numbers of 64 bits

Path = tuple[str | int, ...]


def read_json(content: bytes | str, name: str) -> Any:
    """The values of a JSON text. Its size is for the caller to bound: :func:`kintsugi.io.files.read_bounded`.

    Args:
        content: the text, in UTF-8 where it is bytes. name: of the file, for errors.

    Raises:
        DataError: with name and, where there is one, line: not JSON, not UTF-8, a key that is twice in one object, a number
            of more than 4,300 digits, or more than 100 levels deep.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        values = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise DataError(f"{name}, line {error.lineno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name} cannot be read: not UTF-8 ({error}); save it as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{name}: nested too deeply") from error
    except Exception as error:  # such as ValueError of a number without end, or MemoryError
        raise DataError(f"{name}: not JSON as it is read here: {str(error)[:200] or type(error).__name__}") from error
    if next(odd(values, lambda _: False), None) is not None:
        raise DataError(f"{name}: nested too deeply: more than {DEEPEST} levels, one inside the other")
    return values


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the field {key!r} stands twice in one object")
        values[key] = value
    return values


def odd(values: Any, is_odd: Callable[[Any], bool]) -> Iterator[tuple[Path, Any]]:
    """Where values, or keys, of a JSON text are odd, and what they are; also what is more than 100 levels deep.

    Without recursion, since depth is what the text decides.
    """
    waiting: list[tuple[Path, Any]] = [((), values)]
    while waiting:
        path, value = waiting.pop()
        if len(path) > DEEPEST:
            yield path, value
        elif isinstance(value, dict):
            for key, child in value.items():
                if is_odd(key):
                    yield path, key
                waiting.append(((*path, key), child))
        elif isinstance(value, list):
            waiting += [((*path, place), child) for place, child in enumerate(value)]
        elif is_odd(value):
            yield path, value


def cannot_be_kept(value: Any) -> bool:
    """A whole number beyond 64 bits, or text that UTF-8 cannot hold: half of a pair, such as ``"\\ud800"``."""
    if isinstance(value, str):
        return not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, int) and not -LARGEST <= value < LARGEST


__all__ = ["DEEPEST", "LARGEST", "cannot_be_kept", "odd", "read_json"]
