"""The plain host: encode each modality, average what is there, one head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kintsugi.core.card import Card
from kintsugi.core.features import Features, Fused
from kintsugi.core.methods import register
from kintsugi.core.model import Model
from kintsugi.core.part import Part
from kintsugi.core.schema import Schema
from kintsugi.training.lab import Lab


@register(
    Card(
        key="mean_fusion",
        name="Mean fusion",
        paper="the plain host of this library; feature averaging as a baseline, e.g. in Ngiam et al., Multimodal Deep Learning",
        venue="ICML 2011",
        leaf="general",
        faithful=("one encoder a modality", "the mean over present modalities", "one head on the mean"),
        simplified=(),
        defaults_from="this library",
        check="with one modality present the fused vector is that modality's pooled feature, whatever else stands in the row",
        imperfection=frozenset({"missing at test", "missing in training"}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        modalities=(1, None),
        joint=False,
    )
)
class MeanFusion(Model):
    """Average the pooled features of the present modalities."""

    off: ClassVar[dict[str, Any] | type[Part]]

    def __init__(self, schema: Schema, dim: int = 32, encoders: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__(schema, dim, encoders)

    @staticmethod
    def mechanism(lab: Lab) -> None:
        """See the card's ``check``."""
        model = lab.pipeline().model.eval()
        features = model.encode(lab.batch())
        for i, name in enumerate(lab.schema.names):
            alone = torch.tensor([m == name for m in lab.schema.names])
            fused = model.fuse(features.where(alone)).pooled()
            assert torch.equal(fused, features.pooled()[:, i]), f"absent modalities change the mean of {name}"


class ZeroFill(MeanFusion):
    """Off: divides by all modalities, so that an absent one pulls the mean towards zero."""

    def fuse(self, features: Features) -> Fused:
        weights: Tensor = features.present / len(self.schema)
        return Fused.vector(features.pooled().mean(1), weights=weights)


MeanFusion.off = ZeroFill
