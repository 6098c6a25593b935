"""A missing sequence is written step after step from the others, through one token; [CLS] is where modalities meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Schema, Stage, Step, Stream, ablation_of, claims_of,
    difference, register,
)  # fmt: skip
from kintsugi.core.data import Splits
from kintsugi.encoders.frames import FrameSpec, Lengths, fitted, frame_encoder, frame_spec, told_numbers
from kintsugi.layers.mlp import mlp
from kintsugi.layers.streams import Block
from kintsugi.layers.translate import BridgeTranslator, recurrent
from kintsugi.losses.distance import mse


@register(
    Card(
        key="unimf",
        name="UniMF",
        leaf="missing/generative",
        imperfection=("missing at test",),
        faithful=(
            "a transformer writes the missing sequence; one special token is all that its steps see of the sources",
            "taught with true earlier steps in training, in use it goes on from the steps that it wrote itself",
            "the predictor reads true and written sequences by a GRU each; modalities meet in [CLS] alone, which skips itself",
            "task and translation are learned together on complete rows, and the task's gradient flows into the translators",
        ),
        simplified=(
            "one translator a missing modality, which hides absent sources and has a special token for each number of them; the "
            "paper has one for each set of sources, which grows as 2 to the power of the modalities",
            "the part that is missing is drawn for every row, the paper fixes it for a run; complete rows are drawn too",
            "series are averaged to at most 16 steps, by 4 where their length is open, a vector is one; of other kinds the "
            "encoder's tokens are written, detached",
            "unseen numbers of a vector leave its translation's error; as many steps are written as the longest row has that was "
            "taught, while those of a shorter one are hidden in training",
            "blocks of 4 heads, of the paper's 8, with GELU and without dropout; convolutions of kernel 1, of the 1, 3 or 5 that "
            "were searched",
            "one optimiser for all, of the trainer, which clips nothing; the task's own loss",
        ),
        claims=(
            "written steps of an absent modality are nearer to the truth than the mean step is",
            "each translation's error is that of the row's own steps, each written from the true ones before it",
            "in one block modalities meet in [CLS] alone",
        ),
        premise="modalities predict each other; complete rows are many, and in use some modalities are absent",
        worlds=("redundant", "privileged"),
        confidence="high",
        defaults_from="the authors' code: width 32, weights 1 and 1; depth 2 of the 1 to 8 that were searched",
        modality_only_in=("train",),
        cost="medium",
    )
)
class UniMF(Model):
    """Unified multimodal framework: translators and a predictor. Trains on complete rows, of which it hides parts itself.

    Args:
        depth: blocks of the predictor. translator_depth: of each translator; with 1, later steps see nothing of the sources.
        w_trans: weight of the translations.
    """

    rare = ("predictor.read.*.weight_hh_l0",)  # a sequence of one step, of a vector, has no state before it

    def __init__(
        self, schema: Schema, dim: int = 32, depth: int = 2, translator_depth: int = 2, w_trans: float = 1.0
    ) -> None:  # fmt: skip
        super().__init__(schema, dim)
        self.w_trans = w_trans
        self.encoders = nn.ModuleDict({m.name: frame_encoder(m, dim) for m in schema.modalities})
        encoders: Any = self.encoders
        self.sizes = {m.name: frame_spec(m, encoders[m.name], dim) for m in schema.modalities}
        self.lengths = Lengths(self.sizes)
        longest = max(size.length for size in self.sizes.values())
        self.translators = nn.ModuleDict({
            name: BridgeTranslator(
                [other.width for n, other in self.sizes.items() if n != name], size.width, longest, size.length > 1, dim,
                translator_depth,
            )
            for name, size in self.sizes.items()
        })  # fmt: skip
        self.predictor = Predictor(list(self.sizes.values()), longest, dim, depth)
        self.trunk = mlp([dim, dim, dim])

    def stages(self) -> list[Stage]:
        return [Stage("train", rows="complete", view="subsets")]

    def prepare(self, data: Splits, stage: Stage) -> None:
        self.lengths.measure(self, data.train, "complete")

    def sources(self, name: str, features: Features) -> list[Stream]:
        """What the translator of a modality reads: all other streams, those of absent ones hidden."""
        return [stream for n, stream in features.streams.items() if n != name]

    def complete(self, features: Features) -> Features:
        """Absent modalities are written, in rows that have another one."""
        written = {}
        for column, (name, stream) in enumerate(features.streams.items()):
            rows = features.present.any(1) & ~features.present[:, column]
            if bool(rows.any()):
                sources = self.sources(name, features.rows(rows))
                steps = self.translators[name].generate(sources, self.lengths[name])  # type: ignore[operator]
                written[name] = filled(stream, rows, steps, steps.new_ones(steps.shape[:2], dtype=torch.bool))
        return features.replace(written)

    def fuse(self, features: Features) -> Fused:
        cls = self.states(list(features.streams.values()))[:, 0]
        return Fused.vector(cls + self.trunk(cls))

    def states(self, streams: Sequence[Stream]) -> Tensor:
        """Of [CLS] and of all steps, after the predictor's blocks: ``[B, 1 + T, dim]``."""
        states: Tensor = self.predictor(streams, self.attend([stream.mask.shape[1] for stream in streams]))
        return states

    def attend(self, lengths: Sequence[int]) -> Tensor:
        """Who may look at whom in the predictor, for sequences of these lengths: bool ``[1 + T, 1 + T]``."""
        return cls_mask(lengths)

    def truth(self, batch: Batch) -> Features:
        """What the view of this step took away, as the translators are to write it."""
        hidden = self.encode(batch.dropped())
        return hidden.replace({name: self.told(stream) for name, stream in hidden.streams.items()})

    def told(self, stream: Stream) -> Stream:
        """What a translator is told of the truth: all of it, which learns nothing."""
        return Stream(stream.tokens.detach(), stream.mask)

    def step(self, batch: Batch) -> Step:
        features, truth, seen = self.encode(batch), self.truth(batch), batch.dropped().mask
        taught, losses = {}, {}
        for column, (name, stream) in enumerate(features.streams.items()):
            rows = truth.present[:, column] & features.present.any(1)
            if bool(rows.any()):
                true = truth.streams[name].rows(rows)
                steps = self.translators[name].teach(self.sources(name, features.rows(rows)), true)  # type: ignore[operator]
                taught[name] = filled(stream, rows, steps, true.mask)
                if self.w_trans:
                    counts = told_numbers(true.mask, self.encoders[name], seen[name][rows] if name in seen else None)
                    losses[f"translation/{name}"] = self.w_trans * mse(steps, true.tokens, counts)
        completed = features.replace(taught)
        prediction = self.head(self.fuse(completed), completed)
        prediction = prediction.fall_back(self.enough(features.present), self.prior)
        return Step({"task": self.task.loss(prediction.output, batch), **losses}, prediction)


