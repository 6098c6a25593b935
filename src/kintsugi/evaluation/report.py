"""Results as one HTML file that opens offline: everything it needs is inside it."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kintsugi.evaluation.examples import Example
from kintsugi.evaluation.pictures import Piece, piece
from kintsugi.evaluation.summary import UNIT, kind_of
from kintsugi.io.files import replace_file

if TYPE_CHECKING:
    from kintsugi.evaluation.results import Results, Run

MOST_LINES = 8  # methods drawn in a chart; more cannot be told apart
MOST_SUBSETS = 64  # rows of the table of subsets; beyond, subsets of one size are averaged
TEMPLATE = "report.html.j2"


def write_report(
    results: Results,
    path: str | os.PathLike[str],
    *,
    metric: str | None = None,
    examples: Sequence[Example] = (),
    title: str | None = None,
    command: str | None = None,
) -> Path:
    """Write the report of some results.

    Args:
        results: of one or several methods, seeds and data sets.
        path: of the HTML file.
        metric: that is shown; default: the first of the results.
        examples: rows to show, from :func:`~kintsugi.evaluation.examples`.
        title: heading; default: the names of the data sets.
        command: how to make this report again, as a shell or Python would read it.

    Raises:
        ImportError: Jinja2, Plotly or Pillow is not installed.
    """
    jinja2, plotly_script = _load()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "chart": chart_data}
    shown = results.metrics[0] if metric is None else metric
    board = results.leaderboard(shown)
    sections = [_section(results, board[board["dataset"] == name], shown) for name in board["dataset"].unique()]
    page = environment.get_template(TEMPLATE).render(
        title=title or ", ".join(str(name) for name in board["dataset"].unique()),
        metric=_spoken(shown),
        higher=results.higher_is_better(shown),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        sections=sections,
        examples=[_example(example) for example in examples],
        runs=_runs(results.runs),
        versions=_versions(results.runs),
        resamples=sorted({run.resamples for run in results.runs}) or [1000],
        command=command,
        plotly=plotly_script if any(section.charts for section in sections) else "",
    )
    target = Path(path)
    replace_file(target, page.encode())
    return target


def _load() -> tuple[Any, str]:
    try:
        import jinja2
        import PIL.Image  # noqa: F401  pictures of example rows
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            f"a report needs {error.name}, which is not installed: pip install 'kintsugi-ml[report]'"
        ) from error
    return jinja2, get_plotlyjs()


# numbers and names -------------------------------------------------------------------------------------------------


def number(value: object) -> str:
    """Three decimals below ten, four digits above; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    v = float(value)  # type: ignore[arg-type]
    return f"{v:.3f}" if abs(v) < 10 else f"{v:.4g}"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _labels(board: pd.DataFrame) -> list[str]:
    """What each row of a leaderboard is called: the method, with its training condition where these differ."""
    several = board["training"].nunique() > 1
    return [f"{m} ({t})" if several else str(m) for m, t in zip(board["method"], board["training"], strict=True)]


# one data set ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """What the page says of one data set; guess: what always giving the prior's answer gets, None: not known."""

    name: str
    board: dict[str, Any]
    subsets: dict[str, Any] | None
    charts: list[dict[str, Any]]
    legend: list[dict[str, Any]]
    left_out: int
    guess: float | None


COLUMNS = {
    "clean": ("Clean", "clean_low", "clean_high", None),
    "subset_mean": ("Subsets, mean", "subset_low", "subset_high", None),
    "subset_worst": ("Subsets, worst", None, None, "subset_worst_in"),
    "rate_mean": ("Missing rates, mean", "rate_low", "rate_high", None),
    "rate_area": ("Missing rates, area", None, None, None),
    "corruption_mean": ("Corruptions, mean", "corruption_low", "corruption_high", None),
    "corruption_area": ("Corruptions, area", None, None, None),
    "worst": ("Worst of all", None, None, "worst_in"),
    "clean_spread": ("Clean, sd of seeds", None, None, None),
}


def _section(results: Results, board: pd.DataFrame, metric: str) -> Section:
    board = board.reset_index(drop=True)
    names = _labels(board)
    curves = results.curves(metric)
    here = results.table[(results.table["metric"] == metric) & (results.table["dataset"] == board["dataset"].iloc[0])]
    units = [tuple(row) for row in board[UNIT].itertuples(index=False)]
    drawn = units[:MOST_LINES]
    guess = float(results.guess(metric).get(board["dataset"].iloc[0], math.nan))
    known = None if math.isnan(guess) else guess
    charts = _charts(curves[curves["dataset"] == board["dataset"].iloc[0]], drawn, names, known)
    return Section(
        str(board["dataset"].iloc[0]),
        _board(board, names),
        _subsets(here, units, names, bool(board["higher_is_better"].iloc[0])),
        charts,
        [{"name": name, "place": i} for i, name in enumerate(names[:MOST_LINES])],
        len(units) - len(drawn),
        known,
    )


