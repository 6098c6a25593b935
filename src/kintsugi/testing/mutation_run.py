"""Running mutants: each in a process of its own, on a copy of the package, so that nothing of the repository changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kintsugi.core.citations import NAME as REFERENCES
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS
from kintsugi.testing.architecture import ROOT
from kintsugi.testing.mutation import Mutant, Origin, Trace, mutants_of

SHARED = ("components", "layers", "losses")  # folders of what methods are made of
BASE = "core/model.py"  # the flow that every model inherits
SECONDS = 120  # of processor time for one mutant and column
PLUGIN = "plugin"  # the folder that a method from outside is copied to

State = Literal["survived", "killed", "crash", "timeout", "none"]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant by one kind of check; ``by``: the name of the check that saw it, ``message``: its first line."""

    state: State
    by: str = ""
    message: str = ""

    @property
    def killed(self) -> bool:
        """Did anybody notice?"""
        return self.state in ("killed", "crash", "timeout")


@dataclass(frozen=True)
class Result:
    """A mutant with what contract and claims made of it, and golden numbers alone; ``seconds`` by the clock."""

    mutant: Mutant
    contract: Outcome
    golden: Outcome
    seconds: float


@dataclass(frozen=True)
class Bench:
    """A copy of the package that mutants of one method are made from; see :func:`bench_for`.

    key: of the method. folder: that holds the copy. file: of the method, as descriptions name it.
    plugin: does it stand outside of the library?
    """

    key: str
    folder: Path
    file: str
    plugin: bool
    running: set[subprocess.Popen[bytes]] = field(default_factory=set, repr=False, compare=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def original(self) -> Path:
        """The copy without a fault."""
        return self.folder / "original"

    def path(self, tree: Path, file: str) -> Path:
        """Where a file, as descriptions name it, stands in a copy."""
        return tree / PLUGIN / file if self.plugin and file == self.file else tree / "kintsugi" / file

    def files(self) -> list[tuple[str, Origin]]:
        """Every file that may be mutated: the method's, shared components, the model that all inherit."""
        shared = (file for name in SHARED for file in sorted((self.original / "kintsugi" / name).rglob("*.py")))
        names = [file.relative_to(self.original / "kintsugi").as_posix() for file in shared]
        return [(self.file, "method"), *((name, "component") for name in names), (BASE, "base")]

    def stop(self) -> None:
        """End the processes of this bench that still run."""
        with self.lock:
            for process in self.running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def bench_for(key: str) -> Iterator[Bench]:
    """A copy of the package as it is now, in a temporary folder, for mutants of one method.

    Raises:
        UnknownName: no such method. ConfigError: it stands neither in this library nor in a file given to ``load_plugin``.
    """
    text = METHODS.entries.get(METHODS[key].card.key)
    plugin = text is not None and text.file in METHODS.plugins
    if text is None or not (plugin or text.file.is_relative_to(METHODS.home)):
        raise ConfigError(f"{key} stands in no file of this library or of load_plugin, so there is nothing to mutate")
    with tempfile.TemporaryDirectory(prefix="kintsugi-mutants-") as name:
        folder = Path(name).resolve()
        original = folder / "original"
        shutil.copytree(ROOT, original / "kintsugi", ignore=shutil.ignore_patterns("*.parquet"))
        for large in ROOT.rglob("*.parquet"):
            (original / "kintsugi" / large.relative_to(ROOT)).symlink_to(large)
        file = text.file.name if plugin else text.file.relative_to(ROOT).as_posix()
        if plugin:
            (original / PLUGIN).mkdir()
            for beside in (text.file, text.file.with_name(REFERENCES)):
                if beside.is_file():
                    shutil.copy(beside, original / PLUGIN)
        yield Bench(METHODS[key].card.key, folder, file, plugin)


# before any fault -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Baseline:
    """The method without a fault: what its training goes through, and why there are no golden numbers ("": there are)."""

    trace: Trace
    no_golden: str = ""


def baseline(bench: Bench, checks: Collection[str] | None = None, measure: bool = True) -> Baseline:
    """Trace the method, and make sure that it passes its checks before anything is changed.

    Args:
        bench: of the method.
        checks: names of the only checks to try; None: all.
        measure: False: trace alone, for a list of mutants.

    Raises:
        ConfigError: the method as it stands cannot be trained, or breaks a promise or a claim: mutants would tell nothing.
    """
    columns = ("trace", "contract", "golden") if measure else ("trace",)
    answers = _ask(bench, bench.original, columns, checks, SECONDS * 5)
    for column in columns[:2]:
        state, by, message = (answers[column].get(name, "") for name in ("state", "by", "message"))
        if state != "survived":
            raise ConfigError(f"{bench.key} as it stands fails {by or column} ({state}): {message}; mend that first")
    found = answers["trace"]
    trace = Trace(found["lines"], found["gradients"], found["overrides"])
    golden = answers.get("golden", {"state": "none"})
    return Baseline(trace, "" if golden["state"] == "survived" else golden.get("message", "they were not measured"))


def all_mutants(bench: Bench, trace: Trace) -> list[Mutant]:
    """Every mutant of the method's file, of the components that its training goes through, and of the model it inherits."""
    found: list[Mutant] = []
    for file, origin in bench.files():
        if origin == "method" or file in trace.lines:
            source = bench.path(bench.original, file).read_text(encoding="utf-8")
            found += mutants_of(source, file, origin, trace)
    return found


# with a fault -----------------------------------------------------------------------------------------------------------
def run(
    bench: Bench,
    mutants: Sequence[Mutant],
    jobs: int = 2,
    checks: Collection[str] | None = None,
    golden: bool = True,
    seconds: int = SECONDS,
) -> Generator[Result, None, None]:
    """Results as they come, not in the order of the mutants. Whoever stops asking ends the processes that still run.

    Args:
        bench: of the method.
        mutants: to run.
        jobs: processes at a time.
        checks: names of the only checks to try; None: all.
        golden: measure golden numbers too.
        seconds: of processor time for each column; what takes longer counts as killed.
    """
    columns = ("contract", "golden") if golden else ("contract",)
    pool = ThreadPoolExecutor(max_workers=max(1, jobs))
    try:
        waiting = [pool.submit(_run_one, bench, mutant, columns, checks, seconds) for mutant in mutants]
        for done in as_completed(waiting):
            yield done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        bench.stop()
        pool.shutdown(wait=True)


def _run_one(
    bench: Bench, mutant: Mutant, columns: Sequence[str], checks: Collection[str] | None, seconds: int
) -> Result:
    start = time.perf_counter()
    tree = Path(tempfile.mkdtemp(prefix="mutant-", dir=bench.folder))
    try:
        changed = bench.path(tree, mutant.file)
        _link(bench.original, tree, changed.parent)
        changed.unlink()
        changed.write_text(mutant.text, encoding="utf-8")
        answers = _ask(bench, tree, columns, checks, seconds)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    contract, golden = (_outcome(answers.get(column, {"state": "none"})) for column in ("contract", "golden"))
    return Result(mutant, contract, golden, time.perf_counter() - start)


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    return Outcome(answer["state"], answer.get("by", ""), answer.get("message", ""))


def _link(source: Path, tree: Path, changed: Path) -> None:
    """The same folders with links to the files, so that a copy costs milliseconds; nothing compiled in the changed one."""
    for name, folders, files in os.walk(source):
        place = Path(name)
        twin = tree / place.relative_to(source)
        twin.mkdir(exist_ok=True)
        for file in files:
            (twin / file).symlink_to(place / file)
        if "__pycache__" in folders:
            folders.remove("__pycache__")
            if twin != changed:
                (twin / "__pycache__").symlink_to(place / "__pycache__")


def _ask(
    bench: Bench, tree: Path, columns: Sequence[str], checks: Collection[str] | None, seconds: int
) -> dict[str, dict[str, Any]]:
    """Column -> answer. A column during which the process ends gets a crash or a timeout; the rest are asked again."""
    answers: dict[str, dict[str, Any]] = {}
    while missing := [column for column in columns if column not in answers]:
        status, replies, error = _process(bench, tree, missing, checks, seconds)
        answers |= replies
        broken = next((column for column in missing if column not in answers), None)
        if broken is not None:
            answers[broken] = _ended(status, error)
    return answers


def _limit(process: int, seconds: int) -> None:
    """At most so much processor time; where a system has no such limits, the clock alone ends what never ends."""
    with suppress(ImportError, AttributeError, ProcessLookupError):
        import resource

        resource.prlimit(process, resource.RLIMIT_CPU, (seconds, seconds + 5))


def _ended(status: int | None, error: str) -> dict[str, Any]:
    late = status is None or -status == getattr(signal, "SIGXCPU", 0)
    if late:
        return {"state": "timeout", "message": "it took too long"}
    return {"state": "crash", "by": "the process", "message": f"ended with status {status}: {error}"}


def _process(
    bench: Bench, tree: Path, columns: Sequence[str], checks: Collection[str] | None, seconds: int
) -> tuple[int | None, dict[str, dict[str, Any]], str]:
    """Status (None: stopped by the clock), answers, and the last line of what it wrote to its error stream."""
    names = {str(bench.path(tree, file)): file for file, _ in bench.files()} if "trace" in columns else {}
    with tempfile.TemporaryDirectory(dir=bench.folder) as name:  # never in the tree, whose files are linked elsewhere
        notes = Path(name)
        reply, request, errors = notes / "reply.jsonl", notes / "request.json", notes / "errors.txt"
        order = {
            "key": bench.key, "tree": str(tree), "columns": list(columns), "files": names, "reply": str(reply),
            "plugin": str(bench.path(tree, bench.file)) if bench.plugin else None,
            "checks": None if checks is None else sorted(checks),
            "golden": str(bench.folder / "golden.json"),
        }  # fmt: skip
        request.write_text(json.dumps(order), encoding="utf-8")
        status = _wait(bench, tree, request, errors, seconds)
        written = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        lines = reply.read_text(encoding="utf-8").splitlines() if reply.is_file() else []
    answers = {answer.pop("column"): answer for answer in map(json.loads, lines)}
    return status, answers, written[-1] if written else ""


def _wait(bench: Bench, tree: Path, request: Path, errors: Path, seconds: int) -> int | None:
    """Run a process to its end; its status, None where the clock stopped it."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    if tree != bench.original:  # what is compiled there is linked from here
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    # -P: no module of the folder that this happens to run in
    command = [sys.executable, "-P", "-m", "kintsugi.testing.mutation_child", str(request)]
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            command, env=environment, cwd=tree, stdout=subprocess.DEVNULL, stderr=stream, start_new_session=True
        )  # a session of its own: Ctrl-C reaches the parent alone, which ends its children then
    _limit(process.pid, seconds)
    with bench.lock:
        bench.running.add(process)
    try:
        return process.wait(timeout=60 + 5 * seconds)  # others may share the processors
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
    finally:
        with bench.lock:
            bench.running.discard(process)


# telling ----------------------------------------------------------------------------------------------------------------
def survivors(results: Iterable[Result]) -> list[Result]:
    """Those that neither contract nor claims noticed."""
    return [result for result in results if not result.contract.killed]


def summary(key: str, results: Sequence[Result], equivalent: int = 0) -> str:
    """One sentence, such as ``mmin: 18 of 20 killed by contract and claims (90 %), 15 of 20 by golden numbers; 1 equivalent``."""
    count = len(results)
    killed = count - len(survivors(results))
    share = f" ({100 * killed / count:.0f} %)" if count else ""
    measured = [result for result in results if result.golden.state != "none"]
    moved = sum(result.golden.killed for result in measured)
    golden = f"{moved} of {len(measured)} by golden numbers" if measured else "golden numbers not asked"
    return f"{key}: {killed} of {count} killed by contract and claims{share}, {golden}; {equivalent} equivalent"


def as_json(key: str, results: Mapping[int, Result], equivalent: Iterable[tuple[Mutant, str]] = ()) -> dict[str, Any]:
    """Everything but the text of the mutants, as plain values."""
    rows = [
        {
            "number": number, "description": result.mutant.description, "file": result.mutant.file,
            "function": result.mutant.function, "operator": result.mutant.operator, "semantic": result.mutant.semantic,
            "contract": asdict(result.contract), "golden": asdict(result.golden), "seconds": round(result.seconds, 1),
        }
        for number, result in results.items()
    ]  # fmt: skip
    left_out = [{"description": mutant.description, "reason": reason} for mutant, reason in equivalent]
    return {
        "method": key,
        "mutants": rows,
        "equivalent": left_out,
        "summary": summary(key, list(results.values()), len(left_out)),
    }
