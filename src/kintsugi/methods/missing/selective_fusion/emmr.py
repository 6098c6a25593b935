"""Is the absent modality the one that decides? Only where predictions with and without it differ, an ensemble answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Prediction, Schema, Splits, Stage, Step, Stream,
    StreamSpec, ablation_of, claims_of, difference, every_subset, record_steps, register,
)  # fmt: skip
from kintsugi.imperfect import parse_mechanism
from kintsugi.layers.cascade import Autoencoder, ResidualCascade
from kintsugi.layers.streams import Block


@register(
    Card(
        key="emmr",
        name="EMMR",
        leaf="missing/selective_fusion",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "a common space with one map for every pair of modalities; transformer, autoencoder and cascade decode the joint "
            "tokens, and only the absent modality takes what was decoded",
            "every pair and the whole have a block that all reconstructors share, and each recovered pair a gated attention "
            "pooling and a head of its own; of the whole the backbone's is read",
            "autoencoders of seven layers without biases, leaky slope 0.2, Glorot's initialisation; they and their cascade learn "
            "from answers alone, no loss asks them for the absent token",
            "rows whose whole and present pair predict alike, and complete rows, take the pooled encoding of the backbone",
            "the others take an ensemble over reconstructors of pairs that weigh in by the largest output of their heads",
            "the encoding is drawn to that of a frozen network that was trained on complete rows, and decodings to the tokens, "
            "both by KL divergences in both directions",
        ),
        simplified=(
            "one token a modality, the mean of its encoder's, since an absent one has no length; blocks see modalities only; an "
            "absent one enters as a learned token, in the release as frames of zeros",
            "encoders by kind of data stand for each modality's attention and feed-forward block before the common space",
            "autoencoder and cascade read all tokens side by side; in the release frame by frame, where of an absent modality's "
            "empty frames they can decode a constant only; their unused encodings and heads of the whole are left out",
            "rows are branched as the paper says; in the release the test is never true, and the teacher reads the holed row",
            "heads of pairs and the whole learn the task, which the release does not ask of them; without it the test is chance",
            "a row with other than one absent modality is tested by the sum of all present pairs; without a pair it takes the "
            "ensemble; labels are compared all together and weigh by the mean of their absolute outputs",
            "complete rows lose a modality, each as likely, in half of the steps; the paper draws once, text twice as often",
            "pre-norm blocks and a norm behind them, no dropout, losses are means over rows in which something came in, decay of "
            "weights is the trainer's",
        ),
        claims=(
            "the answer is the encoding's where whole and present pair agree, and the ensemble's elsewhere",
            "pairs weigh in by the largest output of their heads",
            "the encoding learns to be that of a frozen network that sees the complete row",
        ),
        premise="modalities predict each other, and which of them decides differs by row; at most one of three is absent",
        worlds=("redundant",),
        confidence="high",
        defaults_from="the released code: 5 blocks, weights 0.1; its rates of loss are 0.1 to 0.5",
        tasks=("classification", "multilabel", "ordinal"),
        modalities=(3, None),
        cost="high",
        version=2,
    )
)
class EMMR(Model):
    """Ensemble-based missing modality reconstruction.

    Args:
        dim: width of a modality's token; that of joint tokens is the largest multiple of M - 1 in it.
        blocks: autoencoders in the cascade.
        w_enc: weight of the distance to the frozen network's encoding, in the second stage.
        w_dec: weight of the distance between the backbone's decoding and the joint tokens.
        w_branches: weight of the task's mean loss over the heads of pairs and the whole.
        miss_rate: share of the complete rows that lose a modality in a step of the second stage.
        selection: ``consistency``, or ``uniform``: every incomplete row takes the mean of encoding and ensemble.
        confident: do pairs weigh in by the largest output of their heads? Else all the same.

    Raises:
        ConfigError: another selection.
    """

    def __init__(
        self, schema: Schema, dim: int = 32, blocks: int = 5, w_enc: float = 0.1, w_dec: float = 0.1, w_branches: float = 1.0,
        miss_rate: float = 0.5, selection: str = "consistency", confident: bool = True,
    ) -> None:  # fmt: skip
        if selection not in ("consistency", "uniform"):
            raise ConfigError(f"emmr: selection is consistency or uniform, not {selection!r}")
        width = max(1, dim // (len(schema) - 1)) * (len(schema) - 1)
        super().__init__(schema, dim, fused=width)
        self.width, self.pairs = width, list(combinations(range(len(schema)), 2))
        self.backbone = Backbone(self.pairs, dim, width)
        joint = width * len(schema)
        widths = [joint, *(max(1, round(joint * share / 300)) for share in (300, 256, 128, 64))]
        self.autoencoder, *chain = [
            Autoencoder(widths, leaky, leaky, code=True, output=True, bias=False, back=widths[:0:-1])
            for _ in range(1 + blocks)
        ]
        self.decode = nn.Linear(joint, joint)
        self.cascade = ResidualCascade(chain)
        for part in (self.autoencoder, self.decode, self.cascade):
            part.apply(glorot)
        self.pair_blocks = nn.ModuleList(Block(width, ratio=4) for _ in self.pairs)
        self.whole_block = Block(width, ratio=4)
        count = 3 * len(self.pairs)
        self.pools, self.whole_pool, self.code_pool = (GatedPooling(width, n) for n in (count, 1, 1))
        self.heads = nn.ModuleList(schema.task.head(StreamSpec(width)) for _ in range(count))
        self.whole_head = schema.task.head(StreamSpec(width))
        self.score = nn.Linear(width, 1, bias=False)
        self.trunk = nn.Linear(width, width, bias=False)
        self.w_enc, self.w_dec, self.w_branches = w_enc, w_dec, w_branches
        self.miss_rate, self.selection, self.confident = miss_rate, selection, confident

    rare = ("score.*",)  # moves by rows alone that fail the test

    def stages(self) -> list[Stage]:
        return [Stage("complete", 0.5, rows="complete"), Stage("holes", 0.5, view=OneLost(self.miss_rate))]

    def prepare(self, data: Splits, stage: Stage) -> None:
        if stage.name == "holes":
            self.keep_frozen("teacher_encoders", self.encoders)
            self.keep_frozen("teacher", self.backbone)

    def recover(self, joint: Tensor, decoded: Tensor, present: Tensor) -> Tensor:
        """Joint tokens ``[B, M, W]`` with absent ones decoded, by backbone, autoencoder, cascade: ``[3, B, M, W]``."""
        flat = joint.flatten(1)
        others = [self.decode(self.autoencoder(flat)[0]), self.cascade(flat).out]
        decodings = torch.stack([decoded, *(x.view_as(joint) for x in others)])
        return torch.where(present[..., None], joint, decodings)

    def fuse(self, features: Features) -> Fused:
        present = features.present
        joint, encoded, decoded = self.backbone(features.pooled(), present)
        recovered = self.recover(joint, decoded, present)
        every = torch.ones_like(present)
        shown = [
            block(recovered[:, :, pair].flatten(0, 1), every[:, :2].repeat(3, 1)).view(3, -1, 2, self.width)
            for pair, block in zip(self.pairs, self.pair_blocks, strict=True)
        ]
        vectors = self.pools(torch.stack(shown, 1).flatten(0, 1))  # [3 * P, B, W]
        outputs = [head(Stream.vector(x)) for head, x in zip(self.heads, vectors, strict=True)]
        whole = self.whole_head(Stream.vector(self.whole_pool(self.whole_block(recovered[0], every)[None])[0]))
        pairs = torch.stack(outputs).unflatten(0, (3, -1))  # [3, P, B, ...]
        shares = self.shares(pairs)
        ensemble = self.ensemble(vectors.unflatten(0, (3, -1)), shares)
        code = self.code_pool(encoded[None])[0]
        chosen = self.select(code, ensemble, self.consistent(whole, pairs[0], present), present.all(1))
        extras = {"joint": joint, "encoded": encoded, "decoded": decoded, "whole": whole, "pairs": pairs}
        extras["shares"] = shares
        return Fused.vector(self.trunk(chosen), extras=extras)

    def ensemble(self, vectors: Tensor, shares: Tensor) -> Tensor:
        """Vectors of the pairs ``[3, P, B, W]`` and their weights ``[3, P, B]`` -> one over reconstructors: ``[B, W]``."""
        mixed = torch.tanh((shares[..., None] * vectors).sum(1))
        return (self.score(mixed).softmax(0) * mixed).sum(0)

    def shares(self, pairs: Tensor) -> Tensor:
        """Outputs of the pairs' heads ``[3, P, B, ...]`` -> their weights ``[3, P, B]``, which sum to 1 over the pairs."""
        sure = pairs.amax(3) if self.task.link == "softmax" else pairs.abs().mean(3)
        return (sure if self.confident else torch.zeros_like(sure)).softmax(1)

    def consistent(self, whole: Tensor, pairs: Tensor, present: Tensor) -> Tensor:
        """Does the whole ``[B, ...]`` say what those of the pairs ``[P, B, ...]`` say that are there? Bool ``[B]``."""
        there = torch.stack([present[:, pair].all(1) for pair in self.pairs])
        votes = torch.where(there[..., None], pairs, 0).sum(0)
        if self.task.link == "softmax":
            return there.any(0) & (whole.argmax(1) == votes.argmax(1))
        return there.any(0) & ((whole > 0) == (votes > 0)).all(1)

    def select(self, code: Tensor, ensemble: Tensor, consistent: Tensor, complete: Tensor) -> Tensor:
        """What answers ``[B, W]``."""
        if self.selection == "uniform":
            return torch.where(complete[:, None], code, (code + ensemble) / 2)
        return torch.where((complete | consistent)[:, None], code, ensemble)

    def head(self, fused: Fused, features: Features) -> Prediction:
        return Prediction(self.task_head(fused), features.present, fused.pooled(), extras=fused.extras)

    def step(self, batch: Batch) -> Step:
        prediction: Prediction = self(batch)
        made, rows = prediction.extras, batch.present.any(1)  # of the others nothing is known, and the prior answers
        losses = {"task": self.task.loss(prediction.output, batch)}
        if self.w_branches:
            branches = [made["whole"], *made["pairs"].flatten(0, 1)]
            losses["branches"] = (
                self.w_branches * torch.stack([self.task.loss(x, batch, rows) for x in branches]).mean()
            )
        if self.w_dec:
            losses["decoding"] = self.w_dec * mean_of(symmetric_kl(made["decoded"], made["joint"]), rows)
        if self.w_enc and self.clock.stage == "holes":
            seen = batch if batch.truth is None else batch.truth
            teacher: Any = self.get_submodule("teacher")
            features = self.encode(seen, self.get_submodule("teacher_encoders"))  # type: ignore[arg-type]
            taught = teacher(features.pooled(), features.present)[1]
            known = rows & features.present.all(1)  # of other rows the teacher has no complete view
            losses["encoding"] = self.w_enc * mean_of(symmetric_kl(made["encoded"], taught), known)
        return Step(losses, prediction)


