"""mmin, missing_aware_prompts and smil: what is served and trained again, and corners that no claim states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kintsugi.core.data import Splits
from kintsugi.core.methods import METHODS
from kintsugi.io.saved_models import load, save
from kintsugi.testing.fixture import Fixture
from kintsugi.training.trainer import Trainer

KEYS = ("mmin", "missing_aware_prompts", "smil")


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def served(key: str, fixture: Fixture) -> Any:
    return Trainer(epochs=2, batch_size=64, progress=False).fit(fixture.pipeline(), fixture.splits)


@pytest.mark.parametrize("key", KEYS)
def test_as_many_parameters_are_loaded_as_were_saved_and_they_train_again(key: str, tmp_path: Path) -> None:
    fixture = Fixture(METHODS[key])
    pipeline = served(key, fixture)
    save(pipeline, tmp_path / key)
    loaded, _ = load(tmp_path / key)
    assert parameters(loaded) == parameters(pipeline)
    assert torch.equal(loaded(fixture.batch()).output, pipeline(fixture.batch()).output)
    again = Trainer(epochs=2, batch_size=64, progress=False).fit(loaded, fixture.splits)
    assert parameters(again) == parameters(pipeline)


def test_mmin_serves_neither_the_teacher_nor_the_first_classifier_nor_the_way_back() -> None:
    fixture = Fixture(METHODS["mmin"])
    whole, pipeline = fixture.pipeline(), served("mmin", fixture)
    # M D = 3 * 32 = 96; first classifier: 96 * 128 + 128 and 128 * 4 + 4; the way back: 5 autoencoders of 96, 64, 32, 16
    # (weights 96 * 64 + 64 * 32 + 32 * 16 in each direction, biases 64 + 32 + 16 and 32 + 64 + 96), and 2 layers of 96
    first = 96 * 128 + 128 + 128 * 4 + 4
    way_back = 5 * (2 * (96 * 64 + 64 * 32 + 32 * 16) + 112 + 192) + 2 * (96 * 96 + 96)
    assert parameters(whole) - parameters(pipeline) == first + way_back
    assert not hasattr(pipeline.model, "teacher")


def test_smil_repeats_centres_where_complete_rows_are_fewer() -> None:
    fixture = Fixture(METHODS["smil"], epochs=1)
    rows = fixture.splits.train.subset(torch.arange(4))  # four complete rows for ten centres
    fixture.splits = Splits(rows, fixture.splits.val, fixture.splits.test)
    model: Any = fixture.pipeline().model
    with torch.no_grad():
        model.prepare(fixture.splits, model.stages()[1])
        encoded = model.eval().encode(rows.batch(torch.arange(4))).streams["m1"].pooled()
    centres = model.get_buffer("centres_m1")
    nearest = torch.cdist(centres, encoded).min(1)
    assert float(nearest.values.max()) < 1e-4  # as many clusters as rows: each centre is a row
    assert sorted(torch.bincount(nearest.indices, minlength=4).tolist()) == [2, 2, 3, 3]
