"""A frozen single-stream transformer; the row's missing pattern picks the prompts of each layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Schema, Splits, Stage, ablation_of, claims_of,
    record_steps, register,
)  # fmt: skip
from kintsugi.imperfect import parse_mechanism
from kintsugi.layers.prompts import CasePrompts
from kintsugi.layers.streams import SingleStream

HOLES = 0.1  # of the training rows: with fewer, prompts of incomplete patterns would hardly learn. Proposed here.


@register(
    Card(
        key="missing_aware_prompts",
        name="Missing-aware prompts (MAP)",
        leaf="missing/prompt",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "one prompt for each missing case, picked by the row's pattern",
            "a frozen backbone with prompts at its first layers; only prompts, head and, as in the release, pooler move",
            "input-level and attention-level injection",
            "constant dummy tokens stand for an absent modality",
        ),
        simplified=(
            "a small transformer, pretrained on the complete training rows, stands for a downloaded ViLT",
            "with M modalities there are 2^M - 1 cases; the paper has two modalities",
            "where fewer than a tenth of the training rows have holes, parts of rows are hidden while prompts learn; the paper's "
            "rows have holes, and where they have, each row is taken as it is, as there",
            "one learning rate for all; the release tunes prompts at 1e-2, 100 times the rate of its fine-tuning",
        ),
        claims=(
            "the same tokens under another missing pattern get another answer",
            "a row moves the prompts of its own pattern, at each prompted layer, and no others",
            "prompts of the input stand before the tokens of their layer and stay there",
            "prompts of attention stand before the keys and the values of their layer",
        ),
        premise="a backbone pretrained on complete rows stays frozen, and which modalities are absent recurs or "
        "itself tells something of the target",
        worlds=("informative_absence",),
        confidence="high",
        version=3,
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
        self.holes = False  # in the training rows

    @classmethod
    def arguments_of_version(cls, version: int, hyper: dict[str, Any]) -> dict[str, Any] | None:
        """Version 2 hid parts of every row in training, and answered as this one does."""
        return hyper if version == 2 else None

    def stages(self) -> list[Stage]:
        return [
            Stage("pretrain", 0.6, trainable=("backbone.*", "encoders.*", "task_head.*"), rows="complete"),
            Stage("prompts", 0.4, trainable=("prompts.*", "task_head.*", "backbone.pooler.*"), view=self.view),
        ]

    def prepare(self, data: Splits, stage: Stage) -> None:
        """Have training rows holes of their own? What these tell would be diluted by drawn ones."""
        present = data.train.present
        incomplete = present.any(1) & ~present.all(1)
        self.holes = float(incomplete.sum()) >= HOLES * float(present.any(1).sum())

    def view(self, batch: Batch, generator: Generator) -> Tensor:
        """Of training rows with holes all that is there, else any part, each equally often: bool ``[B, M]``."""
        from kintsugi.training.views import subsets

        return batch.present if self.holes else subsets(batch, generator)

    def fuse(self, features: Features) -> Fused:
        return self.read(features, features.present)

    def read(self, features: Features, pattern: Tensor) -> Fused:
        """The backbone's summary under the prompts of this pattern (bool ``[B, M]``)."""
        tokens, mask, kinds = features.tokens()
        prompts = self.prompts_of(pattern) if self.clock.stage != "pretrain" else []
        if self.inject == "input":
            summary, _ = self.backbone(tokens, mask, kinds, prompts=prompts, show_absent=True)
        else:
            halves = [p.chunk(2, 1) for p in prompts]
            summary, _ = self.backbone(tokens, mask, kinds, attention_prompts=halves, show_absent=True)
        return Fused.vector(summary)

    def prompts_of(self, pattern: Tensor) -> list[Tensor]:
        """Those of each row's pattern, ``[B, length, D]`` a layer."""
        prompts: list[Tensor] = self.prompts(pattern)
        return prompts


@ablation_of(MissingAwarePrompts)
class SharedPrompts(MissingAwarePrompts):
    """Off: every pattern gets the same prompts, the mean of all cases, so that they tell nothing of the pattern."""

    def prompts_of(self, pattern: Tensor) -> list[Tensor]:
        shared = self.prompts.table.mean(0)
        return [prompt.expand(len(pattern), -1, -1) for prompt in shared.unbind(0)]


