"""The data sets that come with the package, or with one that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kintsugi.core.errors import UnknownName
from kintsugi.data.cells import Reader
from kintsugi.data.dataset import Dataset
from kintsugi.data.datasets import DATASETS
from kintsugi.data.readers import audio, image, text, vector
from kintsugi.data.table import Table

FILES = Path(__file__).parent / "files"


@DATASETS.register("avdigits")
def avdigits() -> Dataset:
    """One digit a row, seen, spoken and described: 1,500 rows, fixed split 900 / 200 / 400.

    Modalities: ``image`` ``[1, 28, 28]``, real MNIST scans; ``speech`` ``[8000]`` at 8 kHz, synthesised in 20
    languages, no voice in two splits; ``clue``, 64 bytes of an English sentence that leaves two to five digits
    possible. Target: the digit. The three were made apart and share nothing but the digit. Images CC BY-SA 3.0, the
    rest Apache-2.0; details in ``files/README.md`` of this package.
    """
    return Table.from_parquet(
        FILES / "avdigits.parquet",
        modalities={
            "image": image("image", size=28, channels=1),
            "speech": audio("speech", rate=8000, seconds=1.0),
            "clue": text("clue", length=64),
        },
        target="digit",
        task="classification",
        split="split",
        name="avdigits",
    )


@DATASETS.register("handwritten")
def handwritten(views: Sequence[str] | None = None) -> Dataset:
    """UCI Multiple Features: 2,000 handwritten numerals in six views, fixed split 1,200 / 200 / 600.

    Modalities: ``fac`` (216 profile correlations), ``fou`` (76 Fourier coefficients), ``kar`` (64 Karhunen-Loève
    coefficients), ``mor`` (6 morphological features), ``zer`` (47 Zernike moments), all vectors, standardised by the
    training rows; ``image`` ``[1, 16, 15]``, counts 0 to 6 divided by 6. Target: the digit. R. P. W. Duin, UCI Machine
    Learning Repository, 1998, doi 10.24432/C5HC70, CC BY 4.0.

    Args:
        views: names of those that are read; None: all.

    Raises:
        UnknownName: no such view.
    """
    import pandas as pd

    frame = pd.read_parquet(FILES / "handwritten.parquet")
    pictures = [np.asarray(cell, dtype=np.float32).reshape(16, 15) / 6 for cell in frame["image"]]
    frame["image"] = pd.Series(pictures, dtype=object)
    known = {name: vector(name, standardise=True) for name in ("fac", "fou", "kar", "mor", "zer")}
    every: dict[str, Reader] = {**known, "image": image("image", size=(16, 15), channels=1)}
    for name in views or ():
        if name not in every:
            raise UnknownName("view of handwritten", name, every)
    return Table.from_pandas(
        frame,
        modalities={name: reader for name, reader in every.items() if views is None or name in views},
        target="digit",
        task="classification",
        split="split",
        name="handwritten",
    )


@DATASETS.register("diabetes")
def diabetes(seed: int = 0) -> Dataset:
    """442 patients, ten baseline values, and how far their diabetes has gone a year later: 60 / 15 / 25 %.

    Modalities: ``body`` ``[4]`` (age, sex, body mass index, mean blood pressure), ``lipids`` ``[4]`` (total, low- and
    high-density cholesterol, and their ratio) and ``serum`` ``[2]`` (log triglycerides, glucose), standardised by the training
    rows. Target: a number. Efron, Hastie, Johnstone and Tibshirani, "Least angle regression", Annals of Statistics 2004; it
    comes with scikit-learn.

    Args:
        seed: of the division into training, validation and test rows.
    """
    import pandas as pd
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    blocks = {"body": slice(0, 4), "lipids": slice(4, 8), "serum": slice(8, 10)}
    values = np.asarray(found.data, dtype=np.float32)
    order = np.random.default_rng([seed, 442]).permutation(len(values))
    split = np.empty(len(values), dtype=object)
    for name, rows in zip(("train", "val", "test"), np.split(order, [265, 331]), strict=True):
        split[rows] = name
    frame = pd.DataFrame({name: list(values[:, columns]) for name, columns in blocks.items()})
    frame["progression"], frame["split"] = np.asarray(found.target, dtype=float), split
    return Table.from_pandas(
        frame,
        modalities={name: vector(name, standardise=True) for name in blocks},
        target="progression",
        task="regression",
        split="split",
        name="diabetes",
    )
