"""What an operator will do, as a value with a hash, and the draws that belong to it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import DataError
from kintsugi.imperfect.seeds import bits, row_seeds, scratch, stable_key, uniforms

if TYPE_CHECKING:
    from kintsugi.core.data import Data


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that ``apply`` needs besides the rows.

    operator: its key. modality: the name of the modality, or names joined by ``+``. severity: 0 to 5. seed: of the draws.
    parameters: plain JSON values. tensors: what was worked out from the data, such as scales, partners or a pool of
    noise; part of the hash. others: the rows that ``partners`` are read from; not part of the hash.
    """

    operator: str
    modality: str
    severity: int
    seed: int
    parameters: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    others: Data | None = field(default=None, repr=False)

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 over all of it."""
        said = [self.operator, self.modality, self.severity, self.seed, self.parameters]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for name in sorted(self.tensors):
            value = self.tensors[name].detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
        return digest.hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @cached_property
    def key(self) -> int:
        """What the draws depend on, besides the row. Not the severity: all levels make the same draws."""
        return stable_key(self.seed, self.operator, self.modality)

    def reseeded(self, *parts: object) -> Plan:
        """The same with other draws: for the epochs of an augmentation."""
        return replace(self, seed=stable_key(self.seed, *parts))

    # draws: each belongs to a row and a stream, never to a position in a batch -----------------------------------
    def stream(self, name: str) -> int:
        """The key of a second, third … set of draws of one operator."""
        return stable_key(self.key, name) if name else self.key

    def generators(self, index: Tensor, stream: str = "") -> Iterator[torch.Generator]:
        """A generator for each row, in order, on the CPU; it is one object, reseeded, so use it before the next.

        PyTorch's CPU generator takes 32 bits of the seed: two rows share their draws with a chance of 2^-32.
        """
        generator = torch.Generator()
        for seed in row_seeds(self.stream(stream), index).tolist():
            yield generator.manual_seed(seed)

    def uniforms(self, index: Tensor, columns: int = 1, stream: str = "") -> Tensor:
        """Few numbers a row, in [0, 1): float64 ``[R, columns]`` on the CPU, made for all rows at once.

        Column ``c`` of a row does not depend on how many columns there are.
        """
        return torch.from_numpy(uniforms(self.stream(stream), index, columns))

    def normal(self, index: Tensor, *shape: int, stream: str = "") -> Tensor:
        """Many standard normal numbers a row: float32 ``[R, *shape]`` on the CPU, of which the first ones come first.

        Each is one of 65,536 equally likely quantiles, the largest 4.3, scaled to variance 1: at most 1/131072 from the
        normal distribution function, in a third of the time that a generator a row takes.
        """
        count, out = math.prod(shape), torch.empty(len(index), *shape)
        for here in self._some(index, count):
            words = bits(self.stream(stream), index[here], -(-count // 2))
            which = scratch("which", len(words), count).view(np.int32)
            np.copyto(which, words.view(np.uint16)[:, :count])
            torch.index_select(_quantiles(), 0, torch.from_numpy(which).view(-1), out=out[here].view(-1))
        return out

    def uniform(self, index: Tensor, *shape: int, stream: str = "") -> Tensor:
        """Many uniform numbers a row, multiples of 2^-23 in [0, 1): float32 ``[R, *shape]`` on the CPU."""
        count, out = math.prod(shape), torch.empty(len(index), *shape)
        flat = out.view(len(index), count).numpy()
        for here in self._some(index, count):
            words = bits(self.stream(stream), index[here], count)
            np.right_shift(words, np.uint32(9), out=words)
            np.bitwise_or(words, np.uint32(0x3F800000), out=words)  # as the fraction of a float from 1 to 2
            np.subtract(words.view(np.float32), np.float32(1), out=flat[here])
        return out

    def coarse(self, index: Tensor, count: int, stream: str = "") -> Tensor:
        """Many numbers a row for sums of hundreds of them: uniform, of 16 bits, mean 0, variance 1: float32 ``[R, count]``."""
        out = torch.empty(len(index), count)
        for here in self._some(index, count):
            words = bits(self.stream(stream), index[here], -(-count // 2))
            np.multiply(words.view(np.int16)[:, :count], np.float32(3**0.5 * 2.0**-15), out=out.numpy()[here])
        return out

    @staticmethod
    def _some(index: Tensor, count: int) -> Iterator[slice]:
        """Rows of which so many numbers are made at once: more take memory, fewer take time for calls."""
        rows = max(1, (1 << 18) // max(1, count))
        return (slice(start, start + rows) for start in range(0, len(index), rows))

    # what was worked out from the data -----------------------------------------------------------------------------
    def place(self, index: Tensor, column: str = "rows") -> Tensor:
        """Where each row stands in a table of this plan, whose sorted row numbers are ``tensors[column]``: int64 ``[R]``.

        Raises:
            DataError: a row that the plan was not made for; the message gives the plan's hash and size.
        """
        rows = self.tensors[column]
        at = torch.searchsorted(rows, index.cpu()).clamp(max=max(len(rows) - 1, 0))
        if len(index) and (len(rows) == 0 or not torch.equal(rows[at], index.cpu())):
            raise DataError(
                f"plan {self.hash} of {self.operator}({self.modality}, {self.severity}) was made for {len(rows)} rows, "
                f"and row {_stranger(rows, index.cpu())} is none of them; plan the corruption on the data that it is "
                "applied to"
            )
        return at


@cache
def _quantiles() -> Tensor:
    """Float32 ``[65536]``: quantiles of the normal distribution in the middle of so many equal parts; 256 KB."""
    middle = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)
    found = torch.special.ndtri(middle)
    return (found / found.square().mean().sqrt()).float()


def _stranger(rows: Tensor, index: Tensor) -> int:
    return int(index[~torch.isin(index, rows)][0])
