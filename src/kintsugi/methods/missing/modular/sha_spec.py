"""What all modalities share stands in for one that is absent; what is a modality's own joins in where it is there."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Prediction, Schema, Stage, Step, ablation_of,
    claims_of, difference, every_subset, register,
)  # fmt: skip
from kintsugi.layers.disentangle import SharedSpecific
from kintsugi.layers.mlp import mlp


def some(batch: Batch, generator: Generator) -> Tensor:
    """The view of training, bool ``[B, M]``: a number from 1 to all that a row has, then so many of them, all alike likely."""
    here, count = batch.present, batch.present.sum(1)
    kept = (
        1 + (torch.rand(len(here), generator=generator).to(count.device) * count).long()
    )  # one more than a row without any
    noise = torch.rand(here.shape, generator=generator).to(here.device).masked_fill(~here, 2)
    return here & (noise.argsort(1).argsort(1) < kept[:, None])


@register(
    Card(
        key="sha_spec",
        name="ShaSpec",
        leaf="missing/modular",
        imperfection=("missing in training", "missing at test"),
        faithful=(
            "one shared encoder and a specific one for each modality; shared code plus one common projection of both",
            "the shared codes of what is there stand, as they are, for the feature of an absent modality",
            "shared codes of neighbours in a ring of the modalities are aligned by their absolute difference",
            "a linear classifier tells from a specific code which modality it is of",
            "complete views for 8 of 18 parts of training, then a random number of random modalities",
        ),
        simplified=(
            "the classification form: vectors from encoders by kind, and perceptrons of two layers for the branches of a U-Net",
            "the mean of the available shared codes stands in, as in the paper; the authors' code takes one of them, see general",
            "views are drawn for each row; the authors' code draws for a batch, which has one row",
            "alignment and modality classifier read available modalities alone; the authors' code has them read zeros too",
            "a ring of two modalities has one pair of neighbours",
            "encoders of a modality's own stand before both branches, so that specific codes tell their modality whether or not "
            "the classifier is trained",
        ),
        claims=(
            "the shared codes of what is there stand for the feature of an absent modality",
            "shared codes of neighbours are aligned by their absolute difference where a row has both",
            "a linear classifier of specific codes is trained to tell their modality",
            "the trained classifier tells the modality of specific codes",
        ),
        premise="modalities share much of what tells of the target, and each has something of its own",
        worlds=("redundant", "complementary"),
        confidence="high",
        defaults_from="the authors' code (billhhh/ShaSpec): weights 0.1 and 0.02",
    )
)
class ShaSpec(Model):
    """Shared-specific feature modelling.

    Args:
        dim: width of codes. hidden: of the layer that joins the features of all modalities.
        alpha, beta: weights of the alignment and of the modality classifier; 0 leaves a loss out.
        general: what stands in for an absent modality: ``mean`` of the available shared codes, the ``first`` of them in the
            order of the schema, or ``zero``.

    Raises:
        ConfigError: no such ``general``, a weight below 0, or no hidden unit.
    """

    def __init__(
        self, schema: Schema, dim: int = 32, hidden: int = 64, alpha: float = 0.1, beta: float = 0.02, general: str = "mean"
    ) -> None:  # fmt: skip
        if hidden < 1:
            raise ConfigError(f"sha_spec: hidden={hidden} must be 1 or more")
        super().__init__(schema, dim, fused=hidden)
        if general not in ("mean", "first", "zero"):
            raise ConfigError(f"unknown general {general!r}; known: mean, first, zero")
        if min(alpha, beta) < 0:
            raise ConfigError("sha_spec: alpha and beta must be 0 or more")
        self.alpha, self.beta, self.general = alpha, beta, general
        self.branches = SharedSpecific(lambda: mlp([dim, dim, dim]), len(schema))
        self.compose = nn.Linear(2 * dim, dim, bias=False)
        self.trunk = mlp([len(schema) * dim, hidden], last=True)
        self.which = nn.Linear(dim, len(schema)).requires_grad_(beta > 0)

    training_only = ("which",)

    def stages(self) -> list[Stage]:
        return [Stage("all", 8), Stage("random", 10, view=some)]

    def fuse(self, features: Features) -> Fused:
        here = features.present[..., None]
        shared, specific = self.branches(features.pooled())
        composed = shared + self.compose(torch.cat([shared, specific], 2))
        joined = torch.where(here, composed, self.stand_in(shared, features.present)[:, None])
        return Fused.vector(self.trunk(joined.flatten(1)), extras={"shared": shared, "specific": specific})

    def stand_in(self, shared: Tensor, present: Tensor) -> Tensor:
        """Shared codes ``[B, M, D]``, present bool ``[B, M]`` -> ``[B, D]``: what any absent modality of a row gets."""
        sources = {"mean": present, "first": present & (present.cumsum(1) == 1), "zero": torch.zeros_like(present)}
        source = sources[self.general]
        mean: Tensor = torch.where(source[..., None], shared, 0).sum(1) / source.sum(1, keepdim=True).clamp(min=1)
        return mean

    def head(self, fused: Fused, features: Features) -> Prediction:
        return replace(super().head(fused, features), extras=fused.extras)

    def step(self, batch: Batch) -> Step:
        prediction: Prediction = self(batch)
        shared, specific, here = prediction.extras["shared"], prediction.extras["specific"], self.columns(batch)
        losses = {"task": self.task.loss(prediction.output, batch)}
        if self.alpha:
            losses["alignment"] = self.alpha * ring_gap(shared, here)
        if self.beta:
            modality = torch.arange(here.shape[1], device=here.device).expand_as(here)[here]
            surprise = F.cross_entropy(self.which(specific[here]), modality, reduction="sum")
            losses["modality"] = self.beta * surprise / max(len(modality), 1)
        return Step(losses, prediction)


def ring_gap(codes: Tensor, present: Tensor) -> Tensor:
    """Sum over neighbours (0, 1), (1, 2), …, (M - 1, 0) of the mean absolute difference of their codes, a scalar.

    codes ``[B, M, D]``; present bool ``[B, M]``: a pair is compared over the rows that have both, and is 0 without any.
    """
    count = codes.shape[1]
    ring = [*pairwise(range(count)), (count - 1, 0)][: count if count > 2 else 1]
    gaps = []
    for i, j in ring:
        rows = present[:, i] & present[:, j]
        gap = (codes[rows, i] - codes[rows, j]).abs()
        gaps.append(gap.sum() / max(gap.numel(), 1))
    return torch.stack(gaps).sum()


ablation_of(ShaSpec, alpha=0.0, beta=0.0, general="zero")
ablation_of(ShaSpec, "stand-in", general="zero")
ablation_of(ShaSpec, "alignment", alpha=0.0)
ablation_of(ShaSpec, "modality classifier", beta=0.0)


@claims_of(ShaSpec)
def claims(fixture: Fixture) -> Claims:
    """Untrained, on rows with every subset of the modalities, answers and losses with their gradients."""
    stands_in, aligned, tells, told = ShaSpec.card.claims
    model: Any = fixture.pipeline().model.double().eval()
    batch = every_subset(fixture.batch(42).map(lambda x: x.double() if x.is_floating_point() else x))
    losses, here = model.step(batch).losses, batch.present
    inputs = [model.encoders[name](batch.inputs[name]).pooled() for name in batch.names]
    shared = [_branch(model.branches.shared, x) for x in inputs]
    specific = [_branch(encoder, x) for encoder, x in zip(model.branches.specific, inputs, strict=True)]
    left, right = model.compose.weight.T.chunk(2)
    features = []
    for row, seen in enumerate(here.tolist()):
        general = torch.stack([r[row] for r, there in zip(shared, seen, strict=True) if there]).mean(0)
        parts = zip(shared, specific, seen, strict=True)
        features += [r[row] + r[row] @ left + s[row] @ right if there else general for r, s, there in parts]
    hidden = torch.relu(torch.stack(features).view(len(batch), -1) @ model.trunk[0].weight.T + model.trunk[0].bias)
    answer, expected = model(batch).output, model.task_head.linear(hidden)
    yield Claim(stands_in, difference(answer, expected, model), at_most=1e-8)
    full = here.all(1)
    gap = difference(answer[full], expected[full], model)
    yield Claim("a shared code and one projection of both codes make the feature of a modality", gap, at_most=1e-8)
    gaps = [(shared[i] - shared[j])[here[:, i] & here[:, j]].abs().mean() for i, j in ((0, 1), (1, 2), (2, 0))]
    wanted = 0.1 * torch.stack(gaps).sum()
    yield Claim(aligned, difference(losses.get("alignment", 0 * wanted), wanted, model), at_most=1e-8)
    logits = torch.cat(
        [s[there] @ model.which.weight.T + model.which.bias for s, there in zip(specific, here.T, strict=True)]
    )
    modality = torch.cat([torch.full((int(there.sum()),), m) for m, there in enumerate(here.T)])
    wanted = 0.02 * -logits.log_softmax(1).gather(1, modality[:, None]).mean()
    yield Claim(tells, difference(losses.get("modality", 0 * wanted), wanted, model), at_most=1e-8)
    task = model.step(batch.only(batch.names[0])).losses["task"]
    reached = torch.autograd.grad(task, [*model.branches.specific[1].parameters()], materialize_grads=True)
    yield Claim(
        "an absent modality's own encoder learns nothing", float(sum(g.abs().sum() for g in reached)), at_most=0
    )
    model.general = "first"
    codes = torch.stack(shared, 1)
    firsts = codes[torch.arange(len(here)), [seen.index(True) for seen in here.tolist()]]
    gap = difference(model.stand_in(codes, here), firsts)
    yield Claim("the first shared code may stand in", gap, at_most=0)
    yield from _views(model, fixture.batch(80))
    model, rows = fixture.trained().model.eval(), fixture.batch(80)
    with torch.no_grad():
        right = model.which(model(rows).extras["specific"]).argmax(2) == torch.arange(len(rows.names))
    yield Claim(told, float(right.float().mean()), at_least=0.8)


def _views(model: Any, batch: Batch) -> Claims:
    first, second = model.stages()
    whole = float(second.fraction / first.fraction) if first.view == "natural" else 0.0
    yield Claim("training with random views is 10 / 8 as long as with complete ones before", whole, at_least=1.25)
    noise = torch.Generator().manual_seed(0)
    kept = torch.cat([second.view(batch, noise) for _ in range(30)]) if callable(second.view) else batch.present
    shares = torch.bincount(kept.sum(1), minlength=4)[:4] / len(kept)
    off = (shares - torch.tensor([0, 1, 1, 1]) / 3).abs().max() + (kept.float().mean(0) - 2 / 3).abs().max()
    yield Claim("any number of modalities is as likely, and then any of them", float(off), at_most=0.06)


def _branch(layers: nn.Sequential, x: Tensor) -> Tensor:
    first, _, second = layers
    return F.linear(F.linear(x, first.weight, first.bias).clamp(min=0), second.weight, second.bias)  # type: ignore[arg-type]
