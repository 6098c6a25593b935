"""Golden numbers of reading: tables with every kind of column, and how their rows are divided."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from kintsugi.data.readers import audio, image, series, tabular, text, vector
from kintsugi.data.table import Table
from kintsugi.io.files import replace_file
from kintsugi.testing.golden_measures import plain
from kintsugi.testing.golden_numbers import Numbers, projections, sha
from kintsugi.testing.inputs import clips, noise_file, pictures

ROWS, PARTS = 12, ("train", "train", "train", "val", "test", "train")


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
        found["other cells"] = _other_cells(Path(folder))
        found["divided"] = _divided(Path(folder))
        return found


def _other_cells(folder: Path) -> Numbers:
    """Cells that are brought to another size, rate or form, or that training rows do not have."""
    import pandas as pd
    from PIL import Image

    shades = (pictures(4, 3, 20, seed=2) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    Image.fromarray(shades[0]).save(folder / "large.png")
    frame = pd.DataFrame(
        {
            "picture": ["large.png", shades[1], shades[2][:, :, 0], shades[3].astype(np.float64) / 255],
            "sound": ["noise.wav", clips(1, 700, seed=4)[0].numpy(), None, "noise.wav"],
            "note": ["Größe", "Gro\u0308ße", "\ufb01n x\u00b2", "é e\u0301"],
            "colour": ["red", "blue", "green", "violet"],
            "class": ["a", "a", "a", "b"],
            "part": ["train", "train", "val", "test"],
        }
    )
    readers = {
        "picture": image("picture", size=(12, 9)),
        "sound": audio("sound", rate=6000, seconds=0.1),
        "note": text("note", length=12),
        "table": tabular(["colour"]),
    }
    table = Table.from_pandas(frame, modalities=readers, target="class", split="part", root=folder)
    batch = table.batch(torch.arange(len(frame)))
    return {
        "picture": projections(batch.inputs["picture"], "picture", "other"),
        "sound": projections(batch.inputs["sound"].nan_to_num(), "sound", "other"),
        "note": sha(batch.inputs["note"]),
        "colour": batch.inputs["table"].flatten().tolist(),
    }


def _divided(folder: Path) -> Numbers:
    """How rows without parts of their own are divided, weights that balance classes, and words of a file of text."""
    import pandas as pd

    rows = 60
    frame = pd.DataFrame(
        {
            "note": [("NA", "007", "", "null", "so")[row % 5] for row in range(rows)],
            "code": [[0.1 * row, row % 3] for row in range(rows)],
            "class": [("a", "b", "b", "c", "b", "b")[row % 6] for row in range(rows)],
            "who": [row // 4 for row in range(rows)],
        }
    )
    replace_file(folder / "words.csv", frame.drop(columns="code").to_csv(index=False).encode())
    note, code = {"note": text("note", length=8)}, {"code": vector("code")}
    words = Table.from_csv(folder / "words.csv", modalities=note, target="class").batch(torch.arange(rows))
    found: dict[str, Numbers] = {"words": sha(words.inputs["note"], words.present)}
    for name, group in (("by class", None), ("by group", "who")):
        table = Table.from_pandas(frame, modalities=code, target="class", group=group, class_weights="balanced")
        found[name] = {
            "task": plain(table.schema.task.to_json()),
            "parts": [sha(part.index) for part in table.split()],
            "parts of seed 1": [sha(part.index) for part in table.split(0.2, 0.3, seed=1)],
        }
    return found


def _count(mask: torch.Tensor | None) -> int:
    return -1 if mask is None else int(mask.sum())


def _table(folder: Path, task: str, target: str | list[str]) -> Table:
    import pandas as pd
    from PIL import Image

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
