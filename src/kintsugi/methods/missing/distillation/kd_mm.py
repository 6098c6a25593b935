"""Teachers of one modality learn from every row that owns it; a student of all learns from them on complete rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kintsugi.components.fallbacks import TeacherVote
from kintsugi.components.students import ConcatenationFusion
from kintsugi.components.teachers import UnimodalTeacher, teachers_of
from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Fixture, Inner, Pipeline, Runner, Schema, Splits, Stage, Step, Strategy,
    ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.losses.distil import soft_targets


@register(
    Card(
        key="kd_mm",
        version=2,
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
            "the teacher of each modality sees every row that owns it, and no other",
            "each teacher's softened answer to the same row is a term of the student's loss, by that teacher's weight",
            "rows with holes are answered by the product of the teachers of what is there",
        ),
        premise="many training rows own single modalities and few are complete, so that teachers see more rows than "
        "the student",
        worlds=("few_complete_rows",),
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

    def __init__(self, schema: Schema, weights: Sequence[float] | None = None, temperature: float = 2.0) -> None:
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
        trainer.run_all(pipeline, data)

    def step(self, batch: Batch, inner: Inner) -> Step:
        step = inner(batch)
        if step.prediction is None:  # a stage of the host's own that answers nothing
            return step
        terms: list[Tensor] = []
        for i, teacher in enumerate(self.teachers.values()):
            with torch.no_grad():
                answer = teacher.eval()(batch).output
            rows = soft_targets(step.prediction.output, answer, self.task, self.temperature)
            owns = batch.present[:, i].to(rows.dtype)
            terms.append(self.weights[i] * (rows * owns).sum() / owns.sum().clamp(min=1))
        return step.plus(kd=torch.stack(terms).sum())


ablation_of(KDMM, "fall-back", fallback=False)


@ablation_of(KDMM, "distillation")
class Untaught(KDMM):
    """Teachers are trained and answer rows with holes, and the student learns from labels alone."""

    def step(self, batch: Batch, inner: Inner) -> Step:
        return inner(batch)


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


@claims_of(KDMM)
def claims(fixture: Fixture) -> Claims:
    """One training on rows of which some have holes. Without any teachers none of them does its part."""
    from kintsugi.imperfect import parse_mechanism

    train = fixture.splits.train.with_missing(parse_mechanism("mcar(0.3)"), seed=1)  # type: ignore[attr-defined]
    fixture.splits, fixture.epochs = Splits(train, fixture.splits.val), 4
    pipeline, names = fixture.pipeline(), fixture.schema.names
    strategy, student = pipeline.strategies[0], pipeline.model
    assert isinstance(strategy, KDMM)
    teachers, before = strategy.teachers, []
    rows_seen: dict[str, set[int]] = {name: set() for name in (*names, "student")}
    for name, model in {**teachers, "student": student}.items():
        model.register_forward_pre_hook(_note(rows_seen[name]))
    student.register_forward_pre_hook(lambda *_: before.append(_weights(teachers)))
    fixture.train(pipeline).eval()
    owners = [set(train.index[owns].tolist()) for owns in train.present.unbind(1)]
    wrong = sum(len(rows_seen[name] ^ rows) for name, rows in zip(names, owners, strict=True))
    yield Claim(KDMM.card.claims[0], wrong, at_most=0)
    wrong = len(rows_seen["student"] ^ set.intersection(*owners))
    yield Claim("the student sees every complete row, and no other", wrong, at_most=0)
    moved = sum(not torch.equal(a, b) for a, b in zip(before[0], _weights(teachers), strict=True))
    yield Claim("no teacher moves while the student learns", moved, at_most=0)

    batch, right, touched = train.batch(torch.arange(64)), 0, 0
    logs = [_log_softmax(teacher(batch).output) for teacher in teachers.values()]
    for i, teacher in enumerate(teachers.values()):
        owns = batch.present[:, i].numpy()
        soft, student_soft = (_log_softmax(x / 2.0)[owns] for x in (teacher(batch).output, student(batch).output))
        divergence = 2.0**2 * (np.exp(soft) * (soft - student_soft)).sum(1).mean()
        teacher.train()
        strategy.weights = tuple(3.0 if k == i else 0.0 for k in range(len(names)))
        losses = pipeline.training_step(batch).losses
        term = losses.get("kd", 0 * losses["task"])
        right += abs(float(term.detach()) - 3 * divergence) < 1e-5
        slopes = torch.autograd.grad(term, list(teacher.parameters()), allow_unused=True)
        touched += teacher.training + sum(slope is not None for slope in slopes)
    yield Claim(KDMM.card.claims[1], right / len(names), at_least=1)
    yield Claim("teachers answer in evaluation mode, and no gradient reaches them", touched, at_most=0)

    answer, own = pipeline(batch).output, student(batch).output
    holes = ~batch.present.all(1)
    yield Claim("complete rows are answered by the student", int((answer != own)[~holes].sum()), at_most=0)
    votes = np.zeros(answer.shape)
    for i, log in enumerate(logs):
        votes += np.where(batch.present[:, i, None], log, 0)
    same = np.isclose(np.exp(_log_softmax(answer)), np.exp(_log_softmax(torch.from_numpy(votes))), atol=1e-5).all(1)
    yield Claim(KDMM.card.claims[2], float(same[holes].mean()), at_least=1)


def _note(rows: set[int]) -> Any:
    """A hook that notes which rows a model learns from."""

    def hook(module: nn.Module, args: tuple[Batch]) -> None:
        if module.training:
            rows.update(args[0].index.tolist())

    return hook


def _weights(teachers: dict[str, UnimodalTeacher]) -> list[Tensor]:
    return [p.detach().clone() for teacher in teachers.values() for p in teacher.parameters()]


def _log_softmax(output: Tensor) -> Any:
    x = output.detach().double().numpy()
    return x - np.log(np.exp(x).sum(1, keepdims=True))
