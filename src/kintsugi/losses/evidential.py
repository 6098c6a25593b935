"""Losses of a normal-inverse-gamma distribution, one value an element; the caller sums over branches and averages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kintsugi.core.errors import DataError
from kintsugi.layers.evidential import NIG

LARGE = 16.0  # from here on lgamma loses more digits than Stirling's series


def nig_nll(nig: NIG, y: Tensor) -> Tensor:
    """Minus the log-density of y, in nats: y ``[B, ...]`` of the parameters' shape, not reduced.

    With ``O = 2 beta (1 + v)``: ``1/2 log(pi / v) - alpha log O + (alpha + 1/2) log(v (y - mu)^2 + O) + lgamma(alpha) -
    lgamma(alpha + 1/2)``: Amini et al., "Deep evidential regression", NeurIPS 2020, equation 8. It is that of a Student
    t with 2 alpha degrees of freedom, location mu and scale ``sqrt(beta (1 + v) / (v alpha))``.

    Raises:
        DataError: y and the parameters differ in shape.
    """
    _check(nig, y)
    mu, v, alpha, beta = nig
    omega = 2 * beta * (1 + v)
    misfit = v * (y - mu).square()
    # the two logarithms that alpha multiplies as one: their difference would cancel where alpha is large
    return (
        0.5 * (math.log(math.pi) - torch.log(v))
        + alpha * torch.log1p(misfit / omega)
        + 0.5 * torch.log(misfit + omega)
        + _log_gamma_drop(alpha)
    )


def _log_gamma_drop(a: Tensor) -> Tensor:
    """``lgamma(a) - lgamma(a + 1/2)`` for a above 0, without their cancellation where a is large.

    From ``LARGE`` on by the difference of Stirling's series (DLMF 5.11.8, at 1/2): ``-1/2 log a + 1/(8 a) - 1/(192 a^3) +
    1/(640 a^5) - 17/(14336 a^7)``; what is left out is below 3e-14 there.
    """
    large = a.clamp(min=LARGE)
    x = 1 / large
    series = -0.5 * torch.log(large) + x * (1 / 8 - x**2 * (1 / 192 - x**2 * (1 / 640 - x**2 * 17 / 14336)))
    return torch.where(a < LARGE, torch.lgamma(a) - torch.lgamma(a + 0.5), series)


def nig_regulariser(nig: NIG, y: Tensor) -> Tensor:
    """Evidence given for a wrong answer, ``|y - mu| (2 v + alpha)``: ``[B, ...]``, not reduced.

    Amini et al. (2020), equation 9; its weight there and in MoNIG (Ma et al., NeurIPS 2021) is 0.01.

    Raises:
        DataError: y and the parameters differ in shape.
    """
    _check(nig, y)
    return (y - nig.mu).abs() * (2 * nig.v + nig.alpha)


def _check(nig: NIG, y: Tensor) -> None:
    """Broadcasting ``[B, 1]`` against ``[B]`` would give ``[B, B]`` numbers that mean nothing."""
    if any(part.shape != y.shape for part in nig):
        raise DataError(
            f"the target is {list(y.shape)} and the distribution {[list(part.shape) for part in nig]}; "
            "give them one shape"
        )
