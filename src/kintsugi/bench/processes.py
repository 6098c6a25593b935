"""Trials in processes of this machine: one that crashes, hangs or eats the memory costs its trial and nothing else.

A worker is a fresh interpreter of one thread that stays warm and does one job after the other. It is not forked: a fork of
a process that has everything loaded is there in 0.02 s instead of 2.7 s, but it cannot use a CUDA that was touched before,
and is safe only where nothing has started a thread yet, which no one can promise for the libraries of a trial. It is
started by :mod:`subprocess` and not by :mod:`multiprocessing`, so that its output goes to a file from the first byte on,
and a script that calls the bench needs no ``if __name__ == "__main__"``. A method that such a script registers is not known
to a worker: put it into a file of its own and load that as a plugin, which a worker then does too.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from kintsugi.bench.job import Done, Job, Planned
from kintsugi.bench.made_with import packages
from kintsugi.bench.running import Ledger, Limits
from kintsugi.bench.same_trial import refuse_another
from kintsugi.bench.schema_sql import StoreError
from kintsugi.core.catalogue import METHODS
from kintsugi.core.errors import ConfigError
from kintsugi.io.files import temporary_folder

PERFORM = "kintsugi.bench.work:perform"
LOOK_SECONDS = 0.2  # between two looks at limits, deaths and interruptions; all constants here are proposed here
GRACE_SECONDS = 1.0  # between asking a worker to end and killing it
STARTS = 3  # workers that die in a row without a trial
LINES, WIDTH, TAIL = 20, 300, 16384  # of a worker's output in the text of a failure; bytes that are read for it

READY, TAKEN = "ready", "taken"  # what a worker says besides results (Done) and tracebacks (text)

# Every library that may use threads reads its own variable, once, when it is loaded.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
# What any trial needs and imports late, so that it counts as start-up and not as the first trial.
WARM = ("kintsugi.bench.beside", "kintsugi.estimator", "kintsugi.evaluation.results", "kintsugi.tasks._metrics")
START = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given['path']; "
    "from kintsugi.bench.processes import serve; serve(**given['serve'])"
)


class Processes:
    """An executor: ``workers`` processes of one thread each.

    The limits hold for each trial, from when its worker gets it. A worker over one is asked to end (SIGTERM) and killed a
    second later. Resident memory is that of the worker alone, without processes that it may start; it is looked at five
    times a second (VmRSS of ``/proc/PID/status``, proc(5)), so that a trial may be above its limit for a moment.

    Ctrl-C, and SIGTERM where nothing else handles it, end all workers and raise KeyboardInterrupt. When this process is
    killed, its workers end by themselves.

    ``tally.startup`` is the seconds from the start of :meth:`run` until the first worker was ready; the others start
    meanwhile.

    Args:
        workers: how many; no more are started than there are trials.
        limits: of one trial.
        perform: ``module:function`` that takes a :class:`~kintsugi.bench.job.Job` and gives a
            :class:`~kintsugi.bench.job.Done`.

    Raises:
        ConfigError: fewer than one worker, a limit that is not positive, a function not given as ``module:function``, or
            a system that is not POSIX.
    """

    def __init__(self, workers: int, limits: Limits = Limits(), perform: str = PERFORM) -> None:  # noqa: B008 - frozen
        if os.name != "posix":
            raise ConfigError("worker processes need Linux, macOS or another POSIX system; run in process here")
        if workers < 1:
            raise ConfigError(f"workers is {workers}; give at least 1, or run in process")
        for name, limit in (("seconds", limits.seconds), ("memory", limits.memory)):
            if limit is not None and limit <= 0:
                raise ConfigError(f"the limit {name} is {limit}; give a positive number, or None for no limit")
        if not all(perform.partition(":")[::2]):
            raise ConfigError(f"perform is {perform!r}; give it as 'module:function', such as {PERFORM!r}")
        if limits.memory is not None and held(os.getpid()) is None:
            warnings.warn(
                "this system has no /proc/PID/status, so the limit on memory is not kept; limit the whole run instead, "
                "by a container for example",
                stacklevel=2,
            )
        self.workers, self.limits, self.perform = workers, limits, perform

    def run(self, ledger: Ledger) -> None:
        """Every trial of the ledger is done, failed or elsewhere afterwards.

        Raises:
            ConfigError: three workers in a row died without a trial; says what the last one wrote.
            StoreError: a result that differs from that of the store, or a full disk.
            KeyboardInterrupt: Ctrl-C or SIGTERM.
        """
        with (
            temporary_folder("kintsugi-workers") as folder,
            _Interruptions() as interruptions,
        ):
            crew = _Crew(self, ledger, folder, interruptions)
            try:
                crew.work()
            finally:
                crew.end()


class _Interruptions:
    """Notes SIGINT and SIGTERM instead of raising at any place, so that no result is cut in two; a second one raises."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interruptions:
        if threading.current_thread() is threading.main_thread():
            for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) == usual:  # a program that has its own handler keeps it
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind is None:
            self.check()

    def _note(self, _: int, __: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raises KeyboardInterrupt where one was asked for."""
        if self.asked:
            raise KeyboardInterrupt


class _Crew:
    """The workers of one run."""

    def __init__(self, how: Processes, ledger: Ledger, folder: Path, interruptions: _Interruptions) -> None:
        self.how, self.ledger, self.folder, self.interruptions = how, ledger, folder, interruptions
        self.workers: list[_Worker] = []
        self.given, self.deaths, self.last = 0, 0, ""
        self.began, self.ready = time.monotonic(), False

    def work(self) -> None:
        while self._left() or any(worker.planned for worker in self.workers):
            self.interruptions.check()
            self._hire()
            heard = wait([worker.pipe for worker in self.workers], LOOK_SECONDS)
            for worker in list(self.workers):
                if worker.pipe in heard:
                    self._hear(worker)
                elif worker.ended():
                    self._lost(worker)
                elif over := worker.over(self.how.limits):
                    self._lost(worker, over)
            for worker in list(self.workers):
                if worker.ready and worker.planned is None and self._left():
                    self._give(worker)

    def end(self) -> None:
        for worker in self.workers:
            worker.ask()
        latest = time.monotonic() + GRACE_SECONDS
        for worker in self.workers:
            worker.end(max(0.0, latest - time.monotonic()))
        self.workers.clear()

    def _left(self) -> int:
        """Trials that nobody was given yet."""
        return max(0, self.ledger.total - self.given - self.ledger.tally.elsewhere)

    def _hire(self) -> None:
        busy = sum(worker.planned is not None for worker in self.workers)
        wanted = min(self.how.workers, busy + self._left())
        while len(self.workers) < wanted and self.deaths < STARTS:
            number = min(set(range(1, self.how.workers + 1)) - {worker.number for worker in self.workers})
            self.workers.append(_Worker(number, self.folder, self.how.perform))
        if not self.workers:  # while others work, they may still get everything done
            raise ConfigError(
                f"{STARTS} workers in a row ended before they could take a trial. Mend what the last one says:\n{self.last}"
            )

    def _hear(self, worker: _Worker) -> None:
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            self._lost(worker)
            return
        except Exception:  # a result of a kind that this process does not know
            said = traceback.format_exc()
        if said == READY:
            worker.ready = True
            if not self.ready:
                self.ready = True
                self.ledger.tally.startup += time.monotonic() - self.began
        elif said == TAKEN:
            worker.taken, worker.since = True, time.monotonic()
        elif worker.planned is not None:
            planned, worker.planned, self.deaths = worker.planned, None, 0
            self._keep(planned, said, worker)

    def _keep(self, planned: Planned, said: Done | str, worker: _Worker) -> None:
        if isinstance(said, Done):
            try:
                self.ledger.done(planned, said)
                return
            except StoreError:
                raise
            except Exception:  # results of another trial, for example
                said = traceback.format_exc()
        self.ledger.failed(planned, worker.wrote() + said)

    def _give(self, worker: _Worker) -> None:
        while (planned := self.ledger.next(worker.name)) is not None:
            self.given += 1
            try:
                worker.give(planned)
                return
            except OSError:
                self._lost(worker)
                return
            except Exception:  # a job that cannot be pickled
                worker.planned = None
                self.ledger.failed(planned, traceback.format_exc())
        self.given = self.ledger.total - self.ledger.tally.elsewhere

    def _lost(self, worker: _Worker, why: str = "") -> None:
        self.workers.remove(worker)
        if why:
            worker.ask()
        code = worker.end()
        said = f"{worker.wrote()}{why or f'{worker.name} (process {worker.process.pid}) {_ended(code)}'}\n"
        if worker.planned is not None and (worker.taken or why):
            self.deaths = 0
            self.ledger.failed(worker.planned, said)
            return
        self.deaths += 1
        self.last = said
        if worker.planned is not None:  # it died between two trials, and this one is not to blame
            self.ledger.back(worker.planned)
            self.given -= 1


class _Worker:
    """A process, the pipe to it, its output and what it is at.

    It leads a group of its own: Ctrl-C at a terminal does not reach it, and what a trial started is ended with it.
    """

    def __init__(self, number: int, folder: Path, perform: str) -> None:
        self.number, self.name = number, f"worker {number}"
        self.planned: Planned | None = None
        self.ready, self.taken, self.since = False, False, 0.0
        self.log = folder / f"{number}.log"
        own = folder / str(number)
        own.mkdir(exist_ok=True)  # for temporary files: a trial that is killed cannot tidy up
        self.pipe, theirs = Pipe()
        self.log.write_bytes(b"")  # there may be that of the worker before it
        with theirs, self.log.open("ab") as log:  # appended to, since it is emptied before each trial
            given = {
                "path": [str(path) for path in sys.path],
                "serve": {
                    "pipe": theirs.fileno(), "perform": perform, "name": self.name, "planned_with": packages(),
                    "plugins": [str(file) for file in METHODS.plugins],
                },
            }  # fmt: skip
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(given)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()], start_new_session=True,
                env={**os.environ, **ONE_THREAD, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "TMPDIR": str(own)},
            )  # fmt: skip

    def give(self, planned: Planned) -> None:
        """Let it do a job.

        Raises:
            OSError: it has died.
            Exception: the job cannot be pickled; it has not heard of it.
        """
        os.truncate(self.log, 0)  # so that the text of a failure shows the output of its trial alone
        self.planned, self.taken, self.since = planned, False, time.monotonic()
        self.pipe.send(planned)

    def ended(self) -> bool:
        """Has the process ended without a last word? A process that it started may hold the pipe open."""
        return self.process.poll() is not None and not self.pipe.poll()

    def over(self, limits: Limits) -> str:
        """Which limit its trial is over; empty: none."""
        if self.planned is None:
            return ""
        if limits.memory is not None and (now := held(self.process.pid) or 0) > limits.memory:
            return f"over its limit of {_gigabytes(limits.memory)} of memory (held {_gigabytes(now)})"
        if limits.seconds is not None and time.monotonic() - self.since > limits.seconds:
            return f"over its limit of {limits.seconds:g} s"
        return ""

    def ask(self) -> None:
        """Ask the process and what it started to end."""
        self._signal(signal.SIGTERM)

    def end(self, grace: float = GRACE_SECONDS) -> int:
        """Kill it and what it started, if it has not ended within the grace; gives its exit code, -N of signal N."""
        with suppress(subprocess.TimeoutExpired):  # one that died needs a moment until its exit code is known
            self.process.wait(grace)
        self._signal(signal.SIGKILL)
        self.pipe.close()
        return self.process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group that has ended
            os.killpg(self.process.pid, number)

    def wrote(self) -> str:
        """The last lines of its output, with a heading; empty where it wrote nothing."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL))
            lines = [line[:WIDTH] for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return "\n".join([f"last output of {self.name}:", *lines[-LINES:], "", ""]) if lines else ""


def held(pid: int) -> int | None:
    """Bytes of memory that a process holds (VmRSS of ``/proc/PID/status``, proc(5)); None: unknown."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024  # "kB" there means 1,024 bytes
    except OSError:
        pass
    return None


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended by itself with exit code {code}"
    name = next((s.name for s in signal.Signals if s == -code), "without a name")
    wanting = "; if nobody did that, the system did, for want of memory" if -code == signal.SIGKILL else ""
    return f"was ended by signal {-code} ({name}){wanting}"


# in the worker ------------------------------------------------------------------------------------------------------
def serve(pipe: int, perform: str, name: str, planned_with: Mapping[str, str], plugins: Sequence[str] = ()) -> None:
    """The life of a worker: jobs come through the pipe and results go back; it ends when the pipe does.

    A worker reads the files of methods later than the process that planned the trials, so that it makes sure that each job
    still is the trial it was planned as.

    Args:
        pipe: number of the file.
        perform: ``module:function``.
        name: of this worker.
        planned_with: packages of the process of the run, by name.
        plugins: files of methods that it was given.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    connection: Connection[Any, Any] = Connection(pipe)
    jobs: queue.SimpleQueue[Planned | str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, jobs), daemon=True).start()
    for file in plugins:
        METHODS.load_plugin(file)
    function = _function(perform)
    connection.send(READY)
    while True:
        planned = jobs.get()
        connection.send(TAKEN)
        _answer(function, planned, connection, name, planned_with)


def _function(perform: str) -> Callable[[Job], Any]:
    module, _, name = perform.partition(":")
    function: Callable[[Job], Any] = getattr(importlib.import_module(module), name)
    import torch

    torch.set_num_threads(1)
    if perform == PERFORM:
        _warm_up(WARM)
    return function


def _warm_up(modules: Sequence[str]) -> None:
    for module in modules:
        importlib.import_module(module)


def _read(connection: Connection[Any, Any], jobs: queue.SimpleQueue[Planned | str]) -> None:
    # A thread of its own, so that the end of the parent is seen in the middle of a trial too.
    while True:
        try:
            jobs.put(connection.recv())
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)  # this process, and what its trial started
        except Exception:  # parameters of a kind that this process does not know
            jobs.put(traceback.format_exc())


def _die_with_parent() -> None:
    """On Linux the system kills this process with its parent, even while a trial keeps the other thread from running."""
    if sys.platform == "linux":
        import ctypes

        # prctl(2), PR_SET_PDEATHSIG is 1. Where it is refused, the thread that reads the pipe is enough.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _answer(
    function: Callable[[Job], Any],
    planned: Planned | str,
    connection: Connection[Any, Any],
    name: str,
    planned_with: Mapping[str, str],
) -> None:
    if isinstance(planned, str):
        connection.send(planned)
        return
    try:
        remedy = "A file was edited, or a package installed, since the run began: run again, and it is planned anew"
        refuse_another(planned, planned_with, f"in {name}", remedy)
        done = function(planned.job)
        if not isinstance(done, Done):
            raise TypeError(f"the function of the trials returned {type(done).__name__}, not {Done.__name__}")
        connection.send(done)  # nothing is sent of what cannot be pickled
    except BaseException:  # a method that calls sys.exit() ends its trial, not the worker
        connection.send(traceback.format_exc())
