"""Each modality answers with a number and the evidence for it; evidence is the weight in a sum in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core.claims import difference
from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Prediction, Schema, Step, ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.core.encoder import make_encoder
from kintsugi.layers.evidential import NIG, NIGHead, aleatoric, epistemic, nig_stack, nig_sum
from kintsugi.layers.twins import Twins
from kintsugi.losses.evidential import nig_nll, nig_regulariser


@register(
    Card(
        key="monig",
        name="MoNIG",
        leaf="corrupted/confidence",
        imperfection=("corrupted at test", "missing at test", "missing in training"),
        faithful=(
            "a normal-inverse-gamma head for each modality, and one for a pseudo-modality: the concatenation of features "
            "of a second set of encoders",
            "their summation in closed form, weights proportional to v",
            "likelihood and evidence regulariser on every branch and on the sum, unweighted",
            "aleatoric and epistemic variance of each branch and of the sum",
        ),
        simplified=(
            "encoders by kind of data stand for the paper's convolutions and transformers",
            "an absent modality leaves the sum, and the pseudo-modality with it, whose concatenation needs all: the paper "
            "has complete rows only",
            "1e-6 is added to v and beta, whose softplus can underflow",
            "no dropout: the release has 0.25 on texts and embeddings, and 0.1 in its transformers",
        ),
        claims=(
            "the answer is the mean of what all branches say, weighted by v",
            "the sum of the branches learns by its own likelihood",
            "with visible noise on a modality the answer is nearer to the target than the plain mean of the branches",
        ),
        premise="modalities tell the same number, rows differ in how noisy each is, and the noise can be seen in the "
        "inputs; it was there in training too",
        confidence="high",
        defaults_from="the paper and its released code",
        tasks=("regression",),
        evidence="the variance of the predictive Student t: aleatoric, beta / (alpha - 1), plus epistemic, that over v",
    )
)
class MoNIG(Model):
    """Mixture of normal-inverse gamma distributions.

    ``weights`` are shares v_m / v; what they lack to 1 is the share of the pseudo-modality.

    Args:
        dim: width of features and hidden layers.
        regularisation: weight of the evidence given for a wrong answer.
        pseudo: with the pseudo-modality of all features.
    """

    def __init__(self, schema: Schema, dim: int = 60, regularisation: float = 0.01, pseudo: bool = True) -> None:
        super().__init__(schema, dim, fused=None)
        self.regularisation, self.pseudo = regularisation, pseudo
        self.branches = nn.ModuleList(_branch(dim, dim, schema.task.outputs) for _ in schema.names)
        if pseudo:
            for m in schema.modalities:
                self.encoders[m.name] = Twins(self.encoders[m.name], make_encoder(m, dim))
            self.branches.append(_branch(dim * len(schema), dim, schema.task.outputs))

    def fuse(self, features: Features) -> Fused:
        own, second = features.pooled().split(self.dim, 2) if self.pseudo else (features.pooled(), None)
        inputs, seen = list(own.unbind(1)), features.present
        if second is not None:
            inputs.append(second.flatten(1))
            seen = torch.cat([seen, seen.all(1, keepdim=True)], 1)
        members = nig_stack([branch(x) for branch, x in zip(self.branches, inputs, strict=True)])
        parameters = torch.stack(list(members), 1).flatten(1)
        return Fused.vector(parameters, extras={"members": members, "seen": seen})

    def merge(self, members: NIG, seen: Tensor) -> tuple[NIG, Tensor]:
        """Members ``[B, N, K]``, seen bool ``[B, N]`` -> one distribution ``[B, K]`` and the shares of the members in it."""
        merged = nig_sum(members, seen)
        shares = torch.where(seen[..., None], members.v / merged.v[:, None], 0)  # a row of nothing has v = 0
        return merged, shares

    def head(self, fused: Fused, features: Features) -> Prediction:
        members: NIG = fused.extras["members"]
        merged, shares = self.merge(members, fused.extras["seen"])
        unimodal = {m: self.task.probabilities(members.mu[:, i]) for i, m in enumerate(self.schema.names)}
        return Prediction(
            merged.mu, features.present, fused.pooled(), unimodal, weights=shares[:, : len(self.schema)].mean(2),
            uncertainty=aleatoric(merged) + epistemic(merged), extras={**fused.extras, "merged": merged},
        )  # fmt: skip

    def step(self, batch: Batch) -> Step:
        prediction: Prediction = self(batch)
        members, seen, merged = (prediction.extras[name] for name in ("members", "seen", "merged"))
        names = [f"alone/{m}" for m in self.schema.names] + ["joint"] * self.pseudo
        losses = {
            name: self._loss(NIG(*(part[:, i] for part in members)), batch, seen[:, i]) for i, name in enumerate(names)
        }
        return Step({**losses, "fused": self._loss(merged, batch, seen.any(1))}, prediction)

    def _loss(self, nig: NIG, batch: Batch, rows: Tensor) -> Tensor:
        target = self.task.target(batch).to(nig.mu.dtype)
        each = nig_nll(nig, target) + self.regularisation * nig_regulariser(nig, target)
        return self.task.mean(each.mean(1), batch, rows)


def _branch(width: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), NIGHead(hidden, outputs))


@ablation_of(MoNIG)
class PlainMean(MoNIG):
    """Off: the plain average of what the branches say, each with its own loss; nothing is summed by evidence."""

    def merge(self, members: NIG, seen: Tensor) -> tuple[NIG, Tensor]:
        shares = (seen / seen.sum(1, keepdim=True).clamp(min=1))[..., None].expand_as(members.mu)
        return NIG(*((shares * part).sum(1) for part in members)), shares

    def step(self, batch: Batch) -> Step:
        step = super().step(batch)
        return Step({name: loss for name, loss in step.losses.items() if name != "fused"}, step.prediction)


@claims_of(MoNIG)
def claims(fixture: Fixture) -> Claims:
    """An untrained model against the formulas written out, with gradients; then one trained where a modality has noise."""
    model: Any = fixture.pipeline().model.double().eval()
    batch = fixture.batch().map(lambda x: x.double() if x.is_floating_point() else x)
    batch = batch.where((torch.arange(len(batch))[:, None] % 7 + 1) >> torch.arange(len(batch.names)) & 1 == 1)
    prediction, losses = model(batch), model.step(batch).losses
    members, seen = _written_out(model, batch)
    whole = (members[0], seen[:, :1])
    for i in range(1, len(model.branches)):  # the pairwise sum, one after the other
        whole = _folded(whole, (members[i], seen[:, i : i + 1]))
    mu, v, alpha, beta = whole[0]
    yield Claim(MoNIG.card.claims[0], difference(prediction.output, mu, model), at_most=1e-8)
    target = fixture.schema.task.target(batch).double()
    fused = _objective(whole[0], target).mean()
    yield Claim(MoNIG.card.claims[1], difference(losses.get("fused", 0 * mu.sum()), fused, model), at_most=1e-8)
    own = [_objective(m, target)[seen[:, i]].mean() for i, m in enumerate(members)]
    each = torch.stack([losses[f"alone/{m}"] for m in batch.names] + [losses["joint"]])
    yield Claim(
        "each branch learns by its own, from the rows that have it",
        difference(each, torch.stack(own), model),
        at_most=1e-8,
    )
    if "fused" in losses:
        variance = beta / (alpha - 1) * (1 + 1 / v)
        yield Claim(
            "variance is aleatoric and epistemic", difference(prediction.uncertainty, variance, model), at_most=1e-8
        )
        shares = torch.cat([m[1] for m in members[:-1]], 1) * batch.present / v
        yield Claim("a weight is a share of v", difference(prediction.weights, shares, model), at_most=1e-8)
    alone = torch.stack([prediction.unimodal[m] for m in batch.names], 1)
    said = torch.cat([fixture.schema.task.probabilities(m[0])[:, None] for m in members[:-1]], 1)
    told = difference(alone[batch.present], said[batch.present], model) + float((~alone.isnan() & ~batch.present).sum())
    yield Claim("what a modality says alone can be read where it is present, and only there", told, at_most=1e-8)
    yield from _under_noise(fixture)


def _under_noise(fixture: Fixture) -> Claims:
    """Rows of training carry noise of any strength, up to a deviation of 3, on the first modality; then of 4."""
    model: Any = fixture.pipeline().model
    rows, test = fixture.batch(320, "train"), fixture.batch(80)
    noise = torch.Generator().manual_seed(fixture.seed)

    def noisy(batch: Batch, strength: Tensor | float) -> Batch:
        x = batch.inputs["m0"]
        return replace(batch, inputs={**batch.inputs, "m0": x + strength * torch.randn(x.shape, generator=noise)})

    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        model.step(noisy(rows, 3 * torch.rand(len(rows), 1, generator=noise))).total.backward()
        optimiser.step()
    with torch.no_grad():
        bad = model(noisy(test, 4.0))
    target = model.task.target(test)
    plain = bad.extras["members"].mu.mean(1)
    ratio = (bad.output - target).abs().mean() / (plain - target).abs().mean()
    yield Claim(MoNIG.card.claims[2], float(ratio), at_most=0.9)


def _written_out(model: Any, batch: Batch) -> tuple[list[Any], Tensor]:
    """Each branch's four numbers ``[B, 1]``, and bool ``[B, N]``: which of them can be."""
    rows, names = batch.present, batch.names
    tokens = [model.encoders[m](batch.inputs[m]).pooled() * rows[:, i, None] for i, m in enumerate(names)]
    inputs = [x[:, : model.dim] for x in tokens] + [torch.cat([x[:, model.dim :] for x in tokens], 1)]
    hidden = [(branch[-1], branch[:-1](x)) for branch, x in zip(model.branches, inputs, strict=True)]
    soft = nn.functional.softplus
    members = [(a.mu(x), soft(a.v(x)) + 1e-6, 1 + soft(a.alpha(x)), soft(a.beta(x)) + 1e-6) for a, x in hidden]
    return members, torch.cat([rows, rows.all(1, keepdim=True)], 1)


def _folded(a: Any, b: Any) -> Any:
    """The published sum of two distributions (equation 9), of which each is there in some rows."""
    (mu_a, v_a, alpha_a, beta_a), seen_a = a
    (mu_b, v_b, alpha_b, beta_b), seen_b = b
    v_a, v_b = v_a * seen_a, v_b * seen_b
    mu = (v_a * mu_a + v_b * mu_b) / (v_a + v_b).clamp(min=1e-30)
    spread = (v_a * (mu_a - mu) ** 2 + v_b * (mu_b - mu) ** 2) / 2
    alpha = alpha_a * seen_a + alpha_b * seen_b + 0.5 * (seen_a & seen_b)
    return (mu, v_a + v_b, alpha, beta_a * seen_a + beta_b * seen_b + spread), seen_a | seen_b


def _objective(nig: Any, y: Tensor) -> Tensor:
    """Minus the log-density of a Student t, and 0.01 of the evidence given for a wrong answer."""
    mu, v, alpha, beta = nig
    density = torch.distributions.StudentT(2 * alpha, mu, (beta * (1 + v) / (v * alpha)).sqrt()).log_prob(y)
    return 0.01 * (y - mu).abs() * (2 * v + alpha) - density
