"""Parts that stand around a model: restorers before it, strategies around its training, monitors around its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from kintsugi.core.batch import Batch
from kintsugi.core.catalogue import METHODS
from kintsugi.core.component import Component
from kintsugi.core.model import Model
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.stage import Stage

if TYPE_CHECKING:
    from kintsugi.core.data import Splits
    from kintsugi.core.pipeline import Pipeline
    from kintsugi.core.schema import Schema

Answer = Callable[[Batch], Prediction]


class Inner(Protocol):
    """What a strategy wraps; it keeps the current side batch unless given another."""

    def __call__(self, batch: Batch, side: Batch | None = None) -> Step: ...


class Runner(Protocol):
    """What a strategy may ask of the trainer."""

    def run(self, pipeline: Pipeline, stage: Stage, data: Splits) -> None: ...

    def run_all(self, pipeline: Pipeline, data: Splits) -> None: ...


class Restorer(Component):
    """Mends a batch before the model sees it."""

    def restore(self, batch: Batch) -> Batch:
        """The batch with holes filled or damage undone; ``present`` says what the model may use."""
        raise NotImplementedError

    def step(self, batch: Batch, side: Batch | None = None) -> Step:
        """The restorer's own objective, for its own stages."""
        raise NotImplementedError(f"{type(self).__name__} has stages but no step()")

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, **hyper: Any) -> Pipeline:
        return _pipeline(schema, host, restore=cls(schema, **hyper))  # type: ignore[call-arg]


class _Around(Component):
    """A part that refers to the model without owning its parameters."""

    @property
    def host(self) -> Model:
        """The model that this part stands around."""
        host: Model = self.__dict__["host_"]
        return host

    def attach(self, model: Model) -> None:
        """Called by the pipeline; kept out of the module tree, so that parameters have one owner."""
        self.__dict__["host_"] = model


class Strategy(_Around):
    """Changes how a model is trained."""

    def plan(self, stages: list[Stage]) -> list[Stage]:
        """May change rows, side and view of the model's stages."""
        return stages

    def step(self, batch: Batch, inner: Inner, side: Batch | None = None) -> Step:
        """Around the model's step; the first strategy of a pipeline is outermost."""
        return inner(batch)

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
        """Owns the loop: teachers are trained here by ``trainer.run_all`` on pipelines of their own."""
        trainer.run_all(pipeline, data)

    def finish(self, model: Model) -> Model:
        """What is served."""
        return model

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, **hyper: Any) -> Pipeline:
        return _pipeline(schema, host, strategies=[cls(schema, **hyper)])  # type: ignore[call-arg]


class Monitor(_Around):
    """Watches and corrects a model in use."""

    adapts: ClassVar[bool] = False

    def calibrate(self, data: Splits) -> None:
        """Once after training, on ``data.val``."""

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        """Around the model's answer; the first monitor of a pipeline is outermost."""
        return inner(batch)

    def reset(self) -> None:
        """Back to the calibrated state, bit for bit."""

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, **hyper: Any) -> Pipeline:
        return _pipeline(schema, host, monitors=[cls(schema, **hyper)])  # type: ignore[call-arg]


def _pipeline(schema: Schema, host: Model | None, **parts: Any) -> Pipeline:
    from kintsugi.core.pipeline import Pipeline

    return Pipeline(METHODS["mean_fusion"](schema) if host is None else host, **parts)
