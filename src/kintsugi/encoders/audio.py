"""Sound: a log-mel spectrogram and a small convolutional network over it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders._tokens import Tokens, ceil_div, pool_steps, window
from kintsugi.encoders.image import Stage, stem
from kintsugi.encoders.logmel import LogMel

BANDS = 32
WIDTHS = (8, 16, 32)
SLOWER, NARROWER = 4, 8  # by how much the network shortens time and joins bands
EVENT = 2.0  # seconds; a clip of at most this length is taken to hold one event, such as a word


def logmel(modality: Modality) -> LogMel:
    """The front end for this modality; in a short clip the sounding part is stretched over the whole."""
    if modality.rate is None:
        raise ConfigError(f"modality {modality.name!r}: audio needs its sampling rate; set rate= in Hz")
    samples = modality.shape[0]
    return LogMel(modality.rate, BANDS, stretch=samples is not None and samples <= EVENT * modality.rate)


@ENCODERS.register("audio")
class AudioEncoder(Encoder):
    """Log-mel frames, three convolutions with GroupNorm, and the bands of each step joined into one token.

    x: float ``[R, S]`` in [-1, 1] -> tokens ``[R, T, dim]`` over time, about 16 a second, at most 16 where the length
    is declared. mask: bool ``[R, S]``; what is masked counts as silence.

    In clips of up to 2 seconds the tokens divide the sounding part, not the clip, so that words said early or late,
    fast or slow, meet the same weights (measured on the built-in spoken digits, 900 rows and unheard voices: 0.73 in
    place of 0.62, and also better under white noise at 20 and 10 dB).
    """

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        self.logmel = logmel(modality)
        self.layers = nn.Sequential(
            stem(1, WIDTHS[0], 2), Stage(WIDTHS[0], WIDTHS[1], 2), Stage(WIDTHS[1], WIDTHS[2], (1, 2))
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        samples = modality.shape[0]
        steps = None if samples is None else ceil_div(self.logmel.frames(samples), SLOWER)
        self.window = window(steps)
        count = None if steps is None else ceil_div(steps, self.window)
        self.tokens = Tokens(WIDTHS[2] * BANDS // NARROWER, dim, count)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        """Shapes as in the class."""
        if mask is not None:
            x = torch.where(mask, x, 0)
        x = self.logmel(x).to(self.tokens.gain.dtype)
        x = self.layers(x[:, None]).permute(0, 2, 3, 1).flatten(2)
        x, mask = pool_steps(x, x.new_ones(x.shape[:2], dtype=torch.bool), self.window)
        stream: Stream = self.tokens(x, mask)
        return stream
