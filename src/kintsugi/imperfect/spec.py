"""Imperfections as text: ``mcar(0.3)`` or ``{"mcar": {"rate": 0.3}}`` is a name with arguments. Nothing is run."""

from __future__ import annotations

import ast
import inspect
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeVar

from kintsugi.core.errors import ConfigError, KintsugiError

T = TypeVar("T")
LONGEST = 10_000  # letters: a path has 4,096 at most, and names and numbers around it some hundred
DEEPEST = (
    50  # brackets, one inside the other, as in YAML; Python's parser ends a process with deeper ones or refuses them
)
LARGEST = 2**63  # whole numbers beyond are refused: 10**400 is no float


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
        try:
            return make(*self.args, **self.kwargs)
        except KintsugiError:
            raise
        except (TypeError, ValueError, OverflowError, AttributeError) as error:  # a number where names should be
            shown = str(self) if len(str(self)) <= 200 else str(self)[:200] + "…"
            raise ConfigError(f"{shown}: {error}; the arguments are ({', '.join(signature.parameters)})") from error


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
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ConfigError(f"{what} must be a share between 0 and 1, not {value!r}")
    return float(value)


def _from_text(text: str, nested: bool) -> list[Call]:
    try:
        tree = _parsed(text.strip())
        return [_call(node, nested) for node in _terms(tree)]
    except Exception as error:  # Python's parser raises anything: MemoryError, RecursionError, TypeError
        shown = repr(text if len(text) <= 200 else text[:200] + "…")
        why = f" ({error})" if type(error) is ValueError else ""
        raise ConfigError(
            f"cannot read {shown}{why}; write name(arguments), such as mcar(0.3) or pattern(image, text)"
        ) from error


def literal(text: str) -> Any:
    """The number, text, list, tuple, mapping, True, False or None that ``text`` is in Python; else the text itself."""
    try:
        return _plain(_parsed(text.strip()))
    except Exception:  # as above; what is no value is a word
        return text


def _parsed(text: str) -> ast.expr:
    """The expression of a text whose size has been looked at."""
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} letters, and at most {LONGEST:,} are read")
    depth = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} brackets, one inside the other")
    return ast.parse(text, mode="eval").body


def _plain(node: ast.expr) -> Any:
    value = ast.literal_eval(node)
    _check(value)
    return value


def _check(value: Any) -> None:
    """Values that JSON and YAML have too."""
    if isinstance(value, list | tuple):
        for each in value:
            _check(each)
    elif isinstance(value, dict):
        _check([*value, *value.values()])
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("a number beyond 64 bits")
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"a value of type {type(value).__name__}")


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
    return _plain(node)
