"""Losses that compare distributions over classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kintsugi.core.errors import DataError


def mutual_information(log_probabilities: Tensor, eps: float = 1e-5) -> Tensor:
    """Mutual information of a row's prediction and the version of the row that was shown, in nats: ``[B, V, C] -> [B]``.

    The V versions are equally likely. With pbar the mean of their distributions p_k:
    ``H(pbar) - mean_k H(p_k)``, ``H(p) = -sum_c p_c log(p_c + eps)``: Ramazanova et al., "Test-time adaptation for
    combating missing modalities in egocentric videos" (MiDl), ICLR 2025. 0 where all versions give one distribution. The
    mean runs over the versions of one row, never over rows. Nothing is detached.

    Args:
        log_probabilities: natural logarithms of probabilities that sum to 1 over C.
        eps: inside the logarithms, as in the authors' code.

    Raises:
        DataError: not three dimensions, or no version.
    """
    if log_probabilities.dim() != 3 or not log_probabilities.shape[1]:
        raise DataError(
            f"mutual_information takes log-probabilities [B, V, C] of at least one version, not "
            f"{list(log_probabilities.shape)}"
        )
    p = log_probabilities.exp()
    return _entropy(p.mean(1), eps) - _entropy(p, eps).mean(1)


def _entropy(p: Tensor, eps: float) -> Tensor:
    return -(p * torch.log(p + eps)).sum(-1)


def kl_between(frozen_logits: Tensor, live_logits: Tensor) -> Tensor:
    """``KL(frozen || live)`` of the softmax distributions over the last dimension, in nats: ``[B, ..., C] -> [B, ...]``.

    Self-distillation: the frozen distribution stands first and gets no gradient (MiDl, ICLR 2025).

    Raises:
        DataError: logits of different shapes.
    """
    if frozen_logits.shape != live_logits.shape:
        raise DataError(
            f"kl_between of logits of different shapes, {list(frozen_logits.shape)} and {list(live_logits.shape)}; "
            "give one distribution for each"
        )
    target, live = (F.log_softmax(logits, -1) for logits in (frozen_logits.detach(), live_logits))
    return (target.exp() * (target - live)).sum(-1)
