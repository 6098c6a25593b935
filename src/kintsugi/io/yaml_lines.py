"""YAML with the line of everything in it, so that an error can say where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kintsugi.core.errors import ConfigError

DEEPEST = 50


def read_text(path: Path) -> str:
    """The content of a UTF-8 file.

    Raises:
        ConfigError: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: Is a directory") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error


def document(content: str, name: str, aliases: bool = True) -> tuple[Any, Any]:
    """The root node, which knows its lines, and the plain values; None, None of an empty text.

    Args:
        content: one YAML document of plain values. name: of the file, for errors. aliases: may it refer to parts of itself?

    Raises:
        ConfigError: with name and line: not YAML, a tag, a key that is there twice, an alias where there may be none, or
            more than 50 levels deep.
    """
    try:
        _look_through(content, name, aliases)
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        values = yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{name}{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    _once(name, node, set())
    return node, values


def _look_through(content: str, name: str, aliases: bool) -> None:
    """What the loader would follow without end: read as a flat stream of events, before anything is built."""
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        where = f"{name}, line {line(event)}"
        if depth > DEEPEST:
            raise ConfigError(f"{where}: more than {DEEPEST} levels, one inside the other")
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise ConfigError(f"{where}: *{event.anchor} refers to another part; write it out instead")


def _once(name: str, node: Any, met: set[int]) -> None:
    """YAML would take the last of two equal keys and drop the others."""
    if id(node) in met:
        return
    met.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _once(name, child, met)
    if isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, child in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConfigError(f"{name}, line {line(key)}: {key.value} is there twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            _once(name, child, met)


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
