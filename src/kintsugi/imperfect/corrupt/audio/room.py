"""What a room adds: reverberation and echo."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.audio._common import SPEECH_ROBUST_BENCH, AudioOperator, normals, power, within
from kintsugi.imperfect.corrupt.audio._fourier import filtered, response_of
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan


@OPERATORS.register("reverberation")
class Reverberation(AudioOperator):
    """Convolution with the impulse response of a room: the direct sound, then decaying gaussian noise.

    The noise falls by 60 dB within ``rt60`` seconds (Polack's model of a diffuse field). How strong it is follows from
    Sabine's formula: the direct sound's energy relative to the tail's is ``0.161 room / (16 pi distance² rt60)``, with the
    ``room`` in m³ and the ``distance`` of the microphone in m; at 100 m³ and 1 m it is 2 dB at 0.2 s and -6 dB at 1.3 s.
    The tail is cut where the clip's content ends, and the clip keeps its mean power. The impulse responses of Speech
    Robust Bench are simulated by the image method, in bins of their RT60; here none have to be stored or simulated.
    """

    key = "reverberation"
    title = "reverberation of a room"
    source = (
        "definition: Polack's exponentially decaying noise with the direct-to-reverberant ratio of Sabine's diffuse field "
        "(Kuttruff, Room Acoustics); RT60 of 0.2 to 1.3 s: proposed here, from a furnished room to a hall"
    )
    parameters = {"default": levels(rt60=(0.2, 0.4, 0.6, 0.9, 1.3))}  # noqa: RUF012
    options = {"room": 100.0, "distance": 1.0}  # noqa: RUF012
    needs_rate = True
    differentiable = True

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "rt60", values["rt60"], 0.001, 60)
        within(self.key, "room", values["room"], 0.1, 1e6)
        within(self.key, "distance", values["distance"], 0.01, 1e3)

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        return normals(index, plan, samples)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        before = power(sound)
        kernel = response(len(sound), draw, plan).numpy()
        wet = filtered(sound, lambda size: response_of(kernel, size), len(kernel))
        after = power(wet)
        return wet.mul_((before / after) ** 0.5) if after > 0 else wet


def response(count: int, draw: Callable[[int], Tensor], plan: Plan) -> Tensor:
    """The impulse response of :class:`Reverberation`, its first ``count`` samples at most: float32 ``[k]``."""
    values = plan.parameters
    rate, rt60 = values["rate"], values["rt60"]
    length = max(2, math.ceil(rt60 * rate))
    fall = 10 ** (-3 / (rt60 * rate))  # of the amplitude, in a sample: 60 dB in rt60
    energy = fall**2 * (1 - fall ** (2 * length)) / (1 - fall**2)  # of the tail at a scale of 1
    wanted = 16 * math.pi * values["distance"] ** 2 * rt60 / (0.161 * values["room"])
    tail = draw(min(count, length))
    decay = torch.pow(fall, torch.arange(len(tail), dtype=torch.float64)).float()
    tail = tail * decay * (wanted / energy) ** 0.5
    tail[0] = 1
    return tail


@OPERATORS.register("echo")
class Echo(AudioOperator):
    """``x(t) + decay * x(t - delay)``, with the delay in ms; the end of the echo is cut with the content.

    ``speech_robust_bench`` are the delays of that benchmark, whose clips last many seconds: 500 and 1000 ms leave shorter
    ones as they are, so the default keeps the delay and makes the echo louder. The benchmark's effect (SoX ``echo 0.8 0.9
    delay 0.3``) plays the sound itself at 0.72 and its echo at 0.27; here the sound stays at 1.
    """

    key = "echo"
    title = "an echo"
    source = (
        f"speech_robust_bench: {SPEECH_ROBUST_BENCH}, levels 2 to 5 its 1 to 4, level 1 proposed here (half of the first "
        "delay); default: its shortest delay, with a decay that is proposed here, since long delays miss short clips"
    )
    parameters = {  # noqa: RUF012
        "default": levels(delay=(125, 125, 125, 125, 125), decay=(0.2, 0.35, 0.5, 0.65, 0.8)),
        "speech_robust_bench": levels(delay=(62.5, 125, 250, 500, 1000), decay=(0.375, 0.375, 0.375, 0.375, 0.375)),
    }
    needs_rate = True
    random = False
    differentiable = True

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "delay", values["delay"], 0, 1e6)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        late = round(plan.parameters["delay"] / 1000 * plan.parameters["rate"])
        if late < len(sound):
            sound[late:] = torch.add(sound[late:], sound[: len(sound) - late], alpha=plan.parameters["decay"])
        return sound
