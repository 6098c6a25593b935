"""Batches of one epoch, read ahead where rows have to be decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.data.dataset import Dataset, TensorSource

AHEAD = 2  # batches that are decoded while one is used


def order(
    positions: Tensor, batch_size: int, generator: torch.Generator | None = None, data: Data | None = None
) -> list[Tensor]:
    """Positions cut into batches: shuffled with a generator, as they stand without.

    The last batch may be short, but never a single row where it can be avoided (batch statistics and contrastive terms
    need two): such a row joins the batch before.

    Args:
        positions: int64 ``[N]``.
        batch_size: rows a batch.
        generator: draws the order; None: as they stand.
        data: whose task may have an order of its own for drawn epochs (see :meth:`~kintsugi.core.task.Task.sampler`).

    Raises:
        ConfigError: a batch of nothing, or the task's sampler gives none or takes rows that are not among these.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be above 0, not {batch_size}")
    sampler = None if data is None or generator is None else data.schema.task.sampler(data)
    if data is not None and generator is not None and sampler is not None and len(positions):
        return _checked(sampler(positions, batch_size, generator), positions, data)
    if generator is not None:
        positions = positions[torch.randperm(len(positions), generator=generator)]
    chunks = [positions[at : at + batch_size] for at in range(0, len(positions), batch_size)]
    if len(chunks) > 1 and len(chunks[-1]) == 1 and batch_size > 1:
        last = chunks.pop()
        chunks[-1] = torch.cat([chunks[-1], last])
    return chunks


def _checked(chunks: Sequence[Tensor], positions: Tensor, data: Data) -> list[Tensor]:
    """Batches of a task's own sampler."""
    who = f"the sampler of task {data.schema.task.key!r}"
    if not chunks or not all(len(chunk) for chunk in chunks):
        raise ConfigError(f"{who} makes no batch, or an empty one, of {len(positions)} rows of {data.name}")
    if not bool(torch.isin(torch.cat(list(chunks)), positions).all()):
        raise ConfigError(f"{who} takes rows of {data.name} that the stage does not have; choose among its positions")
    return list(chunks)


def count(rows: int | Tensor, batch_size: int, data: Data | None = None) -> int:
    """How many batches :func:`order` makes of so many rows, or of these positions, in a drawn epoch.

    A task's own sampler is asked for one epoch; each has as many batches.
    """
    if isinstance(rows, Tensor):
        if data is not None and data.schema.task.sampler(data) is not None:
            return len(order(rows, batch_size, torch.Generator().manual_seed(0), data))
        rows = len(rows)
    full, rest = divmod(rows, batch_size)
    return max(1, full + (rest > 1 or (rest == 1 and batch_size == 1)))


class Loader:
    """Batches of rows; each iteration is one epoch.

    With a generator, every epoch draws a new order from it when its iteration starts. Rows that are not in memory are
    decoded by one thread, a few batches ahead; what it raises is raised here, at the batch that it concerns. Order and
    content do not depend on whether it is used.

    Args:
        data: the rows.
        batch_size: rows a batch.
        positions: int64 positions in ``data``; default: all.
        generator: draws the order; None: as they stand.
        ahead: batches that are read ahead, 0: none; default: 2 where rows are not in memory.
    """

    def __init__(
        self,
        data: Data,
        batch_size: int,
        positions: Tensor | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        ahead: int | None = None,
    ) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, generator
        self.positions = torch.arange(len(data)) if positions is None else torch.as_tensor(positions)
        self.ahead = _ahead(data) if ahead is None else ahead
        order(self.positions[:0], batch_size)  # complains about the size now

    def __len__(self) -> int:
        if self.generator is None or not len(self.positions):
            return len(order(self.positions, self.batch_size))
        return count(self.positions, self.batch_size, self.data)

    def __iter__(self) -> Iterator[Batch]:
        return batches(self.data, order(self.positions, self.batch_size, self.generator, self.data), self.ahead)


def batches(data: Data, chunks: Sequence[Tensor], ahead: int | None = None) -> Iterator[Batch]:
    """The batches of these positions, in order; ``ahead`` of them are decoded while one is used (see :class:`Loader`)."""
    ahead = _ahead(data) if ahead is None else ahead
    return _read_ahead(data, chunks, ahead) if ahead else map(data.batch, chunks)


def _ahead(data: Data) -> int:
    resident = isinstance(data, Dataset) and isinstance(data.source, TensorSource)
    return 0 if resident else AHEAD


def _read_ahead(data: Data, chunks: Sequence[Tensor], ahead: int) -> Iterator[Batch]:
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="kintsugi-loader") as reader:
        try:
            for chunk in chunks:
                waiting.append(reader.submit(data.batch, chunk))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # the epoch may be left early
            for future in waiting:
                future.cancel()
