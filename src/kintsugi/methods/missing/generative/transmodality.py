"""The anchor is translated into each other modality and back; what the translators' encoders make of it is the joint feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Schema, Stage, Step, Stream, ablation_of,
    claims_of, difference, register,
)  # fmt: skip
from kintsugi.core.data import Splits
from kintsugi.encoders.frames import Lengths, fitted, frame_encoder, frame_spec, told_numbers
from kintsugi.layers.translate import SequenceCoder, recurrent
from kintsugi.losses.distance import mae


class Written(NamedTuple):
    """States of the two encoders of a cell, and what its decoders write: ``[B, T, W]`` of the target, and of the anchor."""

    forth: Stream
    back: Stream
    target: Tensor
    anchor: Tensor


class Front(nn.Module):
    """A bidirectional GRU, then ``tanh`` of a linear map, dropout after both: a stream of ``width`` to one of ``dim``."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.rnn = nn.GRU(width, dim, batch_first=True, bidirectional=True)
        self.map = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * dim, dim), nn.Tanh(), nn.Dropout(dropout))

    def forward(self, x: Stream) -> Stream:
        """Zero where masked."""
        return Stream(torch.where(x.mask[..., None], self.map(recurrent(self.rnn, x.tokens, x.mask)), 0), x.mask)


class Cell(nn.Module):
    """A translation and the way back, from the states of its decoder.

    Args:
        target, anchor: widths of what is written. dim: of all states. depths: of encoders and of decoders.
        learned: both decoders start from a learned vector each.
    """

    def __init__(self, target: int, anchor: int, dim: int, depths: tuple[int, int], learned: bool) -> None:
        super().__init__()
        self.encoder, self.back_encoder = SequenceCoder(dim, depths[0]), SequenceCoder(dim, depths[0])
        self.decoder, self.back_decoder = (SequenceCoder(dim, depths[1], decodes=True) for _ in range(2))
        self.to_target, self.to_anchor = nn.Linear(dim, target), nn.Linear(dim, anchor)
        self.start = nn.Parameter(torch.randn(2, dim) * 0.02) if learned else None

    def recalls(self, states: Stream, back: Stream) -> Stream:
        """What the anchor is written again from: ``back``, which the second encoder made of the states of the first decoder."""
        return back

    def forward(self, anchor: Stream, asked: Stream, rows: Tensor) -> Written:
        """anchor, asked: streams of width ``dim``; rows bool ``[B]``: with an anchor, the states of all others are zero."""
        again = anchor
        if self.start is not None:
            asked = replace(asked, tokens=asked.tokens + self.start[0])
            again = replace(anchor, tokens=torch.zeros_like(anchor.tokens) + self.start[1])
        forth = self.encoder(anchor)
        states = self.decoder(asked, forth)
        back = self.back_encoder(states)
        recalled = self.back_decoder(again, self.recalls(states, back))
        return Written(
            forth.where(rows), back.where(rows), self.to_target(states.tokens), self.to_anchor(recalled.tokens)
        )


