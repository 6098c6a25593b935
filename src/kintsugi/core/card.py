"""What a method says of itself; documentation, tests and leaderboard are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kintsugi.core.errors import ConfigError

Cost = Literal["low", "medium", "high"]
LEAVES = (
    "general",
    "missing/generative", "missing/alignment", "missing/co_learning", "missing/distillation",
    "missing/modular", "missing/selective_fusion", "missing/attention", "missing/prompt", "missing/hybrid",
    "corrupted/denoising", "corrupted/recovery", "corrupted/detection", "corrupted/noise_aware",
    "corrupted/confidence", "corrupted/robust_fusion", "corrupted/augmentation", "corrupted/adversarial",
)  # fmt: skip


@dataclass(frozen=True)
class Card:
    """The card of one method.

    key: slug, the name of its file and of ``create``; name, paper, venue: as published; leaf: place in the taxonomy.
    faithful: what of the paper's essence is here; simplified: what is not, and why.
    defaults_from: source of the default values; check: the property that its mechanism test asserts.
    imperfection: which imperfections it is meant to survive; tasks: task keys; modalities: least and most.
    sees_hidden: it may be trained on what a simulator hid; joint: it models interactions between modalities;
    reference: its answer at test time reads stored training rows; gradient: it is trained by descent.
    """

    key: str
    name: str
    paper: str
    venue: str
    leaf: str
    faithful: tuple[str, ...]
    simplified: tuple[str, ...]
    defaults_from: str
    check: str
    imperfection: frozenset[str]
    tasks: frozenset[str]
    entry: str = "method"
    modalities: tuple[int, int | None] = (2, None)
    sees_hidden: bool = False
    joint: bool = True
    reference: bool = False
    gradient: bool = True
    cost: Cost = "low"

    def __post_init__(self) -> None:
        if self.leaf not in LEAVES:
            raise ConfigError(f"card {self.key!r}: unknown leaf {self.leaf!r}; known: {', '.join(LEAVES)}")
        if self.entry not in ("method", "protocol", "attack", "adapter"):
            raise ConfigError(f"card {self.key!r}: unknown entry {self.entry!r}")
        for name in ("key", "name", "paper", "venue", "faithful", "defaults_from", "check", "imperfection", "tasks"):
            if not getattr(self, name):
                raise ConfigError(f"card {self.key or '?'!r}: {name} is empty")
