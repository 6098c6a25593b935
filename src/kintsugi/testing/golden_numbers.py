"""Golden numbers as values: how they are summarised, and what moved from one measurement to another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

from kintsugi.training.sampling import generator

Numbers: TypeAlias = "Mapping[str, Numbers] | list[Numbers] | float | int | str"

# The nearest name above a number, or its first word -> largest relative and absolute movement; whole numbers and text must not
# move at all. The same training on other processors, instruction sets and numbers of threads moves first losses by up to
# 6.2e-6 relative, answers (probabilities, or values in deviations of the target) by up to 4.2e-4.
LOSS, ANSWERS = (1e-4, 1e-7), (0.0, 2e-3)
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "loss": LOSS,
    "answers": ANSWERS,
    # of a damage, in units of its size: one value in a picture may be rounded to its neighbour
    "direction": (0.0, 1e-3),
    # where a threshold cuts: rounding may put a whole drop of rain on its other side
    "rough size": (5e-3, 1e-6),
    "rough direction": (0.0, 3e-2),
}
USUAL = (1e-4, 1e-5)


@contextmanager
def alone() -> Iterator[None]:
    """One thread, seeded, whatever ran before in this process; afterwards all is as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded(0):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generator starts from this seed; afterwards it is where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def projections(x: Tensor, *name: object, count: int = 3) -> list[Numbers]:
    """Sums of the values, weighted by fixed normal draws of this name and divided by the root of their number.

    They are of the size of the values' root mean square, and each value takes part in all of them.
    """
    flat = x.detach().double().flatten()
    weights = torch.randn(count, len(flat), generator=generator("golden", *name), dtype=torch.float64)
    return [float(v) for v in weights @ flat / math.sqrt(max(1, len(flat)))]


def sha(*tensors: Tensor) -> str:
    """16 hexadecimal digits of the SHA-256 over whole numbers."""
    digest = hashlib.sha256()
    for x in tensors:
        digest.update(f"{x.dtype} {tuple(x.shape)}".encode() + x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def differences(before: Numbers, now: Numbers) -> list[str]:
    """One sentence for each number of ``before`` that ``now`` has otherwise, lacks or has besides; empty: nothing moved."""
    return list(_differences(before, now, (), USUAL))


def _differences(before: Numbers, now: Numbers, path: tuple[str, ...], tolerance: tuple[float, float]) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted(before.keys() | now.keys()):
            place = (*path, name)
            if name not in now:
                yield f"{_said(place)}: in the file, and no more measured"
            elif name not in before:
                yield f"{_said(place)}: measured, and not in the file"
            else:
                nearest = TOLERANCES.get(name, TOLERANCES.get(name.partition(" ")[0], tolerance))
                yield from _differences(before[name], now[name], place, nearest)
    elif isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            yield f"{_said(path)}: {len(before)} numbers in the file, {len(now)} now"
        else:
            for number, (old, new) in enumerate(zip(before, now, strict=True), 1):
                yield from _differences(old, new, (*path, str(number)), tolerance)
    else:
        moved = _moved(before, now, *tolerance)
        if moved is not None:
            yield f"{_said(path)}: {_short(before)} in the file, {_short(now)} now{moved}"


def _moved(before: Numbers, now: Numbers, relative: float, absolute: float) -> str | None:
    """None: it did not; else by how much, in brackets, or nothing where that says nothing."""
    if not isinstance(before, float) or not isinstance(now, float):
        return None if type(before) is type(now) and before == now else ""
    if before == now or (math.isnan(before) and math.isnan(now)):
        return None
    gap = abs(before - now)
    if gap <= absolute + relative * abs(before):
        return None
    if not math.isfinite(gap):
        return ""
    if not relative or not before:
        return f" ({gap:.2g}; at most {absolute:.2g})"
    return f" ({gap / abs(before):.2g} of it; at most {relative:.2g})"


def _short(value: Numbers) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _said(path: tuple[str, ...]) -> str:
    return ", ".join(path) or "all of it"
