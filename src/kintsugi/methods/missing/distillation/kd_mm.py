"""Teachers of one modality learn from every row that owns it; a student of all learns from them on complete rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Answer, Batch, Card, ConfigError, Features, Fused, Inner, Fixture, Model, Monitor, Pipeline, Prediction, Runner,
    Schema, Splits, Stage, Step, Strategy, ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.layers.mlp import mlp
from kintsugi.layers.vote import vote
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
        check="teacher m sees exactly the rows with m, the student only complete ones; no gradient reaches a teacher",
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
        self, schema: Schema, weights: Sequence[float] | None = None, temperature: float = 2.0, dim: int = 32
    ) -> None:  # fmt: skip
        super().__init__()
        if weights is not None and len(weights) != len(schema):
            raise ConfigError(f"kd_mm: {len(weights)} weights for {len(schema)} modalities")
        if temperature <= 0:
            raise ConfigError(f"kd_mm: temperature must be above 0, not {temperature}")
        self.weights = tuple(weights or [1 / len(schema)] * len(schema))
        self.temperature, self.task = temperature, schema.task
        self.teachers = nn.ModuleDict({m: Teacher(schema, m, dim) for m in schema.names})

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, fallback: bool = True, **hyper: Any) -> Pipeline:
        strategy = cls(schema, **hyper)
        student = Concat(schema, hyper.get("dim", 32)) if host is None else host
        monitors = [FallBack(schema, hyper.get("dim", 32))] if fallback else []
        for monitor in monitors:
            monitor.teachers = strategy.teachers
        return Pipeline(student, strategies=[strategy], monitors=monitors)

    def plan(self, stages: list[Stage]) -> list[Stage]:
        return [replace(stage, rows="complete") for stage in stages]

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
        for teacher in self.teachers.values():
            assert isinstance(teacher, Teacher)
            trainer.run_all(Pipeline(teacher), data)
            teacher.requires_grad_(False)
        trainer.run_all(pipeline, data)

    def step(self, batch: Batch, inner: Inner, side: Batch | None = None) -> Step:
        step = inner(batch)
        assert step.prediction is not None
        terms: list[Tensor] = []
        for i, teacher in enumerate(self.teachers.values()):
            with torch.no_grad():
                answer = teacher.eval()(batch).output
            rows = soft_targets(step.prediction.output, answer, self.task.key, self.temperature)
            here = batch.present[:, i].to(rows.dtype)
            terms.append(self.weights[i] * (rows * here).sum() / here.sum().clamp(min=1))
        return step.plus(kd=torch.stack(terms).sum())


class Concat(Model):
    """The student: one sub-network a modality, side by side, a hidden layer, one head. What is absent is zero."""

    def __init__(self, schema: Schema, dim: int = 32, hidden: int = 128) -> None:
        super().__init__(schema, dim, fused=hidden)
        self.trunk = mlp([dim * len(schema), hidden], last=True)

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(self.trunk(features.flat()))


class Teacher(Model):
    """A model of one modality; reads it out of rows that have more."""

    def __init__(self, schema: Schema, modality: str, dim: int = 32) -> None:
        super().__init__(Schema((schema[modality],), schema.task), dim)
        self.modality = modality

    def stages(self) -> list[Stage]:
        return [Stage(f"teacher of {self.modality}", rows=f"has:{self.modality}")]


class FallBack(Monitor):
    """Rows with holes are answered by the vote of the teachers of what is there."""

    def __init__(self, schema: Schema, dim: int = 32) -> None:
        super().__init__()
        self.task = schema.task
        self.teachers = nn.ModuleDict({m: Teacher(schema, m, dim) for m in schema.names})

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        prediction = inner(batch)
        holes = ~batch.present.all(1) & batch.present.any(1)
        if not bool(holes.any()):
            return prediction
        alone = torch.stack([teacher(batch).output for teacher in self.teachers.values()], 1)
        merged, _ = vote(alone, batch.present, self.task.key, "product")
        return replace(prediction, output=torch.where(holes[:, None], merged, prediction.output), embedding=None)


@ablation_of(KDMM)
class Undistilled(KDMM):
    """Off: the student learns from labels alone, and there is nobody to fall back on."""

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, fallback: bool = False, **hyper: Any) -> Pipeline:
        return super().pipeline(schema, host, False, **hyper)

    def __init__(self, schema: Schema, **hyper: Any) -> None:
        super().__init__(schema, **hyper)
        self.teachers.requires_grad_(False)

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
        trainer.run_all(pipeline, data)

    def step(self, batch: Batch, inner: Inner, side: Batch | None = None) -> Step:
        return inner(batch)


@claims_of(KDMM)
def teachers_see_what_the_student_does_not(fixture: Fixture) -> None:
    """See the card's ``check``."""
    from kintsugi.imperfect import parse_mechanism

    train = fixture.splits.train.with_missing(parse_mechanism("mcar(0.3)"), seed=1)  # type: ignore[attr-defined]
    fixture.splits = Splits(train, fixture.splits.val)
    pipeline = fixture.pipeline()
    seen: dict[str, set[int]] = {}
    for name, module in [("student", pipeline.model), *pipeline.strategies[0].teachers.items()]:  # type: ignore[union-attr,operator]
        rows = seen.setdefault(name, set())
        module.register_forward_pre_hook(_note(rows, name, fixture))
    fixture.train(pipeline)
    for column, name in enumerate(fixture.schema.names):
        own = set(train.index[train.present[:, column]].tolist())
        assert seen[name] == own, f"the teacher of {name} saw {len(seen[name])} rows, {len(own)} own it"
    assert seen["student"] == set(train.index[train.present.all(1)].tolist()), "the student saw incomplete rows"
    pipeline.train()
    loss = pipeline.step(train.batch(train.positions("complete")[:16])).losses["kd"]
    loss.backward()
    assert all(p.grad is None for t in pipeline.strategies[0].teachers.values() for p in t.parameters())  # type: ignore[operator]
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
