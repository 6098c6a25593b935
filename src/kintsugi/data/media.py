"""Readers of pictures and sound."""

from __future__ import annotations

import io
import math
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Modality
from kintsugi.data.cells import (
    READERS,
    Decoded,
    Reader,
    ReadError,
    array,
    check_column,
    content,
    finite,
    fitted,
    nothing,
    place,
)
from kintsugi.data.foreign_cells import plain
from kintsugi.data.sound_files import RATES, decode_audio, resampled

__all__ = ["FORMATS", "AudioReader", "ImageReader", "audio", "decode_audio", "image"]

GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # more than 8 bits; convert() would clip these at 255
UNKNOWN_SIZE = 32  # side of a picture when no row has one
FORMATS = (  # that Pillow decodes by itself. EPS is left out since it is a program, for which Pillow starts Ghostscript
    "AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TIFF", "WEBP"
)  # fmt: skip
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to "L"
# Pixels, compared with what the head of a file says before anything is decoded.
MOST_PIXELS = 89_478_485  # the number from which Pillow warns of decompression bombs: 256 MiB of 24-bit pixels
MOST_DEEP_PIXELS = (
    MOST_PIXELS // 2
)  # with more than 8 bits: a mammogram has 28 million; they take 12 bytes each on the way
MOST_OWN_PIXELS = 1 << 24  # delivered where no size was given: 4096 x 4096, 192 MiB a row in colour
LOOKED_AT = 64  # cells, evenly spread, that are looked at for doubts
QUIET = 2**16  # full scale of 16 bits: sound of 32 bits that never reaches it was probably 16 bits before


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
        if self.size is None and math.prod(found[0]) > MOST_OWN_PIXELS:
            raise DataError(
                f"column {self.column!r}: the first picture has {found[0][0]} x {found[0][1]} pixels; every row would be made "
                f"as large. Say how large they shall be, image({self.column!r}, size=224); as they are, pictures of up "
                f"to {MOST_OWN_PIXELS:,} pixels are read"
            )
        return replace(self, size=self.size or found[0], channels=self.channels or found[1])

    def modality(self, name: str) -> Modality:
        return Modality(name, "image", (fitted(self.channels), *fitted(self.size)))

    def read(self, cells: Sequence[Any], root: Path | None) -> Decoded:
        size, channels = fitted(self.size), fitted(self.channels)
        picture, where = self._picture(cells[0], root)
        if picture is None:
            return _resize(_recolour(_pixels(array(cells[0], self.column), where), channels), size), None
        if picture.mode in DEEP:
            deep = np.asarray(picture)
            scaled = deep.astype(np.float32) / (1 if picture.mode == "F" else 65535)
            return _resize(_recolour(_pixels(scaled, where), channels), size), None
        picture = _converted(picture, "L" if channels == 1 else "RGB", where)
        if picture.size != size[::-1]:
            picture = picture.resize(size[::-1], _pillow().Resampling.BILINEAR)
        values = torch.from_numpy(np.array(picture)).float().div_(255)  # a picture of 8 bits
        return (values[None] if values.ndim == 2 else values.permute(2, 0, 1)), None

    def _picture(self, cell: Any, root: Path | None) -> tuple[Any, str]:
        """The picture of Pillow, decoded and upright, and where it is; None: the cell holds numbers."""
        if _is_picture(cell):
            return _upright(cell, f"column {self.column!r}"), f"column {self.column!r}"
        data = content(cell, self.column, root, self.kind)
        where = place(cell, self.column, root)
        return (None if data is None else _open(data, where)), where

    def _look(self, cell: Any, root: Path | None) -> tuple[tuple[int, int], int]:
        picture, where = self._picture(cell, root)
        if picture is not None and not min(picture.size):
            raise ReadError(where, "has no pixels")
        if picture is None:
            x = _pixels(array(cell, self.column), where)
            return (x.shape[1], x.shape[2]), 3 if x.shape[0] >= 3 else 1
        return (picture.height, picture.width), 1 if picture.mode in GREY else 3


