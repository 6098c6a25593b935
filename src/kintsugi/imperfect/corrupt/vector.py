"""Corruptions of feature vectors: ``[R, D]``. They have no mask, so what is lost is filled as the operator says."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.imperfect.corrupt._numbers import channel, keep_unseen
from kintsugi.imperfect.operator import OPERATORS, Operator, levels
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.scales import scale
from kintsugi.imperfect.spec import share

_SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)
_AS_CELLS = "shares: proposed here, as of table cells"


class _Features(Operator):
    """Looks at each feature's mean and standard deviation over the reference rows."""

    kind = "vector"

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        if "share" in values:
            share(f"{self.key}: share", values["share"])
        found = scale(data, modality.name)
        return {"mean": found.mean, "sd": found.sd}


class _Lost(_Features):
    """Features that carry no information any more, and nobody says so: an extractor that fails still gives numbers.

    Entries that are known to be missing are ``kg.missing.steps``.
    """

    options = MappingProxyType({"fill": "mean"})
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        if values["fill"] not in ("mean", "zero"):
            raise ConfigError(f"{self.key}: fill must be 'mean' or 'zero', not {values['fill']!r}")
        return super().look(data, modality, values, seed)

    def lose(self, x: Tensor, lost: Tensor, plan: Plan, mask: Tensor | None) -> Tensor:
        """``x`` with the mean (or zero) where ``lost``, bool ``[R, D]``."""
        mean = channel(plan, "mean", x)
        fill = torch.zeros_like(mean) if plan.parameters["fill"] == "zero" else mean
        return keep_unseen(torch.where(lost.to(x.device), fill, x), x, mask)


@OPERATORS.register("feature_noise")
class FeatureNoise(_Features):
    """``x + N(0, (k sd)²)``, independent for each feature; sd is that of the feature. One that never varies stays."""

    key = "feature_noise"
    title = "gaussian noise on features"
    source = "definition: additive gaussian noise; levels: proposed here, as of sensors"
    parameters = {"default": levels(k=(0.1, 0.2, 0.4, 0.7, 1.0))}  # noqa: RUF012
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        amount = channel(plan, "sd", x) * plan.parameters["k"]
        return keep_unseen(x + plan.normal(index, x.shape[1]).to(x) * amount, x, mask), mask


@OPERATORS.register("feature_dropout")
class FeatureDropout(_Lost):
    """Each feature is lost with a chance of ``share``, independently.

    fill: ``mean``, the feature's mean over the reference rows, which says nothing about the row; or ``zero``, which is
    the same for standardised features, and else a value like any other. The mask does not tell of it, since an extractor
    that fails still gives numbers; entries that are known to be missing are :func:`kintsugi.imperfect.mechanisms.steps.steps`.
    """

    key = "feature_dropout"
    title = "single features are lost"
    source = f"definition: values missing completely at random; {_AS_CELLS}"
    parameters = {"default": levels(share=_SHARES)}  # noqa: RUF012

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        lost = plan.uniforms(index, x.shape[1]) < plan.parameters["share"]
        return self.lose(x, lost, plan, mask), mask


@OPERATORS.register("feature_block_dropout")
class FeatureBlockDropout(_Lost):
    """A run of neighbouring features is lost: ``share`` of them, rounded, one at least; its place is drawn for each row.

    fill: as of ``feature_dropout``. As when a stage of an extractor fails. Every place in which the whole run fits is as
    likely.
    """

    key = "feature_block_dropout"
    title = "a run of neighbouring features is lost"
    source = f"definition: one contiguous block; {_AS_CELLS}"
    parameters = {"default": levels(share=_SHARES)}  # noqa: RUF012

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        features = x.shape[1]
        long = min(max(1, round(plan.parameters["share"] * features)), features)
        start = (plan.uniforms(index) * (features - long + 1)).long()
        at = torch.arange(features)
        return self.lose(x, (at >= start) & (at < start + long), plan, mask), mask


@OPERATORS.register("feature_permutation")
class FeaturePermutation(_Features):
    """A share of a row's features exchange their values among themselves, so that none keeps its place.

    Which, and in which order they pass their values on (one cycle), is drawn for each row. Their number is rounded up
    or down at random, and a share of less than two features comes out as two in some of the rows, so that the expected
    share is the one asked for. Values go as they are, not in units of their new place. What a mask hides takes no part.
    """

    key = "feature_permutation"
    title = "features exchange their values"
    source = f"definition: a cyclic permutation of a random subset; {_AS_CELLS}"
    parameters = {"default": levels(share=_SHARES)}  # noqa: RUF012
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        rows, features = x.shape
        drawn = plan.uniforms(index, features)
        there = torch.full((rows, 1), features) if mask is None else mask.sum(1, keepdim=True).cpu()
        drawn = drawn if mask is None else drawn.masked_fill(~mask.cpu(), 2.0)
        wanted, spare = there * plan.parameters["share"], 1 - plan.uniforms(index, stream="many")
        many = torch.where(wanted < 2, 2.0 * (1 - spare < wanted / 2), (wanted + spare).floor())
        many = torch.where(there < 2, 0, torch.minimum(many, there))
        taken = drawn.argsort(1).argsort(1) < many
        # Sorted by other draws, those that take part stand first, in the order of the cycle.
        cycle = plan.uniforms(index, features, "cycle").masked_fill(~taken, 2.0).argsort(1)
        at = torch.arange(features)
        after = torch.where(at + 1 < many, at + 1, torch.where(at < many, 0, at))
        source = torch.empty_like(cycle).scatter_(1, cycle, cycle.gather(1, after.long()))
        return x.gather(1, source.to(x.device)), mask
