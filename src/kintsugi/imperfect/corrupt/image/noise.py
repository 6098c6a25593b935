"""Noise in images: ``[R, C, H, W]`` in [0, 1]."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.image._common import Picture
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

IMAGENET_C = (
    "ImageNet-C, Hendrycks and Dietterich, ICLR 2019 (hendrycks/robustness, ImageNet-C/imagenet_c, corruptions.py)"
)
CIFAR_C = "the same repository, ImageNet-C/create_c/make_cifar_c.py"
MNIST_C = "MNIST-C, Mu and Gilmer 2019 (google-research/mnist-c, corruptions.py)"
CELLS = 4096  # of a table of quantiles: 256 brightnesses of so many float32 are 4 MB and still fast to look up
_STEEP = 1e30  # turns the sign of a draw minus a threshold into far below 0 or far above 1


@OPERATORS.register("gaussian_noise")
class GaussianNoise(Picture):
    """``clip(x + N(0, sd²), 0, 1)``, sd in units of the full range, independent for each channel of each pixel.

    ``mnist`` is a proposal of this library: the published MNIST-C set has no gaussian noise, its code repeats the ImageNet
    values, and on bright strokes over black these do nothing up to level 4. Measured with an RBF SVM on 28x28 MNIST
    pixels, 900 training and 400 test scans, accuracy 0.91 when clean: 0.91, 0.90, 0.90, 0.89, 0.73 by the ImageNet
    values and 0.90, 0.89, 0.84, 0.60, 0.36 by these.
    """

    key, kind = "gaussian_noise", "image"
    title = "gaussian noise, as of a sensor in the dark"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: proposed here, see the description"
    parameters = {  # noqa: RUF012
        "imagenet": levels(sd=(0.08, 0.12, 0.18, 0.26, 0.38)),
        "cifar": levels(sd=(0.04, 0.06, 0.08, 0.09, 0.10)),
        "mnist": levels(sd=(0.1, 0.2, 0.3, 0.45, 0.6)),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        noise = plan.normal(index, *x.shape[1:]).to(x)  # drawn on the CPU: the same numbers on every device
        return x.add_(noise, alpha=plan.parameters["sd"]).clamp_(0, 1), mask


@OPERATORS.register("speckle_noise")
class SpeckleNoise(Picture):
    """``clip(x + x N(0, sd²), 0, 1)``: noise that grows with the brightness of each value; black stays black."""

    key, kind = "speckle_noise", "image"
    title = "speckle: noise in proportion to brightness, as of coherent light, radar and ultrasound"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: the code of {MNIST_C}"
    parameters = {  # noqa: RUF012
        "imagenet": levels(sd=(0.15, 0.2, 0.35, 0.45, 0.6)),
        "cifar": levels(sd=(0.06, 0.1, 0.12, 0.16, 0.2)),
        "mnist": levels(sd=(0.15, 0.2, 0.35, 0.45, 0.6)),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        noise = plan.normal(index, *x.shape[1:]).to(x)
        return x.mul_(noise.mul_(plan.parameters["sd"]).add_(1)).clamp_(0, 1), mask


@OPERATORS.register("impulse_noise")
class ImpulseNoise(Picture):
    """A share of the values, each channel for itself, turns to 0 or to 1 with equal chances (salt and pepper).

    The values that are hit at one level are hit at every higher level too, and to the same side.
    """

    key, kind = "impulse_noise", "image"
    title = "impulse noise: single values at black or white, as of bit errors"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: {MNIST_C}, level 4 in the published set"
    parameters = {  # noqa: RUF012
        "imagenet": levels(share=(0.03, 0.06, 0.09, 0.17, 0.27)),
        "cifar": levels(share=(0.01, 0.02, 0.03, 0.05, 0.07)),
        "mnist": levels(share=(0.03, 0.06, 0.09, 0.17, 0.27)),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        half = plan.parameters["share"] / 2
        drawn = plan.uniform(index, *x.shape[1:]).to(x)
        # Sums and products take a quarter of the time of comparisons with masks: below half the first is far below 0,
        # else above 1; above 1 - half the second is far above 1, else below 0.
        x = torch.minimum(x, drawn.sub(half).mul_(_STEEP))
        return torch.maximum(x, drawn.sub_(1 - half).mul_(_STEEP)).clamp_(0, 1), mask


@OPERATORS.register("shot_noise")
class ShotNoise(Picture):
    """``clip(Poisson(c x) / c, 0, 1)``: each value counts photons, c of them at full brightness.

    x is rounded to 8 bits, as pictures are that the definition is applied to. Counts come from a table of quantiles, 4,096
    of equal probability for each of the 256 brightnesses, so that a probability is right to 1/8192; this takes a tenth of
    the time of drawing from the distribution itself, which the option ``exact`` does, without the rounding. A draw picks
    the same quantile at every level. No gradient: counts are steps.
    """

    key, kind = "shot_noise", "image"
    title = "shot noise: the Poisson noise of counting few photons"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: {MNIST_C}, level 5 in the published set"
    parameters = {  # noqa: RUF012
        "imagenet": levels(photons=(60, 25, 12, 5, 3)),
        "cifar": levels(photons=(500, 250, 100, 75, 50)),
        "mnist": levels(photons=(60, 25, 12, 5, 3)),
    }
    options = MappingProxyType({"exact": False})

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        photons = float(plan.parameters["photons"])
        if plan.parameters["exact"]:
            expected = (x.detach().cpu() * photons).float()
            for row, generator in zip(expected, plan.generators(index), strict=True):
                row.copy_(torch.poisson(row, generator=generator))
            return expected.div_(photons).clamp_(0, 1).to(x), mask
        drawn = plan.uniform(index, *x.shape[1:])
        # The last sixteenth of the last cell is left out: rounding must not reach the next brightness.
        level = x.detach().cpu().float().contiguous().mul_(255).round_().mul_(CELLS)
        cell = drawn.mul_(CELLS - 0.0625).add_(level).int()
        counted = torch.index_select(_quantiles(photons), 0, cell.view(-1), out=level.view(-1))
        return counted.view(x.shape).to(x), mask


@lru_cache(maxsize=8)
def _quantiles(photons: float) -> Tensor:
    """Float32 ``[256 * CELLS]``: brightness / 255 times ``photons`` is expected, and counted / ``photons``, at most 1."""
    most = int(photons) + 1  # more than all is 1, whatever the number
    expected = torch.arange(256, dtype=torch.float64)[:, None] / 255 * photons
    counts = torch.arange(most, dtype=torch.float64)
    below = torch.special.gammaincc(counts + 1, expected.expand(-1, most))  # P(N <= k) = Q(k + 1, expected)
    middle = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS
    found = torch.searchsorted(below.contiguous(), middle.expand(256, -1).contiguous())
    return (found.double() / photons).clamp_(max=1).float().flatten()
