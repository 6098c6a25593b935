"""The database of a store: its tables, its versions, and errors of SQLite in the user's words."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kintsugi.core.errors import KintsugiError

VERSION = 1
APPLICATION = 0x6B696E74  # "kint", written into the header of the file (SQLite, PRAGMA application_id)
BUSY_SECONDS = 60.0  # proposed here: a transaction of a trial takes milliseconds, so a minute is a process that hangs

# Texts that thousands of rows share (conditions, metrics, protocols) are stored once. Results are never changed or
# taken back, and the database itself sees to it.
TABLES = """
CREATE TABLE datasets (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, about TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE trials (
  id INTEGER PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  method TEXT NOT NULL,
  parameters TEXT NOT NULL,
  dataset TEXT NOT NULL REFERENCES datasets (name),
  fingerprint TEXT NOT NULL,
  training TEXT NOT NULL,
  seed INTEGER NOT NULL,
  protocol INTEGER NOT NULL REFERENCES texts (id),
  versions INTEGER NOT NULL REFERENCES texts (id),
  state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'failed')),
  worker TEXT,
  process TEXT,
  beat REAL,
  started REAL,
  seconds REAL,
  attempt INTEGER NOT NULL DEFAULT 0,
  traceback TEXT,
  digest TEXT,
  outcomes TEXT,
  facts TEXT
);
CREATE TABLE results (
  trial INTEGER NOT NULL REFERENCES trials (id),
  place INTEGER NOT NULL,
  condition INTEGER NOT NULL REFERENCES texts (id),
  grp INTEGER NOT NULL REFERENCES texts (id),
  x REAL,
  metric INTEGER NOT NULL REFERENCES texts (id),
  value REAL,
  low REAL,
  high REAL,
  n INTEGER NOT NULL,
  higher INTEGER NOT NULL,
  mask INTEGER NOT NULL REFERENCES texts (id),
  seconds REAL,
  PRIMARY KEY (trial, place)
) WITHOUT ROWID;
CREATE TRIGGER results_stay BEFORE UPDATE ON results BEGIN SELECT RAISE(ABORT, 'results are append-only'); END;
CREATE TRIGGER results_remain BEFORE DELETE ON results BEGIN SELECT RAISE(ABORT, 'results are append-only'); END;
CREATE TRIGGER done_stays BEFORE UPDATE ON trials WHEN OLD.state = 'done'
  BEGIN SELECT RAISE(ABORT, 'results are append-only'); END;
"""


class StoreError(KintsugiError, RuntimeError):
    """A store of trials that cannot be read or written: damaged, full, held by another process, of another version."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # as the system says it of a disk, a user's share of it, and a file


def not_written(error: OSError, target: Path) -> Exception:
    """What an error of the disk means for a file that results are written to; others as they are."""
    if error.errno not in FULL:
        return error
    return StoreError(
        f"{target}: the disk is full; the file was not written, and one that was there still is. Make room, or choose "
        "another place; the store has not changed"
    )


def explain(error: Exception, path: Path) -> Exception:
    """What an error of SQLite or of the disk means; other errors as they are."""
    if isinstance(error, OSError) and error.errno in FULL:
        return StoreError(f"{path.parent}: the disk is full; nothing was stored. Make room and run the trial again")
    if isinstance(
        error, UnicodeDecodeError
    ):  # SQLite quotes the damaged text in its error, and Python cannot read that
        return StoreError(
            f"{path}: is damaged ({error}); Store.salvage({str(path.parent)!r}, into) keeps what can be read"
        )
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind (SQLite, "Result Codes")
    match code:
        case sqlite3.SQLITE_FULL:
            said = "the disk is full; nothing was stored. Make room and run the trial again"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            said = f"another process has held it for {BUSY_SECONDS:g} s; end that process, or wait for it"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            said = f"is damaged ({error}); Store.salvage({str(path.parent)!r}, into) keeps what can be read"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            said = f"cannot be opened for writing ({error}); look at the rights of its folder"
        case sqlite3.SQLITE_IOERR:
            said = (
                f"the disk could not be read or written ({error}); nothing was stored. Look at the disk, then run again"
            )
        case _:
            said = f"{error}"
    return StoreError(f"{path}: {said}")


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a store that exists, or is made; to one that exists and cannot be written, for reading alone.

    Raises:
        StoreError: a newer version, not a store, or damaged.
    """
    try:
        return _connect(path)
    except StoreError as error:
        code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
        forbidden = code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
        # SQLite says the same where too many files are open: only what nobody here can write stays as it is
        if not forbidden or not path.is_file() or os.access(path.parent, os.W_OK, effective_ids=True):
            raise
    return _connect_to_read(path)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A store on a medium that cannot be written, such as an archive. SQLite wants to write beside it even to read.

    ``immutable`` lets it do without (SQLite, "Uniform Resource Identifiers"), which is right where nobody can write: then
    there is no log of changes that are not merged yet.
    """
    log = path.with_name(f"{path.name}-wal")
    has_log = log.is_file() and log.stat().st_size > 0
    db = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro{'' if has_log else '&immutable=1'}",
        timeout=BUSY_SECONDS, isolation_level=None, uri=True,
    )  # fmt: skip
    try:
        _refuse_others(db, path)
        if _number(db, "user_version") == 0:
            raise StoreError(f"{path} holds nothing yet, and cannot be written; look at the rights of its folder")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        db.close()
        if has_log:
            raise StoreError(
                f"{path} cannot be written, and a process that was killed left {log.name}, which SQLite has to merge; "
                "copy the folder to where it can be written, and read it there"
            ) from error
        raise explain(error, path) from error
    except BaseException:
        db.close()
        raise
    return db


def _connect(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise explain(error, path) from error
    try:
        _refuse_others(db, path)
        _use_wal(db)
        db.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last trials when the power fails
        db.execute("PRAGMA foreign_keys = ON")
        if _number(db, "user_version") == 0:
            with transaction(db, path):
                if _number(db, "user_version") == 0:  # another process may have made it by now
                    for statement in _statements():
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {APPLICATION}")
                    db.execute(f"PRAGMA user_version = {VERSION}")
        _refuse_others(db, path)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        db.close()
        raise explain(error, path) from error
    except BaseException:
        db.close()
        raise
    return db


def _refuse_others(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN")  # all three of one moment: another process may be making the tables just now
    try:
        version, application = _number(db, "user_version"), _number(db, "application_id")
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    finally:
        db.execute("ROLLBACK")
    if tables and application != APPLICATION:
        raise StoreError(f"{path} is a database, but no store of trials; choose another folder")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer kintsugi (schema {version}); this one reads schema {VERSION}. Update kintsugi"
        )


def _use_wal(db: sqlite3.Connection) -> None:
    # The change to WAL needs the file alone and does not wait for others as other statements do.
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _statements() -> Iterator[str]:
    # executescript commits first, and then two processes could make the tables at once
    statement = ""
    for line in TABLES.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


@contextmanager
def transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All or nothing, with nobody else writing meanwhile.

    Raises:
        StoreError: the disk is full, the file is damaged, or another process holds it.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        if (
            isinstance(error, sqlite3.Error | OSError | UnicodeDecodeError)
            and (said := explain(error, path)) is not error
        ):
            raise said from error
        raise
