"""Clean samples of every kind: from the built-in data sets, and real data that comes with scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.schema import Modality, Schema, Task
from kintsugi.data import datasets
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.mfcc import mfcc
from kintsugi.data.readers import tabular, text
from kintsugi.data.table import Table
from kintsugi.imperfect.operator import CROSS
from kintsugi.tasks.classification import Classification

PHOTO, SMALL = 224, 32  # sides of the pictures of ImageNet-C and CIFAR-10-C
FRAMES = 100.0  # MFCC frames a second
WINDOW, STEP, COEFFICIENTS = 256, 80, 3  # 32 ms and 10 ms at 8 kHz
SENTENCE = 200  # bytes
PAIRS = 300  # rows of the data that cross-modal operators are shown on


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows that operators of one kind are shown on.

    name: what it is; modality: of ``data``, empty for cross-modal operators, which choose; origin: where it comes from,
    in a sentence; ordered: the first rows are shown, not drawn ones.
    """

    name: str
    data: Dataset
    modality: str
    origin: str
    ordered: bool = False

    def rows(self, modalities: tuple[str, ...], seed: int, most: int) -> Tensor:
        """Positions of up to ``most`` rows that have these modalities, int64 ``[R]``: drawn, or the first ones."""
        columns = [self.data.schema.column(name) for name in modalities]
        here = self.data.present[:, columns].all(1).nonzero().flatten()
        if not self.ordered:
            here = here[torch.randperm(len(here), generator=torch.Generator().manual_seed(seed))]
        return here[:most]

    @cached_property
    def cells(self) -> list[Cells] | None:
        """How the cells of a table are called and written, where its reader knows."""
        reading = (self.data.reading or {}).get("modalities", {}).get(self.modality, {})
        names = reading.get("cells")
        if not names:
            return None
        known = reading.get("known", {})
        return [
            Cells(name, tuple(known.get(name, ())), mean, std)
            for name, mean, std in zip(names, reading["mean"], reading["std"], strict=True)
        ]


@dataclass(frozen=True)
class Cells:
    """One cell of a table: its name, its categories (codes 1 to n), and the mean and deviation that were taken off."""

    name: str
    categories: tuple[str, ...]
    mean: float
    std: float

    def written(self, value: float) -> str:
        """The value as the table has it."""
        if self.categories:
            code = round(value)
            return self.categories[code - 1] if 1 <= code <= len(self.categories) else "unknown"
        number = self.mean + self.std * value
        return f"{number:.0f}" if 1e4 <= abs(number) < 1e9 else f"{number:.4g}"


def own(data: Dataset, name: str) -> dict[str, list[Sample]]:
    """Samples of a data set of the user's: one a modality, and the whole for cross-modal operators."""
    data = data.in_memory()
    found: dict[str, list[Sample]] = {}
    for m in data.schema.modalities:
        shape = " × ".join("any" if side is None else str(side) for side in m.shape)
        found.setdefault(m.kind, []).append(
            Sample(f"{m.name} of {name}", data, m.name, f"{m.name}: {m.kind} of shape {shape}, from {name}.")
        )
    if len(data.schema) > 1:
        found[CROSS] = [Sample(name, data, "", f"Rows of {name}.")]
    return found


def built_in(kinds: Iterable[str]) -> dict[str, list[Sample]]:
    """Samples that come with the library and with scikit-learn, for these kinds.

    Raises:
        ImportError: Pillow or soundfile is not installed, and the kind needs it.
    """
    return {kind: _MAKE[kind]() for kind in kinds if kind in _MAKE}


# one kind -------------------------------------------------------------------------------------------------------------
_known: dict[str, Dataset] = {}


def _digits() -> Dataset:
    if "avdigits" not in _known:
        _known["avdigits"] = datasets.load("avdigits").in_memory()
    return _known["avdigits"]


def _one(modality: Modality, x: Tensor, task: Task, target: Tensor, name: str) -> Dataset:
    """A data set of one modality."""
    rows, present = torch.arange(len(x)), torch.ones(len(x), 1, dtype=torch.bool)
    batch = Batch((modality.name,), {modality.name: x}, present, rows, target)
    return Dataset(TensorSource(Schema((modality,), task), batch, name))


def photographs(side: int) -> Tensor:
    """Three square crops of each of scikit-learn's two photographs, centres first: float32 ``[6, 3, side, side]``.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("photographs need Pillow: pip install 'kintsugi-ml[image]'") from error
    from sklearn.datasets import load_sample_images

    crops = []
    for where in (0.5, 0.0, 1.0):
        for pixels in load_sample_images().images:
            height, width = pixels.shape[:2]
            left = round(where * (width - height))
            square = Image.fromarray(pixels[:, left : left + height])
            small = square.resize((side, side), Image.Resampling.LANCZOS)
            crops.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255)
    return torch.stack(crops)


def _images() -> list[Sample]:
    origin = (
        "china.jpg by danielbuechele and flower.jpg by vultilion, CC BY 2.0, as they come with scikit-learn "
        "(load_sample_images): square crops, resized to {side} pixels."
    )
    found = []
    for side, name in ((PHOTO, "photographs"), (SMALL, "small colour pictures")):
        x, modality = photographs(side), Modality("photo", "image", (3, side, side))
        task, target = Classification(["china", "flower"]), torch.arange(len(x)) % 2
        photos = _one(modality, x, task, target, f"photographs at {side} pixels")
        found.append(Sample(f"{name}, {side} px", photos, "photo", origin.format(side=side), ordered=True))
    digits = "Real scans of MNIST, 28 pixels, grey, from the built-in data set avdigits (CC BY-SA 3.0)."
    return [*found, Sample("digits, 28 px", _digits(), "image", digits)]


def _sounds() -> list[Sample]:
    origin = "Spoken digits of the built-in data set avdigits: synthesised speech, one second at 8 kHz."
    return [Sample("spoken digits, 8 kHz", _digits(), "speech", origin)]


def sentences() -> list[tuple[str, str]]:
    """Whole sentences in scikit-learn's descriptions of its data sets: name of the set, and the sentence."""
    from sklearn import datasets as known

    found = []
    for name in ("wine", "breast_cancer", "iris", "digits", "diabetes", "linnerud"):
        said = getattr(known, f"load_{name}")().DESCR
        for block in re.split(r"\n\s*\n", said):
            pieces = re.split(r"(?<=[a-z)]\.) +(?=[A-Z])", " ".join(block.split()))
            found += [(name, piece) for piece in pieces if re.fullmatch(r"[A-Z][\w ,;()'-]{70,150}\.", piece)]
    return found


