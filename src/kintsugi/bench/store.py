"""A folder of trials: what is to be run, who runs it, what came out; whatever is killed, at most one trial is lost."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.bench.export import export_table, result_table
from kintsugi.bench.facts import read_facts
from kintsugi.bench.packing import (
    arrays_digest,
    pack,
    read_arrays,
    rows_differ,
    rows_digest,
    tidy,
    write_arrays,
)
from kintsugi.bench.rows import add_rows, add_trial, read_rows, read_trials, reading
from kintsugi.bench.salvage import Salvaged, findings, salvage
from kintsugi.bench.schema_sql import StoreError, connect, transaction
from kintsugi.bench.trial import Trial, canonical
from kintsugi.bench.workers import STALE_SECONDS, alive, this_process
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.evaluation.results import Results

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DATABASE, TRIALS, OUTCOMES = "runs.sqlite", "trials", "outcomes.npz"


@dataclass(frozen=True)
class Record:
    """A trial as the store knows it.

    state: ``pending``, ``running``, ``done`` or ``failed``; worker: who ran it; started: seconds since 1970; seconds: that
    it took; traceback: of a failed one; facts: what :meth:`Store.finish` was given.
    """

    trial: Trial
    state: str
    worker: str
    started: float | None
    seconds: float | None
    traceback: str
    facts: dict[str, Any]


HEADER = 100  # bytes (SQLite, "Database File Format"); it takes a file of none for an empty store


class Store:
    """Trials and their results in ``FOLDER/runs.sqlite``, files of a trial in ``FOLDER/trials/HASH/``.

    Any number of processes and threads of one machine may use it at once. A trial is pending, running, done or failed;
    what is done is never changed.

    Args:
        folder: a local one: the write-ahead log of SQLite does not work over a network.
        stale: seconds without a word of a worker after which its trial can be claimed by another.
    """

    def __init__(self, folder: str | os.PathLike[str], stale: float = STALE_SECONDS) -> None:
        self.folder, self.stale = Path(folder), stale
        self.path = self.folder / DATABASE
        self._here = threading.local()
        self._claims: dict[str, int] = {}  # hash -> attempt: a claim that was taken over has another number by then
        self._given_back: set[str] = set()  # what a full disk did not let this object give back in the file

    @classmethod
    def open(cls, folder: str | os.PathLike[str], create: bool = True, stale: float = STALE_SECONDS) -> Store:
        """The store in a folder, made where there is none.

        Raises:
            ConfigError: there is none, and ``create`` is False.
            StoreError: it is damaged, of a newer version, or something else.
        """
        store = cls(folder, stale)
        if not store.path.is_file():
            if not create:
                raise ConfigError(f"{store.folder} holds no {DATABASE}; give the folder of a store, or create=True")
            (store.folder / TRIALS).mkdir(parents=True, exist_ok=True)
        elif not create and store.path.stat().st_size < HEADER:
            raise StoreError(
                f"{store.path} is cut off: it has {store.path.stat().st_size} bytes, and the head of a database has {HEADER}"
            )
        store._db  # noqa: B018 - a store that cannot be used says so here
        return store

    @property
    def _db(self) -> sqlite3.Connection:
        # SQLite's connections must not be carried into another thread or a forked process.
        if getattr(self._here, "process", None) != os.getpid():
            self._here.db, self._here.process = connect(self.path), os.getpid()
        db: sqlite3.Connection = self._here.db
        return db

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        if getattr(self._here, "process", None) == os.getpid():
            self._here.db.close()
            self._here.process = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what is to be run ---------------------------------------------------------------------------------------------

    def add(self, trials: Iterable[Trial]) -> None:
        """Pending trials, all or none; those that the store has stay as they are.

        Raises:
            StoreError: a data set is another one than that of its name in this store; says what changed.
        """
        with transaction(self._db, self.path):
            for trial in trials:
                add_trial(self._db, trial)

    def claim(self, trial: Trial, worker: str = "") -> bool:
        """Is this trial yours to run? Of any number of processes that ask at once, one hears True.

        False where it is done, failed (see :meth:`retry`) or run by a living process. What a dead process ran can be
        claimed: one that its machine no longer has, or that has not said :meth:`beat` for ``stale`` seconds.

        Args:
            trial: added if the store lacks it.
            worker: a label for people.

        Raises:
            StoreError: as :meth:`add`, or the disk is full: then nothing is changed.
        """
        now = time.time()
        with transaction(self._db, self.path):
            add_trial(self._db, trial)
            state, process, beat, attempt = self._db.execute(
                "SELECT state, process, beat, attempt FROM trials WHERE hash = ?", (trial.hash,)
            ).fetchone()
            mine = trial.hash in self._given_back and self._claims.get(trial.hash) == attempt
            with reading(self._db):
                held = state == "running" and not mine and alive(process, beat, now, self.stale)
            if state in ("done", "failed") or held:
                return False
            self._db.execute(
                "UPDATE trials SET state = 'running', worker = ?, process = ?, beat = ?, started = ?, seconds = NULL, "
                "traceback = NULL, attempt = attempt + 1 WHERE hash = ?",
                (worker, this_process(), now, now, trial.hash),
            )
        self._claims[trial.hash] = attempt + 1
        self._given_back.discard(trial.hash)
        return True

    def beat(self, trial: Trial) -> bool:
        """Say that this trial is still being run; False: the claim was lost to another worker."""
        return self._mine(trial, "beat = ?", time.time())

    def release(self, trial: Trial) -> bool:
        """Give a claimed trial back without a result; False: the claim was lost to another worker, or it is done."""
        return self._mine(trial, "state = ?", "pending")

    def fail(self, trial: Trial, traceback: str) -> bool:
        """The claimed trial ended in an error; False: the claim was lost to another worker, and nothing is noted."""
        return self._mine(
            trial, "state = 'failed', seconds = max(0, ? - started), traceback = ?", time.time(), traceback
        )

    def _mine(self, trial: Trial, change: str, *values: Any) -> bool:
        with transaction(self._db, self.path):
            done = self._db.execute(
                f"UPDATE trials SET {change} WHERE hash = ? AND attempt = ? AND state = 'running'",
                (*values, trial.hash, self._claims.get(trial.hash, -1)),
            )
        return done.rowcount > 0

    def retry(self, hash: str) -> None:
        """Let a failed trial be claimed again.

        Raises:
            UnknownName: no trial has this hash.
            ConfigError: it has not failed.
        """
        with transaction(self._db, self.path):
            found = self._db.execute("SELECT state FROM trials WHERE hash = ?", (hash,)).fetchone()
            if found is None:
                raise UnknownName("trial", hash, [h for (h,) in self._db.execute("SELECT hash FROM trials")])
            if found[0] != "failed":
                raise ConfigError(f"trial {hash} is {found[0]}; only a failed one can be retried")
            self._db.execute("UPDATE trials SET state = 'pending' WHERE hash = ?", (hash,))

    def missing(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those without a result, in their order: never claimed, running or failed."""
        with reading(self._db):
            done = {h for (h,) in self._db.execute("SELECT hash FROM trials WHERE state = 'done'")}
        return [trial for trial in trials if trial.hash not in done]

    # what came out -------------------------------------------------------------------------------------------------

    def finish(
        self,
        trial: Trial,
        results: Results | pd.DataFrame,
        outcomes: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store a result; True: it is new, False: it is what the store has already, to the last bit but for timing.

        A claim is not asked for: where one was taken over and both workers end, both results have to agree.

        Args:
            trial: what was run.
            results: of every condition of its protocol.
            outcomes: condition -> predicted classes, int ``[N]``; see :func:`~kintsugi.bench.packing.pack`.
            facts: plain values about the run that another run need not repeat: costs, seconds, machine.

        Raises:
            ConfigError: facts that JSON does not have.
            DataError: results of another trial or of other conditions, or outcomes that are no classes.
            StoreError: the store has another result of this trial, and what differs; or the disk is full: then nothing
                is stored, and the trial can be claimed again.
        """
        rows = tidy(results.table if isinstance(results, Results) else results, trial)
        packed = pack(outcomes, trial) if outcomes else {}
        about = None if facts is None else canonical(facts, "facts")
        made = self.outcomes_file(trial)
        new = False
        try:
            with transaction(self._db, self.path):  # the file too is written under the lock: one writer at a time
                add_trial(self._db, trial)
                state = self._db.execute("SELECT state FROM trials WHERE hash = ?", (trial.hash,)).fetchone()[0]
                if state == "done":
                    self._agree(trial, rows, packed)
                    return False
                new = True
                if packed:
                    made.parent.mkdir(parents=True, exist_ok=True)
                    write_arrays(made, packed)
                else:
                    made.unlink(missing_ok=True)  # of a process that was killed between file and database
                add_rows(self._db, trial.hash, rows)
                self._db.execute(
                    "UPDATE trials SET state = 'done', seconds = max(0, ? - started), digest = ?, outcomes = ?, "
                    "facts = ? WHERE hash = ?",
                    (time.time(), rows_digest(rows), arrays_digest(packed) if packed else None, about, trial.hash),
                )
        except StoreError:
            if new:
                made.unlink(missing_ok=True)
                self._let_go(trial)
            raise
        return True

    def _agree(self, trial: Trial, rows: list[Any], packed: Mapping[str, Any]) -> None:
        with reading(self._db):
            found = rows_differ(read_rows(self._db, trial.hash), rows)
        stored = self.outcomes(trial)
        for name in sorted(stored.keys() | packed.keys()):
            if name not in stored or name not in packed:
                found.append(f"outcomes of {name!r} only {'stored' if name in stored else 'now'}")
            elif stored[name].shape != packed[name].shape:
                found.append(f"outcomes of {name!r}: shape {stored[name].shape} stored, {packed[name].shape} now")
            elif count := int((stored[name] != packed[name]).sum()):
                found.append(f"outcomes of {name!r}: {count} of {stored[name].size} differ")
        if found:
            raise StoreError(
                f"{trial} has a result, and this run differs from it: {'; '.join(found[:5])}"
                f"{f'; and {len(found) - 5} more' if len(found) > 5 else ''}. The stored one stays. Something decides the "
                "result that the trial does not say, such as a package or changed sources: raise the version of what changed "
                "numbers, or use another folder"
            )

    def _let_go(self, trial: Trial) -> None:
        try:
            self.release(trial)
        except StoreError:  # the disk is too full even for that
            self._given_back.add(trial.hash)

    def trial_folder(self, trial: Trial) -> Path:
        """Where the files of a trial lie, such as its model; made if need be."""
        folder = self.outcomes_file(trial).parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def outcomes_file(self, trial: Trial) -> Path:
        """Where the outcomes of a trial lie, or would."""
        return self.folder / TRIALS / trial.hash / OUTCOMES

    def outcomes(self, trial: Trial) -> dict[str, np.ndarray[Any, Any]]:
        """Condition -> predicted classes, unsigned ``[N]``; empty where the trial has none.

        Raises:
            DataError: the file is gone, damaged or not the one that was stored.
        """
        with reading(self._db):
            found = self._db.execute("SELECT outcomes FROM trials WHERE hash = ?", (trial.hash,)).fetchone()
        if found is None or found[0] is None:
            return {}
        path = self.outcomes_file(trial)
        arrays = read_arrays(path)
        if arrays_digest(arrays) != found[0]:
            raise DataError(
                f"{path} is not what was stored (its checksum differs); the outcomes of this trial are lost"
            )
        return arrays

    # reading -------------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """State -> number of trials."""
        with reading(self._db):
            return dict(Counter(state for (state,) in self._db.execute("SELECT state FROM trials")))

    def versions(self) -> list[dict[str, Any]]:
        """Every set of versions that trials of this store name, whatever their state."""
        with reading(self._db):
            texts = self._db.execute(
                "SELECT DISTINCT v.text FROM trials t JOIN texts v ON v.id = t.versions ORDER BY v.text"
            ).fetchall()
            return [_mapping(json.loads(text), "versions") for (text,) in texts]

    def failures(self) -> dict[str, str]:
        """Hash -> traceback of each failed trial."""
        with reading(self._db):
            failed = self._db.execute("SELECT hash, traceback FROM trials WHERE state = 'failed' ORDER BY hash")
            return {h: str(traceback or "") for h, traceback in failed}

    def records(self, where: str = "") -> Iterator[Record]:
        """Every trial with its state and facts, in the order of :meth:`table`.

        Args:
            where: a state; default: all.
        """
        chosen, values = ("t.state = ?", (where,)) if where else ("", ())
        with reading(self._db):
            trials = list(read_trials(self._db, chosen, values))
        for h, trial in trials:
            with reading(self._db):
                state, worker, started, seconds, traceback, facts = self._db.execute(
                    "SELECT state, worker, started, seconds, traceback, facts FROM trials WHERE hash = ?", (h,)
                ).fetchone()
                said = {} if facts is None else read_facts(facts)
                record = Record(trial, state, worker or "", started, seconds, traceback or "", said)
            yield record

    def table(self, timing: bool = True) -> pd.DataFrame:
        """All results, one line for each trial, condition and metric, in the columns of ``kintsugi.bench.export.COLUMNS``.

        Sorted by data set, method, training, seed and hash, then conditions as in the protocol, whatever ran first.

        Args:
            timing: also seconds of the condition, seconds of the trial, and its start in seconds since 1970.
        """
        with reading(self._db):
            return result_table(self._db, timing)

    def export(self, path: str | os.PathLike[str], timing: bool = False) -> Path:
        """:meth:`table` as ``.csv`` or ``.parquet``; without timing, the same trials make the same bytes.

        Text stands in a CSV file as it is. A spreadsheet takes one that begins with ``=``, ``+``, ``-`` or ``@`` for a
        formula: open a file with names that others chose as text there, or export ``.parquet``.

        Raises:
            ConfigError: another ending.
            StoreError: the disk is full; what was there before still is.
        """
        return export_table(self.table(timing), Path(path))

    # damage --------------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """What is wrong with the store, in words; nothing: every page, every row and every file is as it was written."""
        return findings(self._db, self.path, self.folder / TRIALS)

    @staticmethod
    def salvage(folder: str | os.PathLike[str], into: str | os.PathLike[str]) -> Salvaged:
        """Copy what can be read of a damaged store into a new one; see :func:`~kintsugi.bench.salvage.salvage`."""
        return salvage(Path(folder) / DATABASE, Path(into) / DATABASE)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what} of a trial are {value!r}")
    return value
