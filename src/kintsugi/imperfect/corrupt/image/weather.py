"""Weather in images: ``[R, C, H, W]`` in [0, 1]. For lengths in pixels see :mod:`kintsugi.imperfect.corrupt.image.blur`."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.image import _drops, _textures
from kintsugi.imperfect.corrupt.image._blur import streak, zoom_filter
from kintsugi.imperfect.corrupt.image._common import Picture, gaussian, gaussian_taps, grey, relative, tinted
from kintsugi.imperfect.corrupt.image.blur import sized
from kintsugi.imperfect.corrupt.image.noise import CIFAR_C, IMAGENET_C, MNIST_C
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

_SOURCE = f"definition and imagenet: {IMAGENET_C}; cifar: {CIFAR_C}"
WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
MUD = (63 / 255, 42 / 255, 20 / 255)


@OPERATORS.register("fog")
class Fog(Picture):
    """``(x + c p) m / (m + c)``, c the ``density``, p plasma in [0, 1] and m the largest value of the picture.

    Plasma is a fractal by the diamond-square algorithm; the size of its bumps falls by ``decay`` squared at each halving.
    It is made for the next power of two from the larger side on, and cut. (MNIST-C cuts 28 pixels out of 256, where
    hardly any structure is left; here ``mnist`` too has plasma of its own size.)
    """

    key, kind = "fog", "image"
    title = "fog"
    source = f"{_SOURCE}; mnist: {MNIST_C}, level 5 in the published set"
    parameters = {  # noqa: RUF012
        "imagenet": levels(density=(1.5, 2, 2.5, 2.5, 3), decay=(2, 2, 1.7, 1.5, 1.4)),
        "cifar": levels(density=(0.2, 0.5, 0.75, 1, 1.5), decay=(3, 3, 2.5, 2, 1.75)),
        "mnist": levels(density=(1.5, 2, 2.5, 2.5, 3), decay=(2, 2, 1.7, 1.5, 1.4)),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        height, width = x.shape[-2:]
        size = 1 << (max(height, width) - 1).bit_length()
        density = plan.parameters["density"]
        heights = _textures.plasma(plan.uniform(index, size, size), plan.parameters["decay"])
        most = x.flatten(1).amax(1)
        x = x.clone() if x.requires_grad else x  # the gradient of the largest value needs what it was found in
        x = x.add_(heights[:, None, :height, :width].to(x), alpha=density)
        return x.mul_((most / (most + density)).view(-1, 1, 1, 1)).clamp_(0, 1), mask


@OPERATORS.register("frost")
class Frost(Picture):
    """``clip(picture x + ice f, 0, 1)``, f a random part of one of five pictures of frost on a window.

    The pictures are not the published photographs but computed ones of the same colours and contrasts, 5/2 as large as
    what is damaged, of 224 pixels at most (larger parts are enlarged). As published, the last of six photographs is never
    drawn and two of the five are the same. Where there are not three channels, the frost is grey.
    """

    key, kind = "frost", "image"
    title = "frost on the window or the lens"
    source = f"{_SOURCE}; mnist: the code of {MNIST_C}; pictures: computed"
    parameters = {  # noqa: RUF012
        "imagenet": levels(picture=(1, 0.8, 0.7, 0.65, 0.6), ice=(0.4, 0.6, 0.7, 0.7, 0.75)),
        "cifar": levels(picture=(1, 1, 0.9, 0.85, 0.75), ice=(0.2, 0.3, 0.4, 0.4, 0.45)),
        "mnist": levels(picture=(1, 0.8, 0.7, 0.65, 0.6), ice=(0.4, 0.6, 0.7, 0.7, 0.75)),
    }
    differentiable = True
    not_monotone = (
        "in the published parameters level 4 has as much ice as level 3 over a darker picture, which on bright pictures is "
        "closer to the clean one"
    )

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        side = max(x.shape[-2:])
        pictures = _textures.frost_pictures(min(side, _textures.LARGEST)).to(x)
        shrink = min(1.0, _textures.LARGEST / side)
        height, width = (max(1, round(n * shrink)) for n in x.shape[-2:])
        room = torch.tensor([len(pictures), pictures.shape[-2] - height + 1, pictures.shape[-1] - width + 1])
        x = x.mul_(plan.parameters["picture"])
        for row, (look, top, left) in enumerate((plan.uniforms(index, 3, "part") * room).long().tolist()):
            part = pictures[look, :, top : top + height, left : left + width]
            if shrink < 1:
                part = torch.nn.functional.interpolate(part[None], x.shape[-2:], mode="bilinear", antialias=False)[0]
            x[row].add_(part if x.shape[1] == 3 else grey(part[None])[0], alpha=plan.parameters["ice"])
        return x.clamp_(0, 1), mask


@OPERATORS.register("snow")
class Snow(Picture):
    """Flakes that fall: noise above a ``threshold``, enlarged, smeared downwards, added twice, once turned by 180 degrees.

    The picture itself is whitened: ``mix x + (1 - mix) max(x, 1.5 grey + 0.5)``. The angle is drawn for each row from -135
    to -45 degrees. The published code rounds the layer to 8 bits, here it is not.
    """

    key, kind = "snow", "image"
    title = "falling snow"
    source = f"{_SOURCE}; mnist: proposed here, the cifar values with more of them, since MNIST-C's are for 224 pixels"
    parameters = {  # noqa: RUF012
        "imagenet": sized(
            224,
            mean=(0.1, 0.2, 0.55, 0.55, 0.55),
            sd=(0.3, 0.3, 0.3, 0.3, 0.3),
            zoom=(3, 2, 4, 4.5, 2.5),
            threshold=(0.5, 0.5, 0.9, 0.85, 0.85),
            radius=(10, 12, 12, 12, 12),
            sigma=(4, 4, 8, 8, 12),
            mix=(0.8, 0.7, 0.7, 0.65, 0.55),
        ),
        "cifar": sized(
            32,
            mean=(0.1, 0.1, 0.15, 0.25, 0.3),
            sd=(0.2, 0.2, 0.3, 0.3, 0.3),
            zoom=(1, 1, 1.75, 2.25, 1.25),
            threshold=(0.6, 0.5, 0.55, 0.6, 0.65),
            radius=(8, 10, 10, 12, 14),
            sigma=(3, 4, 4, 6, 12),
            mix=(0.95, 0.9, 0.9, 0.85, 0.8),
        ),
        "mnist": sized(
            28,
            mean=(0.1, 0.15, 0.2, 0.25, 0.3),
            sd=(0.3, 0.3, 0.3, 0.3, 0.3),
            zoom=(1.25, 1.25, 1.25, 1.25, 1.25),
            threshold=(0.55, 0.55, 0.55, 0.55, 0.55),
            radius=(6, 6, 7, 7, 7),
            sigma=(1.5, 2, 2, 2.5, 3),
            mix=(0.95, 0.9, 0.9, 0.85, 0.8),
        ),
    }
    differentiable = True
    not_monotone = "levels 2 and 3 of the published imagenet values do as much damage: fewer and larger flakes"

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        said, (height, width) = plan.parameters, x.shape[-2:]
        shrink = relative(x, said["side"])
        layer = plan.normal(index, height, width).mul_(said["sd"]).add_(said["mean"])
        zoom = max(1.0, said["zoom"] * shrink)
        for size, way in ((width, "across"), (height, "down")):
            layer = getattr(zoom_filter(zoom, size, layer.dtype, layer.device), way)(layer)
        layer = torch.nn.functional.threshold(layer, said["threshold"], 0.0, inplace=True).clamp_(max=1)
        degrees = plan.uniforms(index, 1, "angle")[:, 0] * 90 - 135
        layer = streak(layer, max(1, round(said["radius"] * shrink)), said["sigma"] * shrink, degrees)
        flakes = layer.add(layer.flip(-1, -2))[:, None].to(x)
        white = torch.maximum(x, grey(x).mul_(1.5).add_(0.5))
        x = x.clone() if x.requires_grad else x  # the gradient of the maximum needs what it was found in
        return x.mul_(said["mix"]).add_(white, alpha=1 - said["mix"]).add_(flakes).clamp_(0, 1), mask


@OPERATORS.register("spatter")
class Spatter(Picture):
    """Drops on the lens where a smooth random layer exceeds a ``threshold``: water that shines, or ``mud`` that covers.

    Water adds ``mix`` times pale turquoise, most where the embossed distance from the drops' rims is large; mud replaces
    what is below it, its rim softened by a gaussian of ``mix`` pixels. Edges are found without hysteresis, distances are
    exact instead of chamfer distances, and nothing is rounded to 8 bits but the distances that are equalised. Where
    ``side`` makes the drops smaller, though never smaller than a pixel, the layer keeps its spread, and so the share of
    the picture that is covered.
    """

    key, kind = "spatter", "image"
    not_monotone = (
        "in the published parameters level 3 covers more than level 4, which at 224 pixels is made up for by mud being "
        "darker than water, at 32 and 28 pixels not always"
    )
    title = "spatter on the lens: drops of water, at the higher levels mud"
    source = f"{_SOURCE}; mnist: {MNIST_C}, level 4 in the published set (mud at all levels)"
    parameters = {  # noqa: RUF012
        "imagenet": sized(
            224,
            mean=(0.65, 0.65, 0.65, 0.65, 0.67),
            sd=(0.3, 0.3, 0.3, 0.3, 0.4),
            sigma=(4, 3, 2, 1, 1),
            threshold=(0.69, 0.68, 0.68, 0.65, 0.65),
            mix=(0.6, 0.6, 0.5, 1.5, 1.5),
            mud=(0, 0, 0, 1, 1),
        ),
        "cifar": sized(
            32,
            mean=(0.62, 0.65, 0.65, 0.65, 0.65),
            sd=(0.1, 0.1, 0.3, 0.1, 0.1),
            sigma=(0.7, 0.8, 1, 0.7, 0.5),
            threshold=(0.7, 0.7, 0.69, 0.69, 0.68),
            mix=(0.5, 0.5, 0.5, 0.6, 0.6),
            mud=(0, 0, 0, 1, 1),
        ),
        "mnist": sized(
            28,
            mean=(0.65, 0.65, 0.65, 0.65, 0.67),
            sd=(0.3, 0.3, 0.3, 0.3, 0.4),
            sigma=(4, 3, 2, 1, 1),
            threshold=(0.69, 0.68, 0.68, 0.65, 0.65),
            mix=(0.6, 0.6, 0.5, 1.5, 1.5),
            mud=(1, 1, 1, 1, 1),
        ),
    }
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        said = plan.parameters
        shrink = relative(x, said["side"])
        shrink = max(shrink, min(1.0, 1 / said["sigma"]))  # drops are not smaller than a pixel
        wanted, sigma = said["sigma"], said["sigma"] * shrink
        # Smoothing divides the standard deviation by the root of the squared weights' sum, once for each axis.
        kept = float(gaussian_taps(wanted).square().sum() / gaussian_taps(sigma).square().sum())
        layer = gaussian(plan.normal(index, *x.shape[-2:]), sigma).mul_(said["sd"] * kept).add_(said["mean"])
        if said["mud"]:
            drops = gaussian((layer > said["threshold"]).float(), said["mix"] * shrink)
            drops = torch.nn.functional.threshold(drops, 0.8, 0.0, inplace=True)[:, None].to(x)
            return x.mul_(1 - drops).add_(drops * tinted(x, MUD)).clamp_(0, 1), mask
        layer = torch.nn.functional.threshold(layer, said["threshold"], 0.0, inplace=True).clamp_(max=1)
        light = _drops.water(layer, max(2, round(20 * shrink))).mul_(said["mix"])
        return x.add_(light[:, None].to(x) * tinted(x, WATER)).clamp_(0, 1), mask
