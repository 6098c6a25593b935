"""Low-level features without parameters, for fusion before any encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.schema import Modality
from kintsugi.encoders.audio import BANDS, logmel
from kintsugi.encoders.tabular import cell_kinds, seen_cells

SIDE, STEPS, BINS = 16, 16, 128


class LowLevel(nn.Module):
    """``forward(x, mask) -> [R, features]``: x ``[R, *shape]``, mask bool ``[R, T]`` or None (all seen)."""

    features: int

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[R, features]``; shapes as in :class:`LowLevel`."""
        raise NotImplementedError

    def _known(self, modality: Modality, axis: int) -> int:
        size = modality.shape[axis]
        if size is None:
            raise ConfigError(f"modality {modality.name!r}: axis {axis} of shape {list(modality.shape)} must be known")
        return size


class Pixels(LowLevel):
    """Pixels in [0, 1], averaged to at most 16 x 16."""

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        height, width = modality.shape[1:]
        self.size = (min(height or SIDE, SIDE), min(width or SIDE, SIDE))
        self.features = self._known(modality, 0) * self.size[0] * self.size[1]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[R, features]``; shapes as in :class:`LowLevel`."""
        return functional.adaptive_avg_pool2d(x, self.size).flatten(1)


class Spectrum(LowLevel):
    """Log-mel power of 32 bands as the audio encoder sees it, averaged to 16 frames."""

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.logmel = logmel(modality)
        self.features = STEPS * BANDS

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[R, features]``; shapes as in :class:`LowLevel`."""
        level = self.logmel(x if mask is None else torch.where(mask, x, 0))
        return functional.adaptive_avg_pool1d(level.transpose(1, 2), STEPS).flatten(1).to(x.dtype)


class Bigrams(LowLevel):
    """``log(1 + count)`` of pairs of neighbouring ids, hashed to 128 bins.

    The hash is multiplicative: Knuth, "The art of computer programming", volume 3, section 6.4.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.features = BINS

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[R, features]``; shapes as in :class:`LowLevel`."""
        seen = x > 0 if mask is None else mask & (x > 0)
        x = torch.where(seen, x, 0)
        key = x[:, :-1] * 65_537 + x[:, 1:]
        bins = ((key * 2_654_435_761) % 2**32) >> 25
        pairs = (seen[:, :-1] & seen[:, 1:]).float()
        return torch.zeros(len(x), BINS, device=x.device).scatter_add(1, bins, pairs).log1p()


class Table(LowLevel):
    """Numbers (zero where unseen), a flag for each seen cell, and categories as one-hot codes 0 to n."""

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.kinds = cell_kinds(modality)
        self.features = sum(n == 0 for n in self.kinds) + len(self.kinds) + sum(n + 1 for n in self.kinds if n)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[R, features]``; shapes as in :class:`LowLevel`."""
        x, mask = seen_cells(x, mask)
        flags = mask.to(x.dtype)
        parts = [x[:, [i for i, n in enumerate(self.kinds) if n == 0]], flags]
        for i, n in enumerate(self.kinds):
            if n:
                code = functional.one_hot(x[:, i].round().long().clamp(0, n), n + 1)
                parts.append(code * flags[:, i, None])
        return torch.cat(parts, 1)


class Steps(LowLevel):
    """Series averaged over the steps that exist to at most 16; zero where none does.

    Of series of any length each is averaged as far as its last step that is seen, since what is behind it may be padding.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.steps = min(modality.shape[0] or STEPS, STEPS)
        self.padded = modality.shape[0] is None
        self.features = self.steps * self._known(modality, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[R, features]``; shapes as in :class:`LowLevel`."""
        return self.pooled(x, mask)[0].flatten(1)

    def pooled(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means ``[R, steps, C]``, and bool ``[R, steps]``: which are of at least one step that exists.

        Part i of n of the length L is that from ``floor(i L / n)`` to ``ceil((i + 1) L / n)``, as in adaptive pooling.
        """
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        most, number = x.shape[1], torch.arange(self.steps, device=x.device)
        place = torch.arange(1, most + 1, device=x.device)
        length = (mask * place).amax(1, keepdim=True) if self.padded else place[-1:]
        start, end = number * length // self.steps, -(-(number + 1) * length // self.steps)  # [R or 1, steps]
        step = start[..., None] + torch.arange(-(-most // self.steps) + 1, device=x.device)  # the widest part
        step, inside = (part.expand(len(x), -1, -1) for part in (step, step < end[..., None]))
        at = step.clamp(max=most - 1).flatten(1)
        inside = inside & mask.gather(1, at).view_as(inside)
        values = x.gather(1, at[..., None].expand(-1, -1, x.shape[2])).unflatten(1, inside.shape[1:])
        count = inside.sum(2)
        mean = torch.where(inside[..., None], values, 0).sum(2) / count.clamp(min=1)[..., None]
        return mean, count > 0


class Plain(LowLevel):
    """A vector as it is, zero where masked."""

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.features = self._known(modality, 0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[R, features]``; shapes as in :class:`LowLevel`."""
        return x if mask is None else torch.where(mask, x, 0)


LOWLEVEL: dict[str, Callable[[Modality], LowLevel]] = {
    "image": Pixels,
    "audio": Spectrum,
    "text": Bigrams,
    "tabular": Table,
    "series": Steps,
    "vector": Plain,
}


def lowlevel(modality: Modality) -> LowLevel:
    """Low-level features of a modality: a module without parameters, ``(x, mask) -> [R, features]``."""
    if modality.kind not in LOWLEVEL:
        raise UnknownName("kind of modality with low-level features", modality.kind, LOWLEVEL)
    return LOWLEVEL[modality.kind](modality)
