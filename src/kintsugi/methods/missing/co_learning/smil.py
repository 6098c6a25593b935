"""Rebuild a missing feature from modality centres; learn how by Bayesian meta-learning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core.claims import difference
from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Prediction, Schema, Splits, Stage, Step, Stream, ablation_of,
    claims_of, record_steps, register,
)  # fmt: skip
from kintsugi.imperfect import parse_mechanism
from kintsugi.layers.gaussian import GaussianHead, kl_unit, sample
from kintsugi.layers.meta import fast_weights
from kintsugi.layers.mlp import mlp
from kintsugi.losses.distance import mse

CLASSIFIER = ("trunk.*", "task_head.*")  # what the inner step moves


@register(
    Card(
        key="smil",
        name="SMIL",
        leaf="missing/co_learning",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "a missing feature is a random convex combination of centres (k-means on the complete rows)",
            "a second small network perturbs the joint feature, by an amount that depends on the input",
            "bilevel training: an inner step on the incomplete rows, an outer loss on complete ones at the "
            "adapted weights, with the graph of the inner step kept",
            "a divergence of both random quantities from a unit Gaussian, as in the variational form",
        ),
        simplified=(
            "the inner step moves the classifier only: second-order gradients through convolutions cost more "
            "than the rest",
            "the joint feature is layer-normalised before the multiplicative perturbation, which diverges without it",
            "one distance of features; the release has two, of two layers, alpha and beta 0.01, and noise at three layers",
            "the inner rate is constant; that of the release falls to a tenth every 1,000 iterations",
            "at test the posterior mean stands for the average over draws, so that an answer does not depend on a seed",
        ),
        claims=(
            "centres are those of k-means on the complete training rows",
            "a missing feature is a convex combination of centres",
            "training draws shares and perturbation anew each time",
            "the inner loss is that of the rows as they are",
            "the outer loss is that of complete rows at the adapted weights, through the graph of the inner step",
            "the rebuilt joint feature is drawn to the true one",
        ),
        premise="few training rows are complete, and modalities share what tells the target",
        worlds=("few_complete_rows", "redundant"),
        confidence="high",
        defaults_from="the release for AV-MNIST: 10 centres, inner rate 1e-3, weight 0.01 of the feature terms",
        cost="medium",
    )
)
class SMIL(Model):
    """Severely missing modality, by Bayesian meta-learning.

    Args:
        centres: of each modality's features.
        hidden: width of the classifier's hidden layer.
        inner_lr: of the inner step.
        alpha: weight of the distance between rebuilt and true joint feature.
        kl: weight of the divergences.
    """

    def __init__(
        self, schema: Schema, dim: int = 32, centres: int = 10,
        hidden: int = 64, inner_lr: float = 1e-3, alpha: float = 0.01,
        kl: float = 1e-3
    ) -> None:  # fmt: skip
        width = dim * len(schema)
        super().__init__(schema, dim, fused=hidden)
        self.trunk = mlp([width, hidden], last=True)
        self.pick = nn.ModuleDict({m: GaussianHead(dim, centres) for m in schema.names})  # reconstruction network
        self.disturb = GaussianHead(dim, width)  # regularisation network
        self.inner_lr, self.alpha, self.kl = inner_lr, alpha, kl
        for m in schema.names:
            self.register_buffer(f"centres_{m}", torch.zeros(centres, dim))

    def stages(self) -> list[Stage]:
        return [
            Stage("warm", 0.2, trainable=("encoders.*", "trunk.*", "task_head.*"), rows="complete"),
            Stage("meta", 0.8, auxiliary="complete"),
        ]

    def prepare(self, data: Splits, stage: Stage) -> None:
        """Centres of each modality's features over the complete rows; fewer where there are fewer rows."""
        if stage.name == "meta":
            from sklearn.cluster import KMeans

            for name, stream in self.encode_rows(data.train, "complete").streams.items():
                x = stream.pooled().cpu().numpy()
                centres = self.get_buffer(f"centres_{name}")
                found = KMeans(min(len(centres), len(x)), n_init=3, random_state=0).fit(x).cluster_centers_
                repeats = -(-len(centres) // len(found))  # of which there are more than rows: some come twice
                centres.copy_(torch.as_tensor(found).repeat(repeats, 1)[: len(centres)])

    def complete(self, features: Features) -> Features:
        if self.clock.stage == "warm":
            return features
        known = super().fuse(features).pooled()
        rebuilt: dict[str, Stream] = {}
        for i, (m, stream) in enumerate(features.streams.items()):
            guess = self.shares(m, known) @ self.get_buffer(f"centres_{m}")
            rebuilt[m] = Stream.vector(torch.where(features.present[:, i, None], stream.pooled(), guess))
        return features.replace(streams=rebuilt)

    def shares(self, modality: str, known: Tensor) -> Tensor:
        """Weight of each centre ``[B, K]``, positive and summing to one, from the mean of what is there ``[B, D]``."""
        weights = F.softplus(sample(*self.pick[modality](known), on=self.training)) + 1e-6
        return weights / weights.sum(1, keepdim=True)

    def head(self, fused: Fused, features: Features) -> Prediction:
        answer = self.task_head(Fused.vector(self.trunk(fused.pooled())))
        return Prediction(answer, features.present, fused.pooled())

    def fuse(self, features: Features) -> Fused:
        joint = F.layer_norm(features.flat(), (self.dim * len(self.schema),))
        if self.clock.stage == "warm":
            return Fused.vector(joint)
        noise = sample(*self.disturb(super().fuse(features).pooled().detach()), on=self.training)
        return Fused.vector(joint * F.softplus(noise))

    def divergence(self, features: Features) -> Tensor:
        """From a unit Gaussian, of the shares of absent features and of the perturbation."""
        known = super().fuse(features).pooled()
        terms = [kl_unit(*self.disturb(known.detach())).mean()]
        for i, m in enumerate(self.schema.names):
            absent = (~features.present[:, i]).to(known.dtype)
            terms.append((kl_unit(*self.pick[m](known)) * absent).sum() / absent.sum().clamp(min=1))
        return torch.stack(terms).sum()

    def step(self, batch: Batch) -> Step:
        if self.clock.stage == "warm":
            return super().step(batch)
        assert batch.auxiliary is not None
        complete = batch.auxiliary
        features = self.encode(batch)
        here = self.predict(features)  # the rows as they are: meta-train
        inner = self.task.loss(here.output, batch)
        fast = fast_weights(self, inner, self.inner_lr, only=CLASSIFIER)
        true = self.call(fast, complete)  # meta-test
        rebuilt = self.call(fast, complete.where(self.holes(batch, len(complete))))
        assert true.embedding is not None
        assert rebuilt.embedding is not None
        losses = {
            "inner": inner,
            "outer": self.task.loss(rebuilt.output, complete) + self.task.loss(true.output, complete),
            "feature": self.alpha * mse(rebuilt.embedding, true.embedding.detach()),
            "kl": self.kl * self.divergence(features),
        }
        return Step(losses, here)

    def holes(self, batch: Batch, rows: int) -> Tensor:
        """Patterns to hide complete rows by: those of the incomplete rows of the batch, else one modality each in turn."""
        patterns = batch.present[~batch.present.all(1) & batch.present.any(1)]
        if not len(patterns):
            patterns = torch.eye(len(self.schema), dtype=torch.bool, device=batch.device)
        return patterns[torch.arange(rows, device=batch.device) % len(patterns)]


ablation_of(SMIL, "meta step", inner_lr=0.0)  # the outer loss at the weights as they are


@ablation_of(SMIL)
class Unlearned(SMIL):
    """Off: centres of zeros, no perturbation, no inner step; the same stages, rows and weighted losses."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **{**hyper, "inner_lr": 0.0})

    def prepare(self, data: Splits, stage: Stage) -> None:
        pass

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(F.layer_norm(features.flat(), (self.dim * len(self.schema),)))


@claims_of(SMIL)
def claims(fixture: Fixture) -> Claims:
    """A short training with holes, and the objective of one batch against the formulas written out, at posterior means."""
    train, _, _ = fixture.data.with_missing(parse_mechanism("mcar(0.3)"), seed=1).split()
    fixture.splits, fixture.epochs = Splits(train, fixture.splits.val, fixture.splits.test), 10
    pipeline = fixture.pipeline()
    model: Any = pipeline.model
    steps = record_steps(model, "encoders")
    fixture.train(pipeline)
    warm, meta = ([one for one in steps.taken if (one.stage == "warm") is first] for first in (True, False))
    early = sum(len(each.modules & {"pick", "disturb"}) for each in warm)
    yield Claim("the first stage moves neither of the two networks", early, at_most=0)
    yield Claim("the first stage takes a fifth of the epochs", abs(len({each.epoch for each in warm}) - 2), at_most=0)
    complete = [each.batch for each in warm] + [e.batch.auxiliary for e in meta if e.batch.auxiliary is not None]
    holes = sum(int((~batch.present).sum()) for batch in complete)
    yield Claim("the first stage and the outer loss see complete rows alone", holes, at_most=0)
    named = iter(SMIL.card.claims)
    found = steps.start.get("meta", {"encoders": model.encoders})["encoders"]
    yield Claim(next(named), _gap_to_means(model, train, found), at_most=1e-4)

    model.double()
    every = fixture.batch(80).map(lambda x: x.double() if x.is_floating_point() else x)
    patterns = torch.tensor([[True, False, False], [False, True, True], [True, True, False], [True, True, True]])
    rows = every.rows(torch.arange(40)).where(patterns.repeat(10, 1))
    yield Claim(next(named), _share_of_mixtures(model, rows), at_least=1.0)
    model.train()
    looks = [(model.complete(model.encode(rows)).flat(), model(every).output) for _ in range(2)]
    anew = [float((a - b).abs().amax(1).gt(1e-9).double().mean()) for a, b in zip(*looks, strict=True)]
    yield Claim(next(named), min(anew[0] / 0.75, anew[1]), at_least=1.0)  # a quarter of the rows has no holes
    model.eval()
    again = (model(rows).output - model(rows).output).detach().abs().max()
    yield Claim("use draws nothing", float(again), at_most=0)
    batch = replace(rows, auxiliary=every.rows(torch.arange(40, 80)))
    losses, expected = type(model).step(model, batch).losses, _written_out(model, batch)
    unit = "shares and perturbation are drawn to a unit Gaussian"
    for loss, value in expected.items():
        yield Claim(next(named, unit), difference(losses.get(loss, 0 * value), value, model), at_most=1e-9)
    nothing = patterns.new_tensor(
        [[True, False, False], [False, False, False], [True, True, True], [False, True, True]]
    )
    turns = model.holes(every.rows(torch.arange(4)).where(nothing), 5).tolist()
    wrong = sum(turn != nothing[i].tolist() for turn, i in zip(turns, (0, 3, 0, 3, 0), strict=True))
    alone = int((model.holes(every, 4).int() != torch.eye(3)[[0, 1, 2, 0]]).sum())
    yield Claim("complete rows lose what the rows of the batch lack, in turn", wrong + alone, at_most=0)


def _gap_to_means(model: Any, train: Any, encoders: nn.ModuleDict) -> float:
    """Largest distance of a centre from the mean of the complete rows that are nearest to it: 0 where k-means ends."""
    with torch.no_grad():
        streams = model.eval().encode(train.batch(train.positions("complete")), encoders).streams
    gaps = []
    for name, stream in streams.items():
        centres, x = model.get_buffer(f"centres_{name}"), stream.pooled()
        distances = torch.cdist(x, centres)
        nearest = distances.argmin(1)
        own = [
            x[nearest == k] if bool((nearest == k).any()) else x[distances[:, k].argmin()][None]
            for k in range(len(centres))
        ]
        gaps.append(float((torch.stack([rows.mean(0) for rows in own]) - centres).abs().max()))
    return max(gaps)


def _shares(model: Any, name: str, known: Tensor) -> Tensor:
    """At the posterior mean, written out: softplus, and the shares sum to one."""
    positive = torch.log1p(model.pick[name].mean(known).exp()) + 1e-6
    return positive / positive.sum(1, keepdim=True)


def _filled(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean of what is there ``[B, D]``, and features with mixtures of centres where something is absent ``[B, M, D]``."""
    x, present = model.encode(batch).pooled(), batch.present[..., None]
    known = (x * present).sum(1) / present.sum(1)
    guess = [_shares(model, m, known) @ model.get_buffer(f"centres_{m}") for m in batch.names]
    return known, torch.where(present, x, torch.stack(guess, 1))


def _share_of_mixtures(model: Any, rows: Batch) -> float:
    """Of missing features, those that are a mixture of centres: not zero, with positive shares that sum to one."""
    known, filled = _filled(model, rows)
    completed = model.complete(model.encode(rows)).pooled()
    shares = torch.stack([model.shares(name, known) for name in rows.names], 1)
    mixed = ((completed - filled).abs().amax(2) < 1e-9) & completed.any(2)
    mixed &= (shares > 0).all(2) & ((shares.sum(2) - 1).abs() < 1e-9)
    return float(mixed[~rows.present].double().mean())


def _written_out(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Algorithm 1 of Ma et al. (2021) with defaults: the terms of the objective at posterior means."""
    layers = [model.trunk[0].weight, model.trunk[0].bias, model.task_head.linear.weight, model.task_head.linear.bias]

    def answer(rows: Batch, w: list[Tensor]) -> tuple[Tensor, Tensor]:
        known, filled = _filled(model, rows)
        joint = filled.flatten(1)
        joint = (joint - joint.mean(1, keepdim=True)) / (joint.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        joint = joint * torch.log1p(model.disturb.mean(known.detach()).exp())
        return joint, F.cross_entropy((joint @ w[0].T + w[1]).relu() @ w[2].T + w[3], rows.target)  # type: ignore[arg-type]

    def divergence(head: Any, x: Tensor) -> Tensor:
        mean, logvar = head.mean(x), 8 * torch.tanh(head.logvar(x) / 8)
        each: Tensor = (logvar.exp() + mean.square() - 1 - logvar).sum(1) / 2
        return each

    _, inner = answer(batch, layers)
    slopes = torch.autograd.grad(inner, [w.requires_grad_() for w in layers], create_graph=True)
    fast = [w - 1e-3 * slope for w, slope in zip(layers, slopes, strict=True)]
    complete: Any = batch.auxiliary
    lacking = batch.present[~batch.present.all(1)]
    true, known_loss = answer(complete, fast)
    rebuilt, loss = answer(complete.where(lacking[torch.arange(len(complete)) % len(lacking)]), fast)
    known, _ = _filled(model, batch)
    kl = divergence(model.disturb, known.detach()).mean()
    for i, name in enumerate(batch.names):
        kl = kl + divergence(model.pick[name], known)[~batch.present[:, i]].mean()
    feature = (rebuilt - true.detach()).square().mean()
    return {"inner": inner, "outer": loss + known_loss, "feature": 0.01 * feature, "kl": 1e-3 * kl}
