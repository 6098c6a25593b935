"""Imagine the embedding of what is missing; classify from the imagination's own bottlenecks."""

from __future__ import annotations

import torch

from kintsugi.core.claims import held
from kintsugi.core import (
    Claim, Claims, Batch, Card, Features, Fused, Fixture, Model, Prediction, Schema, Splits, Stage, Step, StreamSpec,
    ablation_of, claims_of, register,
)  # fmt: skip
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
            "the classifier sees the bottlenecks of all blocks, nothing else",
            "the target is a frozen copy of the encoders, trained on complete rows, looking at the missing part alone",
            "a backward cascade leads from the imagined back to the available embedding",
        ),
        simplified=(
            "encoders by kind of data stand for the paper's LSTM and TextCNN",
            "widths of the autoencoders are the paper's shares of the joint embedding, not its numbers",
            "the classifier has one hidden layer; the release has two of 128",
            "the complete pattern is drawn too, 1 time in 7 of 3 modalities; the release never shows it to the "
            "second stage, so that what only all modalities together tell could not be learned",
        ),
        claims=(
            "the imagined embedding of an absent modality is nearer to the teacher's embedding than the batch mean is",
        ),
        premise="modalities predict each other, complete rows are many and labels are few; some modalities are "
        "absent in use",
        confidence="high",
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
        with torch.no_grad():
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

    def __init__(self, schema: Schema, dim: int = 32, blocks: int = 5, hidden: int = 128) -> None:
        super().__init__(schema, dim, blocks, hidden)
        self.forward_imagination.transition.requires_grad_(False)
        self.backward_imagination.requires_grad_(False)
        self.forward_imagination.up[-1].requires_grad_(False)  # feeds the imagined embedding alone

    def step(self, batch: Batch) -> Step:
        return Model.step(self, batch)


def imagines_what_is_absent(fixture: Fixture) -> None:
    """See the card's ``check``."""
    model = fixture.trained().model
    batch = fixture.batch(64)
    for name in fixture.schema.names:
        there = torch.tensor([m != name for m in fixture.schema.names])
        with torch.no_grad():
            truth = model.encode(batch, model.get_submodule("teacher")).streams[name].pooled()  # type: ignore[arg-type]
            imagined = model(batch.where(there)).extras["imagined"].unflatten(1, (len(fixture.schema), -1))
        guess = imagined[:, fixture.schema.column(name)]
        assert mse(guess, truth) < mse(truth.mean(0).expand_as(truth), truth), f"{name} is not imagined"


@claims_of(MMIN)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(MMIN.card.claims[0], held(imagines_what_is_absent, fixture), at_least=1.0)
