"""A chain of residual autoencoders fills in whole missing modalities, each correcting what those before it left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Prediction, Schema, Stage, Step, StreamSpec, ablation_of,
    before_each_step, claims_of, difference, every_subset, record_steps, register,
)  # fmt: skip
from kintsugi.layers.cascade import Autoencoder, ResidualCascade
from kintsugi.layers.mlp import mlp


@register(
    Card(
        key="cra",
        name="CRA",
        leaf="missing/generative",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "every block reads the whole concatenation, absent parts zero at first, and adds a residual to its own input",
            "greedy stages, one block at a time and those before it frozen; then all together on the last output alone",
            "every modality of a row is dropped by itself in each step, 3 times in 10; a row may lose all of them",
            "half the squared error, summed over known features, seen and dropped alike; what is unknown is not counted",
            "a block has its ReLU code dropped out in training while it learns, and a linear output",
        ),
        simplified=(
            "the signal is the pooled features of encoders that learn the task first and are frozen then; the paper's is the "
            "data itself, five face images or descriptors, and has no encoder",
            "a block is one hidden layer of 2056/5120 of the signal; the release has convolutions around two dense layers",
            "what is seen is kept and the output used where something is absent, and a perceptron, which this library adds, "
            "reads the completed concatenation; the paper ends with the signal",
            "no slow rates for the third block's first layers; rates and weight decay are the trainer's",
        ),
        claims=(
            "a block that predicts nothing leaves its input as it is",
            "what is filled in is nearer to what was hidden than the mean is",
        ),
        premise="modalities predict each other; some rows lack whole modalities in use",
        worlds=("redundant",),
        confidence="high",
        defaults_from="the released Multi-PIE nets: 3 blocks, drop rate 0.3, dropout 0.5, 40 thousand updates a block of 320",
        cost="medium",
    )
)
class CRA(Model):
    """Cascaded residual autoencoder, before a perceptron that reads the completed features of all modalities.

    Args:
        dim: width of each modality's features.
        blocks: residual autoencoders in the chain.
        code: width of a block's hidden layer as a share of the signal.
        p_drop: probability with which a modality of a row is dropped in a step.
        dropout: of the codes.
        hidden: width of the perceptron.
        residual: False: a block's output replaces its input.
    """

    def __init__(
        self, schema: Schema, dim: int = 32, blocks: int = 3, code: float = 0.4, p_drop: float = 0.3, dropout: float = 0.5,
        hidden: int = 128, residual: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim, fused=None)
        width = dim * len(schema)
        widths = [width, max(1, round(code * width))]
        chain = [Autoencoder(widths, code=True, dropout=dropout) for _ in range(blocks)]
        self.cascade = ResidualCascade(chain, residual)
        self.trunk = mlp([width, hidden], last=True)
        self.task_head = schema.task.head(StreamSpec(hidden))
        self.p_drop = p_drop

    def stages(self) -> list[Stage]:
        view, answer = EachDropped(self.p_drop), ("trunk.*", "task_head.*")
        greedy = [
            Stage(f"block {k}", 40, trainable=(f"cascade.blocks.{k}.*",), view=view)
            for k in range(len(self.cascade.blocks))
        ]
        together = Stage("together", 200, trainable=("cascade.*", *answer), view=view)
        return [Stage("features", 120, trainable=("encoders.*", *answer)), *greedy, together]

    def fuse(self, features: Features) -> Fused:
        signal = features.flat()
        if self.clock.stage == "features":
            return Fused.vector(self.trunk(signal))
        filled = self.cascade(signal).state
        seen = features.present.repeat_interleave(self.dim, 1)
        completed = torch.where(seen, signal, filled.detach())  # the task does not train what imputes
        return Fused.vector(self.trunk(completed), extras={"filled": filled})

    def head(self, fused: Fused, features: Features) -> Prediction:
        return Prediction(self.task_head(fused), features.present, fused.pooled(), extras=fused.extras)

    def target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The signal ``[B, M * D]`` of before the view, and which of it is known."""
        features = self.encode(batch if batch.truth is None else batch.truth)
        return features.flat(), features.present.repeat_interleave(self.dim, 1)

    def step(self, batch: Batch) -> Step:
        stage = self.clock.stage
        if stage == "features":
            return super().step(batch)
        if stage.startswith("block"):
            filled = self.cascade(self.encode(batch).flat(), int(stage.split()[1]) + 1).state
            return Step({"imputation": half_squares(filled, *self.target(batch))})
        prediction: Prediction = self(batch)
        losses = {
            "task": self.task.loss(prediction.output, batch, prediction.used.any(1)),
            "imputation": half_squares(prediction.extras["filled"], *self.target(batch)),
        }
        return Step(losses, prediction)


@dataclass(frozen=True)
class EachDropped:
    """The view: a present slot is dropped with probability ``rate``, whatever becomes of the others."""

    rate: float

    def __call__(self, batch: Batch, generator: Generator) -> Tensor:
        """Bool ``[B, M]``."""
        return batch.present & (torch.rand(batch.present.shape, generator=generator) > self.rate).to(batch.device)


