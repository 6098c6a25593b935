"""One modality is translated into the others and back in training; its encoder's states alone are what answers rest on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Prediction, Schema, Step, Stream, ablation_of, claims_of,
    difference, register,
)  # fmt: skip
from kintsugi.encoders.frames import frame_encoder, frame_spec, told_numbers
from kintsugi.layers.translate import FreeDecoder, SummedLSTM, recurrent
from kintsugi.losses.distance import mse


@register(
    Card(
        key="mctn",
        name="MCTN",
        leaf="corrupted/noise_aware",
        imperfection=("missing at test", "corrupted at test"),
        faithful=(
            "a bidirectional LSTM, its directions summed, and a decoder that is fed neither its own output nor the true target",
            "what was decoded is translated back by the same encoder and decoder, and its error reaches both through it",
            "a third modality is written from the joint states by a second encoder and decoder, without a way back",
            "the prediction reads the last encoder's states by an LSTM and attention over time, and the source is all it needs",
            "one joint stage: task, translation, cycle, and an L2 penalty on the last linear map",
        ),
        simplified=(
            "series are averaged to at most 16 steps, by 4 where their length is open, a vector is one step; other kinds: tokens "
            "of the encoder of the source, which learns, and of untrained ones of the targets, which stay fixed as the paper's "
            "features do",
            "steps that do not exist, columns of padding and unseen numbers of a vector leave the losses; the paper learns their "
            "zeros",
            "the decoder writes numbers of any size, where the released one ends in tanh; scores of its attention depend on its "
            "state, which cancels in the released cell; a plain LSTM cell, where the released one shares a gate",
            "rows without a target train the task alone; the paper has complete rows. More than three modalities: more levels",
            "rows without the source get the prior. The task's own loss in place of the absolute error",
        ),
        claims=(
            "the decoded target is nearer to the true one than the mean of all targets is",
            "the cycle's error is that of one encoder and one decoder, and its gradient passes through what was decoded",
            "errors of translation are against the row's own targets",
        ),
        premise="one modality is strong and there in use; the others tell of what it shows, are there in training and not in use",
        worlds=("privileged", "redundant"),
        confidence="high",
        defaults_from="the authors' code: width 32, weights 0.1, penalty 0.01",
        modality_only_in=("train",),
        cost="medium",
    )
)
class MCTN(Model):
    """Multimodal cyclic translation network: ``used`` is the source alone.

    Args:
        source: name of the modality that is read in use; None: the first. The others are written in the order of the schema.
        w_trans, w_cycle: weights of the first translation and of the way back; w_deeper: of each further one.
        l2: of the penalty on the squares of the last linear map.
    """

    # a decoder that writes a single step, of a vector, has no state before it
    rare = ("*decoder*.cell.weight_hh", "*decoder*.of_own.weight")
    training_only = ("targets", "decoder", "deeper_decoders")

    def __init__(
        self, schema: Schema, dim: int = 32, source: str | None = None, w_trans: float = 0.1, w_cycle: float = 0.1,
        w_deeper: float = 0.1, l2: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim)
        self.source = schema.modalities[0 if source is None else schema.column(source)].name
        self.order = tuple(name for name in schema.names if name != self.source)
        self.w_trans, self.w_cycle, self.w_deeper, self.l2 = w_trans, w_cycle, w_deeper, l2
        made = {m.name: frame_encoder(m, dim) for m in schema.modalities}
        self.sizes = {name: frame_spec(schema[name], encoder, dim) for name, encoder in made.items()}
        self.encoders = nn.ModuleDict({self.source: made.pop(self.source)})
        self.targets = nn.ModuleDict(made).requires_grad_(False)
        width = max(self.sizes[name].width for name in (self.source, self.order[0]))
        self.encoder, self.decoder = SummedLSTM(width, dim), FreeDecoder(dim, width)
        self.deeper = nn.ModuleList(SummedLSTM(dim, dim) for _ in self.order[1:])
        self.deeper_decoders = nn.ModuleList(FreeDecoder(dim, self.sizes[name].width) for name in self.order[1:])
        self.reader = nn.LSTM(dim, dim, batch_first=True)
        self.attention = nn.Linear(dim, 1)

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        """Of the targets nothing is read, in training neither: their streams are empty."""
        present = self.columns(batch)
        nothing = Stream(torch.zeros(len(batch), 1, self.dim, device=present.device), torch.zeros_like(present[:, :1]))
        streams = dict.fromkeys(self.schema.names, nothing)
        streams[self.source] = self.encode_one(self.source, batch, (encoders or self.encoders)[self.source])
        return Features(streams, present, batch.identity)

    def enough(self, present: Tensor) -> Tensor:
        return present[:, self.schema.column(self.source)]

    def states(self, source: Stream) -> list[Tensor]:
        """Of every level's encoder ``[B, T, dim]``, the source's own first."""
        states = [self.encoder(self.widened(source.tokens), source.mask)]
        for encoder in self.deeper:
            states.append(encoder(states[-1], source.mask))
        return states

    def widened(self, x: Tensor) -> Tensor:
        """With columns of zeros up to the width that both directions share."""
        return functional.pad(x, (0, self.encoder.rnn.input_size - x.shape[-1]))

    def fuse(self, features: Features) -> Fused:
        source = features.streams[self.source]
        read = recurrent(self.reader, self.states(source)[-1], source.mask)
        return Fused.vector((self.attended(read, source.mask)[..., None] * read).sum(1))

    def attended(self, read: Tensor, mask: Tensor) -> Tensor:
        """Weights of the steps ``[B, T]``: the softmax over time of ``tanh(w h + b)``."""
        scores = torch.tanh(self.attention(read))[..., 0]
        return scores.masked_fill(~(mask | ~mask.any(1, keepdim=True)), -torch.inf).softmax(1)

    def head(self, fused: Fused, features: Features) -> Prediction:
        used = features.present & torch.tensor(
            [n == self.source for n in self.schema.names], device=features.present.device
        )
        return Prediction(self.task_head(fused), used, fused.pooled())

    def step(self, batch: Batch) -> Step:
        features = self.encode(batch)
        prediction = self.predict(features)
        rows = self.enough(features.present)
        losses = {"task": self.task.loss(prediction.output, batch, rows)}
        if self.l2:
            losses["l2"] = self.l2 * max(self.task_head.parameters(), key=Tensor.dim).square().sum()
        return Step({**losses, **self.translation(features, batch)}, prediction)

    def translation(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """The weighted errors of all translations, of rows that have both sides; ``truth`` may have targets that a view took."""
        truth, source = batch.truth or batch, features.streams[self.source]
        true = self.encode_one(self.source, truth, self.encoders[self.source]) if batch.truth else source
        states, losses = self.states(source), {}
        for level, name in enumerate(self.order):
            weights = (self.w_deeper,) if level else (self.w_trans, self.w_cycle)
            if not any(weights):
                continue
            target, size = self.target(name, truth), self.sizes[name]
            mask = target.mask & self.enough(features.present)[:, None]
            decoder = self.deeper_decoders[level - 1] if level else self.decoder
            written = decoder(states[level], source.mask, mask.shape[1])[..., : size.width]
            if weights[0]:
                counts = told_numbers(mask, self.targets[name], truth.mask.get(name))
                losses[f"translation/{name}"] = weights[0] * mse(written, target.tokens, counts)
            if not level and self.w_cycle:
                back = self.decoder(self.encoder(self.widened(written), mask), mask, source.mask.shape[1])
                both = true.mask & source.mask & mask.any(1)[:, None]
                both = told_numbers(both, self.encoders[self.source], truth.mask.get(self.source))
                recalled = back[..., : true.tokens.shape[2]]
                losses["cycle"] = self.w_cycle * mse(recalled, true.tokens.detach(), both)
        return losses

    @torch.no_grad()
    def target(self, name: str, truth: Batch) -> Stream:
        """What is to be written: the numbers of a modality, or what a fixed encoder makes of it."""
        return self.encode_one(name, truth, self.targets[name])


class OfNobody(MCTN):
    """Translation off: the same translators write the mean of the batch, which tells nothing of the row."""

    def target(self, name: str, truth: Batch) -> Stream:
        target = super().target(name, truth)
        count = target.mask.sum(0)[:, None].clamp(min=1)
        return Stream((target.tokens.sum(0) / count).expand_as(target.tokens), target.mask)


@ablation_of(MCTN)
class Neither(OfNobody):
    """Off: no way back, and nothing of the row's own targets."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **{**hyper, "w_cycle": 0.0})


