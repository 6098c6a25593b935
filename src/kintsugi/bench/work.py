"""One job done: train, put through its protocol, measure; nothing is written but what comes back."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.bench.job import COMPLETE, Done, Job, rows_of
from kintsugi.bench.spelling import (
    params_spelling,
    protocol_spelling,
    trainer_spelling,
    training_spelling,
    without_folders,
)

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset
    from kintsugi.estimator import Classifier, Regressor
    from kintsugi.imperfect.distortion import Distortion
    from kintsugi.imperfect.mechanism import Mechanism


def perform(job: Job) -> Done:
    """Train, evaluate, measure. The same job gives the same results, to the last bit, on the same machine and packages.

    Raises:
        Exception: whatever the method, the data or the protocol raise.
    """
    from kintsugi.bench.beside import Beside
    from kintsugi.evaluation.results import evaluate

    began = time.perf_counter()
    _, _, test = rows_of(job.source)
    model, epochs = _trained(job)
    trained = time.perf_counter()
    beside = Beside()
    results = evaluate(
        model, test, protocol_spelling(job.protocol, test), name=job.label, seed=job.seed,
        training=without_folders(training_spelling(job.training)), metrics=job.metrics or None, resamples=job.resamples,
        each=beside.look,
    )  # fmt: skip
    table = beside.added(results.table).assign(dataset=job.source.name or test.name)
    evaluated = time.perf_counter()
    facts: dict[str, Any] = {
        "training": {"seconds": trained - began, "epochs": epochs},
        "evaluation": {"seconds": evaluated - trained},
        "machine": _machine(),
        "means": {
            metric: {kind: list(interval) for kind, interval in means.items()}
            for metric, means in results.runs[0].means.items()
        },
        "guess": {metric: value for metric, value in results.runs[0].guess.items() if math.isfinite(value)},
        "rows": results.runs[0].rows,
        "unlabelled": results.runs[0].unlabelled,
        **beside.facts,
    }
    if job.costs:
        facts["costs"] = _costs(model, test)
    return Done(table, beside.classes, facts, _files(model) if job.models else {})


def estimator_of(job: Job) -> Classifier | Regressor:
    """The classifier or regressor that a job trains."""
    from kintsugi.estimator import estimator_for

    face = estimator_for(rows_of(job.source)[0].schema.task)
    own = {"epochs", "updates", "lr", "batch_size", "patience", "select", "device"}
    trainer = trainer_spelling(job.trainer)
    return face(
        job.method, params=params_spelling(job.method, job.params), seed=job.seed, progress=False,
        trainer={name: value for name, value in trainer.items() if name not in own},
        **{name: value for name, value in trainer.items() if name in own},
    )  # fmt: skip


def _trained(job: Job) -> tuple[Classifier | Regressor, int]:
    train, val, _ = rows_of(job.source)
    train, val = imperfect(train, job.training, job.seed), imperfect(val, job.training, job.seed + 1)
    model = estimator_of(job).fit(train, val)
    return model, len(model.trainer_.history)


def parse_training(training: str) -> Mechanism | Distortion | None:
    """A training condition: a mechanism of missingness, a corruption, or None for ``complete``.

    Raises:
        UnknownName: neither a mechanism nor a corruption.
    """
    from kintsugi.imperfect import OPERATORS, parse_mechanism
    from kintsugi.imperfect.corruption import parse_corruption

    if training == COMPLETE:
        return None
    name = training.partition("(")[0].strip()
    return parse_corruption(training) if name in OPERATORS else parse_mechanism(training)


def imperfect(rows: Dataset, training: str, seed: int) -> Dataset:
    """Training rows as a training condition leaves them.

    Raises:
        UnknownName: neither a mechanism nor a corruption.
    """
    from kintsugi.imperfect.distortion import Distortion

    imperfection = parse_training(training)
    if imperfection is None:
        return rows
    if isinstance(imperfection, Distortion):
        return rows.with_corruption(imperfection, seed=seed)
    return rows.with_missing(imperfection, seed=seed)


def _costs(model: Any, test: Dataset) -> dict[str, Any]:
    from kintsugi.evaluation.costs import costs

    return costs(model, test, runs=5).to_json()


def _machine() -> dict[str, Any]:
    import torch

    from kintsugi.evaluation.costs import machine

    return machine(torch.device("cpu"))


def _files(model: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        saved = model.save(Path(folder) / "model")
        return {f"model/{file.name}": file.read_bytes() for file in sorted(saved.iterdir())}
