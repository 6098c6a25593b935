"""A store with damage: what is wrong with it, and what of it can be kept."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kintsugi.bench.facts import read_facts
from kintsugi.bench.packing import Row, arrays_digest, read_arrays, rows_digest
from kintsugi.bench.rows import BROKEN, add_rows, add_trial, read_rows, read_trials
from kintsugi.bench.schema_sql import StoreError, connect, explain, transaction
from kintsugi.bench.trial import Trial
from kintsugi.core.errors import ConfigError

LEAST_TRIAL_BYTES = 128  # a trial's row holds its hash of 64 digits twice, in the table and in the index over it


@dataclass
class Salvaged:
    """What was kept and what was not.

    kept: trials by state, in the new store; lost: a sentence for each thing that is not in it, or not with its result.
    """

    kept: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kept = ", ".join(f"{count} {state}" for state, count in sorted(self.kept.items())) or "nothing"
        return f"kept: {kept}; lost: {'; '.join(self.lost) or 'nothing'}"


class _Kept(NamedTuple):
    """What is right of a trial; columns: worker, started, seconds, attempt, digest, outcomes of one that is done."""

    trial: Trial
    traceback: str | None
    rows: list[Row]
    columns: tuple[Any, ...]


def findings(db: sqlite3.Connection, path: Path, folder: Path) -> list[str]:
    """What is wrong: pages and indices of the database, rows that are not what was stored, files that are gone or changed.

    Args:
        db: the store.
        path: of the database, for messages.
        folder: of the files of the trials.
    """
    try:
        found = [f"{path.name}: {line}" for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
        found += [f"{path.name}: a row of {row[0]} points to nothing" for row in db.execute("PRAGMA foreign_key_check")]
        for number, h in db.execute("SELECT id, hash FROM trials ORDER BY hash").fetchall():
            try:
                _, said, _ = _read(db, number, folder)
            except (sqlite3.Error, *BROKEN) as error:
                said = [f"trial {h[:12]}: {error}"]
            found += said
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return [str(explain(error, path))]
    return found


def salvage(path: Path, into: Path) -> Salvaged:
    """Copy every trial that can be read, and is what was written, into a new store; the old one is left as it is.

    A trial is kept where its hash is that of its fields, and its result where its digest is that of its values; a trial
    whose result is not kept becomes pending. Running ones become pending too.

    Args:
        path: the database of the damaged store; the files of its trials lie in ``trials`` beside it.
        into: the database of the new store.

    Raises:
        ConfigError: there is nothing to read, or the new store exists.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give the folder of a store")
    if into.exists():
        raise ConfigError(f"{into} exists; salvage into a new folder")
    (into.parent / "trials").mkdir(parents=True, exist_ok=True)
    report, source, target = Salvaged(), None, connect(into)
    target.execute("PRAGMA synchronous = NORMAL")  # one wait for the disk, when it is closed; it can be begun anew
    copies = Path(tempfile.mkdtemp(prefix=".salvage.", dir=into.parent))
    try:
        for name in (path.name, f"{path.name}-wal"):  # to open a database is to change it, where a process was killed
            if (path.parent / name).is_file():
                shutil.copyfile(path.parent / name, copies / name)
        source = sqlite3.connect(copies / path.name, isolation_level=None)
        source.text_factory = lambda raw: raw.decode(errors="replace")  # a digest tells, not a UnicodeDecodeError
        _copy(source, target, path, into, report)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        report.lost.append(f"all that {path.name} holds: {error}; {_folders(path, target)}")
    finally:
        if source is not None:
            source.close()
        shutil.rmtree(copies, ignore_errors=True)
        report.kept = dict(target.execute("SELECT state, count(*) FROM trials GROUP BY state"))
        target.close()
    return report


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, path: Path, into: Path, report: Salvaged) -> None:
    source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # a header that says nothing ends it here
    for number in _numbers(source, path):
        try:
            state, said, kept = _read(source, number, path.parent / "trials")
        except (sqlite3.Error, *BROKEN) as error:
            report.lost.append(f"trial number {number}: {error}")
            continue
        if kept is None:
            continue
        report.lost += said
        trial, traceback, rows, columns = kept
        with transaction(target, into):
            add_trial(target, trial)
            if state == "done":
                files = path.parent / "trials" / trial.hash
                if files.is_dir():
                    shutil.copytree(files, into.parent / "trials" / trial.hash, dirs_exist_ok=True)
                add_rows(target, trial.hash, rows)
                values = ("done", None, *columns)
            else:
                values = (
                    "failed" if state == "failed" else "pending",
                    traceback,
                    None,
                    None,
                    None,
                    0,
                    None,
                    None,
                    None,
                )
            target.execute(
                "UPDATE trials SET state = ?, traceback = ?, worker = ?, started = ?, seconds = ?, attempt = ?, digest = ?, "
                "outcomes = ?, facts = ? WHERE hash = ?",
                (*values, trial.hash),
            )
    gone = _folders(path, target)
    if gone:
        report.lost.append(gone)


