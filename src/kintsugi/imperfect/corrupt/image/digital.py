"""What screens, files and image processing do to a picture: brightness, contrast, colour, gamma, JPEG, few grey levels."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.imperfect.corrupt.image._common import Picture
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

IMAGENET_C = "ImageNet-C, Hendrycks and Dietterich, ICLR 2019 (hendrycks/robustness, corruptions.py)"
CIFAR_C = "the same repository, make_cifar_c.py"
MNIST_C = "MNIST-C, Mu and Gilmer, 2019 (google-research/mnist-c, corruptions.py)"
TINY = 1e-12


def needs_colour(operator: str, modality: Modality, why: str) -> None:
    """Raise ConfigError unless an image has the three channels red, green and blue."""
    if modality.shape[0] != 3:
        raise ConfigError(f"{operator} needs red, green and blue, and {modality.name!r} has {modality.shape[0]}: {why}")


def greatest(x: Tensor) -> Tensor:
    """The largest channel of each pixel, ``[R, 1, H, W]``: a chain of maxima is six times as fast as ``amax``."""
    value = torch.maximum(x[:, :1], x[:, 1:2])
    for channel in range(2, x.shape[1]):
        value = torch.maximum(value, x[:, channel : channel + 1])
    return value


def least(x: Tensor) -> Tensor:
    """The smallest channel of each pixel, ``[R, 1, H, W]``."""
    value = torch.minimum(x[:, :1], x[:, 1:2])
    for channel in range(2, x.shape[1]):
        value = torch.minimum(value, x[:, channel : channel + 1])
    return value


def raise_to(row: Tensor, power: float) -> None:
    """``row`` ``[C, H, W]`` to a power, in place.

    In parts of at most 16384 values: PyTorch splits longer ones among threads, and rounds the last values of each split
    otherwise, so that the result would depend on the number of threads.
    """
    for part in row.split(max(1, (1 << 14) // max(1, row.shape[0] * row.shape[2])), 1):
        part.pow_(power)


@OPERATORS.register("brightness")
class Brightness(Picture):
    """``shift`` added to the value of hue, saturation and value; to a single channel itself.

    In closed form: with the value v, the largest channel, and v' = clip(v + shift, 0, 1), colours become x v' / v, and
    black becomes grey. It agrees with a detour over HSV to 3e-7.
    """

    key, kind = "brightness", "image"
    title = "too bright, as of too long an exposure"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: {MNIST_C}"
    parameters = {  # noqa: RUF012
        "imagenet": levels(shift=(0.1, 0.2, 0.3, 0.4, 0.5)),
        "cifar": levels(shift=(0.05, 0.1, 0.15, 0.2, 0.3)),
        "mnist": levels(shift=(0.1, 0.2, 0.3, 0.4, 0.5)),
    }
    differentiable, random = True, False

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        shift = plan.parameters["shift"]
        if x.shape[1] == 1:
            return x.add_(shift).clamp_(0, 1), mask
        value = greatest(x.clone() if x.requires_grad else x)  # x is changed below, and a gradient needs it as it was
        gain = (value + shift).clamp_(0, 1).div_(value.clamp(min=TINY))
        x.mul_(gain).clamp_(0, 1)
        if float(value.detach().amin()) <= TINY:
            x.masked_fill_(value <= TINY, min(max(shift, 0.0), 1.0))
        return x, mask


@OPERATORS.register("contrast")
class Contrast(Picture):
    """``(x - m) factor + m``, where m is the mean of each channel of each image."""

    key, kind = "contrast", "image"
    title = "flat, as through haze or a dirty lens"
    source = (
        f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: proposed here, since the code of {MNIST_C} has "
        "the values of imagenet, and 7 by 7 pixels of a digit tell little"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(factor=(0.4, 0.3, 0.2, 0.1, 0.05)),
        "cifar": levels(factor=(0.75, 0.5, 0.4, 0.3, 0.15)),
        "mnist": levels(factor=(0.4, 0.3, 0.2, 0.1, 0.05)),
    }
    differentiable, random = True, False

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        factor = plan.parameters["factor"]
        # Row by row first: one sum over a whole image may be split among threads, and then adds up in another order.
        mean = x.mean(3).mean(2)[..., None, None]
        return x.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1), mask


@OPERATORS.register("saturate")
class Saturate(Picture):
    """Saturation s of hue, saturation and value becomes ``clip(factor s + shift, 0, 1)``.

    In closed form: with the largest channel v, the smallest u and s = (v - u) / v, a channel x becomes
    v + (x - v) min(factor + shift / s, 1 / s). Grey has the hue 0, red, as everywhere where HSV is used, so a shift makes
    it reddish. The first two levels take colour away and the other three add some.
    """

    key, kind = "saturate", "image"
    title = "colours faded or gaudy"
    source = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}"
    parameters = {  # noqa: RUF012
        "imagenet": levels(factor=(0.3, 0.1, 2.0, 5.0, 20.0), shift=(0.0, 0.0, 0.0, 0.1, 0.2)),
        "cifar": levels(factor=(0.3, 0.1, 1.5, 2.0, 2.5), shift=(0.0, 0.0, 0.0, 0.1, 0.2)),
    }
    differentiable, random = True, False
    not_monotone = "levels 1 and 2 take saturation away, levels 3 to 5 add it, and these are two scales"

    def check(self, modality: Modality) -> None:
        super().check(modality)
        needs_colour(self.key, modality, "without colours there is no saturation to change")

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        factor, shift = plan.parameters["factor"], plan.parameters["shift"]
        before = x.clone() if x.requires_grad else x
        value = greatest(before)
        if shift == 0 and factor <= 1:  # 1 / s is at least 1
            return x.sub_(value).mul_(factor).add_(value).clamp_(0, 1), mask
        spread = value - least(before)
        gain = value / spread.clamp(min=TINY)  # 1 / s
        gain = torch.minimum(gain, gain * shift + factor) if shift else gain.clamp_(max=factor)
        grey = spread <= TINY if shift and float(spread.detach().amin()) <= TINY else None
        if grey is not None:
            gain = gain.masked_fill(grey, 0)
        x.sub_(value)
        x = torch.addcmul(value, x, gain) if x.requires_grad else torch.addcmul(value, x, gain, out=x)
        if grey is not None:
            x[:, 1:] = torch.where(grey, value * (1 - min(shift, 1.0)), x[:, 1:])
        return x.clamp_(0, 1), mask


@OPERATORS.register("gamma")
class Gamma(Picture):
    """``x ** g`` in half of the rows, drawn at random, and ``x ** (1 / g)`` in the others: too dark or too bright.

    g is ``exponent ** t`` with t from U(0.5, 1) in each row.
    """

    key, kind = "gamma", "image"
    title = "another tone curve, as of a screen or a conversion that is set wrongly"
    source = (
        "a power law, as gamma contrast in MMCBench (arXiv 2401.11943); exponents proposed here: 2.2 is about an sRGB "
        "curve that was forgotten or applied twice; mnist: steeper, since only the rims of strokes are grey"
    )
    parameters = {  # noqa: RUF012
        "any": levels(exponent=(1.25, 1.5, 1.85, 2.2, 3.0)),
        "mnist": levels(exponent=(1.5, 2.2, 3.5, 6.0, 10.0)),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        side, size = plan.uniforms(index, 2).unbind(1)
        powers = float(plan.parameters["exponent"]) ** (torch.where(side < 0.5, -0.5, 0.5) * (1 + size))
        x = x.clamp_(0, 1)
        if x.requires_grad:  # the slope of a root at 0 is infinite; black stays black
            return torch.where(x > 0, x.clamp(min=TINY) ** powers.view(-1, 1, 1, 1).to(x), 0), mask
        for row, power in zip(x, powers.tolist(), strict=True):
            raise_to(row, power)
        return x, mask


@OPERATORS.register("colour_quantisation")
class ColourQuantisation(Picture):
    """Each channel rounded to ``2 ** bits`` evenly spaced values from 0 to 1."""

    key, kind = "colour_quantisation", "image"
    title = "few grey levels or colours"
    source = f"quantize of {MNIST_C}; levels 2 to 4 are RoboBEV's (Daniel-xsy/RoboBEV) easy, mid and hard"
    parameters = {"any": levels(bits=(5, 4, 3, 2, 1))}  # noqa: RUF012
    random = False

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        steps = max(2.0 ** plan.parameters["bits"] - 1, 1.0)
        return x.mul_(steps).round_().div_(steps).clamp_(0, 1), mask


@OPERATORS.register("pixelate")
class Pixelate(Picture):
    """Shrunk to ``share`` of each side by averaging boxes, and enlarged again without smoothing.

    Boxes and positions are those of Pillow, ``Resampling.BOX`` and ``Resampling.NEAREST``, without its rounding to bytes.
    """

    key, kind = "pixelate", "image"
    title = "enlarged from few pixels"
    source = (
        f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: the values of imagenet, which {MNIST_C} has in "
        "its code, though not in its published set"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(share=(0.6, 0.5, 0.4, 0.3, 0.25)),
        "cifar": levels(share=(0.95, 0.9, 0.85, 0.75, 0.65)),
        "mnist": levels(share=(0.8, 0.65, 0.55, 0.45, 0.35)),
    }
    differentiable, random = True, False

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        share, (height, width) = plan.parameters["share"], x.shape[-2:]
        down, back = _boxes(height, max(1, int(height * share)))
        across, forth = _boxes(width, max(1, int(width * share)))
        small = _shrink(_shrink(x, 2, down), 3, across)
        return small.index_select(3, forth.to(x.device)).index_select(2, back.to(x.device)).clamp_(0, 1), mask


@lru_cache(maxsize=64)
def _boxes(size: int, small: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Pixels to add, with their weights, for a shrunk side, tap by tap; and the shrunk pixel of each pixel."""
    scale = size / small
    centre = (torch.arange(small, dtype=torch.float64) + 0.5) * scale
    first = (centre - scale / 2 + 0.5).long().clamp(0, size)
    stop = (centre + scale / 2 + 0.5).long().clamp(0, size)
    count = (stop - first).clamp(min=1)
    taps = [
        ((first + tap).clamp(max=size - 1), torch.where(tap < count, 1 / count, 0)) for tap in range(int(count.max()))
    ]
    back = ((torch.arange(size, dtype=torch.float64) + 0.5) / scale).long().clamp(max=small - 1)
    return taps, back


