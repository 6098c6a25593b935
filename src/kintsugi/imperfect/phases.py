"""Missingness that differs between training, validation and test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kintsugi.core.data import Data, Splits
from kintsugi.core.errors import ConfigError
from kintsugi.imperfect.mechanism import Mechanism
from kintsugi.imperfect.spec import Call, word

PHASES = ("train", "val", "test")


@dataclass(frozen=True)
class Phases:
    """A mechanism for each phase, or None: these rows stay as they are.

    ``Phases(train=mcar(0.5))`` trains on holes and tests on complete rows; ``Phases(test=mcar(0.5))`` is the reverse.
    """

    train: Mechanism | None = None
    val: Mechanism | None = None
    test: Mechanism | None = None

    def __post_init__(self) -> None:
        for phase in PHASES:
            found = getattr(self, phase)
            if found is not None and not isinstance(found, Mechanism):
                raise ConfigError(f"the {phase} phase takes a mechanism, not {found!r}")

    def apply(self, splits: Splits, *, seed: int = 0, keep: Literal["nothing", "truth"] = "nothing") -> Splits:
        """The splits with holes.

        Args:
            splits: training, validation and test rows, each with a ``with_missing`` of its own.
            seed: of the training rows; validation takes the next one, and test the one after.
            keep: as in :meth:`kintsugi.data.dataset.Dataset.with_missing`, for training and validation rows; hidden test
                rows are never kept.

        Raises:
            ConfigError: data that cannot take holes.
        """
        parts = {phase: getattr(splits, phase) for phase in PHASES}
        for offset, phase in enumerate(PHASES):
            mechanism = getattr(self, phase)
            if mechanism is not None and parts[phase] is not None:
                how = "nothing" if phase == "test" else keep
                parts[phase] = _holes(parts[phase], mechanism, seed + offset, how)
        return replace(splits, **parts)

    def to_json(self) -> dict[str, str]:
        """Plain values; :func:`parse_phases` is the way back."""
        return {phase: str(getattr(self, phase)) for phase in PHASES if getattr(self, phase) is not None}

    def __str__(self) -> str:
        words = {phase: said if said.endswith(")") else word(said) for phase, said in self.to_json().items()}
        return f"phases({', '.join(f'{phase}={said}' for phase, said in words.items())})"


def _holes(data: Data, mechanism: Mechanism, seed: int, keep: str) -> Data:
    method = getattr(data, "with_missing", None)
    if method is None:
        raise ConfigError(f"{type(data).__name__} has no with_missing, so nothing can go missing in it")
    found: Data = method(mechanism, seed=seed, keep=keep)
    return found


def parse_phases(spec: Phases | Mechanism | str | Mapping[str, Any]) -> Phases:
    """From ``{"train": "mcar(0.5)", "test": "pattern(image)"}``; a single mechanism holds for every phase.

    Raises:
        UnknownName: no such mechanism.
        ConfigError: the spec cannot be read.
    """
    from kintsugi.imperfect.missing import parse_mechanism

    if isinstance(spec, Phases):
        return spec
    if isinstance(spec, Mapping) and spec and set(spec) <= set(PHASES):
        return Phases(**{phase: None if how is None else parse_mechanism(how) for phase, how in spec.items()})
    if isinstance(spec, str) and spec.strip().startswith("phases("):
        return _from_text(spec)
    one = parse_mechanism(spec)
    return Phases(one, one, one)


def _from_text(spec: str) -> Phases:
    from kintsugi.imperfect.missing import parse_mechanism
    from kintsugi.imperfect.spec import calls

    found = calls(spec, nested=True)
    if len(found) != 1 or found[0].args or not set(found[0].kwargs) <= set(PHASES):
        raise ConfigError(f"cannot read {spec!r}; write phases(train=mcar(0.5), test=pattern(image))")
    return Phases(
        **{p: parse_mechanism(how if isinstance(how, Call) else str(how)) for p, how in found[0].kwargs.items()}
    )
