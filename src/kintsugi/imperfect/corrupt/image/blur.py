"""Blur of images: ``[R, C, H, W]`` in [0, 1].

Lengths in pixels are those of the picture that a table was made for, whose side is the parameter ``side``: they shrink and
grow with the smaller side of what is damaged. ``side=0`` takes them as they are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.image._blur import disk, displacements, streak, zoom_filter
from kintsugi.imperfect.corrupt.image._common import Picture, gaussian, relative
from kintsugi.imperfect.corrupt.image.noise import CIFAR_C, IMAGENET_C, MNIST_C
from kintsugi.imperfect.operator import OPERATORS, Levels, levels
from kintsugi.imperfect.plan import Plan

_MNIST = (
    "mnist: proposed here, since the values of MNIST-C's code are lengths for 224 pixels and wipe out a digit of 28"
)


def sized(side: int, **values: tuple[float, ...]) -> Levels:
    """Levels with the side, in pixels, of the pictures that their lengths are for."""
    return levels(side=(side,) * 5, **values)


@OPERATORS.register("gaussian_blur")
class GaussianBlur(Picture):
    """Convolution with a gaussian of ``sigma`` pixels, cut at 4 sigma, with the edge pixels repeated outside."""

    key, kind = "gaussian_blur", "image"
    title = "gaussian blur"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; {_MNIST}"
    parameters = {  # noqa: RUF012
        "imagenet": sized(224, sigma=(1, 2, 3, 4, 6)),
        "cifar": sized(32, sigma=(0.4, 0.6, 0.7, 0.8, 1)),
        "mnist": sized(28, sigma=(0.6, 0.9, 1.2, 1.6, 2)),
    }
    differentiable, random = True, False

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        sigma = plan.parameters["sigma"] * relative(x, plan.parameters["side"])
        return gaussian(x, sigma).clamp_(0, 1), mask


@OPERATORS.register("defocus_blur")
class DefocusBlur(Picture):
    """Convolution with a disk of ``radius`` pixels whose rim is softened by a gaussian of ``alias`` pixels.

    The softening has 3 taps a side up to a radius of 8 and 5 above, and edges are mirrored, as published. There the
    softened disk of radius 8 and 10 sums to a little more than 1, because it is mirrored at the rim of its own array; here
    every kernel sums to 1.
    """

    key, kind = "defocus_blur", "image"
    title = "blur of a lens that is out of focus"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; {_MNIST}"
    parameters = {  # noqa: RUF012
        "imagenet": sized(224, radius=(3, 4, 6, 8, 10), alias=(0.1, 0.5, 0.5, 0.5, 0.5)),
        "cifar": sized(32, radius=(0.3, 0.4, 0.5, 1, 1.5), alias=(0.4, 0.5, 0.6, 0.2, 0.1)),
        "mnist": sized(28, radius=(1, 1.5, 2, 2.5, 3), alias=(0.1, 0.1, 0.3, 0.3, 0.3)),
    }
    differentiable, random = True, False

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        said = plan.parameters
        taps = 3 if said["radius"] <= 8 else 5
        return disk(x, said["radius"] * relative(x, said["side"]), said["alias"], taps).clamp_(0, 1), mask


@OPERATORS.register("motion_blur")
class MotionBlur(Picture):
    """Each pixel smeared along a line of 2 ``radius`` + 1 pixels with the weights of half a gaussian of ``sigma`` pixels.

    The angle is drawn for each row from -45 to 45 degrees; edge pixels are repeated outside. The published code calls
    ImageMagick; this follows the definition of its kernel, as the maintained port imagecorruptions does.
    """

    key, kind = "motion_blur", "image"
    title = "motion blur, as of a moving camera"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; {_MNIST}"
    parameters = {  # noqa: RUF012
        "imagenet": sized(224, radius=(10, 15, 15, 15, 20), sigma=(3, 5, 8, 12, 15)),
        "cifar": sized(32, radius=(6, 6, 6, 8, 9), sigma=(1, 1.5, 2, 2, 2.5)),
        "mnist": sized(28, radius=(4, 4, 5, 6, 7), sigma=(1, 1.5, 2, 3, 4)),
    }
    differentiable = True
    not_monotone = (
        "the published cifar levels 3 and 4 have the same sigma and differ in where the weights are cut, at 6 and at 8 "
        "sigma, so their damage is the same"
    )

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        shrink = relative(x, plan.parameters["side"])
        radius = max(1, round(plan.parameters["radius"] * shrink))
        degrees = plan.uniforms(index, 1, "angle")[:, 0] * 90 - 45
        return streak(x, radius, plan.parameters["sigma"] * shrink, degrees).clamp_(0, 1), mask


@OPERATORS.register("zoom_blur")
class ZoomBlur(Picture):
    """The mean of the picture and of its middle enlarged by 1, 1 + ``step``, … below ``stop``, by linear interpolation."""

    key, kind = "zoom_blur", "image"
    title = "zoom blur, as of a camera that moves towards what it sees"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: the code of {MNIST_C}"
    parameters = {  # noqa: RUF012
        "imagenet": levels(stop=(1.11, 1.16, 1.21, 1.26, 1.31), step=(0.01, 0.01, 0.02, 0.02, 0.03)),
        "cifar": levels(stop=(1.06, 1.11, 1.16, 1.21, 1.26), step=(0.01, 0.01, 0.01, 0.01, 0.01)),
        "mnist": levels(stop=(1.11, 1.16, 1.21, 1.26, 1.31), step=(0.01, 0.01, 0.02, 0.02, 0.03)),
    }
    differentiable, random = True, False

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        height, width = x.shape[-2:]
        factors = np.arange(1, plan.parameters["stop"], plan.parameters["step"]).tolist()
        rows = x.reshape(-1, height, width).transpose(0, 1).contiguous()  # so that both ways are plain matrix products
        total = rows * 2  # the first factor is 1
        across = None if x.requires_grad else torch.empty_like(rows)
        for factor in factors[1:]:
            wide = zoom_filter(factor, width, x.dtype, x.device).across(rows, across).view(height, -1)
            total = zoom_filter(factor, height, x.dtype, x.device).first(wide, total.view(height, -1))
        total = total.view(rows.shape).transpose(0, 1).reshape(x.shape)
        return total.div_(len(factors) + 1).clamp_(0, 1), mask


@OPERATORS.register("glass_blur")
class GlassBlur(Picture):
    """A gaussian of ``sigma`` pixels, pixels that take the value of others nearby, ``rounds`` times, the gaussian again.

    The published code visits the pixels one after the other, and each takes the value of one up to ``reach`` away (it
    means to exchange the two, but the first write is read back by the second); values travel through several visits.
    Here every pixel draws where its value comes from out of the distribution of that process, which is worked out once,
    so that all pixels are moved at once. What is lost: the dependence between neighbours. There the picture is cut to 8
    bits in between, which darkens it by half a grey level; here it is not.
    """

    key, kind = "glass_blur", "image"
    title = "blur of frosted glass: pixels exchanged with near ones"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; {_MNIST}"
    parameters = {  # noqa: RUF012
        "imagenet": sized(224, sigma=(0.7, 0.9, 1, 1.1, 1.5), reach=(1, 2, 2, 3, 4), rounds=(2, 1, 3, 2, 2)),
        "cifar": sized(32, sigma=(0.05, 0.25, 0.4, 0.25, 0.4), reach=(1, 1, 1, 1, 1), rounds=(1, 1, 1, 2, 2)),
        "mnist": sized(28, sigma=(0.4, 0.5, 0.6, 0.7, 0.8), reach=(1, 1, 1, 1, 2), rounds=(1, 2, 3, 4, 3)),
    }
    differentiable = True
    not_monotone = (
        "in the published parameters level 2 has one round where level 1 has two (imagenet) and sigma falls from level 3 "
        "to level 4 (cifar)"
    )

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        said, (height, width) = plan.parameters, x.shape[-2:]
        shrink = relative(x, said["side"])
        reach = max(1, round(said["reach"] * shrink))
        soft = gaussian(x, said["sigma"] * shrink)
        down, right = displacements(reach, int(said["rounds"]))
        pick = plan.uniform(index, height, width).mul_(len(down)).int().clamp_(max=len(down) - 1).flatten()
        pick = pick.view(len(x), height, width)
        rows = down[pick].add_(torch.arange(height, dtype=torch.int32)[:, None]).clamp_(0, height - 1)
        columns = right[pick].add_(torch.arange(width, dtype=torch.int32)).clamp_(0, width - 1)
        source = rows.mul_(width).add_(columns).long().to(x.device)
        moved = soft.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, x.shape[1], -1))
        return gaussian(moved.view(x.shape), said["sigma"] * shrink).clamp_(0, 1), mask