def _board(board: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    repeats = "subset_worst" in board and board["worst"].equals(board["subset_worst"])  # nothing but subsets was tried
    shown = [c for c in COLUMNS if c in board and not (c == "worst" and repeats)]
    rows = []
    for name, line in zip(names, board.to_dict("records"), strict=True):
        cells = []
        for column in shown:
            _, low, high, where = COLUMNS[column]
            cells.append(
                {
                    "value": line[column],
                    "low": line.get(low) if low else None,
                    "high": line.get(high) if high else None,
                    "where": line.get(where) if where else None,
                }
            )
        rows.append({"rank": line["rank"], "name": name, "seeds": line["seeds"], "cells": cells})
    several = bool((board["seeds"] > 1).any())
    return {"heads": [COLUMNS[c][0] for c in shown], "rows": rows, "seeds": several, "n": int(board["n"].max())}


def _subsets(
    table: pd.DataFrame, units: Sequence[tuple[Any, ...]], names: Sequence[str], higher: bool
) -> dict[str, Any] | None:
    """Subsets down, methods across; the shade runs from the worst value (none) to the best (full)."""
    here = table[table["group"].isin(["clean", "subset"])]
    if not (here["group"] == "subset").any():
        return None
    here = here.assign(left=here["condition"].where(here["group"] == "subset", "all"))
    if here["left"].nunique() > MOST_SUBSETS:
        size = here["left"].str.count(r" \+ ") + 1
        here = here.assign(
            left=[f"any {s}" if left != "all" else "all" for s, left in zip(size, here["left"], strict=True)]
        )
    mean = here.groupby([*UNIT, "left"], sort=False)["value"].mean()
    order = list(dict.fromkeys(here["left"]))
    low, high = float(mean.min()), float(mean.max())
    rows = []
    for left in order:
        values = [float(mean.get((*unit, left), math.nan)) for unit in units]
        known = [v for v in values if not math.isnan(v)]
        best = (max(known) if higher else min(known)) if len(known) > 1 else None
        cells = [{"value": v, "shade": _shade(v, low, high, higher), "best": v == best} for v in values]
        rows.append({"name": left, "cells": cells})
    return {"heads": list(names), "rows": rows}


def _shade(value: float, low: float, high: float, higher: bool) -> int:
    """Percent of the full shade."""
    if math.isnan(value) or high <= low:
        return 0
    part = (value - low) / (high - low)
    return round(100 * (part if higher else 1 - part))


def _charts(
    curves: pd.DataFrame, units: Sequence[tuple[Any, ...]], names: Sequence[str], guess: float | None
) -> list[dict[str, Any]]:
    """Groups of small charts with one scale: missing rates, then the corruptions of each modality."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for group in dict.fromkeys(curves["group"]):
        lines = []
        for place, unit in enumerate(units):
            line = curves[(curves["group"] == group) & (curves[UNIT].apply(tuple, axis=1) == unit)]
            if len(line):
                lines.append(
                    {
                        "place": place,
                        "name": names[place],
                        **{c: _rounded(line[c]) for c in ("x", "value", "low", "high")},
                    }
                )
        if lines:
            heading, chart, axis = _place(str(group))
            drawn = {"title": chart, "axis": axis, "lines": lines}
            groups.setdefault(heading, []).append(drawn if guess is None else {**drawn, "guess": float(f"{guess:.5g}")})
    return [_scaled(heading, charts) for heading, charts in groups.items()]


def _place(group: str) -> tuple[str, str, str]:
    """``corruption/gaussian_noise(image)`` -> heading, title of the chart, label of its axis."""
    rest = group.partition("/")[2] or group
    if kind_of(group) == "rate":
        return "Missing modalities at random", f"{rest}, one kept", "share of slots missing"
    operator, _, modality = rest.partition("(")
    return f"Corrupted {modality.removesuffix(')') or 'inputs'}", _spoken(operator), "severity"


def _scaled(heading: str, charts: list[dict[str, Any]]) -> dict[str, Any]:
    ends = [
        v for c in charts for line in c["lines"] for key in ("value", "low", "high") for v in line[key] if v is not None
    ]
    ends += [chart["guess"] for chart in charts if "guess" in chart]
    low, high = min(ends), max(ends)
    pad = 0.04 * (high - low or 1)
    steps = sorted({x for c in charts for line in c["lines"] for x in line["x"]})
    return {"heading": heading, "range": [low - pad, high + pad], "steps": steps, "charts": charts}


def _rounded(values: pd.Series[Any]) -> list[float | None]:
    return [None if math.isnan(v) else float(f"{v:.5g}") for v in values]


def chart_data(chart: Mapping[str, Any], scale: Sequence[float]) -> str:
    """JSON of one chart for the script of the page, safe inside a script element.

    Plotly reads names as pseudo-HTML, so they are escaped here as well.
    """
    lines = [{**line, "name": html.escape(line["name"])} for line in chart["lines"]]
    said = json.dumps({**chart, "lines": lines, "range": list(scale)}, separators=(",", ":"))
    return said.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# rows and provenance -----------------------------------------------------------------------------------------------


def _example(example: Example) -> dict[str, Any]:
    columns = ["everything", *dict.fromkeys(a.without for a in example.answers if a.without is not None)]
    methods = dict.fromkeys(a.method for a in example.answers)
    found = {(a.method, a.without or "everything"): a for a in example.answers}
    pieces: list[Piece] = [piece(shown) for shown in example.inputs]
    return {
        "dataset": example.dataset,
        "index": example.index,
        "label": example.label,
        "pieces": pieces,
        "columns": columns,
        "rows": [{"method": m, "answers": [found.get((m, c)) for c in columns]} for m in methods],
    }


def _runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One line for all that was made alike but for the method and the seed."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in runs:
        key = (run.dataset, run.fingerprint, run.training, run.protocol)
        line = lines.setdefault(key, {"run": run, "methods": {}, "seeds": {}, "seconds": 0.0})
        line["methods"][run.method] = line["seeds"][run.seed] = None
        line["seconds"] += run.seconds
    return [
        {**line, "methods": ", ".join(line["methods"]), "seeds": ", ".join(map(str, sorted(line["seeds"])))}
        for line in lines.values()
    ]


def _versions(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(f"{name} {version}" for run in runs for name, version in run.versions.items()))
