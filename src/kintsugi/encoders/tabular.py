"""Tables: one token a cell, or one vector where there are many cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import MOST
from kintsugi.layers.streams import Block


def cell_kinds(modality: Modality) -> tuple[int, ...]:
    """Number of categories of each cell, 0 for a number."""
    cells = modality.shape[0]
    if cells is None:
        raise ConfigError(f"modality {modality.name!r}: the number of cells must be known")
    kinds = modality.categories or (0,) * cells
    if len(kinds) != cells:
        raise ConfigError(f"modality {modality.name!r} has {cells} cells but categories for {len(kinds)}")
    return kinds


def seen_cells(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The table with zeros in unseen cells, which may hold NaN, and the mask ``[R, cells]``."""
    if mask is None:
        mask = torch.ones_like(x, dtype=torch.bool)
    return torch.where(mask, x, 0), mask


class Codes(nn.Module):
    """Embeddings of all categorical cells, from one table: ``[R, cells] -> [R, categorical cells, width]``."""

    offset: Tensor
    most: Tensor
    cell: Tensor

    def __init__(self, kinds: tuple[int, ...], width: int) -> None:
        super().__init__()
        cell = [i for i, n in enumerate(kinds) if n]
        most = torch.tensor([kinds[i] for i in cell], dtype=torch.int64)
        offset = torch.cumsum(most + 1, 0) - most - 1
        self.register_buffer("cell", torch.tensor(cell, dtype=torch.int64), persistent=False)
        self.register_buffer("most", most, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.table = nn.Embedding(int((most + 1).sum()), width)
        with torch.no_grad():  # code 0 never occurs in training: it should say nothing, not something random
            self.table.weight[offset] = 0

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        codes = x[:, self.cell].round().long()
        out: Tensor = self.table(torch.minimum(codes.clamp(min=0), self.most) + self.offset)
        return out


class Cells(nn.Module):
    """One token a cell: ``value * weight + bias`` of a number, an embedding of a category, a token "unseen" of its own.

    The feature tokenizer of the FT-Transformer (Gorishniy et al., NeurIPS 2021), and one of its blocks, so
    that cells can interact. ``[R, cells]`` -> ``[R, cells, dim]``.
    """

    number: Tensor

    def __init__(self, kinds: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.register_buffer("number", torch.tensor([n == 0 for n in kinds]), persistent=False)
        if not all(kinds):
            self.weight = nn.Parameter(torch.randn(sum(n == 0 for n in kinds), dim) * 0.5)
        if any(kinds):
            self.codes = Codes(kinds, dim)
        self.bias = nn.Parameter(torch.randn(len(kinds), dim) * 0.5)
        self.unseen = nn.Parameter(torch.randn(len(kinds), dim) * 0.5)
        self.block = Block(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x ``[R, cells]``, zero where unseen; mask bool ``[R, cells]``."""
        parts = []
        if not all(self.kinds):
            parts.append(x[:, self.number, None] * self.weight)
        if any(self.kinds):
            parts.append(self.codes(x))
        order = torch.cat([self.number.nonzero().flatten(), (~self.number).nonzero().flatten()]).argsort()
        tokens = torch.cat(parts, 1)[:, order] + self.bias
        tokens = torch.where(mask[..., None], tokens, self.unseen)
        out: Tensor = self.block(tokens, torch.ones_like(mask))
        return out


class Wide(nn.Module):
    """One vector for a table of many cells: ``[R, cells]`` -> ``[R, 1, dim]``.

    An MLP over the values (zero where unseen), the flags of what was seen, and the embeddings of the categories.
    """

    number: Tensor

    def __init__(self, kinds: tuple[int, ...], dim: int, width: int = 8) -> None:
        super().__init__()
        self.register_buffer("number", torch.tensor([n == 0 for n in kinds]), persistent=False)
        self.register_buffer("category", ~self.number, persistent=False)
        self.codes = Codes(kinds, width) if any(kinds) else None
        inputs = sum(n == 0 for n in kinds) + len(kinds) + width * sum(n > 0 for n in kinds)
        self.mlp = nn.Sequential(nn.Linear(inputs, 4 * dim), nn.GELU(), nn.LayerNorm(4 * dim), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x ``[R, cells]``, zero where unseen; mask bool ``[R, cells]``."""
        parts = [x[:, self.number], mask.to(x.dtype)]
        if self.codes is not None:
            seen = mask[:, self.codes.cell, None]
            parts.append(torch.where(seen, self.codes(x), 0).flatten(1))
        out: Tensor = self.mlp(torch.cat(parts, 1))[:, None]
        return out


@ENCODERS.register("tabular")
class TabularEncoder(Encoder):
    """A token for each cell of up to 16 (:class:`Cells`), or one vector for all of them (:class:`Wide`).

    x: float ``[R, cells]``, numbers standardised, categories as codes 0 to n; mask: bool ``[R, cells]``, False where
    the cell was not seen (it may then hold NaN). The mask of the tokens is True throughout: that a cell is unseen is
    information, and its token says so.
    """

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        kinds = cell_kinds(modality)
        self.cells = Cells(kinds, dim) if len(kinds) <= MOST else Wide(kinds, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        tokens = self.norm(self.cells(*seen_cells(x, mask)))
        return Stream(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device))
