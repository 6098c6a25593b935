"""The head that every task of one output a row shares."""

from __future__ import annotations

from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.features import Stream
from kintsugi.core.schema import StreamSpec, Task


class PooledHead(nn.Module):
    """Stream ``[B, T, D]`` -> ``[B, outputs]``: the mean over tokens, then one linear layer."""

    def __init__(self, spec: StreamSpec, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.dim, outputs)

    def forward(self, stream: Stream) -> Tensor:
        out: Tensor = self.linear(stream.pooled())
        return out


class NamedOutputs(Task):
    """A task with one named number a row and output: classes, labels or targets."""

    names: tuple[str, ...]

    @property
    def outputs(self) -> int:
        return len(self.names)

    def head(self, spec: StreamSpec) -> nn.Module:
        return PooledHead(spec, self.outputs)


def masked_mean(losses: Tensor, keep: Tensor | None, weight: Tensor | None, output: Tensor) -> Tensor:
    """Weighted mean of ``losses [B]`` over ``keep``; ``0 * output.sum()`` where nothing is left, so that gradients exist."""
    w = losses.new_ones(len(losses)) if weight is None else weight.to(losses.dtype)
    if keep is not None:
        w = w * keep
        losses = losses.masked_fill(~keep, 0)  # what is left out may be NaN
    total = w.sum()
    if float(total.detach()) == 0:
        return 0 * output.sum()
    return (losses * w).sum() / total


def labelled(batch: Batch, rows: Tensor | None) -> Tensor | None:
    """Bool ``[B]``: the rows that count in a loss; None: all."""
    if batch.target_present is None:
        return rows
    return batch.target_present if rows is None else batch.target_present & rows