@register(
    Card(
        key="transmodality",
        name="TransModality",
        leaf="missing/generative",
        imperfection=("missing at test",),
        faithful=(
            "states of the transformers that encode a translation are the fused features, next to those of each modality; what "
            "decoders write serves the translation losses alone",
            "a second encoder reads the states of the first decoder, and its decoder writes the anchor again, with nothing cut",
            "the anchor with each other modality, in cells that share nothing",
            "everything is trained at once: the task, and 10 times the absolute errors of all translations",
        ),
        simplified=(
            "decoders start from learned vectors with positions, so that a target may be absent; in the released form, "
            "decoder_query='target', they are given the target itself and may copy it",
            "one answer a row, from means over steps, where the paper has one a step of sequences that are aligned",
            "an absent anchor leaves zeros for its cells, an absent target zeros for its feature; the paper has complete rows",
            "what is written is linear, where the release cuts off negative numbers; no ReLU within attention, dropout before it",
            "series are averaged to at most 16 steps, by 4 where their length is open, a vector is one; of other kinds the "
            "encoder's tokens are written, detached",
            "of every row as many steps are written as the longest in training has; unseen numbers of a vector leave the errors",
        ),
        claims=(
            "what is written follows the row's own anchor",
            "errors of translation are against the row's own numbers",
            "the way back trains the first half of its cell",
        ),
        premise="modalities tell the same, and the anchor, which is there in use, tells most",
        worlds=("redundant", "privileged"),
        confidence="high",
        defaults_from="the authors' code: weights 1 and 10, dropout 0.3; depths 2 and 1 for its 10 and 5",
        modality_only_in=("train",),
        cost="medium",
    )
)
class TransModality(Model):
    """Features from double translations around an anchor.

    Args:
        anchor: name of the modality that is translated; None: the first.
        encoder_depth, decoder_depth: layers of each half of a cell. dropout: of the features of each modality.
        translation_weight: of the error of every translation.
        decoder_query: ``learned``, or ``target``: decoders are given what they are to write, where it is there.

    Raises:
        ConfigError: another ``decoder_query``.
    """

    # of a single step, such as a vector, there is no state before it, and attention on it has no choice
    rare = ("fronts.*.rnn.weight_hh_l0*", "cells.*.query.*")
    cell: ClassVar[type[Cell]] = Cell

    def __init__(
        self, schema: Schema, dim: int = 32, anchor: str | None = None, encoder_depth: int = 2, decoder_depth: int = 1,
        dropout: float = 0.3, translation_weight: float = 10.0, decoder_query: str = "learned",
    ) -> None:  # fmt: skip
        if decoder_query not in ("learned", "target"):
            raise ConfigError(f"transmodality: decoder_query is learned or target, not {decoder_query!r}")
        super().__init__(schema, dim, fused=dim * (3 * len(schema) - 2))
        self.anchor = schema.modalities[0 if anchor is None else schema.column(anchor)].name
        self.translation_weight, self.by_target = translation_weight, decoder_query == "target"
        self.encoders = nn.ModuleDict({m.name: frame_encoder(m, dim) for m in schema.modalities})
        encoders: Any = self.encoders
        self.sizes = {m.name: frame_spec(m, encoders[m.name], dim) for m in schema.modalities}
        self.lengths = Lengths(self.sizes)
        self.fronts = nn.ModuleDict({name: Front(size.width, dim, dropout) for name, size in self.sizes.items()})
        widths = {name: size.width for name, size in self.sizes.items()}
        self.cells = nn.ModuleDict({
            name: self.cell(widths[name], widths[self.anchor], dim, (encoder_depth, decoder_depth), not self.by_target)
            for name in schema.names
            if name != self.anchor
        })  # fmt: skip

    def prepare(self, data: Splits, stage: Stage) -> None:
        self.lengths.measure(self, data.train, "all")

    def translate(self, features: Features) -> tuple[dict[str, Stream], dict[str, Written]]:
        """Of each modality its own feature, and of each target what its cell makes of the anchor."""
        own = {name: self.fronts[name](stream) for name, stream in features.streams.items()}
        anchored = features.present[:, self.schema.column(self.anchor)]
        return own, {
            name: cell(own[self.anchor], self.asked(name, own[name]), anchored) for name, cell in self.cells.items()
        }

    def asked(self, name: str, own: Stream) -> Stream:
        """Where a cell is to write: the steps of its target, with its feature where decoders are given it."""
        length = self.lengths[name]
        absent = ~own.mask.any(1)
        whole = own.mask.new_ones(len(own.mask), length)
        if not self.by_target:
            return Stream(own.tokens.new_zeros(len(own.mask), length, self.dim), whole)
        own = fitted(own, length)
        return Stream(own.tokens, own.mask | absent[:, None])

    def fuse(self, features: Features) -> Fused:
        own, written = self.translate(features)
        blocks = [block.pooled() for each in written.values() for block in (each.forth, each.back)]
        return Fused.vector(
            torch.cat([*blocks, *(stream.pooled() for stream in own.values())], 1), extras={"written": written}
        )

    def truth(self, batch: Batch) -> dict[str, Stream]:
        """What is to be written: the sequences of this step before a view or an augmentation, detached."""
        return {name: self.told(stream) for name, stream in self.encode(batch.truth or batch).streams.items()}

    def told(self, stream: Stream) -> Stream:
        """What decoders are told of the truth: all of it, which learns nothing."""
        return Stream(stream.tokens.detach(), stream.mask)

    def step(self, batch: Batch) -> Step:
        features = self.encode(batch)
        fused = self.fuse(features)
        prediction = self.head(fused, features).fall_back(self.enough(features.present), self.prior)
        losses = {"task": self.task.loss(prediction.output, batch)}
        if self.translation_weight:
            seen = (batch.truth or batch).mask
            losses |= self.translation(fused.extras["written"], self.truth(batch), features.present, seen)
        return Step(losses, prediction)

    def translation(
        self, written: Mapping[str, Written], truth: Mapping[str, Stream], present: Tensor, seen: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The weighted errors, of rows that have the anchor and the target; ``seen``: the masks of the batch."""
        losses, anchored = {}, present[:, self.schema.column(self.anchor), None]
        encoders: Any = self.encoders
        for name, each in written.items():
            target = fitted(truth[name], each.target.shape[1])
            there = target.mask & anchored
            anchor = fitted(truth[self.anchor], each.anchor.shape[1])
            back = anchor.mask & anchored & there.any(1)[:, None]
            there = told_numbers(there, encoders[name], seen.get(name))
            back = told_numbers(back, encoders[self.anchor], seen.get(self.anchor))
            losses[f"forth/{name}"] = self.translation_weight * mae(each.target, target.tokens, there)
            losses[f"back/{name}"] = self.translation_weight * mae(each.anchor, anchor.tokens, back)
        return losses


class Unheard(Cell):
    """What recalls the anchor is cut off from the way there; what the answer reads is not."""

    def recalls(self, states: Stream, back: Stream) -> Stream:
        again: Stream = self.back_encoder(replace(states, tokens=states.tokens.detach()))
        return again


class OfNobody(TransModality):
    """Translation off: the mean of the batch is written."""

    def told(self, stream: Stream) -> Stream:
        mean = super().told(stream).tokens.sum(0) / stream.mask.sum(0)[:, None].clamp(min=1)
        return Stream(mean * stream.mask[..., None], stream.mask)


class Cut(TransModality):
    """Way back off: it is there, and its error teaches the way there nothing."""

    cell: ClassVar[type[Cell]] = Unheard


@ablation_of(TransModality)
class Neither(OfNobody, Cut):
    """Off: nothing of the row is written, and the error of the way back teaches the way there nothing."""


ablation_of(TransModality, "translation")(OfNobody)
ablation_of(TransModality, "way back")(Cut)


@claims_of(TransModality)
def claims(fixture: Fixture) -> Claims:
    """On series and images, untrained, with gradients; then trained, where the second modality repeats the first."""
    follows, own, chained = TransModality.card.claims
    worlds = [fixture.world(kind=kind, rows=144) for kind in ("series", "image")]
    gaps = torch.tensor([_gaps(world) for world in worlds]).amax(0)
    yield Claim(own, float(gaps[0]), at_most=1e-9)
    yield Claim("the task is learned from all means side by side", float(gaps[1]), at_most=1e-9)
    model, batch = _asked(worlds[0])
    losses, name = model.step(batch).losses, batch.names[1]
    cell = model.cells[name]
    first = [*cell.encoder.parameters(), *cell.decoder.parameters()]
    slopes = torch.autograd.grad(losses[f"back/{name}"], first, allow_unused=True, materialize_grads=True)
    yield Claim(chained, float(sum(not bool(s.any()) for s in slopes)), at_most=0)
    answer, still = model(batch).output, {}
    for part in ("encoder", "back_encoder", "to_target", "to_anchor"):
        last = list(cell.get_submodule(part).parameters())[-1]
        kept = last.detach().clone()
        last.data += 1
        still[part] = bool((model(batch).output == answer)[batch.present[:, 0]].all())
        last.data.copy_(kept)
    wrong = still["encoder"] + still["back_encoder"] + (not still["to_target"]) + (not still["to_anchor"])
    yield Claim("answers rest on the states of both encoders and not on what is written", float(wrong), at_most=0)
    yield Claim(follows, _follows(fixture), at_most=0.7)


def _asked(fixture: Fixture) -> tuple[Any, Batch]:
    """An untrained model and rows with holes, in float64."""
    keep = torch.rand(12, 3, generator=torch.Generator().manual_seed(1)) < 0.8
    batch = fixture.batch(12).map(lambda x: x.double() if x.is_floating_point() else x)
    return fixture.pipeline().model.double().eval(), batch.where(keep)


def _gaps(fixture: Fixture) -> tuple[float, float]:
    """Of the translations and of the task's loss from what they are by hand, gradients too."""
    model, batch = _asked(fixture)
    losses, features, anchor = model.step(batch).losses, model.encode(batch), batch.names[0]
    own, written = model.translate(features)
    worst, blocks = 0.0, []
    for column, name in enumerate(batch.names[1:], 1):
        rows = features.present[:, [0, column]].all(1, keepdim=True)
        for way, said, of in (("forth", written[name].target, name), ("back", written[name].anchor, anchor)):
            true = features.streams[of]
            mask = (true.mask & rows)[..., None]
            error = (torch.where(mask, said - true.tokens.detach(), 0).abs().mean(2)).sum() / mask.sum()
            worst = max(worst, difference(losses[f"{way}/{name}"], 10 * error, model))
        blocks += [written[name].forth, written[name].back]
    blocks += own.values()
    means = [(s.tokens * s.mask[..., None]).sum(1) / s.mask.sum(1, keepdim=True).clamp(min=1) for s in blocks]
    logits = torch.where(batch.present.any(1, keepdim=True), model.task_head.linear(torch.cat(means, 1)), model.prior)
    return worst, difference(losses["task"], nn.functional.cross_entropy(logits, batch.target), model)  # type: ignore[arg-type]


def _follows(fixture: Fixture) -> float:
    """Error of what is written on new rows, over that against targets of other rows, where these repeat the anchor."""
    model: Any = fixture.pipeline().model
    descent = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(100):
        descent.zero_grad()
        model.step(_repeating(fixture.batch(320, "train"))).total.backward()
        descent.step()
    name = next(iter(model.cells))
    with torch.no_grad():
        features = model.eval().encode(_repeating(fixture.batch(80)))
        written, true = model.translate(features)[1][name].target, features.streams[name].tokens
    return float(mae(written, true) / mae(written, true.roll(1, 0)))


def _repeating(batch: Batch) -> Batch:
    """The same rows, the second modality being the first one's numbers in another order."""
    first, second = batch.names[:2]
    return replace(batch, inputs={**batch.inputs, second: batch.inputs[first].roll(3, 1)})
