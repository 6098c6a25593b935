"""A store in one line for each method: what it scores, how it degrades, what it costs, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kintsugi.bench.figures_beside import calibration_and_detection, contributions, costs, guesses
from kintsugi.bench.figures_reference import against_reference, bounded_units
from kintsugi.bench.figures_seeds import SCORES, UNIT, latest, of_metric, over_seeds, seed_scores

if TYPE_CHECKING:
    from kintsugi.bench.store import Record, Store

ABOUT = [*UNIT[:4], "origin", "metric", "higher_is_better", "rank", "seeds", "n", "interval"]


def figures(store: Store, metric: str | None = None, reference: str | Sequence[str] | None = None) -> pd.DataFrame:
    """One row a data set, protocol, method and training condition; results that were not run here (``origin``) apart.

    Columns, those that some row can fill:

    - ``metric``, ``higher_is_better``; ``rank`` (1 the best) in data set and protocol, over all training conditions, by
      ``mean``, or by ``clean`` where nothing was degraded; ``seeds``; ``n``, test rows;
    - ``clean``; ``mean``, over all degraded conditions; ``worst`` of all conditions, with ``worst_in``; ``subset_mean``,
      over all subsets and the full one, ``subset_worst``, ``subset_worst_in``; ``rate_mean``, ``rate_area``, ``auilc``;
      ``corruption_mean``, ``corruption_area``. Curves start from the clean value at x = 0, areas are means over curves.
      Each has ``…_low`` and ``…_high``, a 95 % interval: over training seeds (``interval`` is ``seeds``), or, where there
      is one seed, over test rows (``rows``); see :func:`~kintsugi.bench.figures_seeds.seed_scores`;
    - ``mce``, ``relative_mce``, ``recovery_gain``, ``effective_robustness``: against the declared reference; see
      :func:`~kintsugi.bench.figures_reference.against_reference`;
    - ``retained``: mean / clean, for metrics of which more is better;
    - ``contribution:MODALITY``, ``equity``: see :func:`~kintsugi.bench.figures_beside.contributions`;
    - ``ece_clean``, ``ece_degraded``, ``aurc_clean``, ``aurc_degraded``; ``detection_auroc``, ``localisation``: means over
      corruptions;
    - ``guess``: what the answer to a row with nothing gets on all test rows (class frequencies or mean of the training rows);
    - ``parameters``, ``flops``, ``p50_1``, ``p95_1``, ``p50_64`` (seconds a batch), ``memory_64`` (bytes),
      ``train_seconds``, ``evaluate_seconds``: see :func:`~kintsugi.bench.figures_beside.costs`.

    What was run with other parameters or versions before the last run of a unit does not count.

    Args:
        store: of the trials.
        metric: its name; default: the leading metric of each data set.
        reference: label of the method that relative figures refer to; of several, the first is it, and effective
            robustness is fitted on all of them.

    Raises:
        UnknownName: no trial has this metric, or no method this label.
    """
    return figures_of(store.table(), store.records("done"), metric, reference)


def figures_of(
    table: pd.DataFrame,
    records: Iterable[Record] = (),
    metric: str | None = None,
    reference: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """:func:`figures` of a table and records that were read already; without records no costs.

    Args:
        table: in the columns of ``kintsugi.bench.export.COLUMNS``; ``started`` says which trial is the latest.
        records: of the trials that are done.
        metric, reference: as for :func:`figures`.
    """
    known = list(records)
    rows = latest(table, known)
    if rows.empty:
        return pd.DataFrame(columns=ABOUT)
    chosen = of_metric(rows, metric)
    found = over_seeds(seed_scores(chosen, known))
    found.insert(0, "rank", ranked(found))
    found["retained"] = (found["mean"] / found["clean"]).where(found["higher_is_better"] & (found["clean"] > 0))
    bounded = bounded_units(chosen)
    parts = [
        against_reference(chosen, found, names_of(reference), bounded),
        contributions(chosen, known, bounded),
        calibration_and_detection(rows),
        costs(rows, known),
        guesses(chosen, known),
    ]
    for part in parts:
        found = found.join(part)
    blocks = rows.drop_duplicates(["dataset", "protocol"])[["dataset", "protocol"]].itertuples(index=False)
    first = {tuple(block): place for place, block in enumerate(blocks)}  # data sets as in the table
    places = [first[key] for key in zip(found["dataset"], found["protocol"], strict=True)]
    found = found.assign(_place=places).sort_values(["_place", "rank"], kind="stable").drop(columns="_place")
    return _ordered(found).dropna(axis=1, how="all").reset_index(drop=True)


def names_of(reference: str | Sequence[str] | None) -> list[str]:
    """One label, several, or none."""
    return [] if reference is None else [reference] if isinstance(reference, str) else list(reference)


def ranked(found: pd.DataFrame) -> pd.Series[Any]:
    """Rank of each unit in its data set and protocol; equal scores share the better rank, and none at all is last."""
    block = [found["dataset"], found["protocol"]]
    degraded = found["mean"].notna().groupby(block).transform("any")
    score = found["mean"].where(degraded, found["clean"]) * np.where(found["higher_is_better"], -1.0, 1.0)
    # the same mean summed in another order must not be another rank
    rounded = score.map(lambda v: v if math.isnan(v) else float(f"{v:.12g}"))
    return rounded.groupby(block).rank(method="min", na_option="bottom").astype(int)


def _ordered(found: pd.DataFrame) -> pd.DataFrame:
    scores = [name + end for name in SCORES for end in ("", "_low", "_high", "_in") if name + end in found]
    rest = [name for name in found if name not in ABOUT and name not in scores]
    return found[[*ABOUT, *scores, *rest]]
