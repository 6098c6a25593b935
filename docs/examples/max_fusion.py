"""The strongest present modality decides each number of the joint feature."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.core import (
    Card,
    Claim,
    Claims,
    Features,
    Fixture,
    Fused,
    Model,
    Schema,
    ablation_of,
    claims_of,
    difference,
    register,
)  # fmt: skip


@register(
    Card(
        key="max_fusion",
        name="Maximum fusion",
        leaf="general",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "one encoder for each modality",
            "the element-wise maximum over present modalities",
            "one head on it",
        ),
        claims=("with one modality present the fused vector is that modality's own, negative numbers too",),
        premise="each modality shows some sign of the target strongly, and which one it is differs from row to row",
        worlds=("complementary",),
        confidence="high",
        cite="mean_fusion",
        modalities=(1, None),
    )
)
class MaxFusion(Model):
    """Element-wise maximum of the pooled features of the present modalities.

    Args:
        gain: factor of the maximum before the head.
    """

    def __init__(self, schema: Schema, dim: int = 32, gain: float = 1.0) -> None:
        super().__init__(schema, dim)
        self.gain = gain

    def fuse(self, features: Features) -> Fused:
        candidates = self.candidates(features.pooled(), features.present)
        highest = candidates.amax(1)
        return Fused.vector(self.gain * torch.where(torch.isfinite(highest), highest, 0))

    def candidates(self, pooled: Tensor, present: Tensor) -> Tensor:
        """What may win, ``[B, M, D]``: absent modalities never do."""
        return pooled.masked_fill(~present[..., None], -torch.inf)


@ablation_of(MaxFusion)
class ZerosCompete(MaxFusion):
    """Off: absent modalities take part with zeros, so that no negative number survives them."""

    def candidates(self, pooled: Tensor, present: Tensor) -> Tensor:
        return pooled


@claims_of(MaxFusion)
def claims(fixture: Fixture) -> Claims:
    """What the element-wise maximum does that zeros in the race undo."""
    model = fixture.pipeline().model.eval()
    features = model.encode(fixture.batch())
    gap = 0.0
    for column in range(len(fixture.schema)):
        alone = torch.arange(len(fixture.schema)) == column
        fused = model.fuse(features.where(alone)).pooled()
        gap = max(gap, difference(fused, features.pooled()[:, column]))
    yield Claim(MaxFusion.card.claims[0], gap, at_most=0.0)
    whole = model.fuse(features).pooled()
    gap = difference(whole, features.pooled().amax(1))
    yield Claim("with all present the fused vector is the element-wise maximum", gap, at_most=0.0)
