"""A table's cells as tokens that no missing cell speaks to, pretrained without labels against the other modalities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Modality, Model, Prediction, Schema, Stage, Step, Stream,
    StreamSpec, ablation_of, claims_of, difference, every_subset, register,
)  # fmt: skip
from kintsugi.core.encoder import Encoder, make_encoder
from kintsugi.encoders.tabular import cell_kinds
from kintsugi.layers.cells import CellBlock, CellTokens, CrossBlock, cells_to_look_at
from kintsugi.layers.streams import heads_for
from kintsugi.losses.contrastive import hard_negatives, info_nce, matching, similarities
from kintsugi.losses.masked import masked_cross_entropy, masked_mse


@register(
    Card(
        key="tip",
        name="TIP",
        leaf="missing/hybrid",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "a token a cell; a missing cell is one learned vector, at which no token but its own looks",
            "three losses without labels: contrast, matching with hard negatives drawn from it, rebuilding of masked cells",
            "table tokens look at the other modality in every block, and cells are rebuilt from what comes out",
            "fine-tuned on given holes, a part of the columns drawn anew; logits of three heads are averaged before the softmax",
        ),
        simplified=(
            "encoders by kind of data stand for ResNet-50; their inputs are not augmented, but the table is",
            "of more than two modalities those beside the table are one picture: tokens side by side, vectors averaged",
            "without a table a vector of numbers is read as one; an absent table is one of missing cells",
            "a row without the others, which the paper does not have, looks at nothing and is answered by two heads",
            "tables with holes are pretrained on too: only cells that were seen are drawn, masked and rebuilt",
            "shares of columns are whole numbers of them: at the defaults a table of one cell has none to rebuild, and one of "
            "up to three is never drawn anew",
            "LayerNorm in the projectors, whose BatchNorm would mix rows; drawn values are those of rows of the batch",
            "queries of the look at the other modality have no bias either",
            "both halves of the training have one learning rate, and the best epoch of the second is kept",
        ),
        claims=(
            "no token but its own looks at a missing cell",
            "the three losses are those of each row's table beside its own other modalities",
        ),
        premise="the cells of a table follow from another modality and from each other, complete rows without labels are "
        "many, and cells are missing in training and in use",
        worlds=("redundant",),
        confidence="high",
        defaults_from="the authors' code (siyi-wind/TIP): shares, temperature; width 512, depth 4, 8 heads and MLP ratio 4 "
        "are scaled to 32, 2, 2 and 2",
        kinds=("tabular", "vector"),
        cost="medium",
    )
)
class TIP(Model):
    """Tabular-image pre-training.

    Args:
        dim: width of every token.
        depth: blocks of the tabular encoder, and of the multimodal module.
        tau: temperature of the contrast.
        corruption: share of the columns that get another row's value, in the contrast and in fine-tuning.
        mask_rate: share of the columns that are masked to be rebuilt.
        augment: share of the rows whose columns are drawn anew in fine-tuning.
        ensemble: average the logits of three heads; False: the multimodal head alone.
        table: the modality that is read as a table; None: the first table, or else the first vector.
        attention_mask: False: every token looks at missing cells too.
    """

    encoding: ClassVar[Literal["separate", "joint"]] = "joint"  # a user's encoder of the table would have no cells
    training_only = ("project_table", "project_other", "matched", "rebuilt_number", "rebuilt_category")

    def __init__(
        self, schema: Schema, dim: int = 32, depth: int = 2, tau: float = 0.1, corruption: float = 0.3,
        mask_rate: float = 0.5, augment: float = 0.8, ensemble: bool = True, table: str | None = None,
        attention_mask: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim, fused=None)
        self.table = _table_of(schema) if table is None else table
        if schema[self.table].kind not in ("tabular", "vector"):
            raise ConfigError(
                f"{self.table} is {schema[self.table].kind}; only a table or a vector can be read as cells"
            )
        self.others = tuple(name for name in schema.names if name != self.table)
        self.tau, self.corruption, self.mask_rate, self.augment = tau, corruption, mask_rate, augment
        self.ensemble = ensemble
        for m in schema.modalities:
            own = m.name == self.table
            self.encoders[m.name] = TableEncoder(m, dim, depth, attention_mask) if own else make_encoder(m, dim)
        self.context = nn.ModuleDict({m: nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim)) for m in self.others})
        self.multimodal, self.norm = (
            nn.ModuleList(CrossBlock(dim, _heads(dim)) for _ in range(depth)),
            nn.LayerNorm(dim),
        )
        self.project_table, self.project_other = _projector(dim), _projector(dim)
        self.matched = nn.Linear(dim, 2)
        cells = self.cells
        self.rebuilt_number = nn.Linear(dim, 1) if bool(cells.number.any()) else nn.Identity()
        self.rebuilt_category = nn.Linear(dim, cells.total) if cells.total else nn.Identity()
        heads = ("multimodal", "table", "other") if ensemble else ("multimodal",)
        self.heads = nn.ModuleDict({name: schema.task.head(StreamSpec(dim)) for name in heads})

    @property
    def cells(self) -> CellTokens:
        """The tokens of the table."""
        encoder = self.encoders[self.table]
        assert isinstance(encoder, TableEncoder)
        return encoder.cells

    def stages(self) -> list[Stage]:
        body = ("encoders.*", "context.*", "multimodal.*", "norm.*")
        return [
            Stage("pretrain", 0.5, trainable=(*body, "project_*", "matched.*", "rebuilt_*")),
            Stage("tune", 0.5, trainable=(*body, "heads.*")),
        ]

    # the answer -----------------------------------------------------------------------------------------------
    def complete(self, features: Features) -> Features:
        """An absent table is one in which every cell is missing."""
        stream = features.streams[self.table]
        nothing = stream.tokens.new_zeros(1, len(self.cells.number))
        missing = self.encoders[self.table](nothing, nothing.bool()).tokens.to(stream.tokens.dtype)
        here = features.present[:, self.schema.column(self.table), None]
        tokens = torch.where(here[..., None], stream.tokens, missing)
        return features.replace({self.table: Stream(tokens, torch.ones_like(stream.mask))})

    def beside(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Of what stands beside the table: tokens ``[B, S, D]``, which there are, bool ``[B, S]``, and their mean ``[B, D]``."""
        streams = [features.streams[m] for m in self.others]
        tokens = torch.cat([self.context[m](s.tokens) for m, s in zip(self.others, streams, strict=True)], 1)
        there = torch.stack([s.mask.any(1) for s in streams], 1).to(tokens.dtype)
        pooled = torch.stack([s.pooled() for s in streams], 1)
        mean = pooled.sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        return tokens, torch.cat([s.mask for s in streams], 1), mean

    def together(self, table: Tensor, tokens: Tensor, visible: Tensor) -> Tensor:
        """Table tokens ``[B, 1 + N, D]`` that have looked at the others; the mask of missing cells ends with the encoder."""
        for block in self.multimodal:
            table = block(table, tokens, visible)
        out: Tensor = self.norm(table)
        return out

    def fuse(self, features: Features) -> Fused:
        tokens, visible, pooled = self.beside(features)
        table = features.streams[self.table].tokens
        summary = self.together(table, tokens, visible)[:, 0]
        return Fused.vector(summary, extras={"table": table[:, 0], "other": pooled, "beside": visible.any(1)})

    def head(self, fused: Fused, features: Features) -> Prediction:
        vectors = {"multimodal": fused.pooled(), **fused.extras}
        logits = {name: head(Fused.vector(vectors[name])) for name, head in self.heads.items()}
        output = torch.stack(list(logits.values())).mean(0)
        unimodal: dict[str, Tensor] = {}
        if self.ensemble:
            alone = (logits["multimodal"] + logits["table"]) / 2
            output = torch.where(fused.extras["beside"].view(-1, *[1] * (output.ndim - 1)), output, alone)
            unimodal[self.table] = self.task.probabilities(logits["table"])
            if len(self.others) == 1:
                unimodal[self.others[0]] = self.task.probabilities(logits["other"])
        return Prediction(output, features.present, fused.pooled(), unimodal=unimodal)

    # training -------------------------------------------------------------------------------------------------
    def step(self, batch: Batch) -> Step:
        x, seen = self.table_of(batch)
        drawn = self.redrawn(x, seen)
        if self.clock.stage == "pretrain":
            return self.pretrain(batch, drawn, self.columns_of(x, round(self.mask_rate * x.shape[1])))
        some = torch.rand(len(x), 1, device=x.device) < self.augment
        return super().step(self.with_table(batch, torch.where(some, drawn, x), seen))

    def table_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values ``[B, N]`` and which were seen, bool ``[B, N]``."""
        x = batch.inputs[self.table]
        here = batch.present[:, batch.names.index(self.table), None].expand_as(x)
        return x, here & batch.mask.get(self.table, here)

    def with_table(self, batch: Batch, x: Tensor, seen: Tensor) -> Batch:
        """The batch with another table."""
        return replace(batch, inputs={**batch.inputs, self.table: x}, mask={**batch.mask, self.table: seen})

    def columns_of(self, x: Tensor, count: int) -> Tensor:
        """Bool ``[B, N]``: so many columns of each row, drawn anew for each."""
        return torch.rand(x.shape, device=x.device).argsort(1).argsort(1) < count

    def redrawn(self, x: Tensor, seen: Tensor) -> Tensor:
        """The table in which a share of each row's columns holds what some row of the batch has there."""
        donors = (seen | ~seen.any(0)).T.float()  # of each column: those that have it
        donor = donors.multinomial(len(x), replacement=True).T
        take = self.columns_of(x, int(self.corruption * x.shape[1])) & seen & seen.gather(0, donor)
        return torch.where(take, x.gather(0, donor), x)

    def partners(self, rows: Tensor) -> Tensor:
        """The rows (int64 ``[R]``) whose other modalities stand beside the tables of these: their own."""
        return rows

    def pretrain(self, batch: Batch, drawn: Tensor, masked: Tensor) -> Step:
        """The three losses: of the table with drawn values, and of that without the masked cells."""
        x, seen = self.table_of(batch)
        encoder, here = self.encoders[self.table], batch.present[:, batch.names.index(self.table)]
        streams = {m: self.encode_one(m, batch, self.encoders[m]) for m in self.others}
        tokens, visible, pooled = self.beside(Features(streams, batch.present))
        table = self.encode_one(self.table, self.with_table(batch, drawn, seen), encoder).tokens
        holed = self.encode_one(self.table, self.with_table(batch, x, seen & ~masked), encoder).tokens
        rows = (here & visible.any(1)).nonzero()[:, 0]
        beside = torch.arange(len(x), device=x.device).index_copy(0, rows, self.partners(rows))
        losses, own = {}, beside[rows]
        pairs = [(holed, beside)]  # tables, and the rows whose other modalities they look at
        if len(rows) > 1:
            logits = similarities(self.project_other(pooled[own]), self.project_table(table[rows, 0]), 1 / self.tau)
            losses["contrast"] = info_nce(logits) / 3
            tables, images = hard_negatives(logits)
            pairs += [(table[rows], own), (table[rows[tables]], own), (table[rows], own[images])]
        looked = self.together(
            torch.cat([t for t, _ in pairs]), tokens[torch.cat([r for _, r in pairs])],
            visible[torch.cat([r for _, r in pairs])],
        )  # fmt: skip
        if len(rows) > 1:
            verdicts = self.matched(looked[len(x) :, 0])
            first = torch.arange(len(verdicts), device=x.device) < len(rows)
            losses["matching"] = matching(verdicts, first) / 3
        losses["rebuilding"] = self.rebuilding(looked[: len(x), 1:], x, masked & seen) / 3
        return Step(losses)

    def rebuilding(self, tokens: Tensor, x: Tensor, masked: Tensor) -> Tensor:
        """Half the error of categories and half that of numbers, over masked cells: tokens ``[B, N, D]``, x ``[B, N]``."""
        cells = self.cells
        number, loss = cells.number, 0 * tokens.sum()
        if bool(number.any()):
            guess = self.rebuilt_number(tokens[:, number])[..., 0]
            loss = loss + 0.5 * masked_mse(guess, x[:, number], masked[:, number])
        if cells.total:
            logits, code = self.rebuilt_category(tokens[:, ~number]), cells.code(torch.where(masked, x, 0))
            loss = loss + 0.5 * masked_cross_entropy(logits, code[:, ~number], masked[:, ~number], 1e-8)
        return loss


