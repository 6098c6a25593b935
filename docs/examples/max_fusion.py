"""The strongest present modality decides each number of the joint feature."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.core.claims import held
from kintsugi.core import Card, Features, Fixture, Fused, Model, Schema, ablation_of, claims_of, register


@register(
    Card(
        key="max_fusion",
        name="Maximum fusion",
        leaf="general",
        imperfection=("missing at test", "missing in training"),
        faithful=("one encoder a modality", "the element-wise maximum over present modalities", "one head on it"),
        claims=("with one modality present the fused vector is that modality's pooled feature, negative numbers too",),
        premise="each modality shows some sign of the target strongly, and which one it is differs from row to row",
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


def absent_modalities_never_win(fixture: Fixture) -> None:
    """See the card's ``check``."""
    model = fixture.pipeline().model.eval()
    features = model.encode(fixture.batch())
    for column, name in enumerate(fixture.schema.names):
        alone = torch.tensor([m == name for m in fixture.schema.names])
        fused = model.fuse(features.where(alone)).pooled()
        assert torch.equal(fused, features.pooled()[:, column]), f"absent modalities change the maximum of {name}"


@claims_of(MaxFusion)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(MaxFusion.card.claims[0], held(absent_modalities_never_win, fixture), at_least=1.0)