def filled(stream: Stream, rows: Tensor, steps: Tensor, mask: Tensor) -> Stream:
    """A stream with these steps ``[R, T, W]``, mask bool ``[R, T]``, in some rows (bool ``[B]``)."""
    length = max(steps.shape[1], stream.mask.shape[1])
    whole, part = fitted(stream, length), fitted(Stream(steps, mask), length)
    written = torch.where(part.mask[..., None], part.tokens, 0).to(stream.tokens.dtype)
    return Stream(whole.tokens.index_put((rows,), written), whole.mask.index_put((rows,), part.mask))


def cls_mask(lengths: Sequence[int]) -> Tensor:
    """Who may look at whom: bool ``[1 + T, 1 + T]``. [CLS] at all steps, not at itself; a step at its own modality and [CLS]."""
    kind = torch.cat([torch.full((length,), i) for i, length in enumerate(lengths)])
    mask = torch.ones(1 + len(kind), 1 + len(kind), dtype=torch.bool)
    mask[0, 0] = False
    mask[1:, 1:] = kind[:, None] == kind
    return mask


class Predictor(nn.Module):
    """A GRU a modality, then blocks over ``[CLS; steps of all modalities]`` under :func:`cls_mask`.

    Args:
        sizes: of the modalities' sequences. length: most steps of any; later ones share a position.
        dim, depth: width of a token, and number of blocks.
    """

    def __init__(self, sizes: Sequence[FrameSpec], length: int, dim: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(size.width, dim) for size in sizes)
        self.read = nn.ModuleList(nn.GRU(dim, dim, batch_first=True) for _ in sizes)
        self.cls = nn.Parameter(torch.randn(dim) * 0.02)
        self.kind = nn.Parameter(torch.randn(len(sizes), dim) * 0.02)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, ratio=4) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, streams: Sequence[Stream], attend: Tensor) -> Tensor:
        """One stream a modality, bool ``[1 + T, 1 + T]`` -> the states of [CLS] and of all steps ``[B, 1 + T, dim]``."""
        tokens = [self.cls.expand(len(streams[0].mask), 1, -1)]
        for stream, embed, read, kind in zip(streams, self.embed, self.read, self.kind, strict=True):
            steps = torch.arange(stream.mask.shape[1], device=kind.device).clamp(max=len(self.position) - 1)
            states = recurrent(read, embed(stream.tokens), stream.mask)  # type: ignore[arg-type]
            tokens.append(states + self.position[steps] + kind)
        x = torch.cat(tokens, 1)
        mask = torch.cat([streams[0].mask.new_ones(len(x), 1), *(s.mask for s in streams)], 1)
        for block in self.blocks:
            x = block(x, mask, attend=attend.to(x.device))
        normed: Tensor = self.norm(x)
        return normed


