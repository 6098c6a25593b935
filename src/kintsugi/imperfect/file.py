"""Corruptions from a YAML file: a list or a mapping of what :func:`~kintsugi.imperfect.corruption.parse_corruption` reads.

.. code-block:: yaml

    - gaussian_noise(image, 3)
    - white_noise: {modality: speech, severity: 2}
    - one_of:
        parts:
          - keyboard_typos(note, 2)
          - keyboard_typos(note, 4)
        weights: [3, 1]
    - sometimes: {share: 0.3, part: "mismatched_pairs(image, 5)"}
    - correlated:
        - gaussian_noise(image, 5)
        - white_noise(speech, 5)

Inside ``[ ]`` and ``{ }`` a comma ends a word of YAML, so corruptions are quoted there. Nothing is run, and what
cannot be read is said with file and line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kintsugi.core.errors import ConfigError, KintsugiError, UnknownName, nearest
from kintsugi.imperfect.combine import Compose, Correlated, OneOf, Sometimes
from kintsugi.imperfect.distortion import Distortion
from kintsugi.imperfect.operator import OPERATORS, check_severity
from kintsugi.imperfect.spec import Call, share
from kintsugi.io.yaml_lines import document, line, read_text

T = TypeVar("T")
_QUOTE = "is cut off: a comma inside [ ] or { } ends a word, so quote it there: 'gaussian_noise(image, 3)'"
_COMBINE: dict[str, tuple[str, ...]] = {
    "one_of": ("parts", "weights"),
    "sometimes": ("part", "share"),
    "correlated": ("parts", "share", "coupling"),
}


def load_corruption(path: str | os.PathLike[str]) -> Distortion:
    """The corruption that a YAML file describes; several are applied in the order of the file.

    Raises:
        ConfigError: there is no such file, or it cannot be read; the message gives the line.
    """
    return loads(read_text(Path(path)), str(Path(path)))


def loads(content: str, name: str = "<text>") -> Distortion:
    """Likewise from YAML text; ``name`` stands for the file in errors.

    Raises:
        ConfigError: it cannot be read; the message gives the line.
    """
    node, _ = document(content, name)
    if node is None or (not node.value and not isinstance(node, yaml.ScalarNode)):
        raise ConfigError(f"{name} is empty; write corruptions such as: - gaussian_noise(image, 3)")
    return _File(name).distortion(node)


class _Located(ConfigError):
    """An error that names its line already."""


class _File:
    """Nodes of one file, as distortions."""

    def __init__(self, name: str) -> None:
        self.name = name

    def at(self, node: Any, make: Callable[[], T]) -> T:
        """What ``make`` gives; its errors get the line of the node."""
        try:
            return make()
        except _Located:
            raise
        except KintsugiError as error:
            raise self.wrong(node, str(error)) from error

    def wrong(self, node: Any, what: str) -> _Located:
        return _Located(f"{self.name}, line {line(node)}: {what}")

    def distortion(self, node: Any) -> Distortion:
        """A list or a mapping of specs, or one as text."""
        if isinstance(node, yaml.SequenceNode):
            parts = [self.distortion(each) for each in node.value]
        elif isinstance(node, yaml.MappingNode):
            parts = [self.named(key, value) for key, value in node.value]
        else:
            return self.text(node)
        if not parts:
            raise self.wrong(node, "here should be corruptions, such as gaussian_noise(image, 3)")
        return parts[0] if len(parts) == 1 else Compose(tuple(parts))

    def text(self, node: Any) -> Distortion:
        from kintsugi.imperfect.corruption import parse_corruption

        value = self.plain(node)
        if not isinstance(value, str):
            raise self.wrong(node, f"here should be a corruption, such as gaussian_noise(image, 3), not {value!r}")
        if value.count("(") > value.count(")"):
            raise self.wrong(node, f"{value!r} {_QUOTE}")
        return self.at(node, lambda: parse_corruption(value))

    def plain(self, node: Any) -> Any:
        """Numbers, text, lists and mappings of them."""
        loader = yaml.SafeLoader("")
        return loader.construct_object(node, deep=True)

    def named(self, key: Any, value: Any) -> Distortion:
        """``name: arguments``."""
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name in _COMBINE:
            return self.combined(key, name, value)
        if name not in OPERATORS:
            unknown = UnknownName("corruption", str(name), [*OPERATORS, *_COMBINE])
            raise self.wrong(key, str(unknown))
        return self.operator(key, str(name), value)

    # one operator --------------------------------------------------------------------------------------------------
    def operator(self, key: Any, name: str, value: Any) -> Distortion:
        from kintsugi.imperfect.corruption import parse_corruption

        if not isinstance(value, yaml.MappingNode):
            given = self.plain(value)
            arguments = () if given is None else tuple(given) if isinstance(given, list) else (given,)
            return self.at(key, lambda: parse_corruption(Call(name, arguments)))  # type: ignore[arg-type]
        kwargs = {}
        for word, child in value.value:
            known = self.known(word, name)
            kwargs[known] = self.checked(word, child, name)
        return self.at(key, lambda: parse_corruption(Call(name, (), kwargs)))  # type: ignore[arg-type]

    def known(self, key: Any, name: str) -> str:
        """A key that this operator takes."""
        kind = OPERATORS[name]
        known = ("modality", "severity", "preset", *kind.options, *next(iter(kind.parameters.values()))[3])
        return self.one_of_these(key, name, known)

    def one_of_these(self, key: Any, name: str, known: tuple[str, ...]) -> str:
        word = key.value if isinstance(key, yaml.ScalarNode) else "?"
        if ")" in str(word):
            raise self.wrong(key, f"{word!r} {_QUOTE}")
        if word not in known:
            raise self.wrong(key, f"unknown key {word!r} of {name}{nearest(str(word), known)}")
        return str(word)

    def checked(self, key: Any, child: Any, name: str) -> Any:
        """A value that fits its key."""
        word, value, kind = key.value, self.plain(child), OPERATORS[name]
        if word == "severity":
            self.at(child, lambda: check_severity(name, value))
        elif word == "modality":
            if not all(isinstance(one, str) for one in (value if isinstance(value, list) else [value])):
                raise self.wrong(
                    child, f"modality of {name} is the name of a modality, or a list of names, not {value!r}"
                )
        elif word == "preset":
            self.at(child, lambda: kind.check_values(None if value is None else str(value), {}))
        else:
            self.at(child, lambda: kind.check_values(None, {word: value}))
        return value

    # several -------------------------------------------------------------------------------------------------------
    def combined(self, key: Any, name: str, value: Any) -> Distortion:
        parts_key, *others = _COMBINE[name]
        if not isinstance(value, yaml.MappingNode) or not self.has_keys_of(value, name):
            return self.at(key, lambda: _made(name, self.parts(value, name), {}))
        children = {self.one_of_these(word, name, _COMBINE[name]): child for word, child in value.value}
        if parts_key not in children:
            raise self.wrong(key, f"{name} lacks {parts_key}:, the corruptions that it takes")
        parts = self.parts(children[parts_key], name)
        kwargs = {word: self.number(children[word], word, name) for word in others if word in children}
        return self.at(children.get("weights", key), lambda: _made(name, parts, kwargs))

    def has_keys_of(self, node: Any, name: str) -> bool:
        """Arguments of a combination, rather than corruptions by name?"""
        words = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        return not words or not all(word in OPERATORS or word in _COMBINE for word in words)

    def parts(self, node: Any, name: str) -> tuple[Distortion, ...]:
        if name == "sometimes":
            return (self.distortion(node),)
        if isinstance(node, yaml.SequenceNode) and node.value:
            return tuple(self.distortion(each) for each in node.value)
        if isinstance(node, yaml.MappingNode) and node.value:
            return tuple(self.named(key, value) for key, value in node.value)
        raise self.wrong(node, f"{name} takes a list of corruptions")

    def number(self, node: Any, word: str, name: str) -> Any:
        value = self.plain(node)
        if word == "weights":
            if not isinstance(value, list) or not all(_is_number(one) for one in value):
                raise self.wrong(node, f"weights of {name} are a list of numbers, one for each part, not {value!r}")
            return tuple(value)
        return self.at(node, lambda: share(f"the {word} of {name}", value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _made(name: str, parts: tuple[Distortion, ...], kwargs: Mapping[str, Any]) -> Distortion:
    if name == "sometimes":
        return Sometimes(parts[0], **kwargs)
    return OneOf(parts, **kwargs) if name == "one_of" else Correlated(parts, **kwargs)
