"""A missing latent is borrowed from similar rows, by a learned likeness in the modalities that both rows have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Schema, Splits, Step, Stream, ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.layers.bank import Bank
from kintsugi.layers.mlp import mlp
from kintsugi.layers.neighbours import NeighbourGraph, Senders
from kintsugi.layers.streams import Block, heads_for
from kintsugi.losses.distance import norm_gap


@register(
    Card(
        key="m3care",
        name="M3Care",
        leaf="missing/alignment",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "likeness only from modalities that both rows have, by kernels, kernel weights and a threshold that the task trains",
            "values above the threshold stay as they are, and each gives it a gradient",
            "two graph convolutions over the rows that have a modality; a row that takes from them may lack it",
            "the neighbours' vector alone where a modality is absent, a gated mixture with the own latent where it is present",
            "two attention blocks over one token a modality; a penalty keeps the norm of the learned maps",
        ),
        simplified=(
            "in use the senders are stored latents of training rows and never the batch, on which answers of the release depend",
            "senders are masked by column; the release masks receivers too, so that all rows without a modality get one constant",
            "rows of the graph are divided by their sums, in which all stored rows count for as many as a training batch had: "
            "in the release sums grow with the number of rows",
            "normalisation, bandwidth and penalty are of the senders that have the modality; the release reads absent slots",
            "every modality may be absent and is completed; the release names some that never are",
            "attention blocks normalise their inputs, which the release means to do and does not; dropout before the head only",
            "encoders by kind of data, pooled to one vector, stand for the paper's",
        ),
        claims=(
            "a stand-in follows the stored latent of the most similar row that has the modality",
            "stand-ins and mixtures are those worked out pair by pair from the stored rows",
            "the task's loss reaches encoders, kernels, threshold, convolutions and gates of every modality",
            "the bank holds the training rows as the final weights encode them",
            "the penalty is the change of norm of all latents of a modality, summed over modalities",
        ),
        premise="rows miss modalities in training too, and rows that are alike in one modality are alike in the others",
        confidence="high",
        defaults_from="the released notebook for ODIR; theta from that for OV, since small tables have few pairs above 0.88",
        reference=True,
        cost="medium",
    )
)
class M3Care(Model):
    """M3Care: rows take from one another in training, and from stored training rows in use.

    Args:
        eps: sigmoid(eps) is the first share of the plain kernel in the mixed one.
        theta: sigmoid(theta) is the first threshold of likeness.
        form: of the mixed kernel, ``product`` or ``sum``.
        reg_weight: of the penalty on the learned maps.
        dropout: before the head.
        stored: at most so many training rows, evenly spread over the table, are kept for use.
    """

    batch_rows: Tensor

    def __init__(
        self, schema: Schema, dim: int = 32, eps: float = 2.0, theta: float = 0.0, form: str = "product",
        reg_weight: float = 1e-7, dropout: float = 0.5, stored: int = 1024,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim, fused=2 * dim)
        self.reg_weight, self.stored = reg_weight, stored
        self.graph = NeighbourGraph(len(schema), dim, eps, theta, form)
        self.kind = nn.Parameter(torch.randn(len(schema), dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads) for heads in (heads_for(dim), 1))
        self.trunk = nn.Sequential(mlp([dim * len(schema), 2 * dim], last=True), nn.Dropout(dropout))
        self.bank = Bank("latent", "present", "hidden")
        self.register_buffer("batch_rows", torch.ones(()))

    def complete(self, features: Features) -> Features:
        latent, present = features.pooled(), features.present
        if self.training or not len(self.bank):
            z = self.graph(latent, present, None if self.training else Senders(latent[:0], present[:0], latent[:0]))
        else:
            senders = Senders(*map(self.bank.read, Senders._fields))
            z = self.graph(latent, present, senders, self.bank.others(_identity(features)), self.share(len(self.bank)))
        return features.replace(streams={name: Stream.vector(z[:, m]) for m, name in enumerate(self.schema.names)})

    def share(self, rows: int) -> Tensor:
        """How many rows of a training batch one of so many senders counts for."""
        return self.batch_rows / rows

    def fuse(self, features: Features) -> Fused:
        tokens = features.pooled() + self.kind
        for block in self.blocks:
            tokens = torch.relu(block(tokens, torch.ones_like(features.present)))
        return Fused.vector(self.trunk(tokens.flatten(1)))

    def step(self, batch: Batch) -> Step:
        features = self.encode(batch)
        prediction = self.predict(features)
        self.batch_rows.clamp_(min=len(batch))
        losses = {"task": self.task.loss(prediction.output, batch)}
        if self.reg_weight:
            losses["stabiliser"] = self.reg_weight * self.stabiliser(features)
        return Step(losses, prediction)

    def stabiliser(self, features: Features) -> Tensor:
        """How much the learned maps change the norm of all latents of a modality, summed over modalities."""
        rows = zip(features.pooled().unbind(1), features.present.unbind(1), self.graph.kernels, strict=True)
        return torch.stack([norm_gap(kernel.phi(x[has]), x[has]) for x, has, kernel in rows]).sum()  # type: ignore[operator]

    def settle(self, data: Splits) -> None:
        """The bank: latents of training rows, and what the first convolution makes of each."""
        rows = data.train.positions("all")
        few = torch.linspace(0, len(rows) - 1, min(self.stored, len(rows))).round().long()
        self.remember(self.encode_rows(data.train.subset(rows[few])))

    def remember(self, features: Features) -> None:
        """Put these rows into the bank in place of all others."""
        senders = self.graph.senders(features.pooled(), features.present, self.share(len(features.present)))
        self.bank.write(_identity(features), **senders._asdict())


def _identity(features: Features) -> Tensor:
    """-1, that of no row, where nobody said which rows these are."""
    nobody = torch.full((len(features.present),), -1, device=features.present.device)
    return nobody if features.identity is None else features.identity


@ablation_of(M3Care)
class Constant(M3Care):
    """Off: a learned constant stands in for an absent latent, and a present one stays as it is."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **{**hyper, "reg_weight": 0.0})
        self.graph.requires_grad_(False)
        self.constant = nn.Parameter(torch.zeros(len(schema), self.dim))

    def complete(self, features: Features) -> Features:
        z = torch.where(features.present[..., None], features.pooled(), self.constant)
        return features.replace(streams={name: Stream.vector(z[:, m]) for m, name in enumerate(self.schema.names)})

    def settle(self, data: Splits) -> None:
        pass


