"""What an operator says of itself, in words: for the gallery, the command line and the documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kintsugi.core.schema import KINDS
from kintsugi.imperfect.operator import CROSS, OPERATORS, AnyOperator, CrossOperator, Levels, list_corruptions

SEVERITIES = (1, 2, 3, 4, 5)


def kinds() -> list[str]:
    """Kinds that have an operator, in the order of the schema, cross-modal last."""
    return [kind for kind in (*KINDS, CROSS) if list_corruptions(kind)]


def of_kind(kind: str) -> list[str]:
    """Keys of its operators, sorted."""
    return [key for key in OPERATORS if OPERATORS[key].kind == kind]


def spoken(value: Any) -> str:
    """A parameter as people write it: four digits, ``(1, 2)`` for several values."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {spoken(each)}" for name, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"({', '.join(map(spoken, value))})"
    return str(value)


def level(levels: Levels, severity: int) -> str:
    """The parameters of one severity: ``sd 0.08, clip yes``."""
    return ", ".join(f"{name} {spoken(value)}" for name, value in levels[severity].items())


def parameter_rows(operator: AnyOperator) -> Iterator[tuple[str, str, list[str]]]:
    """Preset, name of the parameter, and its values at severities 1 to 5."""
    for preset, levels in operator.parameters.items():
        for name in levels[1]:
            yield preset, name, [spoken(levels[s][name]) for s in SEVERITIES]


def flags(operator: AnyOperator) -> list[tuple[str, str]]:
    """Short words with what they mean, for what is special about it."""
    found = []
    if operator.differentiable:
        found.append(("differentiable", "gradients reach the clean input"))
    if not operator.random:
        found.append(("no draws", "every row is damaged alike"))
    if operator.gaps:
        found.append(("leaves gaps", "what is lost is taken off the mask"))
    if changes_labels(operator):
        found.append(("labels", "the target changes, not the inputs"))
    if operator.not_monotone:
        found.append(("not monotone", operator.not_monotone))
    return found


def changes_labels(operator: AnyOperator) -> bool:
    """Does it change targets?"""
    return issubclass(operator, CrossOperator) and operator.relabel is not CrossOperator.relabel


def example(key: str) -> str:
    """A spec that a user may copy."""
    operator = OPERATORS[key]
    if not issubclass(operator, CrossOperator):
        return f"{key}({operator.kind}, 3)"
    if operator.most == 0 or operator.least == 0:
        return f"{key}(severity=3)"
    names = ("speech", "image", "text", "sensor")
    return f"{key}({'+'.join(names[: operator.least])}, 3)"


def docstring(operator: AnyOperator) -> str:
    """Its docstring without indentation; empty where it has none of its own."""
    return inspect.cleandoc(vars(operator).get("__doc__") or "")


def plain(text: str) -> str:
    """reStructuredText of a docstring as plain text: references become names, literals lose their quotes."""
    text = re.sub(r":\w+(?::\w+)?:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return re.sub(r"``(.+?)``", r"\1", text, flags=re.S)


def paragraphs(text: str) -> list[str]:
    """Paragraphs, each on one line; indented blocks and lists keep their lines."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        keep = any(line.startswith((" ", "- ", "* ", ">>>", "|")) for line in lines)
        found.append("\n".join(lines) if keep else " ".join(line.strip() for line in lines))
    return [block for block in found if block]
