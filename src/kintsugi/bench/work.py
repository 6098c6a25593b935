"""One job done: train, put through its protocol, measure; nothing is written but what comes back."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.bench.job import COMPLETE, Done, Job, rows_of

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset
    from kintsugi.estimator import Classifier, Regressor


def perform(job: Job) -> Done:
    """Train, evaluate, measure. The same job gives the same results, to the last bit, on the same machine and versions.

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
        model, test, job.protocol, name=job.label, seed=job.seed, training=job.training, metrics=job.metrics or None,
        resamples=job.resamples, each=beside.look,
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
        "rows": results.runs[0].rows,
        "unlabelled": results.runs[0].unlabelled,
        **beside.facts,
    }
    if job.costs:
        facts["costs"] = _costs(model, test)
    return Done(table, beside.classes, facts, _files(model) if job.models else {})


def _trained(job: Job) -> tuple[Classifier | Regressor, int]:
    from kintsugi.estimator import Classifier, Regressor

    train, val, _ = rows_of(job.source)
    train, val = imperfect(train, job.training, job.seed), imperfect(val, job.training, job.seed + 1)
    face = Regressor if train.schema.task.key == "regression" else Classifier
    own = {"epochs", "lr", "batch_size", "patience", "device"}
    more = {name: value for name, value in job.trainer.items() if name not in own}
    model = face(
        job.method, params=job.params, seed=job.seed, progress=False, trainer=more,
        **{name: value for name, value in job.trainer.items() if name in own},
    )  # fmt: skip
    model.fit(train, val)
    return model, len(model.trainer_.history)


def imperfect(rows: Dataset, training: str, seed: int) -> Dataset:
    """Training rows as a training condition leaves them: a mechanism of missingness, a corruption, or ``complete``.

    Raises:
        UnknownName: neither a mechanism nor a corruption.
    """
    from kintsugi.imperfect import OPERATORS, parse_mechanism
    from kintsugi.imperfect.corruption import parse_corruption

    if training == COMPLETE:
        return rows
    if training.partition("(")[0].strip() in OPERATORS:
        return rows.with_corruption(parse_corruption(training), seed=seed)
    return rows.with_missing(parse_mechanism(training), seed=seed)


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
