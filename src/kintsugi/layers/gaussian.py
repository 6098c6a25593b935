"""Diagonal Gaussians: as the output of a network, fused as experts, sampled, and held near the unit Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOGVAR_BOUND = 8.0  # standard deviations from 0.018 to 55; exp stays far from overflow, also in float16


class GaussianHead(nn.Module):
    """``[..., dim] -> (mean, logvar)``, both ``[..., out]``; logvar lies within ±``LOGVAR_BOUND``.

    The bound is a tanh, not a hard clamp: a value at the bound keeps a gradient that leads back.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.mean = nn.Linear(dim, out)
        self.logvar = nn.Linear(dim, out)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as in the class."""
        return self.mean(x), LOGVAR_BOUND * torch.tanh(self.logvar(x) / LOGVAR_BOUND)


def product_of_experts(mean: Tensor, logvar: Tensor, present: Tensor, prior: bool = True) -> tuple[Tensor, Tensor]:
    """The product of the Gaussians of the present modalities: mean and logvar ``[B, Z]``.

    With precisions ``T_i = exp(-logvar_i)``: ``mean = sum(mean_i T_i) / sum(T_i)``, ``var = 1 / sum(T_i)``; the sums
    run over the present experts and, with ``prior``, the unit Gaussian (mean 0, T = 1). Wu and Goodman, "Multimodal
    generative models for scalable weakly-supervised learning", NeurIPS 2018, after Cao and Fleet (2014).

    Args:
        mean: ``[B, M, Z]``; what stands in an absent slot is never read.
        logvar: ``[B, M, Z]``.
        present: bool ``[B, M]``. A row without any expert gives the unit Gaussian, also without ``prior``.
        prior: the unit Gaussian is one of the experts.
    """
    here = present[..., None]
    precision = torch.where(here, torch.exp(-torch.where(here, logvar, 0)), 0)
    weighted = (torch.where(here, mean, 0) * precision).sum(1)
    total = precision.sum(1) + (1.0 if prior else (~present.any(1, keepdim=True)).to(precision.dtype))
    return weighted / total, -torch.log(total)


def sample(mean: Tensor, logvar: Tensor, *, on: bool) -> Tensor:
    """``mean + exp(logvar / 2) * noise`` (Kingma and Welling, ICLR 2014, section 2.4) with ``on``, else the mean."""
    return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean) if on else mean


def kl_unit(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of each row from the unit Gaussian, in nats: ``[B, ...] -> [B]``.

    ``1/2 sum(exp(logvar) + mean^2 - 1 - logvar)``: Kingma and Welling, ICLR 2014, appendix B.
    """
    return 0.5 * (logvar.exp() + mean.square() - 1 - logvar).flatten(1).sum(1)
