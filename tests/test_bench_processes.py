"""Trials in worker processes: whatever ends one costs its trial, and whatever ends the parent ends them all."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kintsugi.bench import Store, StoreError, Trial, processes
from kintsugi.bench.job import Done, Job, Planned, Source
from kintsugi.bench.processes import Processes, held
from kintsugi.bench.running import Executor, InProcess, Ledger, Limits, Tally, run
from kintsugi.core.catalogue import METHODS
from kintsugi.core.errors import ConfigError
from kintsugi.evaluation.protocols import Condition, Protocol

PROTOCOL = Protocol("two", (Condition("clean", "clean", x=0.0), Condition("image", "subset", keep=("image",))))
FORK = multiprocessing.get_context("fork")
PERFORM = "test_bench_processes:perform"
CLASSES = {"clean": np.arange(50) % 7}
proc = pytest.mark.skipif(held(os.getpid()) is None, reason="reads /proc")


SHIFTY = """
import kintsugi as kg
from kintsugi.core import Model


@kg.register(
    kg.Card(
        key="shifty", name="Shifty", leaf="general", imperfection=("missing at test",), faithful=("a mean",),
        claims=("nothing",), premise="nothing", confidence="high", version=1,
    )
)
class Shifty(Model):
    def __init__(self, schema, dim=8, gain=1.0):
        super().__init__(schema, dim)
        self.gain = gain
"""


# trials that do as they are told ------------------------------------------------------------------------------------
def planned(seed: int, does: str = "nothing", **params: Any) -> Planned:
    job = Job(Source("toy"), does, seed, params=params)
    return Planned(job, Trial(does, params, "toy", "f00d", job.training, seed, PROTOCOL, {}))


def perform(job: Job) -> Done:
    """In a worker."""
    if log := job.params.get("log"):
        with Path(log).open("a") as file:  # one short write to a file that is appended to: whole, or not there
            file.write(f"{job.seed} {os.getpid()}\n")
    if job.method == "none":
        return None  # type: ignore[return-value]
    facts = DOES[job.method](job) or {}
    return Done(table(job), CLASSES, facts)


def quick(job: Job) -> Done:
    """Results of the right shape for any job on ``factors``."""
    lines = table(job)
    return Done(lines[lines["condition"] == "clean"].assign(dataset="factors"), CLASSES, {})


def table(job: Job) -> pd.DataFrame:
    lines = [
        {
            "dataset": "toy", "method": job.method, "seed": job.seed, "training": job.training, "condition": c.name,
            "group": c.group, "x": math.nan if c.x is None else c.x, "metric": "accuracy", "value": (job.seed + place) / 3,
            "low": 0.0, "high": 1.0, "n": 50, "higher_is_better": True, "seconds": time.time(), "mask_hash": "",
        }
        for place, c in enumerate(PROTOCOL.conditions)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def _nothing(job: Job) -> dict[str, Any]:
    import torch

    print(f"trial {job.seed} was here")
    variables = {name: os.environ[name] for name in processes.ONE_THREAD}
    return {"pid": os.getpid(), "threads": torch.get_num_threads(), **variables}


def _sleep(job: Job) -> None:
    time.sleep(job.params["seconds"])


def _die(job: Job) -> None:
    os.write(2, b"last words\n")
    os.kill(os.getpid(), job.params["signal"])
    time.sleep(60)


def _leave(_: Job) -> None:
    os._exit(7)


def _exit(_: Job) -> None:
    sys.exit("enough")


def _eat(_job: Job) -> None:
    eaten = []
    for _ in range(30):  # never more than 3 GB, should nobody stop it
        eaten.append(np.ones(100_000_000 // 8))
    time.sleep(60)


def _deaf(_: Job) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def _raise(_: Job) -> None:
    print("so far so good")
    raise MemoryError("no room for 9 TB")


def _unpicklable(_: Job) -> dict[str, Any]:
    return {"function": lambda: None}


def _wrong(job: Job) -> None:
    object.__setattr__(job, "seed", 99)  # results of another trial


def _parent(job: Job) -> None:
    """Leaves a process behind that holds everything which the worker holds."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    Path(job.params["pids"]).write_text(f"{child.pid}")
    os.kill(os.getpid(), signal.SIGSEGV)


