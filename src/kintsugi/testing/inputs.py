"""Small data of every kind, natural enough that blur, typos and faults do to it what they do to real data."""

from __future__ import annotations

import wave
from pathlib import Path

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.tasks.classification import Classification

RATE = 8000
LENGTH = 160
TEXTS = (
    "The patient reports two or three days of chest pain, worse at night, and there is no fever.",
    "An even digit, larger than 4, below nine! Their weather station is over here, you know",
    "Ünïcode ends hier: für 25 Euro gibt es zwei größere Äpfel (frisch)",
    "I would have been there too, but they're receiving the new equipment tomorrow morning.",
)


def noise_file(path: Path, seconds: int = 1) -> str:
    """Writes a WAV file of noise at 8 kHz, 16 bit; its path as text."""
    noise = torch.randn(seconds * RATE, generator=torch.Generator().manual_seed(3)).mul(4000).clamp(-32767, 32767)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(noise.to(torch.int16).numpy().astype("<i2").tobytes())
    return str(path)


def ids(text: str, length: int = LENGTH) -> Tensor:
    """Text as tables read it: UTF-8 bytes plus one, 0 after the end."""
    data = text.encode()[:length].decode(errors="ignore").encode()
    return torch.tensor([b + 1 for b in data] + [0] * (length - len(data)))


def words(row: Tensor) -> str:
    """The way back; bytes that are no text become a question mark in a box."""
    return bytes(int(i) - 1 for i in row if i > 0).decode(errors="replace")


def pictures(rows: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Pictures with the 1/f spectrum of natural scenes, in [0, 1]: ``[rows, channels, size, size]``."""
    rng = torch.Generator().manual_seed(seed)
    across = torch.fft.fftfreq(size)
    fall = (across[:, None] ** 2 + across[None] ** 2).sqrt().clamp(min=1 / size)
    noise = torch.fft.fft2(torch.randn(rows, channels, size, size, generator=rng)) / fall
    grey = torch.fft.ifft2(noise).real
    grey = grey + 1.5 * grey.mean(1, keepdim=True)
    low, high = grey.amin((1, 2, 3), keepdim=True), grey.amax((1, 2, 3), keepdim=True)
    return 0.05 + 0.9 * (grey - low) / (high - low)


def clips(rows: int, samples: int, seed: int = 0) -> Tensor:
    """Voiced sounds with harmonics, a pause and silence at the end: ``[rows, samples]`` at 8 kHz."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / RATE
    pitch = 90 + 120 * torch.rand(rows, 1, generator=rng)
    sound = torch.stack([torch.sin(6.2832 * k * pitch * time + k) / k for k in range(1, 12)]).sum(0)
    loud = 0.1 + 0.2 * torch.rand(rows, 1, generator=rng)
    shape = 0.6 + 0.4 * torch.sin(6.2832 * 3 * time + 6 * torch.rand(rows, 1, generator=rng))
    out = loud * shape * sound + 0.002 * torch.randn(rows, samples, generator=rng)
    out[:, int(0.45 * samples) : int(0.5 * samples)] = 0
    out[:, int(0.9 * samples) :] = 0
    return out.clamp(-1, 1)


def sensors(rows: int, steps: int, channels: int, seed: int = 0) -> Tensor:
    """Slow waves of different size and mean with a little noise: ``[rows, steps, channels]``."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.arange(steps)[None, :, None] / steps
    slow = torch.sin(6.2832 * (1 + 4 * torch.rand(rows, 1, channels, generator=rng)) * time)
    size = torch.tensor([1.0, 0.3, 4.0, 2.0, 1.5, 0.7])[:channels]
    return (slow + 0.1 * torch.randn(rows, steps, channels, generator=rng)) * size + torch.arange(channels)


def every_kind(rows: int = 24, absent: bool = True, size: int = 32, channels: int = 3) -> Dataset:
    """Every kind once, images and series twice, with four classes.

    Args:
        rows: of the data set.
        absent: every third row lacks photo, speech and note in turn, filled with NaN where they are floats.
        size, channels: of the pictures.
    """
    rng = torch.Generator().manual_seed(0)
    notes = torch.stack([ids(TEXTS[i % 4]) for i in range(rows)])
    table = torch.randn(rows, 6, generator=rng)
    table[:, 4] = torch.randint(1, 4, (rows,), generator=rng)
    table[:, 5] = torch.randint(1, 6, (rows,), generator=rng)
    seen = torch.rand(rows, 6, generator=rng) > 0.1
    seen[:, 0] = True
    series = sensors(rows, 64, 3)
    steps = torch.arange(64) < (64 - torch.arange(rows)[:, None] % 3 * 8)
    inputs = {
        "photo": pictures(rows, channels, size),
        "speech": clips(rows, 2400),
        "note": notes,
        "table": torch.where(seen, table, torch.nan),
        "sensor": torch.where(steps[..., None], series, torch.nan),
        "code": torch.randn(rows, 16, generator=rng) * torch.linspace(0.5, 3, 16),
        "thermal": pictures(rows, channels, size, seed=1),
        "gait": sensors(rows, 64, 3, seed=1),
    }
    present = torch.ones(rows, len(inputs), dtype=torch.bool)
    if absent:
        for column in range(3):
            present[column::3, column] = False
        inputs["photo"][~present[:, 0]] = float("nan")
        inputs["speech"][~present[:, 1]] = float("nan")
    schema = Schema(
        (
            Modality("photo", "image", (channels, size, size)),
            Modality("speech", "audio", (2400,), rate=RATE),
            Modality("note", "text", (LENGTH,), vocab=257),
            Modality("table", "tabular", (6,), categories=(0, 0, 0, 0, 3, 5)),
            Modality("sensor", "series", (64, 3), rate=50),
            Modality("code", "vector", (16,)),
            Modality("thermal", "image", (channels, size, size)),
            Modality("gait", "series", (64, 3), rate=50),
        ),
        Classification(["a", "b", "c", "d"]),
    )
    mask = {"note": (notes > 0) & present[:, 2:3], "table": seen, "sensor": steps}
    batch = Batch(schema.names, inputs, present, torch.arange(rows), torch.arange(rows) * 7 % 4, mask=mask)
    return Dataset(TensorSource(schema, batch))
