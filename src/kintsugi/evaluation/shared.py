"""Damaged chunks of a data set, kept while several models are put through the same conditions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import Tensor

from kintsugi.core.batch import Batch

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset

LIMIT = 256 << 20  # bytes a data set


@dataclass
class Shared:
    """What operators made of the chunks of one data set: the newest, up to ``limit`` bytes.

    Operators take longer than small models, and what they do does not depend on the model.
    """

    limit: int = LIMIT
    size: int = 0
    _kept: OrderedDict[Hashable, tuple[dict[str, Tensor], dict[str, Tensor], Tensor]] = field(
        default_factory=OrderedDict
    )

    def get(self, key: Hashable, before: Batch) -> Batch | None:
        """The damaged batch that was put under this key, made from the undamaged one; None: not there (any more)."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        inputs, mask, present = self._kept[key]
        return replace(before, inputs={**before.inputs, **inputs}, mask={**before.mask, **mask}, present=present)

    def put(self, key: Hashable, before: Batch, after: Batch) -> None:
        """Keep what differs between the two."""
        inputs = {name: x for name, x in after.inputs.items() if x is not before.inputs[name]}
        mask = {name: m for name, m in after.mask.items() if m is not before.mask.get(name)}
        kept = (inputs, mask, after.present)
        bytes_ = _bytes(kept)
        if bytes_ > self.limit:
            return
        self._kept[key] = kept
        self.size += bytes_
        while self.size > self.limit:
            _, old = self._kept.popitem(last=False)
            self.size -= _bytes(old)

    def __len__(self) -> int:
        return len(self._kept)


_shared: WeakKeyDictionary[Dataset, Shared] = WeakKeyDictionary()


def shared(data: Dataset) -> Shared:
    """That of this very data set object; gone with it."""
    return _shared.setdefault(data, Shared())


def _bytes(kept: tuple[dict[str, Tensor], dict[str, Tensor], Tensor]) -> int:
    inputs, mask, present = kept
    return sum(x.numel() * x.element_size() for x in (*inputs.values(), *mask.values(), present))
