"""Locks of threads that a forked process does not wait for: the thread that held one does not live there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from weakref import WeakSet


class ThreadLock:
    """A re-entrant lock of threads that is free in a forked child, unless the thread that forked held it.

    A fork copies a lock as it is, but of the threads only the one that forked: a lock that another one held would stay
    held for ever.

    Args:
        torn: called in a forked child where another thread was at work behind the lock, which may have left it half
            done: it has to bring what the lock guards to a state that can be used.
    """

    def __init__(self, torn: Callable[[], None] | None = None) -> None:
        self._lock, self._torn = threading.RLock(), torn
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def _renew(self) -> None:
        if self._lock.acquire(blocking=False):  # it was free, or the thread that forked held it
            self._lock.release()
            return
        self._lock = threading.RLock()
        if self._torn is not None:
            self._torn()


_LOCKS: WeakSet[ThreadLock] = WeakSet()


def _renew_all() -> None:
    for lock in list(_LOCKS):
        lock._renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_all)

__all__ = ["ThreadLock"]
