"""Normal-inverse-gamma distributions: a number predicted together with how noisy it is and how little is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core.errors import ConfigError, DataError

FLOOR = 1e-6  # added to v and beta: softplus can underflow to 0, of which the likelihood takes the logarithm
ALPHA_FLOOR = 2.0**-20  # of alpha - 1, by which variances divide: about 1e-6, and 8 times the spacing of float32 at 1


class NIG(NamedTuple):
    """Parameters of normal-inverse-gamma distributions, each of one shape ``[B, ...]``.

    The variance of a target is inverse-gamma(alpha, beta), its mean normal around mu with variance / v: Amini et al.,
    "Deep evidential regression", NeurIPS 2020, section 3.1. v and beta are above 0, alpha above 1.
    """

    mu: Tensor
    v: Tensor
    alpha: Tensor
    beta: Tensor


class NIGHead(nn.Module):
    """``[..., dim] ->`` :class:`NIG` of ``[..., out]``: four linear heads.

    ``v = softplus``, ``alpha = 1 + softplus``, ``beta = softplus`` of their heads, mu without activation: Ma et al.
    (MoNIG), NeurIPS 2021, as Amini et al. (2020), section 3.3; v and beta are kept above ``FLOOR``, alpha from
    ``1 + ALPHA_FLOOR`` on, since 1 + softplus is exactly 1 in float32 for softplus below 6e-8. Half precision is computed
    in float32, for the same reason.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.mu = nn.Linear(dim, out)
        self.v = nn.Linear(dim, out)
        self.alpha = nn.Linear(dim, out)
        self.beta = nn.Linear(dim, out)

    def forward(self, x: Tensor) -> NIG:
        """Shapes as in the class."""
        mu, v, alpha, beta = (
            out.to(torch.promote_types(out.dtype, torch.float32))
            for out in (self.mu(x), self.v(x), self.alpha(x), self.beta(x))
        )
        excess = F.softplus(alpha)
        # raised without gradient of its own, so that an alpha at its floor can still learn
        excess = excess + (ALPHA_FLOOR - excess.detach()).clamp(min=0)
        return NIG(mu, F.softplus(v) + FLOOR, 1 + excess, F.softplus(beta) + FLOOR)


def nig_stack(members: Sequence[NIG]) -> NIG:
    """M distributions ``[B, ...]`` side by side: ``[B, M, ...]``, as :func:`nig_sum` takes them.

    Raises:
        ConfigError: no member.
    """
    if not members:
        raise ConfigError("nig_stack of no distribution; give at least one")
    return NIG(*(torch.stack(parts, 1) for parts in zip(*members, strict=True)))


def nig_sum(members: NIG, present: Tensor | None = None) -> NIG:
    """The summation of n normal-inverse-gamma distributions in closed form: ``[B, M, ...] -> [B, ...]``.

    ``v = sum v_m``, ``mu = sum v_m mu_m / v``, ``alpha = sum alpha_m + (n - 1) / 2``,
    ``beta = sum beta_m + sum v_m (mu_m - mu)^2 / 2``: what folding the pairwise summation of Ma et al. ("Trustworthy
    multimodal regression with mixture of normal-inverse gamma distributions", NeurIPS 2021, equation 9) over the
    members gives, in whichever order.

    Args:
        members: M distributions along dimension 1.
        present: bool ``[B, M]``; members that are absent do not count, and what stands in their slots is never read.
            A row without any gives mu 0, v 0, alpha 1, beta 1: aleatoric and epistemic uncertainty are infinite.

    Raises:
        DataError: parameters of different shapes, or ``present`` that is not ``[B, M]``.
    """
    shape = members.mu.shape
    if any(part.shape != shape for part in members) or len(shape) < 2:
        raise DataError(f"nig_sum takes four tensors [B, M, ...] of one shape, not {[list(p.shape) for p in members]}")
    if present is None:
        present = torch.ones(shape[:2], dtype=torch.bool, device=members.mu.device)
    if present.shape != shape[:2]:
        raise DataError(f"present is {list(present.shape)}; for these members it must be {list(shape[:2])}")
    counts = present.view(*present.shape, *[1] * (len(shape) - 2))
    mu, v, alpha, beta = (torch.where(counts, part, 0) for part in members)
    number = counts.sum(1)
    alone = number == 0
    total = v.sum(1)
    mean = (v * mu).sum(1) / torch.where(alone, 1, total)
    spread = (v * (mu - mean[:, None]).square()).sum(1) / 2
    return NIG(
        mean,
        total,
        torch.where(alone, 1, alpha.sum(1) + (number - 1) / 2),
        torch.where(alone, 1, beta.sum(1) + spread),
    )


def aleatoric(nig: NIG) -> Tensor:
    """Expected variance of the target, ``beta / (alpha - 1)``, in squared units of the target: ``[B, ...]``.

    Amini et al. (2020), equation 5.
    """
    return nig.beta / (nig.alpha - 1)


def epistemic(nig: NIG) -> Tensor:
    """Variance of the mean, ``beta / (v (alpha - 1))``, in squared units of the target: ``[B, ...]``.

    Amini et al. (2020), equation 5.
    """
    return nig.beta / (nig.v * (nig.alpha - 1))
