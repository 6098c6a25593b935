"""Merging answers: present voters only, renormalised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kintsugi.core.errors import ConfigError
from kintsugi.core.task import Link, Task, link_of


def vote(outputs: Tensor, present: Tensor, link: Link | Task, merge: str = "mean") -> tuple[Tensor, Tensor]:
    """Outputs ``[B, M, ...]`` of M voters, present bool ``[B, M]`` -> merged output ``[B, ...]`` and weights ``[B, M]``.

    ``mean``: of probabilities, returned as log-probabilities (logits of ``sigmoid``); ``product``: of probabilities, that
    is the sum of log-probabilities (logits of ``sigmoid``). With the link ``identity`` the numbers are averaged. A single
    voter's own output comes back unchanged. Rules as in Kittler et al., On Combining Classifiers, TPAMI 1998.

    Args:
        outputs: as the task's loss wants them; classes of ``softmax`` are axis 2.
        present: who votes.
        link: how an output is read as probabilities, or the task that says it.
        merge: the rule.

    Raises:
        ConfigError: unknown rule or link.
    """
    if merge not in ("mean", "product"):
        raise ConfigError(f"unknown merge rule {merge!r}; known: mean, product")
    reading = link_of(link)
    wide_shape = (*present.shape, *[1] * (outputs.ndim - 2))
    weights = present.to(outputs.dtype) / present.sum(1, keepdim=True).clamp(min=1)
    wide, votes = weights.view(wide_shape), present.view(wide_shape)
    if reading == "identity":
        merged = (outputs * wide).sum(1)
    elif reading == "sigmoid":
        merged = (outputs * votes).sum(1) if merge == "product" else ((outputs.sigmoid() * wide).sum(1)).logit(1e-6)
    elif merge == "product":
        merged = (F.log_softmax(outputs, 2) * votes).sum(1)
    else:
        merged = torch.logsumexp(F.log_softmax(outputs, 2) + wide.clamp(min=1e-30).log(), 1)
    alone = (present.sum(1) == 1).view(-1, *[1] * (outputs.ndim - 2))
    return torch.where(alone, (outputs * votes).sum(1), merged), weights
