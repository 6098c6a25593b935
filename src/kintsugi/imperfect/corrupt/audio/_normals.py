"""Many normal numbers a row by hashing a counter, in two thirds of the time that a reseeded generator takes.

The bits are those of SplitMix64 as in :mod:`kintsugi.imperfect.seeds`, the method is that of Box and Muller (Annals of
Mathematical Statistics 1958): ``sqrt(-2 ln u) cos(2 pi v)`` and ``sqrt(-2 ln u) sin(2 pi v)``. u has 24 bits, so the
largest number is 5.9.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.seeds import row_seeds

_PAIRS = 8192  # a chunk is twice as many numbers: first all cosines, then all sines
_WORDS = _PAIRS // 2  # of 64 bits, two u or two v each
_STEP = 0x9E3779B97F4A7C15
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_COUNTER = (np.arange(1, 2 * _WORDS + 1, dtype=np.uint64) * np.uint64(_STEP)).reshape(2, _WORDS)
_SHIFTS = tuple(np.uint64(bits) for bits in (30, 27, 31))
_SCALE = np.float32(2.0**-24)


class Normals:
    """Standard normal numbers of each row in turn, in a buffer that the next row overwrites."""

    def __init__(self, index: Tensor, plan: Plan, samples: int) -> None:
        self._seeds = row_seeds(plan.stream("normals"), index).tolist()
        self._out = np.empty(samples + 32, np.float32)  # new memory for every row would cost a fifth of the time
        self._bits = np.empty((2, _WORDS), np.uint64)
        self._more = np.empty((2, _WORDS), np.uint64)
        self._uv = np.empty((2, _PAIRS), np.float32)
        self._seed = 0

    def __iter__(self) -> Iterator[Normals]:
        for seed in self._seeds:
            self._seed = seed
            yield self

    def __call__(self, count: int) -> Tensor:
        """Float32 ``[count]`` on the CPU; fewer are the first of more. Once a row."""
        if count > len(self._out):
            self._out = np.empty(count, np.float32)
        for chunk, start in enumerate(range(0, count, 2 * _PAIRS)):
            self._chunk(chunk, self._out[start : min(count, start + 2 * _PAIRS)])
        return torch.from_numpy(self._out[:count])

    def _chunk(self, chunk: int, out: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
        pairs = min(len(out), _PAIRS)
        words = -(-pairs // 2)
        bits, more = self._bits[:, :words], self._more[:, :words]
        base = np.uint64((self._seed + chunk * 2 * _WORDS * _STEP) & 0xFFFFFFFFFFFFFFFF)
        np.add(_COUNTER[:, :words], base, out=bits)
        for shift, factor in zip(_SHIFTS, (*_MIX, None), strict=True):
            np.right_shift(bits, shift, out=more)
            np.bitwise_xor(bits, more, out=bits)
            if factor is not None:
                np.multiply(bits, factor, out=bits)
        whole = self._bits.view(np.int32)[:, :pairs]
        np.right_shift(whole, 8, out=whole)  # 24 bits, which a float32 holds: -2^23 … 2^23 - 1
        uv = self._uv[:, :pairs]
        np.copyto(uv, whole, casting="unsafe")
        u, v = uv
        u += np.float32(0.5)  # exact, so that u is never 0
        u *= _SCALE
        u += np.float32(0.5)
        np.log(u, out=u)
        u *= np.float32(-2)
        np.sqrt(u, out=u)
        v *= np.float32(2 * np.pi) * _SCALE
        np.cos(v, out=out[:pairs])
        out[:pairs] *= u
        rest = len(out) - pairs
        if rest:
            np.sin(v[:rest], out=out[pairs:])
            out[pairs:] *= u[:rest]
