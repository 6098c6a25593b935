"""What a method says that it does, in figures that can fail."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError


@dataclass(frozen=True)
class Claim:
    """One named claim: a figure, and the bound that it has to keep.

    name: a sentence; the card names those that the ablation must fail.
    figure: what was measured: a share, a ratio, a number of violations.
    at_least, at_most: the bound; one of the two.

    Raises:
        ConfigError: no bound, or both.
    """

    name: str
    figure: float
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ConfigError(f"claim {self.name!r}: say at_least or at_most, one of the two")

    @property
    def margin(self) -> float:
        """How far the figure is on the good side of its bound; below 0: the claim fails. NaN is as bad as can be."""
        if math.isnan(self.figure):
            return -math.inf
        return self.figure - self.at_least if self.at_least is not None else float(self.at_most or 0) - self.figure

    @property
    def holds(self) -> bool:
        return self.margin >= 0

    @property
    def bound(self) -> str:
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def __str__(self) -> str:
        return f"{self.name}: {self.figure:.4g} ({self.bound})"


Claims = Iterator[Claim]  # what a check gives: ``yield Claim(...)`` for each


def difference(a: Tensor, b: Tensor, model: nn.Module | None = None) -> float:
    """Largest difference of two tensors of one shape; with a model also of their gradients by its parameters.

    The gradients are of a sum in which every value has another weight, so that values that change places are noticed.
    """
    gaps = [(a - b).abs().max()]
    if model is not None:
        weights = torch.linspace(-1, 1, a.numel(), dtype=a.dtype).view_as(a) if a.ndim else torch.ones_like(a)
        moving = [p for p in model.parameters() if p.requires_grad]
        slopes = [
            torch.autograd.grad(
                (x * weights).sum(), moving, retain_graph=True, materialize_grads=True, allow_unused=True
            )
            if x.requires_grad
            else [torch.zeros_like(p) for p in moving]
            for x in (a, b)
        ]
        gaps += [(x - y).abs().max() for x, y in zip(*slopes, strict=True)]
    return float(torch.stack([gap.detach().double() for gap in gaps]).max())


def every_subset(batch: Batch) -> Batch:
    """Its rows with every subset of the modalities that is not empty, in turn."""
    count = len(batch.names)
    subset = torch.arange(len(batch), device=batch.device) % (2**count - 1) + 1
    return batch.where((subset[:, None] >> torch.arange(count, device=batch.device)) % 2 == 1)


@dataclass(frozen=True)
class Taken:
    """One step of a training. stage, epoch: of the model's clock; batch: what it was given; moving: names of its parameters."""

    stage: str
    epoch: int
    batch: Batch
    moving: frozenset[str]

    @property
    def modules(self) -> set[str]:
        """Names of the model's modules that have a parameter which moves."""
        return {name.split(".")[0] for name in self.moving}


@dataclass
class Steps:
    """The steps that a model took. start: stage -> name -> copies of modules as its first step found them."""

    taken: list[Taken] = field(default_factory=list)
    start: dict[str, dict[str, Any]] = field(default_factory=dict)

    def batches(self, stage: str) -> list[Batch]:
        """Those of one stage."""
        return [each.batch for each in self.taken if each.stage == stage]


def before_each_step(model: nn.Module, note: Callable[[Batch], None]) -> None:
    """From now on ``note`` is given each batch before the model's ``step`` is."""
    step: Any = model.step

    def noted(batch: Batch) -> Any:
        note(batch)
        return step(batch)

    model.__dict__["step"] = noted


def record_steps(model: Any, *kept: str) -> Steps:
    """What a training that follows does: each step, and copies of the modules ``kept`` from the start of every stage."""
    steps = Steps()

    def note(batch: Batch) -> None:
        stage = model.clock.stage
        if stage not in steps.start:
            steps.start[stage] = {name: copy.deepcopy(model.get_submodule(name)) for name in kept}
        moving = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        steps.taken.append(Taken(stage, model.clock.epoch, batch, moving))

    before_each_step(model, note)
    return steps
