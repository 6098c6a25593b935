"""What version 0.1.0 wrote is read today: models, masks, a checkpoint and a store (``scripts/make_saved.py`` made them)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import kintsugi as kg
from kintsugi.bench import Store
from kintsugi.cli import app
from kintsugi.core.batch import Batch
from kintsugi.core.data import Splits
from kintsugi.core.errors import ModelFileError
from kintsugi.core.methods import METHODS
from kintsugi.core.pipeline import Pipeline
from kintsugi.imperfect.missing import Mask
from kintsugi.io.saved_models import load, save
from kintsugi.testing import ask, build
from kintsugi.testing.fixture import toy
from kintsugi.training.trainer import Trainer

BEFORE = Path(__file__).parent / "saved/0.1.0"
MODELS = sorted(path.parent.name for path in BEFORE.glob("models/*/model.json"))
ESTIMATED = ("corruption_augmentation", "kd_mm", "late_fusion", "mean_fusion")  # through an estimator, on records
THEN = {
    "ccm", "corruption_augmentation", "early_fusion", "kd_mm", "late_fusion", "mean_fusion", "missing_aware_prompts", "mmin",
    "smil",
}  # fmt: skip


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy, since reading a store may write to it."""
    return Path(shutil.copytree(BEFORE, tmp_path / "old"))


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def answer_then(key: str) -> Tensor:
    return load_file(BEFORE / f"models/{key}.answer.safetensors")["answer"]


def inputs(pipeline: Pipeline) -> Batch:
    """The rows that 0.1.0 asked: image, text and table, with holes."""
    stored = load_file(BEFORE / "models/inputs.safetensors")
    names = pipeline.schema.names
    mask = {name: stored[f"mask.{name}"] for name in names if f"mask.{name}" in stored}
    rows = torch.arange(len(stored["present"]))
    return Batch(names, {name: stored[f"inputs.{name}"] for name in names}, stored["present"], rows, mask=mask)


def records() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((BEFORE / "models/records.json").read_text(encoding="utf-8"))
    return rows


def predicted(model: Any) -> Tensor:
    values = model.predict(records()) if isinstance(model, kg.Regressor) else model.predict_proba(records())
    return torch.from_numpy(np.asarray(values)).float()


def superseded(key: str) -> str | None:
    """The method, of those that its served components belong to, that answers otherwise today; None: there is none."""
    config = json.loads((BEFORE / f"models/{key}/model.json").read_text(encoding="utf-8"))
    served = [saved["class"] for path, saved in config["parts"].items() if not path.startswith("strategies.")]
    methods = [address.partition(".")[0] for address in served]
    return next(
        (m for m in methods if METHODS.card(m).version != 1 and METHODS[m].arguments_of_version(1, {}) is None), None
    )


def refused(key: str, read: Callable[[Path], Any]) -> bool:
    """Is it of a version that is no more? Then it is refused, in words that name both versions and who reads it."""
    method = superseded(key)
    if method is None:
        return False
    now = METHODS.card(method).version
    words = rf"saved by kintsugi 0\.1\.0 with version 1 of method {method}, and here is version {now}.*kintsugi 0\.1\.0 reads it"
    with pytest.raises(ModelFileError, match=words):
        read(BEFORE / "models" / key)
    return True


# models -------------------------------------------------------------------------------------------------------------
def test_a_model_of_every_method_that_there_was_is_here() -> None:
    assert set(MODELS) == THEN


@pytest.mark.parametrize("key", [key for key in MODELS if key not in ESTIMATED])
def test_a_model_answers_as_it_did(key: str, tmp_path: Path) -> None:
    if refused(key, load):
        return
    pipeline, _ = load(BEFORE / "models" / key)
    torch.testing.assert_close(ask(pipeline, inputs(pipeline)).output, answer_then(key), rtol=0, atol=1e-5)
    again, _ = load(save(pipeline, tmp_path / "again"))
    torch.testing.assert_close(ask(again, inputs(again)).output, answer_then(key), rtol=0, atol=1e-5)


@pytest.mark.parametrize("key", ESTIMATED)
def test_an_estimator_reads_records_and_answers_as_it_did(key: str, tmp_path: Path) -> None:
    if refused(key, kg.load):
        return
    model = kg.load(BEFORE / "models" / key)
    torch.testing.assert_close(predicted(model), answer_then(key), rtol=0, atol=1e-5)
    again = kg.load(model.save(tmp_path / "again"))
    torch.testing.assert_close(predicted(again), answer_then(key), rtol=0, atol=1e-5)


