"""What a method says that it does, in figures that can fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kintsugi.core.errors import ConfigError

if TYPE_CHECKING:
    from kintsugi.core.fixture import Fixture


@dataclass(frozen=True)
class Claim:
    """One named claim: a figure, and the bound that it has to keep.

    name: a sentence; the card names those that the ablation must fail.
    figure: what was measured: a share, a ratio, a number of violations.
    at_least, at_most: the bound; one of the two.

    Raises:
        ConfigError: no bound, or both.
    """

    name: str
    figure: float
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ConfigError(f"claim {self.name!r}: say at_least or at_most, one of the two")

    @property
    def margin(self) -> float:
        """How far the figure is on the good side of its bound; below 0: the claim fails. NaN is as bad as can be."""
        if math.isnan(self.figure):
            return -math.inf
        return self.figure - self.at_least if self.at_least is not None else float(self.at_most or 0) - self.figure

    @property
    def holds(self) -> bool:
        return self.margin >= 0

    @property
    def bound(self) -> str:
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def __str__(self) -> str:
        return f"{self.name}: {self.figure:.4g} ({self.bound})"


Claims = Iterator[Claim]  # what a check gives: ``yield Claim(...)`` for each


def held(check: Callable[[Fixture], None], fixture: Fixture) -> float:
    """1 where a check passes, 0 where it asserts; for checks that are not figures yet."""
    try:
        check(fixture)
    except AssertionError:
        return 0.0
    return 1.0
