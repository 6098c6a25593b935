"""The leaderboard: one table a data set and protocol, with what is needed to sort and filter it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kintsugi.report.data import BLOCK, OTHER, Shown, guess_of, spoken

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard.

    head: what it is called; unit: ``number`` or ``count``; up: more is better, None: as for the metric; scale: from the
    unit of the figures to that of the page.
    """

    head: str
    unit: str = "number"
    up: bool | None = None
    scale: float = 1.0


COLUMNS = {
    "clean": Column("Clean"),
    "mean": Column("Degraded, mean"),
    "worst": Column("Worst"),
    "subset_mean": Column("Subsets, mean"),
    "rate_area": Column("Missing rates, area"),
    "corruption_mean": Column("Corruptions, mean"),
    "mce": Column("mCE", up=False),
    "relative_mce": Column("Relative mCE", up=False),
    "effective_robustness": Column("Effective robustness"),
    "ece_clean": Column("ECE, clean", up=False),
    "ece_degraded": Column("ECE, degraded", up=False),
    "detection_auroc": Column("Detection AUROC", up=True),
    "parameters": Column("Parameters", "count", up=False),
    "flops": Column("FLOPs", "count", up=False),
    "p50_1": Column("Latency, ms", up=False, scale=1000.0),
    "train_seconds": Column("Training, s", up=False),
}


@dataclass(frozen=True)
class Board:
    """One table: heads (text, order of the first click) and rows, best first; n: test rows.

    guess: what the same answer to every row gets, None: not known.
    compared: why some or all rows could not be compared with the best, or "".
    """

    dataset: str
    protocol: str
    metric: str
    higher: bool
    n: int
    heads: list[dict[str, str]]
    rows: list[dict[str, Any]]
    compared: str
    guess: float | None = None


def boards(shown: Shown) -> list[Board]:
    """The tables, in the order of the figures."""
    leaves = leaves_of(shown)
    return [
        _board(shown, board.sort_values("rank", kind="stable"), leaves)
        for _, board in shown.figures.groupby(BLOCK, sort=False)
    ]


def _board(shown: Shown, board: pd.DataFrame, leaves: dict[str, str]) -> Board:
    columns = [c for c in COLUMNS if c in board and board[c].notna().any()]
    first = board.iloc[0]
    higher = bool(first["higher_is_better"])
    marks, compared = level_with_best(shown, board)
    rows = [
        {
            "rank": line["rank"],
            "method": line["method"],
            "training": line["training"],
            "leaf": leaves.get(line["method"], OTHER),
            "seeds": line["seeds"],
            "origin": line["origin"],
            "mark": mark,
            "cells": [_cell(line, name) for name in columns],
        }
        for line, mark in zip(board.to_dict("records"), marks, strict=True)
    ]
    heads = [_head(COLUMNS[c], higher) for c in columns]
    about = {"dataset": first["dataset"], "protocol": first["protocol"], "metric": spoken(first["metric"])}
    n = int(board["n"].max())
    return Board(**about, higher=higher, n=n, heads=heads, rows=rows, compared=compared, guess=guess_of(board))


def _head(column: Column, higher: bool) -> dict[str, str]:
    up = higher if column.up is None else column.up
    return {"head": column.head, "first": "descending" if up else "ascending"}


def _cell(line: dict[Any, Any], name: str) -> dict[str, Any]:
    column = COLUMNS[name]
    value, low, high = (_known(line.get(f"{name}{end}"), column) for end in ("", "_low", "_high"))
    half = None if low is None or high is None or value is None else (high - low) / 2
    lopsided = half is not None and abs(value - low - half) > 0.05 * half  # type: ignore[operator]
    where = str(line.get(f"{name}_in") or "")
    return {
        "value": value,
        "ends": (low, high) if lopsided else None,
        "half": half,
        "where": where,
        "unit": column.unit,
    }


def _known(value: Any, column: Column) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value) * column.scale


def leaves_of(shown: Shown) -> dict[str, str]:
    """Name in tables -> leaf of the taxonomy; ``other`` for what is not registered."""
    from kintsugi.core.methods import METHODS, card

    if shown.rows.empty:
        return {}
    found = {}
    for name, parameters in shown.rows[["method", "parameters"]].drop_duplicates().itertuples(index=False):
        key = str(json.loads(parameters).get("method", name))
        found[str(name)] = card(key).leaf if key in METHODS else OTHER
    return found


def level_with_best(shown: Shown, board: pd.DataFrame) -> tuple[list[str], str]:
    """For each row ``best``, ``level`` (cannot be told apart from the best) or "", and why where nothing can be said.

    By :func:`kintsugi.bench.versus.pairs_of`, over all training conditions, at the mean under degradation.
    """
    from kintsugi.bench.versus import labels, pairs_of

    names = [str(name) for name in labels(board)]
    if len(names) < 2:
        return [""] * len(names), ""
    mine = (shown.scores[BLOCK] == board[BLOCK].iloc[0]).all(axis=1)
    score = "mean" if "mean" in board and board["mean"].notna().any() else "clean"
    found = pairs_of(shown.scores[mine], score, against=names[0])
    winner = dict(zip(found["b"], found["winner"], strict=True))
    unknown = {str(b) for b, how in zip(found["b"], found["interval"], strict=True) if how == "none"}
    if len(unknown) == len(names) - 1:
        return [""] * len(names), "too few seeds of training"
    marks = ["" if name in unknown or winner.get(name) else "level" for name in names]
    return ["best", *marks[1:]], f"too few seeds for {', '.join(sorted(unknown))}" if unknown else ""
