"""The base of every missingness mechanism, by the unit that it takes: slots, steps or labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.registry import Registry
from kintsugi.imperfect.mask import Asked, Mask
from kintsugi.imperfect.spec import word

if TYPE_CHECKING:
    from kintsugi.core.data import Data


class Mechanism(ABC):
    """How slots go missing: a value without state. A new one defines :meth:`keep`, :meth:`asked` and ``__str__``.

    Its draws belong to rows (:mod:`kintsugi.imperfect.seeds`), and it takes what is observed in ``data`` only. What another
    mechanism hid before is not observed: ``data`` shows neither its values nor that they were there.
    """

    @abstractmethod
    def keep(self, data: Data, seed: int) -> Tensor:
        """Bool ``[N, M]``: what is left; its value does not matter where nothing is observed."""

    @abstractmethod
    def asked(self, data: Data) -> Asked | None:
        """The rate asked for, overall or by modality; None: it follows from the mask."""

    @abstractmethod
    def __str__(self) -> str: ...

    def plan(self, data: Data, seed: int) -> Mask:
        """The mask for these rows: the same for the same rows and seed, whatever order the rows are in."""
        return Mask.of(self.keep(data, seed), data, asked=self.asked(data), seed=seed, mechanism=str(self))


class StepMechanism(Mechanism):
    """How steps go missing (table cells, tokens, time steps, audio samples). A new one defines :meth:`left`."""

    @abstractmethod
    def left(self, seen: Mapping[str, Tensor], data: Data, seed: int) -> dict[str, Tensor]:
        """Name -> bool ``[N, T]``: what is left of the ``seen`` steps."""

    @abstractmethod
    def names(self, data: Data) -> tuple[str, ...]:
        """The modalities that lose steps."""

    def keep(self, data: Data, seed: int) -> Tensor:
        return self.plan(data, seed).keep

    def plan(self, data: Data, seed: int) -> Mask:
        from kintsugi.imperfect._scores import observed_steps

        seen = {name: observed_steps(data, name) for name in self.names(data)}
        left = self.left(seen, data, seed)
        return Mask.of_steps(left, seen, data, asked=self.asked(data), seed=seed, mechanism=str(self))


class LabelMechanism(Mechanism):
    """How labels go missing. A new one defines :meth:`labels`."""

    @abstractmethod
    def labels(self, data: Data, seed: int) -> Tensor:
        """Bool ``[N]``: labels that are left."""

    def keep(self, data: Data, seed: int) -> Tensor:
        return torch.ones_like(data.present)

    def plan(self, data: Data, seed: int) -> Mask:
        asked = self.asked(data)
        assert not isinstance(asked, dict)
        return Mask.of_labels(self.labels(data, seed), data, asked=asked, seed=seed, mechanism=str(self))


MECHANISMS: Registry[Callable[..., Mechanism]] = Registry("missingness mechanism", "kintsugi.imperfect")


def said(name: str, *args: Any, **kwargs: tuple[Any, Any]) -> str:
    """A mechanism as text that is read back: arguments, and keywords as ``(value, default)``, left out where equal."""
    words = [_word(value) for value in args]
    words += [f"{key}={_word(value)}" for key, (value, default) in kwargs.items() if value != default]
    return f"{name}({', '.join(words)})"


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(word(v) if isinstance(v, str) else repr(v) for v in value)
    if isinstance(value, float):
        return f"{value:g}"
    return word(value) if isinstance(value, str) else repr(value)


def as_names(what: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """Modalities as a tuple of distinct names; ``"all"`` gives none, which stands for all.

    Raises:
        ConfigError: these are no names.
    """
    if given == "all":
        return ()
    names = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{what} takes names of modalities, not {given!r}")
    return tuple(dict.fromkeys(names))


def number(what: str, value: object, least: float | None = None) -> float:
    """A finite number.

    Raises:
        ConfigError: it is none, or it is less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise ConfigError(f"{what} must be a number, not {value!r}")
    if least is not None and value < least:
        raise ConfigError(f"{what} must be {least:g} or more, not {value!r}")
    return float(value)
