"""What a model is put through: named, serialisable lists of test conditions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, KintsugiError, UnknownName
from kintsugi.core.registry import Registry
from kintsugi.core.schema import Modality, Schema

MOST_MODALITIES = 12
MOST_MASKS = 1000  # a rate: by then the error of a mean over masks is a thirtieth of their spread
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Condition:
    """What is done to the test rows, beyond the holes that they have already.

    Args:
        name: unique in its protocol.
        group: ``clean``, ``subset``, ``rate/<mechanism>`` or ``corruption/<operator>(<modality>)``; what shares a group
            and has an ``x`` is one degradation curve.
        keep: modalities that stay; None: all. An empty tuple leaves nothing, so that the prior answers.
        missing: a mechanism such as ``mcar(0.3)`` that takes slots away.
        corruptions: operators such as ``gaussian_noise(image, 3)``, applied in this order.
        seed: of the mechanism and of the operators.
        x: position on a degradation curve: rate or severity.
    """

    name: str
    group: str
    keep: tuple[str, ...] | None = None
    missing: str | None = None
    corruptions: tuple[str, ...] = ()
    seed: int = 0
    x: float | None = None

    @property
    def clean(self) -> bool:
        """Nothing is done to the data."""
        return self.keep is None and self.missing is None and not self.corruptions

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Condition:
        """The way back; absent keys take their defaults."""
        known = set(cls.__dataclass_fields__)
        for key in saved:
            if key not in known:
                raise UnknownName("field of a condition", key, known)
        keep = saved.get("keep")
        return cls(
            **{
                **saved,
                "keep": None if keep is None else tuple(keep),
                "corruptions": tuple(saved.get("corruptions", ())),
            }
        )


@dataclass(frozen=True)
class Protocol:
    """A named list of conditions."""

    name: str
    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        if not self.conditions:
            raise ConfigError(f"protocol {self.name!r} has no conditions")
        seen: set[str] = set()
        for condition in self.conditions:
            if condition.name in seen:
                raise ConfigError(f"protocol {self.name!r} has two conditions named {condition.name!r}")
            seen.add(condition.name)

    def __len__(self) -> int:
        return len(self.conditions)

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` is the way back."""
        return {"name": self.name, "conditions": [c.to_json() for c in self.conditions]}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Protocol:
        """The protocol that :meth:`to_json` wrote."""
        return cls(saved["name"], tuple(Condition.from_json(c) for c in saved["conditions"]))


About = Schema | Data
Builder = Callable[..., Protocol]
PROTOCOLS: Registry[Builder] = Registry("protocol", "kintsugi.evaluation")
CLEAN = Condition("clean", "clean", x=0.0)


@PROTOCOLS.register("clean")
def clean(about: About) -> Protocol:
    """The data as it is, and nothing else."""
    return Protocol("clean", (CLEAN,))


@PROTOCOLS.register("subsets")
def subsets(about: About) -> Protocol:
    """Every non-empty subset of the modalities, 2^M - 1 in all: the full one first, as ``clean``, then by size.

    Raises:
        ConfigError: more than 12 modalities.
    """
    names = _schema(about).names
    if len(names) > MOST_MODALITIES:
        raise ConfigError(
            f"protocol 'subsets' tries every subset, and {len(names)} modalities have {2 ** len(names) - 1:,} of them; "
            f"it takes at most {MOST_MODALITIES}. Use protocol 'rates', or a Protocol of the subsets that matter"
        )
    smaller = [keep for size in range(len(names) - 1, 0, -1) for keep in combinations(names, size)]
    return Protocol("subsets", (CLEAN, *(Condition(" + ".join(keep), "subset", keep=keep) for keep in smaller)))


@PROTOCOLS.register("rates")
def rates(about: About, *wanted: float, seeds: int = 1) -> Protocol:
    """Slots missing completely at random, at least one kept in each row, at rates from 0 up.

    Where one slot of each row stays, no rate above 1 - rows / observed slots can be reached; for complete rows of M
    modalities that is 1 - 1/M. The default 0, 0.1, … 0.9 stops there.

    Args:
        about: the modalities, or data with them.
        wanted: shares of the observed slots; default as above.
        seeds: masks drawn a rate.

    Raises:
        ConfigError: a rate that cannot be reached, or a number of seeds that is not 1 to 1,000.
    """
    most = _most(about)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= MOST_MASKS:
        raise ConfigError(f"protocol 'rates' draws 1 to {MOST_MASKS:,} masks a rate, not seeds={seeds!r}")
    for rate in wanted:
        if not 0 <= float(rate) <= most:
            raise ConfigError(
                f"rate {rate:g} cannot be reached: where every row keeps a slot, rates go from 0 to {most:.4g} here"
            )
    chosen = sorted({float(r) for r in wanted}) if wanted else [r / 10 for r in range(10) if r / 10 <= most]
    conditions = [CLEAN]
    for rate in chosen:
        for seed in range(seeds if rate else 0):
            name = f"mcar({rate:g})" + (f" mask {seed}" if seeds > 1 else "")
            conditions.append(Condition(name, "rate/mcar", missing=f"mcar({rate:g})", seed=seed, x=rate))
    return Protocol(_called("rates", wanted, {} if seeds == 1 else {"seeds": seeds}), tuple(conditions))


