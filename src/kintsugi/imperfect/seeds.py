"""Randomness that belongs to a row, not to a position: the same draw in any order, batch, worker or process.

Draws are made by hashing a counter (run, row, column) with the finalising mix of SplitMix64 (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014), so that they are made for many rows at once.
"""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# SplitMix64: the golden ratio as a 64-bit fraction steps the counter, two odd factors mix it.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def stable_key(*parts: object) -> int:
    """63 bits from the text of ``parts``; the same in every process, unlike :func:`hash`."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def row_seeds(key: int, index: Tensor) -> NDArray[np.uint64]:
    """One 63-bit seed a row, ``[N]``, from the key of a run and the rows' ``index`` (int64 ``[N]``)."""
    rows = index.detach().cpu().numpy().astype(np.int64).view(np.uint64)
    return _mix(_mix(np.uint64(key) + rows * _STEP) + _STEP) >> np.uint64(1)


def row_identities(key: int, index: Tensor) -> Tensor:
    """A number that names a row of a table: int64 ``[N]``, from the key of the table and the rows' ``index``.

    Each step can be undone, so two rows of one table never share one. Negative ones are as good as others, but for -1, which
    stands for no row and is given to none: the row that would have it (one in 2^64) gets -2.
    """
    rows = index.detach().cpu().numpy().astype(np.int64).view(np.uint64)
    identities = torch.from_numpy(_mix(np.uint64(key) + rows * _STEP).view(np.int64))
    return identities.masked_fill(identities == -1, -2)


def uniforms(key: int, index: Tensor, columns: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), ``[N, columns]``. Column ``c`` of a row does not depend on how many columns there are."""
    counter = np.arange(1, columns + 1, dtype=np.uint64) * _STEP
    bits = _mix(row_seeds(key, index)[:, None] + counter)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53  # a double holds 53 bits


# An odd multiplier steps the counter (2^32 over the golden ratio); the mix is one of low bias that was found by search
# (C. Wellons, "Prospecting for hash functions", 2018; github.com/skeeto/hash-prospector, issue 19).
_STEP32, _FIRST, _SECOND = np.uint32(0x9E3779B9), np.uint32(0x21F0AAAD), np.uint32(0x735A2D97)


def bits(key: int, index: Tensor, words: int) -> NDArray[np.uint32]:
    """Random bits, 32 a word, ``[N, words]``: for many numbers a row.

    A counter is mixed with the 64 bits of the row, in a quarter of the time that a generator a row takes. Word ``w`` of a
    row does not depend on how many words there are. The array is this thread's own, and the next call writes over it.
    """
    rows = index.detach().cpu().numpy().astype(np.int64).view(np.uint64)
    seeds = _mix(np.uint64(key) + rows * _STEP)
    high, low = (seeds >> np.uint64(32)).astype(np.uint32)[:, None], seeds.astype(np.uint32)[:, None]
    z, spare = (scratch(name, len(rows), words) for name in ("bits", "spare"))
    np.add(np.arange(1, words + 1, dtype=np.uint32) * _STEP32, low, out=z)
    _fold(z, spare, 16)
    np.multiply(z, _FIRST, out=z)
    np.bitwise_xor(z, high, out=z)  # so that no two rows run through the same numbers
    _fold(z, spare, 15)
    np.multiply(z, _SECOND, out=z)
    _fold(z, spare, 15)
    return z


_own = threading.local()
_KEPT = 1 << 20  # words; larger ones are not kept


def scratch(name: str, rows: int, words: int) -> NDArray[np.uint32]:
    """An array ``[rows, words]`` that this thread uses again: new memory costs as much as what is written into it."""
    size = rows * words
    if size > _KEPT:
        return np.empty((rows, words), dtype=np.uint32)
    kept: NDArray[np.uint32] | None = getattr(_own, name, None)
    if kept is None or len(kept) < size:
        kept = np.empty(max(size, 1 << 16), dtype=np.uint32)
        setattr(_own, name, kept)
    return kept[:size].reshape(rows, words)


def _fold(z: NDArray[np.uint32], spare: NDArray[np.uint32], shift: int) -> None:
    np.right_shift(z, np.uint32(shift), out=spare)
    np.bitwise_xor(z, spare, out=z)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return z ^ (z >> np.uint64(31))
