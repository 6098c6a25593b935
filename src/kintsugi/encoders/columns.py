"""Any modality as columns of one table, each cell with a word on whether it was seen; without parameters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kintsugi.core.encoder import Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders.lowlevel import LOWLEVEL, Steps, lowlevel
from kintsugi.encoders.tabular import cell_kinds, seen_cells


class Columns(Encoder):
    """``forward(x, mask)``: one token ``[R, 1, 2 C]``: C values, zero where unseen, then 1 for each that was seen, else 0.

    A stream of a row without the modality is zero, so nothing of it counts as seen. Vectors are columns as they are, tables
    give a column a number and one a category, series a column a channel and step (averaged to at most 16 steps), images,
    audio and text their low-level features, which are always seen.

    Args:
        modality: which one; ``columns`` says how many columns it gives.

    Raises:
        ConfigError: a kind without low-level features, such as video.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        if modality.kind not in LOWLEVEL:
            raise ConfigError(
                f"modality {modality.name!r}: {modality.kind} cannot be read as columns of a table, only "
                f"{', '.join(sorted(LOWLEVEL))} can; give it as a vector of features, leave it out, or choose another method"
            )
        self.kind = modality.kind
        self.cells = cell_kinds(modality) if self.kind == "tabular" else ()
        self.read = lowlevel(modality)
        self.columns = sum(n or 1 for n in self.cells) if self.cells else self.read.features

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        if self.cells:
            values, seen = self._table(x, mask)
        elif isinstance(self.read, Steps):
            means, there = self.read.pooled(x, mask)
            values, seen = means.flatten(1), there.repeat_interleave(means.shape[2], 1)
        else:
            values = self.read(x, mask)
            seen = torch.ones_like(values, dtype=torch.bool)
            if mask is not None and self.kind == "vector":
                seen = mask
        return Stream.vector(torch.cat([values, seen.to(values.dtype)], 1))

    def _table(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        x, mask = seen_cells(x, mask)
        values, seen = [], []
        for i, categories in enumerate(self.cells):
            value = x[:, i, None]
            if categories:  # code 0, never seen in training, is none of the columns
                value = functional.one_hot(x[:, i].round().long().clamp(0, categories), categories + 1)[:, 1:]
            values.append(value.to(x.dtype) * mask[:, i, None])
            seen.append(mask[:, i, None].expand_as(value))
        return torch.cat(values, 1), torch.cat(seen, 1)
