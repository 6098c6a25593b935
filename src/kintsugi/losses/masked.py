"""Losses of what was masked: the mean over masked positions alone, and 0 with a gradient where there is none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kintsugi.core.errors import DataError


def masked_cross_entropy(logits: Tensor, target: Tensor, masked: Tensor, eps: float = 0.0) -> Tensor:
    """Mean over masked positions of ``-log(softmax(logits)[target] + eps)``, a scalar.

    The masked language model of BERT (Devlin et al., NAACL 2019) and of image codes in BEiT (Bao et al., ICLR 2022) with eps
    0; TIP (Du et al., ECCV 2024) has 1e-8 for categories of tables.

    Args:
        logits: ``[..., V]``.
        target: int64 ``[...]``; read where masked alone.
        masked: bool ``[...]``.
        eps: inside the logarithm.

    Raises:
        DataError: the shapes do not go together.
    """
    _check(logits[..., 0], target, masked)
    if not bool(masked.any()):
        return 0 * logits.sum()
    log_p = F.log_softmax(logits[masked], -1).gather(1, target[masked][:, None])[:, 0]
    return -(torch.log(log_p.exp() + eps) if eps else log_p).mean()


def masked_mse(prediction: Tensor, target: Tensor, masked: Tensor) -> Tensor:
    """Mean squared error over masked positions: prediction and target ``[...]``, masked bool ``[...]``, a scalar.

    Masked autoencoders (He et al., CVPR 2022). What the target holds elsewhere is never read.

    Raises:
        DataError: the shapes do not go together.
    """
    _check(prediction, target, masked)
    if not bool(masked.any()):
        return 0 * prediction.sum()
    return (prediction[masked] - target[masked]).square().mean()


def _check(prediction: Tensor, target: Tensor, masked: Tensor) -> None:
    """Broadcasting would compare positions with those of other rows."""
    if not prediction.shape == target.shape == masked.shape:
        raise DataError(
            f"predictions {list(prediction.shape)}, targets {list(target.shape)} and mask {list(masked.shape)} of other shapes"
        )
