"""The page itself: one HTML file with its data, its script and its style inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kintsugi.bench.store import Store
from kintsugi.core.errors import ConfigError
from kintsugi.io.files import replace_file
from kintsugi.report.appendix import MOST_FAILURES, appendix, commands, failures
from kintsugi.report.board import Board, boards, leaves_of
from kintsugi.report.data import MOST_SUBSETS, Shown, encoded, page_data, read, spoken
from kintsugi.report.ranks import diagram

TEMPLATES = Path(__file__).with_name("templates")
TEMPLATE = "bench.html.j2"


def write_report(
    store: Store,
    path: str | os.PathLike[str],
    *,
    metric: str | None = None,
    reference: str | Sequence[str] | None = None,
    title: str | None = None,
    command: str | None = None,
    suite_text: str = "",
) -> Path:
    """Write the report of a store: one HTML file that opens without a network. An interruption leaves no half of it.

    Args:
        store: of trials; unfinished and failed ones are counted and explained.
        path: of the HTML file.
        metric: that is shown; default: the leading one of each data set.
        reference: label of the method to which relative figures (mCE) refer, or several, see
            :func:`kintsugi.bench.figures.figures`; default: none, and these figures stay out.
        title: heading; default: the names of the data sets.
        command: how the store was filled, as a shell would read it; added to what the notes beside the store say.
        suite_text: YAML of the suite that was run.

    Raises:
        ImportError: Jinja2 or Plotly is not installed.
        UnknownName: no result has this metric, or no method is called like the reference.
        ConfigError: the path is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; a report is one file, such as {target / 'report.html'}")
    template, plotly = _load()
    page = template.render(plotly=plotly, **_contents(read(store, metric, reference), title, command, suite_text))
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, page.encode(errors="replace"))  # of a store that took half a surrogate pair for a name
    return target


def _load() -> tuple[Any, str]:
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            f"a report needs {error.name}, which is not installed: pip install 'kintsugi-ml[report]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "amount": amount, "breakable": breakable}
    return environment.get_template(TEMPLATE), get_plotlyjs()


def _contents(shown: Shown, title: str | None, command: str | None, suite_text: str) -> dict[str, Any]:
    tables, (data, left_out) = boards(shown), page_data(shown)
    failed = failures(r for r in shown.records if r.state == "failed")
    svg, why = _critical(shown)
    datasets = list(dict.fromkeys(board.dataset for board in tables))
    lines = [row for board in tables for row in board.rows]
    return {
        "title": title or ", ".join(datasets) or "An empty store",
        "metric": spoken(shown.metrics[0]) if len(shown.metrics) == 1 else "the metric",
        "one_metric": len(shown.metrics) == 1,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "boards": tables,
        "choices": _choices(tables, shown),
        "outsiders": any(row["origin"] for row in lines),
        "compared": any(row["mark"] for row in lines),
        "data": encoded(data),
        "left_out": left_out,
        "has": _sections(data),
        "most_subsets": MOST_SUBSETS,
        "critical": svg,
        "about_critical": why,
        "counts": {state: shown.counts.get(state, 0) for state in ("done", "failed", "pending", "running")},
        "failures": failed[:MOST_FAILURES],
        "more_failures": len(failed) - MOST_FAILURES,
        "notes": commands(shown, command, suite_text),
        "facts": appendix(shown),
        "style": _text("bench.css"),
        "script": _text("bench.js"),
    }


def _choices(tables: list[Board], shown: Shown) -> dict[str, list[str]]:
    """What the filters of the leaderboard offer."""
    leaves = leaves_of(shown) if tables else {}
    trainings = dict.fromkeys(row["training"] for board in tables for row in board.rows)
    return {
        "dataset": list(dict.fromkeys(board.dataset for board in tables)),
        "training": list(trainings),
        "leaf": sorted(set(leaves.values())),
    }


def _sections(data: dict[str, Any]) -> dict[str, bool]:
    """Which sections have something to show."""
    blocks = data["blocks"]
    units = [unit for block in blocks for unit in block["units"]]
    return {
        "rate": any(c["kind"] == "rate" for b in blocks for c in b["curves"]),
        "severity": any(c["kind"] != "rate" for b in blocks for c in b["curves"]),
        "subsets": any(b["subsets"] for b in blocks),
        "cost": any(v is not None for u in units for v in u["cost"]),
        "trust": any(u.get("reliability") or u.get("risk") for u in units),
        "share": any(b["modalities"] for b in blocks),
    }


def _critical(shown: Shown) -> tuple[str, str]:
    """The critical-difference diagram with what is to be said of it, or "" and why there is none."""
    from kintsugi.bench.versus import ranks

    if shown.figures.empty:
        return "", ""
    column = "mean" if "mean" in shown.figures else "clean"
    found = ranks(shown.figures, column)
    if found["reason"]:
        return "", found["reason"]
    said = (
        f"Friedman's test over {len(found['blocks'])} blocks of data set, protocol and training condition: "
        f"p {'= ' + format(found['p'], '.2g') if found['p'] >= 1e-4 else '< 0.0001'}, "
        f"{'so some methods differ' if found['differ'] else 'so no methods can be told apart'} at {found['alpha']:g}; "
        "critical difference by Nemenyi."
    )
    if found["left_out"]:
        said += f" Without a score in every block, and so left out: {', '.join(found['left_out'])}."
    return diagram(found["ranks"], found["groups"], found["critical_difference"]), said


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def breakable(name: str) -> Any:
    """A name that may be broken after its underscores, as HTML."""
    from markupsafe import Markup, escape  # of Jinja2

    return Markup(escape(name).replace("_", Markup("_<wbr>")))


# numbers -----------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three decimals below ten, four digits above; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:#.4g}".rstrip(".") if abs(value) < 1e4 else amount(value)


def amount(value: float | None) -> str:
    """A count in thousands (k), millions (M), thousand millions (G) or millions of millions (T)."""
    if value is None:
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
