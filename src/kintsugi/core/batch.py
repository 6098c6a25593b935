"""A batch of rows with holes: the one thing that flows into a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.errors import DataError
from kintsugi.core.retired import renamed_attributes


@renamed_attributes(side="auxiliary")
@dataclass
class Batch:
    """Rows with holes.

    inputs: name -> ``[B, ...]``; never NaN where seen; what stands in an absent row is never read.
    present: bool ``[B, M]``: what the model may use; ``present[:, m] == mask[m].any(1)`` where a mask exists.
    index: int64 ``[B]``: position in the source table; seeds corruption, names the row in reports.
    target: ``[B, ...]``; target_present: bool ``[B]`` (None: all); weight: float ``[B]``.
    mask: name -> bool ``[B, T]``: steps (of text, series, table cells) that exist and were seen; absent key: all.
    context: what is no modality: speaker, time, client.
    truth: this batch before the view or the augmentation of this step; legal in losses only.
    auxiliary: the second batch of a stage that asks for one: pairs, unlabelled rows, enrolment.
    identity: int64 ``[B]``: which row of which table each is, equal for equal rows only; None where nobody asked. For methods
    that read other rows and must not take a row for its own neighbour.
    severity: float ``[B, M]``: the level, 0 to 5, of what was done to each slot. A distortion says it on the batch that it
    returns; data sets take it off, and an augmentation moves it to ``truth``, so that no method sees it as an input.
    unrestored: bool ``[B, M]``: ``present`` as it was before a restorer filled holes; None: no restorer. See ``observed``.
    """

    names: tuple[str, ...]
    inputs: dict[str, Tensor]
    present: Tensor
    index: Tensor
    target: Tensor | None = None
    target_present: Tensor | None = None
    weight: Tensor | None = None
    mask: dict[str, Tensor] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    truth: Batch | None = None
    severity: Tensor | None = None
    auxiliary: Batch | None = None
    identity: Tensor | None = None
    unrestored: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        return self.present.device

    @property
    def observed(self) -> Tensor:
        """Bool ``[B, M]``: what came in, whatever a restorer filled since."""
        return self.present if self.unrestored is None else self.unrestored

    def unlabelled(self) -> Batch:
        """What a method is given in use: neither target, nor weight, nor what was hidden or done to the rows."""
        return replace(self, target=None, target_present=None, weight=None, truth=None, severity=None, auxiliary=None)

    def where(self, keep: Tensor) -> Batch:
        """The same rows with less to see: ``keep`` is bool ``[B, M]`` or ``[M]``. ``truth`` stays as it is."""
        present = self.present & keep
        mask = {name: m & present[:, self.names.index(name), None] for name, m in self.mask.items()}
        unrestored = None if self.unrestored is None else self.unrestored & keep
        return replace(self, present=present, mask=mask, unrestored=unrestored)

    def view(self, keep: Tensor) -> Batch:
        """Like :meth:`where`, and remembers in ``truth`` what was there before."""
        return replace(self.where(keep), truth=self if self.truth is None else self.truth)

    def only(self, *names: str) -> Batch:
        """Only these modalities are left present."""
        for name in names:
            if name not in self.names:
                raise DataError(f"unknown modality {name!r}; this batch has {', '.join(self.names)}")
        keep = torch.tensor([name in names for name in self.names], device=self.device)
        return self.where(keep)

    def dropped(self) -> Batch:
        """What the view of this step took away, and only that: the complement within ``truth``."""
        if self.truth is None:
            return self.where(torch.zeros_like(self.present))
        return replace(self.truth.where(~self.present), truth=None)

    def rows(self, keep: Tensor) -> Batch:
        """Some rows: bool ``[B]`` or positions ``[R]``; of the auxiliary batch, which pairs with none of them, all."""
        chosen = replace(self, truth=None, auxiliary=None).map(lambda x: x[keep], lambda c: _context_rows(c, keep))
        # one by one, since the truth may have an auxiliary batch of its own
        return replace(chosen, truth=None if self.truth is None else self.truth.rows(keep), auxiliary=self.auxiliary)

    def to(self, device: torch.device | str) -> Batch:
        """Every tensor on this device."""
        return self.map(lambda x: x.to(device), lambda c: c.to(device) if isinstance(c, Tensor) else c)

    def map(self, change: Callable[[Tensor], Tensor], context: Callable[[Any], Any] = lambda c: c) -> Batch:
        """The same batch with ``change`` applied to every tensor that has a batch axis."""

        def each(value: Any) -> Any:
            if isinstance(value, Batch):
                return value.map(change, context)
            if isinstance(value, dict):
                return {name: change(x) for name, x in value.items()}
            return change(value) if isinstance(value, Tensor) else value

        # by name, so that a field that is added later is not lost
        changed = {f.name: each(getattr(self, f.name)) for f in fields(self) if f.name != "context"}
        return Batch(**changed, context={name: context(c) for name, c in self.context.items()})


def _context_rows(value: Any, keep: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[keep]
    if isinstance(value, list | tuple):
        positions = keep.nonzero().flatten() if keep.dtype == torch.bool else keep
        return [value[int(i)] for i in positions]
    return value
