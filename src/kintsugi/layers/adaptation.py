"""Which parameters of a trained model are safe to move without labels."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)  # the last: batch and instance norms
HEADS = ("task_head.", "heads.")


def adaptable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter: weights and biases of all LayerNorms; where there is none, of all norms; else all but the head's.

    A few parameters that shift and scale adapt a model without undoing it: Wang et al., "Tent: fully test-time adaptation
    by entropy minimization", ICLR 2021, with batch norms; Ramazanova et al. (MiDl), ICLR 2025, with LayerNorm. What is
    frozen (``requires_grad`` False) is left out.
    """
    free = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for kinds in (nn.LayerNorm, NORMS):
        inside = {id(p) for m in model.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False)}
        affine = {name: p for name, p in free.items() if id(p) in inside}
        if affine:
            return affine
    return {name: p for name, p in free.items() if not name.startswith(HEADS)}
