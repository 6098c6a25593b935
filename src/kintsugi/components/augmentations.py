"""Augmentations: what is done to training rows before a model sees them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.methods import COMPONENTS
from kintsugi.core.schema import Schema
from kintsugi.core.wrappers import Strategy


@COMPONENTS.register("gaussian_noise")
class GaussianNoise(Strategy):
    """Training rows get noise on one modality, of a strength that is drawn anew for each row; the truth stays clean.

    Args:
        schema: of the data.
        modality: whose inputs are numbers.
        strongest: standard deviation of the noise, in units of the inputs, up to which the strengths are uniform.
    """

    def __init__(self, schema: Schema, modality: str, strongest: float) -> None:
        super().__init__()
        self.modality, self.strongest = schema[modality].name, strongest

    def augment(self, batch: Batch) -> Batch:
        noisy = self.shaken(batch, self.strongest * torch.rand(len(batch), device=batch.device))
        return replace(noisy, truth=batch if batch.truth is None else batch.truth)

    def shaken(self, batch: Batch, strength: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The batch with noise of these standard deviations ``[B]`` on the modality."""
        x = batch.inputs[self.modality]
        drawn = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        noise = strength.view(-1, *[1] * (x.ndim - 1)) * drawn
        return replace(batch, inputs={**batch.inputs, self.modality: x + noise})
