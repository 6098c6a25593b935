"""Faults of a sensor's time: gaps, stuck values, warped, stretched and shifted clocks."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.imperfect._runs import gilbert_elliott
from kintsugi.imperfect.corrupt._numbers import keep_unseen
from kintsugi.imperfect.corrupt.series._base import NI, Fault, blank, lengths, neighbours, read_at
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.spec import share


class _Timing(Fault):
    """Needs no units."""

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        return {}


@OPERATORS.register("dropout_bursts")
class DropoutBursts(_Timing):
    """Runs of steps go missing, of all channels at once since masks count steps: NaN, and False in the mask.

    A Gilbert-Elliott chain along time: ``rate`` is the expected share of lost steps, ``length`` the mean length of a run
    in steps (of runs that the ends of the row do not cut). The chain runs over all steps, those that were not seen
    before included. A row can lose everything, and its slot is then absent.
    """

    key = "dropout_bursts"
    title = "transmission gaps in bursts"
    source = (
        "chain: Gilbert, Bell System Technical Journal 1960, and Elliott, ibid. 1963; rates and lengths: proposed here, "
        "up to half of the steps, in runs that interpolation can bridge less and less"
    )
    parameters = {"default": levels(rate=(0.05, 0.1, 0.2, 0.35, 0.5), length=(4, 8, 8, 16, 16))}  # noqa: RUF012
    gaps = True
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        steps = x.shape[1]
        lost = gilbert_elliott(plan.uniform(index, steps), plan.parameters["rate"], plan.parameters["length"])
        gone = lost if mask is None else lost & mask.cpu()
        seen = ~gone.to(x.device) if mask is None else mask & ~gone.to(x.device)
        return blank(x, gone), seen


@OPERATORS.register("stuck_at")
class StuckAt(_Timing):
    """From a random time on, a channel repeats its value, for ``share`` of a row's steps (two steps at least).

    The steps are those up to the last seen one. channels: ``one``, drawn for each row, or ``all``, each from a time of
    its own. What repeats is the last value seen when it begins; where it begins with the row, the channel was stuck
    before, and its value is that of a random step.
    """

    key = "stuck_at"
    title = "a channel repeats its value"
    source = NI + "shares: proposed here, up to a sensor that is dead all along"
    parameters = {"default": levels(share=(0.05, 0.1, 0.25, 0.5, 1.0))}  # noqa: RUF012
    options = MappingProxyType({"channels": "one"})
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        share(f"{self.key}: share", values["share"])
        if values["channels"] not in ("one", "all"):
            raise ConfigError(f"{self.key}: channels must be 'one' or 'all', not {values['channels']!r}")
        return {}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        channels = x.shape[2]
        n = lengths(x, mask)[:, None]
        long = torch.minimum((n * plan.parameters["share"]).round().long().clamp(min=2), n)
        drawn = plan.uniforms(index, 2 * channels, "start").to(x.device)
        start = (drawn[:, :channels] * (n - long + 1)).long()
        time = torch.arange(x.shape[1], device=x.device)[None, :, None]
        inside = (time >= start[:, None]) & (time < (start + long)[:, None])
        if plan.parameters["channels"] == "one":
            one = (plan.uniforms(index, 1, "channel") * channels).long().to(x.device)
            inside = inside & (torch.arange(channels, device=x.device) == one)[:, None]
        source = torch.where(start > 0, start, (drawn[:, channels:] * n).long()).clamp(max=x.shape[1] - 1)
        source = source if mask is None else neighbours(mask)[0].gather(1, source)
        return keep_unseen(torch.where(inside, x.gather(1, source[:, None]), x), x, mask), mask


@OPERATORS.register("time_warp")
class TimeWarp(_Timing):
    """Time runs faster and slower, smoothly: the speed is ``1 + warp · sin(2π k t / end + φ)``, within ``1 ± warp``.

    φ and k (1, 2 or 3 whole periods, so that a row's first and last seen steps stay where they are) are drawn for each
    row; all channels share its clock. The mask stays; a time within a gap is read between the seen steps around it.
    """

    key = "time_warp"
    title = "time runs faster and slower"
    source = (
        "definition and levels: proposed here; published warps draw knots of a speed curve, whose range then varies"
    )
    parameters = {"default": levels(warp=(0.05, 0.1, 0.2, 0.3, 0.4))}  # noqa: RUF012
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        if not 0 <= values["warp"] < 1:
            raise ConfigError(f"{self.key}: warp must be from 0 to below 1 (time never turns), not {values['warp']!r}")
        return {}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        drawn = plan.uniforms(index, 2).to(x.device, torch.float32)
        turn = 2 * math.pi * (1 + (3 * drawn[:, :1]).floor())
        phase = 2 * math.pi * drawn[:, 1:]
        end = (lengths(x, mask) - 1).clamp(min=1)[:, None]
        time = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        ahead = torch.cos(phase) - torch.cos(turn * time / end + phase)
        at = time + ahead * (plan.parameters["warp"] * end / turn)
        at = torch.minimum(at.clamp_(min=0), end)
        return keep_unseen(read_at(x, at, mask), x, mask), mask


@OPERATORS.register("rate_mismatch")
class RateMismatch(_Timing):
    """The sensor samples ``1 / ratio`` times as often as is believed: step ``t`` holds what belongs to ``ratio · t``.

    The length stays, so the last ``1 - ratio`` of the content is lost and the rest is stretched. Linear between steps;
    the mask stays, and a time within a gap is read between the seen steps around it.
    """

    key = "rate_mismatch"
    title = "sampled at another rate than is believed"
    source = "definition and ratios: proposed here, up to twice the nominal rate"
    parameters = {"default": levels(ratio=(0.95, 0.9, 0.8, 0.65, 0.5))}  # noqa: RUF012
    random = False
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        if not 0 < values["ratio"] <= 1:
            raise ConfigError(f"{self.key}: ratio must be above 0 and at most 1, not {values['ratio']!r}")
        return {}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        at = plan.parameters["ratio"] * torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        return keep_unseen(read_at(x, at.expand(len(x), -1), mask), x, mask), mask


@OPERATORS.register("clock_offset")
class ClockOffset(_Timing):
    """A group of channels is early or late by ``share`` of a row's steps (those up to the last seen one).

    The group, drawn for each row, is half of the channels, rounded up, and so is the direction. A step's fraction is
    read between steps. Where nothing is known the first or last value repeats: a mask counts steps, so it cannot say
    that half of the channels of a step are missing. The mask stays.
    """

    key = "clock_offset"
    title = "a group of channels is early or late"
    source = "definition and shares: proposed here, doubling up to a sixth of the window"
    parameters = {"default": levels(share=(0.01, 0.02, 0.04, 0.08, 0.16))}  # noqa: RUF012
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        share(f"{self.key}: share", values["share"])
        return {}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        channels = x.shape[2]
        late = torch.where(plan.uniforms(index, 1, "direction") < 0.5, -1.0, 1.0).to(x.device)
        order = plan.uniforms(index, channels, "group").argsort(1).argsort(1)
        group = (order < (channels + 1) // 2).to(x.device)[:, None]
        n = lengths(x, mask)[:, None]
        time = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        at = (time - late.float() * plan.parameters["share"] * n).clamp_(0, x.shape[1] - 1)
        return keep_unseen(torch.where(group, read_at(x, at, mask), x), x, mask), mask
