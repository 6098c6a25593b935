"""What comes out of a method: an answer, and in training the named terms of its objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.retired import renamed_attributes


@renamed_attributes(or_prior="fall_back")
@dataclass
class Prediction:
    """An answer for each row. What a method does not have stays None or empty.

    output: ``[B, ...]`` as the task's loss wants it (logits of classification).
    used: bool ``[B, M]``: which of the modalities that came in the answer rests on; all False: the prior spoke.
    embedding: ``[B, D]``: what the head was given; NaN where the prior spoke.
    unimodal: name -> what that modality alone answers, as ``Task.probabilities`` gives it; NaN in rows without it.
    restored: name -> input ``[B, ...]`` as the model was given it, in the units of the inputs.
    weights: float ``[B, M]``: shares of the modalities in the answer; 0 where a modality was not used.
    reliability: float ``[B, M]`` in [0, 1]: 1 for a modality that is trusted; NaN where it is absent.
    uncertainty: of numbers the variance, in squared units of the output: ``[B, K]`` (``Task.spread`` turns it into the
    user's); of classes and labels in [0, 1] ``[B]``, the normalised entropy unless the card's ``evidence`` says what
    else; NaN where the prior spoke.
    extras: whatever one file hands to itself; nobody else reads it.
    """

    output: Tensor
    used: Tensor
    embedding: Tensor | None = None
    unimodal: dict[str, Tensor] = field(default_factory=dict)
    restored: dict[str, Tensor] = field(default_factory=dict)
    weights: Tensor | None = None
    reliability: Tensor | None = None
    uncertainty: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def fall_back(self, enough: Tensor, prior: Tensor) -> Prediction:
        """The prior where a row has too little: ``enough`` is bool ``[B]``. What nobody can know there is NaN."""
        return replace(
            self,
            output=torch.where(_wide(enough, self.output), self.output, prior.to(self.output.dtype)),
            used=self.used & enough[:, None],
            embedding=known(self.embedding, enough),
            uncertainty=known(self.uncertainty, enough),
            weights=None if self.weights is None else torch.where(enough[:, None], self.weights, 0),
        )

    def where_present(self, names: Sequence[str], present: Tensor) -> Prediction:
        """What is said of single modalities is NaN where they are absent: ``present`` is bool ``[B, M]``, by these names."""
        unimodal = {name: known(x, present[:, names.index(name)]) for name, x in self.unimodal.items()}
        reliability = None if self.reliability is None else self.reliability.masked_fill(~present, torch.nan)
        return replace(self, unimodal=unimodal, reliability=reliability)

    def detach(self) -> Prediction:
        """The same without a way back to any parameter."""
        return self.map(Tensor.detach)

    def map(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        """The same with ``change`` applied to every tensor, those of ``extras`` at its top too."""

        def each(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: each(x) for name, x in value.items()}
            return change(value) if isinstance(value, Tensor) else value

        return Prediction(**{f.name: each(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def concatenate(cls, parts: Sequence[Prediction]) -> Prediction:
        """Answers to rows, one after the other; what some parts lack is NaN there, ``extras`` are left out."""

        def join(values: list[Any]) -> Any:
            if isinstance(values[0], dict):
                names = dict.fromkeys(name for value in values for name in value)
                return {name: join([value.get(name) for value in values]) for name in names}
            there = [value for value in values if value is not None]
            if not there:
                return None
            shape = there[0].shape[1:]
            rows = [len(part.output) for part in parts]
            filled = [
                there[0].new_full((n, *shape), torch.nan) if value is None else value
                for n, value in zip(rows, values, strict=True)
            ]
            return torch.cat(filled)

        names = [f.name for f in fields(cls) if f.name != "extras"]
        return cls(**{name: join([getattr(part, name) for part in parts]) for name in names})


def _wide(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (like.ndim - 1))


def known(values: Any, rows: Tensor) -> Any:
    """These values, NaN in all rows but ``rows`` (bool ``[B]``); None stays None."""
    return None if values is None else torch.where(_wide(rows, values), values, torch.nan)


@dataclass
class Step:
    """Named loss terms, weights inside the terms; their sum is what is descended."""

    losses: dict[str, Tensor]
    prediction: Prediction | None = None

    @property
    def total(self) -> Tensor:
        return torch.stack([loss.float() for loss in self.losses.values()]).sum()

    def plus(self, **losses: Tensor) -> Step:
        """With more terms; a name that is taken is an error."""
        clash = self.losses.keys() & losses.keys()
        if clash:
            raise ConfigError(
                f"two components of the pipeline bring a loss of the same name: {', '.join(sorted(clash))}"
            )
        return Step({**self.losses, **losses}, self.prediction)
