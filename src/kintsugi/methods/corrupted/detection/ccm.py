"""A product of experts in which the rest can stand in for any one sensor; a corrupted sensor is found by its residual."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core.claims import difference
from kintsugi.core import (
    Answer, Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Monitor, Pipeline, Prediction, Schema, Splits,
    Stage, Step, ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.encoders.lowlevel import lowlevel
from kintsugi.layers.gaussian import GaussianHead, kl_unit, product_of_experts, sample
from kintsugi.layers.mlp import mlp

HIDDEN = 96  # of decoders and of the task's trunk


@register(
    Card(
        key="ccm",
        name="CCM (detect, reject, correct)",
        leaf="corrupted/detection",
        imperfection=("corrupted at test", "missing at test"),
        faithful=(
            "a product of Gaussian experts gives the latent of any subset",
            "trained without labels: the latent of all, and of all but one, reconstructs every modality",
            "each modality also reconstructs itself; an error above its 99th clean percentile marks it as corrupted",
            "what is marked leaves the product; the task head was trained on the frozen latent",
        ),
        simplified=(
            "low-level features (pixels, log-mel, byte bigrams, cells) are reconstructed, so that any kind of "
            "data is served",
            "the auxiliary predictions of robot motion are left out: they need actions",
            "where every sensor is above its threshold, the one least so is kept: a row is never left with nothing",
            "the paper's scheme of subsets is not confirmed; full and leave-one-out are used",
        ),
        claims=(
            "what is corrupted in a way not seen in training has no part in the answer",
            "the latent after rejection is nearer to the clean one",
            "a modality is rejected where its residual is above the 99th percentile of validation rows, and only there",
            "reliability is 1 for what is kept, 0 for what is rejected, and NaN where nothing is",
        ),
        premise="in use, not in training, a sensor is corrupted so that it looks unlike its own clean readings, "
        "which shows in it alone, without the others, and the others tell the target too",
        worlds=("visible_noise_at_test", "redundant"),
        confidence="medium",
        defaults_from="this library; the paper's values are for its robot",
        cost="medium",
        version=2,
    )
)
class CCM(Model):
    """Crossmodal compensation model.

    Args:
        latent: width of the latent.
        beta: weight of the divergence from a unit Gaussian, against squared errors summed over features.
        quantile: of clean validation residuals, above which a modality is rejected.
    """

    def __init__(self, schema: Schema, dim: int = 32, latent: int = 32, beta: float = 0.15) -> None:
        super().__init__(schema, dim, fused=HIDDEN)
        self.target = nn.ModuleDict({m.name: lowlevel(m) for m in schema.modalities})
        sizes = {m: int(reader.features) for m, reader in self.target.items()}  # type: ignore[arg-type]
        self.trunk = mlp([latent, HIDDEN], last=True)  # with the head: the policy that is trained on the latent
        self.beta = beta / (sum(sizes.values()) / len(sizes))  # errors are means over features
        self.experts = nn.ModuleDict({m: GaussianHead(dim, latent) for m in schema.names})
        self.decoders = nn.ModuleDict({m: mlp([latent, HIDDEN, size]) for m, size in sizes.items()})
        for m, size in sizes.items():
            self.register_buffer(f"scale_{m}", torch.stack([torch.zeros(size), torch.ones(size)]))

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, quantile: float = 0.99, **hyper: Any) -> Pipeline:
        return Pipeline(cls(schema, **hyper), monitors=[DetectRejectCorrect(schema, quantile)])

    @classmethod
    def arguments_of_version(cls, version: int, hyper: dict[str, Any]) -> dict[str, Any]:
        """Version 1 called absent modalities reliable, and answered as this one does."""
        return hyper

    def stages(self) -> list[Stage]:
        return [
            Stage("represent", 0.5, trainable=("encoders.*", "experts.*", "decoders.*")),
            Stage("task", 0.5, trainable=("trunk.*", "task_head.*")),
        ]

    def prepare(self, data: Splits, stage: Stage) -> None:
        """Mean and spread of what is reconstructed, over present training rows; one spread a modality."""
        if stage.name == "represent":
            for m in self.schema.names:
                x = torch.cat([self._raw(m, b) for b in data.train.batches(256, data.train.positions(f"has:{m}"))])
                spread = x.var(0, correction=0).mean().sqrt().clamp(min=1e-3)
                self.get_buffer(f"scale_{m}").copy_(torch.stack([x.mean(0), spread.expand_as(x[0])]))

    def _raw(self, name: str, batch: Batch) -> Tensor:
        device, mask = self.prior.device, batch.mask.get(name)
        out: Tensor = self.target[name](batch.inputs[name].to(device), None if mask is None else mask.to(device))
        return out

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """Standardised low-level features ``[B, F]`` of each modality; zeros in absent rows."""
        targets = {}
        for i, m in enumerate(self.schema.names):
            mean, spread = self.get_buffer(f"scale_{m}")
            targets[m] = torch.where(batch.present[:, i, None], (self._raw(m, batch) - mean) / spread, 0)
        return targets

    def fuse(self, features: Features) -> Fused:
        each = [expert(features.streams[m].pooled()) for m, expert in self.experts.items()]
        mean, logvar = (torch.stack(x, 1) for x in zip(*each, strict=True))
        joint = product_of_experts(mean, logvar, features.present)
        z = sample(*joint, on=self.training and self.clock.stage == "represent")
        return Fused.vector(z, extras={"joint": joint, "alone": (mean, logvar)})

    def head(self, fused: Fused, features: Features) -> Prediction:
        answer = self.task_head(Fused.vector(self.trunk(fused.pooled())))
        return Prediction(answer, features.present, fused.pooled(), extras=fused.extras)

    def errors(self, z: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Squared error of each modality's reconstruction from ``z`` (``[B, Z]``, or ``[B, M, Z]``: one each): ``[B, M]``."""
        return torch.stack(
            [
                (decode(z if z.ndim == 2 else z[:, i]) - targets[m]).pow(2).mean(1)
                for i, (m, decode) in enumerate(self.decoders.items())
            ],
            1,
        )

    def step(self, batch: Batch) -> Step:
        if self.clock.stage == "task":
            return super().step(batch)
        features, targets = self.encode(batch), self.targets(batch)
        seen = batch.present.to(features.flat().dtype)
        losses: dict[str, Tensor] = {}
        views = {"all": torch.ones(len(self.schema), dtype=torch.bool, device=batch.device)}
        views |= {
            f"without_{m}": ~views["all"].new_tensor([n == m for n in self.schema.names]) for m in self.schema.names
        }
        for name, keep in views.items():  # encode once, fuse every view
            joint = self.fuse(features.where(keep)).extras["joint"]
            error = self.errors(sample(*joint, on=True), targets)
            losses[name] = (error * seen).sum() / seen.sum().clamp(min=1) + self.beta * kl_unit(*joint).mean()
        alone = self.errors(sample(*self.fuse(features).extras["alone"], on=True), targets)
        losses["alone"] = (alone * seen).sum() / seen.sum().clamp(min=1)
        return Step(losses)

    def residuals(self, prediction: Prediction, batch: Batch) -> Tensor:
        """How badly each modality reconstructs itself ``[B, M]``; NaN where absent, so that it is never above a limit."""
        errors = self.errors(prediction.extras["alone"][0], self.targets(batch))
        return errors.masked_fill(~batch.present, torch.nan)


