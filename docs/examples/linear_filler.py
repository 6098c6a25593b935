"""What is absent is filled in from what is there by one linear map for each modality."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch,
    Card,
    Claim,
    Claims,
    Fixture,
    Restorer,
    Schema,
    Splits,
    Stage,
    Step,
    ablation_of,
    claims_of,
    register,
)  # fmt: skip
from kintsugi.encoders.lowlevel import lowlevel
from kintsugi.losses.distance import mse


@register(
    Card(
        key="linear_filler",
        name="Linear filler",
        leaf="missing/generative",
        imperfection=("missing at test",),
        faithful=(
            "plain features of what is there predict the input of what is absent",
            "trained on slots that a view hides from whole rows, before the model is",
        ),
        simplified=("inputs of variable length, and words, are left absent",),
        claims=("a hidden input is nearer to what is filled in than to the mean of the training rows",),
        premise="modalities predict each other, and the model cannot stand holes",
        worlds=("redundant",),
        confidence="high",
        cite="mean_fusion",
    )
)
class LinearFiller(Restorer):
    """Fills absent inputs of fixed shape from the features of the others.

    Args:
        weight: of the squared error of what is filled in, in units of the training rows.
    """

    def __init__(self, schema: Schema, weight: float = 1.0) -> None:
        super().__init__()
        self.schema, self.weight = schema, weight
        self.read = nn.ModuleDict({m.name: lowlevel(m) for m in schema.modalities})
        self.width = sum(int(reader.features) for reader in self.read.values())  # type: ignore[arg-type]
        self.fillers = nn.ModuleDict()
        for m in schema.modalities:
            if m.kind in ("vector", "image"):
                shape = [int(n or 1) for n in m.shape]
                self.fillers[m.name] = filler = nn.Linear(self.width + len(schema), int(torch.Size(shape).numel()))
                nn.init.zeros_(filler.weight)
        self.register_buffer("scale", torch.stack([torch.zeros(self.width), torch.ones(self.width)]))

    def stages(self) -> list[Stage]:
        return [Stage("fill", view="proper", rows="complete")] if self.fillers else []

    def prepare(self, data: Splits, stage: Stage) -> None:
        if stage.name == "fill":
            rows = data.train.positions("complete")
            x = torch.cat([self.features(batch)[0] for batch in data.train.batches(256, rows)])
            self.get_buffer("scale").copy_(torch.stack([x.mean(0), x.std(0).clamp(min=1e-2)]))

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Plain features ``[B, F]`` with zeros where a modality is absent, and bool ``[B, F]``: which are there."""
        parts, there = [], []
        for column, (name, reader) in enumerate(self.read.items()):
            x: Tensor = reader(batch.inputs[name], batch.mask.get(name))
            seen = batch.present[:, column, None].expand_as(x)
            parts.append(torch.where(seen, x, 0))
            there.append(seen)
        return torch.cat(parts, 1), torch.cat(there, 1)

    def filled(self, batch: Batch) -> dict[str, Tensor]:
        """What each modality with a filler may look like, ``[B, ...]``."""
        x, there = self.features(batch)
        mean, spread = self.get_buffer("scale")
        known = torch.cat([torch.where(there, (x - mean) / spread, 0), batch.present.to(x.dtype)], 1)
        return {name: filler(known).view_as(batch.inputs[name]) for name, filler in self.fillers.items()}

    def restore(self, batch: Batch) -> Batch:
        inputs, present = dict(batch.inputs), batch.present.clone()
        for name, guess in self.filled(batch).items():
            column = batch.names.index(name)
            seen = batch.present[:, column].view(-1, *[1] * (guess.ndim - 1))
            inputs[name] = torch.where(seen, inputs[name], guess.to(inputs[name].dtype))
            present[:, column] = True
        return replace(batch, inputs=inputs, present=present)

    def step(self, batch: Batch) -> Step:
        """Only slots that the view hid have a target, and only the losses see it."""
        assert batch.truth is not None
        hidden = batch.truth.present & ~batch.present
        losses = [
            mse(guess, batch.truth.inputs[name], hidden[:, batch.names.index(name)])
            for name, guess in self.filled(batch).items()
        ]
        return Step({"fill": self.weight * torch.stack(losses).sum()})


@ablation_of(LinearFiller)
class Unfilled(LinearFiller):
    """Off: holes stay holes, and nothing is trained."""

    def __init__(self, schema: Schema, weight: float = 1.0) -> None:
        super().__init__(schema, weight)
        self.fillers = nn.ModuleDict()


@claims_of(LinearFiller)
def claims(fixture: Fixture) -> Claims:
    """Squared errors of what is filled in, against those of the mean."""
    world = fixture.world(correlated=True)
    pipeline = world.trained().eval()
    batch = world.batch(64)
    assert pipeline.restore is not None
    errors, spreads, moved = 0.0, 0.0, 0
    for column, name in enumerate(world.schema.names):
        holes = batch.where(torch.arange(len(world.schema)) != column)
        holes = replace(holes, inputs={**holes.inputs, name: torch.zeros_like(holes.inputs[name])})
        with torch.no_grad():
            mended = pipeline.restore.restore(holes)
        true = batch.inputs[name]
        errors += float((mended.inputs[name] - true).square().mean())
        spreads += float((true - true.mean(0)).square().mean())
        others = [n for n in world.schema.names if n != name]
        moved += sum(not torch.equal(mended.inputs[n], batch.inputs[n]) for n in others)
    yield Claim(LinearFiller.card.claims[0], errors / spreads, at_most=1.0)
    yield Claim("inputs changed that were there", moved, at_most=0)
