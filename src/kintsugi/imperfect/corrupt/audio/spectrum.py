"""Parts of the spectrum that go: low and high pass, a band, a lower sampling rate."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.imperfect.corrupt.audio._common import SPEECH_ROBUST_BENCH, AudioOperator, within
from kintsugi.imperfect.corrupt.audio._fourier import Response, filtered, response_of
from kintsugi.imperfect.corrupt.audio._resample import ratio, resample
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

TRANSITION = 200.0  # hertz from pass to stop band; SoX's sinc takes a share of the rate, which is too coarse at 48 kHz
ATTENUATION = 80.0  # dB in the stop band, beyond what 8 or 12 bits hold
HIGHEST = 0.9  # share of the Nyquist frequency that a cut-off is limited to
EDGE, DEPTH = 50.0, 60.0  # the same of a masked band, which may be 70 Hz wide


@lru_cache(64)
def _window(width: float, depth: float, rate: float) -> NDArray[np.float64]:
    """A Kaiser window, an odd number of samples; length and shape by Kaiser's formulas.

    Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.5; the shape is that for 50 dB and more.
    """
    reach = int(np.ceil((depth - 7.95) / (2.285 * 2 * np.pi * width / rate) / 2))
    return np.kaiser(2 * reach + 1, 0.1102 * (depth - 8.7))


def _sinc(cut: float, rate: float, window: NDArray[np.float64]) -> NDArray[np.float64]:
    """The kernel of a low pass; none at a cut-off of 0, a single 1 at the Nyquist frequency."""
    at = np.arange(len(window)) - len(window) // 2
    return 2 * cut / rate * np.sinc(2 * cut / rate * at) * window


@lru_cache(64)
def _cut_kernel(cut: float, rate: float, high: bool) -> NDArray[np.float64]:
    kernel = _sinc(cut, rate, _window(min(TRANSITION, cut, rate / 2 - cut), ATTENUATION, rate))
    kernel /= kernel.sum()
    return _rest(kernel) if high else kernel


def _rest(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a filter stops."""
    rest = -kernel
    rest[len(kernel) // 2] += 1
    return rest


@lru_cache(64)
def _cut_response(size: int, cut: float, rate: float, high: bool) -> Response:
    return response_of(_cut_kernel(cut, rate, high), size)


class _Cut(AudioOperator):
    needs_rate = True
    random = False
    differentiable = True
    high = False

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "cutoff", values["cutoff"], 1, 1e6)
        values["cutoff"] = float(min(values["cutoff"], HIGHEST * values["rate"] / 2))

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        cut, rate = plan.parameters["cutoff"], plan.parameters["rate"]
        taps = len(_cut_kernel(cut, rate, self.high))
        return filtered(sound, lambda size: _cut_response(size, cut, rate, self.high), taps, taps // 2)


@OPERATORS.register("low_pass")
class LowPass(_Cut):
    """A windowed-sinc filter that stops what lies above ``cutoff`` Hz, where it passes half of the amplitude.

    The transition takes 200 Hz, the stop band lies 80 dB down, the phase stays. A cut-off is limited to 0.9 of the
    Nyquist frequency, so that the mildest level does something at 8 kHz too.
    """

    key = "low_pass"
    title = "a muffled sound: high frequencies are missing"
    source = (
        f"definition: {SPEECH_ROBUST_BENCH}, a windowed sinc of SoX; its 4 levels are 1, 2, 3 and 5, level 4 is proposed "
        "here, since the sound changes most between 1667 and 500 Hz"
    )
    parameters = {"default": levels(cutoff=(4000, 2833, 1667, 1000, 500))}  # noqa: RUF012


@OPERATORS.register("high_pass")
class HighPass(_Cut):
    """A windowed-sinc filter that stops what lies below ``cutoff`` Hz; otherwise as ``low_pass``."""

    key = "high_pass"
    title = "a thin sound: low frequencies are missing"
    source = (
        f"definition: {SPEECH_ROBUST_BENCH}, a windowed sinc of SoX; its 4 levels are 2 to 5, level 1 is proposed here "
        "(half of the first)"
    )
    parameters = {"default": levels(cutoff=(250, 500, 1333, 2167, 3000))}  # noqa: RUF012
    high = True


@OPERATORS.register("frequency_mask")
class FrequencyMask(AudioOperator):
    """A band of the spectrum is removed: a ``share`` of the mel scale from 0 to the Nyquist frequency, at a random place.

    A milder level's band lies within a more severe one's. A windowed-sinc filter takes it out, with edges of 50 Hz and
    60 dB; the phase stays. SpecAugment masks channels of a log-mel spectrogram; here the waveform itself loses them,
    whatever is computed from it.
    """

    key = "frequency_mask"
    title = "a band of the spectrum is missing"
    source = "definition: SpecAugment, arXiv 1904.08779, on the waveform; shares of the mel scale: proposed here, as time_mask"
    parameters = {"default": levels(share=(0.05, 0.1, 0.2, 0.3, 0.5))}  # noqa: RUF012
    needs_rate = True
    differentiable = True

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "share", values["share"], 0, 1)

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        return plan.uniforms(index)[:, 0].tolist()

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        rate = plan.parameters["rate"]
        window = _window(min(EDGE, rate / 20), DEPTH, rate)
        low, high = band(draw, plan.parameters["share"], rate)
        kernel = _rest(_sinc(high, rate, window) - _sinc(low, rate, window))
        return filtered(sound, lambda size: response_of(kernel, size), len(kernel), len(kernel) // 2)


def band(draw: float, share: float, rate: float) -> tuple[float, float]:
    """Lowest and highest frequency, in hertz, of a masked band."""
    top = 2595 * np.log10(1 + rate / 1400)  # the mel scale of O'Shaughnessy, at the Nyquist frequency
    low, high = draw * (1 - share) * top, (draw * (1 - share) + share) * top
    return float(700 * (10 ** (low / 2595) - 1)), float(700 * (10 ** (high / 2595) - 1))


@OPERATORS.register("resampling")
class Resampling(AudioOperator):
    """Down to ``factor`` times the rate and up again: what lies above the lower Nyquist frequency is lost.

    Band-limited interpolation (a sinc of 6 zero crossings under a Hann window, 44 dB) both ways. The factor is taken as
    a fraction with a denominator of at most 100.
    """

    key = "resampling"
    title = "a lower sampling rate, and back"
    source = f"{SPEECH_ROBUST_BENCH}, whose 4 factors are levels 2 to 5; level 1 (0.875) is proposed here"
    parameters = {"default": levels(factor=(0.875, 0.75, 0.5, 0.25, 0.125))}  # noqa: RUF012
    random = False
    differentiable = True

    def settle(self, values: dict[str, Any]) -> None:
        within(self.key, "factor", values["factor"], 0.01, 1)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        factor = ratio(plan.parameters["factor"])
        return resample(resample(sound, factor), 1 / factor)[: len(sound)]
