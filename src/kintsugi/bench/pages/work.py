"""One training for a page done: trained, put through its protocol, and measured beside the optimum."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from kintsugi.bench.job import Done, rows_of, whole
from kintsugi.bench.pages.job import PLAIN, Judged, metric_of
from kintsugi.bench.work import imperfect
from kintsugi.core.data import Splits
from kintsugi.core.methods import METHODS, build_ablation, build_pipeline
from kintsugi.core.randomness import fork_rng_in_turn

if TYPE_CHECKING:
    from kintsugi.core.pipeline import Pipeline
    from kintsugi.data.dataset import Dataset

FEWEST = 2  # rows of a part that can be scored


def perform(job: Any) -> Done:
    """Train, evaluate, measure; ``facts`` has what a page shows. ``seconds``: of a processor, in training.

    Raises:
        Exception: whatever the method or the data raise.
    """
    from kintsugi.bench.spelling import protocol_spelling
    from kintsugi.data.refit import learned_from, read_as
    from kintsugi.evaluation.results import evaluate

    assert isinstance(job, Judged)
    data = whole(job.source)
    train, val, test = rows_of(job.source)
    train, val = imperfect(train, job.training, job.seed), imperfect(val, job.training, job.seed + 1)
    metric = metric_of(data.schema)
    parts = {name: rows for name, rows in data.note.get("parts", {}).items() if len(rows) >= FEWEST}
    began = time.process_time()
    if job.method == PLAIN:
        from kintsugi.bench.pages.plain import perform_plain

        return perform_plain(job, train, val, test, metric, _known(data), parts)
    train, val = learned_from(train, val)
    test = test if train.reading is None else read_as(test, train.reading)
    pipeline, history = trained(job, train, val, data.note.get("auxiliary"))
    seconds = time.process_time() - began
    asked: dict[str, Any] = {
        "name": job.label, "seed": job.seed, "training": job.training, "metrics": [metric], "resamples": job.resamples,
    }  # fmt: skip
    results = evaluate(pipeline, test, protocol_spelling(job.protocol, test), **asked)
    table = results.table.assign(dataset=job.source.name)

    def score(rows: Dataset) -> float:
        return float(evaluate(pipeline, rows, "clean", **asked).table["value"].iloc[0])

    facts: dict[str, Any] = {
        **summary(table),
        **_known(data),
        "seconds": seconds,
        "parameters": sum(p.numel() for p in pipeline.parameters()),
        "updates": sum(int(record.get("updates", 0)) for record in _last_of_each(history)),
        "validation": score(val),
        "parts": {name: score(test.subset(rows)) for name, rows in parts.items()},
    }
    return Done(table, {}, facts)


def _last_of_each(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({record.get("run"): record for record in history}.values())


def summary(table: Any) -> dict[str, Any]:
    """``value``: the mean over imperfect conditions, or of the rows as they are where there is no other; ``clean``."""
    clean = table[table["group"] == "clean"]["value"]
    other = table[table["group"] != "clean"]["value"]
    return {"value": float((other if len(other) else clean).mean()), "clean": float(clean.mean())}


def _known(data: Dataset) -> dict[str, Any]:
    """What the law of a world says of its own test rows."""
    note = data.note
    return {name: note[name] for name in ("optimum", "optimum_full", "optimum_parts", "chance") if name in note}


def trained(job: Judged, train: Dataset, val: Dataset, auxiliary: Any) -> tuple[Pipeline, list[dict[str, Any]]]:
    """The pipeline of a job, trained, and the history of its training."""
    from kintsugi.training.checks import reads_auxiliary
    from kintsugi.training.trainer import Trainer

    cls = METHODS[job.method]
    with fork_rng_in_turn():
        torch.manual_seed(job.seed)
        whole_one = job.without is None
        pipeline = (
            build_pipeline(cls, train.schema, **job.params)
            if whole_one
            else build_ablation(cls, train.schema, job.without or "", **job.params)
        )
    trainer = Trainer(**job.trainer, seed=job.seed, progress=False)
    trainer.fit(pipeline, Splits(train, val, auxiliary=auxiliary if reads_auxiliary(pipeline) else None))
    pipeline.reading = None if train.reading is None else dict(train.reading)
    return pipeline, trainer.history
