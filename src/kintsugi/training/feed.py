"""Batches for a loop: slices of memory where the data is in memory, else read ahead by one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.data.dataset import Dataset, TensorSource


def feed(data: Data, batches: Sequence[Tensor], ahead: int = 3) -> Iterator[Batch]:
    """The batches of these positions, in order; decoding of the next ``ahead`` overlaps with the work on this one."""
    if isinstance(data, Dataset) and isinstance(data.source, TensorSource) and not data.corruptions:
        yield from map(data.batch, batches)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Batch]] = []
        for rows in batches:
            waiting.append(pool.submit(data.batch, rows))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
