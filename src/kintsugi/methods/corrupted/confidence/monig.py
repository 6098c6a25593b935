"""Each modality answers with a number and the evidence for it; evidence is the weight in a sum in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.components.augmentations import GaussianNoise
from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Pipeline, Prediction, Schema, Step, ablation_of, claims_of,
    difference, every_subset, register,
)  # fmt: skip
from kintsugi.core.encoder import make_encoder
from kintsugi.layers.evidential import NIG, NIGHead, aleatoric, epistemic, nig_stack, nig_sum
from kintsugi.layers.mlp import mlp
from kintsugi.layers.twins import Twins
from kintsugi.losses.evidential import nig_nll, nig_regulariser


@register(
    Card(
        key="monig",
        name="MoNIG",
        leaf="corrupted/confidence",
        imperfection=("corrupted at test", "missing at test", "missing in training"),
        faithful=(
            "a normal-inverse-gamma head a modality, and one for a pseudo-modality: features of second encoders side by side",
            "their sum in closed form, weights proportional to v; aleatoric and epistemic variance of each and of the sum",
            "likelihood and evidence regulariser on every branch and on the sum, unweighted",
        ),
        simplified=(
            "encoders by kind; no dropout; 1e-6 added to v and beta, alpha at least 1 + 2**-20: variances stay finite in float32",
            "an absent modality leaves the sum, and the pseudo-modality with it; the paper has complete rows only",
        ),
        claims=(
            "the answer is the mean of what all branches say, weighted by v",
            "the sum of the branches learns by its own likelihood",
            "with visible noise on a modality the answer is nearer to the target than that of a model trained with plain means",
        ),
        premise="modalities tell one number; how noisy each is differs by row, and shows in inputs, in training too",
        worlds=("visible_noise", "redundant"),
        confidence="high",
        defaults_from="the paper and its released code",
        tasks=("regression",),
        evidence="variance of the predictive Student t: aleatoric, beta / (alpha - 1), plus epistemic, that over v",
    )
)
class MoNIG(Model):
    """Mixture of normal-inverse gamma distributions; ``weights`` are shares v_m / v, that of the pseudo-modality left out.

    Args:
        dim: width of features and hidden layers. pseudo: with the pseudo-modality of all features.
        regularisation: weight of the evidence given for a wrong answer.
    """

    def __init__(self, schema: Schema, dim: int = 60, regularisation: float = 0.01, pseudo: bool = True) -> None:
        super().__init__(schema, dim, fused=None)
        self.regularisation, self.pseudo = regularisation, pseudo
        widths = [(width, dim, dim) for width in [dim] * len(schema) + [dim * len(schema)] * pseudo]
        self.branches = nn.ModuleList(nn.Sequential(*mlp(each), NIGHead(dim, self.task.outputs)) for each in widths)
        for m in schema.modalities if pseudo else ():
            self.encoders[m.name] = Twins(self.encoders[m.name], make_encoder(m, dim))

    def fuse(self, features: Features) -> Fused:
        pooled, seen = features.pooled(), features.present
        inputs = list(pooled[..., : self.dim].unbind(1))
        if self.pseudo:
            inputs.append(pooled[..., self.dim :].flatten(1))
            seen = torch.cat([seen, seen.all(1, keepdim=True)], 1)
        members = nig_stack([branch(x) for branch, x in zip(self.branches, inputs, strict=True)])
        return Fused.vector(torch.stack(members, 1).flatten(1), extras={"members": members, "seen": seen})

    def merge(self, members: NIG, seen: Tensor) -> tuple[NIG, Tensor]:
        """Members ``[B, N, K]``, seen bool ``[B, N]`` -> one distribution ``[B, K]`` and the shares of the members in it."""
        merged = nig_sum(members, seen)
        return merged, torch.where(seen[..., None], members.v / merged.v[:, None], 0)  # a row of nothing has v = 0

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
        losses = {n: self._loss(NIG(*(x[:, i] for x in members)), batch, seen[:, i]) for i, n in enumerate(names)}
        return Step({**losses, "fused": self._loss(merged, batch, seen.any(1))}, prediction)

    def _loss(self, nig: NIG, batch: Batch, rows: Tensor) -> Tensor:
        target = self.task.target(batch).to(nig.mu.dtype)
        each = nig_nll(nig, target) + self.regularisation * nig_regulariser(nig, target)
        return self.task.mean(each.mean(1), batch, rows)


@ablation_of(MoNIG)
class PlainMean(MoNIG):
    """Off: the plain average of what the branches say, in the answer and in the loss; nothing is weighed by evidence."""

    def merge(self, members: NIG, seen: Tensor) -> tuple[NIG, Tensor]:
        shares = (seen / seen.sum(1, keepdim=True).clamp(min=1))[..., None].expand_as(members.mu)
        return NIG(*(torch.where(seen[..., None], shares * part, 0).sum(1) for part in members)), shares


@claims_of(MoNIG)
def claims(fixture: Fixture) -> Claims:
    """Untrained, the published sum (equation 9, folded) and losses, with gradients; then trained where a modality has noise."""
    model: Any = fixture.pipeline().model.double().eval()
    batch = every_subset(fixture.batch().map(lambda x: x.double() if x.is_floating_point() else x))
    prediction, losses, y = model(batch), model.step(batch).losses, model.task.target(batch).double()
    members, seen = prediction.extras["members"], prediction.extras["seen"]
    mu, v, alpha, beta = (x * seen[..., None] for x in members)
    mean, total = (v * mu).sum(1) / v.sum(1), v.sum(1)
    alpha = alpha.sum(1) + (seen.sum(1, keepdim=True) - 1) / 2
    beta = beta.sum(1) + (v * (mu - mean[:, None]) ** 2).sum(1) / 2
    own = [_objective(y[rows], *(x[rows, i] for x in members)).mean() for i, rows in enumerate(seen.unbind(1))]
    each = [losses[f"alone/{m}"] for m in batch.names] + [losses["joint"]]
    branch, rows, m = model.branches[-2], batch.present[:, -1], batch.names[-1]
    alone = branch[-1].mu(branch[:-1](model.encoders[m].first(batch.inputs[m][rows]).pooled()))
    for name, measured, expected in (
        (MoNIG.card.claims[0], prediction.output, mean),
        (MoNIG.card.claims[1], losses["fused"], _objective(y, mean, total, alpha, beta).mean()),
        ("each branch learns by its own loss, from rows that have it", torch.stack(each), torch.stack(own)),
        ("a modality answers alone as well", prediction.unimodal[m][rows], model.task.probabilities(alone)),
        ("variance is aleatoric and epistemic", prediction.uncertainty, beta / (alpha - 1) * (1 + 1 / total)),
    ):
        yield Claim(name, difference(measured, expected, model), at_most=1e-8)
    yield _under_noise(fixture, fixture.batch(80))


def _under_noise(fixture: Fixture, test: Batch) -> Claim:
    """Trained with noise of any strength, up to a deviation of 3, on the first modality; then of 4."""
    noise, model = GaussianNoise(fixture.schema, "m0", strongest=3), fixture.pipeline().model
    plain = PlainMean(fixture.schema, **model.hyper)
    plain.load_state_dict(model.state_dict())
    shaken = noise.shaken(test, torch.full((len(test),), 4.0), torch.Generator().manual_seed(fixture.seed))
    trained = [fixture.train(Pipeline(each, strategies=[noise])).eval().model for each in (model, plain)]
    own, other = ((each(shaken).output.detach() - each.task.target(test)).abs().mean() for each in trained)
    return Claim(MoNIG.card.claims[2], float(own / other), at_most=0.9)


def _objective(y: Tensor, mu: Tensor, v: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Minus the log-density of a Student t, and 0.01 of the evidence given for a wrong answer."""
    density = torch.distributions.StudentT(2 * alpha, mu, (beta * (1 + v) / (v * alpha)).sqrt()).log_prob(y)
    return 0.01 * (y - mu).abs() * (2 * v + alpha) - density
