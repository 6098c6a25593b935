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


def epoch_batches(rows: Tensor, size: int, source: Generator) -> Iterator[Tensor]:
    """The rows in a new order, in batches of ``size``; a last batch of one row joins the one before it."""
    order = rows[torch.randperm(len(rows), generator=source)]
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches[-2:] = [torch.cat(batches[-2:])]
    yield from batches


def count_batches(rows: int, size: int) -> int:
    """How many batches :func:`epoch_batches` makes of so many rows."""
    full, rest = divmod(rows, size)
    return max(1, full + (rest > 1))


def endless(rows: Tensor, sizes: Iterable[int], source: Generator) -> Iterator[Tensor]:
    """A batch of each of these sizes: the rows are used up in a new order before any comes twice."""
    pool = rows[:0]
    for size in sizes:
        while len(pool) < size:
            pool = torch.cat([pool, rows[torch.randperm(len(rows), generator=source)]])
        yield pool[:size]
        pool = pool[size:]