class WithoutTruth(UniMF):
    """Translation off: what is to be written, and what it is written after, is the batch's mean."""

    def told(self, stream: Stream) -> Stream:
        mean = super().told(stream).tokens.sum(0) / stream.mask.sum(0)[:, None].clamp(min=1)
        return Stream(mean * stream.mask[..., None], stream.mask)


class Meeting(UniMF):
    """[CLS] off: modalities look at each other."""

    def attend(self, lengths: Sequence[int]) -> Tensor:
        return torch.ones_like(cls_mask(lengths))


@ablation_of(UniMF)
class Neither(Meeting, WithoutTruth):
    """Off: the truth of what is absent, and the mask that keeps modalities apart."""


ablation_of(UniMF, "translation")(WithoutTruth)
ablation_of(UniMF, "[CLS]")(Meeting)


@claims_of(UniMF)
def claims(fixture: Fixture) -> Claims:
    """On series and images, untrained, with gradients; then trained, where the second modality repeats the first."""
    nearer, taught, apart = UniMF.card.claims
    gaps = torch.tensor([_gaps(fixture.world(kind=kind, rows=144)) for kind in ("series", "image")]).amax(0)
    yield Claim(taught, float(gaps[0]), at_most=1e-9)
    yield Claim(
        "the task is learned from true and written steps, and trains the translators", float(gaps[1]), at_most=1e-9
    )
    model, whole, batch = _asked(fixture.world(kind="series", rows=144))
    streams = list(model.encode(whole).streams.values())
    moved = [streams[0], Stream(streams[1].tokens + 1, streams[1].mask), streams[2]]
    blocks, model.predictor.blocks = model.predictor.blocks, model.predictor.blocks[:1]
    before, after = (model.states(each) for each in (streams, moved))
    start, end = 1 + streams[0].mask.shape[1], 1 + streams[0].mask.shape[1] + streams[1].mask.shape[1]
    others = torch.cat([(before != after)[:, 1:start], (before != after)[:, end:]], 1)
    yield Claim(apart, float(others.sum()), at_most=0)
    yield Claim("[CLS] hears of every modality", float((before == after)[:, 0].all(1).sum()), at_most=0)
    model.predictor.blocks = blocks
    partial = sum(stage.rows != "complete" for stage in model.stages())
    yield Claim("it trains on complete rows", float(partial), at_most=0)

    blank = replace(batch, truth=None).map(torch.clone)
    for column, name in enumerate(batch.names):
        blank.inputs[name][~batch.present[:, column]] = torch.nan
    seen, worst = model.encode(blank), 0.0
    completed = model.complete(seen).streams
    for column, name in enumerate(batch.names):
        rows = ~batch.present[:, column]
        own = completed[name].rows(rows)
        again = _stepwise(model, name, seen.rows(rows), own)
        worst = max(worst, difference(again, own.tokens), float((~own.mask).sum()))
    yield Claim("in use each step is written from those that were written", worst, at_most=1e-9)
    yield Claim(nearer, _nearness(fixture), at_most=0.9)