class Backbone(nn.Module):
    """Tokens of all modalities in a common space, and what an encoder and a decoder of attention make of them.

    Every modality passes the maps of all pairs that it is in; an absent one enters as a learned token.

    Args:
        pairs: of columns. dim: width of a modality's token. width: of a joint one, a multiple of M - 1.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], dim: int, width: int) -> None:
        super().__init__()
        count = 1 + max(max(pair) for pair in pairs)
        self.own = [[p for p, pair in enumerate(pairs) if m in pair] for m in range(count)]
        self.absent = nn.Parameter(0.02 * torch.randn(count, dim))
        self.maps = nn.Parameter(torch.randn(len(pairs), dim, width // (count - 1)) * dim**-0.5)
        self.encoder, self.decoder = Block(width, ratio=4), Block(width, ratio=4)
        self.encoded, self.decoded = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, pooled: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features ``[B, M, D]``, present bool ``[B, M]`` -> joint, encoded and decoded tokens ``[B, M, W]`` each."""
        x, every = torch.where(present[..., None], pooled, self.absent), torch.ones_like(present)
        joint = torch.stack([torch.cat([x[:, m] @ self.maps[p] for p in own], 1) for m, own in enumerate(self.own)], 1)
        encoded = self.encoded(self.encoder(joint, every))
        return joint, encoded, self.decoded(self.decoder(encoded, every))


