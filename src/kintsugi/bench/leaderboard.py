"""The results of a store as a Markdown page: what was run, a table a data set, and what can be claimed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kintsugi.bench.components import raised
from kintsugi.bench.figures import figures_of, names_of
from kintsugi.bench.figures_reference import bounded_units
from kintsugi.bench.figures_seeds import latest, of_metric, seed_scores
from kintsugi.bench.leaderboard_tables import MANY, Board, code, joined, legend
from kintsugi.bench.made_with import SOURCES, made_with_of
from kintsugi.bench.schema_sql import explain
from kintsugi.bench.versus import ranks
from kintsugi.bench.versus_notes import last_line
from kintsugi.core.catalogue import METHODS
from kintsugi.io.files import replace_file

if TYPE_CHECKING:
    from kintsugi.bench.store import Record, Store


def write_leaderboard(
    store: Store,
    path: Path,
    *,
    command: str,
    commit: str,
    machine: str | None = None,
    date: str = "",
    budget: float | None = None,
    metric: str | None = None,
    suite_text: str = "",
    reference: str | Sequence[str] | None = None,
) -> Path:
    """Write the page. The same store and arguments make the same bytes.

    Args:
        store: of the trials.
        path: of the Markdown file; its folder is made if need be.
        command: how to run it again, as a shell would read it.
        commit: of the sources.
        machine: where it ran; default: what the trials say.
        date: as it is to be printed; default: none.
        budget: minutes on two cores that the suite declares.
        metric: that is shown; default: the leading one of each data set.
        suite_text: the suite as it was read, printed at the end.
        reference: as for :func:`~kintsugi.bench.figures.figures`.

    Raises:
        UnknownName: no trial has this metric, or no method the label of the reference.
        StoreError: the disk is full.
    """
    table, records = store.table(), list(store.records())
    done = [record for record in records if record.state == "done"]
    rows = latest(table, done)
    chosen = of_metric(rows, metric)
    lines = ["# Leaderboard", ""]
    lines += _run(rows, records, command, commit, machine, date, budget)
    if len(chosen):
        shown = figures_of(table, done, metric, reference)
        lines += _reading(shown, names_of(reference))
        lines += _boards(shown, chosen, done)
        lines += ["## Over all data sets", "", _over_all(shown), ""]
    else:
        lines += ["No trial is done yet.", ""]
    lines += _failures(records)
    if suite_text.strip():
        lines += ["## The suite", "", *_fenced(suite_text, "yaml"), ""]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        replace_file(target, ("\n".join(lines).rstrip() + "\n").encode())
    except OSError as error:
        raise explain(error, target) from error
    return target


# the head ----------------------------------------------------------------------------------------------------------
def _run(
    rows: pd.DataFrame,
    records: Sequence[Record],
    command: str,
    commit: str,
    machine: str | None,
    date: str,
    budget: float | None,
) -> list[str]:
    counted = set(rows["trial"]) if len(rows) else set()
    mine = [record for record in records if record.trial.hash in counted]
    states = Counter(record.state for record in records)
    said = {
        "Command": code(command),
        "Commit": code(commit),
        "Machine": machine or _machine(mine),
        "Versions": _versions(mine),
        "Raised versions": ", ".join(raised(record for record in mine if not record.trial.origin)),
        "Date": date,
        "Seeds": ", ".join(map(str, sorted({record.trial.seed for record in mine}))),
        "Budget": "" if budget is None else f"{budget:g} minutes on two cores",
        "Trials": ", ".join(f"{states[s]} {s}" for s in ("done", "failed", "running", "pending") if states[s])
        + (f"; {states['done'] - len(mine)} of an older edition do not count" if states["done"] > len(mine) else ""),
    }
    return [*(f"- {name}: {value}" for name, value in said.items() if value), ""]


def _machine(records: Iterable[Record]) -> str:
    found: dict[str, None] = {}
    for record in records:
        about = record.facts.get("machine") or {}
        if about and not record.trial.origin:
            words = [f"{about[key]}" for key in ("processor", "accelerator", "system") if about.get(key)]
            if about.get("cores"):
                threads = about.get("threads", "?")
                words.append(f"{about['cores']} cores, {threads} thread{'s' * (threads != 1)} a trial")
            found[", ".join(words)] = None
    return "; ".join(sorted(found))


def _versions(records: Iterable[Record]) -> str:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in {} if record.trial.origin else made_with_of(record).items():
            if name != SOURCES:
                found.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items()))


def _reading(shown: pd.DataFrame, references: Sequence[str]) -> list[str]:
    kinds = set(shown["interval"])
    over = {
        "seeds": "Student's t over training seeds, which leaves out the choice of test rows",
        "rows": "the bootstrap over test rows where there is one seed, which leaves out the noise of training",
    }
    said = (
        f"± is half of a 95 % interval: {'; '.join(over[kind] for kind in ('seeds', 'rows') if kind in kinds)}. "
        "One method is said to beat another only where the paired 95 % interval of their difference over the same seeds, "
        "at least three, lies on one side of 0; where seeds make no difference, that over test rows. "
        "Each pair is judged by itself, without correction for how many there are. "
        "Bold: beats every other of its table in that column."
    )
    return [said, "", *legend(shown, references), ""]


# the tables --------------------------------------------------------------------------------------------------------
def _boards(shown: pd.DataFrame, chosen: pd.DataFrame, records: Sequence[Record]) -> list[str]:
    scores = seed_scores(chosen, records)
    datasets = chosen.drop_duplicates("unit").set_index("unit")["dataset"]
    shares = dict(zip(datasets, bounded_units(chosen).reindex(datasets.index), strict=True))
    lines = []
    for dataset, protocol in shown[["dataset", "protocol"]].drop_duplicates().itertuples(index=False):
        mine = shown[(shown["dataset"] == dataset) & (shown["protocol"] == protocol)]
        raw = scores[(scores["dataset"] == dataset) & (scores["protocol"] == protocol)]
        board = Board(mine.reset_index(drop=True), raw, bool(shares[dataset]))
        lines += [f"## {code(dataset)}, protocol {code(protocol)}", "", board.about(), ""]
        lines += [*_tables(board, _leaves(records)), board.verdict(), ""]
        lines += [line for line in (board.outsiders(), "") if board.outsiders()]
    return lines


def _leaves(records: Sequence[Record]) -> dict[str, str]:
    """Name of a method in tables -> its place in the taxonomy, of those that are registered here."""
    keys = {
        record.trial.method: str(record.trial.parameters.get("method", ""))
        for record in records
        if not record.trial.origin
    }
    return {name: METHODS.card(key).leaf for name, key in keys.items() if key in METHODS}


def _tables(board: Board, leaves: Mapping[str, str]) -> list[str]:
    """One table of few methods; of many the best of each leaf, then each leaf's own, with ranks among all."""
    if board.lines["method"].nunique() < MANY:
        return [*board.table(), ""]
    lines = ["The plain hosts, and the best of each leaf of the taxonomy:", "", *board.table(board.leading(leaves)), ""]
    for leaf, places in board.of_leaves(leaves).items():
        lines += [f"### {leaf}", "", *board.table(places), ""]
    return lines


