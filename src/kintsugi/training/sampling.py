"""Which rows come when: seeded by (seed, run, pass), so that a run can be taken up at any epoch; and how a budget is cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

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


def cut(total: int, shares: Sequence[float]) -> list[int]:
    """Where pieces of a whole end: nearest to these shares of it, each piece 1 at least, the last at the end.

    Args:
        total: of the whole; at least as many as there are pieces.
        shares: at which each piece ends, rising to 1.
    """
    ends: list[int] = []
    for place, share in enumerate(shares):
        left = len(shares) - 1 - place  # pieces that come after it
        ends.append(min(max(round(total * share), ends[-1] + 1 if ends else 1), total - left))
    return ends
