"""Learning from another model's answers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kintsugi.core.task import Link, Task, by_row, link_of


def soft_targets(student: Tensor, teacher: Tensor, link: Link | Task, temperature: float = 1.0) -> Tensor:
    """How far the student's answers ``[B, ...]`` are from the teacher's, one value a row: ``[B]``.

    ``softmax``: ``T² KL(softmax(t / T) || softmax(s / T))`` over axis 1 (Hinton et al., Distilling the Knowledge in a Neural
    Network, 2015), averaged over what is left of the row. ``sigmoid``: the same for each label's two outcomes, averaged.
    ``identity``: mean squared difference; the temperature has no meaning there.

    Args:
        student: outputs as the task's loss wants them.
        teacher: as ``student``.
        link: how an output is read as probabilities, or the task that says it.
        temperature: T.

    Raises:
        ConfigError: unknown link.
    """
    reading = link_of(link)
    if reading == "identity":
        return F.mse_loss(student, teacher, reduction="none").flatten(1).mean(1)
    t, s = teacher / temperature, student / temperature
    if reading == "sigmoid":
        p = t.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(t, p, reduction="none")
        kl = (F.binary_cross_entropy_with_logits(s, p, reduction="none") - entropy).flatten(1)
        return temperature**2 * kl.mean(1)
    kl = F.kl_div(F.log_softmax(s, 1), F.log_softmax(t, 1), log_target=True, reduction="none").sum(1)
    return temperature**2 * by_row(kl).mean(1)
