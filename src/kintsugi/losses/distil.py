"""Learning from another model's answers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def soft_targets(student: Tensor, teacher: Tensor, task: str, temperature: float = 1.0) -> Tensor:
    """How far the student's answers are from the teacher's, one value a row: ``[B]``.

    Classification: ``T² KL(softmax(t / T) || softmax(s / T))`` (Hinton et al., Distilling the Knowledge in a Neural
    Network, 2015). Multilabel: the same for each label's two outcomes, averaged. Regression: squared difference.
    """
    if task == "regression":
        return F.mse_loss(student, teacher, reduction="none").flatten(1).mean(1)
    t, s = teacher / temperature, student / temperature
    if task == "multilabel":
        p = t.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(t, p, reduction="none")
        kl = (F.binary_cross_entropy_with_logits(s, p, reduction="none") - entropy).mean(1)
    else:
        kl = F.kl_div(F.log_softmax(s, 1), F.log_softmax(t, 1), log_target=True, reduction="none").sum(1)
    return temperature**2 * kl
