"""What a camera does in the dark, with bad pixels and a wrong white balance, and what gets before its lens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kintsugi.core.schema import Modality
from kintsugi.imperfect.corrupt.image._common import Picture
from kintsugi.imperfect.corrupt.image.digital import TINY, needs_colour, raise_to
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@OPERATORS.register("salt_and_pepper")
class SaltAndPepper(Picture):
    """A ``share`` of the pixels, all channels together: half of them white, half of them black."""

    key = "salt_and_pepper"
    title = "white and black pixels, as of a bad transmission"
    source = (
        "shares: those of impulse_noise, which hits single channels, in ImageNet-C, Hendrycks and Dietterich, ICLR 2019 "
        "(hendrycks/robustness, corruptions.py and make_cifar_c.py) and in MNIST-C (google-research/mnist-c)"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(share=(0.03, 0.06, 0.09, 0.17, 0.27)),
        "cifar": levels(share=(0.01, 0.02, 0.03, 0.05, 0.07)),
        "mnist": levels(share=(0.03, 0.06, 0.09, 0.17, 0.27)),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        half = plan.parameters["share"] / 2
        drawn = plan.uniform(index, 1, *x.shape[-2:]).to(x.device)
        # From both ends of the draws, so that what is white at one level is not black at the next.
        return x.masked_fill_(drawn < half, 1).masked_fill_(drawn >= 1 - half, 0), mask


@OPERATORS.register("low_light")
class LowLight(Picture):
    """Darkened, with the noise of few photons and of reading them out.

    Stretched to the full range of each image, raised to ``gamma``, and multiplied by ``top``; then Poisson noise of
    ``photons`` at full brightness and gaussian noise of ``sd``, both as one normal number of the same variance,
    ``N(y, y / photons + sd²)``, instead of counts, which take ten times as long. It is skewed less than counts below
    about ten photons, and the mean is kept until noise is clipped at 0; the result is not rounded to bytes.
    """

    key, kind = "low_light", "image"
    title = "taken in the dark"
    source = (
        "dark of MultiCorrupt, arXiv 2402.11677 (ika-rwth-aachen/MultiCorrupt, converter/img.py): levels 1, 3 and 5 are "
        "its three; those between are proposed here"
    )
    parameters = {  # noqa: RUF012
        "any": levels(
            top=(0.6, 0.5, 0.4, 0.35, 0.3),
            gamma=(2.0,) * 5,
            photons=(250.0, 170.0, 120.0, 80.0, 50.0),
            sd=(0.008, 0.013, 0.018, 0.022, 0.026),
        )
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        top, gamma, photons, sd = (plan.parameters[name] for name in ("top", "gamma", "photons", "sd"))
        low, high = x.detach().amin((1, 2, 3), keepdim=True), x.detach().amax((1, 2, 3), keepdim=True)
        range_ = torch.where(high > low, high - low, 1)
        y = x.sub_(low).div_(range_)
        if gamma == 2:
            y = y.square()
        elif x.requires_grad:
            y = y.clamp(min=TINY) ** gamma
        else:
            for row in y:
                raise_to(row, gamma)
        y = y.mul_(top)
        noise = plan.normal(index, *x.shape[1:]).to(x)
        spread = (y.detach() if y.requires_grad else y).div(photons).add_(sd * sd).sqrt_()
        return torch.addcmul(y, noise, spread).clamp_(0, 1), mask


@OPERATORS.register("dead_pixels")
class DeadPixels(Picture):
    """A ``share`` of a sensor's pixels: a third stuck at black, a third stuck at white, and a third hot.

    Which ones belongs to the camera: they are drawn once for a plan and are the same in all of its rows. A hot pixel adds
    a dark current, 0.25 to 0.75, that differs from row to row. All channels of a pixel go together, as after a mosaic of
    colours has been filled in. About so many pixels are hit: each one independently, but at least one.
    """

    key = "dead_pixels"
    title = "a sensor's pixels stuck or hot"
    source = (
        "proposed here, since no table is published: from one pixel in 1,000 to one in 10; more on small images, where one "
        "in 1,000 is a single pixel"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(share=(0.001, 0.003, 0.01, 0.03, 0.1)),
        "cifar": levels(share=(0.005, 0.01, 0.02, 0.05, 0.1)),
        "mnist": levels(share=(0.005, 0.01, 0.02, 0.05, 0.1)),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        drawn = plan.uniform(torch.zeros(1, dtype=torch.long), *x.shape[-2:], stream="sensor")[0]
        hit = drawn < max(plan.parameters["share"], float(drawn.min()) + 1e-7)
        ys, xs = hit.nonzero().unbind(1)
        order = drawn[ys, xs].argsort(stable=True)  # so that a higher share adds to those of a lower one
        ys, xs = ys[order].to(x.device), xs[order].to(x.device)
        dead, white, hot = (slice(kind, None, 3) for kind in (1, 0, 2))
        x[:, :, ys[dead], xs[dead]] = 0
        x[:, :, ys[white], xs[white]] = 1
        current = plan.uniforms(index, len(ys[hot]), "current").mul_(0.5).add_(0.25).to(x)
        x[:, :, ys[hot], xs[hot]] = (x[:, :, ys[hot], xs[hot]] + current[:, None]).clamp(max=1)
        return x, mask


@OPERATORS.register("colour_cast")
class ColourCast(Picture):
    """Red and blue multiplied by wrong gains of white balance, to the same brightness of grey.

    The gains of red, green and blue are ``gain ** cos u``, 1 and ``gain ** sin u`` for a random angle u in each row: warm,
    cold, green or purple. They are divided by the luma of what becomes of white (BT.601), applied to values as they are
    stored, and clipped at 1.
    """

    key, kind = "colour_cast", "image"
    title = "a wrong white balance"
    source = (
        "white balance as two gains, which is how cameras store it; gains proposed here: red over blue changes by up to "
        "1.1, 1.3, 1.5, 1.9 and 2.7"
    )
    parameters = {"any": levels(gain=(1.1, 1.2, 1.35, 1.6, 2.0))}  # noqa: RUF012
    differentiable = True

    def check(self, modality: Modality) -> None:
        super().check(modality)
        needs_colour(self.key, modality, "without colours there is no balance between them")

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        angle = plan.uniforms(index)[:, 0] * 2 * math.pi
        logs = torch.stack([angle.cos(), torch.zeros_like(angle), angle.sin()], 1)
        gains = float(plan.parameters["gain"]) ** logs
        gains = gains / (gains * torch.tensor(LUMA, dtype=torch.float64)).sum(1, keepdim=True)
        return x.mul_(gains[..., None, None].to(x)).clamp_(0, 1), mask


@OPERATORS.register("cutout")
class Cutout(Picture):
    """One black square of a share ``area`` of the picture, anywhere inside it.

    The side is the root of the area in pixels, rounded, and at most the smaller side. Unlike in the paper, where the
    centre may lie anywhere, the square is never cut by the edge, so the area is what it says. ``fill``: its grey value.
    """

    key, kind = "cutout", "image"
    title = "a square hole"
    source = (
        "DeVries and Taylor, arXiv 1708.04552, whose squares of 8 and 16 pixels on 32 are levels 2 and 4; the others "
        "are proposed here, those of mnist smaller, since a digit has its strokes in the middle fifth of the pixels"
    )
    parameters = {  # noqa: RUF012
        "any": levels(area=(0.03, 0.0625, 0.14, 0.25, 0.4)),
        "mnist": levels(area=(0.02, 0.04, 0.0625, 0.1, 0.16)),
    }
    options = {"fill": 0.0}  # noqa: RUF012
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        height, width = x.shape[-2:]
        side = min(max(round(math.sqrt(plan.parameters["area"] * height * width)), 1), height, width)
        free = torch.tensor([height - side + 1, width - side + 1])
        corners = (plan.uniforms(index, 2) * free).long().tolist()
        for row, (top, left) in enumerate(corners):
            x[row, :, top : top + side, left : left + side] = plan.parameters["fill"]
        return x, mask


@OPERATORS.register("coarse_dropout")
class CoarseDropout(Picture):
    """``holes`` black rectangles, each side drawn from 0.06 to 0.18 of the picture's; they may overlap.

    A level has the holes of the level below and more. ``fill``: their grey value; ``smallest`` and ``largest``: the sides.
    """

    key, kind = "coarse_dropout", "image"
    title = "several rectangular holes"
    source = (
        "coarse dropout of MMCBench (arXiv 2401.11943) and of augmentation libraries; numbers and sides proposed here: "
        "they cover about 5, 11, 17, 25 and 35 %"
    )
    parameters = {"any": levels(holes=(4, 8, 13, 20, 30))}  # noqa: RUF012
    options = {"fill": 0.0, "smallest": 0.06, "largest": 0.18}  # noqa: RUF012
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        values, count = plan.parameters, int(plan.parameters["holes"])
        drawn = plan.uniforms(index, 4 * count).view(-1, count, 4)
        low, more = values["smallest"], values["largest"] - values["smallest"]
        spans = []
        for axis, size in enumerate(x.shape[-2:]):
            length = ((low + more * drawn[..., axis]) * size).round().clamp(1, size)
            start = (drawn[..., 2 + axis] * (size - length + 1)).floor()
            at = torch.arange(size)
            spans.append(((at >= start[..., None]) & (at < (start + length)[..., None])).float())
        hit = torch.bmm(spans[0].transpose(1, 2), spans[1]) > 0.5  # sums of ones, exact in any order
        return x.masked_fill_(hit[:, None].to(x.device), values["fill"]), mask


@OPERATORS.register("occlusion")
class Occlusion(Picture):
    """Something before the picture: a blob or a turned rectangle, with a colour and a texture, on a share ``area``.

    Outlines, place, colour and texture are drawn for each row; the outline grows with the level until it covers exactly
    so many pixels, so a level covers what the level below does. Blobs have three random waves round their edge.
    """

    key, kind = "occlusion", "image"
    title = "something in the way"
    source = (
        "proposed here, since no table is published; level 4 covers what a cutout of 17 pixels on 32 does; mnist: less, as "
        "for cutout"
    )
    parameters = {  # noqa: RUF012
        "any": levels(area=(0.05, 0.1, 0.18, 0.28, 0.42)),
        "mnist": levels(area=(0.03, 0.06, 0.1, 0.15, 0.22)),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        channels, height, width = x.shape[1:]
        count = min(max(round(plan.parameters["area"] * height * width), 1), height * width)
        shapes = plan.uniforms(index, 5 + 6).tolist()
        colours = plan.uniform(index, channels, 1 + 3 * 3 + 12 * 12, stream="texture")
        for row, shape, colour in zip(range(len(x)), shapes, colours, strict=True):
            far = _outline(shape, height, width)
            near = (far <= far.flatten().kthvalue(count).values).to(x.device)
            x[row] = torch.where(near, _texture(colour, height, width).to(x), x[row])
        return x, mask


def _outline(drawn: list[float], height: int, width: int) -> Tensor:
    """How far each pixel ``[H, W]`` is from the middle of an object, in units of its outline there."""
    kind, down, across, turn, aspect, *waves = drawn
    c, s, stretch = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn), 0.65 + 0.35 * aspect
    y = torch.arange(height, dtype=torch.float32)[:, None] + 0.5 - (0.2 + 0.6 * down) * height
    x = torch.arange(width, dtype=torch.float32) + 0.5 - (0.2 + 0.6 * across) * width
    along, beside = (c * x + s * y) * stretch, (c * y - s * x) / stretch
    if kind < 0.5:
        return torch.maximum(along.abs(), beside.abs())
    far = (along.square() + beside.square()).sqrt().clamp(min=1e-3)
    cos, sin = along / far, beside / far
    edge, many, more = torch.ones_like(far), cos, sin  # cos and sin of 1, 2, … times the angle
    for number in range(3):
        many, more = many * cos - more * sin, more * cos + many * sin
        size, phase = 0.5 * waves[2 * number] / (number + 2), 2 * math.pi * waves[2 * number + 1]
        edge = edge + size * (math.cos(phase) * many - math.sin(phase) * more)
    return far / edge


def _texture(drawn: Tensor, height: int, width: int) -> Tensor:
    """``[C, H, W]`` in [0, 1]: a colour, shaded by coarse and by fine noise, from uniform ``[C, 1 + 9 + 144]``."""
    base, coarse, fine = drawn[:, :1, None], drawn[:, 1:10].unflatten(1, (3, 3)), drawn[:, 10:].unflatten(1, (12, 12))
    shades = _enlarged(_enlarged(coarse, 1, height), 2, width).sub_(0.5).mul_(0.5)
    grain = _enlarged(_enlarged(fine, 1, height), 2, width).sub_(0.5).mul_(0.4)
    return shades.add_(grain).add_(base).clamp_(0, 1)


def _enlarged(x: Tensor, axis: int, size: int) -> Tensor:
    """Linear interpolation between corners; ``interpolate`` rounds otherwise with another number of threads."""
    at = torch.linspace(0, x.shape[axis] - 1, size, dtype=torch.float64)
    low = at.long().clamp(max=x.shape[axis] - 2)
    more = (at - low).float().view(-1, *[1] * (2 - axis))
    return (x.index_select(axis, low) * (1 - more)).add_(x.index_select(axis, low + 1) * more)