def image(column: str, size: int | tuple[int, int] | None = None, channels: int | None = None) -> ImageReader:
    """Pictures as float32 ``[C, H, W]`` in [0, 1].

    Cells are paths, bytes of a picture (``FORMATS``), pictures of Pillow, mappings ``{"bytes", "path"}`` as Hugging Face
    has them, or arrays ``(H, W)`` or ``(H, W, C)`` of integers (full scale: the largest of their type, 255 where they are
    wider than 16 bits) or floats in [0, 1]. The orientation that a camera noted is applied, of several frames the first is
    taken. What is transparent lies on white, as browsers show it; only where white is all that would be seen (a white
    drawing) on black. Opaque pictures stay as they are.

    Files have at most ``cells.MOST_BYTES``, pictures ``MOST_PIXELS`` pixels (``MOST_DEEP_PIXELS`` with more than 8 bits),
    and without ``size`` the first one ``MOST_OWN_PIXELS``.

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
    module.init()
    formats = [name for name in FORMATS if name in module.OPEN]  # AVIF is not in every Pillow
    try:
        picture = module.open(io.BytesIO(data), formats=formats)
    except Exception as error:  # decoders raise anything on damaged bytes
        if not isinstance(error, module.UnidentifiedImageError):
            raise ReadError(where, f"cannot be decoded ({error})") from error
        name = _other_format(data, module.OPEN)
        problem = f"is an image of format {name}, which is not read" if name else "is no image in a known format"
        raise ReadError(where, f"{problem}; formats that are: {', '.join(formats)}") from error
    return _upright(picture, where)


def _is_picture(cell: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(cell, pillow.Image)


def _upright(picture: Any, where: str) -> Any:
    """The picture decoded and turned as its camera noted.

    Raises:
        ReadError: too large, or damaged.
    """
    from PIL import ImageOps

    most = MOST_DEEP_PIXELS if picture.mode in DEEP else MOST_PIXELS
    if picture.width * picture.height > most:
        raise ReadError(
            where, f"has {picture.width} x {picture.height} pixels of mode {picture.mode}; at most {most:,} are read"
        )
    try:
        picture.load()  # decodes everything, so that a truncated file is noticed here
        return ImageOps.exif_transpose(picture)
    except Exception as error:  # decoders raise anything on damaged bytes; MemoryError: of a size within the bounds
        raise ReadError(where, f"cannot be decoded ({error or type(error).__name__})") from error


def _converted(picture: Any, mode: str, where: str) -> Any:
    """In grey (``L``) or colour (``RGB``), on white where it is transparent."""
    try:
        if picture.mode == "La":  # colours times opacity, from which Pillow goes to LA alone
            picture = picture.convert("LA")
        if picture.has_transparency_data:
            clear = picture.convert("RGBA")
            if clear.getextrema()[3][0] < 255:
                picture = _on_white(clear)
        return picture.convert(mode)
    except Exception as error:  # such as from LAB, which Pillow cannot
        raise ReadError(where, f"cannot be turned from mode {picture.mode} into {mode} ({error})") from error


def _on_white(picture: Any) -> Any:
    """An RGBA picture as RGB on white; on black where nothing but white would be left."""
    module = _pillow()
    white = module.new("RGBA", picture.size, (255, 255, 255, 255))
    seen = module.alpha_composite(white, picture).convert("RGB")
    if seen.getextrema() != ((255, 255), (255, 255), (255, 255)):
        return seen
    return module.alpha_composite(module.new("RGBA", picture.size, (0, 0, 0, 255)), picture).convert("RGB")


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
    if not values.size:
        raise ReadError(where, f"has shape {list(values.shape)}: there is no pixel in it")
    if values.dtype.kind == "f":
        low, high = float(finite(values, where).min()), float(values.max())
        if low < -1e-6 or high > 1 + 1e-6:  # rounding is no error
            raise ReadError(where, f"floats of an image must be in [0, 1]; these run from {low:g} to {high:g}")
        scaled = values.astype(np.float32)
    elif values.dtype.kind == "b":
        scaled = values.astype(np.float32)
    else:
        full = np.iinfo(values.dtype).max if values.dtype.itemsize <= 2 else 255
        if values.min() < 0 or values.max() > full:
            raise ReadError(where, f"pixels run from {values.min()} to {values.max()}; {values.dtype} is 0 to {full}")
        scaled = (values / full).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).clamp_(0, 1)


def _recolour(x: Tensor, channels: int) -> Tensor:
    colour = x[:3] if len(x) >= 3 else x[:1]
    if len(x) in (2, 4) and float(x[-1].min()) < 1:  # the last one says how opaque
        alpha = x[-1:]
        seen = colour * alpha + (1 - alpha)
        colour = seen if float(seen.min()) < 1 else colour * alpha
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
        cell = plain(cells[0])
        if isinstance(cell, Mapping) and cell.get("array") is not None and cell.get("bytes") is None:
            wave = self._sampled(cell)
        elif (data := content(cell, self.column, root, self.kind)) is not None:
            wave = decode_audio(data, self.rate, place(cell, self.column, root), self.seconds)
        else:
            wave = _from_array(array(cell, self.column), f"column {self.column!r}")
        out = torch.zeros(self.samples)
        wave = wave[: self.samples]
        out[: len(wave)] = torch.from_numpy(wave)
        return out, None

    def _sampled(self, cell: Mapping[str, Any]) -> np.ndarray:
        """``{"array": …, "sampling_rate": …}``, as Hugging Face has sound."""
        where, rate = f"column {self.column!r}", plain(cell.get("sampling_rate"))
        whole = isinstance(rate, (int, float)) and not isinstance(rate, bool) and float(rate).is_integer()
        if rate is None or not whole or not (int(rate) == self.rate or RATES[0] <= rate <= RATES[1]):
            raise ReadError(
                where, f"has the sampling_rate {rate!r}; it must be whole, from {RATES[0]:,} to {RATES[1]:,} Hz"
            )
        wave = _from_array(array(cell["array"], self.column), where)
        longest = math.ceil((self.seconds + 0.1) * int(rate))
        heard: np.ndarray = np.clip(resampled(wave[:longest], int(rate), self.rate), -1, 1).astype(np.float32)
        return heard

    def doubts(self, frame: pd.DataFrame, root: Path | None) -> Iterator[str]:
        cells = [plain(cell) for cell in spread(frame[self.column])]
        wide = [cell for cell in cells if isinstance(cell, np.ndarray) and cell.dtype == np.int32 and cell.size]
        peak = max((int(np.abs(cell.astype(np.int64)).max()) for cell in wide), default=0)
        if 0 < peak < QUIET:
            yield (
                f"column {self.column!r} holds sound of 32 bits whose samples reach {peak} of {2**31 - 1} in the "
                f"{len(wide)} cells that were looked at; if they are 16-bit samples, give them as such: cell.astype('int16')"
            )


def audio(column: str, rate: int, seconds: float) -> AudioReader:
    """Sound as float32 ``[rate * seconds]`` in [-1, 1].

    Cells are paths, bytes of any format that libsndfile reads, mappings ``{"bytes", "path"}`` or ``{"array",
    "sampling_rate"}`` as Hugging Face has them, or arrays of samples ``(S,)`` or ``(S, channels)``, taken to be at ``rate``
    already: integers at the full scale of their type (16 bits where wider than 32), floats in [-1, 1], in files too.
    Channels are averaged, other rates resampled, the end is cut or filled with zeros. What comes out of MP3, Vorbis and
    Opus a little beyond [-1, 1] is clipped.

    Files have at most ``cells.MOST_BYTES`` and rates within ``sound_files.RATES``; no more of them is decoded than
    ``seconds`` need.

    Args:
        column: name of the column.
        rate: samples a second of what is delivered.
        seconds: length of what is delivered.
    """
    if int(rate) < 1 or not seconds > 0:
        raise ConfigError(f"rate and seconds must be above 0, not {rate!r} and {seconds!r}")
    return AudioReader(check_column(column), int(rate), float(seconds))


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


def spread(values: pd.Series) -> list[Any]:
    """Up to ``LOOKED_AT`` cells that hold something, from the first to the last row."""
    step = max(1, len(values) // LOOKED_AT)
    return [cell for cell in values.array[::step] if not nothing(cell)]


READERS |= {"image": ImageReader, "audio": AudioReader}
