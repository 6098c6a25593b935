"""Sequences with lost steps, read in both directions of time by gated causal convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.errors import ConfigError
from kintsugi.layers.positions import sinusoid

DILATIONS = (1, 2, 4, 8)  # of MITR-DNet, with a kernel of 2: 16 steps are in reach
LEAST = 16  # width of all levels together: four channels for each norm


def reach(mask: Tensor) -> Tensor:
    """Steps up to the last one seen, of a sequence of which nothing is seen the first alone: bool ``[B, T] -> [B, T]``.

    What is behind the last step seen may be padding, whose length must not matter; holes before it are holes.
    """
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return (mask.flip(1).cumsum(1).flip(1) > 0) | first


def mean_over(x: Tensor, steps: Tensor) -> Tensor:
    """Mean of ``[B, T, D]`` over some steps (bool ``[B, T]``, at least one a row): ``[B, D]``."""
    return torch.where(steps[..., None], x, 0).sum(1) / steps.sum(1, keepdim=True)


class CausalAttention(nn.Module):
    """One pre-norm transformer layer of one head in which a step sees itself and what was before: ``[B, T, D] -> [B, T, D]``.

    Input times sqrt(D), plus sinusoids; feed-forward of 4 D with ReLU; a LayerNorm at the end. The encoder of the cross-modal
    transformer (Tsai et al., ACL 2019), as MITR-DNet uses it in the authors' code. Zeros at lost steps are seen as such.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        steps, dim = x.shape[1:]
        x = x * dim**0.5 + sinusoid((steps,), dim, x.device).to(x.dtype)
        query, key, value = self.qkv(self.norm1(x)).chunk(3, -1)
        later = torch.ones(steps, steps, dtype=torch.bool, device=x.device).triu(1)
        scores = (query @ key.transpose(1, 2) * dim**-0.5).masked_fill(later, -torch.inf)
        x = x + self.out(scores.softmax(-1) @ value)
        out: Tensor = self.norm3(x + self.feed(self.norm2(x)))
        return out


class CausalUnit(nn.Module):
    """``dropout(ReLU(norm(causal convolution)))``: ``[B, T, D] -> [B, T, copies * C]``; no step depends on later ones.

    The norm is over the channels of a step, in place of the batch norm of MITR-DNet, so that rows do not depend on each other.

    Args:
        dim, width: D and C.
        kernel, dilation: of the convolution.
        dropout: at the end.
        copies: units that are computed together, each with weights and a norm of its own.
    """

    def __init__(
        self, dim: int, width: int, kernel: int = 1, dilation: int = 1, dropout: float = 0.0, copies: int = 1
    ) -> None:
        super().__init__()
        self.shifts = [dilation * i for i in reversed(range(kernel))]
        self.conv = nn.Linear(
            kernel * dim, copies * width
        )  # of the steps that a kernel covers, the earliest first: fast if narrow
        self.norm: nn.Module = _Norm(copies, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        covered = [functional.pad(x, (0, 0, shift, 0))[:, : x.shape[1]] if shift else x for shift in self.shifts]
        y = self.conv(torch.cat(covered, 2) if len(covered) > 1 else x)
        out: Tensor = self.dropout(functional.relu(self.norm(y)))
        return out


class _Norm(nn.Module):
    """LayerNorm of each of several parts of the channels: ``[..., copies * width]``."""

    def __init__(self, copies: int, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(copies * width)), nn.Parameter(torch.zeros(copies * width))
        self.copies, self.width = copies, width

    def forward(self, x: Tensor) -> Tensor:
        parts = x.unflatten(-1, (self.copies, self.width))
        return functional.layer_norm(parts, (self.width,)).flatten(-2) * self.weight + self.bias


class GatedBlock(nn.Module):
    """``x + conv1x1(tanh(U1(x)) * sigmoid(U2(x)))`` with two causal units of kernel 2: ``[B, T, C] -> [B, T, C]``.

    Both units end in a ReLU, before tanh and sigmoid, as in the authors' code of MITR-DNet (Wang et al., 2025).
    """

    def __init__(self, width: int, dilation: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.units = CausalUnit(width, width, 2, dilation, dropout, copies=2)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        signal, gate = self.units(x).chunk(2, -1)
        out: Tensor = x + self.out(torch.tanh(signal) * torch.sigmoid(gate))
        return out


class BidirectionalTemporal(nn.Module):
    """The bidirectional temporal representation of MITR-DNet (Wang et al., 2025): ``[B, T, D] -> [B, T, D]``.

    After a causal transformer layer, a sequence and the same reversed in time go through a unit of kernel 1 of their own to
    D / 4 channels, then both through the same four gated blocks, of dilations 1, 2, 4, 8. After each block the two are added,
    the second turned back; the four sums are side by side. Steps outside ``steps`` count as the zeros that causal
    convolutions have before the start, and are 0.

    Args:
        dim: D, a multiple of 4; at least 16, since the norm of a single channel is 0 whatever is in it, and that of two
            a sign.
        dropout: of units.

    Raises:
        ConfigError: another width.
    """

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % len(DILATIONS) or dim < LEAST:
            raise ConfigError(
                f"dim={dim} does not share out over {len(DILATIONS)} levels of time; it is a multiple of {len(DILATIONS)} and "
                f"at least {LEAST}"
            )
        width = dim // len(DILATIONS)
        self.context: nn.Module = CausalAttention(dim)
        self.forwards, self.backwards = (CausalUnit(dim, width, dropout=dropout) for _ in range(2))
        self.blocks = nn.ModuleList(GatedBlock(width, dilation, dropout) for dilation in DILATIONS)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """x ``[B, T, D]``; steps bool ``[B, T]``, True from the first step to the last that exists."""
        x = self.context(x)
        inside = torch.cat([steps, steps.flip(1)])[..., None]
        both = torch.where(inside, torch.cat([self.forwards(x), self.backwards(x.flip(1))]), 0)
        levels = []
        for block in self.blocks:
            both = torch.where(inside, block(both), 0)
            there, back = both.chunk(2)
            levels.append(there + back.flip(1))
        return torch.cat(levels, 2)