ablation_of(MCTN, "translation")(OfNobody)
ablation_of(MCTN, "cycle", w_cycle=0.0)


@claims_of(MCTN)
def claims(fixture: Fixture) -> Claims:
    """Untrained, losses and answers on series and images, with gradients; then trained, where the second repeats the first."""
    nearer, cyclic, own = MCTN.card.claims
    worlds = [fixture.world(kind=kind, rows=144) for kind in ("series", "image")]
    gaps = torch.tensor([_gaps(world) for world in worlds])
    for name, gap in zip(
        (own, cyclic, "the answer reads the last states, attended over time"), gaps.amax(0), strict=True
    ):
        yield Claim(name, float(gap), at_most=1e-9)
    model, batch = _asked(worlds[0])
    losses, (source, *targets) = model.step(batch).losses, batch.names
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    slopes = torch.autograd.grad(losses[f"translation/{targets[1]}"], parameters, retain_graph=True, allow_unused=True)
    count = len(list(model.encoder.parameters()))
    wrong = sum(s is None for s in slopes[:count]) + sum(s is not None for s in slopes[count:])
    yield Claim("a further translation trains the first encoder and not the first decoder", float(wrong), at_most=0)
    penalty = 0.01 * model.task_head.linear.weight.square().sum()
    yield Claim("the last linear map alone is kept small", difference(losses["l2"], penalty, model), at_most=1e-9)

    answer, without = model.eval()(batch), ~batch.present[:, 0]
    noise = {name: torch.full_like(x, torch.nan) if name in targets else x for name, x in batch.inputs.items()}
    blind = model(replace(batch, inputs=noise).only(source)).output
    moved = model(batch.map(lambda x: x + 1 if x.is_floating_point() else x)).output
    wrong = int((blind != answer.output).sum()) + int((moved == answer.output)[~without].sum())
    wrong += int((answer.output[without] != model.prior).sum())
    wrong += int((answer.used != batch.present & torch.tensor([True, False, False])).sum())
    yield Claim("the source alone is read, and rows without it get the prior", float(wrong), at_most=0)
    yield Claim(nearer, _nearness(fixture), at_most=0.9)


