"""Files that a user is given: at any moment there is the old one or the new one, and never half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

ABANDONED = 24 * 3600.0  # seconds after which a temporary file of a process that cannot be looked up is swept
ENDING = 16  # so many last characters of a name say what is to be written, such as .tar.gz
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:4]
_TEMPORARY = re.compile(r"\.kintsugi\.(?P<pid>\d+)\.(?P<host>[0-9a-f]{4})-[0-9a-f]{8}\.tmp.*", re.DOTALL)


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Make this the content of a file; see :func:`replacing`."""
    with replacing(path) as fresh:
        fresh.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside the target, to be written by its name; afterwards it takes the target's place in one move.

    The content is on the disk before the move, so a power failure leaves the old file or the new one as well. The
    temporary file ends like the target, since writers look at that. An exception removes it and leaves the old file as
    it was; what a killed writer left is removed by the next one that writes to the folder. The mode of an old file
    stays. A link stays, and what it points to is replaced. Where something other than a file is, such as
    ``/dev/stdout``, its own path is handed out.

    Raises:
        OSError: the disk is full, the folder is not there or not writable, or the path is a folder; it names the target.
    """
    before = _mode(path)
    if before is not None and stat.S_ISDIR(before):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if before is not None and not stat.S_ISREG(before):
        yield Path(path)
        return
    target = Path(os.path.realpath(path))
    sweep(target.parent)
    name = f".kintsugi.{os.getpid()}.{_HOST}-{secrets.token_hex(4)}.tmp{''.join(target.suffixes)[-ENDING:]}"
    fresh = target.parent / name
    try:
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666 if before is None else 0o600)
        try:
            yield fresh
            os.fsync(handle)
        finally:
            os.close(handle)
        if before is not None:
            os.chmod(fresh, stat.S_IMODE(before))
        os.replace(fresh, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(fresh)):
            error.filename = os.fspath(path)
            if error.filename2 is not None:
                del error.filename2  # None would be shown
        raise
    flush_folder(target.parent)


def _mode(path: str | os.PathLike[str]) -> int | None:
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return None


def flush_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):  # some network file systems cannot
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def sweep(folder: Path) -> None:
    """Remove temporary files of :func:`replacing` whose writer is gone."""
    with contextlib.suppress(OSError):  # one that cannot be listed or emptied is written to all the same
        for path in folder.iterdir():
            if is_temporary(path.name) and _is_left_over(path):
                path.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Is this the name of a temporary file of :func:`replacing`?"""
    return _TEMPORARY.fullmatch(name) is not None


def _is_left_over(path: Path) -> bool:
    parts = _TEMPORARY.fullmatch(path.name)
    assert parts is not None
    if parts["host"] != _HOST or os.name != "posix":  # elsewhere, signal 0 is no question but Ctrl-C
        return time.time() - path.stat().st_mtime > ABANDONED
    try:
        os.kill(int(parts["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it is another user's
        return False
    return False


@contextlib.contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Make a folder and hold it alone among those that take turns: processes, and threads of this one.

    Where the system or the file system has no locks, nobody waits.
    """
    handle = _held(folder)
    try:
        yield
    finally:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_UN)  # else a child that was forked meanwhile would hold it on
            os.close(handle)


def _held(folder: Path) -> int | None:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            return None
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # removed by the one before
            continue
        try:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), folder.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def digest(value: Any, *payload: bytes | memoryview) -> str:
    """SHA-256 of a value that JSON can hold and of bytes beside it: 64 hexadecimal digits.

    Mappings count without order and tuples as lists, as they come back from a file. It finds accidents, such as a bit
    that flipped or a line that was edited, and no forger: who alters a file can write its digest anew.

    Raises:
        TypeError: JSON cannot hold the value.
    """
    read_back = json.loads(json.dumps(value))
    total = hashlib.sha256(json.dumps(read_back, sort_keys=True, separators=(",", ":")).encode())
    for part in payload:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


__all__ = ["digest", "flush_folder", "is_temporary", "replace_file", "replacing", "sweep", "taking_turns"]
