"""The demonstration: robust methods trained and compared on digits that lose their image, their sound or their clue."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset
    from kintsugi.evaluation import Results

METHODS = (
    "mean_fusion", "late_fusion", "early_fusion", "mmin", "kd_mm", "missing_aware_prompts", "ccm", "smil",
)  # fmt: skip
CONDITIONS = ("complete", "mcar(0.3)")
EPOCHS, BATCH, RATE = 20, 32, 3e-3


@dataclass(frozen=True)
class Job:
    """One model to train and to put to the test."""

    method: str
    condition: str
    seed: int
    epochs: int
    folder: Path


@dataclass
class Done:
    """What came of a job. ``val``: mean accuracy over the subsets of the validation rows, by which the best is chosen."""

    job: Job
    results: Results
    val: float
    seconds: float


@cache
def _rows() -> tuple[Dataset, Dataset, Dataset]:
    """Train, validation and test rows; the same objects for every job of a process, so that test rows are damaged once."""
    import kintsugi as kg

    return kg.datasets.load("avdigits").split()


def work(job: Job) -> Done:
    """Train, evaluate, save; in a process of its own with a single thread."""
    import torch

    import kintsugi as kg
    from kintsugi.imperfect import parse_mechanism

    torch.set_num_threads(1)
    began = time.perf_counter()
    train, val, test = _rows()
    if job.condition != "complete":
        mechanism = parse_mechanism(job.condition)
        train, val = train.with_missing(mechanism, seed=job.seed), val.with_missing(mechanism, seed=job.seed + 1)
    model = kg.Classifier(
        job.method, epochs=job.epochs, batch_size=BATCH, lr=RATE, seed=job.seed, progress=False,
        checkpoint=job.folder.with_suffix(".checkpoint"),
    )  # fmt: skip
    model.fit(train, val)
    seconds = time.perf_counter() - began
    results = kg.evaluate(model, test, protocol="standard", training=job.condition)
    subsets = kg.evaluate(model, val, protocol="subsets", metrics=["accuracy"]).table["value"].mean()
    model.save(job.folder)
    return Done(job, results, float(subsets), seconds)


def run(
    out: Path, methods: Sequence[str] = METHODS, epochs: int = EPOCHS, seed: int = 0, workers: int | None = None,
    command: str = "kintsugi demo",
) -> int:  # fmt: skip
    """All of it; returns the exit status."""
    from rich.console import Console

    from kintsugi.core.errors import ConfigError
    from kintsugi.core.methods import METHODS as KNOWN
    from kintsugi.io.saved_models import strangers

    methods = tuple(dict.fromkeys(methods))
    if not methods:
        raise ConfigError("name at least one method")
    for method in methods:
        KNOWN[method]  # an unknown name is said before anything is trained
    final = out / "model"
    if final.exists() and (not final.is_dir() or strangers(final)):
        raise ConfigError(f"{final} is there and is no saved model; choose another folder with --out")
    console = Console(highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    models = out / ".training"  # a name that nobody else has, since it is deleted at the end
    models.mkdir(exist_ok=True)
    jobs = [Job(m, c, seed, epochs, models / f"{m}-{_slug(c)}") for m in methods for c in CONDITIONS]
    began = time.perf_counter()
    console.print(
        f"[bold]avdigits[/bold]: 1,500 digits as image (MNIST), speech (espeak-ng, 20 languages) and clue (a sentence).\n"
        f"Training {len(methods)} methods on complete rows and on rows that lost 30 % of their slots; "
        "then every subset, missing slots at three rates, and fourteen corruptions at three severities.\n"
    )
    done = list(_all(jobs, workers or min(os.cpu_count() or 1, len(jobs)), console))
    done.sort(key=lambda d: jobs.index(d.job))
    from kintsugi.estimator import load
    from kintsugi.evaluation import Results

    results = Results.concat([d.results for d in done])
    console.print(leaderboard(results))
    best = max(done, key=lambda d: d.val)
    load(best.job.folder).save(final)
    results.to_csv(out / "results.csv")
    report = results.to_html(
        out / "report.html", title="Kintsugi demo: digits seen, heard and described", command=command,
        examples=_examples(models, best, methods),
    )  # fmt: skip
    shutil.rmtree(models)
    for line in (
        f"\nReport: {report} (opens without a network)",
        f"Table: {out / 'results.csv'}",
        f"Best on validation subsets: {best.job.method} trained on {best.job.condition} rows, saved in {final}",
    ):
        console.print(line, markup=False, soft_wrap=True)
    status = _show_predict(out, final, console)
    console.print(f"\nDone in {time.perf_counter() - began:.0f} s.")
    return status


def _all(jobs: Sequence[Job], workers: int, console: Any) -> Iterator[Done]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):
        task = bar.add_task("training", total=len(jobs))
        futures: list[Future[Done]] = [pool.submit(work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                one = future.result()
                bar.update(task, advance=1)
                console.print(
                    f"  {one.job.method:<22} {one.job.condition:<9} {one.seconds:5.1f} s   "
                    f"validation subsets {100 * one.val:.1f} %"
                )
                yield one
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def leaderboard(results: Results) -> Any:
    """The table that a terminal of 80 columns shows; values in percent with 95 % intervals over test rows."""
    from rich import box
    from rich.table import Table

    rows, board = int(results.table["n"].iloc[0]), results.leaderboard("accuracy")
    table = Table(
        title=f"accuracy in % on {rows} test digits, one training run each\n± half of the 95 % interval over rows",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("method", overflow="fold", no_wrap=board["method"].str.len().max() <= 21)
    for name in ("trained\non", "complete", "mean of\nsubsets", "worst\nsubset", "when\ncorrupted"):
        side: Any = "left" if name.startswith("trained") else "right"
        table.add_column(name, justify=side, overflow="fold", no_wrap=not name.startswith("worst"))
    for _, row in board.iterrows():
        worst = f"{100 * row['subset_worst']:.1f} {row['subset_worst_in'].replace(' + ', '+')}"
        values = _interval(row, "clean"), _interval(row, "subset"), worst, _interval(row, "corruption")
        table.add_row(row["method"], row["training"], *values)
    guess = f"{100 * float(results.guess('accuracy').iloc[0]):.1f}"
    table.add_row("a guess (prior)", "", guess, guess, guess, guess, style="dim")
    return table


def _interval(row: Any, name: str) -> str:
    """Value and half the width of its interval."""
    value = row[name] if name == "clean" else row[name + "_mean"]
    return f"{100 * value:.1f} ±{50 * (row[name + '_high'] - row[name + '_low']):.1f}"


def _slug(condition: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in condition).strip("-")


def _examples(models: Path, best: Done, methods: Sequence[str]) -> Any:
    import kintsugi as kg
    from kintsugi.evaluation import examples

    shown = {best.job.method: best.job.folder}
    if "mean_fusion" in methods:
        shown.setdefault("mean_fusion", models / f"mean_fusion-{_slug(best.job.condition)}")
    _, _, test = kg.datasets.load("avdigits").split()
    return examples({name: kg.load(folder) for name, folder in shown.items()}, test, rows=6)


def _show_predict(out: Path, model: Path, console: Any) -> int:
    """A few test rows with holes in a file of their own, and the command line on them."""
    import pandas as pd

    from kintsugi.data.builtin import FILES
    from kintsugi.io.files import replacing

    rows = pd.read_parquet(FILES / "avdigits.parquet")
    rows = rows[rows["split"] == "test"].head(6).reset_index(drop=True)
    for i, column in ((1, "image"), (2, "speech"), (3, "clue")):
        rows.loc[i, column] = None
    rows.loc[4, ["speech", "clue"]] = None
    rows.loc[5, ["image", "speech", "clue"]] = None
    file = out / "rows.parquet"
    with replacing(file) as fresh:
        rows[["image", "speech", "clue", "digit"]].to_parquet(fresh)
    shown = out / "predictions.csv"
    command = shlex.join(["kintsugi", "predict", str(model), str(file), "-o", str(shown)])
    console.print(f"\n$ {command}", markup=False, soft_wrap=True)
    called = subprocess.run(
        [sys.executable, "-m", "kintsugi.cli", "predict", str(model), str(file), "-o", str(shown)], check=False
    )
    if called.returncode == 0:
        predicted = pd.read_csv(shown)
        predicted.insert(0, "digit", rows["digit"])
        console.print(predicted.to_string(index=False), markup=False, soft_wrap=True)
    return called.returncode
