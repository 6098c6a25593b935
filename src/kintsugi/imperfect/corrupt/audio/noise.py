"""Noise at a signal-to-noise ratio."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.imperfect.corrupt.audio._common import SPEECH_ROBUST_BENCH, AudioOperator, normals, power
from kintsugi.imperfect.corrupt.audio._fourier import good_size
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

SNR = levels(snr=(20, 15, 10, 5, 0))
SNR_SOURCE = (
    f"definition: {SPEECH_ROBUST_BENCH}, whose lists are 30 10 5 1 -10 dB in one version and 40 30 20 10 0 dB in another; "
    "20 to 0 dB in steps of 5: proposed here, since five even steps start where noise is hardly heard"
)
LOWEST = 20.0  # hertz, the limit of hearing


class Snr(AudioOperator):
    """Adds noise at ``snr`` dB: the clip's mean power over its content to the noise's there, exact before clipping.

    A silent clip stays silent: it has no level to relate noise to. Where the noise itself is silent, nothing is added.
    """

    differentiable = True

    @abstractmethod
    def noise(self, count: int, draw: Any, plan: Plan) -> Tensor:
        """Noise of any power, float32 ``[count]`` on the CPU."""

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        return normals(index, plan, samples)

    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        noise = self.noise(sound.shape[0], draw, plan)
        loud = power(noise)
        if loud <= 0:
            return sound
        scale = (power(sound) / loud) ** 0.5 * 10 ** (-plan.parameters["snr"] / 20)
        return sound.add_(noise.to(sound), alpha=scale)


@OPERATORS.register("white_noise")
class WhiteNoise(Snr):
    """White gaussian noise at a signal-to-noise ratio of ``snr`` dB, then clipped to [-1, 1].

    The ratio is that of the clip's own mean power to the noise's, both over the content of the clip (``sounding``), and
    it is exact before clipping; samples within the content that are not seen count as silent. Padding stays zero, and a
    silent clip stays silent: it has no level to relate noise to. Clips that reach beyond [-1, 1] are clipped at their
    own peak. Noise is drawn for the content only, so it does not depend on how far a batch is padded.
    """

    key = "white_noise"
    title = "white noise at a signal-to-noise ratio"
    source = SNR_SOURCE
    parameters = {"default": SNR}  # noqa: RUF012

    def noise(self, count: int, draw: Any, plan: Plan) -> Tensor:
        made: Tensor = draw(count)
        return made


class Coloured(Snr):
    """Gaussian noise whose power falls as ``1 / f ** steepness`` above 20 Hz, made of a random spectrum.

    The parts of the spectrum are uniform, and a sample is a sum over them, so it is nearly gaussian: brown noise of one
    second, where the fewest parts matter, has a kurtosis of 2.9 instead of 3.

    Below 20 Hz, or below 1/800 of the rate where that is not known, it is as strong as there: all power would else go
    into a drift that nobody hears.
    """

    steepness: float

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        for row in plan.coarse(index, good_size(samples) + 2):
            yield lambda count, row=row: row[:count]

    def noise(self, count: int, draw: Any, plan: Plan) -> Tensor:
        size = good_size(count)
        fall = _fall(size, self.steepness, LOWEST / plan.parameters.get("rate", 800 * LOWEST))
        parts = draw(size + 2).numpy()
        np.multiply(parts, fall, out=parts)
        return torch.from_numpy(np.fft.irfft(parts.view(np.complex64), size)[:count])


@lru_cache(32)
def _fall(size: int, steepness: float, lowest: float) -> NDArray[np.float32]:
    """Amplitudes over the frequencies of a real FFT, twice each, for real and imaginary part; none at 0 hertz."""
    frequency = np.arange(size // 2 + 1) / size
    fall = np.maximum(frequency, lowest) ** (-steepness / 2) * size**0.5  # of the order of 1 in time
    fall[0] = 0
    return fall.astype(np.float32).repeat(2)


@OPERATORS.register("pink_noise")
class PinkNoise(Coloured):
    """Pink noise, whose power falls by 10 dB a decade, at a signal-to-noise ratio of ``snr`` dB; see ``white_noise``.

    Rain and traffic sound like it. Below 20 Hz it is flat, and 0 Hz is left out.
    """

    key = "pink_noise"
    title = "pink noise at a signal-to-noise ratio"
    source = "levels: as white_noise, proposed here; 1/f spectrum"
    parameters = {"default": SNR}  # noqa: RUF012
    steepness = 1.0


@OPERATORS.register("brown_noise")
class BrownNoise(Coloured):
    """Brown noise, whose power falls by 20 dB a decade, at a signal-to-noise ratio of ``snr`` dB; see ``white_noise``.

    Engines and wind sound like it. Below 20 Hz it is flat, and 0 Hz is left out.
    """

    key = "brown_noise"
    title = "brown noise at a signal-to-noise ratio"
    source = "levels: as white_noise, proposed here; 1/f^2 spectrum, as of a random walk"
    parameters = {"default": SNR}  # noqa: RUF012
    steepness = 2.0
