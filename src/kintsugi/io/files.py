"""Files: those that a user is given are the old one or the new one at any moment; of those that are read no size is believed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from kintsugi.core.errors import DataError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

ABANDONED = 24 * 3600.0  # seconds after which a temporary file of a process that cannot be looked up is swept
ENDING = 16  # so many last characters of a name say what is to be written, such as .tar.gz
PIECE = 1 << 20  # bytes that are read at once of a file that is larger than the system said
_KINDS = (
    (stat.S_ISDIR, "Is a directory"), (stat.S_ISFIFO, "Is a FIFO"), (stat.S_ISSOCK, "Is a socket"),
    (stat.S_ISCHR, "Is a device"), (stat.S_ISBLK, "Is a device"),
)  # fmt: skip
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:4]
_TEMPORARY = re.compile(r"\.kintsugi\.(?P<pid>\d+)\.(?P<host>[0-9a-f]{4})-[0-9a-f]{8}\.tmp.*", re.DOTALL)


class NoSuchFile(DataError, FileNotFoundError):
    """There is no such file."""


def read_bounded(path: str | os.PathLike[str], most: int, what: str = "file") -> bytes:
    """The content of a regular file of at most ``most`` bytes; never more than these are read.

    Args:
        path: of the file. A FIFO, a device or a socket is not opened: some never end, and some start when they are read.
        most: bytes.
        what: for the error, such as ``"picture"``.

    Raises:
        NoSuchFile: there is no such file; it is a DataError and a FileNotFoundError.
        DataError: it is no regular file, has more bytes, cannot be read, or does not fit into memory.
    """
    handle = _opened(path, most, what)
    try:
        size = os.fstat(handle).st_size
        parts = [os.read(handle, min(size, most) + 1)]  # one more than it has, so that the end is seen at once
        total = len(parts[0])
        while total != size and parts[-1] and total <= most:  # it grows, or the system gives it in pieces
            parts.append(os.read(handle, min(most + 1 - total, PIECE)))
            total += len(parts[-1])
    except OSError as error:
        raise _unread(path, error) from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory ({size:,} bytes); split it, or make it smaller") from error
    finally:
        os.close(handle)
    if total > most:
        raise _too_large(path, total, most, what, " and more")
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextlib.contextmanager
def open_bounded(path: str | os.PathLike[str], most: int, what: str = "file") -> Iterator[BinaryIO]:
    """A regular file of at most ``most`` bytes, open for reading, for parsers that want a handle; see :func:`read_bounded`.

    The size is looked at when it is opened; a parser that reads to the end of a file that grows meanwhile reads more.

    Raises:
        NoSuchFile, DataError: as :func:`read_bounded`. What the parser raises goes through.
    """
    with os.fdopen(_opened(path, most, what), "rb") as file:
        yield file


def _opened(path: str | os.PathLike[str], most: int, what: str) -> int:
    try:
        _check_kind(path, os.stat(path), most, what)  # noqa: PTH116 - a table has a hundred thousand of them
        # without waiting, in case it was exchanged for a FIFO since
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise error if isinstance(error, DataError) else _unread(path, error) from error
    try:
        _check_kind(path, os.fstat(handle), most, what)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_kind(path: str | os.PathLike[str], status: os.stat_result, most: int, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "Is no regular file")
        raise DataError(f"{path}: {kind}, where a {what} should be; give the path of a regular file")
    if status.st_size > most:
        raise _too_large(path, status.st_size, most, what)


def _too_large(path: str | os.PathLike[str], size: int, most: int, what: str, more: str = "") -> DataError:
    return DataError(
        f"{path} has {size:,} bytes{more}; as a {what} at most {most:,} are read. "
        "Is it the right file? If so, make it smaller or split it"
    )


def _unread(path: str | os.PathLike[str], error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return NoSuchFile(f"{path} does not exist")
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"{str(path)[:200]!r} cannot be read: {why}")


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
    return _is_gone(int(parts["pid"]))


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it is another user's
        return False
    return False


@contextlib.contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """A folder in the temporary directory, for as long as the context; what killed processes left of this kind goes first.

    Its name holds the process, and a mark of the machine and of the space of its process numbers: others may share the
    directory, and of their processes nobody here can know whether they live. Those folders stay.

    Args:
        kind: the first part of its name, such as ``kintsugi-workers``.
    """
    with contextlib.suppress(OSError):  # one that cannot be listed is used all the same
        for path in Path(tempfile.gettempdir()).iterdir():
            if path.name.startswith(f"{kind}-") and _is_left_folder(path, kind):
                shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{kind}-{os.getpid()}.{_space()}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _is_left_folder(path: Path, kind: str) -> bool:
    parts = re.fullmatch(rf"{re.escape(kind)}-(?P<pid>\d+)\.(?P<space>[0-9a-f]{{8}})-.*", path.name)
    if os.name != "posix" or parts is None or parts["space"] != _space():
        return False
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and _is_gone(int(parts["pid"]))


def _space() -> str:
    """Eight hexadecimal digits of this machine and, on Linux, of the space of its process numbers, as containers have it."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


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


__all__ = [
    "NoSuchFile", "digest", "flush_folder", "is_temporary", "open_bounded", "read_bounded", "replace_file", "replacing",
    "sweep", "taking_turns", "temporary_folder",
]  # fmt: skip
