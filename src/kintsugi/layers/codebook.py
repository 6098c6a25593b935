"""A fixed vocabulary for what has none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FIT_ON = 8192  # values, evenly spread over those given; proposed here


class Codebook(nn.Module):
    """Codes of vectors: which centre of k-means is nearest, ``[..., W]`` -> int64 ``[...]``.

    Stands where a paper has the codes of a discrete autoencoder, for masked prediction by classes. Centres are a buffer; of
    equally near ones the first counts.

    Args:
        codes: how many centres. width: W.
    """

    centres: Tensor

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(codes, width))

    def fit(self, x: Tensor) -> None:
        """Centres of these vectors ``[N, W]``; where fewer of them differ, the last centre is there several times."""
        from sklearn.cluster import KMeans

        x = x[torch.linspace(0, len(x) - 1, min(len(x), FIT_ON)).long()].float().cpu()
        count = min(len(self.centres), len(x.unique(dim=0)))
        found = torch.as_tensor(KMeans(count, n_init=1, random_state=0).fit(x.numpy()).cluster_centers_)
        self.centres.copy_(torch.cat([found, found[-1:].expand(len(self.centres) - count, -1)]))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        return torch.cdist(x.flatten(0, -2), self.centres.to(x.dtype)).argmin(1).view(x.shape[:-1])
