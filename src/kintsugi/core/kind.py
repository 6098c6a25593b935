"""Kinds of modality: what the rows of one look like, in one record a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.registry import Registry

Toy = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Kind:
    """What all modalities of a kind have in common; a plugin adds one by ``KINDS.add(Kind(...))``.

    key: its name.
    axes: of a batch, that of the rows included: 4 for images ``[B, C, H, W]``.
    values: what the numbers are, in words.
    steps: what the first axis of a row counts (tokens, cells, samples), so that single ones can go missing; None: nothing.
    stepped: readers deliver a mask bool ``[B, T]`` over these steps.
    dtype: of the values.
    vocabulary: the values are ids below the modality's ``vocab``, which have neither mean nor distance.
    channel_axis: axis of a batch that holds the channels, each with a scale of its own; None: there is a single one.
    toy: signal float ``[N]`` in [0, 1] and generator -> rows ``[N, *shape]`` that show the signal under noise, for tests.
    """

    key: str
    axes: int
    values: str
    steps: str | None = None
    stepped: bool = False
    dtype: torch.dtype = torch.float32
    vocabulary: bool = False
    channel_axis: int | None = None
    toy: Toy | None = None

    def __post_init__(self) -> None:
        if self.axes < 2:
            raise ConfigError(f"kind {self.key!r}: a batch has two axes or more, that of the rows and one of values")
        if self.stepped and self.steps is None:
            raise ConfigError(f"kind {self.key!r}: a mask is over steps; say in steps= what they are")

    def toy_rows(self, signal: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Rows that show ``signal`` (float ``[N]`` in [0, 1]), and for stepped kinds a mask bool ``[N, T]``: 4 of 5 steps.

        Raises:
            ConfigError: the kind was registered without ``toy``.
        """
        if self.toy is None:
            raise ConfigError(f"kind {self.key!r} has no toy data; give its Kind a toy= function")
        rows = self.toy(signal, generator).to(self.dtype)
        if not self.stepped:
            return rows, None
        mask = torch.rand(rows.shape[:2], generator=generator) < 0.8
        mask[:, 0] = True
        return rows, mask


class _Kinds(Registry[Kind]):
    """Kinds in the order in which they were registered; there is no package to look for more in."""

    def _walk(self) -> None:
        return

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def add(self, kind: Kind) -> Kind:
        """Register a kind under its key.

        Raises:
            ConfigError: another kind has this key.
        """
        return self.register(kind.key)(kind)


KINDS = _Kinds("kind of modality", __name__)


# toy rows: signal [N] in [0, 1] -> [N, *shape] --------------------------------------------------------------------------
def _brightness(*shape: int) -> Toy:
    """Values in [0, 1], on the whole as bright as the signal."""

    def rows(signal: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(len(signal), *shape, generator=generator)
        return 0.5 * noise + 0.5 * signal.view(-1, *[1] * len(shape))

    return rows


def _numbers(*shape: int) -> Toy:
    """Normal noise of deviation 1 around twice the signal."""

    def rows(signal: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(signal), *shape, generator=generator)
        return noise + 2 * signal.view(-1, *[1] * len(shape))

    return rows


def _tone(signal: Tensor, generator: torch.Generator) -> Tensor:
    """400 samples in [-1, 1] of a tone whose period falls with the signal from 40 samples to 8, at a drawn phase."""
    cycles = 1 / 40 + signal * (1 / 8 - 1 / 40)
    phase = torch.rand(len(signal), generator=generator)
    noise = 0.05 * torch.randn(len(signal), 400, generator=generator)
    wave = 0.8 * torch.sin(2 * torch.pi * (cycles[:, None] * torch.arange(400) + phase[:, None]))
    return (wave + noise).clamp(-1, 1)


def _tokens(signal: Tensor, generator: torch.Generator) -> Tensor:
    """16 ids from 1 to 256; every other one lies within 8 of where the signal points."""
    ids = torch.randint(1, 257, (len(signal), 16), generator=generator)
    near = 9 + (signal * 239).round().long()[:, None] + torch.randint(-8, 9, (len(signal), 8), generator=generator)
    ids[:, ::2] = near
    return ids


KINDS.add(Kind("image", 4, "brightness in [0, 1], channels first", channel_axis=1, toy=_brightness(1, 8, 8)))
KINDS.add(Kind("video", 5, "brightness in [0, 1]", "frames", channel_axis=2, toy=_brightness(4, 1, 8, 8)))
KINDS.add(Kind("audio", 2, "samples of a wave in [-1, 1]", "samples", toy=_tone))
KINDS.add(
    Kind(
        "text",
        2,
        "ids of tokens, 0 for padding",
        "tokens",
        stepped=True,
        dtype=torch.int64,
        vocabulary=True,
        toy=_tokens,
    )
)
KINDS.add(
    Kind("tabular", 2, "standardised numbers and codes of categories", "cells", True, channel_axis=1, toy=_numbers(4))
)
KINDS.add(Kind("series", 3, "measurements over time", "times", True, channel_axis=2, toy=_numbers(20, 3)))
KINDS.add(Kind("points", 3, "coordinates of points", "points", channel_axis=2, toy=_numbers(16, 3)))
KINDS.add(Kind("volume", 5, "densities, channels first", channel_axis=1, toy=_brightness(1, 6, 6, 6)))
KINDS.add(Kind("vector", 2, "numbers", "numbers", channel_axis=1, toy=_numbers(8)))
