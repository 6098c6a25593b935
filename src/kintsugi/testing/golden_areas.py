"""Golden numbers of what is registered nowhere: training with its defaults, reading of tables, evaluation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kintsugi.contract import build
from kintsugi.core.data import Splits
from kintsugi.core.methods import METHODS
from kintsugi.data.table import Table
from kintsugi.evaluation import Protocol, evaluate, get_protocol
from kintsugi.imperfect.missing import parse_mechanism
from kintsugi.testing.golden_measures import measure_numbers, plain
from kintsugi.testing.golden_methods import answers, with_holes
from kintsugi.testing.golden_numbers import Numbers, projections
from kintsugi.testing.inputs import clips, noise_file, pictures
from kintsugi.training.lab import toy
from kintsugi.training.trainer import Trainer

PLAIN, ROWS, PARTS = "mean_fusion", 12, ("train", "train", "train", "val", "test", "train")


# training -------------------------------------------------------------------------------------------------------------
def training_numbers() -> Numbers:
    """The plainest method trained with defaults of the trainer, and with every other setting that one process can use.

    Losses of all epochs, scores of the epochs, and answers.
    """
    return {
        "defaults": _fit(epochs=5),
        "adam, constant, accumulated": _fit(
            epochs=4, optimizer="adam", schedule="constant", accumulate=2, batch_size=16, clip=0.0, select=False
        ),
        "sgd, patient": _fit(epochs=6, optimizer="sgd", lr=0.05, weight_decay=0.1, patience=1, seed=1),
    }


def _fit(**options: Any) -> Numbers:
    data = toy(rows=144).with_missing(parse_mechanism("mcar(0.3)"), seed=1)
    train, val, test = data.split()
    pipeline = build(METHODS[PLAIN], data.schema)
    trainer = Trainer(progress=False, **options)
    trainer.fit(pipeline, Splits(train, val, test))
    epochs: dict[str, Numbers] = {}
    for record in trainer.history:
        values = {name: value for name, value in record.items() if isinstance(value, float)}
        epochs[f"answers of epoch {record['epoch'] + 1}"] = values  # after some updates: the tolerance of answers
    return {**epochs, "answers": answers(pipeline, with_holes(test))}


# reading --------------------------------------------------------------------------------------------------------------
def reading_numbers() -> Numbers:
    """A table of every kind of column, with holes: what its readers learned from the training rows, and its tensors."""
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Numbers] = {}
        for task, target in (("classification", "class"), ("regression", "size"), ("multilabel", ["low", "odd"])):
            table = _table(Path(folder), task, target)
            batch = table.batch(torch.arange(ROWS))
            assert batch.target is not None
            found[task] = {
                "task": plain(table.schema.task.to_json()),
                "target": projections(batch.target.double(), "target"),
                "labelled": _count(batch.target_present),
                "parts": [len(part) for part in table.split()],
            }
        for column, modality in enumerate(table.schema.modalities):
            x, here = batch.inputs[modality.name], batch.present[:, column]
            wide = here.view(-1, *[1] * (x.ndim - 1))
            found[modality.name] = {
                "modality": str(modality),
                "present": int(here.sum()),
                "seen": _count(batch.mask.get(modality.name)),
                "size": float(torch.where(wide, x.double().nan_to_num(), 0.0).square().mean().sqrt()),
                "projections": projections(torch.where(wide, x.double().nan_to_num(), 0.0), modality.name),
            }
        return found


def _count(mask: torch.Tensor | None) -> int:
    return -1 if mask is None else int(mask.sum())


def _table(folder: Path, task: str, target: str | list[str]) -> Table:
    import pandas as pd
    from PIL import Image

    from kintsugi.data.readers import audio, image, series, tabular, text, vector

    rng = np.random.default_rng(0)
    shades = (pictures(ROWS, 3, 20) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for row in range(ROWS):
        Image.fromarray(shades[row]).save(folder / f"{row}.png")
    noise_file(folder / "noise.wav")
    sounds = clips(ROWS, 900).numpy()
    frame = pd.DataFrame(
        {
            "picture": [f"{row}.png" if row % 4 else None for row in range(ROWS)],
            "sound": ["noise.wav" if row == 2 else sounds[row] if row % 5 else None for row in range(ROWS)],
            "note": [("good", "", "so lala, Größe", None, "no\u0308")[row % 5] for row in range(ROWS)],
            "age": [None if row % 6 == 5 else 20.0 + 3 * row for row in range(ROWS)],
            "colour": [("red", "blue", None, "green")[row % 4] for row in range(ROWS)],
            "track": [rng.standard_normal((5 + row % 3, 2)) if row % 7 else None for row in range(ROWS)],
            "code": [rng.standard_normal(4) * 3 + 1 if row % 3 else None for row in range(ROWS)],
            "class": [("a", "b", "c")[row % 3] for row in range(ROWS)],
            "size": [0.5 * row - 1 for row in range(ROWS)],
            "low": [int(row < 6) for row in range(ROWS)],
            "odd": [row % 2 for row in range(ROWS)],
            "part": [PARTS[row % len(PARTS)] for row in range(ROWS)],
        }
    )
    readers = {
        "picture": image("picture"),
        "sound": audio("sound", rate=8000, seconds=0.1),
        "note": text("note", length=12),
        "table": tabular(["age", "colour"], categories=["colour"]),
        "track": series("track"),
        "code": vector("code", standardise=True),
    }
    return Table.from_pandas(frame, modalities=readers, target=target, task=task, split="part", root=folder)


# evaluation -----------------------------------------------------------------------------------------------------------
def evaluation_numbers() -> Numbers:
    """For each task the plainest method, untrained, under subsets, rates and a corruption: values with their intervals;
    and every measure.
    """
    found: dict[str, Numbers] = {"measures": measure_numbers()}
    for task in ("classification", "multilabel", "regression"):
        data = toy(task, rows=120)
        pipeline = build(METHODS[PLAIN], data.schema)
        conditions = [
            condition
            for spec in ("subsets", "rates(0.5)", "corruptions(3, feature_noise)")
            for condition in get_protocol(spec, data.schema).conditions
            if condition.name != "clean" or spec == "subsets"
        ]
        results = evaluate(pipeline, data, Protocol("golden", tuple(conditions)), resamples=50, name=PLAIN)
        rows = results.table[["condition", "metric", "value", "low", "high", "n"]]
        found[task] = {
            f"{condition}, {metric}": [float(value), float(low), float(high), int(n)]
            for condition, metric, value, low, high, n in rows.itertuples(index=False)
        }
    return found
