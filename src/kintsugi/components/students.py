"""Students: plain models that learn from labels and from a teacher."""

from __future__ import annotations

from kintsugi.core.features import Features, Fused
from kintsugi.core.methods import COMPONENTS
from kintsugi.core.model import Model
from kintsugi.core.schema import Schema
from kintsugi.layers.mlp import mlp


@COMPONENTS.register("concatenation_fusion")
class ConcatenationFusion(Model):
    """One encoder for each modality, their features side by side, a hidden layer, one head. What is absent is zero."""

    def __init__(self, schema: Schema, dim: int = 32, hidden: int = 128) -> None:
        super().__init__(schema, dim, fused=hidden)
        self.trunk = mlp([dim * len(schema), hidden], last=True)

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(self.trunk(features.flat()))
