"""Low-level features side by side, one model on all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Schema, Splits, Stage, Stream, ablation_of,
    claims_of, register,
)  # fmt: skip
from kintsugi.encoders.lowlevel import lowlevel


@register(
    Card(
        key="early_fusion",
        name="Early fusion",
        leaf="general",
        imperfection=("missing at test", "missing in training"),
        faithful=("features concatenated before any depth of their own", "a single model", "absent parts are filled"),
        simplified=(
            "the support vector machine of 2004 is a multi-layer perceptron here, so that every task is served",
        ),
        claims=("what one modality changes in the answer depends on what the others say",),
        premise="the target depends on combinations of low-level features across modalities, and rows are many "
        "for their number",
        confidence="high",
        defaults_from="this library; the paper's feature selection is for its face markers",
    )
)
class EarlyFusion(Model):
    """One perceptron on the concatenated low-level features (pixels, log-mel, byte bigrams, cells).

    Args:
        hidden: width of its two hidden layers.
        fill: what stands for an absent modality: ``token`` (learned), ``mean`` of the training rows, or ``zero``.
        dropout: on hidden units.
    """

    encoding: ClassVar[Literal["separate", "joint"]] = "joint"

    def __init__(self, schema: Schema, hidden: int = 128, fill: str = "token", dropout: float = 0.1) -> None:
        super().__init__(schema, hidden)
        if fill not in ("token", "mean", "zero"):
            raise ConfigError(f"unknown fill {fill!r}; known: token, mean, zero")
        self.fill = fill
        self.lowlevel = nn.ModuleDict({m.name: lowlevel(m) for m in schema.modalities})
        sizes = [int(reader.features) for reader in self.lowlevel.values()]  # type: ignore[arg-type]
        self.filler = nn.ParameterList([nn.Parameter(torch.zeros(n), requires_grad=fill == "token") for n in sizes])
        self.scale = nn.ParameterList([nn.Parameter(torch.ones(2, n), requires_grad=False) for n in sizes])
        self.trunk = nn.Sequential(
            nn.Linear(sum(sizes), hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
        )  # fmt: skip

    @torch.no_grad()
    def prepare(self, data: Splits, stage: Stage) -> None:
        """Mean and spread of each feature over present training rows."""
        for i, name in enumerate(self.schema.names):
            rows = data.train.positions(f"has:{name}")
            x = torch.cat([self._features(name, b) for b in data.train.batches(256, rows)])
            self.scale[i].copy_(
                torch.stack([x.mean(0), x.std(0).clamp(min=1e-2) if len(x) > 1 else torch.ones_like(x[0])])
            )

    def _features(self, name: str, batch: Batch) -> Tensor:
        mask = batch.mask.get(name)
        out: Tensor = self.lowlevel[name](
            batch.inputs[name].to(self.prior.device), None if mask is None else mask.to(self.prior.device)
        )
        return out

    def joint(self, batch: Batch) -> Tensor:
        """Standardised features side by side ``[B, F]``; in absent parts the filler, whatever stands in the row."""
        parts = []
        for i, name in enumerate(self.schema.names):
            mean, spread = self.scale[i]
            x = (self._features(name, batch) - mean) / spread
            parts.append(torch.where(batch.present[:, i, None], x, self._filler(i).to(x.dtype)))
        return torch.cat(parts, 1)

    def _filler(self, i: int) -> Tensor:
        if self.fill == "zero":  # zero before standardisation, as the raw zero-fill of most public code
            raw: Tensor = -self.scale[i][0] / self.scale[i][1]
            return raw
        filler: Tensor = self.filler[i]  # "mean" is zero after standardisation
        return filler

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        return Features({"joint": Stream.vector(self.trunk(self.joint(batch)))}, batch.present)

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(features.streams["joint"].pooled())


@ablation_of(EarlyFusion)
class Apart(EarlyFusion):
    """Off: a trunk for each modality, together of as many weights, and their answers added: nothing is joint any more."""

    def __init__(self, schema: Schema, hidden: int = 128, fill: str = "token", dropout: float = 0.1) -> None:
        super().__init__(schema, hidden, fill, dropout)
        sizes = [p.numel() for p in self.filler]
        count, inputs = len(sizes), sum(sizes)
        width = max(1, round(hidden * (inputs + hidden + 6 - 3 * count) / (inputs + (3 + hidden) * count)))
        self.trunk = nn.ModuleList([nn.Sequential(
            nn.Linear(n, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout),
        ) for n in sizes])  # type: ignore[assignment]  # fmt: skip

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        pieces = self.joint(batch).split([p.numel() for p in self.filler], 1)
        summed = torch.stack([part(x) for part, x in zip(self.trunk, pieces, strict=True)]).sum(0)
        return Features({"joint": Stream.vector(summed)}, batch.present)


@claims_of(EarlyFusion)
def claims(fixture: Fixture) -> Claims:
    """The fillers on untrained models whose training rows have holes, the rest on a trained one."""
    from kintsugi.imperfect import parse_mechanism

    whole, names = fixture.splits, fixture.schema.names
    train = whole.train.with_missing(parse_mechanism("mcar(0.3)"), seed=1)  # type: ignore[attr-defined]
    seen = train.batch(torch.arange(len(train)))
    batch = fixture.batch()
    batch = batch.where(torch.rand(batch.present.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    unlike = 0
    for fill in ("token", "mean", "zero"):
        model = fixture.pipeline(fill=fill).model
        assert isinstance(model, EarlyFusion)
        model.prepare(Splits(train, whole.val), model.stages()[0])
        parts = []
        for i, name in enumerate(names):
            rows = seen.inputs[name][seen.present[:, i]].double().numpy()
            mean, spread = rows.mean(0), rows.std(0, ddof=1)
            model.filler[i].data += 0.5 if fill == "token" else 0  # an untrained token is as good as the mean
            filler = {"token": 0.5, "mean": 0, "zero": -mean / spread}[fill]
            standard = (batch.inputs[name].double().numpy() - mean) / spread
            parts.append(np.where(batch.present[:, i, None], standard, filler))
        away = float(np.abs(np.concatenate(parts, 1) - model.joint(batch).detach().numpy()).max())
        yield Claim(
            f"features stand side by side, standardised, with the {fill} exactly where absent", away, at_most=1e-4
        )
        learned = [p for p in model.filler if p.requires_grad]
        slopes = torch.autograd.grad(model.joint(batch).sum(), learned) if fill == "token" else ()
        unlike += sum(
            bool((slope != (~owns).sum()).any()) for slope, owns in zip(slopes, batch.present.unbind(1), strict=False)
        )
        unlike += len(learned) - len(slopes)
    yield Claim("tokens alone are learned, each from every row that it stands in", unlike, at_most=0)
    model, still = fixture.pipeline().model, whole.train.subset([0, 0])
    assert isinstance(model, EarlyFusion)
    model.prepare(Splits(still, whole.val), model.stages()[0])
    rows, row = fixture.batch(), still.batch(torch.tensor([0]))
    blown = torch.cat([(rows.inputs[name] - row.inputs[name]) / 1e-2 for name in names], 1)
    away = float((model.joint(rows) / blown - 1).abs().max().detach())
    yield Claim("a feature that never varies is taken to vary by 1/100", away, at_most=1e-3)
    fixture.epochs = 4
    host, batch = fixture.trained().model.eval(), fixture.batch()
    shares = host(batch).weights
    yield Claim("no modality has a share of the answer for itself", float(shares is not None), at_most=0)
    turned = {name: x.roll(1, 0) for name, x in batch.inputs.items()}
    first, others = {names[0]: turned[names[0]]}, {name: turned[name] for name in names[1:]}
    corners = [
        host(replace(batch, inputs={**batch.inputs, **change})).output.detach()
        for change in ({}, first, others, turned)
    ]
    effect, elsewhere = corners[1] - corners[0], corners[3] - corners[2]
    yield Claim(
        EarlyFusion.card.claims[0], float((elsewhere - effect).abs().mean() / effect.abs().mean()), at_least=0.1
    )
