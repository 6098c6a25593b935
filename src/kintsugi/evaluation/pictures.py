"""Inputs of example rows as small pieces of HTML: pictures as data URIs, curves as SVG, text as text."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.evaluation.examples import Shown

Array = NDArray[np.floating[Any]]
SIDE = 96  # pixels of a small picture's longer side
# Dark lacquer, gold, pale gold: lightness rises evenly, so that the map reads in grey too.
LACQUER = np.array([[16, 18, 27], [58, 45, 51], [122, 84, 38], [201, 146, 45], [250, 236, 190]], dtype=float)


@dataclass(frozen=True)
class Piece:
    """How an input is shown: ``picture`` (a PNG data URI), ``svg`` (points of a polyline), ``text``, or ``absent``."""

    name: str
    kind: str
    shape: str
    picture: str | None = None
    wide: bool = False
    lines: tuple[str, ...] = ()
    text: str | None = None
    absent: bool = False


def piece(shown: Shown) -> Piece:
    """The piece for an input."""
    m, value = shown.modality, shown.value
    if value is None:
        return Piece(m.name, m.kind, "", absent=True)
    if isinstance(value, str):
        return Piece(m.name, m.kind, "text", text=value)
    x = value.float().numpy()
    said = " × ".join(map(str, value.shape))
    if m.kind == "audio":
        wave = x if x.ndim == 1 else x.reshape(-1, x.shape[-1]).mean(0)
        picture = png(colour(log_mel(wave, m.rate or 16000)), stretch=(2, 2))
        return Piece(m.name, m.kind, f"log-mel spectrogram, {said} samples", picture=picture, wide=True)
    if m.kind in ("image", "video", "volume"):
        return Piece(m.name, m.kind, said, picture=png(_frame(x, m.kind)))
    if m.kind == "series" and len(x) > 1:
        return Piece(m.name, m.kind, said, lines=_polylines(x.reshape(len(x), -1)))
    return Piece(m.name, m.kind, said, text=_numbers(value))


def _frame(x: Array, kind: str) -> NDArray[np.uint8]:
    """An image ``[C, H, W]``, the middle frame of a video ``[T, C, H, W]``, or slice of a volume ``[C, D, H, W]``."""
    if kind == "video" and x.ndim == 4:
        x = x[len(x) // 2]
    elif kind == "volume":
        x = x.reshape(-1, *x.shape[-3:])[0]
        x = x[len(x) // 2]
    if x.ndim == 3:
        x = np.moveaxis(x, 0, -1)
        x = x if x.shape[-1] == 3 else x[..., 0]
    if kind == "volume":
        x = (x - x.min()) / max(float(np.ptp(x)), 1e-9)
    return np.round(np.clip(x, 0, 1) * 255).astype(np.uint8)


def log_mel(wave: Array, rate: float, bands: int = 64) -> Array:
    """Log-mel power spectrogram ``[bands, frames]`` scaled to [0, 1]: Hann windows of 32 ms, a quarter of that apart.

    Triangular filters evenly spaced in mel = 2595 log10(1 + f / 700) (O'Shaughnessy 1987); 80 dB below the peak is 0.
    """
    size = max(64, 1 << round(np.log2(0.032 * rate)))
    hop = size // 4
    padded = np.pad(wave, (0, max(0, size - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(size, 1 / rate)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    # The lowest triangles may fall between two bins; each takes the nearest one then.
    empty = filters.sum(1) == 0
    filters[empty, np.abs(bins[None] - edges[1:-1][empty, None]).argmin(1)] = 1
    decibel = 10 * np.log10(filters @ power.T + 1e-10)
    scaled: Array = np.clip((decibel - decibel.max() + 80) / 80, 0, 1)
    return scaled


def colour(values: Array) -> NDArray[np.uint8]:
    """Values in [0, 1] ``[H, W]``, low frequencies first, as an RGB picture with these at the bottom."""
    at = values[::-1] * (len(LACQUER) - 1)
    below = np.clip(at.astype(int), 0, len(LACQUER) - 2)
    part = (at - below)[..., None]
    rgb: NDArray[np.uint8] = np.round(LACQUER[below] * (1 - part) + LACQUER[below + 1] * part).astype(np.uint8)
    return rgb


def png(pixels: NDArray[np.uint8], stretch: tuple[int, int] | None = None) -> str:
    """A PNG data URI of ``[H, W]`` or ``[H, W, 3]``. Small pictures are enlarged by whole steps, large ones shrunk."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    longer = max(picture.size)
    if stretch is not None:
        picture = picture.resize((picture.width * stretch[0], picture.height * stretch[1]), Image.Resampling.NEAREST)
        picture.thumbnail((480, 240))
    elif longer > 2 * SIDE:
        picture.thumbnail((2 * SIDE, 2 * SIDE))
    elif longer < SIDE:
        step = -(-SIDE // longer)
        picture = picture.resize((picture.width * step, picture.height * step), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _polylines(x: Array, most: int = 4, points: int = 120) -> tuple[str, ...]:
    """Points of at most four channels in a box of 240 by 64."""
    chosen = x[np.linspace(0, len(x) - 1, min(points, len(x))).astype(int), :most]
    low, high = float(chosen.min()), float(chosen.max())
    across = np.linspace(2, 238, len(chosen))
    down = 62 - 60 * (chosen - low) / max(high - low, 1e-9)
    return tuple(" ".join(f"{a:.1f},{d:.1f}" for a, d in zip(across, channel, strict=True)) for channel in down.T)


def _numbers(x: Tensor, most: int = 12) -> str:
    flat = x.reshape(-1)
    return ", ".join(f"{float(v):.3g}" for v in flat[:most]) + (
        f", … ({len(flat)} numbers)" if len(flat) > most else ""
    )
