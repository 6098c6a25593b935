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
    # what a monitor has learned, such as a quantile of few rows
    "monitors": (5e-3, 1e-3),
    # of a small run of the bench: what is trained, and counts of rows at bounds that rounding may carry one row over
    "bench": (2e-3, 2e-3),
    # of a damage, in units of its size: one value in a picture may be rounded to its neighbour
    "direction": (0.0, 1e-3),
    # where a threshold cuts: rounding may put a whole drop of rain on its other side
    "rough size": (5e-3, 1e-6),
    "rough direction": (0.0, 3e-2),
}
USUAL = (1e-4, 1e-5)
UNTRAINED = "untrained"  # the name of such numbers in the entry of a method


@contextmanager
def alone() -> Iterator[None]:
    """One thread, seeded, with gradients and 32 bits, whatever ran before in this process; afterwards all is as it was."""
    threads, kind = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.enable_grad(), seeded(0):
            yield
    finally:
        torch.set_default_dtype(kind)
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


def merged(before: Numbers, now: Numbers) -> Numbers:
    """What ``before`` has, with what only ``now`` has by name."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        both = {name: merged(before[name], now[name]) for name in before.keys() & now.keys()}
        return {**now, **before, **both}
    return before


def untrained(numbers: Numbers) -> Numbers:
    """Of a method's numbers those that no training takes part in: name of the data -> outputs."""
    if not isinstance(numbers, Mapping):
        return {}
    return {name: each[UNTRAINED] for name, each in numbers.items() if isinstance(each, Mapping) and UNTRAINED in each}


def not_finite(numbers: Numbers, path: tuple[str, ...] = ()) -> list[str]:
    """Places of NaN and infinity, which are near to nothing and so would never be seen to move."""
    if isinstance(numbers, Mapping | list):
        inner = numbers.items() if isinstance(numbers, Mapping) else enumerate(numbers, 1)
        return [place for name, each in inner for place in not_finite(each, (*path, str(name)))]
    return [_said(path)] if isinstance(numbers, float) and not math.isfinite(numbers) else []


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
    if not (math.isfinite(before) and math.isfinite(now)):
        return ""
    gap = abs(before - now)
    if gap <= absolute + relative * abs(before):
        return None
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
