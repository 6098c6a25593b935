"""What a microphone, a converter and a network do: clipping, gain, few bits, lost packets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect.corrupt.audio._common import SPEECH_ROBUST_BENCH, AudioOperator, peak, within
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

MU = 255  # of ITU-T G.711


@OPERATORS.register("clipping")
class Clipping(AudioOperator):
    """Clipping at a ``share`` of the clip's own peak; what is left is not made louder."""

    key = "clipping"
    title = "clipping at a share of the clip's peak"
    source = "proposed here: shares of the peak, since a quiet clip would pass fixed limits as it is"
    parameters = {"default": levels(share=(0.7, 0.5, 0.35, 0.2, 0.1))}  # noqa: RUF012
    random = False
    louder = False
    differentiable = True

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "share", values["share"], 0, 1)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        limit = peak(sound) * plan.parameters["share"]
        return sound.clamp_(-limit, limit)


@OPERATORS.register("gain")
class Gain(AudioOperator):
    """Louder by ``db``, then clipped to [-1, 1] or to the clip's own peak where that is larger; below 0: quieter.

    The preset ``down`` makes clips quieter and clips nothing.
    """

    key = "gain"
    title = "too much gain, so that the clip is cut off; or too little"
    source = (
        f"up: {SPEECH_ROBUST_BENCH}, whose code takes its gains of 10 to 40 as factors of the amplitude: 20, 26, 29.5 and "
        "32 dB are levels 2 to 5, level 1 is proposed here; down: proposed here, down to where 6 of 16 bits are left"
    )
    parameters = {  # noqa: RUF012
        "up": levels(db=(10, 20, 26, 29.5, 32)),
        "down": levels(db=(-10, -20, -30, -40, -60)),
    }
    random = False
    differentiable = True

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        return sound.mul_(10 ** (plan.parameters["db"] / 20))


@OPERATORS.register("bit_depth")
class BitDepth(AudioOperator):
    """Rounding to the ``2 ** bits`` levels of a converter whose full scale is 1, or the clip's peak where that is larger.

    Zero is a level, so silence stays silent, and there is one more level below it than above. No dither. A quiet clip
    suffers more, as it does from a real converter, and may fall silent.
    """

    key = "bit_depth"
    title = "few bits a sample"
    source = "definition: uniform mid-tread quantisation; proposed here: 7 bits are heard, 3 are 8 levels"
    parameters = {"default": levels(bits=(7, 6, 5, 4, 3))}  # noqa: RUF012
    random = False
    louder = False

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "bits", values["bits"], 1, 24)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        half = 2 ** (plan.parameters["bits"] - 1)
        full = max(1.0, peak(sound))
        return sound.mul_(half / full).round_().clamp_(-half, half - 1).mul_(full / half)


@OPERATORS.register("mu_law")
class MuLaw(AudioOperator):
    """Companding by the mu-law of telephony and rounding to ``2 ** bits - 1`` levels of the compressed value.

    ``F(x) = sign(x) ln(1 + 255 |x|) / ln 256``, at a full scale of 1 or the clip's peak where that is larger. G.711 has 8
    bits; its straight pieces and its two codes for zero are not imitated, so that zero stays zero.
    """

    key = "mu_law"
    title = "mu-law companding, as of telephony, with few bits"
    source = "definition: ITU-T G.711, whose 8 bits are level 1; fewer bits: proposed here"
    parameters = {"default": levels(bits=(8, 6, 5, 4, 3))}  # noqa: RUF012
    random = False
    louder = False

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "bits", values["bits"], 2, 24)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        steps = 2 ** (plan.parameters["bits"] - 1) - 1
        full = max(1.0, peak(sound))
        sign = torch.sign(sound)
        sound = sound.abs_().mul_(MU / full).log1p_().mul_(steps / math.log1p(MU)).round_()
        return sound.mul_(math.log1p(MU) / steps).expm1_().mul_(full / MU).mul_(sign)


@OPERATORS.register("packet_loss")
class PacketLoss(AudioOperator):
    """Packets that a network loses, in bursts: the Gilbert-Elliott chain, whose bad state loses every packet.

    A ``share`` of the packets is lost on average, in bursts of ``burst`` packets on average: a good packet is followed by
    a lost one with probability ``share / (burst (1 - share))``, a lost one by a good one with ``1 / burst``. Packets of
    ``packet`` ms begin at the first sample of the content. ``fill`` is what the receiver plays: "zero", or "repeat", the
    packet before the burst again. Filled gaps stay seen: that is what a receiver hands on, and it does not say where.
    """

    key = "packet_loss"
    title = "lost packets, in bursts"
    source = (
        "definition: Gilbert, Bell System Technical Journal 1960, and Elliott 1963; packets of 20 ms as of most speech "
        "codecs (RFC 3551); shares and bursts: proposed here, from a fair to an unusable line"
    )
    parameters = {  # noqa: RUF012
        "default": levels(share=(0.02, 0.05, 0.1, 0.2, 0.3), burst=(1, 1.5, 2, 3, 4)),
    }
    options = {"fill": "zero", "packet": 20.0}  # noqa: RUF012
    needs_rate = True
    louder = False
    differentiable = True

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "share", values["share"], 0, 0.99)
        within(self.key, "packet", values["packet"], 0.1, 1e4)
        least = max(1.0, values["share"] / (1 - values["share"]))
        within(self.key, "burst", values["burst"], least, 1e6)
        if values["fill"] not in ("zero", "repeat"):
            raise ConfigError(f"fill of {self.key} is 'zero' or 'repeat', not {values['fill']!r}")

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        return plan.uniforms(index, -(-samples // _packet(plan))).tolist()

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        size = _packet(plan)
        for first, last in _bursts(draw[: -(-len(sound) // size)], plan.parameters["share"], plan.parameters["burst"]):
            gap = sound[first * size : last * size]
            if plan.parameters["fill"] == "zero" or first == 0:
                gap.zero_()
            else:
                again = sound[(first - 1) * size : first * size].repeat(last - first)
                gap.copy_(again[: len(gap)])
        return sound


def _packet(plan: Plan) -> int:
    return max(1, round(plan.parameters["packet"] / 1000 * plan.parameters["rate"]))


def _bursts(draws: list[float], share: float, burst: float) -> list[tuple[int, int]]:
    """First lost packet and the first good one after it, of every burst."""
    begin, stay = share / (burst * (1 - share)), 1 - 1 / burst
    lost = draws[0] < share
    states = [lost]
    for draw in draws[1:]:
        lost = draw < (stay if lost else begin)
        states.append(lost)
    found, at = [], 0
    for bad, run in groupby(states):
        length = sum(1 for _ in run)
        if bad:
            found.append((at, at + length))
        at += length
    return found
