"""DISCOM and OPTIMUS: numbers of their papers and code, worked out apart from the library, and what they do with holes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, Ridge
from torch import Tensor, nn

import kintsugi as kg
from kintsugi.core import Batch, Modality, Schema, Splits
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.methods import build_ablation, build_pipeline, create
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.methods.missing.generative.discom import DISCOM, CompleteCase
from kintsugi.methods.missing.hybrid.optimus import Optimus, _regression, ablation_values, shapley_values
from kintsugi.tasks import Classification, Regression
from kintsugi.testing.fixture import toy
from kintsugi.testing.trials import ask, everything
from kintsugi.training.trainer import Trainer

NAN = float("nan")


def table(x: Tensor, y: Tensor, widths: tuple[int, ...], seen: Tensor | None = None, **also: Any) -> Dataset:
    """Columns ``[N, P]`` as vectors of these widths, absent where a row has none of them."""
    outputs = y.reshape(len(y), -1).shape[1]
    task = Regression([f"y{k}" for k in range(outputs)], [0.0] * outputs, [1.0] * outputs)
    schema = Schema(tuple(Modality(f"m{i}", "vector", (w,)) for i, w in enumerate(widths)), task)
    parts = dict(zip(schema.names, x.float().split(list(widths), 1), strict=True))
    present = torch.stack([~part.isnan().any(1) for part in parts.values()], 1) if seen is None else seen
    return Dataset(TensorSource(schema, Batch(schema.names, parts, present, torch.arange(len(x)), y.float(), **also)))


def additive(rows: int = 200, seed: int = 0, outputs: int = 1) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 9, generator=rng)
    x = x + 0.5 * x.roll(1, 1)
    weight = torch.randn(9, outputs, generator=rng) * (torch.arange(9) % 2 == 0)[:, None]
    y = x @ weight + 0.3 * torch.randn(rows, outputs, generator=rng)
    return x, y[:, 0] if outputs == 1 else y


def holed(x: Tensor, share: float = 0.3, seed: int = 1) -> Tensor:
    keep = torch.rand(len(x), 3, generator=torch.Generator().manual_seed(seed)) > share
    keep[:, 0] |= ~keep.any(1)
    return torch.where(keep.repeat_interleave(3, 1), x, NAN)


def fit(data: Dataset, cls: type[Any], train: int, val: int, **hyper: Any) -> Any:
    torch.manual_seed(0)
    pipeline = build_pipeline(cls, data.schema, **hyper)
    parts = torch.arange(len(data)).split([train, val, len(data) - train - val])
    splits = Splits(*(data.subset(part) for part in parts[:2]))
    return Trainer(epochs=2, batch_size=32, progress=False).fit(pipeline, splits).eval()


# DISCOM ---------------------------------------------------------------------------------------------------------------
def test_moments_of_a_fit_have_the_numbers_of_the_script() -> None:
    x = torch.tensor([[1, 2, NAN], [0, -1, NAN], [2, NAN, 1], [-1, NAN, -2], [0.5, 1, 0], [1.5, 1.5, 2]])
    y = torch.tensor([1.0, 0, 2, -2, 1, 3])
    full = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    parts = [x[:, :2], x[:, 2:]]
    seen = torch.stack([torch.ones(6).bool(), ~x[:, 2].isnan()], 1)
    mask = {"m0": ~parts[0].isnan()}
    data = table(x, y, (2, 1), seen, mask=mask)
    val = table(full, full.sum(1), (2, 1))
    model: Any = Trainer(progress=False).fit(build_pipeline(DISCOM, data.schema), Splits(data, val)).model
    scale = model.spread
    s = [[1.1666667, 0.7083333, 2.0833333], [0.7083333, 1.7291667, 0.5], [2.0833333, 0.5, 2.9166667]]
    np.testing.assert_allclose(model.covariance * scale * scale[:, None], s, atol=1e-6)
    np.testing.assert_allclose(model.cross[0] * scale, [1.7333333, 1.0416667, 3.6666667], atol=1e-6)


def test_on_complete_rows_without_shrinkage_it_is_the_lasso_of_sklearn() -> None:
    x, y = additive()
    pipeline = fit(table(x, y, (3, 3, 3)), DISCOM, 120, 40, weights=1, penalties=12)
    model = pipeline.model
    assert model.chosen[0, :2].tolist() == [1, 1]
    z = ((x.double() - model.mean) / model.spread)[:120].numpy()
    line = Lasso(float(model.chosen[0, 2]) * 119 / 120, tol=1e-12, max_iter=100_000).fit(z, y[:120].numpy())
    np.testing.assert_allclose(model.beta[0], line.coef_, atol=1e-6)
    answer = ask(pipeline, table(x, y, (3, 3, 3)).batch(torch.arange(160, 200))).output[:, 0]
    expected = line.predict(((x.double() - model.mean) / model.spread)[160:].numpy())
    np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize("hyper", [{}, {"search": "fast"}, {"robust": 1.0}])
def test_what_stands_in_absent_cells_is_never_read(hyper: dict[str, Any]) -> None:
    x, y = additive(120)
    rows = holed(x)
    seen = torch.stack([~part.isnan().any(1) for part in rows.split(3, 1)], 1)
    states = []
    for rubbish in (NAN, 1e9):
        data = table(torch.where(rows.isnan(), rubbish, rows), y, (3, 3, 3), seen)
        states.append(fit(data, DISCOM, 80, 40, weights=3, penalties=6, **hyper).state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_the_fast_search_and_robust_moments_answer_too() -> None:
    x, y = additive(300)
    data = table(torch.cat([holed(x[:150]), x[150:]]), y, (3, 3, 3))
    covariances = []
    for hyper in ({}, {"search": "fast"}, {"robust": 1.0}):
        pipeline = fit(data, DISCOM, 150, 75, **hyper)
        test = data.batch(torch.arange(225, 300))
        error = (ask(pipeline, test).output[:, 0] - y[225:]).square().mean() / y.var()
        assert float(error) < 0.15
        assert len(pipeline.model.grid()) == (30 if "search" in hyper else 100)
        covariances.append(pipeline.model.covariance)
    assert torch.equal(covariances[0], covariances[1])
    assert not torch.equal(covariances[0], covariances[2])


def test_each_of_several_targets_is_fitted_as_alone_over_the_rows_that_have_it() -> None:
    x, y = additive(160, outputs=2)
    y[::5, 1] = NAN
    both = fit(table(holed(x), y, (3, 3, 3)), DISCOM, 100, 60, weights=4, penalties=8).model
    for k in range(2):
        known = None if k == 0 else ~y[:, 1].isnan()
        target = y[:, k].nan_to_num()
        alone = table(holed(x), target, (3, 3, 3), target_present=known) if k else table(holed(x), target, (3, 3, 3))
        model = fit(alone, DISCOM, 100, 60, weights=4, penalties=8).model
        np.testing.assert_allclose(both.beta[k], model.beta[0], atol=1e-9)
        assert torch.equal(both.chosen[k], model.chosen[0])


def test_weights_of_which_none_is_allowed_are_refused() -> None:
    x = torch.tensor([[1, 2, NAN], [0, -1, NAN], [2, NAN, 1], [-1, NAN, -2], [0.5, 1, 0], [1.5, 1.5, 2]])
    y = torch.tensor([1.0, 0, 2, -2, 1, 3])  # their covariance has the eigenvalue -0.27
    data = table(torch.cat([x, x[4:]]), torch.cat([y, y[4:]]), (1, 1, 1))
    with pytest.raises(DataError, match="weights="):
        fit(data, DISCOM, 6, 2, weights=1)
    assert fit(data, DISCOM, 6, 2, weights=2).model.chosen[0, 1] < 1


def test_one_weight_is_tried_as_often_as_the_pairs_of_either_search() -> None:
    x, y = additive(60)
    data = table(x, y, (3, 3, 3))
    parts = Splits(data.subset(torch.arange(40)), data.subset(torch.arange(40, 60)))
    for search, tried in (("grid", 16), ("fast", 12)):
        pipeline = build_ablation(DISCOM, data.schema, "two weights", search=search, weights=4, penalties=3)
        model: Any = Trainer(progress=False).fit(pipeline, parts).model
        assert model.grid().shape == (tried, 2)
        assert torch.equal(model.grid()[:, 0], model.grid()[:, 1])


def test_rows_that_are_too_few_are_named() -> None:
    x, y = additive(60)
    full = table(x, y, (3, 3, 3))
    for complete in (0, 1):
        rows = x.clone()
        rows[complete:30, :3], rows[30:, 3:] = NAN, NAN
        pipeline = build_ablation(DISCOM, full.schema, "incomplete rows", weights=2, penalties=3)
        with pytest.raises(DataError, match=f"60 training rows {complete} hold"):
            Trainer(progress=False).fit(pipeline, Splits(table(rows, y, (3, 3, 3)), full))


def test_columns_that_never_vary_are_answered_by_the_mean() -> None:
    _, y = additive(60)
    data = table(torch.ones(60, 9), y, (3, 3, 3))
    answer = ask(fit(data, DISCOM, 40, 20, weights=2, penalties=3), data.batch(torch.arange(10))).output
    np.testing.assert_allclose(answer[:, 0], float(y[:40].mean()), atol=1e-5)


@pytest.mark.parametrize("key", ["discom", "optimus"])
def test_kinds_that_are_no_columns_are_named(key: str) -> None:
    video, vector = Modality("clip", "video", (4, 3, 8, 8)), Modality("v", "vector", (2,))
    with pytest.raises(ConfigError, match="'clip': video cannot be read as columns"):
        create(key, Schema((video, vector), Regression(["y"], [0.0], [1.0])))


def test_complete_rows_alone_are_the_ablation() -> None:
    x, y = additive(200)
    data = table(torch.cat([holed(x[:100], 0.6), x[100:]]), y, (3, 3, 3))
    parts = torch.arange(200).split([100, 100])
    complete = data.subset(data.subset(parts[0]).positions("complete"))
    options = {"weights": 3, "penalties": 6}
    splits = Splits(*(data.subset(part) for part in parts))
    pipeline = build_ablation(DISCOM, data.schema, "incomplete rows", **options)
    assert isinstance(pipeline.model, CompleteCase)
    one: Any = Trainer(progress=False).fit(pipeline, splits).model
    two: Any = (
        Trainer(progress=False)
        .fit(build_pipeline(DISCOM, data.schema, **options), replace(splits, train=complete))
        .model
    )
    assert torch.equal(one.beta, two.beta)


def test_discom_needs_labelled_validation_rows_and_known_words() -> None:
    x, y = additive(60)
    data = table(x, y, (3, 3, 3), target_present=torch.arange(60) < 40)
    with pytest.raises(DataError, match="label"):
        fit(data, DISCOM, 40, 20)
    for wrong in ({"search": "all"}, {"weights": 0}, {"penalties": 0}, {"robust": 0.0}):
        with pytest.raises(ConfigError):
            build_pipeline(DISCOM, data.schema, **wrong)
    with pytest.raises(ConfigError, match="classification"):
        create("discom", toy("classification").schema)


def test_discom_is_a_regressor() -> None:
    train, val, test = toy("regression", holes=0.3).split()
    model = kg.Regressor("discom").fit(train, val)
    assert model.score(test) > 0.6


# OPTIMUS --------------------------------------------------------------------------------------------------------------
def outcome(x: Tensor) -> Tensor:
    return (2 * x[:, 0] + x[:, 0] * x[:, 1])[:, None]


def test_attributions_have_the_published_numbers() -> None:
    x = torch.tensor([[1.0, 2.0]])
    assert ablation_values(outcome, x)[0, 0].tolist() == [4, 2]
    many = shapley_values(outcome, x, samples=4000)[0, 0]
    assert many.tolist() == pytest.approx([3, 1], abs=0.05)
    assert float(many.sum()) == pytest.approx(4, abs=1e-4)


def test_shapley_values_of_a_sum_are_its_terms() -> None:
    x, weight = torch.randn(5, 6, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    for values in (shapley_values(lambda z: z @ weight, x, 3), ablation_values(lambda z: z @ weight, x)):
        np.testing.assert_allclose(values, (x[:, :, None] * weight).transpose(1, 2), atol=1e-12)


def test_the_adjustment_has_the_published_numbers() -> None:
    covariates = torch.tensor([[60.0, 0], [70, 1], [65, 1], [80, 0]], dtype=torch.float64)
    x = torch.tensor([[1.0], [2], [4], [3]], dtype=torch.float64)
    found = _regression(covariates, x)
    np.testing.assert_allclose(found[:, 0], [-2.9411765, 0.0705882, 1.1764706], atol=1e-6)
    rest = x - torch.cat([torch.ones(4, 1, dtype=torch.float64), covariates], 1) @ found
    np.testing.assert_allclose(rest[:, 0], [-0.2941176, -1.1764706, 1.1764706, 0.2941176], atol=1e-6)


def prepared(data: Dataset, val: Dataset | None = None, **hyper: Any) -> Any:
    torch.manual_seed(0)
    model: Any = build_pipeline(Optimus, data.schema, **hyper).model.eval()
    with torch.no_grad():
        model.prepare(Splits(data, val or data), model.stages()[0])
    return model


def test_with_a_score_that_tells_nothing_the_first_candidates_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = additive(90)
    data = table(holed(x), y, (3, 3, 3))
    assert prepared(data, candidates=("knn5", "mean", "chained")).choice.sum() > 0
    monkeypatch.setattr(Optimus, "score", lambda *_: 1.0)
    assert prepared(data, candidates=("knn5", "mean", "chained")).choice.sum() == 0


def clusters(**also: Any) -> Dataset:
    """Of 20 clusters, each three rows in a row; two modalities tell which, and the third alone is the outcome."""
    rng = torch.Generator().manual_seed(0)
    centre = torch.randn(20, 9, generator=rng).repeat(12, 1) + 0.1 * torch.randn(240, 9, generator=rng)
    rows = centre.clone()
    rows[:, 6:][torch.rand(240, generator=rng) < 0.4] = NAN
    return table(rows, also.pop("y", centre[:, 6:].sum(1)), (3, 3, 3), **also)


def test_no_training_row_is_its_own_donor() -> None:
    data = clusters()
    pipeline = fit(data, Optimus, 200, 40, candidates=("knn1",))
    model = pipeline.model
    rows = data.subset(data.positions("complete")[:50]).identified().batch(torch.arange(50))
    whole, _ = model.table(model.encode(rows))
    asked = model.encode(rows.where(torch.tensor([True, True, False])))
    cells, left = model.table(asked)
    got = model.filled(cells, left, asked.identity)[:, 6:].numpy()
    assert np.abs(got - whole[:, 6:].numpy()).min(1).max() > 1e-3
    donors, has = model.donors.read("x").numpy(), model.donors.read("seen")[:, 6].numpy()
    for row, value in zip(whole.numpy(), got, strict=True):
        far = np.linalg.norm(donors[:, :6] - row[:6], axis=1)
        far[(far == 0) | ~has] = np.inf
        np.testing.assert_allclose(value, donors[far.argmin(), 6:])
    answers = ask(pipeline, rows.where(torch.tensor([True, True, False]))).output
    stranger = ask(pipeline, replace(rows, identity=None).where(torch.tensor([True, True, False]))).output
    assert float((answers - stranger).abs().min()) > 0


@pytest.mark.parametrize("known", [torch.arange(240) % 3 == 0, torch.arange(240) >= 180])
def test_the_choice_is_made_of_the_rows_that_have_a_label(known: Tensor) -> None:
    model = prepared(clusters(target_present=known), candidates=("mean", "knn3"))
    assert model.choice.tolist()[2] == 1
    assert prepared(clusters(target_present=~known), candidates=("mean", "knn3")).choice.tolist()[2] == 1


def test_each_outcome_is_probed_and_adjusted_over_the_rows_that_have_it() -> None:
    source = clusters()
    single: Any = everything(source).target
    y = single.repeat(2, 1).T.clone()
    y[:, 1] += 3 * everything(source).inputs["m0"][:, 0]
    y[::2, 0], y[1::2, 1] = NAN, NAN
    model = prepared(clusters(y=y), candidates=("mean", "knn3"), adjust="m0")
    assert model.choice.tolist()[2] == 1
    x, seen = model.table(model.encode(everything(source)))
    expected, given = 0.0, [model.candidates[i] for i in model.choice]
    for number, (fitted, learned, held, asked) in enumerate(model.splits(x, seen, y.double())):
        place = model.choice.repeat_interleave(3)
        one, two = (part[place, :, torch.arange(9)].T.numpy() for part in (fitted, held))
        for k in range(2):
            a, b = ~learned[:, k].isnan().numpy(), ~asked[:, k].isnan().numpy()
            assert abs(int(a.sum()) - 80) <= 1, (number, given)
            assert abs(int(b.sum()) - 40) <= 1
            line = Ridge(0.1 * a.sum()).fit(one[a], learned[a, k].numpy())
            expected += float(np.square(line.predict(two[b]) - asked[b, k].numpy()).mean()) / 2
    assert model.score(model.choice, model.splits(x, seen, y.double())) == pytest.approx(expected)
    filled = model.filled(x, seen)[:, :3].numpy()
    for k in range(2):
        rows = ~y[:, k].isnan().numpy()
        line = np.linalg.lstsq(np.column_stack([np.ones(rows.sum()), filled[rows]]), y[rows, k].numpy(), rcond=None)[0]
        np.testing.assert_allclose(model.of_outcomes[:, k], line, atol=1e-5)


def test_without_two_rows_of_one_outcome_nothing_can_be_chosen() -> None:
    with pytest.raises(DataError, match=r"of 240 training rows \[1\] have"):
        prepared(clusters(target_present=torch.arange(240) == 7))


def test_linear_columns_are_filled_by_regressions() -> None:
    rng = torch.Generator().manual_seed(0)
    shared = torch.randn(300, 3, generator=rng)
    x = torch.cat([shared, shared @ torch.randn(3, 3, generator=rng), torch.randn(300, 3, generator=rng)], 1)
    model = prepared(table(holed(x), x[:, 3:6].sum(1), (3, 3, 3)))
    assert model.candidates[int(model.choice[1])] == "chained"


@pytest.mark.parametrize("name", ["knn1", "chained"])
def test_holes_that_training_rows_never_had_are_filled_too(name: str) -> None:
    x, y = additive(120)
    x[:, 3:6] = x[:, :3]
    data = table(x, y, (3, 3, 3))
    model = prepared(data, candidates=(name,))
    rows = data.batch(torch.arange(40)).where(torch.tensor([True, False, True]))
    filled = model.filled(*model.table(model.encode(rows)))
    whole, _ = model.table(model.encode(data.batch(torch.arange(40))))
    assert float((filled - whole)[:, 3:6].square().mean()) < 0.05


def test_neither_validation_rows_nor_hidden_cells_are_learned_from() -> None:
    x, y = additive(150)
    rows = holed(x)
    seen = torch.stack([~part.isnan().any(1) for part in rows.split(3, 1)], 1)
    states = []
    for rubbish, shift in ((NAN, 0.0), (1e9, 50.0)):
        data = table(torch.where(rows.isnan(), rubbish, rows), y, (3, 3, 3), seen)
        states.append(prepared(data, table(x + shift, y + shift, (3, 3, 3)), adjust="m0").state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_several_outcomes_share_a_predictor_and_are_explained_apart() -> None:
    x, y = additive(150, outputs=2)
    data = table(holed(x), y, (3, 3, 3))
    pipeline = fit(data, Optimus, 100, 50)
    model = pipeline.model
    with torch.no_grad():
        model.task_head.linear.weight[1] = 0
    values = model.attribution(data.batch(torch.arange(10)), samples=3)
    assert values.shape == (10, 2, 9)
    assert float(values[:, 1].abs().max()) == 0
    assert float(values[:, 0].abs().min(0).values.max()) > 0
    with pytest.raises(ConfigError, match="lime"):
        model.attribution(data.batch(torch.arange(10)), "lime")


def test_only_the_predictor_descends_and_all_else_is_in_buffers() -> None:
    x, y = additive(150)
    data = table(holed(x), y, (3, 3, 3))
    pipeline = fit(data, Optimus, 100, 50)
    names = {name.split(".")[0] for name, _ in pipeline.model.named_parameters()}
    assert names == {"trunk", "task_head"}
    fresh = build_pipeline(Optimus, data.schema)
    fresh.load_state_dict(pipeline.state_dict())
    rows = data.batch(torch.arange(100, 150))
    assert torch.equal(ask(fresh, rows).output, ask(pipeline, rows).output)


def test_classes_are_probed_by_indicators_and_not_adjusted() -> None:
    data = toy("classification", holes=0.3)
    model = prepared(data, adjust="m0")
    y = model.outcomes(everything(data))
    target: Any = everything(data).target
    assert torch.equal(y.argmax(1), target)
    assert y.sum(1).eq(1).all()
    assert float(model.of_outcomes.abs().max()) == 0
    assert float(model.of_columns.abs().max()) > 0
    assert isinstance(data.schema.task, Classification)


def test_optimus_refuses_what_it_does_not_know() -> None:
    schema = toy("regression").schema
    for wrong in ({"candidates": ("median",)}, {"candidates": ()}, {"folds": 1}):
        with pytest.raises(ConfigError):
            build_pipeline(Optimus, schema, **wrong)
    with pytest.raises(UnknownName, match="age"):
        build_pipeline(Optimus, schema, adjust="age")


def test_its_ablation_has_as_many_moving_parameters_and_the_same_stages() -> None:
    schema = toy("regression").schema
    whole, off = build_pipeline(Optimus, schema), build_ablation(Optimus, schema)
    assert whole.stages() == off.stages()

    def moving(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    assert moving(whole) == moving(off)
