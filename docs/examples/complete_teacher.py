"""A student that sees subsets learns from a teacher that sees everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kintsugi.components.students import ConcatenationFusion
from kintsugi.core import (
    Batch,
    Card,
    Claim,
    Claims,
    Fixture,
    Inner,
    Model,
    Pipeline,
    Runner,
    Schema,
    Splits,
    Stage,
    Step,
    Strategy,
    ablation_of,
    claims_of,
    register,
)  # fmt: skip
from kintsugi.losses.distil import soft_targets


@register(
    Card(
        key="complete_teacher",
        name="Complete teacher",
        leaf="missing/distillation",
        imperfection=("missing at test",),
        faithful=(
            "a teacher of all modalities, trained first and then frozen, sees each row whole",
            "the student sees a subset of the row and learns from labels and from the teacher's softened answer",
        ),
        claims=("the student's second loss is its distance to the teacher's answer on the whole row",),
        premise="modalities are absent in use that most training rows have",
        worlds=("redundant",),
        confidence="high",
        cite="kd_mm",
    )
)
class CompleteTeacher(Strategy):
    """Distils a teacher of whole rows into a model that is trained on subsets of them.

    Args:
        weight: of the distance to the teacher's answer.
        temperature: of the softened answers.
    """

    def __init__(self, schema: Schema, weight: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__()
        self.task, self.weight, self.temperature = schema.task, weight, temperature

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, dim: int = 32, **hyper: Any) -> Pipeline:
        student = ConcatenationFusion(schema, dim) if host is None else host
        return Pipeline(
            student, strategies=[cls(schema, **hyper)], shared={"teacher": ConcatenationFusion(schema, dim)}
        )

    @property
    def teacher(self) -> Model:
        """It is the pipeline's; nobody uses it in answers, so it is gone after training."""
        teacher = self.pipeline_in_use.shared["teacher"]
        assert isinstance(teacher, Model)
        return teacher

    def adjust_stages(self, stages: list[Stage]) -> list[Stage]:
        return [replace(stage, view="subsets") for stage in stages]

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
        teacher = self.teacher
        trainer.run_all(Pipeline(teacher), data)
        trainer.run_all(pipeline, data)

    def step(self, batch: Batch, inner: Inner) -> Step:
        step = inner(batch)
        assert step.prediction is not None
        with torch.no_grad():
            answer = self.teacher.eval()(batch if batch.truth is None else batch.truth).output
        distance = soft_targets(step.prediction.output, answer, self.task, self.temperature)
        return step.plus(teacher=self.weight * distance.mean())


@ablation_of(CompleteTeacher)
class Untaught(CompleteTeacher):
    """Off: subsets alone."""

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, dim: int = 32, **hyper: Any) -> Pipeline:
        student = ConcatenationFusion(schema, dim) if host is None else host
        return Pipeline(student, strategies=[cls(schema, **hyper)])

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
        trainer.run_all(pipeline, data)

    def step(self, batch: Batch, inner: Inner) -> Step:
        return inner(batch)


@claims_of(CompleteTeacher)
def claims(fixture: Fixture) -> Claims:
    """The second loss, worked out apart from the strategy."""
    pipeline = fixture.trained().eval()
    whole = fixture.batch()
    seen = whole.view(torch.arange(len(fixture.schema)) == 0)
    losses = pipeline.training_step(seen).losses
    found = float(losses["teacher"].detach()) if "teacher" in losses else 0.0
    teacher = pipeline.shared["teacher"] if "teacher" in pipeline.shared else _taught(fixture)
    expected = _expected(pipeline, teacher, whole, seen)
    yield Claim(CompleteTeacher.card.claims[0], abs(found - expected) / expected, at_most=1e-4)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    reached = [p for component in pipeline.shared.values() for p in component.parameters() if p.grad is not None]
    yield Claim("no gradient reaches the teacher", len(reached), at_most=0)


def _taught(fixture: Fixture) -> Model:
    """A teacher of its own for the ablation, which has none."""
    return fixture.train(Pipeline(ConcatenationFusion(fixture.schema, 32))).eval().model


@torch.no_grad()
def _expected(pipeline: Pipeline, teacher: nn.Module, whole: Batch, seen: Batch) -> float:
    """T² KL(teacher of the whole row || student of what is seen), by hand for classes, at T = 2."""
    student, taught = pipeline.model(seen).output / 2, teacher(whole).output / 2
    p = taught.softmax(1)
    return float(4 * (p * (p.log() - student.log_softmax(1))).sum(1).mean())
