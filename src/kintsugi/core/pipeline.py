"""A model with what stands before and around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError
from kintsugi.core.model import Model
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Stage
from kintsugi.core.wrappers import Answer, Inner, Monitor, Restorer, Strategy


class Pipeline(nn.Module):
    """restore -> model, trained through strategies, answering through monitors (the first of a list is outermost)."""

    own_encoders: dict[str, nn.Module]

    def __init__(
        self,
        model: Model,
        restore: Restorer | None = None,
        strategies: Sequence[Strategy] = (),
        monitors: Sequence[Monitor] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.restore = restore
        self.strategies = nn.ModuleList(strategies)
        self.monitors = nn.ModuleList(monitors)
        owners = [s for s in strategies if type(s).fit is not Strategy.fit]
        if len(owners) > 1:
            raise ConfigError(f"two strategies own the training loop: {', '.join(type(s).__name__ for s in owners)}")
        self._attach()
        self.training_part = "model"
        # modules of the user's own by modality, for models that are made during training; no part of this module tree
        self.__dict__["own_encoders"] = {}

    def _attach(self) -> None:
        for part in (*self.strategies, *self.monitors):
            part.attach(self.model)

    @property
    def schema(self) -> Schema:
        return self.model.schema

    def named_components(self) -> list[tuple[str, Component]]:
        """Every part under its path in the module tree."""
        parts: list[tuple[str, Component]] = [] if self.restore is None else [("restore", self.restore)]
        parts.append(("model", self.model))
        for group in ("strategies", "monitors"):
            parts += [(f"{group}.{i}", part) for i, part in enumerate(getattr(self, group))]
        return parts

    def plan(self) -> list[tuple[str, Stage]]:
        """Every stage in the order of training, with the path of the part that it trains."""
        stages = self.model.stages()
        for strategy in reversed(self.strategies):
            assert isinstance(strategy, Strategy)
            stages = strategy.plan(stages)
        before = [] if self.restore is None else [("restore", stage) for stage in self.restore.stages()]
        return before + [("model", stage) for stage in stages]

    def step(self, batch: Batch, side: Batch | None = None) -> Step:
        """The named losses of one batch."""
        if self.training_part == "restore":
            assert self.restore is not None
            return self.restore.step(batch, side)
        if self.restore is not None:
            with torch.no_grad():
                batch = self.restore.restore(batch)
                side = None if side is None else self.restore.restore(side)

        call: Inner = _keeping(self.model.step, side)
        for strategy in reversed(self.strategies):
            call = _around(strategy, call, side)  # type: ignore[arg-type]
        return call(batch)

    def forward(self, batch: Batch, side: Batch | None = None) -> dict[str, Tensor]:
        """The losses; the only call that is wrapped for several processes."""
        return self.step(batch, side).losses

    def answer(self, batch: Batch, inner: Answer | None = None) -> Prediction:
        """What is served. ``inner`` stands in for the model where its features are cached."""
        if self.restore is not None:
            batch = self.restore.restore(batch)
        call: Answer = self.model if inner is None else inner
        for monitor in reversed(self.monitors):
            call = _watched(monitor, call)  # type: ignore[arg-type]
        return call(batch)

    def finish(self) -> None:
        """After training: the model that is served takes the place of the one that was trained."""
        for strategy in reversed(self.strategies):
            assert isinstance(strategy, Strategy)
            self.model = strategy.finish(self.model)
        self._attach()

    def calibrate(self, data: Splits) -> None:
        """Monitors look at validation rows, innermost first."""
        for monitor in reversed(self.monitors):
            assert isinstance(monitor, Monitor)
            monitor.calibrate(data)


def _around(strategy: Strategy, call: Inner, side: Batch | None) -> Inner:
    return _keeping(lambda batch, current: strategy.step(batch, _keeping(call, current), current), side)


def _keeping(call: Callable[[Batch, Batch | None], Step], current: Batch | None) -> Inner:
    """The same, with the current side batch unless it is given another."""

    def step(batch: Batch, side: Batch | None = None) -> Step:
        return call(batch, current if side is None else side)

    return step


def _watched(monitor: Monitor, call: Answer) -> Answer:
    return lambda batch: monitor.answer(batch, call)
