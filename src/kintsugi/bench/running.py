"""What every executor shares: which trial is next, what becomes of it, and how far everything is."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kintsugi.bench.components import refuse_newer
from kintsugi.bench.job import Done, Job, Planned
from kintsugi.bench.made_with import FACT, made_with
from kintsugi.bench.schema_sql import StoreError
from kintsugi.bench.store import Store
from kintsugi.io.files import replace_file

BEAT_SECONDS = 30.0
Event = Literal["start", "done", "failed", "elsewhere"]


@dataclass(frozen=True)
class Limits:
    """Of one trial. seconds, memory (bytes of resident memory): None for none."""

    seconds: float | None = None
    memory: int | None = None


@dataclass
class Tally:
    """What a run of an executor came to: numbers of trials, and the seconds that workers took to start.

    before: had a result already; done: now; failed: hash -> last line of its traceback; elsewhere: run by another process.
    """

    before: int = 0
    done: int = 0
    elsewhere: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    startup: float = 0.0


Watch = Callable[[Event, Planned, str], None]
"""Told what happens to a trial; the text is the worker, or the last line of a traceback."""


class Tracker(Protocol):
    """Where results go besides the store."""

    def finished(self, planned: Planned, done: Done) -> None:
        """A trial has a result."""


class Ledger:
    """The trials of one run in a store: hands them out, keeps what comes back, gives back what is not finished.

    Used by one process; threads of it may share it.

    Args:
        store: of the results.
        planned: the trials, in the order in which they are to be run.
        watch: is told of each.
        retry: run those again that failed.
        trackers: told of each result; see :mod:`kintsugi.bench.tracking`.

    Raises:
        StoreError: the store has trials of things that are newer than here, or not here.
    """

    def __init__(
        self,
        store: Store,
        planned: Sequence[Planned],
        watch: Watch | None = None,
        retry: bool = False,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.store, self.watch, self.trackers = store, watch or (lambda *_: None), trackers
        self.tally = Tally()
        refuse_newer(store)
        store.add(p.trial for p in planned)
        missing = {t.hash for t in store.missing(p.trial for p in planned)}
        failed = store.failures()
        if retry:
            for h in missing & failed.keys():
                store.retry(h)
        todo = [p for p in planned if p.trial.hash in missing and (retry or p.trial.hash not in failed)]
        self.tally.before = len(planned) - len(missing)
        self.tally.failed = {} if retry else {h: _last(failed[h]) for h in missing & failed.keys()}
        self.total, self._todo = len(todo), todo[::-1]
        self._running: dict[str, Planned] = {}
        self._began, self._ended, self._lock = time.monotonic(), threading.Event(), threading.RLock()
        self._pulse = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Ledger:
        self._pulse.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever is still running is given back, so that it can be claimed at once."""
        self._ended.set()
        self._pulse.join()
        with self._lock:
            for planned in list(self._running.values()):
                self.store.release(planned.trial)
            self._running.clear()
            self.tally.seconds = time.monotonic() - self._began

    def next(self, worker: str = "") -> Planned | None:
        """The next trial that nobody else runs; None: there is none left."""
        with self._lock:
            while self._todo:
                planned = self._todo.pop()
                if self.store.claim(planned.trial, worker):
                    self._running[planned.trial.hash] = planned
                    self.watch("start", planned, worker)
                    return planned
                self.tally.elsewhere += 1
                self.watch("elsewhere", planned, worker)
            return None

    def done(self, planned: Planned, done: Done) -> None:
        """Keep a result.

        Raises:
            StoreError: it is not the one that the store has, or the disk is full.
        """
        registered = planned.trial.registered
        if registered and FACT not in done.facts:  # a node with an installation of its own says it itself
            done.facts[FACT] = made_with(registered)
        with self._lock:
            folder = self.store.trial_folder(planned.trial)
            for name, content in done.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                replace_file(folder / name, content)
            self.store.finish(planned.trial, done.results, done.outcomes, done.facts)
            self._running.pop(planned.trial.hash, None)
            self.tally.done += 1
        for tracker in self.trackers:
            tracker.finished(planned, done)
        self.watch("done", planned, "")

    def failed(self, planned: Planned, said: str) -> None:
        """Keep a failure: a traceback, or what ended the worker."""
        with self._lock:
            noted = self.store.fail(planned.trial, said)
            self._running.pop(planned.trial.hash, None)
            if not noted:  # it has a result by now, of this process or of another that took the claim over
                return
            self.tally.failed[planned.trial.hash] = _last(said)
        self.watch("failed", planned, _last(said))

    def back(self, planned: Planned) -> None:
        """Not run after all (a node was lost): it goes to the end of the queue."""
        with self._lock:
            self.store.release(planned.trial)
            self._running.pop(planned.trial.hash, None)
            self._todo.insert(0, planned)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with self._lock:
                for planned in list(self._running.values()):
                    self.store.beat(planned.trial)


class Executor(Protocol):
    """Runs the trials of a ledger to their end.

    An interruption (KeyboardInterrupt) ends its workers and is raised again; the ledger gives back what was running.
    """

    def run(self, ledger: Ledger) -> None:
        """Every trial of the ledger is done, failed or elsewhere afterwards."""


class InProcess:
    """One trial after the other, here. Limits need a process of their own: see :mod:`kintsugi.bench.processes`.

    PyTorch computes on one thread meanwhile, as in worker processes: sums of several threads differ in their last bits.

    Args:
        perform: does a job; default: :func:`kintsugi.bench.work.perform`.
    """

    def __init__(self, perform: Callable[[Job], Done] | None = None) -> None:
        self._perform = perform

    def run(self, ledger: Ledger) -> None:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self._run(ledger)
        finally:
            torch.set_num_threads(threads)

    def _run(self, ledger: Ledger) -> None:
        from kintsugi.bench import work

        perform = self._perform or work.perform
        while (planned := ledger.next("in process")) is not None:
            try:
                done = perform(planned.job)
                ledger.done(planned, done)
            except Exception as error:
                if isinstance(error, StoreError):
                    raise
                ledger.failed(planned, traceback.format_exc())


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def run(ledger: Ledger, executor: Executor) -> Tally:
    """All trials of a ledger; what is not finished is given back, whatever happens."""
    with ledger:
        executor.run(ledger)
    return ledger.tally