class TableEncoder(Encoder):
    """Tokens of cells and blocks of attention: x ``[R, N]``, mask bool ``[R, N]`` -> tokens ``[R, 1 + N, D]``, CLS first."""

    def __init__(self, modality: Modality, dim: int, depth: int, masked: bool = True) -> None:
        super().__init__()
        self.masked = masked
        self.cells = CellTokens(cell_kinds(modality), dim)
        self.blocks = nn.ModuleList(CellBlock(dim, _heads(dim)) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        tokens = self.cells(x, seen)
        seen = torch.cat([seen.new_ones(len(seen), 1), seen], 1)  # CLS
        everything = torch.ones_like(seen)
        attend = cells_to_look_at(seen) if self.masked else None
        for block in self.blocks:
            tokens = block(tokens, attend)
        return Stream(tokens, everything)


def _table_of(schema: Schema) -> str:
    kinds = {kind: m.name for kind in ("vector", "tabular") for m in reversed(schema.modalities) if m.kind == kind}
    return kinds.get("tabular", kinds.get("vector", schema.names[0]))


def _heads(dim: int) -> int:
    """Two of 16 at the default width; the paper has 8 of 64."""
    return min(2, heads_for(dim))


def _projector(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, dim))


@ablation_of(TIP, "own partners")
class Strangers(TIP):
    """Off: in pretraining the table of a row stands beside what another row has, so that nothing follows from it."""

    def partners(self, rows: Tensor) -> Tensor:
        return rows.roll(1)


