"""Pictures that are bent, turned, slanted or of another size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.image._common import Picture
from kintsugi.imperfect.corrupt.image._warp import (
    about_centre,
    frequencies,
    positions,
    sample,
    smooth_noise,
    three_points,
)
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

MNIST_C = "MNIST-C, Mu and Gilmer, 2019 (google-research/mnist-c, corruptions.py)"
RADIANS = tuple(round(math.degrees(radians), 4) for radians in (0.2, 0.4, 0.6, 0.8, 1.0))  # rotate and shear of MNIST-C
HALF, ALL = (0.5,) * 5, (1.0,) * 5
FACTORS = (0.9, 0.8, 0.7, 0.6, 0.5)
MIRRORED, BLACK = ("reflection",) * 5, ("zeros",) * 5
UNIFORM_SD = 3**-0.5  # standard deviation of a uniform number in [-1, 1]


def _amounts(plan: Plan, index: Tensor) -> Tensor:
    """What to multiply a level's amount with, float64 ``[R]``: U(least, 1), to either side at random."""
    side, size = plan.uniforms(index, 2).unbind(1)
    return torch.where(side < 0.5, -1.0, 1.0) * (1 - (1 - plan.parameters["least"]) * size)


@OPERATORS.register("elastic_transform")
class ElasticTransform(Picture):
    """A random affine map of three points, and a smooth random displacement of every pixel.

    ``affine``, ``alpha`` and ``sigma`` are shares of the smaller side: each coordinate of three points moves by
    U(-affine, affine); each pixel by alpha times uniform noise in (-1, 1), smoothed by a gaussian of sigma. Different from
    ImageNet-C: lengths go by the side of the image instead of by 244 pixels (its slip for 224; the same at 224); smoothed
    noise is drawn as normal cosines of the same variances; and both moves are looked up at once, so that the picture is
    interpolated once instead of twice, and mirrored about the outermost pixels for both.

    Levels of ``imagenet`` and ``cifar`` are of different nature and not ordered by how much changes: an affine map first,
    ripples later. ``detection`` is what the package imagecorruptions does: ripples only, for any size, which grow.
    """

    key = "elastic_transform"
    differentiable = True
    title = "bent and stretched"
    source = (
        "definition and imagenet: ImageNet-C, Hendrycks and Dietterich, ICLR 2019 (hendrycks/robustness, corruptions.py), "
        "times 244/224; cifar: the same repository, make_cifar_c.py; mnist: proposed here: ripples that grow, black outside, "
        "since MNIST-C published none; detection: Michaelis et al., arXiv 1907.07484 (package imagecorruptions)"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(
            affine=tuple(244 / 224 * share for share in (0.1, 0.2, 0.02, 0.02, 0.02)),
            alpha=tuple(244 / 224 * share for share in (2.0, 2.0, 0.05, 0.07, 0.12)),
            sigma=tuple(244 / 224 * share for share in (0.7, 0.08, 0.01, 0.01, 0.01)),
            border=MIRRORED,
        ),
        "cifar": levels(
            affine=(0.08, 0.07, 0.06, 0.05, 0.03),
            alpha=(0.0, 0.05, 0.08, 0.1, 0.1),
            sigma=(0.0, 0.2, 0.06, 0.04, 0.03),
            border=MIRRORED,
        ),
        "mnist": levels(affine=(0.0,) * 5, alpha=(0.2, 0.3, 0.4, 0.5, 0.65), sigma=(0.06,) * 5, border=BLACK),
        "detection": levels(
            affine=(0.0,) * 5,
            alpha=tuple(250 * 0.005 * share for share in (0.05, 0.065, 0.085, 0.1, 0.12)),
            sigma=(0.01,) * 5,
            border=MIRRORED,
        ),
    }
    not_monotone = (
        "ImageNet-C and CIFAR-C begin with large affine maps and end with ripples, so that level 5 changes least"
    )

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        values, (height, width) = plan.parameters, x.shape[-2:]
        side = min(height, width)
        jitter = plan.uniforms(index, 6, "affine").view(-1, 3, 2).mul_(2).sub_(1).mul_(values["affine"] * side)
        moved = None
        if values["alpha"]:
            # As many numbers for every level: those that the narrowest gaussian of the table leaves.
            sigmas = [level["sigma"] for level in self.parameters[values["preset"]].values() if level["alpha"]]
            narrow = min([*sigmas, values["sigma"]]) * side
            drawn = plan.normal(index, 2, frequencies(height, narrow), frequencies(width, narrow), stream="ripples")
            moved = smooth_noise(drawn, (height, width), values["sigma"] * side)
            moved = moved.mul_(values["alpha"] * side * UNIFORM_SD).to(x)
        return sample(x, positions(three_points(jitter, x), x, moved), values["border"]), mask


