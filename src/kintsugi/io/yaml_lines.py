"""YAML with the line of everything in it, so that an error can say where it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.io.files import read_bounded

DEEPEST = 50  # levels, one inside the other; what we read has five
MOST_BYTES = 4 << 20  # of a file: some ten thousand columns by name have a tenth of it; PyYAML reads it in a minute
LARGEST = 2**63  # a whole number beyond is refused: nothing that we read takes one, and 10**400 is no float either
_NO_VALUES = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")  # << and =, which mean something as keys only


def read_text(path: Path) -> str:
    """The content of a UTF-8 file of at most ``MOST_BYTES``.

    Raises:
        ConfigError: there is no such file, it is no regular file, larger, or not UTF-8.
    """
    try:
        content = read_bounded(path, MOST_BYTES, "file of settings").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    return content.replace("\r\n", "\n").replace("\r", "\n")


def document(content: str, name: str) -> tuple[Any, Any]:
    """The root node, which knows its lines, and the plain values; None, None of an empty text.

    Whatever PyYAML raises on the way becomes one error: on ``!!int x`` or 2001-99-99 its constructors raise what Python's
    ``int`` and ``datetime`` do.

    Args:
        content: one YAML document of plain values. name: of the file, for errors.

    Raises:
        ConfigError: with name and line: not YAML, a tag, a value that is not what it claims to be, a number beyond 64 bits,
            a key that is there twice, an alias (a few merged ones have values without end), or more than 50 levels deep.
    """
    try:
        _look_through(content, name)
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        _each(name, node)
        return node, yaml.safe_load(content)
    except ConfigError:
        raise
    except Exception as error:  # the foreign parser raises anything
        raise _not_yaml(name, error) from error


def word_value(word: str, name: str) -> Any:
    """The value of a word of the command line, as YAML gives it; 1e-3 is a number too, which YAML takes for text.

    Raises:
        ConfigError: as :func:`document`.
    """
    try:
        _, value = document(word, name)
    except ConfigError as error:
        why = str(error).removeprefix(f"{name}, line 1: ").removeprefix("not YAML: ")
        raise ConfigError(f"{name}: {word[:60]!r} is not YAML as it is read here ({why})") from error
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _not_yaml(name: str, error: Exception) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if mark is not None else ""
    return ConfigError(f"{name}{where}: not YAML: {getattr(error, 'problem', None) or error or type(error).__name__}")


def _look_through(content: str, name: str) -> None:
    """What the loader would follow without end: read as a flat stream of events, before anything is built."""
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        where = f"{name}, line {line(event)}"
        if depth > DEEPEST:
            raise ConfigError(f"{where}: more than {DEEPEST} levels, one inside the other")
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{where}: *{event.anchor} refers to another part; write it out instead")


def _each(name: str, node: Any) -> None:
    """Every scalar is what it claims to be, and no key is there twice: YAML would take the last one and drop the others."""
    if isinstance(node, yaml.ScalarNode):
        _scalar(name, node)
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _each(name, child)
    if isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, child in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConfigError(f"{name}, line {line(key)}: {key.value} is there twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            if not (isinstance(key, yaml.ScalarNode) and key.tag in _NO_VALUES):
                _each(name, key)
            _each(name, child)


def _scalar(name: str, node: yaml.ScalarNode) -> None:
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except yaml.YAMLError:
        raise
    except Exception as error:
        kind = node.tag.rpartition(":")[2]
        raise ConfigError(
            f"{name}, line {line(node)}: not YAML: {node.value[:60]!r} is no {kind} ({str(error)[:100]}); "
            "put it in quotes where it is text"
        ) from error
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(
            f"{name}, line {line(node)}: {node.value[:60]} is a number beyond 64 bits; put text in quotes"
        )


def line(node: Any, location: Sequence[Any] = ()) -> int:
    """The line, from 1, of a node, or of the key or item that a location under it leads to, as far as it exists."""
    mark = node.start_mark
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        mark, node = found[0].start_mark, found[1]
    return int(mark.line) + 1


def _child(node: Any, name: object) -> tuple[Any, Any] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(name)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(name, int) and name < len(node.value):
        return node.value[name], node.value[name]
    return None


def real(values: Any, location: Sequence[Any]) -> list[Any]:
    """The part of a location that is in the file; behind it pydantic names the alternatives that it tried."""
    found = []
    for part in location:
        inside = part in values if isinstance(values, dict) else isinstance(values, list) and isinstance(part, int)
        if not inside:
            break
        values = values[part]
        found.append(part)
    return found
