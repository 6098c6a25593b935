"""The channels of several modalities in one window, its damage, and a network that classifies such windows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.batch import Batch
from kintsugi.core.encoder import Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality, Schema
from kintsugi.layers.autoencoder import burst_mask
from kintsugi.layers.streams import Attention

KINDS = ("series", "vector")  # whose values are all measurements
DAMAGE = ("both", "noise", "bursts", "none")
KERNEL, DEPTH = 5, 4  # Centaur's convolutions over time
REACH = DEPTH * (KERNEL - 1) + 1  # steps that one of their outputs sees


class ChannelWindow:
    """Where the channels of a schema's series, vectors and tables stand in one window ``[B, 1, C, T]``.

    A series ``[T_m, C_m]`` gives C_m channels, a vector ``[D]`` or the numbers of a table a single one, with a step for
    each. T is the longest of them; behind the end of a shorter one the window is 0, as it is where nothing was seen.
    Codes of categories and modalities of other kinds have no part in it.

    Args:
        schema: of the batches.

    Raises:
        ConfigError: no series, vector or number of a table, or one whose size is open.
    """

    def __init__(self, schema: Schema) -> None:
        self.numbers = {m.name: _numbers(m) for m in schema.modalities if m.kind == "tabular"}
        sizes = {m.name: _size(m) for m in schema.modalities if m.kind in KINDS}
        sizes |= {name: (len(cells), 1) for name, cells in self.numbers.items() if cells}
        sizes = {name: sizes[name] for name in schema.names if name in sizes}
        if not sizes:
            raise ConfigError(
                f"a window is made of the channels of series and vectors and of numbers of tables; this schema has "
                f"{', '.join(f'{m.name} ({m.kind})' for m in schema.modalities)}"
            )
        self.names = tuple(sizes)
        self.steps = max(steps for steps, _ in sizes.values())
        self.channels = sum(channels for _, channels in sizes.values())
        self.sizes = sizes

    def seen(self, batch: Batch) -> Tensor:
        """Bool ``[B, 1, C, T]``: what came in."""
        parts = [self._part(name, batch)[1] for name in self.names]
        return torch.cat(parts, 2).transpose(1, 2)[:, None]

    def of(self, batch: Batch) -> Tensor:
        """Values ``[B, 1, C, T]``, 0 where nothing was seen; what stands there is never read."""
        parts = [torch.where(seen, x, 0) for x, seen in (self._part(name, batch) for name in self.names)]
        return torch.cat(parts, 2).transpose(1, 2)[:, None]

    def _part(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values and what was seen of them, each ``[B, T, C_m]``."""
        x, mask = batch.inputs[name], batch.mask.get(name)
        if name in self.numbers:
            x, mask = x[:, self.numbers[name]], None if mask is None else mask[:, self.numbers[name]]
        seen = batch.present[:, batch.names.index(name), None, None].expand(-1, *self.sizes[name])
        if mask is not None:
            seen = seen & mask[..., None]
        return padded(x.reshape(len(x), *self.sizes[name]), self.steps), padded(seen, self.steps)

    def put(self, batch: Batch, window: Tensor) -> Batch:
        """The batch with a window's values in the place of its own, holes filled.

        A modality is filled in rows in which another one of the window came in. Of a series of which something was seen
        the steps up to the last one seen are filled: what is behind it may be padding, and stays as it is.
        """
        columns = [batch.names.index(name) for name in self.names]
        some = batch.present[:, columns].any(1)
        inputs, mask, present = dict(batch.inputs), dict(batch.mask), batch.present.clone()
        parts = window[:, 0].transpose(1, 2).split([channels for _, channels in self.sizes.values()], 2)
        for name, column, part in zip(self.names, columns, parts, strict=True):
            x, own = inputs[name], batch.present[:, column]
            values = part[:, : self.sizes[name][0]].to(x.dtype)
            measured = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
            if name in self.numbers:  # a category of an absent table gets the code of the unknown
                measured.zero_()[self.numbers[name]] = True
                values = torch.where(own[:, None], x, 0).index_copy(1, measured.nonzero()[:, 0], values[..., 0])
            if name in mask:
                filled = _filled(mask[name], own, some, x.ndim == 3)
                mask[name] = torch.where(measured, filled, mask[name])
            values = values.reshape(x.shape)
            inputs[name] = torch.where(some.view(-1, *[1] * (x.ndim - 1)), values, x)
            present[:, column] |= some
        return replace(batch, inputs=inputs, mask=mask, present=present)


def _size(modality: Modality) -> tuple[int, int]:
    """Steps and channels."""
    steps, channels = (*modality.shape, 1)[:2]
    if steps is None or channels is None:
        raise ConfigError(
            f"modality {modality.name!r}: a window has a fixed size, and its shape is {modality.shape}; cut or pad its rows "
            "to one length"
        )
    return steps, channels


