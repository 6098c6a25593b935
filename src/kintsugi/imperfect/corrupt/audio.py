"""Corruptions of audio: ``[R, samples]`` in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.imperfect.operator import OPERATORS, Operator, levels
from kintsugi.imperfect.plan import Plan


def sounding(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Bool ``[R, samples]``: from the first to the last sample of a clip that is not zero (and exists).

    Zeros around a clip are padding, not content; pauses within it are content.
    """
    heard = x != 0 if mask is None else (x != 0) & mask
    after = heard.cumsum(-1) > 0
    before = heard.flip(-1).cumsum(-1).flip(-1) > 0
    return after & before


@OPERATORS.register("white_noise")
class WhiteNoise(Operator):
    """White gaussian noise at a signal-to-noise ratio of ``snr`` dB, then clipped to [-1, 1].

    The ratio is that of the clip's own mean power to the noise's, both over the content of the clip (:func:`sounding`),
    and it is exact before clipping. Padding stays zero, and a silent clip stays silent: it has no level to relate noise
    to. Clips that reach beyond [-1, 1] are clipped at their own peak. Noise is drawn for the content only, so it does
    not depend on how far a batch is padded.
    """

    key, kind = "white_noise", "audio"
    title = "white noise at a signal-to-noise ratio"
    source = (
        "definition: Speech Robust Bench, arXiv 2403.07937, whose levels are 10, 5, 1 and -10 dB; "
        "20 to 0 dB in steps of 5: proposed here, since five even steps start where noise is hardly heard"
    )
    parameters = {"default": levels(snr=(20, 15, 10, 5, 0))}  # noqa: RUF012
    differentiable = True

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        content = sounding(x.detach(), mask)
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        clean = torch.where(content, x, 0).to(exact)
        noise = _unit_noise(content, index, plan).to(clean)
        samples = content.sum(-1, keepdim=True).clamp(min=1)
        level = (clean.detach().square().sum(-1, keepdim=True) / samples).sqrt()
        peak = clean.detach().abs().amax(-1, keepdim=True).clamp(min=1)
        noisy = clean + noise * level * 10 ** (-plan.parameters["snr"] / 20)
        noisy = torch.minimum(torch.maximum(noisy, -peak), peak)
        return torch.where(content, noisy.to(x.dtype), x), mask


def _unit_noise(content: Tensor, index: Tensor, plan: Plan) -> Tensor:
    """Normal noise of mean power 1 over the content of each row, zero elsewhere: ``[R, samples]`` on the CPU."""
    where = content.cpu()
    noise = torch.zeros(where.shape)
    for row, here, generator in zip(noise, where, plan.generators(index), strict=True):
        drawn = torch.randn(int(here.sum()), generator=generator)
        row[here] = drawn / drawn.square().mean().sqrt()  # an empty row takes nothing
    return noise