@OPERATORS.register("rotation")
class Rotation(Picture):
    """Turned about the centre, to the left or to the right at random, by ``degrees`` times U(least, 1)."""

    key = "rotation"
    differentiable = True
    title = "turned, as by a camera held askew"
    source = (
        f"definition and mnist: rotate of {MNIST_C}, 0.2 to 1 radians, always as far, black outside; imagenet and cifar: "
        "proposed here: level 3 is the largest angle of ImageNet-P, and mirrored outside, since black corners would give it away"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(degrees=(5.0, 10.0, 15.0, 25.0, 40.0), least=HALF, border=MIRRORED),
        "cifar": levels(degrees=(5.0, 10.0, 15.0, 25.0, 40.0), least=HALF, border=MIRRORED),
        "mnist": levels(degrees=RADIANS, least=ALL, border=BLACK),
    }

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        angles = math.radians(plan.parameters["degrees"]) * _amounts(plan, index)
        c, s = angles.cos(), angles.sin()
        matrix = torch.stack([c, -s, s, c], 1).view(-1, 2, 2)
        return sample(x, positions(about_centre(matrix, x), x), plan.parameters["border"]), mask


@OPERATORS.register("shear")
class Shear(Picture):
    """Upright lines leaned by a, which is ``degrees`` times U(least, 1), to the left or to the right at random.

    As in MNIST-C: a pixel (x, y) from the centre shows what was at (x - y sin a, y cos a). So a picture grows in
    height by 1 / cos a, which is 1.15 at 30 degrees and 1.85 at 57.
    """

    key = "shear"
    differentiable = True
    title = "slanted"
    source = (
        f"definition and mnist: shear of {MNIST_C}, 0.2 to 1 radians, always as far, black outside; imagenet and cifar: "
        "proposed here: level 3 is the largest angle of ImageNet-P, and mirrored outside, since black corners would give it away"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(degrees=(5.0, 10.0, 15.0, 22.0, 30.0), least=HALF, border=MIRRORED),
        "cifar": levels(degrees=(5.0, 10.0, 15.0, 22.0, 30.0), least=HALF, border=MIRRORED),
        "mnist": levels(degrees=RADIANS, least=ALL, border=BLACK),
    }

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        angles = math.radians(plan.parameters["degrees"]) * _amounts(plan, index)
        matrix = torch.stack([torch.ones_like(angles), -angles.sin(), torch.zeros_like(angles), angles.cos()], 1)
        return sample(x, positions(about_centre(matrix.view(-1, 2, 2), x), x), plan.parameters["border"]), mask


@OPERATORS.register("scaling")
class Scaling(Picture):
    """Shrunk about the centre or, in a share ``enlarged`` of the rows, enlarged by as much.

    Sides are multiplied by ``factor ** t`` or ``factor ** -t``, t drawn from U(least, 1) in each row; bilinear and without
    smoothing before shrinking, as in MNIST-C.
    """

    key = "scaling"
    differentiable = True
    title = "too small or too large in the picture"
    source = (
        f"definition, factors and mnist: scale of {MNIST_C}, which shrinks, always as far, black outside; imagenet and "
        "cifar: the same factors at most, half of them enlarging and mirrored outside, proposed here, since objects come "
        "nearer as well"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(factor=FACTORS, enlarged=HALF, least=HALF, border=MIRRORED),
        "cifar": levels(factor=FACTORS, enlarged=HALF, least=HALF, border=MIRRORED),
        "mnist": levels(factor=FACTORS, enlarged=(0.0,) * 5, least=ALL, border=BLACK),
    }

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        side, size = plan.uniforms(index, 2).unbind(1)
        power = torch.where(side < plan.parameters["enlarged"], 1.0, -1.0) * (1 - (1 - plan.parameters["least"]) * size)
        step = float(plan.parameters["factor"]) ** power  # pixels of the picture for one of the result
        matrix = step[:, None, None] * torch.eye(2, dtype=torch.float64)
        return sample(x, positions(about_centre(matrix, x), x), plan.parameters["border"]), mask
