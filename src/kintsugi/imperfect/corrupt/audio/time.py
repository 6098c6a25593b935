"""What happens along time: stretches that are muted, another speed, another pitch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.audio._common import SPEECH_ROBUST_BENCH, AudioOperator, within
from kintsugi.imperfect.corrupt.audio._resample import ratio, resample
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

WINDOW = 0.032  # seconds of the phase vocoder: 512 samples at 16 kHz


class _Muted(AudioOperator):
    """Stretches that are zero. A milder level's lie within a more severe one's."""

    louder = False
    differentiable = True

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "share", values["share"], 0, 1)

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        return plan.uniforms(index, int(plan.parameters.get("masks", 1))).tolist()

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        for part, place in enumerate(draw):
            first, last = part * len(sound) // len(draw), (part + 1) * len(sound) // len(draw)
            length = round(plan.parameters["share"] * (last - first))
            start = first + math.floor(place * (last - first - length + 1))
            sound[start : start + length] = 0
        return sound


@OPERATORS.register("time_mask")
class TimeMask(_Muted):
    """``masks`` short stretches are zero, together a ``share`` of the content, one in each of as many equal parts of it.

    So they never overlap, and the share is exact. They stay seen: what plays the clip does not say where it was silent.
    """

    key = "time_mask"
    title = "stretches of silence"
    source = (
        "definition: SpecAugment, arXiv 1904.08779, whose LibriSpeech policies have two time masks, on the waveform; "
        "shares: proposed here, of the clip so that they mean the same at any length"
    )
    parameters = {"default": levels(share=(0.05, 0.1, 0.2, 0.3, 0.5))}  # noqa: RUF012
    options = {"masks": 2}  # noqa: RUF012

    def settle(self, values: dict[str, Any]) -> None:
        super().settle(values)
        within(self.key, "masks", values["masks"], 1, 10000)


@OPERATORS.register("silence")
class Silence(_Muted):
    """One contiguous stretch, a ``share`` of the content, is muted, as when a microphone or a line drops out for a while.

    It stays seen, as in ``time_mask``.
    """

    key = "silence"
    title = "one long dropout"
    source = "proposed here: one stretch of up to 70 %, since time_mask, in short stretches, ends at 50 %"
    parameters = {"default": levels(share=(0.1, 0.2, 0.35, 0.5, 0.7))}  # noqa: RUF012


@OPERATORS.register("speed")
class Speed(AudioOperator):
    """Played ``factor`` times as fast: tempo and pitch change together, as of a tape.

    The content begins where it began. Faster, it ends sooner and silence follows. Slower, it runs on over the zeros after
    it, to the end of the array or, where there is a mask, of what the mask marks; the rest is cut off. The mask stays. A
    longer array shows more of the same samples, never other ones. The factor is taken as a fraction with a denominator
    of at most 100.
    """

    key = "speed"
    title = "played too fast or too slow, tempo and pitch together"
    source = f"{SPEECH_ROBUST_BENCH}, whose 4 factors up and down are levels 2 to 5; level 1 is proposed here"
    parameters = {  # noqa: RUF012
        "faster": levels(factor=(1.1, 1.25, 1.5, 1.75, 2.0)),
        "slower": levels(factor=(0.95, 0.875, 0.75, 0.625, 0.5)),
    }
    random = False
    grows = True
    differentiable = True
    not_monotone = "two shifted waveforms differ no more by a larger shift: samples are compared, not what is heard"

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "factor", values["factor"], 0.1, 10)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        return resample(sound, 1 / ratio(plan.parameters["factor"]))


@OPERATORS.register("pitch")
class Pitch(AudioOperator):
    """Higher or lower by ``semitones``, with the length kept: a phase vocoder stretches time, resampling takes it back.

    Windows of 32 ms, rounded to a power of two, that overlap by three quarters.
    """

    key = "pitch"
    title = "another pitch, length kept"
    source = (
        f"{SPEECH_ROBUST_BENCH}, whose 4 steps up and down are levels 2 to 5, level 1 is proposed here; phase vocoder: "
        "Laroche and Dolson, IEEE Transactions on Speech and Audio Processing 1999"
    )
    parameters = {  # noqa: RUF012
        "up": levels(semitones=(1, 3, 6, 9, 12)),
        "down": levels(semitones=(-1, -3, -6, -9, -12)),
    }
    needs_rate = True
    random = False
    not_monotone = "two shifted waveforms differ no more by a larger shift: samples are compared, not what is heard"

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "semitones", values["semitones"], -36, 36)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        factor = ratio(2 ** (plan.parameters["semitones"] / 12))
        window = 1 << max(4, round(math.log2(WINDOW * plan.parameters["rate"])))
        return resample(_stretched(sound, float(factor), window), 1 / factor)[: len(sound)]


def _stretched(sound: Tensor, factor: float, window: int) -> Tensor:
    """``[n]`` -> ``[ceil(n * factor)]``: the same frequencies for longer or shorter, by a phase vocoder."""
    hop, shape = window // 4, torch.hann_window(window, dtype=sound.dtype, device=sound.device)
    spectrum = torch.stft(sound, window, hop, window=shape, pad_mode="constant", return_complex=True)
    at = torch.arange(0, spectrum.shape[1], 1 / factor, device=sound.device, dtype=torch.float64)
    spectrum = torch.nn.functional.pad(spectrum, (0, 2))
    left = at.long().clamp(max=spectrum.shape[1] - 2)
    before, after = spectrum[:, left], spectrum[:, left + 1]
    part = (at - left).to(sound.dtype)
    size = torch.lerp(before.abs(), after.abs(), part)
    advance = torch.arange(len(spectrum), device=sound.device, dtype=sound.dtype)[:, None] * (
        2 * math.pi * hop / window
    )
    step = after.angle() - before.angle() - advance
    step = advance + step - 2 * math.pi * torch.round(step / (2 * math.pi))
    phase = torch.cat([before[:, :1].angle(), step[:, :-1]], 1).double().cumsum(1).to(sound.dtype)
    length = math.ceil(len(sound) * factor)
    made = torch.istft(torch.polar(size, phase), window, hop, window=shape, length=max(length, 1))
    return made[:length]
