"""How much memory a call takes at its worst, beyond what was held before it."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PATIENCE = 120.0  # seconds for all calls together unless told; a child that hangs is not waited for longer
UNITS = 1024  # the kernel says kB and means 1024 bytes

Peaks = list[int] | None


def peak_memory(
    calls: Sequence[Callable[[], object]], device: torch.device, patience: float = PATIENCE
) -> tuple[Peaks, str]:
    """Bytes that each call takes at its worst, beyond what was held before it, and how that was measured.

    CUDA: ``torch.cuda.max_memory_allocated``. Linux: the high-water mark of resident memory (``VmHWM``, set back through
    ``/proc/self/clear_refs``: proc(5)) in a fork of the process, after a first call that does not count, on one thread;
    the kernel keeps these figures to about half a megabyte, so a small call shows as 0.

    Args:
        calls: what to measure; each is made twice.
        device: where they work.
        patience: seconds after which the fork is given up.

    Returns:
        one figure a call, or None where it cannot be measured; and a sentence that says how, or why not.
    """
    if device.type == "cuda":
        return [_on_cuda(call, device) for call in calls], "CUDA allocations above those before the call"
    if device.type != "cpu":
        return None, f"not measured: no counter for device {device.type!r}"
    if not sys.platform.startswith("linux") or not STATUS.exists() or not os.access(CLEAR, os.W_OK):
        return None, "not measured: needs Linux with a writable /proc/self/clear_refs"
    return _forked(calls, patience)


def _on_cuda(call: Callable[[], object], device: torch.device) -> int:
    call()  # workspaces of the libraries are allocated once and kept
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def _forked(calls: Sequence[Callable[[], object]], patience: float) -> tuple[Peaks, str]:
    """Measures in a child, where the heap can be trimmed and the mark set back without touching the caller's."""
    read, write = os.pipe()
    with (
        warnings.catch_warnings()
    ):  # Python 3.12 warns of a fork beside threads; the child starts none and takes no lock
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.close(read)
            with os.fdopen(write, "w") as out:
                json.dump(_in_child(calls), out)
        finally:
            os._exit(0)  # nothing of the caller's may run on: no handlers, no buffers, no tests
    os.close(write)
    try:
        said = _read(read, patience)
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)  # has ended by itself unless it hangs
        os.waitpid(child, 0)
    found = json.loads(said) if said else "the measuring process ended or hung"
    if isinstance(found, str):
        return None, f"not measured: {found}"
    return [int(n) for n in found], "resident memory above that before the call, in a fork on one thread"


def _in_child(calls: Sequence[Callable[[], object]]) -> list[int] | str:
    torch.set_num_threads(1)  # the pool of threads did not come along
    try:
        return [_resident(call) for call in calls]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _resident(call: Callable[[], object]) -> int:
    call()  # code is loaded, caches are filled
    _trim()
    CLEAR.write_text("5")
    before = _marks()["VmRSS"]
    call()
    return max(0, _marks()["VmHWM"] - before) * UNITS


def _marks() -> dict[str, int]:
    """Resident memory now and at most, in kB."""
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return {words[0][:-1]: int(words[1]) for words in lines if words[:1] in (["VmRSS:"], ["VmHWM:"])}


def _trim() -> None:
    """Gives what is free back to the system, so that the next call has to ask for it again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
    if trim is not None:
        trim(0)


def _read(pipe: int, patience: float) -> str:
    end, said = time.monotonic() + patience, b""
    while select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(pipe, 65536)
        if not piece:
            return said.decode()
        said += piece
    return ""