def _read(db: sqlite3.Connection, number: int, folder: Path) -> tuple[str, list[str], _Kept | None]:
    """State, what is wrong, and what is right of one trial; None where there is no trial of this number."""
    row = db.execute(
        "SELECT hash, state, traceback, digest, outcomes, worker, started, seconds, attempt, facts FROM trials WHERE id = ?",
        (number,),
    ).fetchone()
    if row is None:
        return "", [], None
    h, state, traceback, digest, outcomes, worker, started, seconds, attempt, facts = row
    found = list(read_trials(db, "t.id = ?", (number,)))
    if not found:
        raise StoreError(f"{h[:12]}: its fields are not those of its hash; it has to be run again")
    trial = found[0][1]
    if state != "done":
        return state, [], _Kept(trial, traceback, [], ())
    said: list[str] = []
    rows: list[Row] = []
    try:
        rows = read_rows(db, h)
        if rows_digest(rows) != digest:
            said.append(f"the result of {trial}: its values are not those of its checksum; it has to be run again")
        if outcomes is None and (folder / h / "outcomes.npz").exists():
            said.append(
                f"the outcomes of {trial}: there is a file of them, of which its row says nothing; it has to be run again"
            )
        if outcomes is not None and arrays_digest(read_arrays(folder / h / "outcomes.npz")) != outcomes:
            said.append(f"the outcomes of {trial}: the file is not what was stored; it has to be run again")
    except (sqlite3.Error, *BROKEN) as error:
        said.append(f"the result of {trial}: {error}; it has to be run again")
    if said:
        return "pending", said, _Kept(trial, None, [], ())
    try:
        if facts is not None:
            read_facts(facts)
    except BROKEN as error:
        said.append(f"the facts of {trial}, such as its costs: {str(error)[:200]}; its result is kept without them")
        facts = None
    columns = (worker, started, seconds, attempt, digest, outcomes, facts)
    return state, said, _Kept(trial, None, rows, columns)


def _folders(path: Path, target: sqlite3.Connection) -> str:
    known = {h for (h,) in target.execute("SELECT hash FROM trials")}
    gone = sorted(f.name for f in (path.parent / "trials").glob("*") if f.is_dir() and f.name not in known)
    return f"files of trials that no row speaks of: {', '.join(name[:12] for name in gone)}" if gone else ""


def _numbers(source: sqlite3.Connection, path: Path) -> range:
    # one number after the other, not one walk through the table, which would end at the first damaged page
    try:
        last = source.execute("SELECT max(id) FROM trials").fetchone()[0] or 0
        other = source.execute("SELECT max(trial) FROM results").fetchone()[0] or 0
        return range(1, max(int(last), int(other)) + 1)
    except (sqlite3.Error, ValueError):
        return range(1, path.stat().st_size // LEAST_TRIAL_BYTES + 1)
