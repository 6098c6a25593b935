"""The training section of a paper, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Generator, Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError

ROWS = ("all", "complete", "incomplete", "labelled", "unlabelled", "trusted", "val")


class View(Protocol):
    """What is kept of a batch in one step: ``(batch, generator) -> bool [B, M]``, drawn from what is present."""

    def __call__(self, batch: Batch, generator: Generator) -> Tensor: ...


@dataclass(frozen=True)
class Stage:
    """One phase of training.

    share: of the part's epoch budget, normalised within the part.
    train: glob patterns of the part's parameter names that move; a pattern that matches nothing is an error.
    view: ``natural`` (all that is observed), ``subsets`` (any non-empty part of it), ``proper`` (likewise, never all
    of it where there are two), or a :class:`View`; what it drops stays in ``truth``.
    rows: all, complete, incomplete, labelled, unlabelled, trusted, ``has:<modality>``, or val.
    side: a second batch of such rows, same size, own seeded sampler; none available is an error before training.
    solve: closed form: ``solve(features, batch)`` in place of descent.
    """

    name: str
    share: float = 1.0
    train: tuple[str, ...] = ("*",)
    view: str | View = "natural"
    rows: str = "all"
    side: str | None = None
    solve: bool = False

    def __post_init__(self) -> None:
        if self.share <= 0:
            raise ConfigError(f"stage {self.name!r}: share must be above 0, not {self.share}")
        for rows in (self.rows, self.side):
            if rows is not None and rows not in ROWS and not rows.startswith("has:"):
                raise ConfigError(
                    f"stage {self.name!r}: unknown rows {rows!r}; known: {', '.join(ROWS)}, has:<modality>"
                )


@dataclass
class Clock:
    """Where training stands; after fit and load it reads the last stage. ``progress`` runs from 0 to 1 in a stage."""

    stage: str = ""
    epoch: int = 0
    progress: float = 0.0
