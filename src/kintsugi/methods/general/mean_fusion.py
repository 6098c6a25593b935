"""The plain host: encode each modality, average what is there, one head."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.core.claims import held
from kintsugi.core import Claim, Claims, Card, Features, Fused, Fixture, Model, Schema, ablation_of, claims_of, register


@register(
    Card(
        key="mean_fusion",
        name="Mean fusion",
        leaf="general",
        imperfection=("missing at test", "missing in training"),
        faithful=("one encoder a modality", "the mean over present modalities", "one head on the mean"),
        claims=(
            "with one modality present the fused vector is that modality's pooled feature, whatever else stands "
            "in the row",
        ),
        premise="each present modality tells something of the target by itself",
        confidence="high",
        modalities=(1, None),
        joint=False,
    )
)
class MeanFusion(Model):
    """Average the pooled features of the present modalities."""

    def __init__(self, schema: Schema, dim: int = 32) -> None:
        super().__init__(schema, dim)


@ablation_of(MeanFusion)
class ZeroFill(MeanFusion):
    """Off: divides by all modalities, so that an absent one pulls the mean towards zero."""

    def fuse(self, features: Features) -> Fused:
        weights: Tensor = features.present / len(self.schema)
        return Fused.vector(features.pooled().mean(1), weights=weights)


def absent_modalities_do_not_pull(fixture: Fixture) -> None:
    """See the card's ``check``."""
    model = fixture.pipeline().model.eval()
    features = model.encode(fixture.batch())
    for i, name in enumerate(fixture.schema.names):
        alone = torch.tensor([m == name for m in fixture.schema.names])
        fused = model.fuse(features.where(alone)).pooled()
        assert torch.equal(fused, features.pooled()[:, i]), f"absent modalities change the mean of {name}"


@claims_of(MeanFusion)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(MeanFusion.card.claims[0], held(absent_modalities_do_not_pull, fixture), at_least=1.0)