class DetectRejectCorrect(Monitor):
    """Reject the modalities whose own reconstruction is worse than nearly all clean ones; ask again without them."""

    limit: Tensor

    def __init__(self, schema: Schema, quantile: float = 0.99) -> None:
        super().__init__()
        self.quantile = quantile
        self.register_buffer("limit", torch.full((len(schema),), torch.inf))

    arguments_of_version = CCM.arguments_of_version

    def calibrate(self, data: Splits) -> None:
        """Each modality's limit, from validation rows as they are."""
        host = self.host
        assert isinstance(host, CCM)
        rows = data.val.positions("all")
        device = host.prior.device
        clean = torch.cat([host.residuals(host(b), b) for b in (b.to(device) for b in data.val.batches(256, rows))])
        limits = clean.nanquantile(self.quantile, dim=0)
        self.limit.copy_(limits.nan_to_num(torch.inf))  # never seen in validation: never rejected

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        host = self.host
        assert isinstance(host, CCM)
        first = inner(batch)
        excess = host.residuals(first, batch) / self.limit
        bad = excess > 1
        hopeless = (bad | ~batch.present).all(1) & batch.present.any(1)
        least = excess.nan_to_num(torch.inf).argmin(1, keepdim=True)
        bad = bad & ~(hopeless[:, None] & torch.zeros_like(bad).scatter(1, least, True))
        reliability = (~bad).float().masked_fill(~batch.present, torch.nan)
        return replace(inner(batch.where(~bad)) if bool(bad.any()) else first, reliability=reliability)


