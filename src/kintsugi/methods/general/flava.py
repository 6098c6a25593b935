"""Two encoders that answer alone and a fusion of their states, pretrained on pairs and on rows that have one of the two."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core import (
    Batch, Card, Claim, Claims, Features, Fixture, Fused, Model, Prediction, Schema, Splits, Stage, Step, Stream,
    StreamSpec, Task, ablation_of, claims_of, difference, every_subset, register,
)  # fmt: skip
from kintsugi.encoders.patches import Patches, PatchEncoder
from kintsugi.layers.codebook import Codebook
from kintsugi.layers.positions import sinusoid
from kintsugi.layers.scale import LearnedScale
from kintsugi.layers.streams import Block
from kintsugi.losses.contrastive import info_nce, matching, similarities
from kintsugi.losses.masked import masked_cross_entropy


@register(
    Card(
        key="flava",
        name="FLAVA",
        leaf="general",
        imperfection=("missing in training", "missing at test"),
        faithful=(
            "two transformers that answer alone, and one over their states before the last norm, which has no positions",
            "rows with one modality learn codes of their masked patches; pairs learn contrast, matching, and codes from both",
            "the contrast reads unmasked passes, matching and codes the masked ones; separate heads for each loss",
            "mismatched pairs are no anchors of the contrast, and are left out of the masked loss of pairs",
            "a row is answered by the head of what it has: either of the two, or both; nothing stands in for what is absent",
        ),
        simplified=(
            "patches of any kind in place of an image and a text; codes of k-means over training patches stand for those of a "
            "discrete autoencoder and for word pieces, and a user's own encoders cannot be given",
            "columns of vectors and tables have linear maps of their own; positions are fixed sinusoids",
            "masked patches are drawn one by one, not in blocks, and are always the mask token",
            "a batch holds pairs and single rows side by side; the release draws each batch from one data set",
            "a mismatched pair takes the second modality of another pair of the batch, where the release looks in the whole data "
            "set; that pair's own anchor does not see it twice, and the only pair of a batch always matches",
            "patches that do not exist are hidden from the fusion too; the release shows it padding",
            "the three classifiers are tuned together, each on all rows that it can answer; their dropout is 0.1 of 0.5",
        ),
        claims=(
            "a row with one modality learns the codes of its own masked patches",
            "a pair learns the codes of its own masked patches from both, and whether the two belong together",
        ),
        premise="few rows have both modalities and many have one, each tells of the other, and what is in a modality can be "
        "learned without labels",
        worlds=("few_complete_rows", "redundant"),
        confidence="high",
        defaults_from="the authors' library (facebookresearch/multimodal): masked shares, mismatches, temperature, weights of 1; "
        "depths of 12, 12 and 6 are scaled to 2, 2 and 1, width of 768 to 32, MLP ratio of 4 to 2",
        modalities=(2, 2),
        cost="medium",
        version=2,
    )
)
class FLAVA(Model):
    """Foundational language and vision alignment model, of any two modalities.

    Args:
        dim: width of every token.
        depth: blocks of each encoder.
        depth_both: blocks of the fusion.
        codes: of each modality, by k-means.
        masked: share of the patches of a row that are masked; masked_text: the same of texts.
        mismatched: probability that the second modality of a pair is another pair's.
        dropout: in the classifiers.
    """

    encoding: ClassVar[Literal["separate", "joint"]] = "joint"
    training_only = ("codebooks", "alone", "paired", "project", "scale", "match")

    def __init__(
        self, schema: Schema, dim: int = 32, depth: int = 2, depth_both: int = 1, codes: int = 16,
        masked: float = 0.38, masked_text: float = 0.15, mismatched: float = 0.1, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim, fused=None)
        self.mismatched = mismatched
        self.share = {m.name: masked_text if m.kind == "text" else masked for m in schema.modalities}
        for m in schema.modalities:
            self.encoders[m.name] = PatchEncoder(m, dim, depth)
        self.both = Fusion(schema.names, dim, depth_both)
        self.heads = nn.ModuleDict({m: Classifier(schema.task, dim, dropout) for m in schema.names})
        self.head_both = Classifier(schema.task, dim, dropout)
        widths = {m.name: Patches(m).width for m in schema.modalities}
        self.codebooks = nn.ModuleDict({m: Codebook(codes, width) for m, width in widths.items()})
        self.alone = nn.ModuleDict({m: _predictor(dim, codes) for m in schema.names})
        self.paired = nn.ModuleDict({m: _predictor(dim, codes) for m in schema.names})
        self.project, self.scale = nn.ModuleDict({m: nn.Linear(dim, dim) for m in schema.names}), LearnedScale()
        self.match = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 2))

    def stages(self) -> list[Stage]:
        learned = ("alone.*", "paired.*", "project.*", "scale.*", "match.*")
        return [
            Stage("pretrain", 0.5, trainable=("encoders.*", "both.*", *learned)),
            Stage("tune", 0.5, trainable=("encoders.*", "both.*", "heads.*", "head_both.*")),
        ]

    def prepare(self, data: Splits, stage: Stage) -> None:
        if stage.name != "pretrain":
            return
        for m, book in self.codebooks.items():
            rows, device = data.train.positions(f"has:{m}"), self.prior.device
            cut = [self.cut(m, batch.to(device)) for batch in data.train.batches(256, rows)]
            assert isinstance(book, Codebook)
            book.fit(torch.cat([stream.tokens[stream.mask] for stream in cut]))

    def cut(self, name: str, batch: Batch) -> Stream:
        """The patches of one modality ``[B, P, W]``; in rows without it none exists."""
        return self.encode_one(name, batch, self.encoder(name).patches)

    def encoder(self, name: str) -> PatchEncoder:
        """The encoder of one modality."""
        encoder = self.encoders[name]
        assert isinstance(encoder, PatchEncoder)
        return encoder

    # the answer -----------------------------------------------------------------------------------------------
    def fuse(self, features: Features) -> Fused:
        single = {m: self.encoder(m).norm(stream.tokens[:, 0]) for m, stream in features.streams.items()}
        pair, rows = features.present.all(1), features.present.all(1).nonzero()[:, 0]
        first, second = single.values()
        both = torch.zeros_like(first)
        if len(rows):
            states = [stream.rows(rows) for stream in features.streams.values()]
            both = both.index_copy(0, rows, self.both(states)[0][:, 0])
        vector = torch.where(pair[:, None], both, torch.where(features.present[:, :1], first, second))
        return Fused.vector(vector, extras={"single": single, "both": both})

    def head(self, fused: Fused, features: Features) -> Prediction:
        single = {m: self.heads[m](x) for m, x in fused.extras["single"].items()}
        both, (first, second) = self.head_both(fused.extras["both"]), single.values()
        pair, here = (x.view(-1, *[1] * (both.ndim - 1)) for x in (features.present.all(1), features.present[:, 0]))
        unimodal = {m: self.task.probabilities(x) for m, x in single.items()}
        return Prediction(
            torch.where(pair, both, torch.where(here, first, second)), features.present, fused.pooled(), unimodal=unimodal,
            extras={"single": single, "both": both},
        )  # fmt: skip

    # training -------------------------------------------------------------------------------------------------
    def step(self, batch: Batch) -> Step:
        if self.clock.stage == "pretrain":
            return self.pretrain(batch)
        prediction: Prediction = self(batch)
        losses = {
            f"task_{m}": self.task.loss(prediction.extras["single"][m], batch, batch.present[:, i])
            for i, m in enumerate(self.schema.names)
        }
        losses["task_both"] = self.task.loss(prediction.extras["both"], batch, batch.present.all(1))
        return Step(losses, prediction)

    def hidden(self, name: str, exists: Tensor) -> Tensor:
        """Which patches are masked: a share of those that exist (bool ``[B, P]``), one at least."""
        count = (self.share[name] * exists.sum(1)).round().clamp(min=1)
        drawn = torch.rand(exists.shape, device=exists.device).masked_fill(~exists, 2)
        return (drawn.argsort(1).argsort(1) < count[:, None]) & exists

    def sources(self, rows: Tensor, pair: bool, among: Tensor) -> Tensor:
        """Whose codes the masked patches of these rows (int64 ``[R]``) are to show, and whose verdict: their own.

        among: all that could be asked, in order.
        """
        return rows

    def pretrain(self, batch: Batch) -> Step:
        """What each row can offer: codes of what is masked, alone or in a pair, contrast and matching."""
        cut = {m: self.cut(m, batch) for m in self.schema.names}
        hide = {m: self.hidden(m, stream.mask) for m, stream in cut.items()}
        codes = {m: self.codebooks[m](stream.tokens) for m, stream in cut.items()}
        pair, losses = batch.present.all(1), dict[str, Tensor]()
        having = {m: batch.present[:, i].nonzero()[:, 0] for i, m in enumerate(self.schema.names)}
        for i, m in enumerate(self.schema.names):
            rows = (batch.present[:, i] & ~pair).nonzero()[:, 0]
            if len(rows):
                encoder, hidden = self.encoder(m), hide[m][rows]
                tokens = encoder.norm(encoder.read(cut[m].rows(rows), hidden).tokens[:, 1:])
                target = codes[m][self.sources(rows, pair=False, among=having[m])]
                losses[f"alone_{m}"] = masked_cross_entropy(self.alone[m](tokens), target, hidden)
        rows = pair.nonzero()[:, 0]
        if len(rows):
            losses |= self.of_pairs(rows, having, cut, hide, codes)
        return Step(losses)

    def of_pairs(
        self, rows: Tensor, having: dict[str, Tensor], cut: dict[str, Stream], hide: dict[str, Tensor],
        codes: dict[str, Tensor],
    ) -> dict[str, Tensor]:  # fmt: skip
        """The losses of pairs, of which some hold another pair's second modality."""
        count, device = len(rows), rows.device
        places, wrong = torch.arange(count, device=device), torch.rand(count, device=device) < self.mismatched
        other = (places + 1 + torch.randint(max(1, count - 1), (count,), device=device)) % count
        partner = torch.where(wrong, other, places)
        matched = partner == places
        shown = matched if bool(matched.any()) else torch.ones_like(matched)
        single, states, losses = [], [], dict[str, Tensor]()
        from_rows = dict(zip(self.schema.names, (rows, rows[partner]), strict=True))
        for m, own in from_rows.items():
            encoder, hidden = self.encoder(m), hide[m][own]
            both = encoder.read(cut[m].rows(own.repeat(2)), torch.cat([torch.zeros_like(hidden), hidden]))
            single.append(self.project[m](encoder.norm(both.tokens[: len(own), 0])))
            states.append(both.rows(slice(len(own), None)))  # type: ignore[arg-type]
        # an anchor's own, in another's place
        again = (partner == places[:, None]).fill_diagonal_(False) & matched[:, None]
        alike = similarities(single[0], single[1], self.scale()).masked_fill(again, -torch.inf)
        losses["contrast"] = info_nce(alike, matched)
        looked, parts = self.both(states)
        for m, part in zip(self.schema.names, parts, strict=True):
            own = from_rows[m]
            target = codes[m][self.sources(own, pair=True, among=having[m])]
            losses[f"paired_{m}"] = masked_cross_entropy(self.paired[m](part), target, hide[m][own] & shown[:, None])
        losses["matching"] = matching(self.match(looked[:, 0]), matched[self.sources(places, pair=True, among=places)])
        return losses