ablation_of(TIP, "attention mask", attention_mask=False)


@ablation_of(TIP)
class Unaided(Strangers):
    """Off: both: pretrained on strangers, and every token looks at missing cells."""

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **{**hyper, "attention_mask": False})


@claims_of(TIP)
def claims(fixture: Fixture) -> Claims:
    """Untrained, on tables of numbers and a category with unseen cells, and on every subset of the modalities."""
    world = fixture.world(kind="tabular")
    model: Any = world.pipeline().model.double().eval()
    batch = every_subset(world.batch(28)).map(lambda x: x.double() if x.is_floating_point() else x)
    x, seen = model.table_of(batch)
    here, encoder = seen.any(1), model.encoders[model.table]
    before = encoder(x[here], seen[here]).tokens.detach()
    encoder.cells.missing.data += torch.linspace(-1, 1, model.dim)
    moved = (encoder(x[here], seen[here]).tokens - before).abs().amax(2) > 0
    cells = torch.cat([torch.zeros_like(seen[here, :1]), ~seen[here]], 1)
    yield Claim(TIP.card.claims[0], float((moved & ~cells).sum()), at_most=0)
    yield Claim("a missing cell is its learned vector", float((cells & ~moved).sum()), at_most=0)
    drawn, own = model.redrawn(x, seen)[here], x[here]
    changed = (drawn != own) & seen[here]
    strange = (drawn[:, None] != torch.where(seen[here], own, torch.nan)).all(1)
    wrong = int((changed & strange).sum()) + int((changed.sum(1) > 2).sum()) + int(changed.sum() < len(own))
    yield Claim("drawn values are those of other rows, in 2 of 9 columns", wrong, at_most=0)
    with torch.random.fork_rng(devices=[]):
        model.clock.stage = "pretrain"
        torch.manual_seed(0)
        losses = model.step(batch).losses
        torch.manual_seed(0)
        terms = _losses(model, batch)
    got, wanted = (torch.stack([each[name] for name in terms]) for each in (losses, terms))
    yield Claim(TIP.card.claims[1], difference(got, wanted, model), at_most=1e-7)
    model.clock.stage = "tune"
    gap = difference(model(batch).output, _answer(model, batch), model)
    yield Claim("logits are averaged before the softmax, over the heads that see something", gap, at_most=1e-9)


