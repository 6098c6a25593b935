"""Who runs a trial, and whether that process is still alive."""

from __future__ import annotations

import json
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

STALE_SECONDS = 3600.0  # proposed here: a worker that has not been heard of for an hour hangs, or its machine is gone


@cache
def _born_here(pid: int) -> str:  # the number goes in, so that a forked process does not take its parent's for its own
    said = {"host": platform.node(), "boot": _boot(), "space": _space(), "pid": pid, "born": _born(pid)}
    return json.dumps(said, sort_keys=True)


def this_process() -> str:
    """JSON that no other process has, not even one with the same number after this one has ended.

    host; boot: id of the machine's run since it was started; space: namespace of process numbers; pid; born: clock
    ticks from the machine's start to the process's (Linux, proc(5), ``/proc/PID/stat`` field 22). Empty where unknown.
    """
    return _born_here(os.getpid())


def alive(process: str | None, beat: float | None, now: float, stale: float = STALE_SECONDS) -> bool:
    """Is a process still at its trial?

    It is not, where it was last heard of more than ``stale`` seconds ago, where its machine was started anew since, or
    where this process could see it and does not.

    Args:
        process: as :func:`this_process` gave it.
        beat: when it was last heard of, seconds since 1970.
        now: likewise.
        stale: seconds.
    """
    if process is None or beat is None or now - beat > stale:
        return False
    theirs: dict[str, Any] = json.loads(process)
    mine: dict[str, Any] = json.loads(this_process())
    if theirs["host"] != mine["host"] or not theirs["boot"] or not mine["boot"]:
        return True  # nothing is known but the heartbeat
    if theirs["boot"] != mine["boot"]:
        return False
    if theirs["space"] != mine["space"]:
        return True
    return _born(theirs["pid"]) == theirs["born"] != ""


def _boot() -> str:
    return _read(Path("/proc/sys/kernel/random/boot_id")).strip()


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _born(pid: int) -> str:
    # the second field is the name of the program in brackets, which may hold blanks and brackets itself
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return "" if len(fields) < 20 or fields[0] in "ZX" else fields[19]  # Z, X: ended, and not yet fetched by its parent


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
