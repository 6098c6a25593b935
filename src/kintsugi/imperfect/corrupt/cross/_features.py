"""What a row looks like, as a few numbers: for noise that depends on the instance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data

MOST = 128  # numbers a modality


def features(data: Data, positions: Tensor) -> Tensor:
    """Standardised features of these rows: float64 ``[N, F]``, read in chunks; 0, the mean, where a modality is absent.

    Of text the counts of its ids, modulo 128; of all else the values, beyond 128 the means of neighbours; unseen ones are
    left out. A number that is the same in all rows is 0.
    """
    columns = []
    parts = [_read(data, batch) for batch in data.batches(256, positions)]
    for name in data.schema.names:
        values = torch.cat([part[name][0] for part in parts])
        here = torch.cat([part[name][1] for part in parts])
        if not bool(here.any()):
            continue
        mean, sd = values[here].mean(0), values[here].std(0, correction=0)
        scaled = (values - mean) / torch.where(sd > 0, sd, 1)
        columns.append(torch.where(here[:, None], scaled, 0))
    return torch.cat(columns, 1) if columns else torch.zeros(len(positions), 0, dtype=torch.float64)


def _read(data: Data, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    return {
        m.name: (_numbers(batch, m.name, m.kind == "text"), batch.present[:, column])
        for column, m in enumerate(data.schema.modalities)
    }


def _numbers(batch: Batch, name: str, ids: bool) -> Tensor:
    x, mask = batch.inputs[name], batch.mask.get(name)
    here = batch.present[:, batch.names.index(name)]
    seen = here[:, None] & (torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask)
    if ids:
        counts = torch.zeros(len(x), MOST, dtype=torch.float64)
        return counts.scatter_add(1, x.masked_fill(~seen, 0) % MOST, seen.double())
    values = torch.where(seen.view(*seen.shape, *[1] * (x.ndim - 2)), x.double(), 0).flatten(1)
    return F.adaptive_avg_pool1d(values[:, None], MOST)[:, 0] if values.shape[1] > MOST else values
