"""Depth is the resource: a controller gives a budget of blocks to the modalities of each row by how noisy they look."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Data, Features, Fixture, Fused, Modality, Model, Prediction, Schema, Splits,
    Stage, Step, Stream, ablation_of, before_each_step, claims_of, every_subset, register,
)  # fmt: skip
from kintsugi.core.encoder import Encoder, make_encoder
from kintsugi.core.kind import KINDS
from kintsugi.layers.budget import SkippableBlocks, gumbel, layer_drop, select_blocks
from kintsugi.layers.neighbours import evenly_spread
from kintsugi.layers.positions import sinusoid
from kintsugi.layers.streams import Block
from kintsugi.layers.twins import Twins

LEVELS = 5.0  # the largest level that a controller can say: sigmoid times 5, in the authors' code
EPSILON = 1e-4  # of a power, so that the loudness of silence is finite
START = 0.005  # the largest start of a weight of the last layer, in the authors' code
BACKBONE = ("encoders.*.first.*", "backbones.*", "adapters.*", "fusion.*", "task_head.*")


@register(
    Card(
        key="admn",
        name="ADMN",
        leaf="corrupted/noise_aware",
        imperfection=("corrupted at test", "corrupted in training", "missing at test", "missing in training"),
        faithful=(
            "backbones learn first, under LayerDrop that rises, and the loss of whole modalities but for their first block",
            "one controller, one softmax and top-k over the blocks of all modalities: a row keeps exactly L blocks",
            "straight-through gradient under small Gumbel noise, while everything outside the controller is frozen",
            "the controller first learns the level of noise alone, then that and the task",
            "in use blocks are skipped indeed; an absent modality keeps none, and its share goes to the others",
        ),
        simplified=(
            "an encoder by kind and 4 residual perceptrons stand for a pre-trained ViT of 12 blocks, a second encoder by kind "
            "for the controller's CNN; one fusion block for 6, one block of the controller for 4, one linear adapter for two",
            "noise of a deviation uniform in 0 to 3 spreads of the training rows on every modality of numbers, in both stages; "
            "texts, codes and constants get none, at level 0; the release also has clean first epochs and levels in steps",
            "a level is of the added noise alone, in spreads of rows that may be noisy already; the release has clean ones",
            "since encoders end in a LayerNorm, the controller is also told the log of the root mean square of each input",
            "one weight of the level's error for all, since levels are in one unit; the task's own loss",
            "LayerDrop begins at half of its rate, in the release at none; a tenth of the second stage learns the level alone",
            "the start from an autoencoder, blocks of unequal cost and budgets that change in use are left out",
        ),
        claims=(
            "a row keeps L blocks, of all modalities those that the controller likes best, and the first ones",
            "the first stage drops a fifth of the blocks, and of one modality in ten all but the first",
            "after training a row's blocks go to the modality that is less noisy",
        ),
        premise="modalities repeat each other, noise of any strength is on them, in training too, and it shows in the inputs",
        worlds=("visible_noise", "redundant"),
        kinds=("vector", "series", "image", "audio", "video", "tabular", "points", "volume"),
        confidence="high",
        defaults_from="the released code: LayerDrop 0.2 and 0.1, Gumbel noise 0.1, temperature 1, noise up to 3; half of all "
        "blocks, as its budget of 12 of 24",
        cost="medium",
        version=2,
    )
)
class ADMN(Model):
    """Adaptive depth; ``weights`` are shares of the modalities in the kept blocks, ``reliability`` is 1 - level / 5.

    Args:
        depth: blocks of each modality.
        budget: L, the blocks that a row keeps, of all modalities together; None: half of them all.
        layerdrop: probability of losing a block in the first stage. full_drop: of losing all but the first.
        gumbel_scale, tau: of the noise on the logits in training, and of their softmax.
        strongest: largest deviation of the training noise, in spreads of the training rows.
        level_weight: of the error of the level.

    Raises:
        ConfigError: a budget of less than a block a modality, or of more than there are; a level weight of 0 or less.
    """

    probes = MappingProxyType({"budget": (5,)})
    rare = ("backbones.*",)  # which the first stage drops
    spread: Tensor

    def __init__(
        self, schema: Schema, dim: int = 32, depth: int = 4, budget: int | None = None, layerdrop: float = 0.2,
        full_drop: float = 0.1, gumbel_scale: float = 0.1, tau: float = 1.0, strongest: float = 3.0, level_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim)
        count = len(schema)
        self.budget = max(count, count * depth // 2) if budget is None else budget
        if not count <= self.budget <= count * depth or level_weight <= 0:
            raise ConfigError(
                f"admn: {count} modalities of {depth} blocks keep {count} to {count * depth} of them, not {self.budget}, and "
                "level_weight is above 0"
            )
        self.layerdrop, self.full_drop, self.gumbel_scale, self.tau = layerdrop, full_drop, gumbel_scale, tau
        self.strongest, self.level_weight, self.depth = strongest, level_weight, depth
        self.backbones = nn.ModuleList(SkippableBlocks(dim, depth) for _ in schema.names)
        self.adapters = nn.ModuleList(nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU()) for _ in schema.names)
        self.fusion, self.controller = Block(dim), Controller(dim, count, depth)
        for m in schema.modalities:
            self.encoders[m.name] = Twins(self.encoders[m.name], Loud(make_encoder(m, dim), m, dim))
        numbers = torch.tensor([float(not KINDS[m.kind].vocabulary) for m in schema.modalities])
        self.register_buffer("spread", numbers, persistent=False)  # of the training rows; nothing in use reads it

    def stages(self) -> list[Stage]:
        own = ("encoders.*.second.*", "controller.*")
        return [
            Stage("backbone", 0.7, trainable=BACKBONE),
            Stage(
                "levels",
                0.03,
                trainable=("encoders.*.second.*", "controller.trunk.*", "controller.cls", "controller.level.*"),
            ),
            Stage("controller", 0.27, trainable=own),
        ]

    def prepare(self, data: Splits, stage: Stage) -> None:
        for i, m in enumerate(self.schema.modalities):
            if not KINDS[m.kind].vocabulary:
                self.spread[i] = _spread(data.train, m)

    def shaken(self, batch: Batch, level: Tensor) -> Batch:
        """With Gaussian noise of these levels ``[B, M]``, in spreads of the training rows; ids and codes stay as they are."""
        inputs = {}
        for i, m in enumerate(self.schema.modalities):
            x = batch.inputs[m.name]
            if not KINDS[m.kind].vocabulary:
                noise = (level[:, i] * self.spread[i]).view(-1, *[1] * (x.ndim - 1)) * torch.randn_like(x)
                inputs[m.name] = x + (noise * _numbers(m).to(x) if m.kind == "tabular" else noise)
        return replace(batch, inputs={**batch.inputs, **inputs})

    def drawn(self, batch: Batch) -> Tensor:
        """A level for every slot ``[B, M]``; 0 where noise would be none: of texts, codes, and what never changes."""
        level = self.strongest * torch.rand(len(batch), len(self.schema), device=batch.device)
        return level * (self.spread > 0)

    def keep(self, logits: Tensor, present: Tensor) -> Tensor:
        """Which blocks rows keep ``[B, M, n]``: bool in use, in training floats with the gradient of the softmax."""
        noise = self.gumbel_scale * gumbel(torch.rand_like(logits)) if self.training else None
        kept, soft = select_blocks(logits, present, self.budget, noise, self.tau)
        return kept + (soft - soft.detach()) if self.training else kept

    def dropped(self) -> Tensor:
        """The blocks of the first stage, bool ``[M, n]``: all of them when it is validated.

        The rate begins at a half, and is full from a twentieth of the stage on.
        """
        if not self.training:
            return torch.ones(len(self.schema), self.depth, dtype=torch.bool)
        rate = self.layerdrop if self.clock.progress >= 0.05 else self.layerdrop / 2
        return layer_drop(len(self.schema), self.depth, rate, self.full_drop)

    def fuse(self, features: Features) -> Fused:
        own, seen = features.pooled().split(self.dim, 2)
        present = features.present
        logits, level = self.controller(seen, present)
        if self.clock.stage == "backbone":
            keep = self.dropped().to(own.device).expand(len(own), -1, -1)
        else:
            keep = self.keep(logits, present)
        tokens = [
            adapter(blocks(x, kept))
            for adapter, blocks, x, kept in zip(
                self.adapters, self.backbones, own.unbind(1), keep.unbind(1), strict=True
            )
        ]
        x = self.fusion(
            torch.stack(tokens, 1) + sinusoid((len(self.schema),), self.dim, own.device).to(own.dtype), present
        )
        used = (keep.to(own.dtype) * present[..., None]).sum(2)
        extras = {"keep": keep, "logits": logits, "level": level}
        return Fused(x, present, weights=used / used.sum(1, keepdim=True).clamp(min=1), extras=extras)

    def head(self, fused: Fused, features: Features) -> Prediction:
        prediction = super().head(fused, features)
        return replace(prediction, extras=fused.extras, reliability=1 - fused.extras["level"] / LEVELS)

    def step(self, batch: Batch) -> Step:
        level = self.drawn(batch)
        features, stage = self.encode(self.shaken(batch, level)), self.clock.stage
        if stage == "levels":
            said = self.controller(features.pooled()[..., self.dim :], features.present)[1]
            return Step({"level": self.level_weight * level_error(said, level, features.present)})
        prediction = self.predict(features)
        losses = {"task": self.task.loss(prediction.output, batch)}
        if stage != "backbone":
            losses["level"] = self.level_weight * level_error(prediction.extras["level"], level, features.present)
        return Step(losses, prediction)


class Loud(Encoder):
    """What an encoder makes of a row, plus a linear map of how loud it is: one token ``[R, 1, dim]``.

    Loudness is the log of the root mean square of the numbers seen. Encoders end in a LayerNorm, which takes out the scale, and
    noise shows in that first; the convolutions of the authors' controller keep it. Texts and codes have none.
    """

    def __init__(self, encoder: nn.Module, modality: Modality, dim: int) -> None:
        super().__init__()
        self.encoder, self.modality = encoder, modality
        if not KINDS[modality.kind].vocabulary:
            self.scale = nn.Linear(1, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """x ``[R, *shape]``, mask bool ``[R, T]`` or None."""
        out = self.encoder(x, mask).pooled()
        if not KINDS[self.modality.kind].vocabulary:
            seen = torch.ones_like(x, dtype=torch.bool)
            if mask is not None:
                seen = seen & mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim))
            if self.modality.kind == "tabular":
                seen = seen & _numbers(self.modality).to(x.device)
            power = torch.where(seen, x, 0).square().flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1)
            out = out + self.scale((power + EPSILON).log()[:, None] / 2)
        return Stream.vector(out)


class Controller(nn.Module):
    """Features ``[B, M, D]``, present bool ``[B, M]`` -> logits of blocks ``[B, M, n]`` and levels of noise ``[B, M]``, 0 to 5.

    A transformer block over a CLS token and a token a modality, and two perceptrons on CLS: of the logits without biases,
    the last layer starting within ±0.005.
    """

    def __init__(self, dim: int, modalities: int, depth: int) -> None:
        super().__init__()
        self.cls = nn.Parameter(0.02 * torch.randn(dim))
        self.trunk = nn.ModuleList([Block(dim), nn.LayerNorm(dim)])
        last = nn.Linear(dim, modalities * depth, bias=False)
        self.layers = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.ReLU(), last, nn.Unflatten(1, (-1, depth)))
        self.level = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, modalities), nn.Sigmoid())
        nn.init.uniform_(last.weight, -START, START)

    def forward(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as in the class."""
        tokens = torch.cat([self.cls.to(x.dtype).expand(len(x), 1, -1), x], 1)
        tokens = tokens + sinusoid((tokens.shape[1],), tokens.shape[2], x.device).to(x.dtype)
        block, norm = self.trunk
        cls = norm(block(tokens, torch.cat([torch.ones_like(present[:, :1]), present], 1))[:, 0])
        return self.layers(cls), LEVELS * self.level(cls)


