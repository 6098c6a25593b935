"""What a user would pick instead, side by side: scikit-learn, PyPOTS, iMML and Kintsugi on the same rows with the same holes.

    OMP_NUM_THREADS=1 python benchmarks/peers.py --pypots PYTHON --imml PYTHON --seeds 3 --json peers.json

``--pypots`` and ``--imml`` name the Python of an environment that has PyPOTS 1.5 or iMML 0.6.0 (``imml[deep]``); without them
these two are left out. Every learner runs in a process of its own. It gets training and validation rows with their labels and
the test rows without, and is timed from the first row to the last answer; imports and the reading of rows are not counted.
Results go to ``--json`` as they come, and what stands there is not run again.

- Worlds are taken as they are: holes are part of their premise. ``handwritten`` loses 30 % of the slots of training and
  validation rows, and 30 % or 50 % of the test rows', completely at random; its rows are always the same, seeds are of the holes.
- Imputers come before a logistic regression whose C validation rows choose. Networks of iMML and methods of Kintsugi have 1,000
  updates of 64 rows; validation rows choose among 12 rounds. Imputers of PyPOTS have as many updates, and their last weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset

Array = np.ndarray[Any, Any]
Results = dict[str, dict[str, Any]]
CHILD = Path(__file__).with_name("peers_child.py")
RECIPE = 1  # raised when numbers of before and after are not to stand in one table
UPDATES = 1000
LIMIT = 1800.0  # seconds of a process
HOST = "mean_fusion"  # that differences are taken to
PEERS: dict[str, dict[str, str]] = {
    "sklearn": {
        "simple": "scikit-learn: mean and indicators",
        "iterative": "scikit-learn: IterativeImputer",
        "knn": "scikit-learn: KNNImputer",
    },
    "pypots": {"saits": "PyPOTS: SAITS", "brits": "PyPOTS: BRITS"},
    "imml": {
        "m3care": "iMML: M3Care",
        "muse": "iMML: MUSE",
        "mofa": "iMML: MOFAImputer",
        "jnmf": "iMML: JNMFImputer",
        "dfmf": "iMML: DFMFImputer",
    },
    "kintsugi": {
        key: f"Kintsugi: {key}"
        for key in (HOST, "random_subsets", "late_fusion", "mmin", "cra", "unimf", "sha_spec", "tip")
    },
}
WORLDS = {
    "redundant": ("redundant", "vector"),
    "redundant_series": ("redundant", "series"),
    "few_complete_rows": ("few_complete_rows", "vector"),
    "few_complete_rows_series": ("few_complete_rows", "series"),
}
DATA = (*WORLDS, "handwritten")
TRAIN_RATE, TEST_RATES = 0.3, (0.3, 0.5)


@dataclass(frozen=True)
class Made:
    """One data set of one seed: rows to learn from, rows to choose by, test rows by condition, and the best that can be reached.

    optimum: condition -> accuracy of Bayes' rule, exact; empty where the law is not known.
    """

    train: Dataset
    val: Dataset
    tests: dict[str, Dataset]
    optimum: dict[str, float]


def make(name: str, seed: int) -> Made:
    """A data set of :data:`DATA` with its holes."""
    import kintsugi as kg

    if name in WORLDS:
        premise, kind = WORLDS[name]
        data = kg.datasets.load("worlds", premise=premise, kind=kind, seed=seed)
        train, val, test = data.split()
        return Made(train, val, {"as it is": test}, {"as it is": float(data.note["optimum"])})
    train, val, test = kg.datasets.load("handwritten").split()
    holes = kg.missing.mcar(TRAIN_RATE)
    tests = {f"{rate:.0%} missing": test.with_missing(kg.missing.mcar(rate), seed=seed) for rate in TEST_RATES}
    return Made(train.with_missing(holes, seed=seed), val.with_missing(holes, seed=seed), tests, {})


def arrays(made: Made) -> dict[str, Array]:
    """The rows as the child reads them; of test rows no label."""
    parts = {"train": made.train, "val": made.val}
    parts |= {f"test{place}": test for place, test in enumerate(made.tests.values())}
    found: dict[str, Array] = {}
    for part, data in parts.items():
        batch = data.batch(list(range(len(data))))
        for place, name in enumerate(batch.names):
            x = batch.inputs[name].numpy().astype(np.float32)
            here = batch.present[:, place].numpy().reshape(-1, *[1] * (x.ndim - 1))
            found[f"x|{part}|{name}"] = np.where(here, x, np.float32(np.nan))
        if not part.startswith("test"):
            found[f"y|{part}"] = np.where(data.target_present.numpy(), labels(data), -1)
    return found


def labels(data: Dataset) -> Array:
    """The number of the class of each row, int64 ``[N]``."""
    target = data.batch(list(range(len(data)))).target
    assert target is not None
    return np.asarray(target.numpy().astype(np.int64))


# One process -------------------------------------------------------------------------------------------------------
def ask(python: str, job: Mapping[str, Any], rows: Path, truth: Mapping[str, Array], limit: float) -> dict[str, Any]:
    """What a learner reaches in a process of its own: accuracies, seconds and memory, or in words why there are none.

    Args:
        python: interpreter that has the learner.
        job: peer, learner, data, seed, updates.
        rows: the file with the rows.
        truth: test part -> its labels.
        limit: seconds that the process may last.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(dict(job)))
        (folder / "rows.npz").symlink_to(rows.resolve())
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [python, str(CHILD), name], capture_output=True, text=True, check=False, timeout=limit,
                env=environment, cwd=name, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"failure": f"no answer within {limit:.0f} s"}
        except OSError as error:
            return {"failure": f"{python} does not start: {error.strerror}"}
        if done.returncode:
            return {"failure": last_words(done.stderr, done.returncode)}
        facts = json.loads((folder / "facts.json").read_text())
        with np.load(folder / "answers.npz") as answers:  # nothing is unpickled
            told = {part: answers[part] for part in answers.files}
    if told.keys() != truth.keys() or any(told[part].shape != truth[part].shape for part in truth):
        return {"failure": "answers do not fit the test rows"}
    return {"accuracy": {part: float((told[part] == truth[part]).mean()) for part in truth}, **facts}


