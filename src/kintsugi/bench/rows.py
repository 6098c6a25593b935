"""Trials and results to and from the tables of a store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kintsugi.bench.packing import Row
from kintsugi.bench.schema_sql import StoreError, explain
from kintsugi.bench.trial import Trial, canonical
from kintsugi.core.errors import KintsugiError
from kintsugi.evaluation.protocols import Protocol

# What reading rubbish raises, and what SQLite raises of a store that is none.
BROKEN = (KintsugiError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
NOT_DAMAGED = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR,
)  # fmt: skip

_TRIALS = """
SELECT t.hash, t.method, t.parameters, t.dataset, t.fingerprint, t.training, t.seed, p.text, v.text, d.about
FROM trials t JOIN texts p ON p.id = t.protocol JOIN texts v ON v.id = t.versions JOIN datasets d ON d.name = t.dataset
"""
_RESULTS = """
SELECT c.text, g.text, r.x, m.text, r.value, r.low, r.high, r.n, r.higher, k.text, r.seconds
FROM results r JOIN texts c ON c.id = r.condition JOIN texts g ON g.id = r.grp JOIN texts m ON m.id = r.metric
JOIN texts k ON k.id = r.mask JOIN trials t ON t.id = r.trial WHERE t.hash = ? ORDER BY r.place
"""
_NUMBER = (float, type(None))
_KINDS = ((str,), (str,), _NUMBER, (str,), _NUMBER, _NUMBER, _NUMBER, (int,), (int,), (str,), _NUMBER)


@contextmanager
def reading(db: sqlite3.Connection) -> Iterator[None]:
    """Whatever reading what is not as it was written raises, in one error that says what to do.

    Raises:
        StoreError: the store is damaged, or cannot be read just now.
    """
    try:
        yield
    except StoreError:
        raise
    except (sqlite3.Error, *BROKEN) as error:
        path = _path(db)
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in NOT_DAMAGED:
            raise explain(error, path) from error
        raise damaged(path.parent, f"{type(error).__name__}: {error}") from error


def damaged(folder: Path, what: str) -> StoreError:
    """The error of a store that is not as it was written."""
    return StoreError(
        f"{folder} is damaged ({what[:200]}); `kintsugi bench check {folder}` says where, and `kintsugi bench check "
        f"{folder} --salvage NEW` (Store.salvage) copies what is intact"
    )


def _path(db: sqlite3.Connection) -> Path:
    try:
        return Path(db.execute("PRAGMA database_list").fetchone()[2])
    except (sqlite3.Error, TypeError, IndexError):
        return Path("the store")


def text_id(db: sqlite3.Connection, text: str) -> int:
    """The number of a text, which is stored if it is new."""
    db.execute("INSERT OR IGNORE INTO texts (text) VALUES (?)", (text,))
    return int(db.execute("SELECT id FROM texts WHERE text = ?", (text,)).fetchone()[0])


def add_trial(db: sqlite3.Connection, trial: Trial) -> None:
    """A pending trial, unless the store has it.

    Raises:
        StoreError: the store has another data set of this name.
    """
    _check_dataset(db, trial)
    db.execute(
        "INSERT OR IGNORE INTO trials (hash, method, parameters, dataset, fingerprint, training, seed, protocol, versions) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            trial.hash, trial.method, canonical(trial.parameters, "parameters"), trial.dataset, trial.fingerprint,
            trial.training, trial.seed, text_id(db, canonical(trial.protocol.to_json(), "protocol")),
            text_id(db, canonical(trial.versions, "versions")),
        ),
    )  # fmt: skip


def _check_dataset(db: sqlite3.Connection, trial: Trial) -> None:
    about = canonical(trial.about, "about")
    db.execute("INSERT OR IGNORE INTO datasets VALUES (?, ?, ?)", (trial.dataset, trial.fingerprint, about))
    fingerprint, stored = db.execute(
        "SELECT fingerprint, about FROM datasets WHERE name = ?", (trial.dataset,)
    ).fetchone()
    if fingerprint == trial.fingerprint:
        return
    with reading(db):
        before, now = dict(json.loads(stored)), dict(json.loads(about))
    changed = [
        f"{key} {before.get(key)!r} → {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    raise StoreError(
        f"data set {trial.dataset!r} is another one than that of this store: fingerprint {fingerprint} → "
        f"{trial.fingerprint}; {', '.join(changed) or 'the same facts, so other values in the rows'}. "
        "Give the data set another name, or open another store"
    )


def add_rows(db: sqlite3.Connection, trial: str, rows: Sequence[Row]) -> None:
    """The results of a trial that has none."""
    number = db.execute("SELECT id FROM trials WHERE hash = ?", (trial,)).fetchone()[0]
    ids = {text: text_id(db, text) for row in rows for text in (row.condition, row.group, row.metric, row.mask_hash)}
    db.executemany(
        "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                number, place, ids[row.condition], ids[row.group], row.x, ids[row.metric], row.value, row.low, row.high,
                row.n, row.higher_is_better, ids[row.mask_hash], row.seconds,
            )
            for place, row in enumerate(rows)
        ],
    )  # fmt: skip


def read_rows(db: sqlite3.Connection, trial: str) -> list[Row]:
    """The results of a trial, in their order.

    Raises:
        TypeError: a value is of another type than it was written in; for :func:`reading`.
    """
    found = db.execute(_RESULTS, (trial,)).fetchall()
    for row in found:  # any column of SQLite holds values of any type
        for value, kinds in zip(row, _KINDS, strict=True):
            if not isinstance(value, kinds):
                raise TypeError(f"a result of trial {trial[:12]} holds {str(value)[:60]!r}")
    return [Row._make((*r[:8], bool(r[8]), *r[9:])) for r in found]


def read_trials(
    db: sqlite3.Connection, where: str = "", values: Sequence[str | int] = ()
) -> Iterator[tuple[str, Trial]]:
    """Stored hash and trial, one after the other.

    Args:
        db: the store.
        where: what follows WHERE, in terms of ``t``, the table of trials.
        values: for its question marks.

    Raises:
        StoreError: a trial has not the fields of its hash. What else damage raises is for :func:`reading`.
    """
    protocols: dict[str, Protocol] = {}  # thousands of trials share a few
    for h, method, parameters, dataset, fingerprint, training, seed, protocol, versions, about in db.execute(
        _TRIALS + (f" WHERE {where}" if where else "") + " ORDER BY t.dataset, t.method, t.training, t.seed, t.hash",
        values,
    ):
        if protocol not in protocols:
            protocols[protocol] = Protocol.from_json(json.loads(protocol))
        trial = Trial(
            method, json.loads(parameters), dataset, fingerprint, training, seed, protocols[protocol],
            json.loads(versions), json.loads(about),
        )  # fmt: skip
        if trial.hash != h:
            raise damaged(_path(db).parent, f"trial {h[:12]}: its fields are not those of its hash")
        yield h, trial