def level_error(said: Tensor, level: Tensor, present: Tensor) -> Tensor:
    """Mean distance of the levels ``[B, M]`` over the rows that have a modality, summed over modalities."""
    gaps = torch.where(present, (said - level).abs(), 0)
    return (gaps.sum(0) / present.sum(0).clamp(min=1)).sum()


def _numbers(modality: Modality) -> Tensor:
    """Bool ``[C]``: cells of a table that hold numbers; of any other kind ``[1]``, which stands for all."""
    kinds = modality.categories if modality.kind == "tabular" else ()
    return torch.tensor([not codes for codes in kinds]) if kinds else torch.ones(1, dtype=torch.bool)


def _spread(data: Data, modality: Modality) -> float:
    """Standard deviation of all values that at most 512 rows show; 0 where there are none."""
    name = modality.name
    batch = data.batch(evenly_spread(data.positions(f"has:{name}"), 512))
    x, mask = batch.inputs[name].double(), batch.mask.get(name)
    seen = torch.isfinite(x) & batch.present[:, batch.names.index(name)].view(-1, *[1] * (x.ndim - 1))
    if mask is not None:
        seen &= mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim))
    if modality.kind == "tabular":
        seen &= _numbers(modality)
    return float(x[seen].std(correction=0)) if bool(seen.any()) else 0.0


