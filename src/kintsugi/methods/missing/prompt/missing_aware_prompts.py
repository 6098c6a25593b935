"""A frozen single-stream transformer; the row's missing pattern picks the prompts of each layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kintsugi.core.claims import held
from kintsugi.core import (
    Claim,
    Claims,
    Card,
    ConfigError,
    Features,
    Fused,
    Fixture,
    Model,
    Schema,
    Stage,
    ablation_of,
    claims_of,
    register,
)
from kintsugi.layers.prompts import CasePrompts
from kintsugi.layers.streams import SingleStream


@register(
    Card(
        key="missing_aware_prompts",
        name="Missing-aware prompts (MAP)",
        leaf="missing/prompt",
        imperfection=("missing at test", "missing in training"),
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
        claims=("flipping the case changes the answer only through the prompt; other cases' prompts get no gradient",),
        premise="a backbone pretrained on complete rows stays frozen, and which modalities are absent recurs or "
        "itself tells something of the target",
        confidence="high",
        defaults_from="the release: prompts in the first half of the layers; length 16 of 12 layers is scaled to 4 of 4",
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

    def __init__(
        self, schema: Schema, dim: int = 32, depth: int = 4, length: int = 4, prompted: int = 2, inject: str = "input"
    ) -> None:  # fmt: skip
        super().__init__(schema, dim)
        if inject not in ("input", "attention"):
            raise ConfigError(f"unknown injection {inject!r}; known: input, attention")
        if not 1 <= prompted <= depth or length < 2 or length % 2:
            raise ConfigError(f"prompted must be 1 to depth ({depth}) and length even; got {prompted} and {length}")
        self.backbone = SingleStream(dim, depth, len(schema))
        self.backbone.absent.requires_grad_(False)  # dummies are constants: an empty text, an image of ones
        self.prompts = CasePrompts(len(schema), prompted, length, dim, attention=inject == "attention")
        self.inject = inject

    def stages(self) -> list[Stage]:
        return [
            Stage("pretrain", 0.6, trainable=("backbone.*", "encoders.*", "task_head.*"), rows="complete"),
            Stage("prompts", 0.4, trainable=("prompts.*", "task_head.*", "backbone.pooler.*"), view="subsets"),
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


@ablation_of(MissingAwarePrompts)
class Unprompted(MissingAwarePrompts):
    """Off: the same backbone and dummies without prompts."""

    def stages(self) -> list[Stage]:
        pretrain, tune = super().stages()
        return [pretrain, Stage("tune", tune.fraction, trainable=("task_head.*", "backbone.pooler.*"), view="subsets")]

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **hyper)
        self.prompts.requires_grad_(False)

    def read(self, features: Features, pattern: Tensor) -> Fused:
        summary, _ = self.backbone(*features.tokens(), show_absent=True)
        return Fused.vector(summary)


def the_pattern_acts_through_its_prompt(fixture: Fixture) -> None:
    """See the card's ``check``."""
    model = fixture.trained().model
    assert isinstance(model, MissingAwarePrompts)
    features = model.encode(fixture.batch().only("m0", "m1"))
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


@claims_of(MissingAwarePrompts)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(MissingAwarePrompts.card.claims[0], held(the_pattern_acts_through_its_prompt, fixture), at_least=1.0)