def test_some_models_are_still_read() -> None:
    assert {key for key in MODELS if superseded(key) is None} >= {"mean_fusion", "corruption_augmentation"}


def test_old_answers_differ_between_rows_so_that_they_can_be_wrong() -> None:
    for key in MODELS:
        assert float(answer_then(key).reshape(len(answer_then(key)), -1).std(0).max()) > 1e-3, key


def test_the_seed_of_an_old_augmentation_is_kept() -> None:
    saved = json.loads((BEFORE / "models/corruption_augmentation/model.json").read_text())
    (path,) = [path for path, part in saved["parts"].items() if part["class"] == "corruption_augmentation"]
    assert saved["parts"][path]["hyper"]["seed"] == 3
    pipeline, _ = load(BEFORE / "models/corruption_augmentation")
    assert len(pipeline.strategies) == 0, "no strategy is served"
    recipe = pipeline.recipes[path]
    assert recipe.kind is METHODS["corruption_augmentation"]
    assert recipe.hyper == {"draws": 3}


def test_a_later_version_of_a_method_does_not_answer_in_the_place_of_an_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(METHODS["mmin"], "card", replace(METHODS["mmin"].card, version=7))
    monkeypatch.setattr(type(METHODS), "card", lambda self, key: METHODS[key].card)
    with pytest.raises(ModelFileError, match=r"(?s)mmin.*0\.1\.0"):
        load(BEFORE / "models/mmin")


# masks --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "unit"), [("slots", "slot"), ("steps", "step"), ("labels", "label")])
def test_a_mask_has_its_bits(name: str, unit: str, tmp_path: Path) -> None:
    mask, bits = Mask.load(BEFORE / f"masks/{name}.mask"), load_file(BEFORE / f"masks/{name}.safetensors")
    assert mask.unit == unit
    assert torch.equal(mask.keep, bits["keep"])
    assert mask.steps.keys() == {key.removeprefix("steps.") for key in bits if key.startswith("steps.")}
    assert all(torch.equal(left, bits[f"steps.{step}"]) for step, left in mask.steps.items())
    assert (mask.labels is not None) == (unit == "label")
    if mask.labels is not None:
        assert torch.equal(mask.labels, bits["labels"])
    mask.save(tmp_path / "again.mask")
    assert Mask.load(tmp_path / "again.mask") == mask


# a checkpoint ---------------------------------------------------------------------------------------------------------
def test_a_checkpoint_is_refused_with_the_version_that_reads_it_and_left_alone(old: Path) -> None:
    path = old / "checkpoint/checkpoint.safetensors"
    content = path.read_bytes()
    data = toy(rows=60)
    pipeline = build(METHODS["mean_fusion"], data.schema, dim=4)
    trainer = Trainer(epochs=3, batch_size=20, progress=False, checkpoint=path.parent)
    with pytest.raises(ModelFileError, match=r"written by kintsugi 0\.1\.0.*or delete it") as error:
        trainer.fit(pipeline, Splits(*data.split()))
    assert str(path) in str(error.value)
    assert path.read_bytes() == content


# a store --------------------------------------------------------------------------------------------------------------
def test_a_store_is_exported_byte_for_byte(old: Path) -> None:
    result = call("bench", "export", old / "store", old / "now.csv")
    assert result.exit_code == 0, result.output
    assert (old / "now.csv").read_bytes() == (BEFORE / "store.csv").read_bytes()


def test_a_store_is_reported(old: Path) -> None:
    result = call("report", old / "store", "-o", old / "report.html")
    assert result.exit_code == 0, result.output
    page = (old / "report.html").read_text(encoding="utf-8")
    assert "late_fusion" in page
    assert "mean_fusion" in page


def test_a_store_is_compared_with_itself(old: Path) -> None:
    shutil.copytree(old / "store", old / "other")
    result = call("compare", old / "store", old / "other")
    assert result.exit_code == 0, result.output
    assert "6 same" in result.output


def test_trials_of_an_old_store_are_never_taken_for_done(old: Path) -> None:
    words = ("bench", "run", old / "suite.yaml", "-o", old / "store", "--workers", 0, "--no-report")
    before = pd.read_csv(BEFORE / "store.csv")["trial"].unique()
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "2 trials run" in result.output
    assert "before" not in result.output
    with Store.open(old / "store") as store:
        trials = set(store.table()["trial"])
    assert set(before) < trials
    assert len(trials) == 4
    assert "2 had a result before" in call(*words).output
