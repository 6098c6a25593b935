"""Low-level features side by side, one model on all of them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kintsugi.core.claims import held
from kintsugi.core import (
    Claim, Claims, Batch, Card, ConfigError, Features, Fused, Fixture, Model, Schema, Splits, Stage, Stream, ablation_of,
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
        claims=(
            "mixed second derivatives of the output across modalities are non-zero; the filler is used exactly "
            "where absent",
        ),
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
            here = batch.present[:, i, None]
            mean, spread = self.scale[i]
            x = (self._features(name, batch) - mean) / spread
            parts.append(torch.where(here, x, self._filler(i).to(x.dtype)))
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
    """Off: a trunk for each modality, their answers added: nothing is joint any more."""

    def __init__(self, schema: Schema, hidden: int = 128, fill: str = "token", dropout: float = 0.1) -> None:
        super().__init__(schema, hidden, fill, dropout)
        sizes = [p.numel() for p in self.filler]
        self.trunk = nn.ModuleList(
            [nn.Sequential(nn.Linear(n, hidden), nn.GELU(), nn.Linear(hidden, hidden)) for n in sizes]
        )  # type: ignore[assignment]

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        pieces = self.joint(batch).split([p.numel() for p in self.filler], 1)
        summed = torch.stack([part(x) for part, x in zip(self.trunk, pieces, strict=True)]).sum(0)
        return Features({"joint": Stream.vector(summed)}, batch.present)


def modalities_interact_and_fillers_fill(fixture: Fixture) -> None:
    """See the card's ``check``."""
    model = fixture.trained().model
    assert isinstance(model, EarlyFusion)
    batch = fixture.batch()
    first, second = (batch.inputs[name].requires_grad_() for name in fixture.schema.names[:2])
    (slope,) = torch.autograd.grad(model(batch).output[:, 0].sum(), first, create_graph=True)
    mixed = torch.autograd.grad(slope.sum(), second, allow_unused=True)[0] if slope.requires_grad else None
    assert mixed is not None, "the first modality's effect does not depend on the second"
    assert float(mixed.abs().max()) > 1e-6, "the first modality's effect does not depend on the second"
    filled = model.joint(batch.only(fixture.schema.names[1])).split([p.numel() for p in model.filler], 1)
    assert torch.equal(filled[0], model.filler[0].expand_as(filled[0])), "the absent part is not the filler"
    assert not torch.equal(filled[1], model.filler[1].expand_as(filled[1])), "a present part is filled"


@claims_of(EarlyFusion)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(EarlyFusion.card.claims[0], held(modalities_interact_and_fillers_fill, fixture), at_least=1.0)
