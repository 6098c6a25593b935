"""What a method says of its answers reaches the user: uncertainty, reliability, single modalities, embeddings; streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import kintsugi as kg
from kintsugi.core import (
    Answer,
    Batch,
    Features,
    Fused,
    Model,
    Monitor,
    Pipeline,
    Prediction,
    Restorer,
    Schema,
    Splits,
    Stage,
    Step,
    Strategy,
)  # fmt: skip
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.data.dataset import Dataset
from kintsugi.evaluation import get_protocol, predict_conditions
from kintsugi.imperfect import parse_mechanism
from kintsugi.testing import mixed, toy


@pytest.fixture(scope="module")
def data() -> tuple[Dataset, Dataset, Dataset]:
    return mixed("classification", absent=0.3).split()


def trained(method: Any, data: tuple[Dataset, Dataset, Dataset], **options: Any) -> kg.Classifier:
    return kg.Classifier(method, epochs=1, progress=False, **options).fit(data[0], data[1])


# tables -------------------------------------------------------------------------------------------------------------
def test_the_uncertainty_of_classes_is_the_normalised_entropy_and_nothing_is_known_where_the_prior_spoke(
    data: tuple[Dataset, Dataset, Dataset],
) -> None:
    model = trained("mean_fusion", data)
    rows = data[2]
    frame = model.predict_frame(rows)
    p = model.predict_proba(rows)
    entropy = -(p * np.log(p)).sum(1) / np.log(p.shape[1])
    assert np.allclose(frame["uncertainty"], entropy, atol=1e-4)
    empty = rows.with_missing(parse_mechanism("mcar(1, keep_one=False)"))
    assert model.predict_frame(empty)["uncertainty"].isna().all()
    assert set(model.predict_frame(empty)["used"]) == {"nothing (prior)"}


def test_reliability_is_in_the_table_and_empty_where_a_modality_is_absent(
    data: tuple[Dataset, Dataset, Dataset],
) -> None:
    frame = trained("ccm", data).predict_frame(data[2])
    for column, name in enumerate(data[2].schema.names):
        there = data[2].present[:, column].numpy()
        values = frame[f"reliability_{name}"]
        assert (values.notna() == there).all()
        assert values.dropna().between(0, 1).all()


def test_details_tell_what_each_modality_alone_answers_with_weights_and_embedding(
    data: tuple[Dataset, Dataset, Dataset],
) -> None:
    model = trained("late_fusion", data)
    plain, frame = model.predict_frame(data[2]), model.predict_frame(data[2], details=True)
    assert not any(c.startswith(("weight_", "embedding_", "image_")) for c in plain)
    classes = list(model.classes_)
    for column, name in enumerate(data[2].schema.names):
        there = data[2].present[:, column].numpy()
        alone = frame[[f"{name}_{c}" for c in classes]].to_numpy()
        assert np.isnan(alone[~there]).all()
        assert np.allclose(alone[there].sum(1), 1, atol=1e-5), "they are probabilities"
        assert (frame[f"weight_{name}"][~there] == 0).all()
    weights = frame[[c for c in frame if c.startswith("weight_")]].to_numpy()
    assert np.allclose(weights.sum(1), 1, atol=1e-5)
    assert "embedding_0" in frame


def test_the_evaluator_keeps_what_the_method_says_and_large_things_when_asked(
    data: tuple[Dataset, Dataset, Dataset],
) -> None:
    pipeline = trained("late_fusion", data).pipeline_
    conditions = get_protocol("subsets", data[2].schema).conditions
    plain = predict_conditions(pipeline, data[2], conditions)
    with_more = predict_conditions(pipeline, data[2], conditions, large=("embedding",), cache=False)
    for first, second in zip(plain, with_more, strict=True):
        assert first.embedding is None
        assert second.embedding is not None
        assert second.embedding.shape[0] == len(data[2])
        assert first.uncertainty is not None
        assert second.uncertainty is not None
        assert torch.allclose(first.uncertainty, second.uncertainty, atol=1e-5, equal_nan=True)
        assert set(first.unimodal) == set(data[2].schema.names)
        frame = first.frame(data[2].schema, details=True)
        assert len(frame) == len(data[2])
        assert {"prediction", "used", "uncertainty", "image_a"} <= set(frame)


class Sure(Model):
    """Answers with the first number of the first modality, and says how sure it is: its variance is 0.25 everywhere."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema, 8)

    def head(self, fused: Fused, features: Features) -> Prediction:
        answer = super().head(fused, features)
        return replace(answer, uncertainty=torch.full_like(answer.output, 0.25))