@ablation_of(CCM)
class Trusting(CCM):
    """Off: the same model without the watchman, so that nothing is reconstructed in use."""

    training_only = ("target", "decoders")

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, quantile: float = 0.99, **hyper: Any) -> Pipeline:
        return Pipeline(cls(schema, **hyper))


@claims_of(CCM)
def claims(fixture: Fixture) -> Claims:
    """One training; what residuals, limits and the objective should be is worked out anew."""
    fixture.epochs = 12
    pipeline, names = fixture.pipeline(), fixture.schema.names
    model, moving = pipeline.model, dict[str, set[str]]()
    assert isinstance(model, CCM)

    def watch(*_: Any) -> None:
        moving.setdefault(
            model.clock.stage, {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
        )

    model.encoders[names[0]].register_forward_pre_hook(watch)
    fixture.train(pipeline).eval()
    wrong = (moving["represent"] ^ {"encoders", "experts", "decoders"}) | (moving["task"] ^ {"trunk", "task_head"})
    yield Claim("first the latent is learned, then trunk and head on the frozen latent", len(wrong), at_most=0)
    train: Any = fixture.splits.train
    test, rows = fixture.batch(80), train.batch(torch.arange(len(train))).inputs
    standard = [(test.inputs[m] - x.mean(0)) / x.var(0, correction=0).mean().sqrt() for m, x in rows.items()]
    away = difference(torch.stack(list(model.targets(test).values())), torch.stack(standard))
    yield Claim("low-level features are standardised by the training rows", away, at_most=1e-4)
    holes = test.where(torch.rand(test.present.shape, generator=torch.Generator().manual_seed(0)) < 0.7)
    holes = holes.rows(holes.present.any(1))
    yield Claim(
        "each view has its term of the objective, and so has each modality alone",
        _objective_gap(model, holes),
        at_most=1e-3,
    )
    output, (latent, _) = model.train()(holes).output, _posterior(model, holes)
    policy = model.task_head(Fused.vector(model.trunk(latent)))
    yield Claim(
        "trunk and head learn on the mean of the latent", difference(output, policy, model.eval()), at_most=1e-3
    )
    without, last = model(test.only(*names[:-1])), standard[-1]
    error = (model.decoders[names[-1]](without.embedding) - last).pow(2).mean() / last.pow(2).mean()
    yield Claim("the others tell what a modality that is left out looks like", float(error.detach()), at_most=0.95)

    damaged = _damaged(test, names[-1])
    clean, naive, mended = model(test), model(damaged), pipeline(damaged)
    left_out = (mended.output - without.output).abs().amax(1) < 1e-5
    yield Claim(CCM.card.claims[0], float(left_out.float().mean()), at_least=0.5)
    far, near = (float((p.embedding - clean.embedding).detach().pow(2).sum(1).mean()) for p in (naive, mended))
    yield Claim(CCM.card.claims[1], near / far, at_most=0.9)
    limits = _residuals(model, fixture.batch(80, "val")).quantile(0.99, 0)
    wrong_rows, wrong_words = 0, 0
    for batch in (damaged, _damaged(test, *names), _damaged(holes, names[0])):
        excess = (_residuals(model, batch) / limits).masked_fill(~batch.present, torch.inf)
        least = excess.amin(1, keepdim=True).clamp(min=1)  # where all are above their limits, the least so is kept
        kept = batch.present & (excess <= least)
        answer = pipeline(batch)
        wrong_rows += int((answer.used != kept).any(1).sum())
        reliability = torch.zeros_like(excess) if answer.reliability is None else answer.reliability
        wanted = kept.float().masked_fill(~batch.present, torch.nan)
        wrong_words += int((~torch.isclose(reliability, wanted, equal_nan=True)).sum())
    yield Claim(CCM.card.claims[2], wrong_rows, at_most=0)
    yield Claim(CCM.card.claims[3], wrong_words, at_most=0)


def _damaged(batch: Batch, *names: str) -> Batch:
    return replace(batch, inputs={m: x.flip(1) * 4 if m in names else x for m, x in batch.inputs.items()})


def _experts(model: CCM, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of each expert: ``[B, M, Z]``."""
    heads: list[Any] = list(model.experts.values())
    pooled = [model.encoders[m](batch.inputs[m]).pooled() for m in batch.names]
    mean = torch.stack([head.mean(x) for head, x in zip(heads, pooled, strict=True)], 1)
    return mean, torch.stack([8 * torch.tanh(head.logvar(x) / 8) for head, x in zip(heads, pooled, strict=True)], 1)


def _posterior(model: CCM, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean and variance of the product of the experts that are present and the unit Gaussian."""
    mean, logvar = _experts(model, batch)
    precision = batch.present[..., None] / logvar.exp()
    total = 1 + precision.sum(1)
    return (mean * precision).sum(1) / total, 1 / total


def _errors(model: CCM, z: Tensor, batch: Batch) -> Tensor:
    """Of what is reconstructed from ``z``, ``[B, M, Z]``: ``[B, M]``."""
    targets, decoders = model.targets(batch), model.decoders.items()
    return torch.stack([(decode(z[:, i]) - targets[m]).pow(2).mean(1) for i, (m, decode) in enumerate(decoders)], 1)


def _residuals(model: CCM, batch: Batch) -> Tensor:
    return _errors(model, _experts(model, batch)[0], batch).detach()


def _objective_gap(model: CCM, batch: Batch) -> float:
    """Between the losses of the first stage, and their gradients, and the same written out with the same noise."""
    model.clock.stage = "represent"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        losses = model.step(batch).losses
        torch.manual_seed(0)
        terms, width = {}, sum(x.shape[1] for x in model.targets(batch).values()) / len(batch.names)
        for name in ("all", *(f"without_{m}" for m in batch.names)):
            mean, variance = _posterior(model, batch.where(torch.tensor([name != f"without_{m}" for m in batch.names])))
            z = mean + variance.sqrt() * torch.randn_like(mean)
            divergence = 0.5 * (variance + mean.square() - 1 - variance.log()).sum(1).mean()
            errors = _errors(model, z[:, None].expand(-1, len(batch.names), -1), batch)
            terms[name] = errors[batch.present].mean() + 0.15 / width * divergence
        mean, logvar = _experts(model, batch)
        z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        terms["alone"] = _errors(model, z, batch)[batch.present].mean()
    model.clock.stage = "task"
    if losses.keys() != terms.keys():
        return torch.inf
    return difference(torch.stack([losses[name] for name in terms]), torch.stack(list(terms.values())), model)
