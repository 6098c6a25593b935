"""Faults of a sensor's values: noise, bias, gain, drift, spikes, saturation, quantisation, wrong units."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.imperfect.corrupt._numbers import (
    affine,
    channel,
    keep_unseen,
    signs,
    unit_table,
    where_seen,
    wide,
)
from kintsugi.imperfect.corrupt.series._base import NI, Fault, lengths
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.scales import scale
from kintsugi.imperfect.spec import share

_STEPS = "levels: proposed here, from what is hardly seen in a plot to as much as the signal itself"


@OPERATORS.register("sensor_noise")
class SensorNoise(Fault):
    """``x + N(0, (k sd)²)``, independent for each channel of each seen step; sd is that of the channel.

    A constant channel (sd 0) stays as it is.
    """

    key = "sensor_noise"
    title = "gaussian noise of a sensor"
    source = NI + _STEPS
    parameters = {"default": levels(k=(0.1, 0.2, 0.4, 0.7, 1.0))}  # noqa: RUF012
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        flat, amount = wide(channel(plan, "sd", x) * plan.parameters["k"], x)
        noise = plan.normal(index, *x.shape[1:]).to(x)
        return flat.addcmul_(where_seen(noise, mask).flatten(1), amount).view_as(x), mask


@OPERATORS.register("bias")
class Bias(Fault):
    """A constant is added to each channel of a row: ``x ± k sd``, the sign drawn for each row and channel.

    A constant channel (sd 0) stays as it is.
    """

    key = "bias"
    title = "constant offset of each channel"
    source = NI + _STEPS
    parameters = {"default": levels(k=(0.25, 0.5, 1.0, 1.5, 2.0))}  # noqa: RUF012
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        amount = signs(plan, index, x.shape[2]).to(x) * channel(plan, "sd", x) * plan.parameters["k"]
        return x.add_(where_seen(amount[:, None], mask)), mask


@OPERATORS.register("gain_error")
class GainError(Fault):
    """Each channel of a row is multiplied by ``gain``, or divided by it: which, is drawn for each row and channel.

    About zero of the values as they are read, so for values that were standardised, about their mean.
    """

    key = "gain_error"
    title = "wrong gain of each channel"
    source = NI + "levels: proposed here, from a poor calibration (5 %) to twice or half"
    parameters = {"default": levels(gain=(1.05, 1.1, 1.25, 1.5, 2.0))}  # noqa: RUF012
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        if not values["gain"] > 0:
            raise ConfigError(f"{self.key}: the gain must be above 0, not {values['gain']!r}")
        return {}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        gain = plan.parameters["gain"] ** signs(plan, index, x.shape[2]).to(x)
        return keep_unseen(x * gain[:, None], x, mask), mask


@OPERATORS.register("drift")
class Drift(Fault):
    """An offset that grows from 0 at the first step to exactly ``± k sd`` at a row's last seen step.

    The sign is drawn for each row and channel. shape: ``linear``, or ``walk``: a random walk to the same end, which is
    the line plus a Brownian bridge of ``k sd`` (so that a walk of the same length would have that spread at its end).
    A row of one step gets all of it; a constant channel (sd 0) stays as it is.
    """

    key = "drift"
    title = "an offset that grows with time"
    source = NI + _STEPS
    parameters = {"default": levels(k=(0.25, 0.5, 1.0, 1.5, 2.5))}  # noqa: RUF012
    options = MappingProxyType({"shape": "linear"})
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        if values["shape"] not in ("linear", "walk"):
            raise ConfigError(f"{self.key}: shape must be 'linear' or 'walk', not {values['shape']!r}")
        return super().look(data, modality, values, seed)

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        _, steps, channels = x.shape
        end = channel(plan, "sd", x) * plan.parameters["k"]
        size = signs(plan, index, channels).to(x) * end
        last = (lengths(x, mask) - 1)[:, None]
        time = torch.arange(steps, device=x.device)
        ramp = torch.where(last > 0, (time / last.clamp(min=1)).clamp(max=1), 1.0).to(x)[..., None]
        x.addcmul_(size[:, None], where_seen(ramp, mask))
        if plan.parameters["shape"] == "walk":
            walk = plan.normal(index, steps, channels, stream="walk").to(x)
            walk[:, 0] = 0
            walk = walk.cumsum(1) / last.clamp(min=1).sqrt()[..., None]
            arrived = walk.gather(1, last.clamp(min=0)[..., None].expand(-1, -1, channels))
            x.addcmul_(where_seen(walk - ramp * arrived, mask), end)
        return x, mask


@OPERATORS.register("spikes")
class Spikes(Fault):
    """A share of the values, independent for each channel and step, gets ``± size`` standard deviations of its channel.

    A constant channel (sd 0) stays as it is.
    """

    key = "spikes"
    title = "single values far off"
    source = NI + "shares and sizes: proposed here, rarer and smaller to more and larger"
    parameters = {"default": levels(share=(0.005, 0.01, 0.02, 0.04, 0.08), size=(3.0, 4.0, 5.0, 6.0, 8.0))}  # noqa: RUF012
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        flat, size = wide(channel(plan, "sd", x) * plan.parameters["size"], x)
        drawn = plan.uniform(index, *x.shape[1:]).mul_(2).sub_(1).to(x)
        hit = torch.sign(drawn) * (drawn.abs() > 1 - plan.parameters["share"])
        return flat.addcmul_(where_seen(hit, mask).flatten(1), size).view_as(x), mask


@OPERATORS.register("saturation")
class Saturation(Fault):
    """Values are clipped at the quantiles ``1 - q`` and ``q`` of their channel over the reference rows."""

    key = "saturation"
    title = "values clipped at both ends of the range"
    source = NI + "quantiles: proposed here, from 4 % to 70 % of the values clipped"
    parameters = {"default": levels(q=(0.98, 0.95, 0.9, 0.8, 0.65))}  # noqa: RUF012
    random = False
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        q = values["q"]
        if not 0.5 <= q <= 1:
            raise ConfigError(f"{self.key}: q must be a quantile from 0.5 to 1, not {q!r}")
        found = scale(data, modality.name)
        return {"low": found.quantile(1 - q), "high": found.quantile(q)}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        low, high = channel(plan, "low", x), channel(plan, "high", x)
        flat, low = wide(low, x)
        _, high = wide(high, x)
        return keep_unseen(torch.minimum(torch.maximum(flat, low), high).view_as(x), x, mask), mask


@OPERATORS.register("quantisation")
class Quantisation(Fault):
    """Values are rounded to ``2^bits`` even levels from the lowest to the highest value of the reference rows.

    As a converter with too few bits does, so values outside that range become its ends. A constant channel stays as it
    is.
    """

    key = "quantisation"
    title = "rounded to few levels"
    source = "definition: an analogue-to-digital converter; bits: proposed here, 8 is a common low-cost converter"
    parameters = {"default": levels(bits=(8, 6, 5, 4, 3))}  # noqa: RUF012
    random = False

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        if not 1 <= values["bits"] <= 24:
            raise ConfigError(f"{self.key}: bits must be from 1 to 24, not {values['bits']!r}")
        found = scale(data, modality.name)
        return {"low": found.quantile(0), "high": found.quantile(1)}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        low, high = channel(plan, "low", x), channel(plan, "high", x)
        steps = 2 ** plan.parameters["bits"] - 1
        flat, low = wide(low, x)
        _, high = wide(high, x)
        step = (high - low) / steps
        even = torch.where(step > 0, step, 1)
        codes = ((flat - low) / even).round_().clamp_(0, steps)
        rounded = torch.where(step > 0, torch.addcmul(low, codes, even), flat)
        return keep_unseen(rounded.view_as(x), x, mask), mask


@OPERATORS.register("sensor_unit_error")
class SensorUnitError(Fault):
    """A share of the channels, drawn for each row, is given in a wrong unit.

    unit: ``drawn`` (one of the three, for each row and channel), ``milli`` (times 1000), ``gravity`` (times 9.81, as m/s²
    for g) or ``fahrenheit`` (``1.8 x + 32``). Of values as they are read, in original units where the data set knows
    these.
    """

    key = "sensor_unit_error"
    title = "channels in a wrong unit"
    source = "definition: confused SI prefixes, g and m/s², °C and °F; shares: proposed here, as of table cells"
    parameters = {"default": levels(share=(0.05, 0.1, 0.2, 0.4, 0.6))}  # noqa: RUF012
    options = MappingProxyType({"unit": "drawn"})
    differentiable = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        share(f"{self.key}: share", values["share"])
        table = unit_table(self.key, values["unit"])
        one = torch.ones(len(scale(data, modality.name).sd), 1, dtype=torch.float64)
        units = data.units(modality.name)
        units = None if units is None else (units[0][:, None], units[1][:, None])
        return affine(one * table[:, 0], one * table[:, 1], units)

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        factor, shift = channel(plan, "factor", x), channel(plan, "shift", x)
        channels, units = factor.shape
        hit = (plan.uniforms(index, channels, "hit") < plan.parameters["share"]).to(x.device)[:, None]
        which = (plan.uniforms(index, channels, "unit") * units).long().to(x.device)
        at = torch.arange(channels, device=x.device)
        wrong = x * factor[at, which][:, None] + shift[at, which][:, None]
        return keep_unseen(torch.where(hit, wrong, x), x, mask), mask
