"""Two encoders learn which rows belong together: similarities, InfoNCE both ways, and hard negatives for a matching head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kintsugi.core.errors import DataError


def similarities(a: Tensor, b: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """``scale * cos(a_i, b_j)``: a, b ``[B, D]`` -> ``[B, B]``; the scale is one over the temperature."""
    if a.shape != b.shape:
        raise DataError(f"similarities of {list(a.shape)} and {list(b.shape)}; give both sides of the same rows")
    return scale * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def info_nce(logits: Tensor, anchors: Tensor | None = None, share: float = 0.5) -> Tensor:
    """InfoNCE both ways on similarities ``[B, B]`` whose diagonal holds the pairs, a scalar.

    ``share * CE(logits, diagonal) + (1 - share) * CE(logits transposed, diagonal)``: CLIP (Radford et al., ICML 2021) with
    a half. anchors, bool ``[B]``: rows whose own term counts, as in FLAVA (Singh et al., CVPR 2022); the others stay
    negatives in the columns. 0, with a gradient, where none is left.
    """
    own = torch.stack([F.log_softmax(s, 1).diagonal() for s in (logits, logits.T)])  # [2, B]
    keep = torch.ones_like(own[0], dtype=torch.bool) if anchors is None else anchors
    if not bool(keep.any()):
        return 0 * logits.sum()
    there, back = -own[:, keep].mean(1)
    return share * there + (1 - share) * back


@torch.no_grad()
def hard_negatives(logits: Tensor, floor: float = 1e-4) -> tuple[Tensor, Tensor]:
    """A wrong partner for each row of similarities ``[B, B]``, and one for each column: int64 ``[B]`` each.

    Drawn with weights ``softmax(logits) + floor``, the own partner having none, so that what looks alike comes often: ALBEF
    (Li et al., NeurIPS 2021), and TIP (ECCV 2024) in the authors' code, with its floor. No gradient passes. Drawn
    from torch's global generator, which the trainer seeds.

    Raises:
        DataError: fewer than two rows, of which none has a wrong partner.
    """
    if len(logits) < 2:
        raise DataError("hard negatives need two rows or more; leave the loss out where there are fewer")
    there, back = (drawing_weights(s, floor).multinomial(1)[:, 0] for s in (logits, logits.T))
    return there, back


def drawing_weights(logits: Tensor, floor: float = 1e-4) -> Tensor:
    """Weights, not normalised, by which :func:`hard_negatives` draws for each row: ``[B, B]`` with zeros on the diagonal."""
    return (logits.softmax(1) + floor).fill_diagonal_(0)


def matching(logits: Tensor, matched: Tensor) -> Tensor:
    """Cross-entropy of "these two belong together": logits ``[P, 2]``, matched bool ``[P]`` (class 1), a scalar."""
    return F.cross_entropy(logits, matched.long())
