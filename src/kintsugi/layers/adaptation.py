"""How a trained model moves in use, without labels: by what it answers to versions of a row, which parameters, what step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from kintsugi.core.batch import Batch
from kintsugi.core.prediction import Prediction
from kintsugi.core.task import Link

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


def descend(
    loss: Tensor,
    moving: Mapping[str, nn.Parameter],
    velocity: MutableMapping[str, Tensor],
    step_size: float,
    momentum: float,
) -> None:
    """One step of gradient descent with momentum, in place: ``v <- momentum v + gradient``, ``p <- p - step_size v``.

    That of ``torch.optim.SGD``, with its state in the hands of the caller, who may let it go. Where the loss, a gradient or
    a velocity is not finite nothing moves, velocities included: a single such row of a stream would spoil all that follow.

    Args:
        loss: a scalar with a graph.
        moving: parameters by name; one that the loss does not depend on stays.
        velocity: of each parameter that has moved, by its name; changed in place, empty at first.
        step_size, momentum: of the descent.
    """
    gradients = torch.autograd.grad(loss, [*moving.values()], allow_unused=True)
    with torch.no_grad():
        after = {
            name: gradient + momentum * velocity.get(name, 0)
            for name, gradient in zip(moving, gradients, strict=True)
            if gradient is not None
        }
        if not bool(torch.stack([x.isfinite().all() for x in (loss, *after.values())]).all()):
            return
        velocity.update(after)
        for name, speed in after.items():
            moving[name].sub_(step_size * speed)


def outputs_of_versions(
    model: Callable[[Batch], Prediction], batch: Batch, versions: Sequence[Sequence[str]]
) -> Tensor:
    """What a model answers to rows of which it is shown some modalities only: outputs ``[V, B, ...]``, all asked at once.

    versions: names of the modalities that each of the V versions shows, as far as a row has them.
    """
    keep = torch.tensor([[name in shown for name in batch.names] for shown in versions], device=batch.device)
    rows = torch.arange(len(batch), device=batch.device).repeat(len(versions))
    output = model(batch.rows(rows).where(keep.repeat_interleave(len(batch), 0))).output
    return output.unflatten(0, (len(versions), len(batch)))


def outcome_logits(output: Tensor, link: Link) -> Tensor:
    """Logits of the distributions that a task's output stands for: ``[..., H, C]``, H of them over C outcomes.

    One over classes, from ``[..., C]`` with the link ``softmax``; else, from ``[..., H]`` of ``sigmoid``, one a label over
    its two outcomes, as the logit beside 0.
    """
    if link == "softmax":
        return output[..., None, :]
    return torch.stack([output, torch.zeros_like(output)], -1)
