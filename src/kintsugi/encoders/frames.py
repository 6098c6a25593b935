"""Sequences for translators: the numbers of series and vectors as they are, tokens of an encoder for all other kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.data import Data
from kintsugi.core.encoder import Encoder, UserEncoder, blank, evaluating, make_encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.model import Model
from kintsugi.core.schema import KINDS, Modality
from kintsugi.encoders._tokens import MOST, pool_steps, window

RAW = ("series", "vector")  # kinds whose rows are sequences of numbers already


class Frames(Encoder):
    """A series averaged over windows as its encoder does, or a vector as one step; no parameters, nothing is scaled.

    Windows are as short as leaves a declared length at most 16 steps, and of 4 steps where the length is open.

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
    """How long and how wide the sequence of a modality is by its shape; where that leaves the length open: 16 steps."""

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


class Lengths(nn.Module):
    """How many steps of each modality are written: ``lengths[name]``; until ``measure``, those of its shape.

    A row that is asked for has no length of its own, and more steps than were ever taught are noise. What was measured is
    saved with the model.
    """

    def __init__(self, sizes: Mapping[str, FrameSpec]) -> None:
        super().__init__()
        self.sizes = sizes
        self.register_buffer("steps", None)

    def __getitem__(self, name: str) -> int:
        steps = self._buffers["steps"]
        return self.sizes[name].length if steps is None else int(steps[list(self.sizes).index(name)])

    @torch.no_grad()
    def measure(self, model: Model, data: Data, rows: str) -> None:
        """From now on as many as the longest of these rows has, where rows of a modality may differ in length."""
        found = {name: size.length for name, size in self.sizes.items()}
        varying = [m.name for m in model.schema.modalities if None in m.shape or KINDS[m.kind].stepped]
        found |= dict.fromkeys(varying, 1)
        with evaluating(model):
            for batch in data.batches(256, data.positions(rows)) if varying else ():
                here = batch.to(model.prior.device)
                for name in varying:
                    mask = model.encode_one(name, here, model.encoders[name]).mask
                    last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax()
                    found[name] = max(found[name], int(last))
        self.steps = torch.tensor(list(found.values()), device=model.prior.device)


def told_numbers(mask: Tensor, encoder: nn.Module, seen: Tensor | None) -> Tensor:
    """What of a target counts in its error: a vector of which some numbers were not seen holds zeros that are not true.

    Args:
        mask: bool ``[B, T]``, of the steps of its stream. encoder: that made the stream.
        seen: bool ``[B, ...]``, of the batch, as it came in; None: all was seen.

    Returns:
        bool ``[B, 1, D]`` of the numbers of a vector that stands there as it is; else ``mask``.
    """
    if seen is None or not isinstance(encoder, Frames) or encoder.window:
        return mask
    return mask[..., None] & seen[:, None]


def fitted(stream: Stream, length: int) -> Stream:
    """The first ``length`` steps, with steps that do not exist behind them where there are fewer."""
    spare = length - stream.mask.shape[1]
    return Stream(functional.pad(stream.tokens, (0, 0, 0, spare)), functional.pad(stream.mask, (0, spare)))
