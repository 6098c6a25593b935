"""Readers of pictures and sound."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.data.cells import READERS, Decoded, Reader, ReadError, array, check_column, content, finite, fitted, place

GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # more than 8 bits; convert() would clip these at 255
UNKNOWN_SIZE = 32  # side of a picture when no row has one
FORMATS = (  # that Pillow decodes by itself. EPS is left out since it is a program, for which Pillow starts Ghostscript
    "AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TIFF", "WEBP"
)  # fmt: skip
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to "L"


@dataclass(frozen=True)
class ImageReader(Reader):
    """See :func:`image`."""

    column: str
    size: tuple[int, int] | None = None
    channels: int | None = None

    kind: ClassVar[str] = "image"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        if self.size is not None and self.channels is not None:
            return self
        found: tuple[tuple[int, int], int] = ((UNKNOWN_SIZE, UNKNOWN_SIZE), 1)
        for cell in frame[self.column].array:
            if self.hole(cell, root):
                continue
            try:
                found = self._look(cell, root)
                break
            except ReadError:  # reported when its row is read
                continue
        return replace(self, size=self.size or found[0], channels=self.channels or found[1])

    def modality(self, name: str) -> Modality:
        return Modality(name, "image", (fitted(self.channels), *fitted(self.size)))

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        size, channels = fitted(self.size), fitted(self.channels)
        data = content(cells[0], self.column, root)
        where = place(cells[0], self.column, root)
        if data is None:
            return _resize(_recolour(_pixels(array(cells[0], self.column), where), channels), size), None
        picture = _open(data, where)
        if picture.mode in DEEP:
            deep = np.asarray(picture)
            scaled = deep.astype(np.float32) / (1 if picture.mode == "F" else 65535)
            return _resize(_recolour(_pixels(scaled, where), channels), size), None
        picture = picture.convert("L" if channels == 1 else "RGB")
        if picture.size != size[::-1]:
            picture = picture.resize(size[::-1], _pillow().Resampling.BILINEAR)
        values = torch.from_numpy(np.array(picture)).float().div_(255)  # a picture of 8 bits
        return (values[None] if values.ndim == 2 else values.permute(2, 0, 1)), None

    def _look(self, cell: Any, root: Path | None) -> tuple[tuple[int, int], int]:
        data = content(cell, self.column, root)
        where = place(cell, self.column, root)
        if data is None:
            x = _pixels(array(cell, self.column), where)
            return (x.shape[1], x.shape[2]), 3 if x.shape[0] >= 3 else 1
        picture = _open(data, where)
        return (picture.height, picture.width), 1 if picture.mode in GREY else 3


def image(column: str, size: int | tuple[int, int] | None = None, channels: int | None = None) -> ImageReader:
    """Pictures as float32 ``[C, H, W]`` in [0, 1].

    Cells are paths, bytes of a picture (``FORMATS``), or arrays ``(H, W)`` or ``(H, W, C)`` of integers (full
    scale: their type's, 255 where they are wider than 16 bits) or floats in [0, 1]. The orientation that a camera
    noted is applied, transparency is dropped, of several frames the first is taken.

    Args:
        column: name of the column.
        size: pixels, a side or (height, width), reached by bilinear resizing; None: that of the first readable cell.
        channels: 1 (grey) or 3 (RGB); None: as the first readable cell.
    """
    if channels not in (None, 1, 3):
        raise ConfigError(f"channels must be 1 (grey), 3 (RGB) or None, not {channels!r}")
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and (len(sides) != 2 or min(sides) < 1):
        raise ConfigError(f"size must be pixels: a number or (height, width), not {size!r}")
    return ImageReader(check_column(column), None if sides is None else (int(sides[0]), int(sides[1])), channels)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading image files needs Pillow: pip install 'kintsugi-ml[image]'") from error
    return Image


def _open(data: bytes, where: str) -> Any:
    module = _pillow()
    from PIL import ImageOps

    module.init()
    formats = [name for name in FORMATS if name in module.OPEN]  # AVIF is not in every Pillow
    try:
        picture = module.open(io.BytesIO(data), formats=formats)
        picture.load()  # decodes everything, so that a truncated file is noticed here
        return ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on damaged bytes
        if not isinstance(error, module.UnidentifiedImageError):
            raise ReadError(where, f"cannot be decoded ({error})") from error
        name = _other_format(data, module.OPEN)
        problem = f"is an image of format {name}, which is not read" if name else "is no image in a known format"
        raise ReadError(where, f"{problem}; formats that are: {', '.join(formats)}") from error


def _other_format(data: bytes, known: Mapping[str, Any]) -> str | None:
    """What the first bytes look like among the formats of Pillow that are not read; nothing is decoded."""
    for name, (_, looks_like) in known.items():
        try:
            if name not in FORMATS and looks_like is not None and looks_like(data[:16]) is True:
                return name
        except (IndexError, struct.error):  # too short to tell
            continue
    return None


def _pixels(values: np.ndarray, where: str) -> Tensor:
    """Array ``(H, W)`` or ``(H, W, C)`` -> float32 ``[C, H, W]`` in [0, 1]."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4):
        raise ReadError(where, f"has shape {list(values.shape)}; an image is (H, W) or (H, W, C) with C from 1 to 4")
    if values.dtype.kind == "f":
        low, high = float(finite(values, where).min()), float(values.max())
        if low < -1e-6 or high > 1 + 1e-6:  # rounding is no error
            raise ReadError(where, f"floats of an image must be in [0, 1]; these run from {low:g} to {high:g}")
        scaled = values.astype(np.float32)
    elif values.dtype.kind == "b":
        scaled = values.astype(np.float32)
    else:
        full = 65535 if values.dtype in (np.uint16, np.int16) else 255
        if values.min() < 0 or values.max() > full:
            raise ReadError(where, f"pixels run from {values.min()} to {values.max()}; {values.dtype} is 0 to {full}")
        scaled = (values / full).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).clamp_(0, 1)


