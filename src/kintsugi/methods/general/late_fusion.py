"""One model a modality; only their answers are merged."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core.claims import difference, every_subset
from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Prediction, Schema, Step, StreamSpec, ablation_of,
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
        claims=(
            "with a single modality present the answer is that modality's own",
            "the answer is the product of the probabilities of those present",
            "the answer is the mean of the probabilities of those present, where the mean is asked for",
            "each modality that is present has an equal share, and no other has one",
        ),
        premise="each modality tells much of the target alone, nearly independently of the others given the target",
        worlds=("complementary",),
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


@claims_of(LateFusion)
def claims(fixture: Fixture) -> Claims:
    """On untrained models, each figure with its gradient, against the rule written out: none of it is learned."""
    batch, names = every_subset(fixture.batch()), fixture.schema.names
    model = fixture.pipeline().model.eval()
    assert isinstance(model, LateFusion)
    own = torch.stack([model.heads[m](model.encoders[m](batch.inputs[m])) for m in names], 1)
    present, share = batch.present[..., None], batch.present / batch.present.sum(1, keepdim=True)
    prediction, probabilities = model(batch), fixture.schema.task.probabilities
    single = batch.present.sum(1) == 1
    wanted = own[batch.present & single[:, None]]
    yield Claim(LateFusion.card.claims[0], difference(prediction.output[single], wanted, model), at_most=1e-5)
    product = (own.log_softmax(2) * present).sum(1).softmax(1)
    yield Claim(LateFusion.card.claims[1], difference(probabilities(prediction.output), product, model), at_most=1e-5)
    model.merge = "mean"
    average = (own.softmax(2) * share[..., None]).sum(1)
    yield Claim(LateFusion.card.claims[2], difference(probabilities(model(batch).output), average, model), at_most=1e-5)
    yield Claim(LateFusion.card.claims[3], difference(prediction.weights, share), at_most=1e-5)
    alone = torch.stack([prediction.unimodal[m] for m in names], 1)
    yield Claim(
        "what a modality says alone can be read where it is present, and only there",
        difference(alone[batch.present], own.softmax(2)[batch.present], model)
        + float((~alone.isnan() & ~present).sum()),
        at_most=1e-5,
    )
    embedding = prediction.embedding.unflatten(1, own.shape[1:])
    yield Claim(
        "the embedding is all answers side by side",
        difference(embedding[batch.present], own[batch.present], model),
        at_most=1e-5,
    )
    losses = torch.stack([model.step(batch).losses[f"alone/{m}"] for m in names])
    rows = [present.nonzero().flatten() for present in batch.present.unbind(1)]
    target = fixture.schema.task.target(batch)
    each = torch.stack([F.cross_entropy(own[seen, i], target[seen]) for i, seen in enumerate(rows)])
    yield Claim(
        "each modality learns by its own loss, from the rows that have it",
        difference(losses, each, model),
        at_most=1e-5,
    )
