"""The strongest present modality decides each number of the joint feature."""

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
        key="max_fusion",
        name="Maximum fusion",
        paper="an example for authors of methods; element-wise maximum as a way to join features",
        venue="this guide",
        leaf="general",
        faithful=("one encoder a modality", "the element-wise maximum over present modalities", "one head on it"),
        simplified=(),
        defaults_from="this library",
        check="with one modality present the fused vector is that modality's pooled feature, negative numbers too",
        imperfection=frozenset({"missing at test", "missing in training"}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        modalities=(1, None),
    )
)
class MaxFusion(Model):
    """Element-wise maximum of the pooled features of the present modalities.

    Args:
        gain: factor of the maximum before the head.
    """

    off: ClassVar[dict[str, Any] | type[Part]]

    def __init__(
        self, schema: Schema, dim: int = 32, gain: float = 1.0, encoders: Mapping[str, nn.Module] | None = None
    ) -> None:
        super().__init__(schema, dim, encoders)
        self.gain = gain

    def fuse(self, features: Features) -> Fused:
        candidates = self.candidates(features.pooled(), features.present)
        highest = candidates.amax(1)
        return Fused.vector(self.gain * torch.where(torch.isfinite(highest), highest, 0))

    def candidates(self, pooled: Tensor, present: Tensor) -> Tensor:
        """What may win, ``[B, M, D]``: absent modalities never do."""
        return pooled.masked_fill(~present[..., None], -torch.inf)

    @staticmethod
    def mechanism(lab: Lab) -> None:
        """See the card's ``check``."""
        model = lab.pipeline().model.eval()
        features = model.encode(lab.batch())
        for i, name in enumerate(lab.schema.names):
            alone = torch.tensor([m == name for m in lab.schema.names])
            fused = model.fuse(features.where(alone)).pooled()
            assert torch.equal(fused, features.pooled()[:, i]), f"absent modalities change the maximum of {name}"


class ZerosCompete(MaxFusion):
    """Off: absent modalities take part with zeros, so that no negative number survives them."""

    def candidates(self, pooled: Tensor, present: Tensor) -> Tensor:
        return pooled


MaxFusion.off = ZerosCompete