def last_words(stderr: str, code: int) -> str:
    """The message of the exception that ended a process, in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = lines[-1] if lines else f"ended with {code}"
    if code < 0:
        said = f"killed by signal {-code}"
    return said if len(said) <= 200 else said[:197] + "..."


# Results -----------------------------------------------------------------------------------------------------------
def key_of(data: str, learner: str, seed: int) -> str:
    """Under which a result stands in the file."""
    return f"{data}|{learner}|{seed}"


def read(path: Path | None, updates: int) -> Results:
    """Results of before.

    Raises:
        SystemExit: they were made by another recipe or budget, and would not be comparable.
    """
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text())
    if (found["recipe"], found["updates"]) != (RECIPE, updates):
        raise SystemExit(
            f"{path} holds results of recipe {found['recipe']} with {found['updates']} updates, not of {RECIPE} with "
            f"{updates}: name another file"
        )
    results: Results = found["results"]
    return results


def write(path: Path, results: Results, updates: int) -> None:
    """All results, whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps({"recipe": RECIPE, "updates": updates, "results": results}, indent=1))
    os.replace(new, path)


def plan(data: Sequence[str], seeds: int, only: Iterable[str]) -> Iterator[tuple[int, str, str, str]]:
    """Seed, data set, peer and learner: all of the first seed come before the second, so that a part is a table already.

    ``only``: names of peers or of learners; none: all. PyPOTS imputes series, and gets no other data.
    """
    wanted = set(only)
    for seed in range(seeds):
        for name in data:
            for peer, learners in PEERS.items():
                for learner in learners:
                    if wanted and peer not in wanted and learner not in wanted:
                        continue
                    if peer != "pypots" or name.endswith("series"):
                        yield seed, name, peer, learner


# The table ---------------------------------------------------------------------------------------------------------
def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % t-interval; NaN for one value, of which there is none."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    from scipy.stats import t

    return mean, float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def shown(values: Sequence[float], sign: bool = False) -> str:
    """Shares in per cent: ``61.2 ± 3.4``."""
    mean, half = interval([100 * value for value in values])
    text = f"{mean:+.1f}" if sign else f"{mean:.1f}"
    return text if math.isnan(half) else f"{text} ± {half:.1f}"


