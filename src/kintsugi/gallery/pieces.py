"""Clean and damaged inputs as small pieces of HTML: pictures, sound, marked text, curves, cells and bars."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.evaluation.pictures import colour, log_mel, png
from kintsugi.gallery.damage import codes, seen, words
from kintsugi.gallery.samples import Sample

Array = NDArray[Any]
LARGEST = 224  # pixels of the longer side of a picture
SMALL = 64  # pictures up to here are PNG, exact to the pixel; larger ones WebP
QUALITY = 82  # of WebP
TONES = 48  # colours of a spectrogram
WIDTH, HEIGHT = 200, 34  # box of one channel of a series
CHANNELS, POINTS, BARS = 3, 160, 128  # at most so many are drawn
CELLS, WORDS = 16, 600


@dataclass(frozen=True)
class Curve:
    """One channel: an SVG path of the damaged and of the clean values, and gaps as (from, width); top of its box."""

    now: str
    clean: str
    gaps: tuple[tuple[float, float], ...]
    top: int


@dataclass(frozen=True)
class Piece:
    """How an input is shown, by ``form``: picture, sound, words, curves, bars, cells, label or nothing.

    alt: a text for who cannot see it. words: (equal, insert or delete; text). cells: (name, value, same, changed or gone).
    """

    form: str
    alt: str
    picture: str = ""
    pixels: tuple[int, int] = (0, 0)
    sound: str = ""
    words: tuple[tuple[str, str], ...] = ()
    curves: tuple[Curve, ...] = ()
    height: int = HEIGHT
    cells: tuple[tuple[str, str, str], ...] = ()
    note: str = ""


def piece(
    sample: Sample, name: str, row: int, clean: Batch, after: Batch | None = None, span: Array | None = None
) -> Piece:
    """A row of a modality; ``after``: the damaged batch, None: clean. span: from :func:`reach`, for curves and bars."""
    modality = sample.data.schema[name]
    now = clean if after is None else after
    if not bool(now.present[row, now.names.index(name)]):
        return Piece("nothing", f"{name} is gone", note="nothing is left")
    x, y = clean.inputs[name][row].detach().cpu(), now.inputs[name][row].detach().cpu()
    here = seen(now, name)[row].numpy()
    if modality.kind == "text":
        return _words(words(sample, clean, row, name), words(sample, now, row, name))
    if modality.kind == "audio":
        return _sound(y, here, modality.rate or 16000)
    if modality.kind == "tabular":
        return _cells(sample, name, x, y, here)
    if modality.kind == "vector":
        return _bars(x, y, here, span, after is not None)
    if modality.kind in ("series", "points"):
        return _curves(x, y, here, span, after is not None)
    return _picture(y, modality.kind)


def described(shown: Piece, what: str) -> Piece:
    """The same, with a text that says what it is."""
    return replace(shown, alt=f"{what}: {shown.alt}" if shown.alt else what)


def reach(name: str, row: int, clean: Batch, afters: Sequence[Batch | None]) -> Array | None:
    """Lowest and highest value to draw, ``[2, C]``: those of all severities, at most one clean range beyond the clean ones."""
    if not clean.inputs[name].is_floating_point():
        return None
    batches = [clean, *(after for after in afters if after is not None)]
    rows = [b.inputs[name][row].detach().cpu().numpy() for b in batches]
    flat = [r.reshape(len(r), -1) if r.ndim > 1 else r.reshape(-1, 1) for r in rows]
    low = np.stack([np.nanmin(np.where(np.isfinite(r), r, np.nan), 0, initial=np.inf) for r in flat])
    high = np.stack([np.nanmax(np.where(np.isfinite(r), r, np.nan), 0, initial=-np.inf) for r in flat])
    size = np.maximum(high[0] - low[0], 1e-6)
    return np.stack([np.maximum(low.min(0), low[0] - size), np.minimum(high.max(0), high[0] + size)])


# pictures and sound ---------------------------------------------------------------------------------------------------
def _picture(x: Tensor, kind: str) -> Piece:
    values = x.float().numpy()
    if kind == "video":
        values = values[len(values) // 2]
    elif kind == "volume":
        values = values.reshape(-1, *values.shape[-3:])[0]
        values = values[None, len(values) // 2]
    values = np.moveaxis(values, 0, -1)
    values = values if values.shape[-1] == 3 else values[..., 0]
    pixels: NDArray[np.uint8] = np.round(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    small = max(height, width) <= SMALL
    return Piece("picture", "", picture=png(pixels, stretch=(1, 1)) if small else webp(pixels), pixels=(width, height))


def webp(pixels: NDArray[np.uint8]) -> str:
    """A data URI of ``[H, W]`` or ``[H, W, 3]``, at most 224 pixels; JPEG where Pillow was built without WebP."""
    from PIL import Image, features

    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST, LARGEST))
    form = "webp" if features.check("webp") else "jpeg"
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=QUALITY)
    return uri(buffer.getvalue(), f"image/{form}")


def spectrogram(wave: Array, rate: float) -> tuple[str, tuple[int, int]]:
    """A log-mel spectrogram as a PNG data URI with few colours, and its width and height."""
    from PIL import Image

    values = log_mel(wave, rate)
    values = values[:, np.linspace(0, values.shape[1] - 1, min(values.shape[1], 240)).astype(int)]
    tones = np.round(values[::-1] * (TONES - 1)).astype(np.uint8)
    picture = Image.fromarray(tones).convert("P")
    ramp = colour(np.linspace(0, 1, TONES)[None])
    picture.putpalette(ramp.reshape(-1).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return uri(buffer.getvalue(), "image/png"), picture.size


def _sound(x: Tensor, here: Array, rate: float) -> Piece:
    wave = np.where(here, np.nan_to_num(x.float().numpy()), 0.0)
    picture, pixels = spectrogram(wave, rate)
    gone = 1 - float(here.mean())
    note = f"{100 * gone:.0f} % gone" if gone > 0 else ""
    return Piece("sound", "log-mel spectrogram", picture=picture, pixels=pixels, sound=_flac(wave, rate), note=note)


def _flac(wave: Array, rate: float) -> str:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise ImportError("sound in a gallery needs soundfile: pip install 'kintsugi-ml[audio]'") from error
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave, -1, 1), int(rate), format="FLAC", subtype="PCM_16")
    return uri(buffer.getvalue(), "audio/flac")


def uri(data: bytes, form: str) -> str:
    """A data URI."""
    return f"data:{form};base64,{base64.b64encode(data).decode()}"


# text -----------------------------------------------------------------------------------------------------------------
def _words(before: str, now: str) -> Piece:
    found: list[tuple[str, str]] = []
    for kind, a, b, c, d in codes(before, now):
        if kind in ("delete", "replace"):
            found.append(("delete", before[a:b]))
        if kind != "delete":
            found.append(("equal" if kind == "equal" else "insert", now[c:d]))
    left, kept = WORDS, []
    for kind, text in found:
        kept.append((kind, text[:left]))
        left -= len(text)
        if left <= 0:
            kept.append(("equal", " …"))
            break
    return Piece("words", "", words=tuple(kept))


# numbers --------------------------------------------------------------------------------------------------------------
def _curves(x: Tensor, y: Tensor, here: Array, span: Array | None, damaged: bool) -> Piece:
    before, now = (t.double().numpy().reshape(len(t), -1)[:, :CHANNELS] for t in (x, y))
    keep = np.unique(np.linspace(0, len(now) - 1, min(POINTS, len(now))).astype(int))
    low, high = span if span is not None else (np.nanmin(before, 0), np.nanmax(before, 0))
    found = []
    for channel in range(now.shape[1]):
        ends = float(low[channel]), float(high[channel])
        there = here[keep] & np.isfinite(now[keep, channel])
        found.append(
            Curve(
                _path(now[keep, channel], there, ends),
                _path(before[keep, channel], np.isfinite(before[keep, channel]), ends) if damaged else "",
                _gaps(there),
                channel * (HEIGHT + 4),
            )
        )
    more = "" if x.shape[-1] <= CHANNELS else f"{CHANNELS} of {x.shape[-1]} channels"
    return Piece("curves", "over time", curves=tuple(found), height=len(found) * (HEIGHT + 4) - 4, note=more)


def _path(values: Array, there: Array, ends: tuple[float, float]) -> str:
    across = np.linspace(1, WIDTH - 1, len(values))
    down = _down(values, ends, HEIGHT)
    out, pen = [], "M"
    for a, d, ok in zip(across, down, there, strict=True):
        if ok:
            out.append(f"{pen}{a:.4g} {d:.3g}")
        pen = "L" if ok else "M"
    return "".join(out)


def _down(values: Array, ends: tuple[float, float], height: int) -> Array:
    """Values as places in a box, the low end at its bottom; what is far out stays within a box below or above."""
    size = max(ends[1] - ends[0], 1e-9)
    near = np.clip(np.nan_to_num(values), ends[0] - size, ends[1] + size)
    places: Array = height - 1 - (height - 2) * (near - ends[0]) / size
    return places


def _gaps(there: Array) -> tuple[tuple[float, float], ...]:
    """Stretches that are not seen, as (from, width) in the box."""
    edges = np.flatnonzero(np.diff(np.concatenate([[1], there.astype(int), [1]])))
    step = WIDTH / max(len(there), 1)
    return tuple((round(a * step, 1), round((b - a) * step, 1)) for a, b in edges.reshape(-1, 2))


def _bars(x: Tensor, y: Tensor, here: Array, span: Array | None, damaged: bool) -> Piece:
    before, now = (t.double().numpy().reshape(-1)[:BARS] for t in (x, y))
    there = np.isfinite(now) & (here[: len(now)] if len(here) > 1 else True)
    low = min(0.0, float(np.nanmin(span[0]) if span is not None else np.nanmin(before)))
    high = max(0.0, float(np.nanmax(span[1]) if span is not None else np.nanmax(before)))
    tall = 2 * HEIGHT

    def bars(values: Array, ok: Array) -> str:
        at = (np.arange(len(values)) + 0.5) * WIDTH / len(values)
        foot, top = float(_down(np.zeros(1), (low, high), tall)[0]), _down(values, (low, high), tall)
        return "".join(f"M{a:.4g} {foot:.3g}V{t:.3g}" for a, t, good in zip(at, top, ok, strict=True) if good)

    curve = Curve(bars(now, there), bars(before, np.isfinite(before)) if damaged else "", _gaps(there), 0)
    more = "" if x.numel() <= BARS else f"{BARS} of {x.numel()} numbers"
    return Piece("bars", "numbers", curves=(curve,), height=tall, note=more)


def _cells(sample: Sample, name: str, x: Tensor, y: Tensor, here: Array) -> Piece:
    known = sample.cells if name == sample.modality else None
    found = []
    for number in range(min(len(y), CELLS)):
        before, now = float(x[number]), float(y[number])
        cell = known[number] if known else None
        if not here[number]:
            found.append((cell.name if cell else f"cell {number + 1}", "–", "gone"))
            continue
        value = cell.written(now) if cell else f"{now:.4g}"
        found.append((cell.name if cell else f"cell {number + 1}", value, "same" if before == now else "changed"))
    more = "" if len(y) <= CELLS else f"{CELLS} of {len(y)} cells"
    return Piece("cells", "cells", cells=tuple(found), note=more)