def _attended(layer: Any, x: Tensor, context: Tensor, attend: Tensor) -> Tensor:
    """Attention by PyTorch's own; zeros where a token may look at nothing."""
    q, k, v = (
        f(y).unflatten(2, (layer.heads, -1)).transpose(1, 2)
        for f, y in ((layer.query, x), (layer.key, context), (layer.value, context))
    )
    some = attend.any(2, keepdim=True)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=(attend | ~some)[:, None])
    return torch.where(some, layer.out(out.transpose(1, 2).flatten(2)), 0)


def _table_tokens(model: Any, x: Tensor, seen: Tensor) -> Tensor:
    """Of eight numbers and one category: ``[B, 10, D]``."""
    encoder = model.encoders[model.table]
    cells, x = encoder.cells, torch.where(seen, x, 0)
    tokens = torch.cat([cells.value(x[:, :8, None]), cells.category(x[:, 8:].long())], 1)
    tokens = torch.where(seen[..., None], tokens, cells.missing)
    y = cells.norm(torch.cat([cells.cls.expand(len(x), 1, -1), tokens], 1) + cells.column)
    attend = torch.cat([torch.ones_like(seen[:, :1]), seen], 1)[:, None] | torch.eye(10, dtype=torch.bool)
    attend = attend if encoder.masked else torch.ones_like(attend)
    for block in encoder.blocks:
        normed = block.norm1(y)
        y = y + _attended(block.attention, normed, normed, attend)
        y = y + block.mlp(block.norm2(y))
    return y


