"""Which rows come when: seeded by (seed, run, epoch), so that a run can be taken up at any epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Generator, Tensor


def generator(*key: object) -> Generator:
    """A generator of its own for this key; the same in every process."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def endless(rows: Tensor, sizes: Iterable[int], source: Generator) -> Iterator[Tensor]:
    """A batch of each of these sizes: the rows are used up in a new order before any comes twice."""
    pool = rows[:0]
    for size in sizes:
        while len(pool) < size:
            pool = torch.cat([pool, rows[torch.randperm(len(rows), generator=source)]])
        yield pool[:size]
        pool = pool[size:]