def table(name: str, results: Results, conditions: Sequence[str], optimum: Mapping[int, Mapping[str, float]]) -> str:
    """Markdown of one data set.

    Args:
        name: of the data set.
        results: of all of them.
        conditions: of the test rows, in the order of the child's parts.
        optimum: seed -> condition -> what can be reached; empty where nobody knows.
    """
    mine: dict[str, dict[int, dict[str, Any]]] = {}
    for key, result in results.items():
        data, learner, seed = key.split("|")
        if data == name:
            mine.setdefault(learner, {})[int(seed)] = result
    head = ["method"]
    for condition in conditions:
        bare = "" if len(conditions) == 1 else f", {condition}"
        head += [f"accuracy, %{bare}", *(["optimum"] if optimum else []), f"to {HOST}, paired{bare}"]
    head += ["seconds", "of CPU", "MB"]
    lines = [head, ["---"] * len(head)]
    for learners in PEERS.values():
        for learner, title in learners.items():
            if learner in mine:
                lines.append(_line(title, learner, mine, conditions, optimum))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(
    title: str,
    learner: str,
    mine: Mapping[str, Mapping[int, Mapping[str, Any]]],
    conditions: Sequence[str],
    optimum: Mapping[int, Mapping[str, float]],
) -> list[str]:
    good = {seed: result for seed, result in sorted(mine[learner].items()) if "accuracy" in result}
    words = sorted({result["failure"] for result in mine[learner].values() if "failure" in result})
    width = len(conditions) * (3 if optimum else 2) + 3
    if words and not good:
        return [title, f"failed: {'; '.join(words)}".replace("|", "/"), *[""] * (width - 1)]
    host = {seed: result for seed, result in mine.get(HOST, {}).items() if "accuracy" in result}
    cells = [f"{title} ({len(good)} of {len(mine[learner])} seeds; else {'; '.join(words)})" if words else title]
    for place, condition in enumerate(conditions):
        part = f"test{place}"
        cells.append(shown([result["accuracy"][part] for result in good.values()]))
        if optimum:
            cells.append(f"{100 * statistics.fmean(optimum[seed][condition] for seed in good):.1f}")
        both = [good[seed]["accuracy"][part] - host[seed]["accuracy"][part] for seed in good if seed in host]
        cells.append("" if learner == HOST or not both else shown(both, sign=True))
    for field in ("seconds", "cpu_seconds", "megabytes"):
        value = statistics.median(result[field] for result in good.values())
        cells.append(f"{value:.1f}" if value < 10 else f"{value:.0f}")
    return [cell.replace("|", "/") for cell in cells]


def report(data: Sequence[str], results: Results) -> str:
    """The tables of all data sets of which there are results, and what they were measured with."""
    from common import machine

    pieces = []
    for name in data:
        seeds = sorted({int(key.split("|")[2]) for key in results if key.startswith(f"{name}|")})
        if not seeds:
            continue
        made = {seed: make(name, seed) for seed in seeds}
        optimum = {seed: each.optimum for seed, each in made.items() if each.optimum}
        pieces.append(f"### {name}\n\n{table(name, results, list(made[seeds[0]].tests), optimum)}")
    loads = [result["load"] for result in results.values() if "load" in result]
    if loads:
        used = sorted({result["versions"] for result in results.values() if "versions" in result})
        pieces.append(f"{machine()}; load {min(loads):.1f} to {max(loads):.1f}; {'; '.join(used)}")
    return "\n\n".join(pieces)


def listed(text: str) -> list[str]:
    """``a,b`` -> names."""
    return [name for name in text.split(",") if name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", type=listed, default=[], metavar="PEER,...", help="peers or single learners")
    parser.add_argument("--data", type=listed, default=list(DATA), metavar="NAME,...", help=", ".join(DATA))
    parser.add_argument("--pypots", metavar="PYTHON", help="interpreter that has PyPOTS")
    parser.add_argument("--imml", metavar="PYTHON", help="interpreter that has iMML")
    parser.add_argument("--json", type=Path, metavar="OUT", help="results; those that are there are not run again")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of one process")
    parser.add_argument("--table", action="store_true", help="print what --json holds, and run nothing")
    args = parser.parse_args()
    learners = [learner for each in PEERS.values() for learner in each]
    for given, known in ((args.data, DATA), (args.only, (*PEERS, *learners))):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    results = read(args.json, args.updates)
    if not args.table:
        run(args, results)
    print(report(args.data, results))


def run(args: argparse.Namespace, results: Results) -> None:
    """Everything that is asked for and not there, one process after the other."""
    pythons = {"sklearn": sys.executable, "kintsugi": sys.executable, "pypots": args.pypots, "imml": args.imml}
    jobs = [job for job in plan(args.data, args.seeds, args.only) if key_of(job[1], job[3], job[0]) not in results]
    for peer in dict.fromkeys(job[2] for job in jobs):
        if pythons[peer] is None:
            print(f"{peer} is left out: --{peer} PYTHON was not given", file=sys.stderr)
    jobs = [job for job in jobs if pythons[job[2]] is not None]
    with tempfile.TemporaryDirectory() as name:
        rows, last, truth = Path(name) / "rows.npz", (-1, ""), {}
        for seed, data, peer, learner in jobs:
            if (seed, data) != last:
                made, last = make(data, seed), (seed, data)
                np.savez(rows, **arrays(made))  # type: ignore[arg-type]
                truth = {f"test{place}": labels(test) for place, test in enumerate(made.tests.values())}
            job = {"peer": peer, "learner": learner, "data": data, "seed": seed, "updates": args.updates}
            result = ask(str(pythons[peer]), job, rows, truth, args.limit)
            results[key_of(data, learner, seed)] = result
            if args.json is not None:
                write(args.json, results, args.updates)
            said = result.get("failure") or ", ".join(f"{100 * each:.1f} %" for each in result["accuracy"].values())
            print(f"{data}, {learner}, seed {seed}: {said}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