def _asked(fixture: Fixture) -> tuple[Any, Batch]:
    """An untrained model and rows with holes, in float64."""
    keep = torch.rand(12, 3, generator=torch.Generator().manual_seed(1)) < 0.8
    batch = fixture.batch(12).map(lambda x: x.double() if x.is_floating_point() else x)
    return fixture.pipeline().model.double(), batch.where(keep)


def _gaps(fixture: Fixture) -> tuple[float, float, float]:
    """Of both translations, the cycle and the answer from what they are by hand, gradients too."""
    model, batch = _asked(fixture)
    losses, (x, first, second) = model.step(batch).losses, _streams(model, batch)
    there, further = (target.mask & batch.present[:, :1] for target in (first, second))
    written = _translated(model, x, first)
    states = model.deeper[0](model.encoder(_padded(model, x.tokens), x.mask), x.mask)
    deep = model.deeper_decoders[0](states, x.mask, second.mask.shape[1])
    expected = [0.1 * _square(written - first.tokens, there), 0.1 * _square(deep - second.tokens, further)]
    given = [losses[f"translation/{name}"] for name in batch.names[1:]]
    back = _translated(model, Stream(written, there), x)
    cycle = 0.1 * _square(back - x.tokens.detach(), x.mask & batch.present[:, 1:2])
    read = recurrent(model.reader, states, x.mask)
    scores = torch.tanh(model.attention(read)).masked_fill(~x.mask[..., None], -1e9)
    answer = model.task_head.linear((scores.softmax(1) * read).sum(1))
    answer = torch.where(batch.present[:, :1], answer, model.prior)
    return (
        max(difference(a, b, model) for a, b in zip(given, expected, strict=True)),
        difference(losses.get("cycle", 0 * cycle), cycle, model),
        difference(model(batch).output, answer, model),
    )


def _nearness(fixture: Fixture) -> float:
    """Error of a translation on new rows, in units of the variance of the targets, where these repeat the source's numbers."""
    model: Any = fixture.pipeline().model
    descent = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 5e-3)
    for _ in range(150):
        descent.zero_grad()
        model.step(_repeating(fixture.batch(320, "train"))).total.backward()
        descent.step()
    with torch.no_grad():
        source, true, _ = _streams(model, _repeating(fixture.batch(80)))
        written = _translated(model, source, true)
    return float(mse(written, true.tokens) / true.tokens.var(0, correction=0).mean())


def _repeating(batch: Batch) -> Batch:
    """The same rows, the second modality being the first one's numbers in another order."""
    first, second = batch.names[:2]
    return replace(batch, inputs={**batch.inputs, second: batch.inputs[first].roll(3, 1)})


def _streams(model: Any, batch: Batch) -> list[Stream]:
    """Of the source and of the targets."""
    encoders = {**model.encoders, **model.targets}
    return [model.encode_one(name, batch, encoders[name]) for name in batch.names]


def _square(gap: Tensor, mask: Tensor) -> Tensor:
    """Mean square over the steps of a mask."""
    return torch.where(mask[..., None], gap, 0).square().sum() / (mask.sum() * gap.shape[2])


def _padded(model: Any, x: Tensor) -> Tensor:
    return torch.cat([x, x.new_zeros(*x.shape[:2], model.encoder.rnn.input_size - x.shape[2])], 2)


def _translated(model: Any, x: Stream, to: Stream) -> Tensor:
    """By the one encoder and the one decoder, with nothing cut."""
    written: Tensor = model.decoder(model.encoder(_padded(model, x.tokens), x.mask), x.mask, to.mask.shape[1])
    return written[..., : to.tokens.shape[2]]