def test_the_variance_of_numbers_is_told_in_the_units_of_the_target() -> None:
    train, val, test = toy("regression", rows=96).split()
    model = kg.Regressor(Pipeline(Sure(train.schema)), epochs=1, progress=False).fit(train, val)
    scale = train.schema.task.scale[0]  # type: ignore[attr-defined]
    frame = model.predict_frame(test)
    assert np.allclose(frame["uncertainty_value"], 0.25 * scale**2)
    (whole,) = predict_conditions(model.pipeline_, test, get_protocol("clean", test.schema).conditions)
    assert np.allclose(whole.frame(test.schema)["uncertainty_value"], 0.25 * scale**2)


# streams ------------------------------------------------------------------------------------------------------------
class Drift(Monitor):
    """Adds to every answer how many rows it has seen before, and learns a little from each row."""

    adapts = True
    seen: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        assert len(batch) == 1, "rows come one after the other"
        assert torch.is_grad_enabled()
        answer = inner(batch)
        shifted = replace(answer, output=answer.output * (1 + 0.1 * self.seen))
        weight = next(p for p in self.host.parameters() if p.ndim > 1)
        (slope,) = torch.autograd.grad(answer.output.square().sum(), weight, allow_unused=True)
        with torch.no_grad():
            self.seen += 1
            if slope is not None:
                weight -= 1e-3 * slope
        return shifted


def test_a_method_that_adapts_starts_each_prediction_from_the_calibrated_state_unless_it_is_a_stream(
    tmp_path: Path,
) -> None:
    train, val, test = toy(rows=96).split()
    model = kg.Classifier(Pipeline(Model(train.schema, 8), monitors=[Drift(train.schema)]), epochs=1, progress=False)
    model.fit(train, val)
    before = {name: tensor.clone() for name, tensor in model.pipeline_.state_dict().items()}
    first, second = model.predict_proba(test), model.predict_proba(test)
    assert np.array_equal(first, second)
    onwards = model.predict_proba(test, stream=True)
    assert not np.array_equal(first, onwards), "a stream goes on"
    halves = [
        model.predict_proba(test.subset(range(7))),
        model.predict_proba(test.subset(range(7, len(test))), stream=True),
    ]
    assert np.array_equal(np.concatenate(halves), first), "the size of a batch changes nothing"
    model.pipeline_.reset()
    for name, tensor in model.pipeline_.state_dict().items():
        assert torch.equal(tensor, before[name]), f"reset leaves {name} as it was learned in use"


def test_an_adapting_pipeline_says_that_it_cannot_learn_in_inference_mode() -> None:
    train, _, test = toy(rows=96).split()
    pipeline = Pipeline(Model(train.schema, 8), monitors=[Drift(train.schema)]).eval()
    with torch.inference_mode(), pytest.raises(ConfigError, match="no_grad"):
        pipeline(test.batch(torch.arange(2)))


