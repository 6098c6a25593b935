"""Denoising of windows of sensor channels, and the bursts of missing samples that it is trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError, DataError

FILTERS = (64, 128, 256, 512)  # Centaur
CODE = 200


def halved(size: int) -> int:
    """Length of an axis after a convolution of kernel 5, stride 2 and padding 2: ``(size - 1) // 2 + 1``."""
    return (size - 1) // 2 + 1


class ConvolutionalAutoencoder(nn.Module):
    """A window of channels by steps as a picture, through a code, and back: ``[B, 1, C, T] -> [B, 1, C, T]``.

    Convolutions of 5 x 5 with stride 2 and ReLU, a linear code without activation, a linear layer back with ReLU, and
    transposed convolutions of stride 2 with ReLU between them. The linear code is where a channel is recovered from
    all the others. Xaviar et al., "Centaur: robust multimodal fusion for human activity recognition", IEEE Sensors
    Journal 2024, and the authors' code (sustainable-computing/Centaur), whose output is a sigmoid of data in [0, 1].

    Args:
        channels: C, at least 1.
        steps: T, at least 1.
        filters: of the convolutions, as many as there are of them; the transposed ones have the same in reverse.
        code: values between the halves.
        sigmoid: after the last layer; for data scaled to [0, 1]. Default: a linear output, for standardised data.

    Raises:
        ConfigError: a size below 1, or no filters.
    """

    def __init__(
        self, channels: int, steps: int, filters: Sequence[int] = FILTERS, code: int = CODE, sigmoid: bool = False
    ) -> None:
        super().__init__()
        if not filters or min(channels, steps, code, *filters) < 1:
            raise ConfigError(
                f"an autoencoder needs sizes of at least 1; got channels={channels}, steps={steps}, filters={filters}, "
                f"code={code}"
            )
        self.sizes = [(channels, steps)]
        for _ in filters:
            self.sizes.append((halved(self.sizes[-1][0]), halved(self.sizes[-1][1])))
        widths = [1, *filters]
        self.flat = widths[-1] * math.prod(self.sizes[-1])
        encoder: list[nn.Module] = []
        for before, width in pairwise(widths):
            encoder += [nn.Conv2d(before, width, 5, stride=2, padding=2), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), nn.Linear(self.flat, code))
        decoder: list[nn.Module] = []
        for i in reversed(range(len(filters))):
            decoder += [nn.ReLU(), _doubling(widths[i + 1], widths[i], self.sizes[i])]
        self.decoder = nn.Sequential(
            nn.Linear(code, self.flat), nn.Unflatten(1, (widths[-1], *self.sizes[-1])), *decoder
        )
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class.

        Raises:
            DataError: windows of another size.
        """
        if x.shape[1:] != (1, *self.sizes[0]):
            raise DataError(f"windows are {list(x.shape)}; this autoencoder takes [B, 1, C, T] of {self.sizes[0]}")
        out: Tensor = self.decoder(self.encoder(x))
        return torch.sigmoid(out) if self.sigmoid else out


def _doubling(before: int, width: int, size: tuple[int, int]) -> nn.ConvTranspose2d:
    """The transposed convolution whose result has this size: along an even axis kernel 2, along an odd one 3, padded."""
    odd = [n % 2 for n in size]
    kernel, padding = (2 + odd[0], 2 + odd[1]), (odd[0], odd[1])
    return nn.ConvTranspose2d(before, width, kernel, stride=2, padding=padding)


def burst_mask(
    rows: int, channels: int, steps: int, normal_mean: float, missing_mean: float, generator: torch.Generator
) -> Tensor:
    """Which samples are intact, when each channel falls out in bursts: bool ``[B, C, T]``, False where missing.

    Each channel of each window starts normal; normal and missing periods alternate, with lengths that are exponential
    numbers of these means, cut to integers (the authors' code of Centaur, IEEE Sensors Journal 2024: 80 and 40 steps of
    171, or 10 and 8 of 24).

    Args:
        rows, channels, steps: B, C, T.
        normal_mean: steps, before cutting.
        missing_mean: steps, likewise.
        generator: draws the lengths; the mask is on its device.

    Raises:
        ConfigError: means that are not above 0 and finite, or so small that hardly a period has a step.
    """
    means = torch.tensor([normal_mean, missing_mean], device=generator.device)
    if not (means > 0).all() or not means.isfinite().all() or means.sum() < 1:
        raise ConfigError(
            f"mean lengths of periods must be above 0 and together at least 1 step; got normal_mean={normal_mean}, "
            f"missing_mean={missing_mean}"
        )
    pairs = math.ceil(steps / (normal_mean + missing_mean)) + 4
    lengths = torch.empty(rows, channels, 0, device=generator.device)
    while not bool((lengths.floor().sum(2) >= steps).all()):  # some channel's periods end before the window does
        unit = torch.empty(rows, channels, pairs, 2, device=generator.device).exponential_(generator=generator)
        lengths = torch.cat([lengths, (unit * means).flatten(2)], 2)
    return mask_of_periods(lengths, steps)


def mask_of_periods(lengths: Tensor, steps: int) -> Tensor:
    """Which of ``steps`` samples are intact: lengths ``[..., P]`` -> bool ``[..., steps]``, False where missing.

    Args:
        lengths: of periods in turn, normal, missing, normal, …; each is cut to an integer, and what lies behind the last
            step does not count. What follows the last period is intact after a missing one and missing after a normal one.
        steps: T.
    """
    ends = lengths.floor().clamp(max=steps).cumsum(-1)
    step = torch.arange(steps, device=lengths.device)
    period = (ends[..., None, :] <= step[:, None]).sum(-1)
    return period % 2 == 0
