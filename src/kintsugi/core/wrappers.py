"""Components around a model: restorers before it, strategies around its training, monitors around its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from kintsugi.core.batch import Batch
from kintsugi.core.component import Component
from kintsugi.core.model import Model
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.stage import Stage

if TYPE_CHECKING:
    from kintsugi.core.data import Splits
    from kintsugi.core.pipeline import Pipeline

Answer = Callable[[Batch], Prediction]
Inner = Callable[[Batch], Step]


class Runner(Protocol):
    """What a strategy may ask of the trainer."""

    def run(
        self, pipeline: Pipeline, stage: Stage, data: Splits, epochs: int | None = None, updates: int | None = None
    ) -> None:
        """One stage of the model: its fraction of the budget, or so many epochs or updates."""
        ...

    def run_all(self, pipeline: Pipeline, data: Splits) -> None: ...


class Restorer(Component):
    """Mends a batch before the model sees it, in training as in use."""

    def restore(self, batch: Batch) -> Batch:
        """The batch with holes filled or damage undone; ``present`` says what the model may use.

        A row in which nothing came in stays with nothing, and an answer's ``used`` never names what was filled: the pipeline
        sees to both.
        """
        raise NotImplementedError

    def step(self, batch: Batch) -> Step:
        """The restorer's own objective, for its own stages; the clean batch is in ``batch.truth`` where views or an
        augmentation took something away."""
        raise NotImplementedError(f"{type(self).__name__} has stages but no step()")


class _Around(Component):
    """A component that refers to the model without owning its parameters."""

    @property
    def host(self) -> Model:
        """The model that this component stands around."""
        return self.pipeline_in_use.model


class Strategy(_Around):
    """Changes how a model is trained. It is gone from what is served."""

    def adjust_stages(self, stages: list[Stage]) -> list[Stage]:
        """May change rows, auxiliary rows and view of the model's stages."""
        return stages

    def augment(self, batch: Batch) -> Batch:
        """What is done to each training batch, of every stage, before anything is restored or encoded.

        A strategy that damages rows leaves the batch of before in ``truth``.
        """
        return batch

    def step(self, batch: Batch, inner: Inner) -> Step:
        """Around the model's step; the first strategy of a pipeline is outermost."""
        return inner(batch)

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
        """Owns the loop: teachers are trained here by ``trainer.run_all`` on pipelines of their own."""
        trainer.run_all(pipeline, data)

    def finish(self, model: Model) -> Model:
        """What is served."""
        return model


class Monitor(_Around):
    """Watches and corrects a model in use.

    adapts: its answers change the model or itself. It is asked row after row, in the order in which rows are given and
    with gradients on, so that the size of a batch changes nothing; it starts from the calibrated state, to which
    ``Pipeline.reset`` leads back bit for bit, and draws from ``noise`` alone.
    """

    adapts: ClassVar[bool] = False

    @property
    def noise(self) -> torch.Generator:
        """Where an adapting monitor draws from, each of a pipeline its own numbers; seeded anew by each reset."""
        if "noise_" not in self.__dict__:
            place = next(i for i, monitor in enumerate(self.pipeline_in_use.monitors) if monitor is self)
            self.__dict__["noise_"] = torch.Generator().manual_seed(place)
            if "noise_state_" in self.__dict__:
                self.__dict__["noise_"].set_state(self.__dict__.pop("noise_state_"))
        generator: torch.Generator = self.__dict__["noise_"]
        return generator

    def calibrate(self, data: Splits) -> None:
        """Once after training, on ``data.val``, without gradient."""

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        """Around the model's answer; the first monitor of a pipeline is outermost."""
        return inner(batch)

    def forget_noise(self) -> None:
        """``noise`` starts anew."""
        for name in ("noise_", "noise_state_"):
            self.__dict__.pop(name, None)

    def reset(self) -> None:
        """State that is no parameter or buffer, such as an optimiser's, is let go; the pipeline restores all tensors."""