# a second table -----------------------------------------------------------------------------------------------------
class Paired(Model):
    """Learns from the training rows, and from those of an auxiliary table that nobody labelled."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema, 8)
        self.sizes: list[tuple[int, int]] = []

    def stages(self) -> list[Stage]:
        return [Stage("train", auxiliary="auxiliary/all")]

    def step(self, batch: Batch) -> Step:
        assert batch.auxiliary is not None
        self.sizes.append((len(batch), len(batch.auxiliary)))
        step = super().step(batch)
        return step.plus(quiet=0.01 * self(batch.auxiliary).output.square().mean())


def _frame(rows: int, seed: int) -> pd.DataFrame:
    draws = np.random.default_rng(seed)
    x, y = draws.normal(size=rows), draws.normal(size=rows)
    return pd.DataFrame({"x": x, "y": y, "sick": np.where(x + y > 0, "yes", "no")})


def test_an_auxiliary_table_needs_no_target_and_may_lack_columns() -> None:
    readers = {"first": kg.tabular("x"), "second": kg.tabular("y")}
    table = kg.Table.from_pandas(_frame(60, 0), modalities=readers, target="sick")
    model = kg.Classifier(Pipeline(Paired(table.schema)), modalities=readers, target="sick", epochs=1, progress=False)
    model.fit(_frame(60, 0), _frame(20, 1), auxiliary=_frame(30, 2)[["x"]])
    paired = model.pipeline_.model
    assert isinstance(paired, Paired)
    assert all(a == b for a, b in paired.sizes)
    assert paired.sizes


def test_an_auxiliary_table_that_nobody_reads_is_an_error() -> None:
    train, val, _ = toy(rows=96).split()
    with pytest.raises(ConfigError, match="reads no auxiliary table"):
        kg.Classifier("mean_fusion", epochs=1, progress=False).fit(train, val, auxiliary=val)


class Reading(Strategy):
    """A strategy whose own loop may read a second table, which it says."""

    reads_auxiliary = True


def test_a_strategy_does_not_make_an_auxiliary_table_welcome_unless_it_says_that_it_reads_one() -> None:
    train, val, _ = toy(rows=96).split()
    quiet = Pipeline(Model(train.schema, 8), strategies=[Strategy()])
    trainer = kg.Trainer(epochs=1, progress=False)
    with pytest.raises(ConfigError, match="no component says reads_auxiliary"):
        trainer.fit(quiet, Splits(train, val, auxiliary=val))
    trainer.fit(Pipeline(Model(train.schema, 8), strategies=[Reading()]), Splits(train, val, auxiliary=val))


class Halved(Restorer):
    """Gives the model half of every number."""

    def restore(self, batch: Batch) -> Batch:
        return replace(batch, inputs={name: x / 2 for name, x in batch.inputs.items()})


def test_an_answer_holds_the_inputs_as_a_restorer_gave_them_and_the_evaluator_keeps_them_where_asked() -> None:
    test = toy(rows=96).split()[2]
    pipeline = Pipeline(Model(test.schema, 8), restore=Halved()).eval()
    batch = test.batch(torch.arange(len(test)))
    answer = pipeline(batch)
    assert list(answer.restored) == list(batch.inputs)
    for name, x in batch.inputs.items():
        assert torch.equal(answer.restored[name], x / 2)
    conditions = get_protocol("clean", test.schema).conditions
    kept, left = (
        predict_conditions(pipeline, test, conditions, large=large)[0].restored for large in (("restored",), ())
    )
    assert {name: torch.equal(x, batch.inputs[name] / 2) for name, x in kept.items()} == dict.fromkeys(
        batch.inputs, True
    )
    assert left == {}
    assert Pipeline(pipeline.model).eval()(batch).restored == {}


class Labelled(Paired):
    """Learns from the labelled rows of the auxiliary table."""

    def stages(self) -> list[Stage]:
        return [Stage("train", auxiliary="auxiliary/labelled")]


def test_labels_of_an_auxiliary_table_are_read_where_they_are_there() -> None:
    readers = {"first": kg.tabular("x"), "second": kg.tabular("y")}
    table = kg.Table.from_pandas(_frame(60, 0), modalities=readers, target="sick")
    model = kg.Classifier(Pipeline(Labelled(table.schema)), modalities=readers, target="sick", epochs=1, progress=False)
    model.fit(_frame(60, 0), _frame(20, 1), auxiliary=_frame(30, 2))
    assert isinstance(model.pipeline_.model, Labelled)
    assert model.pipeline_.model.sizes
    with pytest.raises(DataError, match="has none"):
        model.fit(_frame(60, 0), _frame(20, 1), auxiliary=_frame(30, 2)[["x", "y"]])
