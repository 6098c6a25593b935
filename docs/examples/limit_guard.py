"""A modality whose numbers are far above all clean ones counts as absent."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kintsugi.core import (
    Answer,
    Batch,
    Card,
    Claim,
    Claims,
    Fixture,
    Monitor,
    Prediction,
    Schema,
    Splits,
    ablation_of,
    claims_of,
    difference,
    register,
)  # fmt: skip

KINDS = ("vector", "image", "series")  # kinds of data in which every number may be read


@register(
    Card(
        key="limit_guard",
        name="Limit guard",
        leaf="corrupted/detection",
        imperfection=("corrupted at test",),
        faithful=(
            "the largest clean value of each modality is its limit",
            "what is above it is left out of the answer",
        ),
        claims=("values far above clean ones are answered as if the modality were absent",),
        premise="in use a sensor saturates far above anything that it showed in training, and the others can stand in",
        worlds=("visible_noise_at_test",),
        confidence="high",
        cite="mean_fusion",
        modalities=(1, None),
        joint=False,
    )
)
class LimitGuard(Monitor):
    """Rejects a modality with values far above clean ones, and asks the model again without it.

    Args:
        slack: how many times the largest validation value a value may be.
    """

    limits: Tensor

    def __init__(self, schema: Schema, slack: float = 1.5) -> None:
        super().__init__()
        self.schema, self.slack = schema, slack
        self.register_buffer("limits", torch.zeros(len(schema)))  # 0: not known

    def calibrate(self, data: Splits) -> None:
        sizes = torch.cat([self.sizes(batch) for batch in data.val.batches(256)])
        self.limits.copy_(self.slack * sizes.amax(0))

    def sizes(self, batch: Batch) -> Tensor:
        """Largest absolute value, ``[B, M]``; zero where a modality is absent or of another kind."""
        sizes = torch.zeros(batch.present.shape, device=batch.device)
        for column, modality in enumerate(self.schema.modalities):
            if modality.kind in KINDS:
                x = batch.inputs[modality.name]
                mask = batch.mask.get(modality.name)
                x = x if mask is None else torch.where(mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, 0)
                sizes[:, column] = torch.where(batch.present[:, column], x.abs().flatten(1).amax(1), 0)
        return sizes

    def sound(self, batch: Batch) -> Tensor:
        """Bool ``[B, M]``."""
        return (self.limits == 0) | (self.sizes(batch) <= self.limits)

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        sound = self.sound(batch)
        reliability = sound.float().masked_fill(~batch.present, torch.nan)
        return replace(inner(batch.where(sound)), reliability=reliability)


@ablation_of(LimitGuard)
class Unguarded(LimitGuard):
    """Off: everything is sound."""

    def sound(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch.present)


@claims_of(LimitGuard)
def claims(fixture: Fixture) -> Claims:
    """Far values against absence, and clean rows against rejection."""
    pipeline = fixture.trained().eval()
    batch = fixture.batch()
    gap = 0.0
    for column, name in enumerate(fixture.schema.names):
        far = replace(batch, inputs={**batch.inputs, name: 100 + batch.inputs[name]})
        absent = batch.where(torch.arange(len(fixture.schema)) != column)
        gap = max(gap, difference(pipeline(far).output, pipeline(absent).output))
    yield Claim(LimitGuard.card.claims[0], gap, at_most=1e-6)
    yield Claim("clean modalities rejected", int((pipeline(batch).used != batch.present).sum()), at_most=0)
