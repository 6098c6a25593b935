"""A frozen single-stream transformer; the row's missing pattern picks the prompts of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kintsugi.core.card import Card
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Features, Fused
from kintsugi.core.methods import register
from kintsugi.core.model import Model
from kintsugi.core.part import Part
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Stage
from kintsugi.layers.prompts import CasePrompts
from kintsugi.layers.streams import SingleStream
from kintsugi.training.lab import Lab


@register(
    Card(
        key="missing_aware_prompts",
        name="Missing-aware prompts (MAP)",
        paper="Lee, Tsai, Chiu and Lee: Multimodal Prompting with Missing Modalities for Visual Recognition",
        venue="CVPR 2023",
        leaf="missing/prompt",
        faithful=(
            "one prompt for each missing case, picked by the row's pattern",
            "a frozen backbone with prompts at its first layers; only prompts and head move",
            "input-level and attention-level injection",
            "constant dummy tokens stand for an absent modality",
        ),
        simplified=(
            "a small transformer, pretrained on the complete training rows, stands for a downloaded ViLT",
            "with M modalities there are 2^M - 1 cases; the paper has two modalities",
        ),
        defaults_from="the release: prompts in the first half of the layers; length 16 of 12 layers is scaled to 4 of 4",
        check="flipping the case changes the answer only through the prompt; other cases' prompts get no gradient",
        imperfection=frozenset({"missing at test", "missing in training"}),
        tasks=frozenset({"classification", "multilabel", "regression"}),
        modalities=(2, 8),
        cost="medium",
    )
)
class MissingAwarePrompts(Model):
    """Missing-aware prompts.

    Args:
        dim, depth: of the backbone.
        length: tokens of a prompt. prompted: layers that get one, from the first.
        inject: ``input`` (before the tokens of a layer) or ``attention`` (halves before its keys and values).
    """

    off: ClassVar[dict[str, Any] | type[Part]]

    def __init__(
        self, schema: Schema, dim: int = 32, depth: int = 4, length: int = 4, prompted: int = 2, inject: str = "input",
        encoders: Mapping[str, nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(schema, dim, encoders)
        if inject not in ("input", "attention"):
            raise ConfigError(f"unknown injection {inject!r}; known: input, attention")
        if not 1 <= prompted <= depth or length < 2 or length % 2:
            raise ConfigError(f"prompted must be 1 to depth ({depth}) and length even; got {prompted} and {length}")
        self.backbone = SingleStream(dim, depth, len(schema))
        self.backbone.absent.requires_grad_(False)  # dummies are constants: an empty text, an image of ones
        self.prompts = CasePrompts(len(schema), prompted, length, dim)
        self.inject = inject

    def stages(self) -> list[Stage]:
        return [
            Stage("pretrain", 0.6, train=("backbone.*", "encoders.*", "task_head.*"), rows="complete"),
            Stage("prompts", 0.4, train=("prompts.*", "task_head.*", "backbone.pooler.*"), view="subsets"),
        ]

    def fuse(self, features: Features) -> Fused:
        return self.read(features, features.present)

    def read(self, features: Features, pattern: Tensor) -> Fused:
        """The backbone's summary under the prompts of this pattern (bool ``[B, M]``)."""
        tokens, mask, kinds = features.tokens()
        prompts = self.prompts(pattern) if self.clock.stage != "pretrain" else []
        if self.inject == "input":
            summary, _ = self.backbone(tokens, mask, kinds, prompts=prompts, show_absent=True)
        else:
            halves = [p.chunk(2, 1) for p in prompts]
            summary, _ = self.backbone(tokens, mask, kinds, attention_prompts=halves, show_absent=True)
        return Fused.vector(summary)

    @staticmethod
    def mechanism(lab: Lab) -> None:
        """See the card's ``check``."""
        model = lab.trained().model
        assert isinstance(model, MissingAwarePrompts)
        features = model.encode(lab.batch().only("m0", "m1"))
        told = torch.ones_like(features.present)
        cases = [model.read(features, pattern).pooled() for pattern in (features.present, told)]
        assert not torch.allclose(cases[0], cases[1]), "the pattern does not matter"
        model.prompts.table.grad = None
        cases[0].pow(2).sum().backward()
        grad = model.prompts.table.grad
        assert grad is not None
        touched = grad.flatten(1).abs().sum(1) > 0
        assert touched.nonzero().flatten().tolist() == [0b011 - 1], "a prompt of another case moves"
        with torch.no_grad():
            model.prompts.table[0b111 - 1] = model.prompts.table[0b011 - 1]
            again = [model.read(features, pattern).pooled() for pattern in (features.present, told)]
        assert torch.equal(*again), "the pattern matters in another way than through its prompt"


class Unprompted(MissingAwarePrompts):
    """Off: the same backbone and dummies without prompts."""

    def stages(self) -> list[Stage]:
        pretrain, tune = super().stages()
        return [pretrain, Stage("tune", tune.share, train=("task_head.*", "backbone.pooler.*"), view="subsets")]

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **hyper)
        self.prompts.requires_grad_(False)

    def read(self, features: Features, pattern: Tensor) -> Fused:
        summary, _ = self.backbone(*features.tokens(), show_absent=True)
        return Fused.vector(summary)


MissingAwarePrompts.off = Unprompted
