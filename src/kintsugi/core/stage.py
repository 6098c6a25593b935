"""The training section of a paper, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Generator, Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.retired import renamed_arguments, renamed_attributes

ROWS = ("all", "complete", "incomplete", "labelled", "unlabelled", "trusted")
TABLES = ("train", "val", "auxiliary")


class View(Protocol):
    """What is kept of a batch in one step: ``(batch, generator) -> bool [B, M]``, drawn from what is present."""

    def __call__(self, batch: Batch, generator: Generator) -> Tensor: ...


@renamed_attributes(share="fraction", side="auxiliary")
@renamed_arguments(share="fraction", train="trainable", side="auxiliary")
@dataclass(frozen=True)
class Stage:
    """One phase of training.

    fraction: of the component's budget, of epochs or updates, normalised within the component.
    trainable: glob patterns of the component's parameter names that move; a pattern that matches nothing is an error.
    view: ``natural`` (all that is observed), ``subsets`` (any non-empty part of it), ``proper`` (likewise, never all
    of it where there are two), or a :class:`View`; what it drops stays in ``truth``.
    rows: all, complete, incomplete, labelled, unlabelled, trusted or ``has:<modality>``, of the training rows; of another
    table with its name before a slash: ``auxiliary/unlabelled``, ``val/all`` (for short ``val``).
    auxiliary: a second batch of such rows, same size, own seeded sampler, in ``batch.auxiliary``; none available is an
    error before training.
    solve: closed form: ``solve(features, batch)`` in place of descent.
    """

    name: str
    fraction: float = 1.0
    trainable: tuple[str, ...] = ("*",)
    view: str | View = "natural"
    rows: str = "all"
    auxiliary: str | None = None
    solve: bool = False

    def __post_init__(self) -> None:
        if self.fraction <= 0:
            raise ConfigError(f"stage {self.name!r}: fraction must be above 0, not {self.fraction}")
        for rows in (self.rows, self.auxiliary):
            if rows is not None:
                table, kind = table_and_rows(rows)
                if table not in TABLES or (kind not in ROWS and not kind.startswith("has:")):
                    raise ConfigError(
                        f"stage {self.name!r}: unknown rows {rows!r}; known: {', '.join(ROWS)}, has:<modality>, val, "
                        "auxiliary/<one of these>"
                    )


def table_and_rows(rows: str) -> tuple[str, str]:
    """``auxiliary/unlabelled`` -> auxiliary, unlabelled; without a slash it is the training table, and ``val`` is all of val."""
    if rows == "val":
        return "val", "all"
    table, slash, kind = rows.partition("/")
    return (table, kind) if slash and not table.startswith("has:") else ("train", rows)


@dataclass
class Clock:
    """Where training stands; after fit and load it reads the last stage.

    epoch: counts epochs of the stage, or rounds, where the budget is said in updates. progress: runs from 0 to 1 in a stage.
    passes: over the rows of the stage, that were begun before; the same as ``epoch`` where epochs count.
    """

    stage: str = ""
    epoch: int = 0
    progress: float = 0.0
    passes: int = 0
