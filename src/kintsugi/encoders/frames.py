"""Sequences for translators: the numbers of series and vectors as they are, tokens of an encoder for all other kinds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kintsugi.core.encoder import Encoder, UserEncoder, blank, evaluating, make_encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import MOST, pool_steps, window

RAW = ("series", "vector")  # kinds whose rows are sequences of numbers already


class Frames(Encoder):
    """A series averaged to at most 16 steps as its encoder does, or a vector as one step; no parameters, nothing is scaled.

    x: float ``[R, T, C]`` with mask bool ``[R, T]`` -> ``[R, ceil(T / window), C]``; or ``[R, D]`` with mask bool ``[R, D]``
    -> ``[R, 1, D]``, where what is masked counts as zero.

    Raises:
        ConfigError: another kind, or a width that is not declared.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        width = modality.shape[-1]
        if modality.kind not in RAW:
            raise ConfigError(f"modality {modality.name!r}: a {modality.kind} is no sequence of numbers, as {RAW} are")
        if width is None:
            raise ConfigError(
                f"modality {modality.name!r}: the numbers of a step must be known, and shape leaves them open"
            )
        self.width = width
        self.window = window(modality.shape[0], default=4) if modality.kind == "series" else 0

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        if mask is not None:
            x = torch.where(mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, 0)
        if not self.window:
            return Stream.vector(x)
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return Stream(*pool_steps(x, mask, self.window))


@dataclass(frozen=True)
class FrameSpec:
    """How long and how wide the sequence of a modality is; of an open length: the 16 steps that are made up for it."""

    length: int
    width: int


def frame_encoder(modality: Modality, dim: int) -> Encoder:
    """:class:`Frames` of a series or a vector, unless the user gave an encoder for it; else the encoder of its kind."""
    encoder = make_encoder(modality, dim)
    return Frames(modality) if modality.kind in RAW and not isinstance(encoder, UserEncoder) else encoder


def frame_spec(modality: Modality, encoder: Encoder, dim: int) -> FrameSpec:
    """Of the streams of this encoder, made by :func:`frame_encoder` for the width ``dim``."""
    width = encoder.width if isinstance(encoder, Frames) else dim
    if None in modality.shape:
        return FrameSpec(MOST, width)
    with torch.no_grad(), evaluating(encoder):
        return FrameSpec(encoder(blank(modality)).tokens.shape[1], width)


def fitted(stream: Stream, length: int) -> Stream:
    """The first ``length`` steps, with steps that do not exist behind them where there are fewer."""
    spare = length - stream.mask.shape[1]
    return Stream(functional.pad(stream.tokens, (0, 0, 0, spare)), functional.pad(stream.mask, (0, spare)))