class Fusion(nn.Module):
    """CLS and the states of both encoders, each through a linear map: all tokens, and the patches of each modality."""

    def __init__(self, names: tuple[str, ...], dim: int, depth: int) -> None:
        super().__init__()
        self.lift = nn.ModuleDict({m: nn.Linear(dim, dim) for m in names})
        self.cls = nn.Parameter(torch.randn(dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, states: list[Stream]) -> tuple[Tensor, list[Tensor]]:
        """Streams ``[R, 1 + P, D]`` -> tokens ``[R, 1 + T, D]``, and ``[R, P, D]`` of each modality."""
        lifted = [lift(s.tokens) for lift, s in zip(self.lift.values(), states, strict=True)]
        x = torch.cat([self.cls.expand(len(lifted[0]), 1, -1), *lifted], 1)
        mask = torch.cat([states[0].mask.new_ones(len(x), 1), *(s.mask for s in states)], 1)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        parts = x[:, 1:].split([s.tokens.shape[1] for s in states], 1)
        return x, [part[:, 1:] for part in parts]


class Classifier(nn.Module):
    """A hidden layer and the task's head: ``[B, D]`` -> output ``[B, ...]``."""

    def __init__(self, task: Task, dim: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout))
        self.head = task.head(StreamSpec(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        out: Tensor = self.head(Stream.vector(self.hidden(x)))
        return out


def _predictor(dim: int, codes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, codes))


def _next(rows: Tensor, among: Tensor) -> Tensor:
    """The one behind each of these among those, which are in order and of which the first is behind the last: int64 ``[R]``."""
    return among[(torch.searchsorted(among, rows) + 1) % len(among)]


@ablation_of(FLAVA, "unpaired rows")
class PairsAlone(FLAVA):
    """Off: what single rows are to predict are codes of another row, so that they teach nothing of their modality."""

    def sources(self, rows: Tensor, pair: bool, among: Tensor) -> Tensor:
        return rows if pair else _next(rows, among)


@ablation_of(FLAVA, "masked pairs")
class ContrastOfPairs(FLAVA):
    """Off: what pairs are to predict are codes of another row, and the verdict on another pair."""

    def sources(self, rows: Tensor, pair: bool, among: Tensor) -> Tensor:
        return _next(rows, among) if pair else rows


@ablation_of(FLAVA)
class ContrastAlone(FLAVA):
    """Off: both, which leaves the contrast of two encoders."""

    def sources(self, rows: Tensor, pair: bool, among: Tensor) -> Tensor:
        return _next(rows, among)


@claims_of(FLAVA)
def claims(fixture: Fixture) -> Claims:
    """Untrained but for the codes, on every subset of two vectors of eight numbers."""
    from sklearn.cluster import KMeans

    model: Any = fixture.pipeline(mismatched=0.3).model.eval()
    model.prepare(fixture.splits, model.stages()[0])
    train = fixture.batch(len(fixture.splits.train), "train").inputs
    spread = [
        (KMeans(16, n_init=1, random_state=0).fit(x.view(-1, 1).numpy()), model.codebooks[m]) for m, x in train.items()
    ]
    away = max(float(np.abs(means.cluster_centers_ - book.centres.numpy()).max()) for means, book in spread)
    yield Claim("codes are those of the patches of training rows", away, at_most=1e-5)
    batch = every_subset(fixture.batch(60)).map(lambda x: x.double() if x.is_floating_point() else x)
    model.double().clock.stage = "pretrain"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        losses = model.step(batch).losses
        torch.manual_seed(0)
        terms = _losses(model, batch)
    for name, kind in (
        (FLAVA.card.claims[0], ("alone",)), (FLAVA.card.claims[1], ("paired", "matching")),
        ("mismatched pairs are no anchors of the contrast, which reads what is not masked", ("contrast",)),
    ):  # fmt: skip
        chosen = [each for each in terms if each.startswith(kind)]
        got, wanted = (torch.stack([each[c] for c in chosen]) for each in (losses, terms))
        yield Claim(name, difference(got, wanted, model), at_most=1e-7)
    foreign = 0
    for i, m in enumerate(batch.names):
        only = batch.rows(batch.present[:, i] & ~batch.present[:, 1 - i])
        (loss,) = model.step(only).losses.values()
        own = (f"encoders.{m}.", f"alone.{m}.")
        slopes = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        names = [name for name, _ in model.named_parameters()]
        reached = {name for name, slope in zip(names, slopes, strict=True) if slope is not None and bool(slope.any())}
        foreign += sum(not name.startswith(own) for name in reached) + int(not reached)
    yield Claim("a row with one modality moves its own encoder and head alone", foreign, at_most=0)
    model.clock.stage = "tune"
    gap = difference(model(batch).output, _answer(model, batch), model)
    yield Claim("each row is answered by the head of what it has", gap, at_most=1e-9)
    terms, said = {}, model(batch).unimodal
    for part in (*batch.names, "both"):
        asked = batch.where(batch.present.all(1, keepdim=True)) if part == "both" else batch.only(part)
        asked = asked.rows(asked.present.any(1))
        answer = _answer(model, asked)
        terms[f"task_{part}"] = F.cross_entropy(answer, asked.target)  # type: ignore[arg-type]
        if part != "both":
            here = batch.present[:, batch.names.index(part)]
            alone = said[part][here] if part in said else torch.zeros_like(answer)
            yield Claim(f"{part} alone is asked too", difference(alone, answer.softmax(1), model), at_most=1e-9)
    losses = model.step(batch).losses
    got, wanted = (torch.stack([each[name] for name in terms]) for each in (losses, terms))
    yield Claim("each head is tuned on all rows that it can answer", difference(got, wanted, model), at_most=1e-9)


def _blocks(blocks: Any, x: Tensor) -> Tensor:
    """Pre-norm blocks with PyTorch's own attention, where every token exists."""
    for block in blocks:
        heads = (
            y.unflatten(2, (block.attention.heads, -1)).transpose(1, 2)
            for y in block.attention.qkv(block.norm1(x)).chunk(3, -1)
        )
        x = x + block.attention.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    return x


def _states(encoder: Any, x: Tensor, hidden: Tensor) -> Tensor:
    """Of vectors ``[R, 8]``, a patch a number: ``[R, 9, D]``."""
    tokens = torch.where(hidden[..., None], encoder.mask, encoder.embed(x[..., None])) + sinusoid(
        (8,), len(encoder.cls)
    )
    return _blocks(encoder.blocks, torch.cat([encoder.cls.expand(len(x), 1, -1), tokens], 1))


def _both(model: Any, first: Tensor, second: Tensor) -> Tensor:
    lifted = [lift(x) for lift, x in zip(model.both.lift.values(), (first, second), strict=True)]
    out: Tensor = model.both.norm(
        _blocks(model.both.blocks, torch.cat([model.both.cls.expand(len(first), 1, -1), *lifted], 1))
    )
    return out


def _losses(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Those of pretraining, with the same draws."""
    names, (a, b) = batch.names, batch.names
    hide = {m: model.hidden(m, batch.present[:, i, None].expand(-1, 8)) for i, m in enumerate(names)}
    codes = {m: (batch.inputs[m][..., None] - model.codebooks[m].centres[:, 0]).abs().argmin(2) for m in names}
    terms = {}
    for i, m in enumerate(names):
        rows = batch.present[:, i] & ~batch.present[:, 1 - i]
        state = model.encoders[m].norm(_states(model.encoders[m], batch.inputs[m][rows], hide[m][rows]))[:, 1:]
        terms[f"alone_{m}"] = F.cross_entropy(model.alone[m](state[hide[m][rows]]), codes[m][rows][hide[m][rows]])
    rows = batch.present.all(1).nonzero()[:, 0]
    count, partner = len(rows), torch.arange(len(rows))
    draws, ahead = torch.rand(count).tolist(), torch.randint(count - 1, (count,)).tolist()
    for i in (i for i, draw in enumerate(draws) if draw < model.mismatched):
        partner[i] = (i + 1 + ahead[i]) % count
    right, own = partner == torch.arange(len(rows)), {a: rows, b: rows[partner]}
    states = [_states(model.encoders[m], batch.inputs[m][own[m]], hide[m][own[m]]) for m in names]
    plain = [_states(model.encoders[m], batch.inputs[m][own[m]], torch.zeros_like(hide[m][rows]))[:, 0] for m in names]
    sides = [F.normalize(model.project[m](model.encoders[m].norm(x)), dim=1) for m, x in zip(names, plain, strict=True)]
    logits, places = sides[0] @ sides[1].T * model.scale.log.exp(), torch.arange(len(rows))[right]
    columns = {i: [i, *(j for j, p in enumerate(partner.tolist()) if p != i)] for i in places.tolist()}  # its own once
    there = torch.stack([-logits[i, seen].log_softmax(0)[0] for i, seen in columns.items()]).mean()
    terms["contrast"] = (there + F.cross_entropy(logits.T[right], places)) / 2
    looked = _both(model, *states)
    for m, part in ((a, looked[:, 2:10]), (b, looked[:, 11:])):
        hidden = hide[m][own[m]] & right[:, None]
        terms[f"paired_{m}"] = F.cross_entropy(model.paired[m](part[hidden]), codes[m][own[m]][hidden])
    terms["matching"] = F.cross_entropy(model.match(looked[:, 0]), right.long())
    return terms


def _answer(model: Any, batch: Batch) -> Tensor:
    """Row by row, with the encoders and heads of what it has."""
    answers = []
    for row in range(len(batch)):
        here = [m for i, m in enumerate(batch.names) if batch.present[row, i]]
        states = [
            _states(model.encoders[m], batch.inputs[m][row : row + 1], torch.zeros(1, 8, dtype=torch.bool))
            for m in here
        ]
        if len(here) == 2:
            answers.append(model.head_both(_both(model, *states)[:, 0]))
        else:
            answers.append(model.heads[here[0]](model.encoders[here[0]].norm(states[0][:, 0])))
    return torch.cat(answers)
