"""Protocols, the cached evaluator against the plain sweep, and the figures of a summary."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.encoder import make_encoder, own_encoders
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.features import Features, Stream
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.wrappers import Answer, Monitor, Restorer
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.evaluation import (
    PROTOCOLS,
    Condition,
    Outcome,
    Protocol,
    Results,
    evaluate,
    examples,
    get_protocol,
    predict_conditions,
)
from kintsugi.evaluation.results import COLUMNS
from kintsugi.evaluation.summary import area
from kintsugi.tasks import Classification, Multilabel, Regression

SCHEMA = Schema(
    (Modality("pic", "image", (1, 4, 4)), Modality("note", "text", (6,), vocab=257), Modality("v", "vector", (4,))),
    Classification(["no", "yes", "maybe"]),
)


class Counting(nn.Module):
    """Counts the rows that it is asked for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.rows, self.calls = module, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        self.calls += 1
        out: Tensor = self.module(x)
        return out


class Words(nn.Module):
    """Text to tokens: ``[R, T, D]``."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(257, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.table(x)
        return out


def encoders() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "pic": Counting(nn.Sequential(nn.Flatten(), nn.Linear(16, 8))),
        "note": Counting(Words()),
        "v": Counting(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5))),
    }


def make(cls: type[Model] = Model, schema: Schema = SCHEMA) -> Model:
    with own_encoders(encoders()):
        model = cls(schema, 8)
    torch.manual_seed(1)
    nn.init.normal_(model.task_head.linear.weight)
    nn.init.normal_(model.prior)
    for counter in counters(model).values():
        counter.rows = counter.calls = 0  # wrapping tried each encoder on two rows
    return model


def counters(model: Model) -> dict[str, Counting]:
    return {name: encoder.module for name, encoder in model.encoders.items()}  # type: ignore[misc]


def data(n: int = 23, holes: bool = True, labelled: Sequence[bool] | None = None) -> Dataset:
    g = torch.Generator().manual_seed(2)
    present = torch.rand(n, 3, generator=g) > 0.3 if holes else torch.ones(n, 3, dtype=torch.bool)
    if holes:
        present[0] = False
    note = torch.randint(1, 257, (n, 6), generator=g)
    mask = (torch.arange(6) < torch.randint(1, 7, (n, 1), generator=g)) & present[:, 1:2]
    x = {"pic": torch.rand(n, 1, 4, 4, generator=g), "note": note * mask, "v": torch.randn(n, 4, generator=g)}
    for column, name in enumerate(("pic", "note", "v")):
        if name != "note":
            x[name][~present[:, column]] = math.nan  # what stands in an absent row must never be read
    has_label = None if labelled is None else torch.tensor(labelled)
    y = torch.randint(3, (n,), generator=g)
    return Dataset(
        TensorSource(SCHEMA, Batch(SCHEMA.names, x, present, torch.arange(n), y, has_label, mask={"note": mask}))
    )


MIXED = (
    *get_protocol("subsets", SCHEMA).conditions,
    Condition("nothing", "subset", keep=()),
    Condition("rate", "rate/mcar", missing="mcar(0.2)", seed=3, x=0.2),
    Condition("noise", "corruption/a", corruptions=("gaussian_noise(pic, 5)",), x=5),
    Condition("noise again", "corruption/a", corruptions=("gaussian_noise(pic, 5)",), seed=1, x=5),
    Condition("noise, no text", "corruption/a", keep=("pic", "v"), corruptions=("gaussian_noise(pic, 5)",), x=5),
    Condition("noise, no picture", "corruption/a", keep=("note",), corruptions=("gaussian_noise(pic, 5)",), x=5),
    Condition("twice", "corruption/b", corruptions=("gaussian_noise(pic, 5)", "gaussian_noise(pic, 2)"), x=5),
    Condition(
        "all",
        "corruption/b",
        missing="mcar(0.2)",
        corruptions=("keyboard_typos(note, 5) + gaussian_noise(pic, 5)",),
        x=5,
    ),
)


# protocols ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["clean", "subsets", "rates", "rates(0.1, 0.5, seeds=2)", "corruptions(1, 5)", "standard", "standard(2)"],
)
def test_protocols_survive_json(name: str) -> None:
    protocol = get_protocol(name, SCHEMA)
    assert Protocol.from_json(json.loads(json.dumps(protocol.to_json()))) == protocol
    assert protocol.conditions[0].clean
    assert protocol.name == name


def test_subsets_are_all_of_them_largest_first() -> None:
    keeps = [c.keep for c in get_protocol("subsets", SCHEMA).conditions]
    assert keeps[0] is None
    assert keeps[1:] == [("pic", "note"), ("pic", "v"), ("note", "v"), ("pic",), ("note",), ("v",)]


def test_too_many_subsets_are_refused() -> None:
    wide = Schema(tuple(Modality(f"m{i}", "vector", (1,)) for i in range(13)), SCHEMA.task)
    with pytest.raises(ConfigError, match=r"13 modalities have 8,191"):
        get_protocol("subsets", wide)


def test_rates_stop_where_no_more_can_be_lost() -> None:
    assert [c.x for c in get_protocol("rates", SCHEMA).conditions] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    ten = Schema(tuple(Modality(f"m{i}", "vector", (1,)) for i in range(10)), SCHEMA.task)
    assert get_protocol("rates", ten).conditions[-1].x == 0.9
    assert [(c.missing, c.x, c.seed) for c in get_protocol("rates(0.5, seeds=2)", SCHEMA).conditions[1:]] == [
        ("mcar(0.5)", 0.5, 0),
        ("mcar(0.5)", 0.5, 1),
    ]
    with pytest.raises(ConfigError, match=r"rate 0\.7 cannot be reached"):
        get_protocol("rates(0.7)", SCHEMA)


def test_rates_of_data_with_holes_can_be_reached() -> None:
    rows = data()
    protocol = get_protocol("rates", rows)
    assert protocol.conditions[-1].x == 0.5
    assert len(predict_conditions(Pipeline(make()), rows, protocol.conditions)) == len(protocol)


def test_corruptions_fit_the_kinds() -> None:
    conditions = get_protocol("corruptions(gaussian_noise, 2, 4)", SCHEMA).conditions
    assert [(c.corruptions, c.group, c.x) for c in conditions[1:]] == [
        ((f"gaussian_noise(pic, {s})",), "corruption/gaussian_noise(pic)", float(s)) for s in (2, 4)
    ]
    assert {c.x for c in get_protocol("corruptions", SCHEMA).conditions} == {0, 1, 2, 3, 4, 5}
    with pytest.raises(UnknownName, match="did you mean 'gaussian_noise'"):
        get_protocol("corruptions(gausian_noise)", SCHEMA)
    with pytest.raises(ConfigError, match="severity 9"):
        get_protocol("corruptions(9)", SCHEMA)


def test_unknown_protocols_and_arguments() -> None:
    with pytest.raises(UnknownName, match="did you mean 'subsets'"):
        get_protocol("subset", SCHEMA)
    with pytest.raises(ConfigError, match="subsets"):
        get_protocol("subsets(3)", SCHEMA)
    with pytest.raises(UnknownName, match="unknown modality 'picture'"):
        get_protocol(Protocol("own", (Condition("a", "subset", keep=("picture",)),)), SCHEMA)
    with pytest.raises(ConfigError, match="two conditions named 'a'"):
        Protocol("own", (Condition("a", "clean"), Condition("a", "clean")))
    with pytest.raises(UnknownName, match="'corruption'"):
        Condition.from_json({"name": "a", "group": "b", "corruption": []})


def test_protocols_can_be_added() -> None:
    @PROTOCOLS.register("only pictures")
    def build(about: Schema) -> Protocol:
        return Protocol("only pictures", (Condition("pic", "subset", keep=("pic",)),))

    try:
        with pytest.raises(UnknownName):  # a name with a blank is for the registry, not for specs
            get_protocol("only pictures!", SCHEMA)
        assert len(PROTOCOLS["only pictures"](SCHEMA)) == 1
    finally:
        PROTOCOLS._things.pop("only pictures")


# cached is naive ---------------------------------------------------------------------------------------------------


class OwnEncode(Model):
    """Has an encode of its own, as many methods do."""

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        features = super().encode(batch, encoders)
        return features.replace({"v": replace(features.streams["v"], tokens=features.streams["v"].tokens.tanh())})


class Joint(Model):
    """What a modality becomes depends on what else is there."""

    encoding: ClassVar[Literal["separate", "joint"]] = "joint"

    def __init__(self, schema: Schema, dim: int = 8) -> None:
        super().__init__(schema, dim)
        self.each = nn.ModuleDict({m.name: make_encoder(m, dim) for m in schema.modalities})

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        separate = {name: self.encode_one(name, batch, self.each[name]) for name in self.schema.names}
        both = batch.present.sum(1).float()[:, None, None]
        streams = {name: replace(s, tokens=s.tokens * both) for name, s in separate.items()}
        return Features(streams, batch.present)


class Halve(Restorer):
    def __init__(self, schema: Schema) -> None:
        super().__init__()

    def restore(self, batch: Batch) -> Batch:
        return replace(batch, inputs={**batch.inputs, "v": batch.inputs["v"] / 2})


class Watching(Monitor):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        if self.how == "reject":
            bad = torch.zeros_like(batch.present)
            bad[:, 0] = batch.inputs["pic"].flatten(1).nan_to_num().mean(1) > 0.5
            return inner(batch.where(~bad))
        if self.how == "replace":
            filled = torch.where(batch.present[:, 2, None], batch.inputs["v"] * 2, 1.0)
            everywhere = batch.present.clone()
            everywhere[:, 2] = True
            return inner(replace(batch, inputs={**batch.inputs, "v": filled}, present=everywhere))
        if self.how == "mask":
            shorter = batch.mask["note"] & (torch.arange(6) < 3)
            return inner(replace(batch, mask={"note": shorter}))
        if self.how == "vouch":  # uses what the condition took away
            return inner(
                replace(batch, present=torch.ones_like(batch.present), mask={"note": batch.inputs["note"] > 0})
            )
        if self.how == "half":
            half = torch.arange(len(batch)) % 2 == 0
            first, second = inner(batch.rows(half)), inner(batch.rows(~half))
            output, used = (torch.zeros(len(batch), 3), torch.zeros_like(batch.present))
            for keep, part in ((half, first), (~half, second)):
                output[keep], used[keep] = part.output, part.used
            return Prediction(output, used)
        with torch.enable_grad():
            x = batch.inputs["v"].clone().nan_to_num().requires_grad_()
            inner(replace(batch, inputs={**batch.inputs, "v": x})).output.logsumexp(1).sum().backward()
        step = torch.zeros_like(x) if x.grad is None else x.grad.sign()
        return inner(replace(batch, inputs={**batch.inputs, "v": (x - 0.1 * step).detach()}))


class Adapting(Monitor):
    """Answers drift with what was seen before, so that order and state show."""

    adapts: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1))

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        out = inner(batch)
        self.seen += len(batch)
        return replace(out, output=out.output + 0 * self.seen)


def same(a: Sequence[Outcome], b: Sequence[Outcome]) -> None:
    for one, other in zip(a, b, strict=True):
        assert one.condition == other.condition
        torch.testing.assert_close(one.output, other.output, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.probabilities, other.probabilities, atol=1e-5, rtol=1e-5)
        assert torch.equal(one.used, other.used)
        assert torch.equal(one.present, other.present)
        assert one.mask_hash == other.mask_hash


@pytest.mark.parametrize("holes", [True, False])
@pytest.mark.parametrize("cls", [Model, OwnEncode, Joint])
def test_cached_is_naive(cls: type[Model], holes: bool) -> None:
    pipeline, rows = Pipeline(make(cls)), data(holes=holes)
    cached = predict_conditions(pipeline, rows, MIXED, chunk=7)
    same(cached, predict_conditions(pipeline, rows, MIXED, cache=False, chunk=23))
    by_name = {o.condition.name: o for o in cached}
    # the conditions do what they say
    assert torch.equal(by_name["pic"].present, rows.present & torch.tensor([True, False, False]))
    assert not by_name["nothing"].used.any()
    torch.testing.assert_close(by_name["nothing"].output, pipeline.model.prior.expand(23, 3))
    assert by_name["clean"].output.isfinite().all()
    here = rows.present[:, 0]
    changed = (by_name["noise"].output - by_name["clean"].output).abs().amax(1) > 1e-6
    assert torch.equal(changed, here)
    assert not torch.equal(by_name["noise"].output, by_name["noise again"].output)
    assert torch.equal(by_name["noise, no picture"].output, by_name["note"].output)


def test_conditions_match_data_treated_by_hand() -> None:
    """The evaluator damages rows exactly as a data set that is corrupted and then thinned does."""
    from kintsugi.imperfect import parse_corruption, parse_mechanism

    pipeline, rows = Pipeline(make()).eval(), data()
    treated = rows.with_corruption(parse_corruption("gaussian_noise(pic, 5)"), seed=4)
    treated = treated.with_missing(parse_mechanism("mcar(0.2)"), seed=4)
    with torch.no_grad():
        expected = pipeline(treated.batch(torch.arange(23)))
    condition = Condition("x", "x", missing="mcar(0.2)", corruptions=("gaussian_noise(pic, 5)",), seed=4)
    (outcome,) = predict_conditions(pipeline, rows, [condition])
    torch.testing.assert_close(outcome.output, expected.output)
    assert outcome.mask_hash.startswith(treated.damage.mask_hash + "+")


@pytest.mark.parametrize("how", ["reject", "replace", "mask", "vouch", "half", "gradient"])
def test_monitors_see_the_same_through_the_cache(how: str) -> None:
    holes = how != "vouch"
    pipeline, rows = Pipeline(make(), monitors=[Watching(how)]), data(holes=holes)
    same(
        predict_conditions(pipeline, rows, MIXED, chunk=10),
        predict_conditions(pipeline, rows, MIXED, cache=False, chunk=10),
    )


def test_a_rejecting_monitor_encodes_nothing_anew() -> None:
    model, rows = make(), data(holes=False)
    predict_conditions(Pipeline(model, monitors=[Watching("reject")]), rows, get_protocol("subsets", SCHEMA).conditions)
    assert {name: c.rows for name, c in counters(model).items()} == {"pic": 23, "note": 23, "v": 23}


def test_restorers_are_asked_for_each_condition() -> None:
    pipeline, rows = Pipeline(make(), restore=Halve(SCHEMA)), data()
    same(predict_conditions(pipeline, rows, MIXED), predict_conditions(pipeline, rows, MIXED, cache=False))
    plain = predict_conditions(Pipeline(pipeline.model), rows, MIXED[:1])
    assert not torch.allclose(predict_conditions(pipeline, rows, MIXED[:1])[0].output, plain[0].output)


def test_adapting_monitors_get_a_fresh_copy_and_a_seeded_stream() -> None:
    pipeline, rows = Pipeline(make(), monitors=[Adapting()]), data()
    outcomes = predict_conditions(pipeline, rows, MIXED, stream=5)
    assert float(pipeline.monitors[0].seen) == 0  # type: ignore[arg-type]
    same(outcomes, predict_conditions(pipeline, rows, MIXED, stream=5))
    same(outcomes, predict_conditions(Pipeline(pipeline.model), rows, MIXED))  # rows are back in their order


# economy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Model, OwnEncode])
def test_each_version_is_encoded_once_a_row(cls: type[Model]) -> None:
    model, rows = make(cls), data(holes=False)
    predict_conditions(Pipeline(model), rows, get_protocol("subsets", SCHEMA).conditions, chunk=10)
    assert {n: (c.rows, c.calls) for n, c in counters(model).items()} == dict.fromkeys(SCHEMA.names, (23, 3))


def test_holes_are_not_encoded_and_damage_once_more() -> None:
    model, rows = make(), data()
    there = dict(zip(SCHEMA.names, rows.present.sum(0).tolist(), strict=True))
    predict_conditions(Pipeline(model), rows, MIXED)
    # pictures: clean, noise of two seeds (one of them in four conditions), noise on noise; text: clean and typos
    versions = {"pic": 4, "note": 2, "v": 1}
    assert {n: c.rows for n, c in counters(model).items()} == {n: there[n] * versions[n] for n in SCHEMA.names}


def test_versions_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.evaluation import evaluator

    held = []
    release = evaluator._Chunk.release
    monkeypatch.setattr(
        evaluator._Chunk,
        "release",
        lambda self, plan: (release(self, plan), held.append((len(self.streams), len(self.read), len(self.moved)))),
    )
    predict_conditions(Pipeline(make()), data(), MIXED)
    assert held[-1] == (3, 1, 1)
    assert max(held)[0] <= 5


def test_labels_and_truth_stay_behind() -> None:
    class Nosy(Model):
        def encode(self, batch: Batch, encoders: Any = None) -> Features:
            assert batch.target is None
            assert batch.truth is None
            assert batch.target_present is None
            return super().encode(batch, encoders)

    from kintsugi.imperfect import mcar

    rows = data(holes=False).with_missing(mcar(0.3), seed=0, keep="truth")
    for cache in (True, False):
        predict_conditions(Pipeline(make(Nosy)), rows, MIXED, cache=cache)


def test_mode_and_gradients_are_as_before() -> None:
    pipeline = Pipeline(make())
    pipeline.train()
    pipeline.model.encoders["v"].eval()
    first = predict_conditions(pipeline, data(), MIXED[:2])
    same(first, predict_conditions(pipeline, data(), MIXED[:2]))  # dropout was off
    assert pipeline.training
    assert not pipeline.model.encoders["v"].training
    assert pipeline.model.encoders["pic"].training
    assert not first[0].output.requires_grad
    assert torch.is_grad_enabled()


def test_progress_is_told() -> None:
    steps: list[tuple[int, int]] = []
    predict_conditions(Pipeline(make()), data(), MIXED[:3], chunk=12, progress=lambda *s: steps.append(s))
    assert steps == [(i, 6) for i in range(1, 7)]


def test_operators_that_overstep_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.imperfect import Corruption

    def apply(self: Corruption, batch: Batch, plan: Any) -> Batch:
        return replace(batch, inputs={name: x + 1 for name, x in batch.inputs.items()})

    monkeypatch.setattr(Corruption, "apply", apply)
    with pytest.raises(ConfigError, match="says that it changes pic"):
        predict_conditions(Pipeline(make()), data(), [Condition("a", "b", corruptions=("gaussian_noise(pic, 1)",))])


# results -----------------------------------------------------------------------------------------------------------


class Fitted:
    """What an estimator looks like from here."""

    def __init__(self, seed: int) -> None:
        self.pipeline_ = Pipeline(make())
        self.method, self.seed, self.training_condition_ = "mine", seed, "mcar(0.5)"


def test_evaluate_fills_a_tidy_table() -> None:
    labelled = [i % 5 != 0 for i in range(23)]
    results = evaluate(Fitted(7), data(labelled=labelled), "subsets", resamples=50)
    table = results.table
    assert tuple(table.columns) == (*COLUMNS, "guess")
    assert len(table) == 7 * 3
    assert set(table["n"]) == {18}
    (run,) = results.runs
    assert (run.rows, run.unlabelled, run.resamples) == (18, 5, 50)
    assert set(table["method"]) == {"mine"}
    assert set(table["seed"]) == {7}
    assert set(table["training"]) == {"mcar(0.5)"}
    assert dict(zip(table["metric"], table["higher_is_better"], strict=True)) == {
        "accuracy": True,
        "log_loss": False,
        "macro_f1": True,
    }
    # against the plain way
    rows = data().subset(torch.tensor(labelled))
    (outcome,) = predict_conditions(Fitted(7).pipeline_, rows, [Condition("note", "subset", keep=("note",))])
    right = (outcome.probabilities.argmax(1) == rows.target).float()
    (found,) = table[(table["condition"] == "note") & (table["metric"] == "accuracy")].to_dict("records")
    assert found["value"] == pytest.approx(float(right.mean()))
    assert found["low"] <= found["value"] <= found["high"]


def test_means_carry_intervals() -> None:
    results = evaluate(Pipeline(make()), data(200), "subsets", metrics=["accuracy"])
    (line,) = results.summary().to_dict("records")
    values = results.table["value"]
    assert line["subset_mean"] == pytest.approx(values.mean())
    assert line["subset_low"] < line["subset_mean"] < line["subset_high"]
    widths = (results.table["high"] - results.table["low"]).mean()
    assert line["subset_high"] - line["subset_low"] < widths  # a mean is surer than its parts


def test_several_models_and_names() -> None:
    rows = data()
    assert set(evaluate([Fitted(0), Fitted(1)], rows, "clean").table["seed"]) == {0, 1}
    both = evaluate({"a": Fitted(0), "b": Pipeline(make(OwnEncode))}, rows, "clean", training="complete")
    assert list(both.table["method"].unique()) == ["a", "b"]
    assert set(both.table["training"]) == {"complete"}
    assert set(evaluate(Pipeline(make()), rows, "clean", name="x").table["method"]) == {"x"}
    with pytest.raises(ConfigError, match="dict"):
        evaluate([Fitted(0), Fitted(1)], rows, "clean", name="x")
    with pytest.raises(ConfigError, match="after fit"):
        evaluate(object(), rows)


def test_data_that_cannot_be_scored() -> None:
    model = Pipeline(make())
    with pytest.raises(DataError, match="0 rows have a label"):
        evaluate(model, data(labelled=[False] * 23))
    with pytest.raises(UnknownName, match="accuracy"):
        evaluate(model, data(), "clean", metrics=["acuracy"])
    other = Schema(SCHEMA.modalities, Classification(["yes", "no", "maybe"]))
    batch = data().batch(torch.arange(23))
    with pytest.raises(DataError, match="differ in name or order"):
        evaluate(model, Dataset(TensorSource(other, batch)))
    with pytest.raises(DataError, match="with 2 outputs, the model for classification with 3"):
        evaluate(model, Dataset(TensorSource(Schema(SCHEMA.modalities, Classification(["a", "b"])), batch)))
    fewer = Schema(SCHEMA.modalities[:1], SCHEMA.task)
    with pytest.raises(DataError, match="lacks"):
        evaluate(
            model, Dataset(TensorSource(fewer, replace(batch, names=("pic",), present=batch.present[:, :1], mask={})))
        )


@pytest.mark.parametrize("task", [Regression(("a", "b"), (1.0, 2.0), (3.0, 4.0)), Regression(), Multilabel(["p", "q"])])
def test_other_tasks(task: Any) -> None:
    schema = Schema(SCHEMA.modalities, task)
    batch = data(60).batch(torch.arange(60))
    g = torch.Generator().manual_seed(0)
    target = torch.rand(60, task.outputs, generator=g)
    batch.target = target.round() if task.key == "multilabel" else target
    rows = Dataset(TensorSource(schema, batch))
    results = evaluate(Pipeline(make(schema=schema)), rows, "subsets", resamples=30)
    assert results.table["value"].notna().all()
    assert (results.table["low"] <= results.table["high"]).all()
    assert examples(Pipeline(make(schema=schema)), rows, 2)[0].answers


def table(values: dict[str, tuple[str, float, float]], **more: Any) -> pd.DataFrame:
    """Name of a condition -> group, x, value."""
    base = {"dataset": "d", "method": "m", "seed": 0, "training": "t", "metric": "accuracy", "n": 10}
    base |= {"higher_is_better": True, "seconds": 0.0, "mask_hash": ""}
    rows = [
        {**base, "condition": c, "group": g, "x": x, "value": v, "low": v - 0.1, "high": v + 0.1, **more}
        for c, (g, x, v) in values.items()
    ]
    return pd.DataFrame(rows)[list(COLUMNS)]


BY_HAND = {
    "clean": ("clean", 0.0, 0.9),
    "a": ("subset", math.nan, 0.6),
    "b": ("subset", math.nan, 0.3),
    "mcar(0.2)": ("rate/mcar", 0.2, 0.8),
    "mcar(0.6)": ("rate/mcar", 0.6, 0.4),
    "n1": ("corruption/n(a)", 1.0, 0.7),
    "n3": ("corruption/n(a)", 3.0, 0.5),
}


def test_summary_by_hand() -> None:
    (line,) = Results(table(BY_HAND)).summary().to_dict("records")
    assert line["clean"] == pytest.approx(0.9)
    assert (line["clean_low"], line["clean_high"]) == (pytest.approx(0.8), pytest.approx(1.0))
    assert line["mean"] == pytest.approx((0.6 + 0.3 + 0.8 + 0.4 + 0.7 + 0.5) / 6)
    assert (line["worst"], line["worst_in"]) == (0.3, "b")
    assert line["subset_mean"] == pytest.approx((0.9 + 0.6 + 0.3) / 3)
    assert (line["subset_worst"], line["subset_worst_in"]) == (0.3, "b")
    assert line["rate_mean"] == pytest.approx(0.6)
    assert line["corruption_mean"] == pytest.approx(0.6)
    assert line["rate_area"] == pytest.approx((0.2 * 0.85 + 0.4 * 0.6) / 0.6)
    assert line["corruption_area"] == pytest.approx((0.8 + 2 * 0.6) / 3)
    assert line["seeds"] == 1
    assert "clean_spread" not in line


def test_seeds_are_averaged_and_their_spread_told() -> None:
    other = {c: (g, x, v - 0.2) for c, (g, x, v) in BY_HAND.items()}
    results = Results(table(BY_HAND)) + Results(table(other, seed=1))
    (line,) = results.summary().to_dict("records")
    assert line["seeds"] == 2
    assert line["clean"] == pytest.approx(0.8)
    assert line["worst"] == pytest.approx(0.2)
    assert line["clean_spread"] == pytest.approx(0.2 / math.sqrt(2))
    curve = results.curves()
    assert curve[curve["group"] == "rate/mcar"]["value"].tolist() == pytest.approx([0.8, 0.7, 0.3])


def test_leaderboard_goes_by_the_direction_of_the_metric() -> None:
    losses = {"metric": "log_loss", "higher_is_better": False}
    good, bad = (
        {"clean": ("clean", 0.0, 0.2), "a": ("subset", math.nan, 0.5)},
        {"clean": ("clean", 0.0, 0.1), "a": ("subset", math.nan, 0.9)},
    )
    results = Results.concat(
        [Results(table(bad, method="bad", **losses)), Results(table(good, method="good", **losses))]
    )
    board = results.leaderboard("log_loss")
    assert board["method"].tolist() == ["good", "bad"]
    assert board["rank"].tolist() == [1, 2]
    assert board["worst"].tolist() == [0.5, 0.9]
    with pytest.raises(UnknownName):
        results.leaderboard("accuracy")


def test_area_of_curves() -> None:
    curve = pd.DataFrame({"x": [2.0, 1.0, 1.0], "value": [0.0, 1.0, 3.0]})
    assert area(curve) == pytest.approx(1.0)  # from 2 at x=1 to 0 at x=2
    assert area(curve, start=4.0) == pytest.approx((3 + 1) / 2)
    assert math.isnan(area(curve.iloc[:1]))


def test_concat_keeps_what_agrees_once_and_refuses_what_does_not() -> None:
    one = Results(table(BY_HAND))
    assert len(one + one) == len(one)
    with pytest.raises(ConfigError, match=r"two different results .* method 'm'"):
        one + Results(table({"clean": ("clean", 0.0, 0.1)}))


def test_csv_round_trip(tmp_path: Any) -> None:
    results = evaluate(Fitted(0), data(), get_protocol("rates(0.2)", SCHEMA), resamples=20)
    again = Results.from_csv(results.to_csv(tmp_path / "r.csv"))
    pd.testing.assert_frame_equal(again.table, results.table, check_dtype=False)


def test_examples_leave_out_what_is_there() -> None:
    rows = data()
    (one,) = examples({"a": Pipeline(make()), "b": Pipeline(make(OwnEncode))}, rows, [3])
    there = [name for name, here in zip(SCHEMA.names, rows.present[3].tolist(), strict=True) if here]
    assert [a.without for a in one.answers] == [None, *there] * 2
    assert one.label == SCHEMA.task.names[int(rows.target[3])]  # type: ignore[attr-defined, index]
    assert [s.value is not None for s in one.inputs] == rows.present[3].tolist()
    batch = rows.batch(torch.tensor([3]))
    with torch.no_grad():
        said = Pipeline(make()).eval().answer(batch).output.argmax().item()
    assert one.answers[0].said == SCHEMA.task.names[said]  # type: ignore[attr-defined]
    assert [e.index for e in examples(Pipeline(make()), rows, 4)] == [
        e.index for e in examples(Pipeline(make()), rows, 4)
    ]


def test_one_modality_will_do() -> None:
    schema = Schema(SCHEMA.modalities[2:], SCHEMA.task)
    with own_encoders({"v": nn.Linear(4, 8)}):
        model = Model(schema, 8)
    batch = Batch(
        ("v",),
        {"v": torch.randn(10, 4)},
        torch.ones(10, 1, dtype=torch.bool),
        torch.arange(10),
        torch.randint(3, (10,)),
    )
    rows = Dataset(TensorSource(schema, batch))
    results = evaluate(Pipeline(model), rows, "subsets", resamples=10) + evaluate(
        Pipeline(model), rows, "rates", resamples=10
    )
    assert results.table["condition"].unique().tolist() == ["clean"]
    assert len(results.leaderboard()) == 1
    assert examples(Pipeline(model), rows, 1)[0].answers[0].without is None


def test_a_stream_may_be_a_map() -> None:
    """Grid and finer maps survive the cache."""

    class Maps(Model):
        def encode_one(self, name: str, batch: Batch, encoder: nn.Module) -> Stream:
            s = super().encode_one(name, batch, encoder)
            return replace(s, grid=(s.tokens.shape[1],), finer=(s.tokens.transpose(1, 2),))

        def complete(self, features: Features) -> Features:
            for s, here in zip(features.streams.values(), features.present.T, strict=True):
                assert s.grid is not None
                assert not s.finer[0][~here].any()
                assert not s.mask[~here].any()
            return features

    rows = data()
    same(
        predict_conditions(Pipeline(make(Maps)), rows, MIXED),
        predict_conditions(Pipeline(make(Maps)), rows, MIXED, cache=False),
    )


def test_a_model_may_read_fewer_modalities_than_there_are() -> None:
    schema = Schema(SCHEMA.modalities[::2], SCHEMA.task)
    with own_encoders(encoders()):
        model = Model(schema, 8)
    rows = data()
    cached = predict_conditions(Pipeline(model), rows, MIXED)
    same(cached, predict_conditions(Pipeline(model), rows, MIXED, cache=False))
    assert cached[0].used.shape == (23, 2)
    assert torch.equal(cached[0].present, rows.present[:, ::2])
    assert len(evaluate(Pipeline(model), rows, "subsets", resamples=10)) == 7 * 3
