"""One spelling for what can be written in several ways, so that what is trained alike is one trial."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.bench.job import COMPLETE
from kintsugi.core.errors import KintsugiError, UnknownName

if TYPE_CHECKING:
    from kintsugi.evaluation.protocols import About, Protocol

SINGLE = ("32", "32-true", "32-full", 32)  # what Lightning Fabric calls float32, which is what None asks for


def training_spelling(text: str) -> str:
    """``mcar(0.30)`` as ``mcar(0.3)``; a text that stands for more than it can say, as ``given(PATH)``, as it is written.

    Raises:
        UnknownName: neither a mechanism, a corruption nor a published setting.
        ConfigError, DataError: of its arguments.
    """
    from kintsugi.imperfect import MECHANISMS, OPERATORS, parse_mechanism
    from kintsugi.imperfect.corruption import parse_corruption
    from kintsugi.imperfect.published import SETTINGS, published

    text = text.strip()
    if text == COMPLETE:
        return text
    name = text.partition("(")[0].strip()
    if name in OPERATORS:
        parse: Callable[[str], Any] = parse_corruption
    elif name in MECHANISMS or published(text) is not None:
        parse = parse_mechanism
    else:
        raise UnknownName("training condition", name, [COMPLETE, *MECHANISMS, *OPERATORS, *SETTINGS])
    value = parse(text)
    same = str(value)
    if name in MECHANISMS and same.partition("(")[0] != name:  # made by another one, whose version does not tell all
        return text
    try:
        return same if parse(same) == value else text
    except KintsugiError:  # its text names what it holds, and cannot be read back
        return text


def protocol_spelling(text: str, about: About) -> Protocol:
    """The protocol of a text; under its bare name where the arguments are what it does without them.

    Raises:
        UnknownName, ConfigError: as :func:`~kintsugi.evaluation.protocols.get_protocol`.
    """
    from kintsugi.evaluation.protocols import PROTOCOLS, get_protocol
    from kintsugi.imperfect.published import published

    text = text.strip()
    name = text.partition("(")[0].strip()
    if text not in PROTOCOLS and (setting := published(text)) is not None:
        return get_protocol(str(setting), about)
    protocol = get_protocol(text, about)
    if name == text:
        return protocol
    try:
        plain = get_protocol(name, about)
    except KintsugiError:  # it needs arguments
        return protocol
    return plain if plain.conditions == protocol.conditions else protocol


def without_folders(text: str) -> str:
    """A text whose quoted files are named without their folders: files count by content, wherever they lie."""
    files = {word for word in quoted(text) if word != Path(word).name and _exists(word)}
    if not files:
        return text
    tree = ast.parse(text.strip(), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in files:
            node.value = Path(str(node.value)).name
    return ast.unparse(tree)


def quoted(text: str) -> list[str]:
    """The quoted words in a text such as ``file_noise(sound, 3, files='noise/')``; nothing where it is not of that form."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return []
    words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [word for word in words if isinstance(word, str)]


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def trainer_spelling(values: Mapping[str, Any]) -> dict[str, Any]:
    """``cpu:0`` as ``cpu``, ``32-true`` as None, and 3.0 as 3 where the trainer counts."""
    from kintsugi.training.trainer import Trainer

    counts = {f.name for f in fields(Trainer) if {"int", "int | None"} & {str(f.type)}}
    spelt = {name: _whole(value) if name in counts else value for name, value in values.items()}
    if str(spelt.get("device")).startswith("cpu:"):
        spelt["device"] = "cpu"
    if spelt.get("precision") in SINGLE:
        spelt["precision"] = None
    return spelt


def params_spelling(method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """32.0 as 32 where the method's default is a whole number."""
    from kintsugi.core.methods import METHODS, arguments

    usual = arguments(METHODS[method])
    counts = {name for name, value in usual.items() if isinstance(value, int) and not isinstance(value, bool)}
    return {name: _whole(value) if name in counts else value for name, value in values.items()}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