def _orphan(_: Job) -> None:
    """Takes back that the system ends this process with its parent, so that the pipe alone tells."""
    ctypes.CDLL(None).prctl(1, 0)
    time.sleep(60)


def _busy(_: Job) -> None:
    """Keeps every other thread of this process from running, the one that reads the pipe too."""
    sum(range(10**10))


DOES: dict[str, Callable[[Job], Any]] = {
    "nothing": _nothing, "sleep": _sleep, "die": _die, "leave": _leave, "exit": _exit, "eat": _eat, "deaf": _deaf,
    "raise": _raise, "unpicklable": _unpicklable, "wrong": _wrong, "parent": _parent, "orphan": _orphan, "busy": _busy,
}  # fmt: skip


def executor(workers: int, limits: Limits = Limits()) -> Processes:  # noqa: B008
    return Processes(workers, limits, PERFORM)


def go(folder: Path, todo: list[Planned], with_: Executor, watch: Any = None) -> tuple[Store, Tally]:
    store = Store.open(folder)
    return store, run(Ledger(store, todo, watch), with_)


def exported(store: Store) -> bytes:
    return store.export(store.folder / "a.csv").read_bytes()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Z: ended; an orphan is fetched by process 1 of this machine, which may take its time
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] in "ZX"


def within(seconds: float, true: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def begun(log: Path) -> list[tuple[int, int]]:
    """Seed and process of each trial that began."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(seed), int(pid)) for seed, pid in (line.split() for line in lines)]


# what comes out -----------------------------------------------------------------------------------------------------
def test_results_are_those_of_one_process(tmp_path: Path) -> None:
    jobs = [
        Job(Source("factors"), "mean_fusion", seed, training, "clean", trainer={"epochs": 1}, resamples=20)
        for seed in range(2)
        for training in ("complete", "mcar(0.3)")
    ]
    todo = [Planned(job, job.trial()) for job in jobs]
    one, _ = go(tmp_path / "one", todo, InProcess())
    two, tally = go(tmp_path / "two", todo, Processes(2))
    assert (tally.done, tally.failed) == (4, {})
    assert exported(two) == exported(one)
    assert {r.worker for r in two.records()} <= {"worker 1", "worker 2"}
    assert two.outcomes(todo[0].trial)["clean"].tolist() == one.outcomes(todo[0].trial)["clean"].tolist()


def test_workers_are_warm_have_one_thread_and_say_nothing_here(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    todo = [planned(seed) for seed in range(4)] + [planned(4, "raise")]
    store, tally = go(tmp_path, todo, executor(1), lambda event, p, said: told.append(f"{event} {p.trial.seed} {said}"))
    assert told[:3] == ["start 0 worker 1", "done 0 ", "start 1 worker 1"]
    assert told[-1] == "failed 4 MemoryError: no room for 9 TB"
    assert (tally.done, list(tally.failed)) == (4, [todo[4].trial.hash])
    assert 0 < tally.startup < tally.seconds
    facts = [r.facts for r in store.records("done")]
    assert len({f["pid"] for f in facts}) == 1
    assert facts[0] == {"pid": facts[0]["pid"], "threads": 1, **processes.ONE_THREAD}
    said = store.failures()[todo[4].trial.hash]
    assert "last output of worker 1:\nso far so good\n" in said  # and not that of the trials before it
    assert "was here" not in said
    assert tuple(capfd.readouterr()) == ("", "")


@proc
def test_whatever_ends_a_trial_costs_it_alone(tmp_path: Path) -> None:
    def last(lines: str) -> str:
        return lines.strip().splitlines()[-1]

    pids = tmp_path / "pids"
    expected = [
        (planned(1, "die", signal=9), r"worker \d \(process \d+\) was ended by signal 9 \(SIGKILL\); if nobody did that, .*"),
        (planned(2, "parent", pids=str(pids)), r"worker \d \(process \d+\) was ended by signal 11 \(SIGSEGV\)"),
        (planned(3, "leave"), r"worker \d \(process \d+\) ended by itself with exit code 7"),
        (planned(4, "deaf"), "over its limit of 5 s"),
        (planned(5, "eat"), r"over its limit of 0\.8 GB of memory \(held \d\S* GB\)"),
        (planned(6, "exit"), "SystemExit: enough"),
        (planned(7, "unpicklable"), "AttributeError: Can't pickle local object .*"),
        (planned(8, "wrong"), r".*DataError: results of wrong on toy, .* are of another trial: seed is 99, not 8"),
        (planned(9, "none"), "TypeError: the function of the trials returned NoneType, not Done"),
    ]  # fmt: skip
    good = [planned(0), planned(10)]
    todo = [good[0], *(p for p, _ in expected), good[1]]
    store, tally = go(tmp_path / "runs", todo, executor(2, Limits(seconds=5.0, memory=800_000_000)))
    assert store.counts() == {"done": 2, "failed": 9}
    assert {r.trial.hash for r in store.records("done")} == {p.trial.hash for p in good}
    said = store.failures()
    for p, line in expected:
        assert re.fullmatch(line, last(said[p.trial.hash])), said[p.trial.hash]
        assert re.fullmatch(line, tally.failed[p.trial.hash])
    assert "last words" in said[expected[0][0].trial.hash]
    assert "Segmentation fault" in said[expected[1][0].trial.hash]
    assert "in _parent" in said[expected[1][0].trial.hash]
    assert gone(int(pids.read_text()))


def test_a_worker_that_dies_between_two_trials_costs_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed: list[int] = []

    def watch(event: str, p: Planned, _: str) -> None:
        if event == "start" and p.trial.seed == 1 and not killed:
            killed.append(begun(log)[0][1])
            os.kill(killed[0], signal.SIGKILL)
            assert within(10, lambda: gone(killed[0]))

    store, tally = go(tmp_path / "runs", [planned(seed, log=str(log)) for seed in range(3)], executor(1), watch)
    assert (tally.done, tally.failed, store.counts()) == (3, {}, {"done": 3})
    assert [seed for seed, _ in begun(log)] == [0, 2, 1]  # that which it was to get went to the end


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gain=1.0", "gain=2.0", "argument gain 1.0 where it was planned, 2.0 here"),
        ("version=1", "version=2", "version of method shifty 1 where it was planned, 2 here"),
        ("self.gain = gain", "self.gain = gain  # as it was", ""),
    ],
)
def test_a_worker_that_reads_an_edited_file_fails_the_trial(old: str, new: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "shifty.py"
    file.write_text(SHIFTY)
    METHODS.load_plugin(file)
    try:
        job = Job(Source("factors", {"rows": 60}), "shifty", protocol="clean", trainer={"epochs": 1})
        todo = [Planned(job, job.trial())]
        file.write_text(SHIFTY.replace(old, new))
        store, tally = go(tmp_path / "runs", todo, Processes(1, perform="test_bench_processes:quick"))
    finally:
        METHODS.forget_plugin(file)
    if said:
        assert tally.done == 0
        assert (
            f"ConfigError: in worker 1 this job is another trial than the one it was planned as: {said}"
            in (store.failures()[todo[0].trial.hash])
        )
    else:
        assert (tally.done, store.failures()) == (1, {})


def test_workers_that_cannot_start_end_the_run_and_say_why(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"3 workers in a row ended .*\n(.*\n)+.*no attribute 'absent'(.*\n)+.*exit code 1"
    ):
        go(tmp_path, [planned(0), planned(1)], Processes(2, perform="test_bench_processes:absent"))
    assert Store.open(tmp_path).counts() == {"pending": 2}


def test_a_result_that_differs_ends_the_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    todo = [planned(0, "sleep", seconds=60, log=str(log)), planned(1, log=str(log))]
    store = Store.open(tmp_path / "runs")

    def watch(event: str, p: Planned, _: str) -> None:
        if event == "start" and p.trial.seed == 1:  # another process ends it meanwhile, with another result
            assert within(30, lambda: bool(begun(log)))
            Store.open(tmp_path / "runs").finish(p.trial, table(p.job).assign(value=0.5))

    with pytest.raises(StoreError, match="this run differs from it"):
        run(Ledger(store, todo, watch), executor(2))
    assert all(gone(pid) for _, pid in begun(log))
    assert store.counts() == {"pending": 1, "done": 1}


@pytest.mark.parametrize(
    ("workers", "limits", "how", "said"),
    [
        (0, Limits(), PERFORM, "workers is 0; give at least 1"),
        (1, Limits(seconds=0), PERFORM, "the limit seconds is 0"),
        (1, Limits(memory=-1), PERFORM, "the limit memory is -1"),
        (1, Limits(), "perform", "give it as 'module:function'"),
    ],
)
def test_arguments_that_make_no_sense(workers: int, limits: Limits, how: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Processes(workers, limits, how)


def test_where_memory_cannot_be_watched_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "held", lambda _: None)
    with pytest.warns(UserWarning, match="the limit on memory is not kept"):
        Processes(1, Limits(memory=1))


# the parent ends ----------------------------------------------------------------------------------------------------
def parent(folder: Path, todo: list[Planned], workers: int) -> Any:
    """A process that runs trials; its exit code is 130 where it was interrupted."""

    def main() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        try:
            go(folder, todo, executor(workers))
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(0)

    child = FORK.Process(target=main)
    child.start()
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_workers_and_gives_the_trials_back(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    todo = [planned(seed, "sleep", seconds=60, log=str(log)) for seed in range(3)]
    child = parent(tmp_path / "runs", todo, 1)
    assert within(30, lambda: bool(begun(log)))
    os.kill(child.pid, number)
    child.join(20)
    assert child.exitcode == 130
    assert all(gone(pid) for _, pid in begun(log))
    store = Store.open(tmp_path / "runs")
    assert store.counts() == {"pending": 3}
    assert all(store.claim(p.trial) for p in todo)


def test_an_interruption_does_not_cut_a_result_in_two(tmp_path: Path) -> None:
    kept: list[int] = []

    def watch(event: str, p: Planned, _: str) -> None:
        if event == "done":
            os.kill(os.getpid(), signal.SIGINT)
            kept.append(p.trial.seed)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, [planned(0), planned(1)], executor(1), watch)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert kept == [0]
    assert Store.open(tmp_path).counts() == {"done": 1, "pending": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl of Linux")
@pytest.mark.parametrize("does", ["orphan", "busy"])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, does: str) -> None:
    log = tmp_path / "log"
    todo = [planned(0, does, log=str(log))]
    child = parent(tmp_path / "runs", todo, 1)
    assert within(30, lambda: bool(begun(log)))
    time.sleep(0.2)  # it is in the trial by now
    child.kill()
    child.join()
    [(_, pid)] = begun(log)
    try:
        assert within(5, lambda: gone(pid))
    finally:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
    assert Store.open(tmp_path / "runs").claim(todo[0].trial)


def _moved(log: Path, before: int, child: Any) -> bool:
    return len(begun(log)) > before or not child.is_alive()


def test_kills_of_the_parent_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    log, random, kills = tmp_path / "log", Random(3), 0
    todo = [planned(seed, "sleep", seconds=random.uniform(0.1, 0.3), log=str(log)) for seed in range(12)]
    calm, folder = Store.open(tmp_path / "calm"), tmp_path / "runs"
    for p in todo:
        calm.finish(p.trial, table(p.job), CLASSES)
    for _ in range(4):
        before = len(begun(log))
        ended = {r.trial.seed for r in Store.open(folder).records("done")}
        child = parent(folder, todo, 2)
        assert within(30, partial(_moved, log, before, child))
        time.sleep(random.uniform(0, 0.5))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        assert ended.isdisjoint(seed for seed, _ in begun(log)[before:])  # what has a result is not run again
        assert Store.open(folder).check() == []
    store, tally = go(folder, todo, executor(2))
    assert kills > 1
    assert tally.before + tally.done == 12
    assert store.counts() == {"done": 12}
    counts = Counter(seed for seed, _ in begun(log))
    assert set(counts) == set(range(12))
    assert counts.total() <= 12 + 2 * kills  # a kill costs what the two workers were at
    assert exported(store) == exported(calm)
