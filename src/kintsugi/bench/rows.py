"""Trials and results to and from the tables of a store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from kintsugi.bench.packing import Row
from kintsugi.bench.schema_sql import StoreError
from kintsugi.bench.trial import Trial, canonical
from kintsugi.evaluation.protocols import Protocol

_TRIALS = """
SELECT t.hash, t.method, t.parameters, t.dataset, t.fingerprint, t.training, t.seed, p.text, v.text, d.about
FROM trials t JOIN texts p ON p.id = t.protocol JOIN texts v ON v.id = t.versions JOIN datasets d ON d.name = t.dataset
"""
_RESULTS = """
SELECT c.text, g.text, r.x, m.text, r.value, r.low, r.high, r.n, r.higher, k.text, r.seconds
FROM results r JOIN texts c ON c.id = r.condition JOIN texts g ON g.id = r.grp JOIN texts m ON m.id = r.metric
JOIN texts k ON k.id = r.mask JOIN trials t ON t.id = r.trial WHERE t.hash = ? ORDER BY r.place
"""


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
    before, now = json.loads(stored), json.loads(about)
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
    """The results of a trial, in their order."""
    found = db.execute(_RESULTS, (trial,)).fetchall()
    return [Row._make((*r[:8], bool(r[8]), *r[9:])) for r in found]


def read_trials(
    db: sqlite3.Connection, where: str = "", values: Sequence[str | int] = ()
) -> Iterator[tuple[str, Trial]]:
    """Stored hash and trial, one after the other; of an intact store the trial has that hash.

    Args:
        db: the store.
        where: what follows WHERE, in terms of ``t``, the table of trials.
        values: for its question marks.
    """
    protocols: dict[str, Protocol] = {}  # thousands of trials share a few
    for h, method, parameters, dataset, fingerprint, training, seed, protocol, versions, about in db.execute(
        _TRIALS + (f" WHERE {where}" if where else "") + " ORDER BY t.dataset, t.method, t.training, t.seed, t.hash",
        values,
    ):
        if protocol not in protocols:
            protocols[protocol] = Protocol.from_json(json.loads(protocol))
        yield h, Trial(
            method, json.loads(parameters), dataset, fingerprint, training, seed, protocols[protocol],
            json.loads(versions), json.loads(about),
        )  # fmt: skip