def _asked(fixture: Fixture) -> tuple[Any, Batch, Batch]:
    """An untrained model, rows, and a view in which every modality is hidden somewhere, in float64."""
    whole = fixture.batch(12).map(lambda x: x.double() if x.is_floating_point() else x)
    keep = torch.tensor([[True, False, True], [True, False, False], [False, True, True]]).repeat(4, 1)
    return fixture.pipeline().model.double().eval(), whole, whole.view(keep)


def _stepwise(model: Any, name: str, features: Features, true: Stream) -> Tensor:
    """Each step by itself, from those before it."""
    sources = [stream for other, stream in features.streams.items() if other != name]
    pasts = [Stream(true.tokens[:, :t], true.mask[:, :t]) for t in range(true.mask.shape[1])]
    return torch.stack([model.translators[name](sources, past)[:, -1] for past in pasts], 1)


def _gaps(fixture: Fixture) -> tuple[float, float]:
    """Of the translations and of the task's loss from what they are by hand, gradients too."""
    model, whole, batch = _asked(fixture)
    losses, features, truth = model.step(batch).losses, model.encode(batch), model.encode(whole).streams
    streams, worst = [], 0.0
    for column, name in enumerate(batch.names):
        rows = ~batch.present[:, column]
        true = Stream(truth[name].tokens.detach(), truth[name].mask)
        written = _stepwise(model, name, features, true)
        mask = (true.mask & rows[:, None])[..., None]
        error = torch.where(mask, written - true.tokens, 0).square().sum() / (mask.sum() * written.shape[2])
        worst = max(worst, difference(losses[f"translation/{name}"], error, model))
        here = rows[:, None, None]
        streams.append(Stream(torch.where(here, written, features.streams[name].tokens), true.mask))
    cls = model.states(streams)[:, 0]
    logits = model.task_head.linear(cls + model.trunk(cls))
    return worst, difference(losses["task"], nn.functional.cross_entropy(logits, batch.target), model)  # type: ignore[arg-type]


def _nearness(fixture: Fixture) -> float:
    """Error of what is written on new rows, in units of the variance of the truth, where it repeats the first modality."""
    model: Any = fixture.pipeline().model
    descent, noise = torch.optim.Adam(model.parameters(), 5e-3), torch.Generator().manual_seed(0)
    for _ in range(100):
        rows = _repeating(fixture.batch(320, "train"))
        keep = torch.rand(rows.present.shape, generator=noise) < 0.6
        keep[:, 0] |= ~keep.any(1)
        descent.zero_grad()
        model.step(rows.view(keep)).total.backward()
        descent.step()
    rows, name = _repeating(fixture.batch(80)), fixture.schema.names[1]
    with torch.no_grad():
        features = model.eval().encode(rows)
        true = features.streams[name].tokens
        without = features.where(torch.tensor([n != name for n in fixture.schema.names]))
        written = model.complete(without).streams[name].tokens
    return float(mse(written, true) / true.var(0, correction=0).mean())


def _repeating(batch: Batch) -> Batch:
    """The same rows, the second modality being the first one's numbers in another order."""
    first, second = batch.names[:2]
    return replace(batch, inputs={**batch.inputs, second: batch.inputs[first].roll(3, 1)})
