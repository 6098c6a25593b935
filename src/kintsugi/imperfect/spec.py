"""Imperfections as text: ``mcar(0.3)`` or ``{"mcar": {"rate": 0.3}}`` is a name with arguments. Nothing is run."""

from __future__ import annotations

import ast
import inspect
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeVar

from kintsugi.core.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A name with its arguments."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.name}({', '.join(words)})"

    def apply(self, make: Callable[..., T]) -> T:
        """``make`` with these arguments.

        Raises:
            ConfigError: they do not fit its signature.
        """
        try:
            signature = inspect.signature(make)
            signature.bind(*self.args, **self.kwargs)
        except TypeError as error:
            raise ConfigError(f"{self}: {error}; the arguments are ({', '.join(signature.parameters)})") from error
        return make(*self.args, **self.kwargs)


def calls(spec: str | Mapping[str, Any], nested: bool = False) -> list[Call]:
    """The calls that a spec names; text may hold several, joined by ``+``.

    Bare words are text: ``pattern(image, clue)``. ``+`` between words makes a list: ``pattern(image+clue)``. With
    ``nested``, an argument may be a call itself. A mapping has one key, the name, and one value: a mapping of arguments,
    a list of them, a single one, or None.

    Raises:
        ConfigError: the spec is none of these.
    """
    if isinstance(spec, str):
        return _from_text(spec, nested)
    if not isinstance(spec, Mapping) or len(spec) != 1 or not isinstance(next(iter(spec)), str):
        raise ConfigError(f"cannot read {spec!r}; write name(arguments) or {{name: {{argument: value}}}}")
    ((name, value),) = spec.items()
    if value is None:
        return [Call(name)]
    if isinstance(value, Mapping):
        return [Call(name, (), {str(key): v for key, v in value.items()})]
    return [Call(name, tuple(value) if isinstance(value, list | tuple) else (value,))]


def word(name: str) -> str:
    """A name as :func:`calls` reads it back: bare where it can be, else quoted."""
    return name if name.isidentifier() and not keyword.iskeyword(name) else repr(name)


def share(what: str, value: object) -> float:
    """``value`` if it is a number in [0, 1].

    Raises:
        ConfigError: it is not; the message names ``what``.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ConfigError(f"{what} must be a share between 0 and 1, not {value!r}")
    return float(value)


def _from_text(text: str, nested: bool) -> list[Call]:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return [_call(node, nested) for node in _terms(tree)]
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"cannot read {text!r}; write name(arguments), such as mcar(0.3) or pattern(image, text)"
        ) from error


def _terms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _call(node: ast.expr, nested: bool) -> Call:
    if isinstance(node, ast.Name):
        return Call(node.id)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("not a call")
    kwargs: dict[str, Any] = {}
    for item in node.keywords:
        if item.arg is None:
            raise ValueError("** is not read")
        kwargs[item.arg] = _value(item.value, nested)
    return Call(node.func.id, tuple(_value(each, nested) for each in node.args), kwargs)


def _value(node: ast.expr, nested: bool) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call) and nested:
        return _call(node, nested)
    terms = _terms(node)
    if len(terms) > 1:
        return [_value(term, nested) for term in terms]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(each, nested) for each in node.elts]
    return ast.literal_eval(node)
