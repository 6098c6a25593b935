"""Who changes places with whom: partners are written into a table, int64 ``[N]``, of places in that table, -1: none."""

from __future__ import annotations

import torch
from torch import Tensor

from kintsugi.imperfect.corrupt.cross._common import nearest


def exchangeable(share: float, rows: int) -> int:
    """The number nearest to ``share`` of ``rows`` that can change places: any but one."""
    count = nearest(share, rows)
    return count if count != 1 else 2 if share * rows >= 1 else 0


def in_a_ring(partner: Tensor, chosen: Tensor) -> None:
    """Each of ``chosen`` (int64 ``[K]``, in drawn order) gets the next one's, the last the first's; one alone: nothing."""
    if len(chosen) > 1:
        partner[chosen] = chosen.roll(-1)


def past_own_class(partner: Tensor, chosen: Tensor, group: Tensor) -> bool:
    """Each of ``chosen`` gets one of another ``group`` (int64 ``[K]`` each), and each is used once; False: there is no way.

    Sorted by group and turned by the size of the largest, nobody lands in its own group, unless that one is more than half.
    """
    if len(chosen) == 0:
        return True
    largest = int(group.unique(return_counts=True)[1].max())
    if 2 * largest > len(chosen):
        return False
    by_group = group.argsort(stable=True)
    partner[chosen[by_group]] = chosen[by_group].roll(-largest)
    return True


def among_others(partner: Tensor, every: Tensor, group: Tensor, hits: int) -> None:
    """The first ``hits`` of ``every`` get one of another ``group`` from all of them, each used about equally often."""
    for each in group[:hits].unique():
        own = every[:hits][group[:hits] == each]
        pool = every[group != each]
        partner[own] = pool[torch.arange(len(own)) % len(pool)]
