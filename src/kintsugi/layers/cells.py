"""Tables as token streams: a token a cell, an attention that sees no missing cell, and table tokens that look at others.

After the tabular encoder and the multimodal module of TIP (Du et al., "TIP: Tabular-image pre-training for multimodal
classification with incomplete data", ECCV 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError
from kintsugi.layers.streams import heads_for

SMALL = 0.02  # standard deviation at which all embeddings start in the authors' code


class CellTokens(nn.Module):
    """CLS and one token a cell: ``[B, N]`` and what was seen, bool ``[B, N]`` -> ``[B, 1 + N, D]``.

    A number is ``value * w + b``, with one w and b for all columns; a category is a row of one table of all categories of all
    columns; a missing cell is one learned vector, whatever is stored there. Then an embedding of the column (CLS has one
    too), then LayerNorm. As in the authors' code, but that column i has ``kinds[i] + 1`` codes: 0 is a category that
    training never showed, which starts at zero.

    Args:
        kinds: number of categories of each cell, 0 for a number.
        dim: D.
    """

    number: Tensor
    offset: Tensor
    codes: Tensor

    def __init__(self, kinds: Sequence[int], dim: int) -> None:
        super().__init__()
        if not kinds:
            raise ConfigError("a table needs one cell at least")
        codes = torch.tensor([n + 1 if n else 0 for n in kinds])
        self.register_buffer("number", codes == 0, persistent=False)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("offset", codes.cumsum(0) - codes, persistent=False)
        self.total = int(codes.sum())  # codes of all columns
        if bool(self.number.any()):
            self.value = nn.Linear(1, dim)
            nn.init.normal_(self.value.weight, std=SMALL)  # as large as the column's own: LayerNorm scales their sum
            nn.init.zeros_(self.value.bias)
        if self.total:
            self.category = nn.Embedding(self.total, dim)
            nn.init.normal_(self.category.weight, std=SMALL)
            with torch.no_grad():
                self.category.weight[self.offset[~self.number]] = 0
        self.missing = nn.Parameter(torch.randn(dim) * SMALL)
        self.cls = nn.Parameter(torch.randn(dim) * SMALL)
        self.column = nn.Parameter(torch.randn(1 + len(kinds), dim) * SMALL)
        self.norm = nn.LayerNorm(dim)

    def code(self, x: Tensor) -> Tensor:
        """Row of the table of categories that each cell of x ``[B, N]`` (finite) names: int64 ``[B, N]``, 0 for numbers."""
        most = (self.codes - 1).clamp(min=0)
        within = torch.minimum(x.round().long().clamp(min=0), most)
        return torch.where(self.number, 0, within + self.offset)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Shapes as in the class; unseen cells may hold NaN."""
        x = torch.where(seen, x, 0)
        tokens = self.missing.new_zeros(*x.shape, len(self.missing))
        if bool(self.number.any()):
            tokens = torch.where(self.number[:, None], self.value(x[..., None]), tokens)
        if self.total:
            tokens = torch.where(self.number[:, None], tokens, self.category(self.code(x)))
        tokens = torch.where(seen[..., None], tokens, self.missing)
        tokens = torch.cat([self.cls.expand(len(x), 1, -1), tokens], 1)
        out: Tensor = self.norm(tokens + self.column)
        return out


def cells_to_look_at(seen: Tensor) -> Tensor:
    """Which cell may look at which: seen, bool ``[B, T]`` -> bool ``[B, T, T]``, rows look, columns are looked at.

    A missing cell is looked at by nobody but itself; it looks at itself and all that was seen.
    """
    itself = torch.eye(seen.shape[1], dtype=torch.bool, device=seen.device)
    return seen[:, None] | itself


class MaskedAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., NeurIPS 2017) from one sequence to another, or to itself, under a mask.

    Queries, keys and values have no bias. A token that may look at nothing gets zeros.

    Args:
        dim: width of a token. heads: must divide ``dim``; None: :func:`~kintsugi.layers.streams.heads_for`.
    """

    def __init__(self, dim: int, heads: int | None = None) -> None:
        super().__init__()
        self.heads = heads_for(dim) if heads is None else heads
        if dim % self.heads:
            raise ConfigError(f"{self.heads} attention heads do not divide the width {dim}")
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, attend: Tensor | None = None) -> Tensor:
        """x ``[B, T, D]``, context ``[B, S, D]``, both finite -> ``[B, T, D]``.

        attend: bool ``[B, T, S]`` or ``[B, 1, S]``: which of the context each token may look at; None: all of it.
        """
        query, key, value = (
            self._split(f(y)) for f, y in ((self.query, x), (self.key, context), (self.value, context))
        )
        scores = query * (x.shape[2] // self.heads) ** -0.5 @ key.transpose(2, 3)
        if attend is None:
            return self._joined(scores.softmax(-1) @ value)
        some = attend.any(2, keepdim=True)  # softmax over nothing is NaN: such a token looks at all and is put to zero
        weights = scores.masked_fill(~(attend | ~some)[:, None], -torch.inf).softmax(-1)
        return torch.where(some, self._joined(weights @ value), 0)

    def _joined(self, heads: Tensor) -> Tensor:
        out: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(len(x), x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class CellBlock(nn.Module):
    """Pre-norm transformer block under a mask: ``x + attention(LN x)``, then ``x + mlp(LN x)``.

    Args:
        dim: width of a token. heads: must divide it. ratio: hidden width of the MLP in units of ``dim``.
    """

    def __init__(self, dim: int, heads: int | None = None, ratio: float = 2) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = MaskedAttention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        """x ``[B, T, D]``; attend bool ``[B, T, T]``, None: everywhere -> ``[B, T, D]``."""
        y = self.norm1(x)
        x = x + self.attention(y, y, attend)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class CrossBlock(nn.Module):
    """Pre-norm block of self-attention, a look at another sequence, and MLP, with a residual each.

    The other sequence is the same for every block: what looks at it changes, it does not.

    Args:
        dim: width of a token. heads: must divide it. ratio: hidden width of the MLP in units of ``dim``.
    """

    def __init__(self, dim: int, heads: int | None = None, ratio: float = 2) -> None:
        super().__init__()
        self.block = CellBlock(dim, heads, ratio)
        self.norm, self.cross = nn.LayerNorm(dim), MaskedAttention(dim, heads)

    def forward(self, x: Tensor, context: Tensor, visible: Tensor) -> Tensor:
        """x ``[B, T, D]``, context ``[B, S, D]``, visible bool ``[B, S]`` -> ``[B, T, D]``; all of x is visible to itself."""
        y = self.block.norm1(x)
        x = x + self.block.attention(y, y)
        x = x + self.cross(self.norm(x), context, visible[:, None])
        out: Tensor = x + self.block.mlp(self.block.norm2(x))
        return out
