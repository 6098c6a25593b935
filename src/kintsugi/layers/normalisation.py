"""Normalisation layers that can be trained by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Together(torch.autograd.Function):
    """The identity of several tensors; whoever needs the gradient of one makes those of all be computed."""

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing to keep; a method of its own so that ``torch.func`` can follow."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients


_together: Callable[..., tuple[Tensor, ...]] = _Together.apply


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` whose weight and bias may be all that is trained; arguments, state and numbers are its own.

    On a CPU the backward pass of torch (2.13) kills the process where the input is in the memory format channels_last
    and only the weight or the bias is asked for: since what comes before is frozen, or since ``torch.autograd.grad``
    names these parameters only. Here the gradient of the input is always worked out with theirs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, ...] -> [B, C, ...]``."""
        affine: list[Tensor] = [p for p in (self.weight, self.bias) if p is not None]
        if torch.is_grad_enabled() and any(p.requires_grad for p in affine):
            x, *affine = _together(x, *affine)
        weight, bias = (*affine, None, None)[:2]
        return F.group_norm(x, self.num_groups, weight, bias, self.eps)