def _over_all(shown: pd.DataFrame) -> str:
    column = "mean" if "mean" in shown else "clean"
    found = ranks(shown, column)
    if found["reason"]:
        return f"No ranks over data sets: {found['reason']}"
    average, groups = found["ranks"], found["groups"]
    blocks, first = len(found["blocks"]), next(iter(average))
    listed = ", ".join(f"{code(name)} {rank:.2f}" for name, rank in average.items())
    lost = f" Left out, for want of a score in some block: {joined(found['left_out'])}." if found["left_out"] else ""
    head = (
        f"Average ranks by {_spoken(column)} over {blocks} blocks (data set, protocol and training condition), 1 the best: "
        f"{listed}.{lost} "
    )
    if not found["differ"]:
        return (
            head
            + f"Friedman's test finds no difference between the methods (Iman and Davenport, p = {found['p']:.2g})."
        )
    critical = found["critical_difference"]
    level = next((group for group in groups if group[0] == first), [first])[1:]
    one = "is" if len(level) == 1 else "are"
    with_first = (
        f"{joined(level)} {one} less than that behind the first, {code(first)}"
        if level
        else f"{code(first)} is that far ahead of every other"
    )
    return (
        f"{head}Friedman's test says that they differ (Iman and Davenport, p = {found['p']:.2g}). Nemenyi's critical difference "
        f"of average ranks is {critical:.2f}: {with_first}. Blocks of one data set are not independent of each other, which "
        "makes p too small."
    )


def _spoken(column: str) -> str:
    return "the mean over degraded conditions" if column == "mean" else "the clean value"


# the end -----------------------------------------------------------------------------------------------------------
def _failures(records: Iterable[Record]) -> list[str]:
    failed = [record for record in records if record.state == "failed"]
    if not failed:
        return []
    lines = [
        f"- {code(r.trial.method)} on {code(r.trial.dataset)}, training {code(r.trial.training)}, protocol "
        f"{code(r.trial.protocol.name)}, seed {r.trial.seed}: {code(last_line(r.traceback))}"
        for r in failed
    ]
    return ["## Failed trials", "", *lines, ""]


def _fenced(text: str, language: str) -> list[str]:
    """A block whose fence is longer than any in the text."""
    longest = max((len(line) - len(line.lstrip("`")) for line in text.splitlines()), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *text.strip("\n").splitlines(), fence]
