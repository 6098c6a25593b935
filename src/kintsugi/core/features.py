"""What encoders make of a batch. Vectors, sequences and maps are all a :class:`Stream`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from kintsugi.core.schema import StreamSpec


@dataclass
class Stream:
    """Tokens ``[B, T, D]`` with their mask ``[B, T]``.

    A map is tokens with a ``grid``; ``finer``: maps ``[B, C, *grid]``, fine to coarse.
    """

    tokens: Tensor
    mask: Tensor
    grid: tuple[int, ...] | None = None
    finer: tuple[Tensor, ...] = ()

    @classmethod
    def vector(cls, x: Tensor) -> Stream:
        """One token a row, from ``[B, D]``."""
        return cls(x[:, None], torch.ones(len(x), 1, dtype=torch.bool, device=x.device))

    @property
    def spec(self) -> StreamSpec:
        return StreamSpec(self.tokens.shape[-1], self.grid, tuple((f.shape[1], tuple(f.shape[2:])) for f in self.finer))

    def pooled(self) -> Tensor:
        """Mean over the tokens that exist: ``[B, D]``, zeros where none does."""
        if self.tokens.shape[1] == 1:
            return self.tokens[:, 0] * self.mask.to(self.tokens.dtype)
        weight = self.mask.to(self.tokens.dtype)[..., None]
        return (self.tokens * weight).sum(1) / weight.sum(1).clamp(min=1)

    def where(self, rows: Tensor) -> Stream:
        """Zero in the rows ``~rows`` (bool ``[B]``), finer maps too."""
        keep = rows[:, None, None]
        return replace(
            self,
            tokens=torch.where(keep, self.tokens, 0),
            mask=self.mask & rows[:, None],
            finer=tuple(torch.where(rows.view(-1, *[1] * (f.ndim - 1)), f, 0) for f in self.finer),
        )

    def rows(self, keep: Tensor) -> Stream:
        """Some rows."""
        return replace(self, tokens=self.tokens[keep], mask=self.mask[keep], finer=tuple(f[keep] for f in self.finer))


class TokenSequence(NamedTuple):
    """Tokens ``[B, T, D]``, mask bool ``[B, T]``, and the column of the modality of each: int ``[T]``."""

    tokens: Tensor
    mask: Tensor
    modality: Tensor


@dataclass
class Features:
    """One stream for each modality, and which are present. The streams of absent slots are zero, finer maps too.

    identity: of the rows, as in :class:`~kintsugi.core.batch.Batch`; None where nobody asked.
    """

    streams: dict[str, Stream]
    present: Tensor
    identity: Tensor | None = None

    def where(self, keep: Tensor) -> Features:
        """Encode once, look at many views: ``keep`` is bool ``[B, M]`` or ``[M]``."""
        present = self.present & keep
        streams = {name: s.where(present[:, i]) for i, (name, s) in enumerate(self.streams.items())}
        return Features(streams, present, self.identity)

    def replace(self, streams: Mapping[str, Stream] | None = None, present: Tensor | None = None) -> Features:
        """The same with other streams; ``present`` only where a method vouches for what it filled in."""
        merged = {**self.streams, **(streams or {})}
        return Features(merged, self.present if present is None else present, self.identity)

    def rows(self, keep: Tensor) -> Features:
        """Some rows."""
        identity = None if self.identity is None else self.identity[keep]
        return Features({name: s.rows(keep) for name, s in self.streams.items()}, self.present[keep], identity)

    def tokens(self) -> TokenSequence:
        """All tokens in one sequence."""
        streams = list(self.streams.values())
        kinds = torch.cat([torch.full((s.mask.shape[1],), i) for i, s in enumerate(streams)])
        return TokenSequence(
            torch.cat([s.tokens for s in streams], 1),
            torch.cat([s.mask for s in streams], 1),
            kinds.to(self.present.device),
        )

    def pooled(self) -> Tensor:
        """One vector a modality: ``[B, M, D]``; zeros where absent."""
        return torch.stack([s.pooled() for s in self.streams.values()], 1)

    def flat(self) -> Tensor:
        """The pooled vectors side by side: ``[B, M * D]``."""
        return self.pooled().flatten(1)


@dataclass
class Fused(Stream):
    """What fusion leaves: a stream again, and the weights it gave to modalities ``[B, M]`` where it has such."""

    weights: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def vector(cls, x: Tensor, weights: Tensor | None = None, extras: Mapping[str, Any] | None = None) -> Fused:
        """One token for each row, from ``[B, D]``."""
        return cls(
            x[:, None],
            torch.ones(len(x), 1, dtype=torch.bool, device=x.device),
            weights=weights,
            extras=dict(extras or {}),
        )

    def where(self, rows: Tensor) -> Fused:
        """Zero in the rows ``~rows`` (bool ``[B]``), weights too."""
        weights = None if self.weights is None else torch.where(rows[:, None], self.weights, 0)
        return replace(cast("Fused", super().where(rows)), weights=weights)

    def rows(self, keep: Tensor) -> Fused:
        """Some rows, with their weights; what a file handed to itself in ``extras`` stays whole."""
        weights = None if self.weights is None else self.weights[keep]
        return replace(cast("Fused", super().rows(keep)), weights=weights)