def _shrink(x: Tensor, axis: int, taps: list[tuple[Tensor, Tensor]]) -> Tensor:
    shape = [-1, 1] if axis == 2 else [-1]
    out: Tensor | None = None
    for at, weight in taps:
        part = x.index_select(axis, at.to(x.device)).mul_(weight.to(x).view(shape))
        out = part if out is None else out.add_(part)
    assert out is not None
    return out


@OPERATORS.register("jpeg_compression")
class JpegCompression(Picture):
    """Written as JPEG of a ``quality`` from 1 to 95 by Pillow, and read again; colours at half the resolution (4:2:0).

    One channel is written as grey, three as red, green and blue, others one by one as grey. The picture has 8 bits
    afterwards. Needs Pillow, of the extra ``image``.
    """

    key, kind = "jpeg_compression", "image"
    title = "compressed too much"
    source = (
        f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}; mnist: the values of imagenet, which {MNIST_C} has in "
        "its code, though not in its published set"
    )
    parameters = {  # noqa: RUF012
        "imagenet": levels(quality=(25, 18, 15, 10, 7)),
        "cifar": levels(quality=(80, 65, 58, 50, 40)),
        "mnist": levels(quality=(25, 18, 15, 10, 7)),
    }
    random = False

    def check(self, modality: Modality) -> None:
        super().check(modality)
        _pillow()

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        image, quality = _pillow(), int(plan.parameters["quality"])
        values = x.detach().mul(255).add_(0.5).cpu().numpy().astype(np.uint8)  # three times as fast as torch
        for row in values:
            planes = [image.fromarray(plane) for plane in row]
            groups = [image.merge("RGB", planes)] if len(planes) == 3 else planes
            bands = [band for group in groups for band in _compressed(image, group, quality).split()]
            for plane, band in zip(row, bands, strict=True):
                plane[:] = np.asarray(band)
        return x.detach().copy_(torch.from_numpy(values)).div_(255), mask


def _compressed(image: Any, picture: Any, quality: int) -> Any:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    file.seek(0)
    return image.open(file)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("jpeg_compression needs Pillow: pip install 'kintsugi-ml[image]'") from error
    return Image
