"""Teachers of one modality learn from every row that owns it; a student of all learns from them on complete rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.components.fallbacks import TeacherVote
from kintsugi.components.students import ConcatenationFusion
from kintsugi.components.teachers import UnimodalTeacher, teachers_of
from kintsugi.core.claims import held
from kintsugi.core import (
    Claim, Claims, Batch, Card, ConfigError, Fixture, Inner, Pipeline, Runner, Schema, Splits, Stage, Step, Strategy,
    ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.losses.distil import soft_targets


@register(
    Card(
        key="kd_mm",
        name="KD-MM",
        leaf="missing/distillation",
        imperfection=("missing in training",),
        faithful=(
            "one teacher a modality, trained on all rows that own it",
            "a student of all modalities, trained on complete rows by labels and by every teacher's softened answers",
            "a weight for each teacher",
        ),
        simplified=(
            "encoders by kind of data stand for the paper's two-layer perceptrons",
            "an addition of this library: rows with holes are answered by the teachers' vote (fallback=False: "
            "by the student with zeros in the holes); the paper tests on complete rows only",
        ),
        claims=(
            "teacher m sees exactly the rows with m, the student only complete ones; no gradient reaches a teacher",
        ),
        premise="many training rows own single modalities and few are complete, so that teachers see more rows than "
        "the student",
        confidence="high",
        defaults_from="Hinton et al. 2015 for the temperature; teacher weights shared evenly, the release tunes them by "
        "data set",
        cost="medium",
    )
)
class KDMM(Strategy):
    """Distils unimodal teachers into a multimodal student.

    Args:
        weights: of each teacher's term, in the order of the schema; None: 1/M each.
        temperature: of the softened answers.
        dim: width of the teachers, and of the student that the recipe builds.
        fallback: teachers answer rows with holes.
    """

    def __init__(
        self, schema: Schema, weights: Sequence[float] | None = None, temperature: float = 2.0
    ) -> None:  # fmt: skip
        super().__init__()
        if weights is not None and len(weights) != len(schema):
            raise ConfigError(f"kd_mm: {len(weights)} weights for {len(schema)} modalities")
        if temperature <= 0:
            raise ConfigError(f"kd_mm: temperature must be above 0, not {temperature}")
        self.weights = tuple(weights or [1 / len(schema)] * len(schema))
        self.temperature, self.task = temperature, schema.task

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, dim: int = 32, fallback: bool = True, **hyper: Any) -> Pipeline:
        return Pipeline(
            ConcatenationFusion(schema, dim) if host is None else host,
            strategies=[cls(schema, **hyper)],
            monitors=[TeacherVote(schema)] if fallback else [],
            shared={f"teacher_{m}": UnimodalTeacher(schema, m, dim) for m in schema.names},
        )

    @property
    def teachers(self) -> dict[str, UnimodalTeacher]:
        """By modality."""
        return teachers_of(self.pipeline_in_use)

    def adjust_stages(self, stages: list[Stage]) -> list[Stage]:
        return [replace(stage, rows="complete") for stage in stages]

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
        for teacher in self.teachers.values():
            trainer.run_all(Pipeline(teacher), data)
            teacher.requires_grad_(False)
        trainer.run_all(pipeline, data)

    def step(self, batch: Batch, inner: Inner) -> Step:
        step = inner(batch)
        assert step.prediction is not None
        terms: list[Tensor] = []
        for i, teacher in enumerate(self.teachers.values()):
            with torch.no_grad():
                answer = teacher.eval()(batch).output
            rows = soft_targets(step.prediction.output, answer, self.task, self.temperature)
            here = batch.present[:, i].to(rows.dtype)
            terms.append(self.weights[i] * (rows * here).sum() / here.sum().clamp(min=1))
        return step.plus(kd=torch.stack(terms).sum())


@ablation_of(KDMM)
class Undistilled(KDMM):
    """Off: the student learns from labels alone, and there is nobody to fall back on."""

    @classmethod
    def pipeline(
        cls, schema: Schema, host: Any = None, dim: int = 32, fallback: bool = False, **hyper: Any
    ) -> Pipeline:
        whole = super().pipeline(schema, host, dim, False, **hyper)
        return Pipeline(whole.model, strategies=list(whole.strategies))  # type: ignore[arg-type]

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
        trainer.run_all(pipeline, data)

    def step(self, batch: Batch, inner: Inner) -> Step:
        return inner(batch)


def teachers_see_what_the_student_does_not(fixture: Fixture) -> None:
    """See the card's ``check``."""
    from kintsugi.imperfect import parse_mechanism

    train = fixture.splits.train.with_missing(parse_mechanism("mcar(0.3)"), seed=1)  # type: ignore[attr-defined]
    fixture.splits = Splits(train, fixture.splits.val)
    pipeline = fixture.pipeline()
    (strategy,) = pipeline.strategies
    assert isinstance(strategy, KDMM)
    teachers = list(strategy.teachers.values())
    seen: dict[str, set[int]] = {}
    for name, module in [("student", pipeline.model), *strategy.teachers.items()]:
        rows = seen.setdefault(name, set())
        module.register_forward_pre_hook(_note(rows, name, fixture))
    fixture.train(pipeline)
    for column, name in enumerate(fixture.schema.names):
        own = set(train.index[train.present[:, column]].tolist())
        assert seen[name] == own, f"the teacher of {name} saw {len(seen[name])} rows, {len(own)} own it"
    assert seen["student"] == set(train.index[train.present.all(1)].tolist()), "the student saw incomplete rows"
    pipeline.train()
    pipeline.begin_training()
    loss = pipeline.training_step(train.batch(train.positions("complete")[:16])).losses["kd"]
    loss.backward()
    assert all(p.grad is None for t in teachers for p in t.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in pipeline.model.parameters())


def _note(rows: set[int], name: str, fixture: Fixture) -> Any:
    """A hook that notes which training rows a model learns from: those of batches in training mode that own ``name``."""

    def hook(module: nn.Module, args: tuple[Batch]) -> None:
        batch = args[0]
        if module.training:
            here = (
                batch.present[:, fixture.schema.column(name)] if name in fixture.schema.names else batch.present.any(1)
            )
            rows.update(batch.index[here].tolist())

    return hook


@claims_of(KDMM)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(KDMM.card.claims[0], held(teachers_see_what_the_student_does_not, fixture), at_least=1.0)