class GatedPooling(nn.Module):
    """Attention pooling ``sum_t softmax_t(r_t) x_t``, ``r = ((x W_u) * sigmoid(x W_m)) w_r``: ``[G, B, T, W] -> [G, B, W]``.

    As in the authors' code (JaydenZeng/EMMR), with weights of their own for each of G groups.
    """

    def __init__(self, width: int, groups: int = 1) -> None:
        super().__init__()
        self.content, self.gate, self.score = (
            nn.Parameter(torch.randn(groups, width, out) * width**-0.5) for out in (width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        flat = x.flatten(1, 2)
        weights = ((flat @ self.content) * (flat @ self.gate).sigmoid()) @ self.score
        return (weights.unflatten(1, x.shape[1:3]).softmax(2) * x).sum(2)


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """``KL(A || B) + KL(B || A)`` in nats of the softmax over the last axis: ``[..., W] -> [...]``; neither is detached.

    Of features that are no logits, as in the authors' code (JaydenZeng/EMMR).
    """
    log_a, log_b = a.log_softmax(-1), b.log_softmax(-1)
    return ((log_a.exp() - log_b.exp()) * (log_a - log_b)).sum(-1)


def mean_of(each: Tensor, rows: Tensor) -> Tensor:
    """Mean of ``[B, M]`` over the ``rows``, bool ``[B]``; 0 if none."""
    return torch.where(rows, each.mean(1), 0).sum() / rows.sum().clamp(min=1)


def leaky() -> nn.LeakyReLU:
    """With the slope of TensorFlow, in which the authors' code (JaydenZeng/EMMR) is written."""
    return nn.LeakyReLU(0.2)


def glorot(layer: nn.Module) -> None:
    """TensorFlow's initialisation: with torch's, whose weights are smaller, seven layers leave next to nothing of the row."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


@dataclass(frozen=True)
class OneLost:
    """The view: of rows that have all their modalities, a share of ``rate`` loses one, each as likely."""

    rate: float

    def __call__(self, batch: Batch, generator: Generator) -> Tensor:
        """Bool ``[B, M]``."""
        rows, count = batch.present.shape
        lost = torch.randint(count, (rows,), generator=generator)
        hit = torch.rand(rows, generator=generator) < self.rate
        drop = (lost[:, None] == torch.arange(count)) & hit[:, None]
        return batch.present & ~(drop.to(batch.device) & batch.present.all(1, keepdim=True))


ablation_of(EMMR, selection="uniform", confident=False, w_enc=0.0)
ablation_of(EMMR, "the choice by consistency", selection="uniform")
ablation_of(EMMR, "the weights of pairs", confident=False)
ablation_of(EMMR, "the network of complete rows", w_enc=0.0)


@claims_of(EMMR)
def claims(fixture: Fixture) -> Claims:
    """One training with holes in some rows, then what is made of rows with every subset, worked out by hand with gradients."""
    answers, weigh, taught = EMMR.card.claims
    train, _, _ = fixture.data.with_missing(parse_mechanism("mcar(0.05)"), seed=1).split()
    fixture.splits = Splits(train, fixture.splits.val, fixture.splits.test)
    pipeline = fixture.pipeline(blocks=2)
    model: Any = pipeline.model
    steps = record_steps(model, "encoders", "backbone")
    fixture.epochs = 8
    fixture.train(pipeline)
    first, later = steps.batches("complete"), steps.batches("holes")
    holes = sum(int((~batch.present).sum()) + (batch.truth is not None) for batch in first)
    yield Claim("the first stage trains on complete rows, which it sees whole", holes, at_most=0)
    yield Claim("both stages last as long", abs(len(first) - len(later)) / len(steps.taken), at_most=0.05)
    seen, whole = (torch.cat([b.present for b in each]) for each in (later, [b.truth or b for b in later]))
    lost = (whole & ~seen).sum(1)
    yield Claim("at most one is lost, and of complete rows alone", int((lost > whole.all(1).long()).sum()), at_most=0)
    yield Claim("half of the complete rows lose one", abs(float(lost.sum() / whole.all(1).sum()) - 0.5), at_most=0.06)
    yield Claim("each modality as often", float((whole & ~seen).double().mean(0).std() / 0.5), at_most=0.06)
    spread = min(_spread_of_decodings(model, fixture.batch(80)))
    yield Claim("autoencoder and cascade decode what differs by row", spread, at_least=0.05)

    model.double()
    complete = fixture.batch(70).map(lambda x: x.double() if x.is_floating_point() else x)
    batch = replace(every_subset(complete), truth=complete.where(torch.arange(70)[:, None] % 11 != torch.arange(3)))
    batch = batch.where(batch.truth.present)  # type: ignore[union-attr]
    losses, made, nothing = type(model).step(model, batch).losses, model(batch).extras, torch.zeros(()).double()
    keep, features = batch.present, model.encode(batch).pooled()
    x = [torch.where(keep[:, m, None], features[:, m], model.backbone.absent[m]) for m in range(3)]
    a, b, c = model.backbone.maps
    joint = torch.stack(
        [torch.cat(parts, 1) for parts in ((x[0] @ a, x[0] @ b), (x[1] @ a, x[1] @ c), (x[2] @ b, x[2] @ c))], 1
    )
    net, every = model.backbone, torch.ones_like(keep)
    encoded = net.encoded(net.encoder(joint, every))
    decoded = net.decoded(net.decoder(encoded, every))
    flat = state = joint.flatten(1)
    for block in model.cascade.blocks:
        out = _leaky(block.up, _leaky(block.down, state))
        state = state + out
    auto = model.decode(_leaky(model.autoencoder.up, _leaky(model.autoencoder.down, flat)))
    sets = [torch.where(keep[..., None], joint, x.reshape(joint.shape)) for x in (decoded, auto, out)]
    parts, heads = {}, {}
    for r, tokens in enumerate(sets):
        for p, pair in enumerate(((0, 1), (0, 2), (1, 2))):
            shown = model.pair_blocks[p](tokens[:, pair], torch.ones(70, 2, dtype=torch.bool))
            parts[r, p] = _pool(model.pools, shown, 3 * r + p)
            heads[r, p] = model.heads[3 * r + p].linear(parts[r, p])
    heads[0, 3] = model.whole_head.linear(_pool(model.whole_pool, model.whole_block(sets[0], every)))
    shares, mixed = [], []
    for r in range(3):
        shares.append(torch.stack([heads[r, p].max(1).values for p in range(3)]).exp())
        shares[-1] = shares[-1] / shares[-1].sum(0)
        mixed.append(sum(shares[-1][p, :, None] * parts[r, p] for p in range(3)).tanh())  # type: ignore[union-attr]
    raw = torch.cat([(q @ model.score.weight.T).exp() for q in mixed], 1)
    ensemble = sum(raw[:, r, None] * q for r, q in enumerate(mixed)) / raw.sum(1, keepdim=True)
    code, rows, kinds = _pool(model.code_pool, encoded), [], [0, 0, 0]
    consulted = {(True, True, False): 0, (True, False, True): 1, (False, True, True): 2}
    for i, there in enumerate(keep.tolist()):
        p = consulted.get(tuple(there), -1)
        alike = p >= 0 and int(heads[0, 3][i].argmax()) == int(heads[0, p][i].argmax())
        kind = 0 if all(there) else 1 if alike else 2
        kinds[kind] += 1
        rows.append(ensemble[i] if kind == 2 else code[i])
    yield Claim("rows of all three kinds are there", min(kinds), at_least=3)
    wanted = torch.stack(rows) @ model.trunk.weight.T
    some = keep.any(1)
    yield Claim(answers, difference(model(batch).embedding[some], wanted[some], model), at_most=1e-9)
    yield Claim(weigh, difference(made["shares"], torch.stack(shares), model), at_most=1e-9)
    labels: Any = batch.target
    target = [_surprise(y[some], labels[some]) for y in heads.values()]
    yield Claim("heads of pairs and the whole learn the task", difference(
        losses["branches"], torch.stack(target).mean(), model), at_most=1e-9)  # fmt: skip
    answer = torch.where(some[:, None], model.task_head.linear(wanted), model.prior)
    yield Claim(
        "the task's loss is that of the answer",
        difference(losses["task"], _surprise(answer, labels), model),
        at_most=1e-9,
    )
    wanted = 0.1 * (_kl(decoded, joint) + _kl(joint, decoded))[some].mean()
    yield Claim("decodings learn to be the tokens, and tokens the decodings", difference(losses["decoding"], wanted, model),
                at_most=1e-9)  # fmt: skip
    encoders, backbone = (each.double().requires_grad_(False) for each in steps.start["holes"].values())
    told = model.encode(batch.truth, encoders)
    known = told.present.all(1)
    target_code = backbone(told.pooled(), told.present)[1][known]
    wanted = 0.1 * (_kl(encoded[known], target_code) + _kl(target_code, encoded[known])).mean()
    yield Claim(taught, difference(losses.get("encoding", nothing), wanted, model), at_most=1e-9)


@torch.no_grad()
def _spread_of_decodings(model: Any, batch: Batch) -> list[float]:
    """Of autoencoder and cascade: spread over rows of an absent token, in units of the true one's; mean over modalities."""
    true, ratios = model(batch).extras["joint"].std(0).mean(1), []
    for m in range(len(batch.names)):
        shown = batch.where(torch.arange(len(batch.names)) != m)
        joint, _, decoded = model.backbone(model.encode(shown).pooled(), shown.present)
        found = model.recover(joint, decoded, shown.present)[1:, :, m]
        ratios.append(found.std(1).mean(1) / true[m])
    return list(torch.stack(ratios).mean(0).tolist())


def _pool(pool: GatedPooling, x: Tensor, group: int = 0) -> Tensor:
    content, gate, score = (weight[group] for weight in (pool.content, pool.gate, pool.score))
    raw = (((x @ content) * (x @ gate).sigmoid()) @ score).exp()
    return (raw * x).sum(1) / raw.sum(1)


def _leaky(half: nn.Module, x: Tensor) -> Tensor:
    for layer in half.children():
        x = functional.leaky_relu(x @ layer.weight.T, 0.2) if isinstance(layer, nn.Linear) else x
    return x


def _kl(a: Tensor, b: Tensor) -> Tensor:
    p, q = a.softmax(-1), b.softmax(-1)
    return (p * (p / q).log()).sum(-1)


def _surprise(output: Tensor, target: Tensor) -> Tensor:
    return (output.logsumexp(1) - output[torch.arange(len(output)), target]).mean()
