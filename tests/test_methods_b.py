"""Numbers of methods that fit no claim: what is saved of KD-MM, its loss by hand, and what augmentation may know."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kintsugi as kg
from kintsugi.components.teachers import teachers_of
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS, build_ablation, build_pipeline, create
from kintsugi.core.pipeline import Pipeline
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect import parse_mechanism
from kintsugi.io.saved_models import load, save
from kintsugi.testing import ask, everything, mixed, toy
from kintsugi.training.trainer import Trainer


def fit(pipeline: Pipeline, data: Dataset, epochs: int = 1) -> Trainer:
    trainer = Trainer(epochs=epochs, batch_size=48, progress=False)
    trainer.fit(pipeline, Splits(*data.split()))
    return trainer


def names_and_shapes(pipeline: Pipeline) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in pipeline.state_dict().items()}


# kd_mm ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fallback", [True, False])
def test_a_saved_kd_mm_has_the_parameters_that_were_saved_and_can_be_trained_again(
    tmp_path: Path, fallback: bool
) -> None:
    data = mixed("classification", absent=0.3)
    pipeline = create("kd_mm", data.schema, fallback=fallback)
    fit(pipeline, data)
    save(pipeline, tmp_path / "model")
    loaded, _ = load(tmp_path / "model")
    assert names_and_shapes(loaded) == names_and_shapes(pipeline)
    assert len(teachers_of(loaded)) == (3 if fallback else 0)
    batch = everything(data)
    torch.testing.assert_close(ask(loaded, batch).output, ask(pipeline, batch).output, rtol=0, atol=0)

    history = fit(loaded, data).history
    assert any("loss/kd" in epoch for epoch in history)
    assert [epoch["stage"] for epoch in history] == ["teacher of image", "teacher of text", "teacher of table", "train"]
    assert names_and_shapes(loaded) == names_and_shapes(pipeline)
    save(loaded, tmp_path / "again")
    again, _ = load(tmp_path / "again")
    torch.testing.assert_close(ask(again, batch).output, ask(loaded, batch).output, rtol=0, atol=0)


def test_the_served_kd_mm_has_each_teacher_once() -> None:
    data = mixed("classification", absent=0.3)
    pipeline = create("kd_mm", data.schema)
    count = sum(p.numel() for p in pipeline.parameters())
    teachers = teachers_of(pipeline).values()
    own = sum(p.numel() for module in (pipeline.model, *teachers) for p in module.parameters())
    assert count == own
    fit(pipeline, data)
    assert sum(p.numel() for p in pipeline.parameters()) == count


class Fixed(torch.nn.Module):
    """Answers with the same logits, whatever it is asked."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, stream: Any) -> Tensor:
        return self.logits.expand(len(stream.tokens), -1)


def test_the_students_loss_from_a_teacher_is_the_one_worked_out_by_hand() -> None:
    """Teacher p = (3/4, 1/4), student q = (1/4, 3/4) at temperature 2: KL(p || q) = (3/4 - 1/4) ln 3, times T² = 4."""
    data = toy(modalities=1, rows=48)
    schema = kg.Schema(data.schema.modalities, kg.tasks.Classification(("a", "b")))
    pipeline = build_pipeline(METHODS["kd_mm"], schema, weights=[0.5], temperature=2.0)
    pipeline.begin_training()
    logit = 2 * math.log(3)  # halved by the temperature, the odds are 3 to 1
    (teacher,) = teachers_of(pipeline).values()
    teacher.task_head = Fixed([logit, 0.0])
    pipeline.model.task_head = Fixed([0.0, logit])
    batch = data.batch(torch.arange(8))
    batch = replace(batch, target=batch.target % 2)  # type: ignore[operator]
    losses = pipeline.training_step(batch).losses
    assert float(losses["kd"].detach()) == pytest.approx(0.5 * 4 * 0.5 * math.log(3), rel=1e-6)


def test_a_teacher_of_weight_zero_moves_nothing_in_the_student() -> None:
    pipeline = build_pipeline(METHODS["kd_mm"], toy().schema, weights=[0.0, 0.0, 0.0])
    term = pipeline.training_step(toy().batch(torch.arange(16))).losses["kd"]
    slopes = torch.autograd.grad(term, list(pipeline.model.parameters()))
    assert float(term.detach()) == 0
    assert all(not bool(slope.any()) for slope in slopes)


def test_weights_that_do_not_match_the_modalities_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 weights for 3 modalities"):
        create("kd_mm", toy().schema, weights=[0.5, 0.5])
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        create("kd_mm", toy().schema, temperature=0.0)


# late_fusion ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("merge", "first"), [("product", 0.48 / (0.48 + 0.08)), ("mean", 0.7)])
def test_two_voters_are_merged_as_worked_out_by_hand(merge: str, first: float) -> None:
    """Voters say (0.8, 0.2) and (0.6, 0.4); a third, who is absent, says (0, 1)."""
    data = toy(rows=48)
    schema = kg.Schema(data.schema.modalities, kg.tasks.Classification(("a", "b")))
    model = build_pipeline(METHODS["late_fusion"], schema, merge=merge).model.eval()
    for head, share in zip(("m0", "m1", "m2"), (0.8, 0.6, 1e-9), strict=True):
        model.heads[head] = Fixed([math.log(share), math.log(1 - share)])
    answer = model(data.batch(torch.arange(4)).only("m0", "m1"))
    assert answer.output.softmax(1)[:, 0].tolist() == pytest.approx([first] * 4, rel=1e-5)
    assert answer.weights.tolist() == [[0.5, 0.5, 0.0]] * 4
    assert answer.unimodal["m2"].isnan().all()


