"""Codes in which all modalities of a row agree, learned without labels: what only one of them says is left out as noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Schema, Splits, Stage, Step, ablation_of,
    claims_of, difference, every_subset, record_steps, register,
)  # fmt: skip
from kintsugi.losses.correlation import covariances, multiset_correlations


@register(
    Card(
        key="dmcca",
        name="dMCCA",
        leaf="corrupted/noise_aware",
        imperfection=("corrupted in training", "corrupted at test"),
        faithful=(
            "one network for each modality into a common width, trained without labels",
            "the mean generalised eigenvalue of covariance between modalities to that within them, over all components",
            "the covariance within is shrunk by 0.2",
            "afterwards a linear model on the codes of all modalities side by side, whose networks stay as they are",
        ),
        simplified=(
            "encoders by kind of data and a linear layer stand for two layers of 1024 and 50 units, linear in the release",
            "eigenvalues of the shrunk problem are raised; the release divides by the covariance that is not shrunk, along the "
            "same directions, which is the same without shrinkage; eigenvectors have no finite gradient where values repeat",
            "a linear head by descent on standardised codes stands for the support vector machine on raw ones",
            "batches have to have more rows than there are components, and nothing enforces it: give a batch two complete rows "
            "for each of `width` components or more, since with fewer codes agree by chance",
            "codes are those of the last epoch of their stage; the release keeps those of the lowest validation loss",
            "labels train the head alone; codes learn from all complete rows, with a label or without",
            "an absent modality, which the paper does not have, gets the mean of the standardised codes of those that are there",
            "decay of weights is the trainer's; the release adds 1e-5 of the squared kernels",
        ),
        claims=(
            "the codes of one row correlate over modalities, on rows that training did not see",
            "the objective is the mean ratio of covariance between to that within modalities",
        ),
        premise="a state that all modalities share tells of the target, and each has noise of its own that is as strong",
        worlds=("redundant", "hidden_noise"),
        confidence="high",
        defaults_from="the authors' code (usc-sail/mica-deep-mcca): shrinkage 0.2; 16 components for its 50, since "
        "batches are of 64 rows for its 400",
    )
)
class DMCCA(Model):
    """Deep multiset canonical correlation analysis.

    Args:
        dim: width of the encoders' vectors.
        width: of the codes, all of whose components have to correlate; a batch should have several rows for each.
        shrinkage: of the covariance within modalities towards a multiple of the identity, in [0, 1].

    Raises:
        ConfigError: a shrinkage that is not in [0, 1], or a width below 1.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, schema: Schema, dim: int = 32, width: int = 16, shrinkage: float = 0.2) -> None:
        if width < 1 or not 0 <= shrinkage <= 1:
            raise ConfigError(f"dmcca: width={width} must be 1 or more, and shrinkage={shrinkage} between 0 and 1")
        count = len(schema)
        super().__init__(schema, dim, fused=count * width)
        self.shrinkage = shrinkage
        for weights in self.task_head.parameters():
            if (
                weights.ndim > 1
            ):  # a linear model needs no random start, which it would have to unlearn; thresholds stay
                nn.init.zeros_(weights)
        self.projections = nn.ModuleList(nn.Linear(dim, width) for _ in range(count))
        self.register_buffer("centre", torch.zeros(count, width))
        self.register_buffer("spread", torch.ones(count, width))

    def stages(self) -> list[Stage]:
        return [
            Stage("correlate", trainable=("encoders.*", "projections.*"), rows="complete"),
            Stage("classify", trainable=("task_head.*",)),
        ]

    def codes(self, features: Features) -> Tensor:
        """``[B, M, width]``; those of absent slots mean nothing."""
        pooled = features.pooled().unbind(1)
        return torch.stack([project(x) for project, x in zip(self.projections, pooled, strict=True)], 1)

    def prepare(self, data: Splits, stage: Stage) -> None:
        if stage.name == "classify":  # mean and spread of the codes, over the training rows that have the modality
            features = self.encode_rows(data.train)
            for m, (code, here) in enumerate(zip(self.codes(features).unbind(1), features.present.T, strict=True)):
                mean, spread = code[here].mean(0), code[here].std(0, correction=0)
                self.centre[m] = mean
                # a component that does not vary here may do so in use, where its deviation would be divided by rounding
                self.spread[m] = torch.where(spread > 1e-6 * (1 + mean.abs()), spread, 1)

    def fuse(self, features: Features) -> Fused:
        here = features.present[..., None]
        standard = torch.where(here, (self.codes(features) - self.centre) / self.spread, 0)
        mean = standard.sum(1, keepdim=True) / here.sum(1, keepdim=True).clamp(min=1)
        return Fused.vector(torch.where(here, standard, mean).flatten(1))

    def step(self, batch: Batch) -> Step:
        if self.clock.stage != "correlate":
            return super().step(batch)
        features = self.encode(batch)
        codes = self.compared(self.codes(features)[features.present.all(1)])
        return Step({"correlation": -multiset_correlations(codes, self.shrinkage).mean()})

    def compared(self, codes: Tensor) -> Tensor:
        """The codes ``[B, M, width]`` of complete rows -> those that are made to correlate: those of one row."""
        return codes


