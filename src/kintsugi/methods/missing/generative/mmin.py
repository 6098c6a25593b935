"""Imagine the embedding of what is missing; classify from the imagination's own bottlenecks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Prediction, Schema, Splits, Stage, Step, StreamSpec,
    ablation_of, claims_of, record_steps, register,
)  # fmt: skip
from kintsugi.imperfect import parse_mechanism
from kintsugi.layers.imagination import Imaginer
from kintsugi.layers.mlp import mlp
from kintsugi.losses.distance import mse


@register(
    Card(
        key="mmin",
        name="MMIN",
        leaf="missing/generative",
        imperfection=("missing at test",),
        faithful=(
            "a cascade of residual autoencoders imagines the embedding of what is missing",
            "the classifier sees the linear bottlenecks of all blocks, nothing else",
            "the target is a frozen copy of the encoders, trained on complete rows, looking at the missing part alone",
            "a backward cascade leads from the imagined back to the available embedding",
        ),
        simplified=(
            "encoders by kind of data stand for the paper's LSTM and TextCNN",
            "widths of the autoencoders are the paper's shares of the joint embedding, not its numbers",
            "the classifier has one hidden layer and no dropout; the release has two of 128, and dropout of 0.5",
            "an absent modality is an embedding of zeros; the release encodes an input of zeros",
            "the complete pattern is drawn too, 1 time in 7 of 3 modalities; the release never shows it to the "
            "second stage, so that what only all modalities together tell could not be learned",
        ),
        claims=(
            "the imagined embedding of an absent modality is nearer to the teacher's than the batch mean is",
            "the target is what the encoders of the first stage say of the hidden part alone",
            "a cascade of its own leads from the imagined back to the available embedding",
        ),
        premise="modalities predict each other, complete rows are many and labels are few; some modalities are "
        "absent in use",
        worlds=("redundant",),
        confidence="high",
        version=2,
        defaults_from="the released IEMOCAP configuration: 5 blocks, weights 4 and 2",
        cost="medium",
    )
)
class MMIN(Model):
    """Missing Modality Imagination Network. Trains on complete rows, of which it hides parts itself.

    Args:
        dim: width of each modality's embedding.
        blocks: autoencoders in a cascade.
        hidden: width of the classifier's hidden layer.
        w_forward, w_backward: weights of the imagination and of the cycle.
    """

    def __init__(
        self, schema: Schema, dim: int = 32, blocks: int = 5, hidden: int = 128, w_forward: float = 4.0, w_backward: float = 2.0
    ) -> None:  # fmt: skip
        width = dim * len(schema)
        super().__init__(schema, dim, fused=None)
        self.warm_trunk = mlp([width, hidden], last=True)  # of the first stage only
        self.warm_head = schema.task.head(StreamSpec(hidden))
        self.forward_imagination = Imaginer(width, blocks)
        self.backward_imagination = Imaginer(width, blocks)
        self.trunk = mlp([self.forward_imagination.code_dim, hidden], last=True)
        self.task_head = schema.task.head(StreamSpec(hidden))
        self.w_forward, self.w_backward = w_forward, w_backward

    training_only = ("warm_trunk", "warm_head", "backward_imagination")

    def stages(self) -> list[Stage]:
        return [
            Stage("encoders", 0.5, trainable=("encoders.*", "warm_*"), rows="complete"),
            Stage(
                "imagine",
                0.5,
                trainable=("encoders.*", "*imagination.*", "trunk.*", "task_head.*"),
                rows="complete",
                view="subsets",
            ),
        ]

    def prepare(self, data: Splits, stage: Stage) -> None:
        if stage.name == "imagine":
            self.keep_frozen("teacher", self.encoders)

    def fuse(self, features: Features) -> Fused:
        if self.clock.stage == "encoders":
            return Fused.vector(self.warm_trunk(features.flat()))
        imagined, codes = self.forward_imagination(features.flat())
        return Fused.vector(self.trunk(codes), extras={"imagined": imagined})

    def head(self, fused: Fused, features: Features) -> Prediction:
        head = self.warm_head if self.clock.stage == "encoders" else self.task_head
        return Prediction(head(fused), features.present, fused.pooled(), extras=fused.extras)

    def step(self, batch: Batch) -> Step:
        if self.clock.stage == "encoders":
            return super().step(batch)
        seen = self.encode(batch)
        hidden = self.encode(batch.dropped(), self.get_submodule("teacher")).flat()  # type: ignore[arg-type]
        prediction = self.predict(seen)
        imagined = prediction.extras["imagined"]
        recalled, _ = self.backward_imagination(imagined)
        losses = {
            "task": self.task.loss(prediction.output, batch),
            "forward": self.w_forward * mse(imagined, hidden),
            "backward": self.w_backward * mse(recalled, seen.flat().detach()),
        }
        return Step(losses, prediction)


@ablation_of(MMIN)
class Unguided(MMIN):
    """Off: the same cascade with no target to imagine and no way back."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **hyper)  # no answer passes through what is frozen here, and no loss would reach it
        self.forward_imagination.transition.requires_grad_(False)
        self.backward_imagination.requires_grad_(False)
        self.forward_imagination.up[-1].requires_grad_(False)  # feeds the imagined embedding alone

    def step(self, batch: Batch) -> Step:
        return Model.step(self, batch)


