"""Imagination of what is missing, to every step of which the features that all modalities share are shown again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn import functional

from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Prediction, Schema, Splits, Stage, Step, StreamSpec,
    ablation_of, claims_of, difference, every_subset, record_steps, register,
)  # fmt: skip
from kintsugi.imperfect import parse_mechanism
from kintsugi.layers.cascade import Autoencoder, InjectedCascade
from kintsugi.layers.mlp import mlp
from kintsugi.losses.distance import cmd, mse


@register(
    Card(
        key="if_mmin",
        name="IF-MMIN",
        leaf="missing/generative",
        imperfection=("missing at test",),
        faithful=(
            "one invariant encoder for all modalities, whose features a first stage on complete rows draws together by the "
            "central moment discrepancy of every pair, up to the fifth moment",
            "every block of the imagination is given the one before it plus the invariant features; nothing else goes past it",
            "the classifier sees the linear codes of all blocks, nothing else",
            "the target is a frozen copy of the first stage's encoders, shown the hidden part alone; what is seen counts too",
            "invariant features of what is seen become those that the frozen copy has of the complete row",
        ),
        simplified=(
            "the discrepancy weighs 0.001: with 1, the paper's, embeddings of 32 numbers lose their invariant features to a "
            "constant within 200 updates, since the first stage's classifier needs only the specific ones",
            "two blocks, where the paper has five: no identity path leads past a block, and five as narrow as these have not "
            "learned to pass on what is imagined after 3,000 updates",
            "encoders by kind of data stand for the paper's LSTM and TextCNN",
            "an absent modality is an embedding of zeros; the release encodes an input of zeros, another constant",
            "the classifiers have no dropout; the release has 0.3 in the first stage and 0.5 in the second",
            "the complete pattern is drawn too, 1 time in 7 of 3 modalities; the release never shows it to the second stage, so "
            "that what only all modalities together tell could not be learned",
            "widths of the autoencoders are the paper's shares of the joint embedding, not its numbers",
        ),
        claims=(
            "the imagined embedding of an absent modality is nearer to the teacher's than the batch mean is",
            "the first stage draws invariant features of different modalities together",
            "invariant features of what is seen learn to be those of the complete row",
            "the target is what the encoders of the first stage say of the hidden part alone",
        ),
        premise="modalities predict each other in what they share, complete rows are many; some modalities are absent in use",
        worlds=("redundant",),
        confidence="high",
        defaults_from="the released code: weights 1 but for the discrepancy; nothing reads the 100 of its script",
        cost="medium",
        version=2,
    )
)
class IFMMIN(Model):
    """Invariant features for the missing modality imagination network. Trains on complete rows, of which it hides parts itself.

    Args:
        dim: width of each modality's embedding.
        blocks: autoencoders in the cascade.
        hidden: width of the classifier's two hidden layers.
        w_cmd: weight of the central moment discrepancy in the first stage.
        w_imagine: weight of the imagination; 0 leaves out the target.
        w_invariant: weight of the distance between invariant features of seen and of complete rows.
    """

    training_only = ("warm_trunk", "warm_head", "transition")

    def __init__(
        self, schema: Schema, dim: int = 32, blocks: int = 2, hidden: int = 128, w_cmd: float = 0.001, w_imagine: float = 1.0,
        w_invariant: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim, fused=None)
        width = dim * len(schema)
        widths = [width, *(max(1, round(width * share)) for share in (2 / 3, 1 / 3, 1 / 6))]  # 256, 128, 64 of 384
        self.invariant = nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(), nn.Linear(dim, dim), nn.LeakyReLU())
        self.cascade = InjectedCascade(Autoencoder(widths, down=nn.LeakyReLU) for _ in range(blocks))
        self.transition = mlp([width, width, width])
        self.warm_trunk = mlp([2 * width, hidden, hidden], last=True)  # of the first stage only
        self.warm_head = schema.task.head(StreamSpec(hidden))
        self.trunk = mlp([self.cascade.code_dim, hidden, hidden], last=True)
        self.task_head = schema.task.head(StreamSpec(hidden))
        self.w_cmd, self.w_imagine, self.w_invariant = w_cmd, w_imagine, w_invariant
        if not w_imagine:  # they feed the imagined embedding alone
            self.transition.requires_grad_(False)
            self.cascade.blocks[-1].up.requires_grad_(False)

    def stages(self) -> list[Stage]:
        features = ("encoders.*", "invariant.*")
        imagine = (*features, "cascade.*", "transition.*", "trunk.*", "task_head.*")
        return [
            Stage("shared", 0.5, trainable=(*features, "warm_*"), rows="complete"),
            Stage("imagine", 0.5, trainable=imagine, rows="complete", view="subsets"),
        ]

    def prepare(self, data: Splits, stage: Stage) -> None:
        if stage.name == "imagine":
            self.keep_frozen("teacher", self.encoders)
            self.keep_frozen("teacher_invariant", self.invariant)

    def fuse(self, features: Features) -> Fused:
        specific = features.pooled()
        shared = self.invariant(specific)
        if self.clock.stage == "shared":
            joint = torch.cat([specific, shared], 1).flatten(1)
            return Fused.vector(self.warm_trunk(joint), extras={"invariant": shared})
        state, codes, _ = self.cascade(specific.flatten(1), shared.flatten(1))
        return Fused.vector(self.trunk(codes), extras={"invariant": shared, "state": state})

    def head(self, fused: Fused, features: Features) -> Prediction:
        head = self.warm_head if self.clock.stage == "shared" else self.task_head
        return Prediction(head(fused), features.present, fused.pooled(), extras=fused.extras)

    def taught(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The teacher's embedding of what was hidden ``[B, M * D]``, and its invariant features of all ``[B, M, D]``."""
        teacher: Any = self.get_submodule("teacher")
        hidden = self.encode(batch.dropped(), teacher).flat()
        whole = self.encode(batch if batch.truth is None else batch.truth, teacher).pooled()
        return hidden, self.get_submodule("teacher_invariant")(whole)

    def step(self, batch: Batch) -> Step:
        prediction: Prediction = self(batch)
        losses = {"task": self.task.loss(prediction.output, batch)}
        shared = prediction.extras["invariant"]
        if self.clock.stage == "shared":
            if self.w_cmd:
                parts = zip(shared.unbind(1), batch.present.unbind(1), strict=True)
                gaps = [cmd(x, y, rows_x=here, rows_y=there) for (x, here), (y, there) in combinations(parts, 2)]
                losses["cmd"] = self.w_cmd * torch.stack(gaps).mean()
            return Step(losses, prediction)
        hidden, whole = self.taught(batch)
        if self.w_imagine:
            losses["imagine"] = self.w_imagine * mse(self.transition(prediction.extras["state"]), hidden)
        if self.w_invariant:
            losses["invariant"] = self.w_invariant * mse(shared, whole)
        return Step(losses, prediction)


