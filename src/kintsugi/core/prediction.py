"""What comes out of a method: an answer, and in training the named terms of its objective."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError


@dataclass
class Prediction:
    """An answer for each row.

    output: ``[B, ...]`` as the task's loss wants it (logits of classification).
    used: bool ``[B, M]`` after rejection and recovery; all False: the prior spoke.
    embedding: ``[B, D]``; unimodal: name -> output of that modality alone; restored: name -> input ``[B, ...]``.
    weights, reliability: float ``[B, M]``, reliability in [0, 1]; uncertainty: float ``[B]``.
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
        """The prior where a row has too little: ``enough`` is bool ``[B]``."""
        wide = enough.view(-1, *[1] * (self.output.ndim - 1))
        return replace(
            self,
            output=torch.where(wide, self.output, prior.to(self.output.dtype)),
            used=self.used & enough[:, None],
        )


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
            raise ConfigError(f"two parts of the pipeline bring a loss of the same name: {', '.join(sorted(clash))}")
        return Step({**self.losses, **losses}, self.prediction)
