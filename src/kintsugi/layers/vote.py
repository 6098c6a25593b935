"""Merging answers: present voters only, renormalised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kintsugi.core.errors import ConfigError


def vote(outputs: Tensor, present: Tensor, task: str, merge: str = "mean") -> tuple[Tensor, Tensor]:
    """Outputs ``[B, M, ...]`` of M voters, present bool ``[B, M]`` -> merged output ``[B, ...]`` and weights ``[B, M]``.

    ``mean``: of probabilities, returned as log-probabilities (logits of multilabel); ``product``: of probabilities, that
    is the sum of log-probabilities (logits of multilabel). Regression averages the numbers. A single voter's own output
    comes back unchanged. Rules as in Kittler et al., On Combining Classifiers, TPAMI 1998.

    Raises:
        ConfigError: unknown rule.
    """
    if merge not in ("mean", "product"):
        raise ConfigError(f"unknown merge rule {merge!r}; known: mean, product")
    weights = present.to(outputs.dtype) / present.sum(1, keepdim=True).clamp(min=1)
    wide = weights[..., None]
    if task == "regression":
        merged = (outputs * wide).sum(1)
    elif task == "multilabel":
        merged = (
            (outputs * present[..., None]).sum(1)
            if merge == "product"
            else ((outputs.sigmoid() * wide).sum(1)).logit(1e-6)
        )
    else:
        log_p = F.log_softmax(outputs, -1)
        if merge == "product":
            merged = (log_p * present[..., None]).sum(1)
        else:
            merged = torch.logsumexp(log_p + wide.clamp(min=1e-30).log(), 1)
    alone = (present.sum(1) == 1)[:, None]
    return torch.where(alone, (outputs * present[..., None]).sum(1), merged), weights
