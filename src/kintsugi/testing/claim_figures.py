"""How firmly the claims of a method hold: every figure over several seeds, beside its bound, and what the ablation has."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kintsugi.core.component import Component
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS
from kintsugi.io.files import replace_file
from kintsugi.testing.holding import hold
from kintsugi.testing.promises_of_training import stated
from kintsugi.testing.shelf import SHELF
from kintsugi.testing.style_tools import checkout

FIRM = 3.0  # spreads that a margin has to have, so that a claim does not hold by the luck of a seed
SEEDS = 5
FOLDER = Path("docs/claims")  # in the source checkout


@dataclass(frozen=True)
class Measured:
    """One claim over several seeds.

    claim: its name. bound: in words. figures: one a seed. margin: mean distance of the figures from the bound, on its good
    side above 0. spread: their standard deviation over seeds (n - 1 in the denominator); 0 for figures that never vary.
    on_ablation: mean figure of the ablation; None: the claim is not stated there. fails_on_ablation: with every seed.
    named: by the card, as one that the ablation must fail.
    """

    claim: str
    bound: str
    figures: tuple[float, ...]
    margin: float
    spread: float
    on_ablation: float | None
    fails_on_ablation: bool
    named: bool

    @property
    def figure(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.figures)

    @property
    def firmness(self) -> float:
        """The margin in spreads; infinite where the figure never varies and the bound is kept."""
        if self.spread > 0:
            return self.margin / self.spread
        return float("inf") if self.margin >= 0 else float("-inf")

    @property
    def fault(self) -> str | None:
        """What is wrong, in words."""
        if self.margin < 0:
            return f"claim {self.claim!r} fails: {self.figure:.4g} on average, {self.bound}"
        if self.firmness < FIRM:
            return (
                f"claim {self.claim!r} holds by luck: its margin {self.margin:.3g} is {self.firmness:.1f} times its spread "
                f"{self.spread:.3g} over {len(self.figures)} seeds, and {FIRM:g} times is wanted"
            )
        if self.named and not self.fails_on_ablation:
            return f"claim {self.claim!r}: with some seed the ablation keeps it, or does not state it"
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to six digits so that a file changes only where a figure does."""
        return {name: _rounded(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Measured:
        """The way back."""
        return cls(**{**saved, "figures": tuple(saved["figures"])})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [_rounded(each) for each in value] if isinstance(value, tuple) else value


def measure_claims(
    cls: type[Component], seeds: int = SEEDS, watch: Callable[[int, bool], None] | None = None
) -> list[Measured]:
    """Every claim of a method with seeds 0, 1, …, on the method and on its ablation.

    Args:
        cls: the method. seeds: how many, at least two.
        watch: called with a seed, and whether the ablation is next, before each measurement.

    Raises:
        ConfigError: fewer than two seeds, of which there is no spread.
        AssertionError: the claims cannot be stated, or are others with another seed.
    """
    if seeds < 2:
        raise ConfigError(f"the spread of a figure needs two seeds or more, not {seeds}")
    on: list[dict[str, Any]] = []
    without: list[dict[str, Any]] = []  # the mechanism
    for seed in range(seeds):
        for ablated, found in ((False, on), (True, without)):
            if watch is not None:
                watch(seed, ablated)
            found.append(stated(cls, ablated, seed))
        SHELF.clear()  # trainings of one seed serve no other
    first = on[0]
    for seed, claims in enumerate(on):
        changed = sorted(claims.keys() ^ first.keys())
        hold(not changed, f"with seed {seed} other claims are stated than with seed 0: {', '.join(map(repr, changed))}")
    for name in cls.card.claims:
        hold(name in first, f"the card names the claim {name!r}, and the method states {', '.join(map(repr, first))}")
    return [_measured(cls, name, [c[name] for c in on], [c.get(name) for c in without]) for name in first]


def _measured(cls: type[Component], name: str, on: Sequence[Any], without: Sequence[Any]) -> Measured:
    figures = tuple(float(claim.figure) for claim in on)
    ablated = [claim for claim in without if claim is not None]
    return Measured(
        claim=name,
        bound=on[0].bound,
        figures=figures,
        margin=statistics.fmean(claim.margin for claim in on),
        spread=statistics.stdev(figures),
        on_ablation=statistics.fmean(float(claim.figure) for claim in ablated) if ablated else None,
        fails_on_ablation=len(ablated) == len(on) and not any(claim.holds for claim in ablated),
        named=name in cls.card.claims,
    )


# shown and kept ---------------------------------------------------------------------------------------------------------
COLUMNS = ("claim", "figure", "bound", "margin", "spread", "margin/spread", "on the ablation")


def rows_of(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """What is shown of each claim, under ``COLUMNS``; a star stands before the claims that the card names."""
    return [
        (
            ("* " if m.named else "  ") + m.claim,
            f"{m.figure:.4g}",
            m.bound,
            f"{m.margin:.3g}",
            f"{m.spread:.2g}",
            "exact" if m.spread == 0 else f"{m.firmness:.1f}",
            "not stated" if m.on_ablation is None else f"{m.on_ablation:.4g}",
        )
        for m in measured
    ]


def record_file(key: str) -> Path:
    """Where the figures of a method are kept: ``docs/claims`` of the source checkout, or beside the file of a plugin.

    Raises:
        ConfigError: there is no checkout, or the method stands in no file.
    """
    text = METHODS.entries.get(key)
    if text is None:
        raise ConfigError(f"{key} stands in no file, so there is no place for its figures; write it to a file")
    if not text.file.is_relative_to(METHODS.home):
        return text.file.with_name(f"{key}.claims.json")
    folder = checkout()
    if folder is None:
        raise ConfigError("kintsugi is installed as a package here; figures of its methods are kept in its checkout")
    return folder / FOLDER / f"{key}.json"


def record(key: str, measured: Sequence[Measured]) -> Path:
    """Keep the figures of a method; the file changes in one move.

    Raises:
        ConfigError: as :func:`record_file`.
    """
    file = record_file(key)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"method": key, "version": METHODS.card(key).version, "claims": [m.to_json() for m in measured]}
    replace_file(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return file


def recorded(key: str) -> list[Measured] | None:
    """The figures that are kept of a method; None: there are none."""
    file = record_file(key)
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    return [Measured.from_json(each) for each in content["claims"]]
