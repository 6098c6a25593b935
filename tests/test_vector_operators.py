"""Corruptions of vectors: what was asked is what is measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect.operator import OPERATORS, Operator, list_corruptions
from kintsugi.imperfect.plan import Plan
from kintsugi.tasks.classification import Classification

ROWS, FEATURES = 2000, 20
SHARES = list(enumerate((0.05, 0.1, 0.2, 0.4, 0.6), 1))


def clean(rows: int = ROWS, features: int = FEATURES) -> Tensor:
    """Features of different size and mean, no value twice in a row."""
    x = torch.randn(rows, features, generator=torch.Generator().manual_seed(0))
    return x * torch.linspace(0.1, 9, features) + torch.arange(features)


def operator(key: str) -> Operator:
    found = OPERATORS[key]()
    assert isinstance(found, Operator)
    return found


def dataset(x: Tensor, train: int | None = None) -> Dataset:
    schema = Schema((Modality("code", "vector", (x.shape[1],)),), Classification(["a", "b"]))
    present = torch.ones(len(x), 1, dtype=torch.bool)
    source = TensorSource(
        schema, Batch(("code",), {"code": x}, present, torch.arange(len(x)), torch.arange(len(x)) % 2)
    )
    if train is not None:
        source.split = {"train": torch.arange(train)}
    return Dataset(source)


def planned(key: str, x: Tensor, severity: int = 3, **values: Any) -> Plan:
    return operator(key).plan(dataset(x), "code", severity, 0, **values)


def run(key: str, x: Tensor, severity: int = 3, mask: Tensor | None = None, **values: Any) -> Tensor:
    plan = planned(key, x, severity, **values)
    out, seen = operator(key).apply(x, torch.arange(len(x)), plan, mask)
    assert seen is mask
    return out


def test_noise_has_the_spread_of_each_feature() -> None:
    x = clean()
    for severity, k in enumerate((0.1, 0.2, 0.4, 0.7, 1.0), 1):
        added = (run("feature_noise", x, severity) - x).double()
        ratio = added.std(0) / x.double().std(0)
        assert torch.allclose(ratio, torch.full_like(ratio, k), rtol=0.08)
        assert float(ratio.mean()) == pytest.approx(k, rel=0.02)


def test_the_units_are_those_of_the_training_rows() -> None:
    x = clean(400)
    x[200:] *= 50
    data = dataset(x, train=200)
    it = operator("feature_noise")
    plan = it.plan(data, "code", 5, 0)
    assert torch.allclose(plan.tensors["sd"], x[:200].double().std(0, correction=0))
    assert plan == it.plan(data.subset(torch.arange(300, 400)), "code", 5, 0)


def test_a_feature_that_never_varies_gets_no_noise() -> None:
    x = clean()
    x[:, 3] = 2.5
    out = run("feature_noise", x, 5)
    assert torch.equal(out[:, 3], x[:, 3])
    assert not torch.equal(out[:, 4], x[:, 4])


@pytest.mark.parametrize("fill", ["mean", "zero"])
@pytest.mark.parametrize(("severity", "share"), SHARES)
def test_features_drop_out(severity: int, share: float, fill: str) -> None:
    x = clean()
    out = run("feature_dropout", x, severity, fill=fill)
    lost = out != x
    assert float(lost.double().mean()) == pytest.approx(share, rel=0.05)
    assert (lost.double().mean(0) - share).abs().max() < 0.05
    filled = x.mean(0) if fill == "mean" else torch.zeros(FEATURES)
    assert torch.allclose(out[lost], filled.expand_as(x)[lost], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("severity", "share"), SHARES)
def test_a_block_drops_out(severity: int, share: float) -> None:
    lost = run("feature_block_dropout", clean(), severity) != clean()
    assert (lost.sum(1) == round(share * FEATURES)).all()
    borders = (lost[:, 1:] != lost[:, :-1]).sum(1) + lost[:, 0] + lost[:, -1]
    assert (borders == 2).all(), "one run"
    start = lost.int().argmax(1)
    counts = torch.bincount(start, minlength=FEATURES)[: FEATURES - round(share * FEATURES) + 1]
    assert int(counts.min()) > 0.5 * ROWS / len(counts)
    assert int(counts.sum()) == ROWS


@pytest.mark.parametrize(("severity", "share"), SHARES)
def test_features_exchange_their_values(severity: int, share: float) -> None:
    x = clean()
    out = run("feature_permutation", x, severity)
    assert torch.equal(out.sort(1).values, x.sort(1).values), "nothing is lost"
    moved = out != x
    assert float(moved.double().mean()) == pytest.approx(share, rel=0.05)
    assert set(moved.sum(1).tolist()) <= ({0, 2} if share * FEATURES < 2 else {round(share * FEATURES)})
    assert (moved.double().mean(0) - share).abs().max() < 0.05


def test_a_share_between_two_counts_is_kept_on_average() -> None:
    x = clean(ROWS, 7)
    moved = (run("feature_permutation", x, 4) != x).sum(1)
    assert set(moved.tolist()) == {2, 3}
    assert float(moved.double().mean()) == pytest.approx(0.4 * 7, rel=0.02)
    assert (run("feature_permutation", clean(ROWS, 1), 5) == clean(ROWS, 1)).all()


@pytest.mark.parametrize("key", list_corruptions("vector"))
def test_what_a_mask_hides_stays_and_takes_no_part(key: str) -> None:
    x = clean(300)
    mask = torch.rand(300, FEATURES, generator=torch.Generator().manual_seed(4)) < 0.6
    for severity in (1, 5):
        hidden = torch.where(mask, x, torch.nan)
        plan = planned(key, x, severity)
        out, seen = operator(key).apply(hidden, torch.arange(300), plan, mask)
        assert seen is mask
        assert torch.isfinite(out[mask]).all()
        assert out[~mask].isnan().all()


@pytest.mark.parametrize("key", list_corruptions("vector"))
def test_one_feature(key: str) -> None:
    assert torch.isfinite(run(key, clean(20, 1), 5)).all()


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("feature_dropout", {"fill": "noise"}),
        ("feature_dropout", {"share": 1.2}),
        ("feature_permutation", {"share": -1}),
    ],
)
def test_values_that_make_no_sense(key: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        planned(key, clean(9), **values)


def test_a_plan_for_other_vectors_is_refused() -> None:
    plan = planned("feature_noise", clean())
    with pytest.raises(DataError, match=r"made for rows \[20\], not \[4\]"):
        operator("feature_noise").apply(clean(5, 4), torch.arange(5), plan)
