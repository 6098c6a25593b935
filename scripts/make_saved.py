"""Writes one of everything that a user keeps, with the version of the library that runs it.

``python scripts/make_saved.py tests/saved/0.1.0`` was run with version 0.1.0. ``tests/test_saved_before.py`` reads what it
wrote, so that later versions go on reading it. Run it with a new version into a folder of its own, never over an old one.

What it writes: ``models``: one small trained model of each registered method, with answers; some through an estimator on
records, the others as pipelines that are asked ``inputs.safetensors``. ``masks``: one for each unit of missingness.
``checkpoint``: of a fit that was interrupted. ``store``: of a bench run of ``suite.yaml``, and ``store.csv``, its export.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import kintsugi as kg
from kintsugi.cli import app
from kintsugi.core.data import Splits
from kintsugi.core.methods import METHODS
from kintsugi.imperfect.missing import parse_mechanism
from kintsugi.io.saved_models import save
from kintsugi.testing import ask, build, mixed
from kintsugi.testing.fixture import toy
from kintsugi.training.trainer import Trainer

SMALL: dict[str, dict[str, Any]] = {
    "ccm": {"dim": 4, "latent": 4},
    "early_fusion": {"hidden": 8},
    "missing_aware_prompts": {"dim": 4, "depth": 1, "length": 2, "prompted": 1},
    "mmin": {"dim": 8, "blocks": 2, "hidden": 16},
    "smil": {"dim": 4, "centres": 3, "hidden": 8},
}
# through an estimator on records; the seed of corruption_augmentation is its own, not the estimator's
ESTIMATED: dict[str, dict[str, Any]] = {
    "corruption_augmentation": {"seed": 3},
    "kd_mm": {"dim": 4, "fallback": True},
    "late_fusion": {"dim": 4},
    "mean_fusion": {"dim": 4},
}
NUMBERS = "mean_fusion"  # solves a regression
ROWS, ASKED = 60, 24
MASKS = {"slots": "mcar(0.4)", "steps": "steps(0.3, table)", "labels": "labels(0.5)"}
SUITE = """\
about: two methods, briefly
datasets: [factors]
training: ["mcar(0.3)"]
methods: [mean_fusion, late_fusion]
seeds: 1
protocol: subsets
trainer: {epochs: 1}
resamples: 20
costs: false
reference: mean_fusion
"""


class Stopped(Trainer):
    """Is interrupted in its second epoch."""

    def _update(self, losses: Any, batch: Any, stage: Any, epoch: int, *rest: Any) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        super()._update(losses, batch, stage, epoch, *rest)


def records(rows: int = ROWS) -> list[dict[str, Any]]:
    """Rows of numbers, a category and text, with holes; ``label`` and ``length`` to be learned."""
    noise = torch.Generator().manual_seed(0)
    found = []
    for row in range(rows):
        label = row % 3
        record: dict[str, Any] = {
            "age": round(20 + 10 * label + 3 * float(torch.randn((), generator=noise)), 3),
            "weight": round(60 + 5 * float(torch.randn((), generator=noise)), 3),
            "colour": ("red", "green", "blue")[(row + (row % 7 == 0)) % 3],
            "note": ("quiet and small", "louder, of middle size", "Größe: laut")[label],
            "label": ("a", "b", "c")[label],
            "length": round(1.5 * label + float(torch.randn((), generator=noise)), 3),
        }
        for name, every in (("age", 5), ("colour", 4), ("note", 3)):
            if row % every == every - 1:
                record[name] = None
        if row % 11 == 10:
            record |= {"age": None, "weight": None, "colour": None}
        found.append(record)
    return found


def estimator(key: str, params: Mapping[str, Any]) -> kg.Classifier | kg.Regressor:
    """Fitted on the records."""
    readers = {
        "facts": kg.tabular(["age", "weight", "colour"], categories=["colour"]),
        "note": kg.text("note", length=24),
    }
    kind, target = (kg.Regressor, "length") if key == NUMBERS else (kg.Classifier, "label")
    model = kind(
        key,
        params=dict(params),
        modalities=readers,
        target=target,
        epochs=2,
        batch_size=20,
        lr=0.01,
        seed=1,
        progress=False,
    )
    rows = records()
    return model.fit(rows[:45], rows[45:])


def write_models(out: Path) -> None:
    """Every registered method; each folder holds the model, its answers are beside it."""
    data = mixed("classification", absent=0.3)
    train, val, test = data.split()
    batch = test.batch(torch.arange(ASKED))
    stored = {f"inputs.{name}": x for name, x in batch.inputs.items()} | {"present": batch.present}
    stored |= {f"mask.{name}": m for name, m in batch.mask.items()}
    save_file(stored, out / "inputs.safetensors")
    rows = records()[:ASKED]
    (out / "records.json").write_text(json.dumps(rows, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    for key in METHODS:
        if key in ESTIMATED:
            model = estimator(key, ESTIMATED[key])
            model.save(out / key)
            values = model.predict(rows) if key == NUMBERS else model.predict_proba(rows)
            answer = torch.from_numpy(values).float()
        else:
            pipeline = build(METHODS[key], data.schema, **SMALL[key])
            Trainer(epochs=2, batch_size=24, lr=0.01, progress=False).fit(pipeline, Splits(train, val, test))
            save(pipeline, out / key)
            answer = ask(pipeline, batch).output
        save_file({"answer": answer.contiguous()}, out / f"{key}.answer.safetensors")


def write_masks(out: Path) -> None:
    """Masks, and the bits that they must have again."""
    data = mixed("classification", absent=0.3)
    for name, spec in MASKS.items():
        mask = parse_mechanism(spec).plan(data, 5)
        mask.save(out / f"{name}.mask")
        bits = {"keep": mask.keep} | {f"steps.{n}": left for n, left in mask.steps.items()}
        bits |= {} if mask.labels is None else {"labels": mask.labels}
        save_file(bits, out / f"{name}.safetensors")


def write_checkpoint(out: Path) -> None:
    """Of a fit of the plainest method that was interrupted in its second epoch of three."""
    data = toy(rows=60)
    pipeline = build(METHODS["mean_fusion"], data.schema, dim=4)
    try:
        Stopped(epochs=3, batch_size=20, progress=False, checkpoint=out).fit(pipeline, Splits(*data.split()))
    except KeyboardInterrupt:
        return
    raise AssertionError("the fit was not interrupted")


def write_store(out: Path) -> None:
    """A bench run of ``suite.yaml``, its journal folded in and its free pages given back, and its export."""
    (out / "suite.yaml").write_text(SUITE)
    for words in (
        ["bench", "run", str(out / "suite.yaml"), "-o", str(out / "store"), "--workers", "0", "--no-report"],
        ["bench", "export", str(out / "store"), str(out / "store.csv")],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    for file in (out / "store").glob("*.sqlite*"):
        if file.suffix in (".sqlite", ".sqlite3", ".db"):
            with sqlite3.connect(file) as db:
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.close()


def main(out: Path) -> None:
    """All of it, into a folder that is not there yet."""
    for name, write in (("models", write_models), ("masks", write_masks), ("checkpoint", write_checkpoint)):
        (out / name).mkdir(parents=True)
        write(out / name)
    write_store(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