@ablation_of(ADMN, "controller")
class Uniform(ADMN):
    """Off: first blocks first, in turn over the modalities, whatever the controller says; its gradient is what it was."""

    def keep(self, logits: Tensor, present: Tensor) -> Tensor:
        order = -torch.arange(self.depth, dtype=logits.dtype, device=logits.device)
        kept, _ = select_blocks(order.expand_as(logits), present, self.budget)
        mine = super().keep(logits, present)
        return kept + (mine - mine.detach()) if self.training else kept


ablation_of(ADMN, "LayerDrop", layerdrop=0.0, full_drop=0.0)


@ablation_of(ADMN)
class Fixed(Uniform):
    """Off: both."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **{**hyper, "layerdrop": 0.0, "full_drop": 0.0})


@claims_of(ADMN)
def claims(fixture: Fixture) -> Claims:
    """Of an untrained model, on rows with every subset of the modalities; then of one that was trained."""
    likes, drops, adapts = ADMN.card.claims
    model: Any = fixture.pipeline(budget=5).model.eval()
    batch = every_subset(fixture.batch(28))
    calls = [0]
    for block in (each for backbone in model.backbones for each in backbone.blocks):
        block.register_forward_hook(lambda _, given, __: calls.__setitem__(0, calls[0] + len(given[0])))
    extras = model(batch).extras
    yield Claim(likes, float((extras["keep"] != _best(extras["logits"], batch.present, 5)).sum()), at_most=0)
    most = (4 * batch.present.sum(1)).clamp(max=5)
    yield Claim("a block that a row does not keep is not run on it", abs(calls[0] - int(most.sum())), at_most=0)
    model.clock.stage, model.clock.progress, few = "backbone", 1.0, fixture.batch(2)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.random.default_generator.manual_seed(fixture.seed)
        calls[0] = 0
        for _ in range(150):
            model.train().step(few)
    share = calls[0] / (150 * 2 * model.depth * len(batch.names))
    yield Claim(drops, abs(share - (0.9 * 0.8 + 0.1 / model.depth)), at_most=0.05)
    whole = fixture.pipeline(budget=5).model
    yield Claim("logits learn by the softmax over all blocks, kept or not", _slope_gap(whole, batch), at_most=1e-6)
    yield from _noise(whole, batch)
    yield Claim(adapts, _moved_blocks(fixture.world(modalities=2)), at_least=1)
    yield Claim("each stage moves its own parts alone", float(_moved(fixture)), at_most=0)


def _slope_gap(model: Any, batch: Batch) -> float:
    """Slopes by the logits against the Jacobian of a softmax over free blocks, times slopes by the mask; from a drawn noise."""
    free = batch.present[..., None] & (torch.arange(model.depth) > 0)
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(free.shape, generator=draws).requires_grad_()
    slopes = torch.randn(free.shape, generator=draws) * batch.present[..., None]
    model.gumbel_scale = 0.0
    (given,) = torch.autograd.grad((model.train().keep(logits, batch.present) * slopes).sum(), logits)
    expected = torch.zeros_like(given)
    for row in range(len(batch)):
        s = logits.detach()[row][free[row]].softmax(0)
        expected[row][free[row]] = (torch.diag(s) - torch.outer(s, s)) @ slopes[row][free[row]]
    return float((given - expected).abs().max())


def _noise(model: Any, batch: Batch) -> Claims:
    """What the second stage is shown, and by what its level is taught."""
    model.clock.stage, model.spread[:], seen = "controller", torch.tensor([0.5, 1.0, 2.0]), list[Batch]()

    def encode(rows: Batch) -> Features:
        seen.append(rows)
        return Model.encode(model, rows)

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        level = model.drawn(batch)
        model.__dict__ |= {"drawn": lambda _: level, "encode": encode}
        step = model.train().step(batch)
    size = torch.stack([(seen[0].inputs[m] - batch.inputs[m]).square().mean(1) for m in batch.names], 1)
    ratio = (size / (level * model.spread).square()).mean(0)
    yield Claim(
        "noise has the drawn deviation, in spreads of the training rows", float((ratio - 1).abs().max()), at_most=0.6
    )
    gaps = [
        (step.prediction.extras["level"] - level)[here, m].abs().mean()
        for m, here in enumerate(batch.present.unbind(1))
    ]
    gap = abs(float(step.losses["level"].detach() - sum(gaps).detach()))
    yield Claim(
        "the level's error is a mean over rows that have a modality, and a sum over modalities", gap, at_most=1e-6
    )
    deaf = [
        name
        for name, p in model.named_parameters()
        if ".second." in name or name.startswith(("controller.trunk", "controller.cls", "controller.layers"))
        if not _reaches(step.losses["task"], p) or (".layers." not in name and not _reaches(step.losses["level"], p))
    ]
    yield Claim("task and level alike teach what the controller sees", float(len(deaf)), at_most=0)
    far = abs(float(level.mean()) - 1.5) + abs(float(level.max()) - 3)
    yield Claim("levels are uniform up to the strongest", far, at_most=0.5)


def _moved(fixture: Fixture) -> int:
    """Parameters that a training moves where it should not, or not where it should; spreads that are not those of its rows."""
    fixture.epochs = 3
    pipeline, seen = fixture.pipeline(), list[tuple[str, dict[str, Tensor]]]()
    model: Any = pipeline.model

    before_each_step(model, lambda _: seen.append(
        (model.clock.stage, {n: p.detach().clone() for n, p in model.named_parameters()})))  # fmt: skip
    fixture.train(pipeline)
    wrong = 0
    for (stage, one), (_, other) in pairwise(seen):
        for name in one:
            controller = ".second." in name or name.startswith("controller")
            own = (
                controller and not (stage == "levels" and ".layers." in name) if stage != "backbone" else not controller
            )
            wrong += not own and not torch.equal(one[name], other[name])
    for name, values in fixture.splits.train.batch(torch.arange(len(fixture.splits.train))).inputs.items():
        wrong += abs(float(model.spread[model.schema.column(name)] / values.std()) - 1) > 0.01
    stages = dict(seen)
    return wrong + sum(torch.equal(stages["levels"][n], p) for n, p in stages["controller"].items() if ".level." in n)


def _moved_blocks(fixture: Fixture) -> float:
    """How many of four blocks a modality loses to the other, from where that has noise of 3 spreads to where it has itself."""
    fixture.epochs = 80
    model: Any = fixture.trained().model.eval()
    batch, draws = fixture.batch(80), torch.Generator().manual_seed(0)
    kept = []
    for name, x in batch.inputs.items():
        noisy = x + 3 * float(x.std()) * torch.randn(x.shape, generator=draws)
        answer = model(replace(batch, inputs={**batch.inputs, name: noisy}))
        kept.append(answer.extras["keep"].float().sum(2).mean(0))
    (first, _), (second, _) = (each.tolist() for each in kept)
    return float(second - first)


def _reaches(loss: Tensor, parameter: Tensor) -> bool:
    (slope,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True, materialize_grads=True)
    return bool(slope.any())


def _best(logits: Tensor, present: Tensor, budget: int) -> Tensor:
    """By rows: the first block of each present modality, then of all others the best."""
    kept = torch.zeros(logits.shape, dtype=torch.bool)
    for row, here in enumerate(present.tolist()):
        there = [m for m, seen in enumerate(here) if seen]
        kept[row, there, 0] = True
        others = sorted(
            ((logits[row, m, i].item(), m, i) for m in there for i in range(1, logits.shape[2])), reverse=True
        )
        for _, m, i in others[: budget - len(there)]:
            kept[row, m, i] = True
    return kept
