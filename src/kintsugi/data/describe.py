"""What is missing: holes of each modality and the patterns in which they come."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kintsugi.core.data import Data


def holes(data: Data) -> dict[str, int]:
    """Number of rows in which each modality is absent."""
    return dict(zip(data.schema.names, (~data.present).sum(0).tolist(), strict=True))


def patterns(data: Data) -> pd.DataFrame:
    """The table of missing patterns, most frequent first.

    One bool column a modality (True: present), then ``rows`` and ``share`` (of all rows). ``attrs["holes"]`` is
    :func:`holes`. Patterns of equal frequency: the one with more modalities first.
    """
    present = data.present.numpy()
    found, rows = np.unique(present, axis=0, return_counts=True)
    order = np.lexsort((*(~found).T[::-1], -found.sum(1), -rows))
    table = pd.DataFrame(found[order], columns=list(data.schema.names))
    table["rows"] = rows[order]
    table["share"] = rows[order] / max(len(present), 1)
    table.attrs["holes"] = holes(data)
    return table