@claims_of(M3Care)
def claims(fixture: Fixture) -> Claims:
    """After a few epochs; on 24 rows with holes, six of which lack the first modality."""
    follows, by_hand, reached, bank, penalty = M3Care.card.claims
    fixture.epochs = 3
    model = fixture.pipeline().model.eval()
    model.load_state_dict(fixture.trained().model.state_dict())  # as a saved one is read
    assert isinstance(model, M3Care)
    rows = model.encode_rows(fixture.splits.train).pooled()
    stored = model.bank.read("latent") if len(model.bank) else torch.full_like(rows, torch.nan)
    yield Claim(bank, float((stored == rows).all(2).all(1).double().mean()), at_least=1.0)

    keep = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.bool).repeat(6, 1)
    batch = replace(fixture.batch(24).where(keep), identity=torch.arange(24))
    with torch.no_grad():
        features = model.encode(batch)
        latent = features.pooled()
        likeness = _likeness(model.graph, latent, keep)
        borrowed, asked = model.train().complete(features).pooled(), _stand_ins(model.eval(), features, latent)
        gaps = (borrowed - _by_hand(model.graph, latent, keep, 1), asked - _by_hand(model.graph, latent, keep, 64 / 24))
        yield Claim(by_hand, max(float(gap.abs().max()) for gap in gaps), at_most=1e-4)
        model.graph.theta.fill_(-3.0)  # so low that every row has neighbours
        asked, still = _stand_ins(model, features, latent), 0
        for row in range(1, 24, 4):
            moved = latent.clone()
            moved[(likeness[row] * keep[:, 0]).argmax(), 0] += 1
            still += torch.equal(_stand_ins(model, features, moved)[row, 0], asked[row, 0])
        yield Claim(follows, float(still), at_most=0)

    step = model.requires_grad_(True).train().step(batch)
    below = [*model.graph.parameters(), *model.encoders.parameters()]
    gradients = torch.autograd.grad(step.losses["task"], below, allow_unused=True)
    yield Claim(reached, float(sum(g is None or not bool(g.any()) for g in gradients)), at_most=0)
    graph: Any = model.graph
    change = [
        k.phi(x[on]).norm() - x[on].norm() for k, x, on in zip(graph.kernels, latent.unbind(1), keep.T, strict=True)
    ]
    total = 1e-7 * sum(abs(float(gap.detach())) for gap in change)
    penalised = float(step.losses["stabiliser"].detach()) if "stabiliser" in step.losses else 0.0
    yield Claim(penalty, abs(penalised / total - 1), at_most=1e-4)


def _stand_ins(model: M3Care, features: Features, stored: Tensor) -> Tensor:
    """What rows get from a bank of these latents ``[B, M, D]``, their own."""
    model.remember(
        features.replace(streams={name: Stream.vector(stored[:, m]) for m, name in enumerate(features.streams)})
    )
    return model.complete(features).pooled()


def _by_hand(graph: Any, latent: Tensor, present: Tensor, share: float) -> Tensor:
    """Completed latents ``[B, M, D]`` of rows that take from one another."""
    likeness, z = _likeness(graph, latent, present), latent.clone()
    taken = torch.where(likeness > torch.sigmoid(graph.theta), likeness, 0) * share
    taken.fill_diagonal_(1)
    for m, gate in enumerate(graph.gates):
        weights, borrowed = taken * present[:, m], latent[:, m]
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
        for linear in (graph.first[m].linear, graph.second[m].linear):
            borrowed = torch.relu(weights @ borrowed @ linear.weight.T + linear.bias)
        a, b = torch.sigmoid(gate.neighbour(borrowed)), torch.sigmoid(gate.own(latent[:, m]))
        z[:, m] = torch.where(present[:, m, None], (a * borrowed + b * latent[:, m]) / (a + b), borrowed)
    return z


def _likeness(graph: Any, latent: Tensor, present: Tensor) -> Tensor:
    """Of all pairs of rows ``[B, B]``, before the threshold."""
    total, shared = torch.zeros(2, len(latent), len(latent))
    for kernel, own, has in zip(graph.kernels, latent.unbind(1), present.T, strict=True):
        both, each = has[:, None] & has, []
        for x in (torch.relu(kernel.phi(own)), own):
            x = (x - x[has].mean(0)) / (x[has].var(0, correction=0) + 1e-5).sqrt() * graph.norm.weight
            squared, width = (x[:, None] - x).square().sum(2), torch.pdist(x[has]).square().mean()
            each.append(sum(torch.exp(-squared / (width * scale)) for scale in (0.5, 1.0, 2.0)) / 3)
        share = torch.sigmoid(kernel.eps)
        total += torch.where(both, ((1 - share) * each[0] + share) * each[1], 0)
        shared += both
    return total / shared.clamp(min=1)