def _numbers(table: Modality) -> list[int]:
    """Cells of a table that are no codes of categories."""
    categories = table.categories or (0,) * (table.shape[0] or 0)
    return [cell for cell, codes in enumerate(categories) if not codes]


def padded(x: Tensor, steps: int) -> Tensor:
    """Zeros, or False, behind the end: ``[B, t, C] -> [B, steps, C]``, as it was where t is not less."""
    return functional.pad(x, (0, 0, 0, max(0, steps - x.shape[1])))


def _filled(mask: Tensor, present: Tensor, some: Tensor, timed: bool) -> Tensor:
    up_to_last = mask.flip(1).cumsum(1).flip(1) > 0
    reach = up_to_last if timed else torch.ones_like(mask)
    return torch.where(some[:, None], torch.where(present[:, None], reach, True), mask)


class ChannelDamage(nn.Module):
    """What Centaur learns to undo, drawn anew at every call: noise, then bursts in which a channel falls out.

    Args:
        steps: T of the window.
        kinds: ``both``, ``noise``, ``bursts`` or ``none``.
        sigma: standard deviation of the noise, in units of the window.
        missing, normal: mean lengths of bursts and of the times between them, in shares of the window's steps; at least 1
            step each.

    Raises:
        ConfigError: other kinds.
    """

    def __init__(self, steps: int, kinds: str, sigma: float, missing: float, normal: float) -> None:
        super().__init__()
        if kinds not in DAMAGE:
            raise ConfigError(f"unknown damage {kinds!r}; known: {', '.join(DAMAGE)}")
        self.kinds, self.sigma = kinds, sigma
        self.lengths = max(1.0, normal * steps), max(1.0, missing * steps)

    def forward(self, window: Tensor, seen: Tensor) -> Tensor:
        """``[B, 1, C, T]``, 0 wherever there is a burst or nothing was seen (bool of that shape)."""
        if self.kinds in ("both", "noise"):
            window = window + self.sigma * torch.randn_like(window)
        if self.kinds in ("both", "bursts"):
            rows, _, channels, steps = window.shape
            intact = burst_mask(rows, channels, steps, *self.lengths, torch.default_generator)
            seen = seen & intact[:, None].to(seen.device)
        return torch.where(seen, window, 0)


class ChannelEncoder(Encoder):
    """The channels of one modality as they are: series ``[R, t, C]`` or vectors ``[R, t]`` -> ``[R, steps, C]``.

    No parameters; 0 behind the end and where masked.

    Args:
        steps: of the window.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class; mask bool ``[R, t]``."""
        x = x if x.ndim == 3 else x[..., None]
        tokens = padded(x if mask is None else torch.where(mask[..., None], x, 0), self.steps)
        return Stream(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device))


class ActivityNetwork(nn.Module):
    """Convolutions over time of each channel alone, then self-attention over tokens that hold all channels, flattened.

    Window ``[B, C, T]`` -> ``[B, features]``. Four convolutions (1, 5) without padding, ReLU; one token for each of the
    T - 16 steps, of all filters of all channels; attention of one head without residual, norm or position; dropout, ReLU.
    The authors' code of Centaur (Xaviar et al., IEEE Sensors Journal 2024). Windows of less than 17 steps get zeros behind
    their end.

    Args:
        channels, steps: C and T.
        filters: of each convolution.
        axis: ``time``, or ``sensor``: one token a channel, of all filters of all steps.
        dropout: after the attention.

    Raises:
        ConfigError: an unknown axis.
    """

    def __init__(self, channels: int, steps: int, filters: int = 64, axis: str = "time", dropout: float = 0.5) -> None:
        super().__init__()
        if axis not in ("time", "sensor"):
            raise ConfigError(f"unknown axis {axis!r} of attention; known: time, sensor")
        self.axis, self.steps = axis, max(steps, REACH)
        self.length = self.steps - REACH + 1
        layers: list[nn.Module] = []
        for before in (1, *[filters] * (DEPTH - 1)):
            layers += [nn.Conv2d(before, filters, (1, KERNEL)), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.attention = Attention(filters * (channels if axis == "time" else self.length), heads=1)
        self.dropout = nn.Dropout(dropout)
        self.features = self.length * filters * channels

    def forward(self, window: Tensor) -> Tensor:
        """Shapes as in the class."""
        window = functional.pad(window, (0, max(0, self.steps - window.shape[2])))
        filtered = self.convolutions(window[:, None])  # [B, filters, C, T']
        tokens = filtered.permute(0, 3, 2, 1) if self.axis == "time" else filtered.permute(0, 2, 3, 1)
        tokens = tokens.flatten(2)
        out = self.attention(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))
        return functional.relu(self.dropout(out)).flatten(1)


def channel_names(schema: Schema, taken: Collection[str] = ()) -> list[str]:
    """The series and vectors of a schema, but for those that are ``taken`` by others."""
    return [m.name for m in schema.modalities if m.kind in KINDS and m.name not in taken]
