"""The plain host: encode each modality, average what is there, one head."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kintsugi.core.claims import difference, every_subset
from kintsugi.core import (
    Card, Claim, Claims, Features, Fixture, Fused, Model, Schema, ablation_of, claims_of, register,
)  # fmt: skip


@register(
    Card(
        key="mean_fusion",
        name="Mean fusion",
        leaf="general",
        imperfection=("missing at test", "missing in training"),
        faithful=("one encoder a modality", "the mean over present modalities", "one head on the mean"),
        claims=(
            "the fused vector is the mean over the modalities that are present",
            "each present modality has an equal share in the answer",
        ),
        premise="each present modality tells something of the target by itself",
        worlds=(),
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


@claims_of(MeanFusion)
def claims(fixture: Fixture) -> Claims:
    """On an untrained model, each figure with its gradient, against the mean written out: none of it is learned."""
    model, batch = fixture.pipeline().model.eval(), every_subset(fixture.batch())
    prediction = model(batch)
    alone = [model.encoders[name](batch.inputs[name]).pooled() for name in batch.names]
    present = [row.nonzero().flatten().tolist() for row in batch.present]
    mean = torch.stack([sum(alone[m][row] for m in seen) / len(seen) for row, seen in enumerate(present)])
    yield Claim(MeanFusion.card.claims[0], difference(prediction.embedding, mean, model), at_most=1e-5)
    shares = torch.stack([batch.present[row] * (1 / len(seen)) for row, seen in enumerate(present)])
    yield Claim(MeanFusion.card.claims[1], difference(prediction.weights, shares), at_most=1e-5)
    answer = model.task_head(Fused.vector(prediction.embedding))
    yield Claim(
        "the answer is that of one head to the mean", difference(prediction.output, answer, model), at_most=1e-5
    )
    loss = fixture.schema.task.loss(answer, batch)
    yield Claim("the loss is the task's", difference(model.step(batch).losses["task"], loss, model), at_most=1e-5)
    turned = replace(batch, names=batch.names[::-1], present=batch.present.flip(1))
    yield Claim(
        "a batch is read by the names of modalities", difference(model(turned).output, answer, model), at_most=1e-5
    )
