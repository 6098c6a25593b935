"""Labels that go missing: at random, by class, or depending on what the row holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect import _scores
from kintsugi.imperfect._exact import Floats, check_reach, logit, lowest
from kintsugi.imperfect.mechanism import MECHANISMS, LabelMechanism, number, said
from kintsugi.imperfect.seeds import stable_key, uniforms
from kintsugi.imperfect.spec import share

if TYPE_CHECKING:
    from kintsugi.core.data import Data


@dataclass(frozen=True)
class Labels(LabelMechanism):
    """See :func:`labels`."""

    rate: float
    by: str | None = None
    only_complete: bool = False
    strength: float = 2.0

    def labels(self, data: Data, seed: int) -> Tensor:
        if data.target is None:
            raise ConfigError(f"{self}: {data.name} has no labels that could go missing")
        there = data.target_present.numpy()
        free = there & data.present.numpy().all(1) if self.only_complete else there
        drawn = uniforms(stable_key("labels", seed), data.index, 1)[:, 0]
        if self.by == "each_class":
            return torch.from_numpy(~self._each(data, drawn, there, free))
        count = round(self.rate * int(there.sum()))
        self._check(count, int(free.sum()), int(there.sum()))
        return torch.from_numpy(~lowest(logit(drawn) - self.strength * self._scores(data), free, count))

    def _each(self, data: Data, drawn: Floats, there: np.ndarray, free: np.ndarray) -> np.ndarray:
        if data.target is None or data.target.ndim != 1 or data.target.is_floating_point():
            raise ConfigError(f"{self}: this task has no classes")
        hidden = np.zeros_like(there)
        classes = data.target.numpy()
        for label in np.unique(classes[there]):
            mine = there & (classes == label)
            count = round(self.rate * int(mine.sum()))
            self._check(count, int((mine & free).sum()), int(mine.sum()))
            hidden |= lowest(drawn, mine & free, count)
        return hidden

    def _check(self, count: int, free: int, observed: int) -> None:
        check_reach(
            self, count, free, observed, "its labels when rows with holes keep theirs",
            "ask for less, or for only_complete=False",
        )  # fmt: skip

    def _scores(self, data: Data) -> Floats:
        if self.by is None:
            return np.zeros(len(data))
        if self.by == "class":
            return _scores.standardised(_scores.label_score(data))
        return _scores.driver(data, self.by)[0]

    def asked(self, data: Data) -> float:
        return self.rate

    def __str__(self) -> str:
        return said(
            "labels", self.rate, by=(self.by, None),
            only_complete=(self.only_complete, False), strength=(self.strength, 2.0),
        )  # fmt: skip


@MECHANISMS.register("labels")
def labels(rate: float, by: str | None = None, only_complete: bool = False, strength: float = 2.0) -> LabelMechanism:
    """Labels go missing; the inputs stay. A hidden label reads 0 in every batch, like one that never was.

    Args:
        rate: share of the labels; exact to the nearest one.
        by: None: completely at random. ``each_class``: the rate holds within each class. ``class``: depending on the label
            itself: classes late in the order lose more (of regression: high values; of several labels: many). Else
            depending on the inputs: a modality, ``"tab.3"`` or ``"context.site"``, as in
            :func:`~kintsugi.imperfect.mechanisms.dependent.mar`.
        only_complete: only rows that have every modality lose their label.
        strength: change of the log-odds by one standard deviation of what decides; proposed here, as there.

    Raises:
        ConfigError: the rate is no share; on planning: it cannot be reached (the message names the largest that can), or
            there are no labels or no classes.
    """
    if by is not None and (not isinstance(by, str) or not by):
        raise ConfigError(f"labels go missing by 'class', 'each_class', or what decides, not by {by!r}")
    return Labels(
        share("the rate of labels", rate), by, bool(only_complete), number("the strength of labels", strength)
    )