# ccm --------------------------------------------------------------------------------------------------------------------
def test_reliability_is_unknown_where_a_modality_is_absent_whether_or_not_anything_is_rejected() -> None:
    data = mixed("classification", absent=0.3)
    pipeline = build_pipeline(METHODS["ccm"], data.schema)
    fit(pipeline, data)
    batch = everything(data)
    for limit in (torch.inf, 0.0):
        pipeline.monitors[0].limit.fill_(limit)
        answer = ask(pipeline, batch)
        assert torch.equal(answer.reliability.isnan(), ~batch.present)
        assert torch.equal(answer.reliability.nan_to_num() > 0, answer.used)
    assert answer.used.sum(1).tolist() == [1] * len(batch), "where all are above their limits, one is kept"


def test_a_modality_that_validation_never_shows_is_never_rejected() -> None:
    data = toy(rows=96)
    train, val, test = data.split()
    blind = val.with_missing(parse_mechanism("pattern(m0, m1)"), seed=0)
    assert not bool(blind.present[:, 2].any())
    pipeline = build_pipeline(METHODS["ccm"], data.schema)
    Trainer(epochs=2, progress=False).fit(pipeline, Splits(train, blind))
    limit = pipeline.monitors[0].limit
    assert limit[2] == torch.inf
    assert bool(torch.isfinite(limit[:2]).all())
    batch = test.batch(torch.arange(len(test)))
    loud = replace(batch, inputs={**batch.inputs, "m2": 1e3 * batch.inputs["m2"]})
    assert bool(ask(pipeline, loud).used[:, 2].all())


def test_without_its_watchman_ccm_serves_no_decoder() -> None:
    data = mixed("classification")
    pipeline = build_ablation(METHODS["ccm"], data.schema)
    decoders = sum(p.numel() for p in pipeline.model.decoders.parameters())
    count = sum(p.numel() for p in pipeline.parameters())
    fit(pipeline, data)
    assert sum(p.numel() for p in pipeline.parameters()) == count - decoders
    fit(pipeline, data)  # and is trained again with new ones
    assert sum(p.numel() for p in pipeline.parameters()) == count - decoders


# corruption_augmentation ------------------------------------------------------------------------------------------------
def _with_other_values_hidden(data: Dataset, value: float) -> Dataset:
    """The same table, but for what ``mcar(0.4)`` hides in it."""
    gone = ~data.with_missing(parse_mechanism("mcar(0.4)"), seed=3).present
    batch = everything(data)
    inputs = {name: torch.where(gone[:, i, None], value, batch.inputs[name]) for i, name in enumerate(batch.names)}
    source = TensorSource(data.schema, replace(batch, inputs=inputs), "toy")
    source.split = data.source.split
    source._fingerprint = data.source.fingerprint  # the values are not to be seen by anything
    return Dataset(source).with_missing(parse_mechanism("mcar(0.4)"), seed=3)


def test_the_noise_of_augmentation_knows_nothing_of_what_is_hidden_in_the_training_rows() -> None:
    weights = []
    for value in (0.0, 1e4):
        data = _with_other_values_hidden(toy(rows=96), value)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipeline = create("corruption_augmentation", data.schema)
        fit(pipeline, data, epochs=2)
        weights.append(pipeline.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), f"{name} was trained on what is hidden"


def test_a_corruption_of_labels_or_of_no_modality_of_the_data_is_refused() -> None:
    schema = toy().schema
    with pytest.raises(ConfigError, match="severity must be 1 or more"):
        create("corruption_augmentation", schema, severity=0)
    with pytest.raises(kg.KintsugiError, match="nobody"):
        create("corruption_augmentation", schema, corruption="feature_noise(nobody, 1)")


# early_fusion -----------------------------------------------------------------------------------------------------------
def test_of_a_single_training_row_the_spread_is_one() -> None:
    data = toy(rows=48)
    train, val, _ = data.split()
    model: Any = build_pipeline(METHODS["early_fusion"], data.schema).model
    model.prepare(Splits(train.subset([0]), val), model.stages()[0])
    batch = data.batch(torch.arange(4))
    row = train.batch(torch.tensor([0]))
    expected = np.concatenate([(batch.inputs[m] - row.inputs[m]).numpy() for m in batch.names], 1)
    np.testing.assert_allclose(model.joint(batch).detach().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_a_feature_that_never_varies_is_not_blown_up() -> None:
    """Its spread is taken to be 1/100."""
    data = toy(rows=48)
    batch = everything(data)
    batch.inputs["m0"][:, 0] = 5.0
    still = Dataset(TensorSource(data.schema, batch, "still"))
    model: Any = build_pipeline(METHODS["early_fusion"], data.schema).model
    model.prepare(Splits(still, still), model.stages()[0])
    batch.inputs["m0"][:, 0] += 0.02
    assert model.joint(batch)[:, 0].tolist() == pytest.approx([2.0] * 48, abs=1e-3)
