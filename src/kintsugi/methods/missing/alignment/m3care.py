"""A missing latent is borrowed from similar rows, by a learned likeness in the modalities that both rows have."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Schema, Splits, Stage, Step, ablation_of, claims_of,
    difference, every_subset, register,
)  # fmt: skip
from kintsugi.layers.mlp import mlp
from kintsugi.layers.neighbours import NeighbourBank, NeighbourGraph, evenly_spread, with_latents
from kintsugi.layers.streams import Block, heads_for
from kintsugi.losses.distance import norm_gap


@register(
    Card(
        key="m3care",
        name="M3Care",
        leaf="missing/alignment",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "likeness in modalities that both rows have; the task trains kernels and threshold; what is above stays as is",
            "two graph convolutions from rows with a modality; their vector stands in for a latent, or a gate mixes it in",
            "two attention blocks, the second of one head, and a ReLU after each; a penalty keeps the norm of the learned maps",
        ),
        simplified=(
            "in use the senders are stored training rows and never the batch, on which answers of the release depend",
            "senders are masked by column; the release masks receivers too, and rows without a modality get one constant",
            "rows of the graph are divided by their sums, where stored rows count for as many as a training batch had",
            "normalisation, bandwidth and penalty are of rows that have the modality; the release reads absent slots",
            "blocks over one token a modality, with norms and 2 d GELU; the release: all tokens of a text, no norm, 4 d ReLU",
            "any modality may be absent, each has its own maps; dropout before the head only; encoders by kind",
        ),
        claims=(
            "a stand-in follows the stored latent of the most similar row that has the modality",
            "stand-ins and mixtures are those worked out by hand from the likeness of rows",
            "the task's loss reaches encoders, kernels, threshold, convolutions and gates of every modality",
            "the bank holds the training rows as the final weights encode them",
            "the penalty is the change of norm of all latents of a modality, summed over modalities",
        ),
        premise="rows alike in one modality are alike in others; labels miss some groups of them, else a learned map is as good",
        worlds=("neighbours", "redundant"),
        confidence="high",
        defaults_from="the released notebook for ODIR; theta from that for OV, since small tables have few pairs above 0.88",
        reference=True,
        cost="medium",
    )
)
class M3Care(Model):
    """M3Care: rows take from one another in training, and from stored training rows in use.

    Args:
        eps, theta: their sigmoid is the first share of the plain kernel in the mixed one, and the first threshold.
        form: of the mixed kernel, ``product`` or ``sum``. reg_weight: of the penalty on its maps. dropout: before the head.
        stored: at most so many training rows, evenly spread over the table, are kept for use.
    """

    graph_of: ClassVar[type[NeighbourGraph]] = NeighbourGraph

    def __init__(
        self, schema: Schema, dim: int = 32, eps: float = 2.0, theta: float = 0.0, form: str = "product",
        reg_weight: float = 1e-7, dropout: float = 0.5, stored: int = 1024,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim, fused=2 * dim)
        self.reg_weight, self.stored = reg_weight, stored
        self.graph, self.bank = self.graph_of(len(schema), dim, eps, theta, form), NeighbourBank()
        self.kind = nn.Parameter(torch.randn(len(schema), dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads) for heads in (heads_for(dim), 1))
        self.trunk = nn.Sequential(mlp([dim * len(schema), 2 * dim], last=True), nn.Dropout(dropout))

    def complete(self, features: Features) -> Features:
        return self.graph.complete(features, None if self.training else self.bank)

    def fuse(self, features: Features) -> Fused:
        tokens = features.pooled() + self.kind
        for block in self.blocks:
            tokens = torch.relu(block(tokens, torch.ones_like(features.present)))
        return Fused.vector(self.trunk(tokens.flatten(1)))

    def step(self, batch: Batch) -> Step:
        features = self.encode(batch)
        prediction = self.predict(features)
        self.bank.batch_rows.clamp_(min=len(batch))
        losses = {"task": self.task.loss(prediction.output, batch)}
        if self.reg_weight:
            gaps = [norm_gap(learned, x) for learned, x in self.graph.mapped(features.pooled(), features.present)]
            losses["stabiliser"] = self.reg_weight * torch.stack(gaps).sum()
        return Step(losses, prediction)

    def prepare(self, data: Splits, stage: Stage) -> None:
        self.bank.batch_rows.fill_(1)

    def settle(self, data: Splits) -> None:
        rows = evenly_spread(data.train.positions("all"), self.stored)
        self.bank.remember(self.graph, self.encode_rows(data.train.subset(rows)))


class Misled(NeighbourGraph):
    """Each row takes from a sender by its likeness to the sender before: as much, from others than those alike."""

    def likeness(self, latent: Tensor, present: Tensor, stored: Tensor, known: Tensor) -> Tensor:
        return super().likeness(latent, present, stored.roll(1, 0), known.roll(1, 0))


@ablation_of(M3Care, "likeness")
class Unalike(M3Care):
    """The same graph over rows that are not alike: borrowed latents are those of any row."""

    graph_of = Misled


@ablation_of(M3Care)
class Constant(M3Care):
    """Off: a learned constant stands in for an absent latent, and a present one stays as it is."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **{**hyper, "reg_weight": 0.0})
        self.graph.requires_grad_(False)
        self.constant = nn.Parameter(torch.zeros(len(schema), self.dim))

    def complete(self, features: Features) -> Features:
        return with_latents(features, torch.where(features.present[..., None], features.pooled(), self.constant))

    def settle(self, data: Splits) -> None:
        pass