def _recolour(x: Tensor, channels: int) -> Tensor:
    colour = x[:3] if len(x) >= 3 else x[:1]  # the rest is transparency
    if len(colour) == channels:
        return colour
    if channels == 3:
        return colour.expand(3, -1, -1)
    return torch.einsum("chw,c->hw", colour, torch.tensor(LUMA))[None]


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[1:]) == size:
        return x.contiguous()
    return F.interpolate(x[None], size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


@dataclass(frozen=True)
class AudioReader(Reader):
    """See :func:`audio`."""

    column: str
    rate: int
    seconds: float

    kind: ClassVar[str] = "audio"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def samples(self) -> int:
        """Length of what it delivers."""
        return max(1, round(self.rate * self.seconds))

    def fit(self, frame: pd.DataFrame, root: Path | None) -> Self:
        return self

    def modality(self, name: str) -> Modality:
        return Modality(name, "audio", (self.samples,), rate=float(self.rate))

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        data = content(cells[0], self.column, root)
        where = place(cells[0], self.column, root)
        if data is None:
            wave = _from_array(array(cells[0], self.column), where)
        else:
            wave = decode_audio(data, self.rate, where, self.seconds)
        out = torch.zeros(self.samples)
        wave = wave[: self.samples]
        out[: len(wave)] = torch.from_numpy(wave)
        return out, None


def audio(column: str, rate: int, seconds: float) -> AudioReader:
    """Sound as float32 ``[rate * seconds]`` in [-1, 1].

    Cells are paths, bytes of any format that libsndfile reads, or arrays of samples ``(S,)`` or ``(S, channels)``,
    taken to be at ``rate`` already: integers at the full scale of their type (16 bits where wider than 32), floats in
    [-1, 1]. Channels are averaged, other rates resampled, the end is cut or filled with zeros.

    Args:
        column: name of the column.
        rate: samples a second of what is delivered.
        seconds: length of what is delivered.
    """
    if int(rate) < 1 or not seconds > 0:
        raise ConfigError(f"rate and seconds must be above 0, not {rate!r} and {seconds!r}")
    return AudioReader(check_column(column), int(rate), float(seconds))


def decode_audio(data: bytes, rate: int, where: str, seconds: float | None = None) -> np.ndarray:
    """Float32 ``[samples]`` in [-1, 1] at this rate: mean of the channels, at most ``seconds`` long.

    Raises:
        ReadError: not sound, truncated, or not finite.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise ImportError("reading sound needs soundfile: pip install 'kintsugi-ml[audio]'") from error
    _whole(data, where)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            native, frames = int(file.samplerate), int(file.frames)
            if seconds is not None:  # a little more, so that the filter of the resampler has no edge there
                frames = min(frames, math.ceil((seconds + 0.1) * native))
            wave = file.read(frames, dtype="float32", always_2d=True)
    except MemoryError:
        raise
    except Exception as error:
        raise ReadError(where, f"cannot be decoded ({error})") from error
    if len(wave) < frames:
        raise ReadError(where, f"is truncated: {len(wave)} of {frames} samples are there")
    if not len(wave):
        raise ReadError(where, "holds no samples")
    mono = finite(wave.mean(1), where)
    if native != rate:
        from scipy.signal import resample_poly

        shared = math.gcd(rate, native)
        mono = resample_poly(mono, rate // shared, native // shared)
    clipped: np.ndarray = np.clip(mono, -1, 1).astype(np.float32)
    return clipped


def _whole(data: bytes, where: str) -> None:
    """Libsndfile reads a WAV file that was cut off as if it were a shorter one; its header tells."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    at = 12
    while at + 8 <= len(data):
        chunk, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if chunk == b"data":
            unknown = size >= 0x7FFFF000  # what a program writes that did not know the length yet
            if at + 8 + size > len(data) and not unknown:
                raise ReadError(where, f"is truncated: {len(data) - at - 8} of {size} bytes of sound are there")
            return
        at += 8 + size + size % 2
    raise ReadError(where, "is truncated: no sound in it")


def _from_array(values: np.ndarray, where: str) -> np.ndarray:
    if values.ndim == 2 and min(values.shape) > 0:
        channels = int(np.argmin(values.shape))
    elif values.ndim == 1:
        channels = -1
    else:
        raise ReadError(where, f"has shape {list(values.shape)}; sound is (samples,) or (samples, channels)")
    if values.dtype.kind == "f":
        peak = float(np.abs(finite(values, where)).max())
        if peak > 1.001:  # rounding is no error
            raise ReadError(where, f"floats of sound must be in [-1, 1]; these reach {peak:g}")
        wave = values.astype(np.float32)
    else:
        bits = 16 if values.dtype.itemsize > 4 else 8 * values.dtype.itemsize
        centre = 2 ** (bits - 1) if values.dtype.kind == "u" else 0
        wave = (values.astype(np.float64) - centre) / 2 ** (bits - 1)
        if np.abs(wave).max() > 1:
            raise ReadError(where, f"samples reach {np.abs(values).max()}, beyond {bits} bits")
    mono = wave if channels < 0 else wave.mean(channels)
    return np.clip(mono, -1, 1).astype(np.float32)


READERS |= {"image": ImageReader, "audio": AudioReader}