def _texts() -> list[Sample]:
    import pandas as pd

    clues = Sample("clues", _digits(), "clue", "English clues of the built-in data set avdigits, up to 64 bytes.")
    frame = pd.DataFrame(sentences(), columns=["about", "sentence"])
    if frame["about"].nunique() < 2:  # another version of scikit-learn describes them otherwise
        return [clues]
    table = Table.from_pandas(
        frame, modalities={"sentence": text("sentence", length=SENTENCE)}, target="about", name="sentences"
    )
    origin = (
        f"{len(frame)} English sentences from scikit-learn's descriptions of its data sets, up to {SENTENCE} bytes."
    )
    return [Sample("sentences", table.in_memory(), "sentence", origin), clues]


def _vectors() -> list[Sample]:
    origin = (
        "64 Karhunen-Loève coefficients of handwritten numerals, standardised: the view kar of the built-in data set "
        "handwritten (UCI Multiple Features, R. P. W. Duin, CC BY 4.0)."
    )
    return [Sample("Karhunen-Loève coefficients", datasets.load("handwritten").in_memory(), "kar", origin)]


def _tables() -> list[Sample]:
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(as_frame=True, scaled=False)
    frame = bunch.frame.assign(sex=bunch.frame["sex"].map({1.0: "code 1", 2.0: "code 2"}))
    table = Table.from_pandas(
        frame,
        modalities={"patient": tabular(list(bunch.feature_names))},
        target="target",
        task="regression",
        name="diabetes",
    )
    origin = (
        "Real patients of the diabetes study of Efron et al. (2004), as it comes with scikit-learn (load_diabetes): nine "
        "numbers and one category; numbers are shown in their own units."
    )
    return [Sample("patients", table.in_memory(), "patient", origin)]


def tracks(waves: Tensor, rate: float) -> Tensor:
    """The first three MFCCs of sounds ``[R, samples]``, a hundred frames a second: float32 ``[R, T, 3]``."""
    found = [mfcc(wave.numpy(), int(rate), COEFFICIENTS, WINDOW, STEP).T for wave in waves]
    return torch.from_numpy(np.stack(found)).float()


def _series() -> list[Sample]:
    digits = _digits()
    few = digits.batch(torch.arange(min(PAIRS, len(digits))))
    x = tracks(few.inputs["speech"], digits.schema["speech"].rate or 8000)
    modality = Modality("track", "series", tuple(x.shape[1:]), rate=FRAMES)
    data = _one(modality, x, digits.schema.task, _target(few), "tracks of speech")
    origin = (
        "Loudness and the next two mel-frequency cepstral coefficients of the spoken digits of avdigits, 100 frames a "
        "second: a slow curve with silence at its end."
    )
    return [Sample("tracks of speech", data, "track", origin)]


def _pairs() -> list[Sample]:
    digits = _digits()
    few = digits.batch(torch.arange(min(PAIRS, len(digits))))
    target = _target(few)
    track = tracks(few.inputs["speech"], digits.schema["speech"].rate or 8000)
    schema = digits.schema
    names = ("scan", "second scan", "track", "speech", "clue")
    scan = schema["image"]
    modalities = (
        Modality("scan", "image", scan.shape),
        Modality("second scan", "image", scan.shape),
        Modality("track", "series", tuple(track.shape[1:]), rate=FRAMES),
        Modality("speech", "audio", schema["speech"].shape, rate=schema["speech"].rate),
        Modality("clue", "text", schema["clue"].shape, vocab=schema["clue"].vocab),
    )
    images = few.inputs["image"]
    inputs = dict(
        zip(names, (images, images[_next(target)], track, few.inputs["speech"], few.inputs["clue"]), strict=True)
    )
    batch = Batch(
        names,
        inputs,
        torch.ones(len(few), len(names), dtype=torch.bool),
        torch.arange(len(few)),
        target,
        mask={"clue": few.mask["clue"]} if "clue" in few.mask else {},
    )
    data = Dataset(TensorSource(Schema(modalities, schema.task), batch, "pairs of avdigits"))
    origin = (
        f"{len(few)} rows of the built-in data set avdigits with five modalities: a scan, a second scan of the same digit, "
        "the spoken digit, its MFCC track, and a written clue."
    )
    return [Sample("pairs", data, "", origin)]


def _target(batch: Batch) -> Tensor:
    if batch.target is None:
        raise AssertionError("avdigits has labels")
    return batch.target


def _next(target: Tensor) -> Tensor:
    """For each row the next one with its label, the first after the last: int64 ``[R]``."""
    after = torch.arange(len(target))
    for label in target.unique():
        rows = (target == label).nonzero().flatten()
        after[rows] = rows.roll(-1)
    return after


_MAKE: dict[str, Callable[[], list[Sample]]] = {
    "image": _images,
    "audio": _sounds,
    "text": _texts,
    "tabular": _tables,
    "series": _series,
    "vector": _vectors,
    CROSS: _pairs,
}