@ablation_of(DMCCA)
class Unpaired(DMCCA):
    """Off: the same objective on codes of different rows, so that nothing says what the modalities of one share."""

    def compared(self, codes: Tensor) -> Tensor:
        return torch.stack([code.roll(m, 0) for m, code in enumerate(codes.unbind(1))], 1)


@claims_of(DMCCA)
def claims(fixture: Fixture) -> Claims:
    """Untrained, the objective with its gradients; then what a training with holes in some rows moved, and when."""
    correlate, objective = DMCCA.card.claims
    fixture = fixture.world(holes=0.1)
    model: Any = fixture.pipeline().model.double().eval()
    batch = every_subset(fixture.batch(70, "train").map(lambda x: x.double() if x.is_floating_point() else x))
    model.clock.stage = "correlate"
    losses = model.step(batch.unlabelled()).losses
    whole = batch.rows(batch.present.all(1))
    codes = torch.stack([_code(model, whole, m) for m in range(3)], 1)
    yield Claim(objective, difference(losses["correlation"], -_ratio(codes), model), at_most=1e-8)
    yield Claim("no label is needed for it", float(len(losses) - 1), at_most=0)
    yield from _by_stage(fixture)
    model = fixture.trained().model.eval()
    train = model.encode_rows(fixture.splits.train)
    here, codes = train.present, model.codes(train).detach()
    gaps = [difference(model.centre[m], codes[here[:, m], m].mean(0)) for m in range(3)]
    gaps += [difference(model.spread[m], codes[here[:, m], m].std(0, correction=0)) for m in range(3)]
    yield Claim("codes are standardised by the training rows that have the modality", max(gaps), at_most=1e-5)
    batch = every_subset(fixture.world().batch(70))
    z = [(_code(model, batch, m) - model.centre[m]) / model.spread[m] for m in range(3)]
    filled = []
    for row, seen in enumerate(batch.present.tolist()):
        mean = torch.stack([x[row] for x, there in zip(z, seen, strict=True) if there]).mean(0)
        filled.append(torch.cat([x[row] if there else mean for x, there in zip(z, seen, strict=True)]))
    gap = difference(model(batch).output, model.task_head.linear(torch.stack(filled)), model)
    yield Claim(
        "the answer is linear in the codes, of which an absent one is the mean of the others", gap, at_most=1e-4
    )
    narrow: Any = fixture.trained(width=4).model.eval()  # of about as many components as the modalities share
    codes = narrow.codes(narrow.encode(fixture.world().batch(80))).detach()
    within, between = covariances((codes - narrow.centre) / narrow.spread)
    yield Claim(correlate, float(between.trace() / within.trace()), at_least=0.2)


def _code(model: Any, batch: Batch, m: int) -> Tensor:
    name = batch.names[m]
    code: Tensor = model.projections[m](model.encoders[name](batch.inputs[name]).pooled())
    return code


def _ratio(codes: Tensor, shrinkage: float = 0.2) -> Tensor:
    """Trace of the inverse of the shrunk covariance within, times that between, pair by pair."""
    _, views, width = codes.shape
    h = (codes - codes.mean(0)).unbind(1)
    within = torch.stack([x.T @ x for x in h]).sum(0)
    between = torch.stack([x.T @ y for i, x in enumerate(h) for j, y in enumerate(h) if i != j]).sum(0) / (views - 1)
    shrunk = (1 - shrinkage) * within + shrinkage * within.diagonal().mean() * torch.eye(width, dtype=within.dtype)
    return torch.linalg.solve(shrunk, between).diagonal().mean()


def _by_stage(fixture: Fixture) -> Claims:
    """What each stage moves, and the rows that it reads."""
    pipeline = fixture.pipeline()
    model: Any = pipeline.model
    steps = record_steps(model)
    fixture.epochs = 2
    fixture.train(pipeline)
    own = {"correlate": {"encoders", "projections"}, "classify": {"task_head"}}
    foreign = sum(each.modules != own[each.stage] for each in steps.taken) + (steps.start.keys() != own.keys())
    yield Claim("a stage moves its own modules alone", float(foreign), at_most=0)
    incomplete = sum(int((~batch.present.all(1)).sum()) for batch in steps.batches("correlate"))
    yield Claim("codes learn from complete rows alone", float(incomplete), at_most=0)
