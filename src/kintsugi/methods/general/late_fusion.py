"""One model a modality; only their answers are merged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kintsugi.core.claims import held
from kintsugi.core import (
    Claim, Claims, Batch, Card, Features, Fused, Fixture, Model, Prediction, Schema, Step, StreamSpec, ablation_of,
    claims_of, register,
)  # fmt: skip
from kintsugi.layers.vote import vote


@register(
    Card(
        key="late_fusion",
        name="Late fusion",
        leaf="general",
        imperfection=("corrupted at test", "missing at test", "missing in training"),
        faithful=(
            "independent predictor for each modality, trained by its own task loss",
            "answers merged by mean or product, renormalised over the present ones",
        ),
        simplified=(
            "the learned and stacked mergers of the survey's text are left out: mean and product need no data",
        ),
        claims=("with a single modality present the output is that modality's own output, exactly",),
        premise="each modality tells much of the target alone, nearly independently of the others given the target",
        confidence="high",
        defaults_from="this library; the survey names the mergers without numbers",
        joint=False,
    )
)
class LateFusion(Model):
    """Each modality answers alone; the present ones vote.

    Args:
        merge: ``product`` of probabilities (the optimum where modalities are independent given the label, up to the
            prior that it counts once too often for each voter) or ``mean`` of probabilities. Regression: always the mean.
    """

    def __init__(self, schema: Schema, dim: int = 32, merge: str = "product") -> None:
        super().__init__(schema, dim, fused=None)
        self.merge = merge
        self.heads = nn.ModuleDict({m: schema.task.head(StreamSpec(dim)) for m in schema.names})

    def fuse(self, features: Features) -> Fused:
        alone = {m: head(features.streams[m]) for m, head in self.heads.items()}
        return Fused.vector(torch.cat([a.flatten(1) for a in alone.values()], 1), extras={"alone": alone})

    def head(self, fused: Fused, features: Features) -> Prediction:
        alone: dict[str, Tensor] = fused.extras["alone"]
        merged, weights = vote(torch.stack(list(alone.values()), 1), features.present, self.task, self.merge)
        return self._answer(merged, weights, alone, features, fused)

    def _answer(
        self, merged: Tensor, weights: Tensor, alone: dict[str, Tensor], features: Features, fused: Fused
    ) -> Prediction:
        unimodal = {m: self.task.probabilities(output) for m, output in alone.items()}
        return Prediction(
            merged, features.present, fused.pooled(), unimodal=unimodal, weights=weights, extras={"alone": alone}
        )

    def step(self, batch: Batch) -> Step:
        prediction: Prediction = self(batch)
        losses = {
            f"alone/{m}": self.task.loss(output, batch, batch.present[:, i])
            for i, (m, output) in enumerate(prediction.extras["alone"].items())
        }
        return Step(losses, prediction)


@ablation_of(LateFusion)
class AbsentVoters(LateFusion):
    """Off: absent modalities vote too, with what their head makes of nothing."""

    def head(self, fused: Fused, features: Features) -> Prediction:
        alone: dict[str, Tensor] = fused.extras["alone"]
        everyone = torch.ones_like(features.present)
        merged, weights = vote(torch.stack(list(alone.values()), 1), everyone, self.task, self.merge)
        return self._answer(merged, weights, alone, features, fused)


def each_modality_speaks_for_itself(fixture: Fixture) -> None:
    """See the card's ``check``."""
    model = fixture.trained().model
    batch = fixture.batch()
    for name in fixture.schema.names:
        prediction = model(batch.only(name))
        assert torch.equal(prediction.output, prediction.extras["alone"][name]), f"{name} does not speak for itself"


@claims_of(LateFusion)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(LateFusion.card.claims[0], held(each_modality_speaks_for_itself, fixture), at_least=1.0)
