"""Per-channel statistics of clean data, in whose units operators say how much they damage.

They come from the rows that ``data.reference`` names (the training rows, where it is known which these are), not from the
rows that are damaged, so that one severity means one thing for every subset and split. What a simulator hid in those rows
is not in them. They are remembered for each reference by itself, since references of one source may have other holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kintsugi.core.errors import DataError
from kintsugi.core.kind import KINDS

if TYPE_CHECKING:
    from kintsugi.core.data import Data

MOST_ROWS = 2048  # the standard deviation of so many rows is known to 1.6 %
_QUANTILES = torch.linspace(0, 1, 201, dtype=torch.float64)
_known: WeakKeyDictionary[Data, dict[str, Scale]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Scale:
    """Statistics of each channel of a modality over present, seen values.

    The channels are those of the last axis: of a series ``[T, C]`` its C channels over all steps, of a vector or of
    table cells each number, of audio a single one. mean, sd: float64 ``[C]``; sd is 0 where a channel is constant.
    quantiles: float64 ``[201, C]``: of 0, 0.005, … 1. rows: how many were read.
    """

    mean: Tensor
    sd: Tensor
    quantiles: Tensor
    rows: int

    def quantile(self, share: float) -> Tensor:
        """The quantile ``[C]`` at a share in [0, 1], between those that are stored by linear interpolation."""
        at = share * (len(self.quantiles) - 1)
        low = min(int(at), len(self.quantiles) - 2)
        return torch.lerp(self.quantiles[low], self.quantiles[low + 1], at - low)


def scale(data: Data, modality: str) -> Scale:
    """Statistics of a modality of float values over at most 2,048 reference rows, evenly spaced; remembered.

    Raises:
        DataError: no reference row has the modality.
    """
    rows = data.reference
    found = _known.setdefault(rows, {})
    if modality not in found:
        found[modality] = _measure(rows, modality)
    return found[modality]


def _measure(data: Data, modality: str) -> Scale:
    here = data.present[:, data.schema.column(modality)].nonzero().flatten()
    if len(here) > MOST_ROWS:
        here = here[torch.linspace(0, len(here) - 1, MOST_ROWS).long()]
    columns: list[list[Tensor]] = []
    for batch in data.batches(256, here):
        x = batch.inputs[modality].double()
        x = x.unsqueeze(-1) if KINDS[data.schema[modality].kind].channel_axis is None else x
        there = batch.present[:, batch.names.index(modality)]  # a file may turn out unreadable
        seen = torch.isfinite(x) & there.view(-1, *[1] * (x.ndim - 1))
        mask = batch.mask.get(modality)
        if mask is not None:
            seen &= mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim)).expand_as(x)
        columns = columns or [[] for _ in range(x.shape[-1])]
        for channel, kept in enumerate(columns):
            kept.append(x[..., channel][seen[..., channel]])
    if not columns:
        raise DataError(f"{data.name}: no row has {modality!r}, so its scale is not known")
    values = [torch.cat(kept) for kept in columns]
    values = [v if len(v) else torch.zeros(1, dtype=torch.float64) for v in values]
    return Scale(
        torch.stack([v.mean() for v in values]),
        torch.stack([v.std(correction=0) for v in values]),
        torch.stack([_quantiles(v) for v in values], 1),
        len(here),
    )


def _quantiles(values: Tensor, most: int = 1_000_000) -> Tensor:
    few = values if len(values) <= most else values[:: -(-len(values) // most)]  # torch.quantile takes 16 M at most
    return torch.quantile(few, _QUANTILES)