class OfNobody(IFMMIN):
    """Imagination off: its target is the batch's mean of what was hidden, which tells nothing of the row."""

    def taught(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As of the method, of nobody."""
        hidden, whole = super().taught(batch)
        lost, each = batch.dropped().present[..., None], hidden.view_as(whole)  # 0 where nothing was hidden
        mean = each.sum(0) / lost.sum(0).clamp(min=1)
        return torch.where(lost, mean, each).flatten(1), whole


@ablation_of(IFMMIN)
class Neither(OfNobody):
    """Off: nothing of the row's own is imagined, nothing makes features invariant."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **{**hyper, "w_cmd": 0.0, "w_invariant": 0.0})


ablation_of(IFMMIN, "the imagination")(OfNobody)
ablation_of(IFMMIN, "what makes features invariant", w_cmd=0.0, w_invariant=0.0)


@claims_of(IFMMIN)
def claims(fixture: Fixture) -> Claims:
    """One training with holes in some rows, then the losses of one batch against the paper's formulas, with gradients."""
    train, _, _ = fixture.data.with_missing(parse_mechanism("mcar(0.03)"), seed=1).split()
    fixture.splits = Splits(train, fixture.splits.val, fixture.splits.test)
    pipeline = fixture.pipeline()
    model: Any = pipeline.model
    steps = record_steps(model, "encoders", "invariant")
    fixture.epochs = 56
    fixture.train(pipeline)
    nearer, draws, invariant, target = IFMMIN.card.claims
    whole = fixture.batch(80)
    yield Claim(nearer, _distance_to_teacher(model, whole), at_most=1.0)
    yield Claim(draws, _apart(steps.start["imagine"], model, whole), at_most=0.4)
    holes = sum(int((~(each.batch.truth or each.batch).present).sum()) for each in steps.taken)
    yield Claim("both stages train on complete rows alone", holes, at_most=0)
    features = {"encoders", "invariant"}
    own = {"shared": {*features, "warm_trunk", "warm_head"}}
    own["imagine"] = {*features, "cascade", "transition", "trunk", "task_head"}
    yield Claim(
        "a stage moves its own modules alone",
        sum(len(each.modules - own[each.stage]) for each in steps.taken),
        at_most=0,
    )
    later = steps.batches("imagine")
    yield Claim("both stages take as many steps", abs(2 * len(later) - len(steps.taken)), at_most=0)
    partly = torch.cat([~batch.present.all(1) for batch in later]).float().mean()
    yield Claim("the second stage hides a part of most rows", float(partly), at_least=0.75)  # 6 of 7 patterns

    model.double()
    whole = whole.map(lambda x: x.double() if x.is_floating_point() else x)
    batch = replace(every_subset(whole), truth=whole)
    nothing, losses, output = torch.zeros(()).double(), type(model).step(model, batch).losses, model(batch).output
    encoders, shared = (each.double().requires_grad_(False) for each in steps.start["imagine"].values())
    hidden = model.encode(whole.where(~batch.present), encoders).flat()
    taught = torch.cat([shared(x) for x in model.encode(whole, encoders).pooled().unbind(1)], 1)
    h = model.encode(batch).pooled()
    again = torch.cat([model.invariant(x) for x in h.unbind(1)], 1)
    o, codes = h.flatten(1), []
    for block in model.cascade.blocks:
        codes.append(_dense(block.down, o + again, functional.leaky_relu))
        o = _dense(block.up, codes[-1], functional.relu)
    imagined = _dense(model.transition, o, functional.relu)
    wanted = (imagined - hidden).pow(2).sum() / imagined.numel()
    yield Claim(target, difference(losses.get("imagine", nothing), wanted, model), at_most=1e-9)
    wanted = (again - taught).pow(2).sum() / again.numel()
    yield Claim(invariant, difference(losses.get("invariant", nothing), wanted, model), at_most=1e-9)
    answer = model.task_head.linear(_dense(model.trunk, torch.cat(codes, 1), functional.relu).relu())
    gap = difference(output, answer, model)
    yield Claim("the classifier sees the codes of all blocks and nothing else", gap, at_most=1e-9)
    surprise = (answer.logsumexp(1) - answer[torch.arange(80), batch.target]).mean()
    yield Claim(
        "the task's loss is that of each row's label", difference(losses["task"], surprise, model), at_most=1e-9
    )
    model.clock.stage = "shared"
    losses, x = type(model).step(model, whole).losses, model.encode(whole).pooled().unbind(1)
    y = [model.invariant(each) for each in x]
    wanted = 0.001 / 3 * sum((_discrepancy(y[a], y[b]) for a, b in ((0, 1), (0, 2), (1, 2))), nothing)
    gap = difference(losses.get("cmd", nothing), wanted, model)
    yield Claim("what draws them is the discrepancy of five moments, a mean over pairs", gap, at_most=1e-9)
    warm = model.warm_trunk(torch.cat([*x, *y], 1))
    answer = model.warm_head.linear(warm)
    surprise = (answer.logsumexp(1) - answer[torch.arange(80), whole.target]).mean()
    gap = difference(losses["task"], surprise, model)
    yield Claim("the first stage answers from all features, specific and invariant", gap, at_most=1e-9)


def _distance_to_teacher(model: Any, batch: Batch) -> float:
    """Of the imagined embedding of a modality that is hidden, in units of the batch mean's; mean over modalities."""
    ratios = []
    for i, name in enumerate(batch.names):
        with torch.no_grad():
            truth = model.encode(batch, model.teacher).streams[name].pooled()
            state = model(batch.where(torch.arange(len(batch.names)) != i)).extras["state"]
            imagined = model.transition(state).unflatten(1, (len(batch.names), -1))[:, i]
        ratios.append(float(mse(imagined, truth) / truth.var(0, correction=0).mean()))
    return sum(ratios) / len(ratios)


@torch.no_grad()
def _apart(taken: dict[str, Any], model: Any, batch: Batch) -> float:
    """Distance of two modalities' mean invariant features, in units of the spread over rows; mean over pairs."""
    features = taken["invariant"](model.encode(batch, taken["encoders"]).pooled())
    middle = features.mean(0)
    gaps = torch.stack([vector_norm(x - y) for x, y in combinations(middle, 2)])
    return float(gaps.mean() / vector_norm(features - middle, dim=2).square().mean().sqrt())


def _dense(half: Iterable[nn.Module], x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """A perceptron with this activation between its layers, and none after the last."""
    for place, layer in enumerate([layer for layer in half if isinstance(layer, nn.Linear)]):
        x = layer(activation(x) if place else x)
    return x


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Means and central moments up to the fifth (Zellinger et al., ICLR 2017)."""
    gaps = [x.mean(0) - y.mean(0)]
    gaps += [((x - x.mean(0)) ** k).mean(0) - ((y - y.mean(0)) ** k).mean(0) for k in (2, 3, 4, 5)]
    return torch.stack([gap.pow(2).sum().sqrt() for gap in gaps]).sum()
