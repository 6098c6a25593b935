"""Corruptions of audio against audiomentations 0.43.1: the same clips, one thread, in turn.

    pip install audiomentations
    OMP_NUM_THREADS=1 python benchmarks/audio.py [--runs 7] [--only white_noise clipping]

Batches of 32 clips of 1 and 5 seconds at 16 kHz, float32 in and out. Ours: ``Operator.apply`` on the batch, with draws
that belong to rows. Theirs: the transform with ``p=1`` and one level, on one clip after the other, as it is made for.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import audiomentations  # type: ignore[import-not-found, unused-ignore]
import numpy as np
import soundfile
import torch
from common import interleaved, machine

from kintsugi.core.batch import Batch
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect.operator import OPERATORS, Operator
from kintsugi.tasks.classification import Classification

RATE, CLIPS = 16000, 32


def clips(seconds: float) -> torch.Tensor:
    """Harmonic sounds with a little noise, as loud as speech: ``[32, samples]``."""
    rng = torch.Generator().manual_seed(0)
    time = torch.arange(int(seconds * RATE)) / RATE
    pitch = 90 + 120 * torch.rand(CLIPS, 1, generator=rng)
    sound = sum(torch.sin(6.2832 * k * pitch * time + k) / k for k in range(1, 12))
    return 0.1 * sound * (1 + 0.5 * torch.sin(6.2832 * 3 * time)) + 0.002 * torch.randn(CLIPS, len(time), generator=rng)


def theirs(folder: Path) -> dict[str, tuple[Any, dict[str, Any], str]]:
    """Our key -> their transform, our values, and how the two differ."""
    a = audiomentations
    decay = np.exp(-6.9 * np.arange(int(0.6 * RATE)) / (0.6 * RATE))
    noise = np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32) * 0.1
    (folder / "noise").mkdir()
    (folder / "rooms").mkdir()
    soundfile.write(folder / "noise" / "noise.wav", noise, RATE)
    soundfile.write(folder / "rooms" / "room.wav", noise[: len(decay)] * decay, RATE)
    colour = {"min_snr_db": 10.0, "max_snr_db": 10.0, "p": 1.0}
    return {
        "white_noise": (a.AddGaussianSNR(10.0, 10.0, p=1.0), {}, ""),
        "pink_noise": (a.AddColorNoise(min_f_decay=-3.0, max_f_decay=-3.0, **colour), {}, ""),
        "brown_noise": (a.AddColorNoise(min_f_decay=-6.0, max_f_decay=-6.0, **colour), {}, ""),
        "file_noise": (
            a.AddBackgroundNoise(folder / "noise", 10.0, 10.0, p=1.0),
            {"files": str(folder / "noise")},
            "theirs reads the file again each time",
        ),
        "reverberation": (
            a.ApplyImpulseResponse(folder / "rooms", p=1.0),
            {},
            "theirs has one stored response, ours makes one a row; 0.6 s",
        ),
        "clipping": (a.ClippingDistortion(20, 20, p=1.0), {}, "theirs at a percentile, ours at a share of the peak"),
        "gain": (a.Gain(20.0, 20.0, p=1.0), {}, "theirs does not clip"),
        "time_mask": (a.TimeMask(0.2, 0.2, fade_duration=0.0, p=1.0), {}, "theirs one stretch, ours two"),
        "frequency_mask": (a.BandStopFilter(1000.0, 1000.0, 0.5, 0.5, p=1.0), {}, "theirs a Butterworth filter"),
        "low_pass": (a.LowPassFilter(1667, 1667, 24, 24, p=1.0), {}, "theirs 24 dB an octave, ours a windowed sinc"),
        "high_pass": (a.HighPassFilter(1333, 1333, 24, 24, p=1.0), {}, "as low_pass"),
        "resampling": (a.Resample(8000, 8000, p=1.0), {}, "theirs only down, ours down and up"),
        "bit_depth": (a.BitCrush(5, 5, p=1.0), {}, ""),
        "pitch": (
            a.PitchShift(6, 6, method="librosa_phase_vocoder", p=1.0),
            {},
            "both a phase vocoder; theirs with windows of 2048",
        ),
    }


def jobs(x: torch.Tensor, key: str, transform: Any, values: dict[str, Any]) -> dict[str, Callable[[], object]]:
    schema = Schema((Modality("speech", "audio", (x.shape[1],), rate=RATE),), Classification(["a", "b"]))
    rows = torch.arange(len(x))
    data = Dataset(TensorSource(schema, Batch(("speech",), {"speech": x}, rows[:, None] >= 0, rows, rows % 2)))
    operator = OPERATORS[key]()
    assert isinstance(operator, Operator)
    plan = operator.plan(data, "speech", 3, 0, **values)
    arrays = list(x.numpy())
    return {
        "ours": lambda: operator.apply(x, rows, plan),
        "theirs": lambda: [transform(samples=clip, sample_rate=RATE) for clip in arrays],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"{machine()}; audiomentations {audiomentations.__version__}; clips a second, median of {options.runs} runs")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for key, (transform, values, note) in theirs(Path(folder)).items():
            if options.only and key not in options.only:
                continue
            for seconds in (1, 5):
                found = interleaved(options.runs, **jobs(clips(seconds), key, transform, values))
                ratios = sorted(b / a for a, b in zip(found["ours"], found["theirs"], strict=True))
                ours, other = (CLIPS / statistics.median(found[name]) for name in ("ours", "theirs"))
                print(
                    f"{key:<15} {seconds} s  ours {ours:>9,.0f}  theirs {other:>9,.0f}  "
                    f"{statistics.median(ratios):6.2f} x ({ratios[0]:.2f} – {ratios[-1]:.2f})  {note}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
