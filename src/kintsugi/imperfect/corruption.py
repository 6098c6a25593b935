"""Corruption of inputs: what users call. Operators are listed by kind of modality; specs are values, text or YAML.

>>> corrupt("gaussian_noise", "image", 3)
>>> parse_corruption("gaussian_noise(image, 3) + sometimes(white_noise(speech, 2), share=0.5)")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.imperfect.combine import Compose, Correlated, OneOf, Plans, Sometimes
from kintsugi.imperfect.corrupt.text import corrupt_texts, rewritten
from kintsugi.imperfect.distortion import Corruption, Distortion
from kintsugi.imperfect.file import load_corruption
from kintsugi.imperfect.operator import (
    OPERATORS,
    CrossOperator,
    Levels,
    Operator,
    check_severity,
    levels,
    list_corruptions,
)
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.spec import Call, calls

__all__ = [
    "OPERATORS",
    "Compose",
    "Correlated",
    "Corruption",
    "CrossOperator",
    "Distortion",
    "Levels",
    "OneOf",
    "Operator",
    "Plan",
    "Plans",
    "Sometimes",
    "check_severity",
    "corrupt",
    "corrupt_texts",
    "levels",
    "list",
    "list_corruptions",
    "load_corruption",
    "parse_corruption",
    "rewritten",
]


def corrupt(
    operator: str, modality: str | Sequence[str] = (), severity: int = 3, preset: str | None = None, **given: Any
) -> Corruption:
    """A corruption of one modality: ``corrupt("gaussian_noise", "image", 3)``; cross-modal ones take several or none.

    Args:
        operator: see :func:`list_corruptions`. modality: a name of the schema, or several.
        severity: 1 (mild) to 5 (severe); 0 does nothing.
        preset: which of the operator's parameter tables; default: by what the modality looks like.
        given: values in place of those of the level: ``corrupt("gaussian_noise", "image", sd=0.07)``.

    Raises:
        UnknownName: no such operator, preset or parameter.
        ConfigError: the severity is out of range, or the operator takes another number of modalities.
    """
    names = modality if isinstance(modality, str) or not isinstance(modality, Sequence) else tuple(modality)
    return Corruption(operator, names, severity, preset, tuple(sorted(given.items())))


def parse_corruption(spec: Distortion | str | Mapping[str, Any] | Sequence[Any]) -> Distortion:
    """From ``"gaussian_noise(image, 3)"``, ``{"gaussian_noise": {"modality": "image", "severity": 3}}`` or a list.

    Text may join several by ``+``; ``one_of(…, …)``, ``sometimes(…, share=0.5)`` and ``correlated(…, …, share=0.5,
    coupling=1)`` take others. str() is the way back.

    Raises:
        UnknownName: no such corruption.
        ConfigError: the spec cannot be read, or its arguments do not fit.
    """
    if isinstance(spec, Distortion):
        return spec
    if isinstance(spec, Call):
        return _made(spec)
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return Compose(tuple(parse_corruption(each) for each in spec))
    parts = tuple(_made(call) for call in calls(spec, nested=True))
    return parts[0] if len(parts) == 1 else Compose(parts)


def _one_of(*parts: Any, weights: Sequence[float] | None = None) -> OneOf:
    return OneOf(_parts(parts), None if weights is None else tuple(weights))


def _sometimes(part: Any, share: float = 0.5) -> Sometimes:
    return Sometimes(parse_corruption(part), share)


def _correlated(*parts: Any, share: float = 0.5, coupling: float = 1.0) -> Correlated:
    return Correlated(_parts(parts), share, coupling)


def _parts(given: Sequence[Any]) -> tuple[Distortion, ...]:
    return tuple(parse_corruption(part) for part in given)


_COMBINE: dict[str, Callable[..., Distortion]] = {"one_of": _one_of, "sometimes": _sometimes, "correlated": _correlated}


def _made(call: Call) -> Distortion:
    if call.name not in _COMBINE:
        if call.name == "rewritten":
            raise ConfigError(
                f"{call}: text cannot name a function; in Python, write rewritten(modality, function, name=…)"
            )
        if call.name not in OPERATORS:
            raise UnknownName("corruption", call.name, [*OPERATORS, *_COMBINE])
        return Call("corrupt", (call.name, *call.args), call.kwargs).apply(corrupt)
    kwargs = dict(call.kwargs)
    listed = kwargs.pop("parts", ())
    if isinstance(listed, str | Mapping) or not isinstance(listed, Sequence):
        raise ConfigError(f"parts of {call.name} is a list of corruptions, not {listed!r}")
    args = (*call.args, *listed)
    if not args and "part" not in kwargs:
        raise ConfigError(f"{call.name} needs corruptions, such as {call.name}(gaussian_noise(image, 3))")
    return Call(call.name, args, kwargs).apply(_COMBINE[call.name])


list = list_corruptions