def _most(about: About) -> float:
    if isinstance(about, Schema):
        most = 1 - 1 / len(about)
    else:
        observed = int(about.present.sum())
        most = (observed - int(about.present.any(1).sum())) / max(observed, 1)
    return math.floor(most * 1e4 + 1e-6) / 1e4  # rounded down, so that it can be reached


def _check_severities(severities: Sequence[int]) -> None:
    for severity in severities:
        if severity not in SEVERITIES:
            raise ConfigError(f"severity {severity} does not exist; severities are 1 to 5")


@PROTOCOLS.register("corruptions")
def corruptions(about: About, *chosen: int | str) -> Protocol:
    """Every registered operator that fits a modality, at each severity, one modality at a time; clean first.

    What needs a value that only a user knows (files of noise) is left out.

    Args:
        about: the modalities, or data with them.
        chosen: severities (default 1 to 5) and names of operators (default all).

    Raises:
        UnknownName: no such operator for any of these modalities.
        ConfigError: a severity that does not exist, or no operator for any of these modalities.
    """
    severities = tuple(sorted({c for c in chosen if not isinstance(c, str)})) or SEVERITIES
    damaged = _corrupted(_schema(about), severities, [c for c in chosen if isinstance(c, str)])
    if not damaged:
        kinds = ", ".join(sorted({m.kind for m in _schema(about).modalities}))
        raise ConfigError(f"no corruption is registered for any of these modalities ({kinds})")
    return Protocol(_called("corruptions", chosen), (CLEAN, *damaged))


def _corrupted(schema: Schema, severities: Sequence[int], operators: Sequence[str]) -> list[Condition]:
    from kintsugi.imperfect import OPERATORS, list_corruptions
    from kintsugi.imperfect.spec import word

    _check_severities(severities)
    fitting = {m.name: [key for key in list_corruptions(m.kind) if fits(OPERATORS[key], m)] for m in schema.modalities}
    known = sorted({operator for fit in fitting.values() for operator in fit})
    for operator in operators:
        if operator not in known:
            raise UnknownName("corruption for these modalities", operator, known)
    conditions = []
    for modality, fit in fitting.items():
        for operator in fit:
            for severity in severities if not operators or operator in operators else ():
                spec = f"{operator}({word(modality)}, {severity})"
                group = f"corruption/{operator}({modality})"
                conditions.append(Condition(spec, group, corruptions=(spec,), x=float(severity)))
    return conditions


# A few operators a kind, chosen for variety (proposed here): one each of the ways in which a sensor, a channel or a
# person goes wrong, rather than many of one family.
SPREAD: Mapping[str, tuple[str, ...]] = {
    "image": ("gaussian_noise", "motion_blur", "fog", "jpeg_compression", "occlusion"),
    "audio": ("white_noise", "babble", "reverberation", "packet_loss", "clipping"),
    "text": ("keyboard_typos", "ocr_errors", "word_drop", "truncation"),
    "tabular": ("cells_missing", "outliers", "unit_error"),
    "series": ("sensor_noise", "drift", "dropout_bursts", "stuck_at"),
    "vector": ("feature_noise", "feature_dropout"),
}
STANDARD_SEVERITIES = (1, 3, 5)
STANDARD_RATES = (0.1, 0.3, 0.5, 0.7)
FEW_MODALITIES = 5


