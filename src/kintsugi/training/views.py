"""Which part of what is observed a method looks at in one step. A view only drops, and always leaves something."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import UnknownName
from kintsugi.core.stage import View


def natural(batch: Batch, generator: Generator) -> Tensor:
    """All that is observed: bool ``[B, M]``."""
    return batch.present


def subsets(batch: Batch, generator: Generator) -> Tensor:
    """A row's observed modalities cut to a non-empty subset of them, each subset equally likely."""
    return _draw(batch.present, generator, least_dropped=0)


def proper(batch: Batch, generator: Generator) -> Tensor:
    """Likewise, but never all of them where a row has two or more: the six incomplete patterns of three modalities."""
    return _draw(batch.present, generator, least_dropped=1)


def one(batch: Batch, generator: Generator) -> Tensor:
    """A single modality a row, each observed one equally likely."""
    noise = torch.rand(batch.present.shape, generator=generator).to(batch.device)
    best = noise.masked_fill(~batch.present, -1).argmax(1, keepdim=True)
    return torch.zeros_like(batch.present).scatter(1, best, True) & batch.present


def _draw(present: Tensor, generator: Generator, least_dropped: int) -> Tensor:
    """Uniform over allowed subsets by rejection: fair coins for each slot, drawn again for rows they leave unfit.

    A row needs one slot kept, and ``least_dropped`` dropped where it has two slots or more.
    """
    keep = present.clone()
    has = present.sum(1)
    open_rows = has >= 2
    while bool(open_rows.any()):
        coin = (torch.rand(present.shape, generator=generator) < 0.5).to(present.device) & present
        kept = coin.sum(1)
        fit = open_rows & (kept >= 1) & (has - kept >= least_dropped)
        keep = torch.where(fit[:, None], coin, keep)
        open_rows = open_rows & ~fit
    return keep


VIEWS: dict[str, View] = {"natural": natural, "subsets": subsets, "proper": proper, "one": one}


def get_view(view: str | View) -> View:
    """A view by name, or the view itself."""
    if not isinstance(view, str):
        return view
    if view not in VIEWS:
        raise UnknownName("view", view, VIEWS)
    return VIEWS[view]
