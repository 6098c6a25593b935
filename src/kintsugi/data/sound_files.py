"""Bytes of a sound file as samples at the rate that is wanted, with a bound for each size that a file says."""

from __future__ import annotations

import io
import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np

from kintsugi.data.cells import ReadError, finite

RATES = (
    1_000,
    1_000_000,
)  # Hz of a file; beyond are damaged heads, for which a filter as long as the rate would be made
MOST_RATIO = 1 << 16  # of a resampler's two factors: its filter has twenty times as many taps
MOST_SECONDS = 24 * 3600.0  # of what is decoded where no length is given
BLOCK = 1 << 18  # samples, over all channels, that are decoded at once: 1 MiB
MOST_CHUNKS = 10_000  # of a WAV file before its sound; each may be empty
LOUD = 1.001  # full scale is 1; rounding is no error
ENDLESS = 1 << 6  # by how much a file of unknown length is said to be longer than it is


def decode_audio(data: bytes, rate: int, where: str, seconds: float | None = None) -> np.ndarray:
    """Float32 ``[samples]`` in [-1, 1] at this rate: mean of the channels, at most ``seconds`` long.

    Raises:
        ReadError: not sound, truncated, not finite, floats beyond [-1, 1], or a rate outside ``RATES``.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise ImportError("reading sound needs soundfile: pip install 'kintsugi-ml[audio]'") from error
    _whole(data, where)
    unknown = _mp3_of_unknown_length(data)
    try:
        with soundfile.SoundFile(_Endless(data) if unknown else io.BytesIO(data)) as file:
            native, frames = int(file.samplerate), int(file.frames)
            if not RATES[0] <= native <= RATES[1]:
                raise ReadError(where, f"has {native:,} samples a second; read are {RATES[0]:,} to {RATES[1]:,}")
            # a little more, so that the filter of the resampler has no edge there
            longest = math.ceil(((MOST_SECONDS if seconds is None else seconds) + 0.1) * native)
            frames = longest if unknown else min(frames, longest)
            mono = _mixed(file, frames, where)
    except ReadError:
        raise
    except Exception as error:  # MemoryError: of a size within the bounds
        raise ReadError(where, f"cannot be decoded ({error or type(error).__name__})") from error
    if len(mono) < frames and not unknown:
        raise ReadError(where, f"is truncated: {len(mono)} of {frames} samples are there")
    if not len(mono):
        raise ReadError(where, "holds no samples")
    clipped: np.ndarray = np.clip(resampled(finite(mono, where), native, rate), -1, 1).astype(np.float32)
    return clipped


def resampled(wave: np.ndarray, native: int, rate: int) -> np.ndarray:
    """Samples ``[S]`` at another rate, by a polyphase filter.

    A ratio whose terms are beyond ``MOST_RATIO`` is replaced by the nearest within: at 1 kHz and 1 MHz it differs by less
    than two in ten million, 0.2 microseconds a second.
    """
    if native == rate:
        return wave
    from scipy.signal import resample_poly

    slow, fast = sorted((rate, native))
    ratio = Fraction(slow, fast).limit_denominator(MOST_RATIO) or Fraction(1, round(fast / slow))
    up, down = ratio.numerator, ratio.denominator
    made: np.ndarray = resample_poly(wave, up, down) if native > rate else resample_poly(wave, down, up)
    return made


def _mixed(file: Any, frames: int, where: str) -> np.ndarray:
    """Mean of the channels of the first ``frames`` samples, float32; fewer where the file ends. Decoded block by block."""
    exact = file.subtype in ("FLOAT", "DOUBLE")  # lossy codecs overshoot; what was stored as it is should be in range
    block = np.empty((max(1, min(frames, BLOCK // file.channels)), file.channels), np.float32)
    parts: list[np.ndarray] = []
    left, peak = frames, 0.0
    while left > 0:
        some = file.read(out=block[: min(left, len(block))])
        if not len(some):
            break
        if exact:
            peak = max(peak, float(np.abs(finite(some, where)).max()))
        parts.append(some.mean(1))
        left -= len(some)
    if peak > LOUD:
        raise ReadError(where, f"floats of sound must be in [-1, 1]; these reach {peak:g}")
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _whole(data: bytes, where: str) -> None:
    """Libsndfile reads a WAV file that was cut off as if it were a shorter one; its header tells."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    at = 12
    for _ in range(MOST_CHUNKS):
        if at + 8 > len(data):
            break
        chunk, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if chunk == b"data":
            unknown = size >= 0x7FFFF000  # what a program writes that did not know the length yet
            if at + 8 + size > len(data) and not unknown:
                raise ReadError(where, f"is truncated: {len(data) - at - 8} of {size} bytes of sound are there")
            return
        at += 8 + size + size % 2
    raise ReadError(where, "is truncated: no sound in it")


def _mp3_of_unknown_length(data: bytes) -> bool:
    """MP3 whose first frame holds no length (Xing, Info or VBRI); libsndfile then guesses from the first frame's rate."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:  # its length: four bytes of seven bits
        size = data[at + 6 : at + 10]
        at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))
    frame = data[at : at + 4]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # eleven bits of ones; layer III
        return False
    head = data[at : at + 200]  # at 4 to 36 bytes after the frame's head, by version and channels; two more with a sum
    return not any(word in head for word in (b"Xing", b"Info", b"VBRI"))


class _Endless:
    """Bytes as a file that seems longer: libsndfile stops at the length that it derives from the number of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.length = memoryview(data), 0, len(data) * ENDLESS

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, self.length)[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, count: int = -1) -> bytes:
        some = bytes(self.data[self.at : self.length if count < 0 else self.at + count])
        self.at += len(some)
        return some

    def readinto(self, buffer: Any) -> int:
        if self.at >= len(self.data) and self.at > 0 and self.at >= self.length - 4096:
            some: bytes | memoryview = bytes(
                len(buffer)
            )  # a tag at the end is looked for, and nothing is an error there
        else:
            some = self.data[self.at : self.at + len(buffer)]
        buffer[: len(some)] = some
        self.at += len(some)
        return len(some)

    def write(self, data: bytes) -> int:
        raise io.UnsupportedOperation("it is for reading")