@PROTOCOLS.register("standard")
def standard(about: About, *severities: int) -> Protocol:
    """A bit of everything: clean, subsets, rates, and for each modality a spread of corruptions (``SPREAD``).

    Subsets are all of them for up to 5 modalities, else each modality left out and each alone. Rates are those of 0.1, 0.3,
    0.5, 0.7 that leave a slot in every row. An operator that does not fit a modality (typing errors in tokens of a
    vocabulary that is not bytes) is left out.

    Args:
        about: the modalities, or data with them.
        severities: of the corruptions; default 1, 3, 5.

    Raises:
        ConfigError: a severity that does not exist, or an operator of the spread that is not registered.
    """
    schema, most = _schema(about), _most(about)
    reachable = [rate for rate in STANDARD_RATES if rate <= most]
    damaged = spread(schema, SPREAD, tuple(sorted(set(severities))) or STANDARD_SEVERITIES)
    return Protocol(
        _called("standard", severities),
        (
            *_few_subsets(about),
            *(rates(about, *reachable).conditions[1:] if reachable else ()),
            *damaged,
        ),
    )


def _few_subsets(about: About) -> tuple[Condition, ...]:
    names = _schema(about).names
    if len(names) <= FEW_MODALITIES:
        return subsets(about).conditions
    found = [tuple(n for n in names if n != out) for out in names] + [(name,) for name in names]
    return (CLEAN, *(Condition(" + ".join(keep), "subset", keep=keep) for keep in found))


def spread(schema: Schema, operators: Mapping[str, Sequence[str]], severities: Sequence[int]) -> list[Condition]:
    """Conditions of these operators (kind -> names) for each modality of the kind, one modality at a time.

    Raises:
        ConfigError: a severity that does not exist, or an operator that is not registered.
    """
    from kintsugi.imperfect import OPERATORS
    from kintsugi.imperfect.spec import word

    _check_severities(severities)
    conditions = []
    for modality in schema.modalities:
        for operator in operators.get(modality.kind, ()):
            if operator not in OPERATORS:
                raise ConfigError(
                    f"this protocol needs the corruption {operator!r}, and no such operator is registered"
                )
            if not fits(OPERATORS[operator], modality):
                continue
            for severity in severities:
                spec = f"{operator}({word(modality.name)}, {severity})"
                group = f"corruption/{operator}({modality.name})"
                conditions.append(Condition(spec, group, corruptions=(spec,), x=float(severity)))
    return conditions


def fits(operator: Any, modality: Modality) -> bool:
    """Can this operator be applied to this modality, without a value that only a user knows, such as a path?"""
    if None in operator.options.values():
        return False
    try:
        operator().check(modality)
    except ConfigError:
        return False
    return True


def get_protocol(protocol: str | Protocol, about: About) -> Protocol:
    """A protocol for these modalities: ``subsets``, ``rates(0.1, 0.5)``, ``corruptions(3, 5)`` or a :class:`Protocol`.

    Published settings have protocols of their names: see :mod:`kintsugi.evaluation.published`.

    Args:
        protocol: see above.
        about: a schema, or data: then rates stop at what its rows can lose.

    Raises:
        UnknownName: no such protocol, or it keeps a modality that the schema lacks.
        ConfigError: an argument that the protocol does not take.
    """
    if isinstance(protocol, Protocol):
        found = protocol
    elif (named := _published(protocol, about)) is not None:
        found = named
    else:
        name, values, options = _parse(protocol)
        try:
            found = PROTOCOLS[name](about, *values, **options)
        except KintsugiError:
            raise
        except (
            TypeError,
            ValueError,
            OverflowError,
        ) as error:  # a word where a number should be, or far too large a one
            raise ConfigError(f"protocol {protocol[:200]!r}: {error}") from error
    for condition in found.conditions:
        for modality in condition.keep or ():
            _schema(about).column(modality)
    return found


def _published(name: str, about: About) -> Protocol | None:
    from kintsugi.evaluation.published import published_protocol

    return published_protocol(name, about)


def _schema(about: About) -> Schema:
    return about if isinstance(about, Schema) else about.schema


def _parse(spec: str) -> tuple[str, list[Any], dict[str, Any]]:
    """``name(1, word, key=2)`` -> name, values, options."""
    from kintsugi.imperfect.spec import literal

    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", spec)
    if match is None:
        raise UnknownName("protocol", spec[:200], PROTOCOLS)
    values: list[Any] = []
    options: dict[str, Any] = {}
    for piece in filter(None, (p.strip() for p in (match[2] or "").split(","))):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if equals:
            options[key] = literal(value)
        else:
            values.append(literal(key))
    return match[1], values, options


def _called(name: str, values: Sequence[float | str], options: Mapping[str, Any] | None = None) -> str:
    said = [v if isinstance(v, str) else f"{v:g}" for v in values]
    said += [f"{key}={value}" for key, value in (options or {}).items()]
    return f"{name}({', '.join(said)})" if said else name