@claims_of(MMIN)
def claims(fixture: Fixture) -> Claims:
    """One training with holes in some rows, and the losses of one batch against the paper's formulas in numpy."""
    train, _, _ = fixture.data.with_missing(parse_mechanism("mcar(0.1)"), seed=1).split()
    fixture.splits = Splits(train, fixture.splits.val, fixture.splits.test)
    pipeline = fixture.pipeline()
    model: Any = pipeline.model
    steps = record_steps(model, "encoders")
    fixture.train(pipeline)
    complete = fixture.batch(80)
    yield Claim(MMIN.card.claims[0], _distance_to_teacher(model, complete), at_most=0.9)
    holes = sum(int((~(each.batch.truth or each.batch).present).sum()) for each in steps.taken)
    yield Claim("both stages train on complete rows alone", holes, at_most=0)
    own = {"encoders": {"encoders", "warm_trunk", "warm_head"}}
    own["imagine"] = {"encoders", "forward_imagination", "backward_imagination", "trunk", "task_head"}
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
    patterns = torch.tensor([[True, False, False], [False, True, True], [True, False, True], [True, True, True]])
    batch = complete.map(lambda x: x.double() if x.is_floating_point() else x).view(patterns.repeat(20, 1))
    with torch.no_grad():
        losses, output = type(model).step(model, batch).losses, model(batch).output.numpy()
        available = model.encode(batch).flat().numpy()
        target = model.encode(batch.dropped(), steps.start["imagine"]["encoders"].double()).flat().numpy()
    imagined, codes = _cascade(model.forward_imagination, available)
    recalled, _ = _cascade(model.backward_imagination, imagined)
    expected = {
        "forward": 4 * np.square(imagined - target).mean(),
        "backward": 2 * np.square(recalled - available).mean(),
    }
    for name, (loss, value) in zip(MMIN.card.claims[1:], expected.items(), strict=True):
        yield Claim(name, abs(value - float(losses.get(loss, 0))), at_most=1e-9)
    answer = _dense([model.task_head.linear], _dense(model.trunk, codes))
    gap = np.abs(answer - output).max()
    yield Claim("the classifier sees the bottlenecks of all blocks and nothing else", gap, at_most=1e-9)
    yield Claim("bottlenecks pass no activation", float((codes < 0).mean()), at_least=0.2)
    surprise = np.log(np.exp(answer).sum(1)) - answer[np.arange(80), np.asarray(batch.target)]
    yield Claim(
        "the task's loss is that of each row's label", abs(surprise.mean() - float(losses["task"])), at_most=1e-9
    )
    yield Claim("each loss trains all that it rests on but its target", _slope_gap(model, batch), at_most=1e-3)


def _distance_to_teacher(model: Any, batch: Batch) -> float:
    """Of the imagined embedding of a modality that is hidden, in units of the batch mean's; the worst modality."""
    ratios = []
    for i, name in enumerate(batch.names):
        with torch.no_grad():
            truth = model.encode(batch, model.teacher).streams[name].pooled()
            others = torch.arange(len(batch.names)) != i
            imagined = model(batch.where(others)).extras["imagined"].unflatten(1, (len(batch.names), -1))[:, i]
        ratios.append(float(mse(imagined, truth) / truth.var(0, correction=0).mean()))
    return max(ratios)


def _dense(layers: Iterable[nn.Module], x: np.ndarray) -> np.ndarray:
    """A perceptron in numpy."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        else:
            x = np.maximum(x, 0)
    return x


def _cascade(imaginer: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Block b reads the sum of the embedding and of what all blocks before it gave (Tran et al., 2017)."""
    codes: list[np.ndarray] = []
    for down, up in zip(imaginer.down, imaginer.up, strict=True):
        codes.append(_dense(down, x))
        x = x + _dense(up, codes[-1])
    return _dense(imaginer.transition, x), np.concatenate(codes, 1)


def _slope_gap(model: Any, batch: Batch, h: float = 1e-8) -> float:
    """Slope of the objective along a random direction, targets held: its gradient against a central difference."""
    parameters = [p for n, p in model.named_parameters() if not n.startswith(("teacher", "warm"))]
    noise = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=noise, dtype=p.dtype) for p in parameters]
    available = model.encode(batch).flat().detach()

    def objective() -> float:
        step = type(model).step(model, batch)
        if "backward" in step.losses:
            recalled, _ = model.backward_imagination(step.prediction.extras["imagined"])
            step.losses["backward"] = model.w_backward * mse(recalled, available)
        return float(torch.stack(list(step.losses.values())).sum())

    model.zero_grad()
    torch.autograd.backward(list(type(model).step(model, batch).losses.values()))
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True) if p.grad is not None)
    ends = []
    for shift in (h, -2 * h, h):  # and back
        with torch.no_grad():
            for parameter, along in zip(parameters, direction, strict=True):
                parameter += shift * along
            ends.append(objective())
    return abs(slope - (ends[0] - ends[1]) / (2 * h)) / abs(slope)