def _beside(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    features = model.encode(batch)
    tokens = [model.context[m](features.streams[m].tokens) for m in batch.names[1:]]
    mean = features.pooled()[:, 1:].sum(1) / batch.present[:, 1:].sum(1, keepdim=True).clamp(min=1)
    visible = torch.cat([features.streams[m].mask for m in batch.names[1:]], 1)
    return torch.cat(tokens, 1), visible, mean


def _looked(model: Any, y: Tensor, tokens: Tensor, visible: Tensor) -> Tensor:
    for layer in model.multimodal:
        normed = layer.block.norm1(y)
        y = y + _attended(layer.block.attention, normed, normed, torch.ones(len(y), 10, 10, dtype=torch.bool))
        y = y + _attended(layer.cross, layer.norm(y), tokens, visible[:, None].expand(-1, 10, -1))
        y = y + layer.block.mlp(layer.block.norm2(y))
    out: Tensor = model.norm(y)
    return out


def _losses(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Those of pretraining, with the same draws."""
    x, seen = model.table_of(batch)
    table = _table_tokens(model, model.redrawn(x, seen), seen)
    masked = model.columns_of(x, 4)  # of 9, to even
    tokens, visible, mean = _beside(model, batch)
    rows = (seen.any(1) & visible.any(1)).nonzero()[:, 0]
    sides = [
        F.normalize(p(y), dim=1) for p, y in ((model.project_other, mean[rows]), (model.project_table, table[rows, 0]))
    ]
    logits, right = sides[0] @ sides[1].T * 10, torch.arange(len(rows))
    contrast = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    weights = [(s.detach().softmax(1) + 1e-4) * (1 - torch.eye(len(rows))) for s in (logits, logits.T)]
    tables, images = (w.multinomial(1)[:, 0] for w in weights)
    pairs = ((rows, rows), (rows[tables], rows), (rows, rows[images]))
    verdicts = [model.matched(_looked(model, table[t], tokens[i], visible[i])[:, 0]) for t, i in pairs]
    true = torch.tensor([1, 0, 0]).repeat_interleave(len(rows))
    looked = _looked(model, _table_tokens(model, x, seen & ~masked), tokens, visible)[:, 1:]
    numbers, categories = (masked & seen)[:, :8], (masked & seen)[:, 8]
    error = (model.rebuilt_number(looked[:, :8])[..., 0] - x[:, :8])[numbers].square().mean()
    surprise = F.cross_entropy(model.rebuilt_category(looked[:, 8])[categories], x[categories, 8].long())
    terms = {
        "contrast": contrast,
        "matching": F.cross_entropy(torch.cat(verdicts), true),
        "rebuilding": (error + surprise) / 2,
    }
    return {name: term / 3 for name, term in terms.items()}


def _answer(model: Any, batch: Batch) -> Tensor:
    """Mean of the logits of the heads; a row without the others has two."""
    tokens, visible, mean = _beside(model, batch)
    table = _table_tokens(model, *model.table_of(batch))
    vectors = (_looked(model, table, tokens, visible)[:, 0], table[:, 0], mean)
    logits = torch.stack(
        [model.heads[name].linear(v) for name, v in zip(("multimodal", "table", "other"), vectors, strict=True)]
    )
    return torch.where(visible.any(1, keepdim=True), logits.mean(0), logits[:2].mean(0))