@claims_of(MissingAwarePrompts)
def claims(fixture: Fixture) -> Claims:
    """A short training with holes, and both ways of injection against the transformer written out."""
    train, _, _ = fixture.data.with_missing(parse_mechanism("mcar(0.1)"), seed=1).split()
    fixture.splits, fixture.epochs = Splits(train, fixture.splits.val, fixture.splits.test), 5
    pipeline = fixture.pipeline()
    model: Any = pipeline.model
    read = [model.arguments_of_version(version, {"dim": 8}) for version in (1, 2)]
    wrong = float(read != [None, {"dim": 8}])
    yield Claim("models of version 2 are read as they are, and older ones are not", wrong, at_most=0)
    steps = record_steps(model, "backbone")
    fixture.train(pipeline)
    first, second = steps.start
    own = {first: ("encoders.", "backbone.", "task_head."), second: ("prompts.", "backbone.pooler.", "task_head.")}
    foreign = [name for each in steps.taken for name in each.moving if not name.startswith(own[each.stage])]
    yield Claim("a stage moves its own parameters alone", len(foreign), at_most=0)
    dummies = sum("backbone.absent" in each.moving for each in steps.taken)
    yield Claim("the tokens of absent modalities are constant", dummies, at_most=0)
    now = model.backbone.state_dict()
    moved = [
        n
        for n, x in steps.start[second]["backbone"].state_dict().items()
        if not n.startswith("pooler.") and not torch.equal(x, now[n])
    ]
    yield Claim("the backbone stays as it was pretrained", len(moved), at_most=0)
    complete = [batch.present.all(1) for batch in steps.batches(first)]
    yield Claim("the backbone is pretrained on complete rows alone", float((~torch.cat(complete)).sum()), at_most=0)
    epochs = len(complete) / math.ceil(int(train.present.all(1).sum()) / 64)
    yield Claim("three of five epochs pretrain", abs(epochs - 3), at_most=0)
    whole = {int(i): present for i, present in zip(train.index, train.present, strict=True)}
    later = steps.batches(second)
    hidden = sum(int((whole[int(i)] != p).sum()) for b in later for i, p in zip(b.index, b.present, strict=True))
    yield Claim("prompts learn from rows as they are, where these have holes", hidden, at_most=0)
    fresh: Any = fixture.pipeline().model
    complete_rows = fixture.batch(80)
    fresh.prepare(fixture.world().splits, fresh.stages()[1])
    keep = fresh.stages()[1].view(complete_rows, torch.Generator().manual_seed(0))
    yield Claim("and from any part of rows, where all are complete", float((~keep.all(1)).float().mean()), at_least=0.7)

    patterns = torch.tensor([[True, False, False], [False, True, True], [True, False, True], [True, True, True]])
    batch = fixture.batch(32).map(lambda x: x.double() if x.is_floating_point() else x).where(patterns.repeat(8, 1))
    other: Any = fixture.pipeline(inject="attention").model
    other.clock.stage = model.clock.stage
    features = model.double().encode(batch)
    as_if_complete = model.read(features, torch.ones_like(batch.present)).pooled()
    changed = (model.read(features, batch.present).pooled() - as_if_complete).abs().amax(1) > 1e-6
    yield Claim(MissingAwarePrompts.card.claims[0], float(changed[~batch.present.all(1)].double().mean()), at_least=1.0)
    strange = max(_prompts_of_others(each.double(), batch) for each in (model, other))
    yield Claim(MissingAwarePrompts.card.claims[1], strange, at_most=0)
    for name, each in zip(MissingAwarePrompts.card.claims[2:], (model, other), strict=True):
        yield Claim(name, _gap_to_formula(each, batch), at_most=1e-9)
    pair = CasePrompts(2, 1, 4, 1).table.detach()[:, 0, :, 0]  # cases: text alone, image alone, both
    yield Claim("prompts start as released", float((pair - torch.eye(4)[[1, 2, 0]]).abs().max()), at_most=0)
    starts = CasePrompts(4, 1, 4, 1).table.flatten(1).tolist()
    yield Claim("no two cases of four modalities start alike", len(starts) - len(set(map(tuple, starts))), at_most=0)


def _prompts_of_others(model: Any, batch: Batch) -> int:
    """How many prompts (of a case and a layer) of other patterns a row's answer moves, and how many of its own it does not."""
    wrong = 0
    model.prompts.requires_grad_(True)
    for row in range(4):
        output = model(batch.rows(torch.tensor([row]))).output
        (slope,) = torch.autograd.grad(output.square().sum(), model.prompts.table, allow_unused=True)
        moves = torch.zeros(model.prompts.table.shape[:2]) if slope is None else slope.abs().sum((2, 3)) > 0
        own = sum(2**i for i, here in enumerate(batch.present[row].tolist()) if here) - 1
        expected = torch.arange(len(moves))[:, None].eq(own).expand_as(moves)
        wrong += int((moves != expected).sum())
    return wrong


def _gap_to_formula(model: Any, batch: Batch) -> float:
    """Largest difference to the transformer written out: in its answers, and in any gradient of their squares."""
    with torch.no_grad():
        model.prompts.table.normal_(generator=torch.Generator().manual_seed(0))
    outputs = [model(batch).output, _written_out(model, batch)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    slopes = [
        torch.autograd.grad(x.square().sum(), parameters, materialize_grads=True, allow_unused=True) for x in outputs
    ]
    return max(float((a - b).detach().abs().max()) for a, b in [outputs, *zip(*slopes, strict=True)])


def _written_out(model: Any, batch: Batch) -> Tensor:
    """The answers ``[B, K]`` of figure 2 of Lee et al. (2023) with one token a modality."""
    backbone, inside = model.backbone, model.inject == "attention"
    tokens = torch.where(batch.present[..., None], model.encode(batch).pooled(), backbone.absent) + backbone.kind
    x = torch.cat([backbone.cls.expand(len(tokens), 1, -1), tokens], 1)
    case = (batch.present * 2 ** torch.arange(len(batch.names))).sum(1) - 1
    for i, block in enumerate(backbone.blocks):
        prompt = model.prompts.table[case, i] if i < model.prompts.table.shape[1] else x[:, :0]
        x = x if inside else torch.cat([prompt, x], 1)
        query, key, value = block.attention.qkv(block.norm1(x)).chunk(3, -1)
        if inside:
            half = prompt.shape[1] // 2
            key, value = torch.cat([prompt[:, :half], key], 1), torch.cat([prompt[:, half:], value], 1)
        heads = (y.unflatten(2, (block.attention.heads, -1)).transpose(1, 2) for y in (query, key, value))
        x = x + block.attention.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    summary = torch.tanh(backbone.pooler(backbone.norm(x[:, -1 - len(batch.names)])))
    answer: Tensor = model.task_head.linear(summary)
    return answer