def half_squares(filled: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """``1 / (2 N) sum_n ||u_n (filled_n - target_n)||^2``, all ``[N, W]``; what stands where u is False is never read.

    The Euclidean loss of the authors' code (tranluan/CRA), in which the unknown part of a target is masked.
    """
    return torch.where(known, filled - target, 0).square().sum() / (2 * max(1, len(filled)))


@ablation_of(CRA, "the rows' own targets")
class OthersTargets(CRA):
    """Off: a row is to become the row before it in the batch, from which only the mean of all rows can be learned."""

    def target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        target, known = super().target(batch)
        return target.roll(1, 0), known.roll(1, 0)


@ablation_of(CRA)
class Neither(OthersTargets):
    """Off: plain autoencoders without a sum, which learn to fill in the mean."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **{**hyper, "residual": False})


ablation_of(CRA, "the residual path", residual=False)


@claims_of(CRA)
def claims(fixture: Fixture) -> Claims:
    """Exact ones without training, on rows with every subset of the modalities; then a training, whose stages are watched."""
    nothing, nearer = CRA.card.claims
    model: Any = fixture.pipeline().model.double().eval()
    batch = every_subset(fixture.batch(70).map(lambda x: x.double() if x.is_floating_point() else x))
    whole = batch.where(torch.arange(70)[:, None] % 10 != torch.arange(3))  # of some rows a modality was never seen
    shown = replace(batch.where(whole.present & (torch.arange(70)[:, None] % 7 > 0)), truth=whole)
    signal, truth, blocks = model.encode(shown).flat(), model.encode(whole).flat(), model.cascade.blocks
    states = [signal]
    for block in blocks:
        states.append(states[-1] + block.up(block.down[0](states[-1]).relu()))
    read: list[Tensor] = []
    hook = model.trunk.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    prediction = model(shown)
    hook.remove()
    seen, known = (b.present.repeat_interleave(model.dim, 1) for b in (shown, whole))
    yield Claim("seen features are kept and absent ones filled in", difference(
        read[0], torch.where(seen, signal, prediction.extras["filled"])), at_most=0)  # fmt: skip
    gaps = []
    for stage, state in [(f"block {k}", x) for k, x in enumerate(states[1:])] + [("together", states[-1])]:
        model.clock.stage = stage
        losses = model.step(shown).losses
        wanted = ((state - truth) * known).pow(2).sum() / 140
        gaps.append(difference(losses["imputation"], wanted, model))
    yield Claim(
        "every stage descends half the squared error of what is known, through all blocks so far",
        max(gaps),
        at_most=1e-9,
    )
    rest = [p for n, p in model.named_parameters() if not n.startswith(("trunk", "task_head", "encoders"))]
    slopes = torch.autograd.grad(losses["task"], rest, retain_graph=True, allow_unused=True)
    yield Claim("the task does not train what fills in", float(sum(s is not None for s in slopes)), at_most=0)
    answer = model.task_head.linear(model.trunk(torch.where(seen, signal, states[-1].detach())))
    surprise = -answer.log_softmax(1)[torch.arange(70), batch.target][shown.present.any(1)].mean()
    yield Claim("the task's loss is that of rows of which something is seen", difference(losses["task"], surprise, model),
                at_most=1e-9)  # fmt: skip
    with torch.no_grad():
        blocks[1].up[-1].weight.zero_(), blocks[1].up[-1].bias.zero_()
        left = signal
        for block in (blocks[0], blocks[2]):
            left = left + block.up(block.down(left))
        gap = difference(model(shown).extras["filled"], left)
    yield Claim(nothing, gap, at_most=1e-9)
    yield from _of_a_training(fixture, nearer)


def _of_a_training(fixture: Fixture, nearer: str) -> Claims:
    pipeline = fixture.pipeline()
    model: Any = pipeline.model
    noisy: list[set[str]] = []  # what drops out, step by step
    before_each_step(model, lambda _: noisy.append(
        {name for name, m in model.named_modules() if isinstance(m, nn.Dropout) and m.training}))  # fmt: skip
    steps = record_steps(model)
    fixture.epochs = 48
    fixture.train(pipeline)
    chain, answer = [f"cascade.blocks.{k}" for k in range(3)], {"trunk", "task_head"}
    own = {"features": {"encoders", *answer}, "together": {*chain, *answer}}
    own |= {f"block {k}": {name} for k, name in enumerate(chain)}
    stages = [each.stage for each in steps.taken]
    moving = [
        {name.rpartition(".up.")[0] or name.split(".")[0] for name in each.moving} - {"cascade"} for each in steps.taken
    ]
    wrong = sum(m != own[stage] for stage, m in zip(stages, moving, strict=True)) + abs(len(set(stages)) - len(own))
    yield Claim("a block learns alone, then all of them with what answers", wrong, at_most=0)
    still = sum(
        {f"{n}.dropout" for n in own[stage] if n in chain} != drops
        for stage, drops in zip(stages, noisy, strict=True)
        if stage[0] != "f"
    )
    yield Claim("codes of blocks that learn drop out, and no others", still, at_most=0)
    shares = torch.tensor([stages.count(name) / len(stages) for name in own])
    yield Claim(
        "stages last as long as the paper's", difference(shares, torch.tensor([12, 20, 4, 4, 4]) / 44), at_most=0.02
    )
    for name, gap in (("features", 0.0), ("dropping", 0.3)):
        rows = torch.cat(
            [each.batch.present for each in steps.taken if (each.stage == "features") == (name == "features")]
        ).double()
        yield Claim(
            f"{name}: a slot is dropped as often as it should", float((1 - rows.mean() - gap).abs()), at_most=0.02
        )
    yield Claim("a row may lose everything", float((rows.sum(1) == 0).double().mean() - 0.027).__abs__(), at_most=0.02)
    batch, ratios = fixture.batch(80), []
    with torch.no_grad():
        model.eval()
        own_features = model.encode(batch).pooled()
        for i in range(3):
            filled = model(batch.where(torch.arange(3) != i)).extras["filled"].unflatten(1, (3, -1))[:, i]
            truth = own_features[:, i]
            ratios.append(float((filled - truth).square().mean() / truth.var(0, correction=0).mean()))
    yield Claim(nearer, max(ratios), at_most=0.9)
