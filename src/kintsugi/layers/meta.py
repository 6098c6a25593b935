"""Inner loops: a step of gradient descent whose result is still a function of the weights (MAML; Finn et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError


def fast_weights(
    model: nn.Module, loss: Tensor, lr: float, only: Sequence[str] = ("*",), second_order: bool = True
) -> dict[str, Tensor]:
    """``w - lr * d loss / d w`` for the moving parameters whose name matches ``only``; keeps the graph for the outer loss."""
    named = {
        name: p
        for name, p in model.named_parameters()
        if p.requires_grad and any(fnmatchcase(name, pattern) for pattern in only)
    }
    if not named:
        raise ConfigError(f"an inner step over {', '.join(only)} moves no parameter of {type(model).__name__}")
    grads = torch.autograd.grad(loss, list(named.values()), create_graph=second_order, allow_unused=True)
    return {n: p if g is None else p - lr * g for (n, p), g in zip(named.items(), grads, strict=True)}
