"""Any modality as a short sequence of patches, and a transformer over them, for methods that hide some and predict them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.encoder import Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import ceil_div, pool_steps, window
from kintsugi.encoders.audio import BANDS, logmel
from kintsugi.encoders.tabular import cell_kinds
from kintsugi.layers.positions import sinusoid
from kintsugi.layers.streams import Block

GRID, FINE = 4, 4  # patches along a side of a picture, and values along a side of a patch, at most
NUMBERS = 8  # patches of a vector, at most
LETTERS, CODES = 256, 32  # bins of ids of texts and of codes of categories; larger ones start over


class Patches(Encoder):
    """At most 16 patches a row where the length is declared: x ``[R, *shape]`` -> tokens ``[R, P, width]`` and their mask.

    - image: a grid of 4 x 4 patches, each averaged to at most 4 x 4 values a channel; volume: 4 x 4 columns of 4 values
    - video: each frame averaged to 4 x 4 values a channel; audio: log-mel frames of 32 bands; series, points: the steps.
      Windows of steps are averaged
    - text: how often each id occurs among those of a window, ids modulo 256
    - vector: one number, or a window of them side by side, so that there are at most 8; tabular: likewise up to 16 cells,
      each a value and a one-hot code modulo 32

    What is masked is read as zero, and a patch exists where one of its steps was seen.

    Raises:
        ConfigError: a width that is not declared.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.kind, shape = modality.kind, modality.shape
        channels = shape[{"image": 0, "video": 1, "volume": 0, "points": 1, "series": 1}.get(self.kind, 0)]
        if channels is None and self.kind not in ("text", "audio"):
            raise ConfigError(f"modality {modality.name!r}: shape {list(shape)} leaves the width of a patch open")
        channels = channels or 0
        self.joined = self.kind in ("vector", "tabular")  # windows side by side, since columns have no order
        self.size = (0, 0)
        if self.kind == "image":
            self.size = (_fit(shape[1]), _fit(shape[2]))
            self.width = channels * (self.size[0] // _grid(self.size[0])) * (self.size[1] // _grid(self.size[1]))
        elif self.kind == "audio":
            self.logmel = logmel(modality)
            self.width, samples = BANDS, shape[0]
            self.window = window(None if samples is None else self.logmel.frames(samples), default=4)
        elif self.kind == "text":
            self.width, self.window = LETTERS, window(shape[0], default=4)
        elif self.joined:
            self.cells = cell_kinds(modality) if self.kind == "tabular" else ()
            self.codes = min(max(self.cells, default=0) + 1, CODES) if any(self.cells) else 0
            self.window = window(channels) if self.cells else ceil_div(channels, NUMBERS)
            self.count = ceil_div(channels, self.window)
            self.width = self.window * (1 + self.codes)
        else:
            self.width = channels * {"video": GRID * GRID, "volume": GRID}.get(self.kind, 1)
            self.window = window(shape[0], default=4) if self.kind != "volume" else 1

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class; mask bool ``[R, T]`` over steps, None: all were seen."""
        if mask is not None:
            x = torch.where(mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, 0)
        if self.kind == "image":
            return self._picture(x)
        steps = self._steps(x)
        if mask is None or mask.shape[1] != steps.shape[1]:  # of audio: silence
            mask = torch.ones(steps.shape[:2], dtype=torch.bool, device=x.device)
        if self.kind == "text":
            mask = mask & (x > 0)
        steps = torch.where(mask[..., None], steps, 0)
        return self._side_by_side(steps, mask) if self.joined else Stream(*pool_steps(steps, mask, self.window))

    def _steps(self, x: Tensor) -> Tensor:
        """``[R, T, C]``, before windows are taken."""
        match self.kind:
            case "audio":
                return self.logmel(x)
            case "text":
                return functional.one_hot(x.clamp(min=0) % LETTERS, LETTERS).float()
            case "vector":
                return x[..., None]
            case "tabular":
                return self._cells(x)
            case "video":
                return functional.adaptive_avg_pool2d(x.flatten(0, 1), GRID).view(*x.shape[:2], -1)
            case "volume":
                small = functional.adaptive_avg_pool3d(x, GRID)  # [R, C, 4, 4, 4]
                return small.permute(0, 2, 3, 4, 1).flatten(3).flatten(1, 2)
        return x

    def _cells(self, x: Tensor) -> Tensor:
        if not self.codes:
            return x[..., None]
        number = torch.tensor([n == 0 for n in self.cells], device=x.device)
        code = functional.one_hot(x.round().long().clamp(min=0) % self.codes, self.codes).to(x.dtype)
        return torch.cat([torch.where(number, x, 0)[..., None], torch.where(number[:, None], 0, code)], 2)

    def _side_by_side(self, steps: Tensor, mask: Tensor) -> Stream:
        parts = ceil_div(steps.shape[1], self.window)
        spare = parts * self.window - steps.shape[1]
        tokens = functional.pad(steps, (0, 0, 0, spare)).reshape(len(steps), parts, self.width)
        return Stream(tokens, functional.pad(mask, (0, spare)).view(len(mask), parts, self.window).any(2))

    def _picture(self, x: Tensor) -> Stream:
        small = functional.adaptive_avg_pool2d(x, self.size)
        grid = (_grid(self.size[0]), _grid(self.size[1]))
        parts = small.unflatten(3, (grid[1], -1)).unflatten(2, (grid[0], -1))  # [R, C, gh, h, gw, w]
        tokens = parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return Stream(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device), grid)


def _grid(side: int) -> int:
    return min(GRID, side)


def _fit(side: int | None) -> int:
    """To how many values a side is averaged: a multiple of the patches along it."""
    if side is None:
        return GRID * FINE
    return _grid(side) * max(1, min(FINE, side // _grid(side)))


class Columns(nn.Module):
    """A linear map for each place, since columns of a table differ in what they mean: ``[R, P, W]`` -> ``[R, P, dim]``."""

    def __init__(self, count: int, width: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, width, dim) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(count, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        return torch.einsum("rpw,pwd->rpd", x, self.weight) + self.bias


class PatchEncoder(Encoder):
    """A small vision transformer (Dosovitskiy et al., ICLR 2021) over patches of any kind, of which some may be masked.

    x: ``[R, *shape]``, mask: bool ``[R, T]`` -> tokens ``[R, 1 + P, dim]``, CLS first, and their mask. Patches are embedded by
    a linear map, the masked ones are one learned token (BEiT: Bao et al., ICLR 2022), then fixed sinusoids are added. The
    tokens are those before ``norm``, the last LayerNorm, which is the caller's to apply.
    """

    def __init__(self, modality: Modality, dim: int, depth: int = 2) -> None:
        super().__init__()
        self.patches = Patches(modality)
        self.embed = (
            Columns(self.patches.count, self.patches.width, dim)
            if self.patches.joined
            else nn.Linear(self.patches.width, dim)
        )
        self.cls, self.mask = (nn.Parameter(torch.randn(dim) * 0.02) for _ in range(2))
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def read(self, cut: Stream, hidden: Tensor | None = None) -> Stream:
        """The tokens of patches, of which those ``hidden`` (bool ``[R, P]``) are the mask token."""
        x = self.embed(cut.tokens)
        if hidden is not None:
            x = torch.where(hidden[..., None], self.mask, x)
        place = sinusoid((x.shape[1],), x.shape[2], x.device).to(x.dtype)
        x = torch.cat([self.cls.expand(len(x), 1, -1), x + place], 1)
        mask = torch.cat([cut.mask.new_ones(len(x), 1), cut.mask], 1)
        for block in self.blocks:
            x = block(x, mask)
        return Stream(x, mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        return self.read(self.patches(x, mask))
