"""How long the trials of a suite take, roughly."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kintsugi.bench.job import Job, rows_of

if TYPE_CHECKING:
    from kintsugi.bench.store import Store

# Processor seconds on one core of a 2-core virtual machine: medians over nine methods, factors and avdigits at batch 32 and
# handwritten at 32 and 64, rounded. Good for an order of magnitude; earlier records of a store are better.
SECONDS_A_ROW_EPOCH = {"image": 2e-4, "audio": 5e-4, "text": 3e-4}  # of each modality of the kind
SECONDS_A_ROW_EPOCH_ELSE = 3e-5  # of each modality of another kind
FACTOR = {"low": 1.0, "medium": 1.6, "high": 3.0}  # of training, by the cost that a card states; "high" is assumed
SECONDS_A_ROW_CONDITION = 1e-4  # to answer and score a test row under one condition
SECONDS_A_TRIAL, SECONDS_OF_COSTS = 0.5, 2.0  # whatever the data


def seconds_of(jobs: Sequence[Job], store: Store | None) -> list[float]:
    """Seconds of each job: from earlier trials of a store where it has some, else by the table above."""
    known = _recorded(store)
    return [_known(job, known) or _guess(job) for job in jobs]


def _recorded(store: Store | None) -> dict[tuple[str, ...], float]:
    """Median seconds of done trials, by method, data set and protocol, by the first two, and by the first."""
    found: dict[tuple[str, ...], list[float]] = {}
    for record in store.records("done") if store is not None else ():
        names = (record.trial.method, record.trial.dataset, record.trial.protocol.name)
        for count in (1, 2, 3) if record.seconds is not None else ():
            found.setdefault(names[:count], []).append(float(record.seconds or 0))
    return {names: statistics.median(values) for names, values in found.items()}


def _known(job: Job, known: Mapping[tuple[str, ...], float]) -> float | None:
    if not known:
        return None
    from kintsugi.evaluation.protocols import get_protocol

    names = (job.label, job.source.name, get_protocol(job.protocol, rows_of(job.source)[2]).name)
    return next((known[names[:count]] for count in (3, 2, 1) if names[:count] in known), None)


def _guess(job: Job) -> float:
    from kintsugi.core.methods import card
    from kintsugi.evaluation.protocols import get_protocol
    from kintsugi.training.trainer import Trainer

    train, _, test = rows_of(job.source)
    rows = len(train) * int(job.trainer.get("epochs", Trainer.epochs))
    if updates := job.trainer.get("updates"):
        rows = int(updates) * int(job.trainer.get("batch_size", Trainer.batch_size))
    row = sum(SECONDS_A_ROW_EPOCH.get(m.kind, SECONDS_A_ROW_EPOCH_ELSE) for m in train.schema.modalities)
    training = rows * row * FACTOR[card(job.method).cost]
    answers = len(test) * len(get_protocol(job.protocol, test)) * SECONDS_A_ROW_CONDITION
    return SECONDS_A_TRIAL + training + answers + SECONDS_OF_COSTS * job.costs