@claims_of(M3Care)
def claims(fixture: Fixture) -> Claims:
    """After a few epochs; on rows with every subset of the modalities."""
    follows, by_hand, reached, bank, penalty = M3Care.card.claims
    fixture.epochs = 3
    model: Any = fixture.pipeline().model.eval()
    model.load_state_dict(fixture.trained().model.state_dict())  # as a saved one is read
    rows = model.encode_rows(fixture.splits.train).pooled()
    yield Claim(bank, difference(model.bank.read("latent") if len(model.bank) else 0 * rows, rows), at_most=0)
    largest = model.bank.batch_rows.clone()
    model.prepare(fixture.splits, model.stages()[0])
    yield Claim(
        "a new training forgets the size of the last one's batches", float(model.bank.batch_rows - 1), at_most=0
    )
    model.bank.batch_rows.copy_(largest)
    batch = replace(every_subset(fixture.batch(28)), identity=97 * torch.arange(28) - 1000)
    features, graph = model.encode(batch), model.graph
    latent, keep = features.pooled(), features.present

    def asked(stored: Tensor) -> Tensor:
        model.eval().bank.remember(graph, with_latents(features, stored))
        return model.complete(features).pooled()

    likeness = partial(NeighbourGraph.likeness, graph)
    alike, gaps = likeness(latent, keep, latent, keep) * (1 - torch.eye(28)), []
    for share, z in ((1, model.train().complete(features).pooled()), (64 / 28, asked(latent))):
        for m, gate in enumerate(graph.gates):
            taken = nn.functional.normalize((share * alike + torch.eye(28)) * keep[:, m], p=1)
            borrowed = graph.second[m](taken, graph.first[m](taken, latent[:, m]))
            gaps.append(difference(z[:, m], torch.where(keep[:, m, None], gate(borrowed, latent[:, m]), borrowed)))
    yield Claim(by_hand, max(gaps), at_most=1e-4)
    graph.theta.data.fill_(-3.0)  # so low that every row has neighbours
    alike, before, still = likeness(latent, keep, latent, keep) * keep[:, 0], asked(latent), 0
    for row in (~keep[:, 0]).nonzero()[:, 0]:
        moved = latent.clone()
        moved[alike[row].argmax(), 0] += 1
        still += torch.equal(asked(moved)[row, 0], before[row, 0])
    yield Claim(follows, float(still), at_most=0)
    losses = model.requires_grad_(True).train().step(batch).losses
    below = [*graph.parameters(), *model.encoders.parameters()]
    slopes = torch.autograd.grad(losses["task"], below, retain_graph=True, allow_unused=True, materialize_grads=True)
    yield Claim(reached, float(sum(not bool(slope.any()) for slope in slopes)), at_most=0)
    change = sum((phi.norm() - x.norm()).abs() for phi, x in graph.mapped(model.encode(batch).pooled(), keep))
    yield Claim(penalty, difference(losses.get("stabiliser", 0 * change) / 1e-7, change, model), at_most=1e-3)
