"""The plain baseline of a page: the scikit-learn learner that validation rows choose, on the values of all modalities."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kintsugi.bench.job import Done
from kintsugi.core.errors import ConfigError

if TYPE_CHECKING:
    from kintsugi.bench.pages.job import Judged
    from kintsugi.data.dataset import Dataset
    from kintsugi.evaluation.protocols import Condition


def columns(data: Dataset, rows: torch.Tensor | None = None) -> np.ndarray[Any, Any]:
    """Every value of every modality side by side, float ``[N, P]``; NaN where a modality or a cell is absent."""
    batch = data.batch(torch.arange(len(data)) if rows is None else rows)
    blocks = []
    for place, name in enumerate(batch.names):
        flat = batch.inputs[name].flatten(1).double()
        here = batch.present[:, place, None].expand_as(flat)
        blocks.append(torch.where(here, flat, torch.nan))
    return torch.cat(blocks, 1).numpy()


def candidates(task: str, rows: int, seed: int) -> Iterator[tuple[str, Any, Any]]:
    """Name, what fills holes by all training rows (None: the learner takes them), and the learner of the labelled ones.

    Linear ones of several strengths, with means and indicators for holes or with the means of the nearest rows, a support
    vector machine, and two kinds of trees.

    Args:
        task: classification or regression.
        rows: labelled ones to learn from; leaves of the trees are smaller where these are few.
        seed: of what draws.
    """
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    )
    from sklearn.impute import KNNImputer, SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, SVR

    def means() -> Any:
        return make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())

    def nearest() -> Any:
        return make_pipeline(KNNImputer(keep_empty_features=True), StandardScaler())

    leaf = max(2, min(20, rows // 20))
    if task == "classification":
        for strength in (0.01, 0.1, 1.0):
            yield f"logistic regression, C {strength:g}", means(), LogisticRegression(C=strength, max_iter=500)
            yield (
                f"nearest rows, then logistic regression, C {strength:g}",
                nearest(),
                LogisticRegression(C=strength, max_iter=500),
            )
        yield "support vectors", means(), SVC()
        yield "extra trees", means(), ExtraTreesClassifier(100, min_samples_leaf=2, random_state=seed)
        yield (
            "boosted trees",
            None,
            HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=leaf, random_state=seed),
        )
        return
    for strength in (1.0, 10.0, 100.0):
        yield f"ridge regression, {strength:g}", means(), Ridge(alpha=strength)
        yield f"nearest rows, then ridge regression, {strength:g}", nearest(), Ridge(alpha=strength)
    yield "support vectors", means(), SVR()
    yield "extra trees", means(), ExtraTreesRegressor(100, min_samples_leaf=2, random_state=seed)
    yield "boosted trees", None, HistGradientBoostingRegressor(max_iter=60, min_samples_leaf=leaf, random_state=seed)


def under(data: Dataset, condition: Condition) -> Dataset:
    """The rows as a condition leaves them."""
    from kintsugi.imperfect import parse_mechanism
    from kintsugi.imperfect.corruption import parse_corruption

    if condition.keep is not None:
        raise ConfigError(
            f"the plain baseline is not asked under {condition.name!r}: pages have no protocol of subsets"
        )
    if condition.missing is not None:
        data = data.with_missing(parse_mechanism(condition.missing), seed=condition.seed)
    for corruption in condition.corruptions:
        data = data.with_corruption(parse_corruption(corruption), seed=condition.seed)
    return data


def perform_plain(
    job: Judged,
    train: Dataset,
    val: Dataset,
    test: Dataset,
    metric: str,
    known: Mapping[str, Any],
    parts: Mapping[str, Any],
) -> Done:
    """Every candidate on the labelled training rows, holes filled by all of them; validation rows say which one answers.

    The rows of every condition are damaged as they are for methods.
    """
    import pandas as pd
    from sklearn.pipeline import make_pipeline

    from kintsugi.bench.pages.work import summary
    from kintsugi.bench.spelling import protocol_spelling
    from kintsugi.evaluation.results import COLUMNS

    began = time.process_time()
    task = train.schema.task.key
    labelled = train.target_present.nonzero().flatten()
    everyone, y = columns(train), _targets(train)[labelled.numpy()]
    checked = val.target_present.nonzero().flatten()
    x_val, y_val = columns(val, checked), _targets(val)[checked.numpy()]
    found: list[tuple[float, str, Any]] = []
    for name, fill, learner in candidates(task, len(y), job.seed):
        if fill is not None:
            fill.fit(everyone)
        x = everyone[labelled.numpy()]
        learner.fit(x if fill is None else fill.transform(x), y)
        whole_one = learner if fill is None else make_pipeline(fill, learner)
        found.append((float(whole_one.score(x_val, y_val)), name, whole_one))
    validation, name, best = max(found, key=lambda each: each[0])
    seconds = time.process_time() - began
    truth = _targets(test)
    lines = []
    for condition in protocol_spelling(job.protocol, test).conditions:
        value = float(best.score(columns(under(test, condition)), truth))
        lines.append(
            (job.source.name, job.label, job.seed, job.training, condition.name, condition.group, condition.x, metric,
             value, math.nan, math.nan, len(test), True, 0.0, "")
        )  # fmt: skip
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    everything = columns(test)
    facts = {
        **summary(table), **known, "seconds": seconds, "parameters": 0, "updates": 0, "validation": validation, "learner": name,
        "parts": {
            part: float(best.score(everything[np.asarray(rows)], truth[np.asarray(rows)])) for part, rows in parts.items()
        },
    }  # fmt: skip
    return Done(table, {}, facts)


def _targets(data: Dataset) -> np.ndarray[Any, Any]:
    batch = data.batch(torch.arange(len(data)))
    assert batch.target is not None
    return batch.target.numpy()
