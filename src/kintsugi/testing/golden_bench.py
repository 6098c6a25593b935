"""Golden numbers of a whole trial of the bench: data, holes, training, protocol, and what is measured beside metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from kintsugi.bench.beside import Beside
from kintsugi.bench.components import trial_versions
from kintsugi.bench.job import Job, Source, rows_of
from kintsugi.bench.work import perform
from kintsugi.core.versions import EVALUATION
from kintsugi.evaluation import get_protocol
from kintsugi.evaluation.evaluator import Outcome
from kintsugi.testing.golden_measures import plain
from kintsugi.testing.golden_numbers import Numbers
from kintsugi.training.sampling import generator

# A method that says how reliable each input is, so that detection of damage is measured too.
JOB = Job(
    Source("factors", {"rows": 320, "dim": 6}), "ccm", seed=3, training="mcar(0.3)",
    protocol="corruptions(2, 5, feature_noise)", trainer={"epochs": 4, "lr": 3e-3}, resamples=60,
)  # fmt: skip


def bench_numbers() -> Numbers:
    """Condition and measure -> value with its interval where it has one; means, classes and curves of the trial."""
    done = perform(JOB)
    rows = done.results[["condition", "metric", "value", "low", "high"]].itertuples(index=False)
    return {
        "bench": {
            **{
                f"{condition}, {metric}": [float(v) for v in interval if not math.isnan(v)]
                for condition, metric, *interval in rows
            },
            "means": done.facts["means"],
            "epochs": done.facts["training"]["epochs"],
        },
        "beside": _beside_numbers(),
    }


def _beside_numbers() -> Numbers:
    """Condition -> measure -> value, of drawn answers to rows some of whose inputs are missing, in a damaged state others."""
    data = rows_of(JOB.source)[-1]
    drawn, count = generator("golden", "beside"), len(data.schema)
    conditions = get_protocol("corruptions(3, feature_noise)", data.schema).conditions
    outcomes = []
    for condition in conditions:
        output = 2 * torch.randn(len(data), data.schema.task.outputs, generator=drawn)
        present = torch.rand(len(data), count, generator=drawn) > 0.3
        reliability = torch.rand(len(data), count, generator=drawn)
        outcomes.append(
            Outcome(condition, output, output.softmax(1), present, present, None, reliability, seconds=0, mask_hash="")
        )
    beside = Beside()
    beside.look(outcomes, data)
    return {
        "values": plain(beside.values),
        "reliability": plain(beside.facts["reliability"]),
        "risk and coverage": plain(beside.facts["risk_coverage"]),
    }


def bench_uses() -> Mapping[str, int]:
    """Versions of all that the trial uses."""
    test = rows_of(JOB.source)[-1]
    protocol, metrics = get_protocol(JOB.protocol, test), list(test.schema.task.metrics())
    uses = trial_versions(JOB.method, JOB.params, test.schema, JOB.training, protocol, metrics, chosen=True)
    return {"bench": EVALUATION, **uses}
