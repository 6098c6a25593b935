"""What the benchmarks share: interleaved timing and a description of the machine."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch


def machine() -> str:
    """One line on what the figures were measured on."""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


LEAST = 0.1  # seconds of a timed run: a job of 2 ms, timed once, is at the mercy of whatever ran before it


def interleaved(runs: int, **jobs: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each job, run in turn, so that whatever else the machine does falls on all alike.

    A run repeats a quick job until it has lasted ``LEAST`` seconds, and counts the mean.
    """
    repeats = {}
    for name, job in jobs.items():
        job()  # warm up
        repeats[name] = max(1, math.ceil(LEAST / _timed(job)))
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(runs):
        for name, job in jobs.items():
            seconds[name].append(_timed(job, repeats[name]))
    return seconds


def _timed(job: Callable[[], object], repeats: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        job()
    return (time.perf_counter() - began) / repeats


def ratio(seconds: dict[str, list[float]], ours: str, theirs: str) -> str:
    """Median of the ratios of neighbouring runs, with their range."""
    found = sorted(a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True))
    a, b = statistics.median(seconds[ours]), statistics.median(seconds[theirs])
    return (
        f"{ours} {a:.3f} s, {theirs} {b:.3f} s, ratio {statistics.median(found):.3f} ({found[0]:.3f} – {found[-1]:.3f})"
    )
