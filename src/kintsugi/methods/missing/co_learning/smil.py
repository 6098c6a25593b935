"""Rebuild a missing feature from modality centres; learn how by Bayesian meta-learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core.claims import held
from kintsugi.core import (
    Claim, Claims, Batch, Card, Features, Fused, Fixture, Model, Prediction, Schema, Splits, Stage, Step, Stream,
    ablation_of, claims_of, register,
)  # fmt: skip
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
            "at test the posterior mean stands for the average over draws, so that an answer does not depend on a seed",
        ),
        claims=(
            "rebuilt features are convex combinations of the centres; the outer gradient reaches the rebuilding "
            "network through the inner step; draws differ in training and not in use",
        ),
        premise="few training rows are complete, and modalities share what tells the target",
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
            Stage(
                "meta",
                0.8,
                trainable=("encoders.*", "pick.*", "disturb.*", "trunk.*", "task_head.*"),
                auxiliary="complete",
            ),
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
        return features.replace(rebuilt)

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


@ablation_of(SMIL)
class Unlearned(SMIL):
    """Off: zeros for what is missing, no perturbation, one plain loss."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **hyper)
        self.pick.requires_grad_(False)
        self.disturb.requires_grad_(False)

    def stages(self) -> list[Stage]:
        return [Stage("train")]

    def complete(self, features: Features) -> Features:
        return features

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(F.layer_norm(features.flat(), (self.dim * len(self.schema),)))

    def step(self, batch: Batch) -> Step:
        return Model.step(self, batch)


def rebuilds_from_centres_by_meta_learning(fixture: Fixture) -> None:
    """See the card's ``check``."""
    model = fixture.trained().model
    assert isinstance(model, SMIL)
    batch = fixture.batch().only("m0")
    shares = model.shares("m1", model.encode(batch).pooled()[:, 0])
    rebuilt = model.complete(model.encode(batch)).streams["m1"].pooled()
    assert torch.allclose(rebuilt, shares @ model.get_buffer("centres_m1"), atol=1e-5), "not in the centres' hull"
    assert bool((shares > 0).all())
    assert torch.allclose(shares.sum(1), torch.ones(len(shares)))
    assert torch.equal(model(batch).output, model(batch).output)
    model.train()
    assert not torch.equal(model(batch).output, model(batch).output), "training draws nothing"
    gradients = []
    for second_order in (True, False):
        with torch.random.fork_rng(devices=[]):  # both orders see the same draws
            torch.manual_seed(0)
            inner = model.task.loss(model(batch).output, batch)
            fast = fast_weights(model, inner, 1.0, only=CLASSIFIER, second_order=second_order)
            outer = model.task.loss(model.call(fast, fixture.batch()).output, fixture.batch())
        weight = next(model.pick["m1"].parameters())
        gradients.append(torch.autograd.grad(outer, weight)[0])
    assert bool(gradients[0].any()), "the outer loss does not reach the rebuilding network through the inner step"
    assert not bool(gradients[1].any()), "it reaches it in another way"


@claims_of(SMIL)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(SMIL.card.claims[0], held(rebuilds_from_centres_by_meta_learning, fixture), at_least=1.0)
