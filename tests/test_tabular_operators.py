"""Corruptions of tables: shares, who is hit, legal values, masks and original units."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.readers import tabular, vector
from kintsugi.data.table import Table
from kintsugi.imperfect.corrupt._windows import percentiles
from kintsugi.imperfect.corruption import Compose, corrupt
from kintsugi.imperfect.operator import OPERATORS, Operator, list_corruptions
from kintsugi.imperfect.plan import Plan
from kintsugi.tasks.classification import Classification

ROWS = 4000
CODES = (0, 0, 0, 3, 5, 3)
EVERY = list_corruptions("tabular")
SHARES = list(enumerate((0.05, 0.1, 0.2, 0.4, 0.6), 1))


def clean(rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three numbers (normal, large, skewed), three categories, and one cell in ten unseen."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=rng)
    x[:, 1] = 100 + 20 * x[:, 1]
    x[:, 2] = x[:, 2].exp()
    for column in (3, 4, 5):
        x[:, column] = torch.randint(1, CODES[column] + 1, (rows,), generator=rng)
    seen = torch.rand(rows, 6, generator=rng) > 0.1
    seen[:, 0] = True
    return torch.where(seen, x, torch.nan), seen


def operator(key: str) -> Operator:
    found = OPERATORS[key]()
    assert isinstance(found, Operator)
    return found


def dataset(x: Tensor, mask: Tensor | None, codes: tuple[int, ...] = CODES) -> Dataset:
    schema = Schema((Modality("table", "tabular", (x.shape[1],), categories=codes),), Classification(["a", "b"]))
    masks = {} if mask is None else {"table": mask}
    present = torch.ones(len(x), 1, dtype=torch.bool)
    batch = Batch(("table",), {"table": x}, present, torch.arange(len(x)), torch.arange(len(x)) % 2, mask=masks)
    return Dataset(TensorSource(schema, batch))


def planned(key: str, data: Dataset, severity: int = 3, seed: int = 0, **values: Any) -> Plan:
    return operator(key).plan(data, "table", severity, seed, **values)


def run(
    key: str, severity: int = 3, seed: int = 0, x: Tensor | None = None, mask: Tensor | None = None, **values: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Before and after: values, masks."""
    if x is None:
        x, mask = clean()
    plan = planned(key, dataset(x, mask, CODES[: x.shape[1]]), severity, seed, **values)
    out, seen = operator(key).apply(x, torch.arange(len(x)), plan, mask)
    full = torch.ones_like(x, dtype=torch.bool)
    return x, full if mask is None else mask, out, full if seen is None else seen


def changed(x: Tensor, mask: Tensor, out: Tensor, seen: Tensor) -> Tensor:
    """Bool ``[R, cells]``: what happened to a cell that was seen."""
    return mask & ((out != x) | ~seen)


def rates(hit: Tensor, mask: Tensor) -> Tensor:
    return hit.double().sum(0) / mask.double().sum(0)


ELIGIBLE = {
    "cells_missing": (0, 1, 2, 3, 4, 5), "broken_characters": (0, 1, 2, 3, 4, 5), "category_noise": (3, 4, 5),
    "outliers": (0, 1, 2), "scale_shift": (0, 1, 2), "cell_noise": (0, 1, 2), "unit_error": (0, 1, 2),
}  # fmt: skip


# shares and rows ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("severity", "share"), SHARES)
@pytest.mark.parametrize("key", list(ELIGIBLE))
def test_the_share_of_the_eligible_cells(key: str, severity: int, share: float) -> None:
    x, mask, out, seen = run(key, severity)
    found = rates(changed(x, mask, out, seen), mask)
    for column in range(6):
        wanted = share if column in ELIGIBLE[key] else 0
        assert float(found[column]) == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / 3600) ** 0.5)


@pytest.mark.parametrize("rows", ["uniform", "other", "self"])
@pytest.mark.parametrize(("severity", "share"), SHARES)
def test_every_choice_of_rows_keeps_the_share(rows: str, severity: int, share: float) -> None:
    x, mask = clean()
    plan = planned("cells_missing", dataset(x, mask), severity, 1, rows=rows)
    _, _, out, seen = run("cells_missing", severity, 1, rows=rows)
    hit = changed(x, mask, out, seen)
    decides = mask if rows != "other" else mask & mask[:, plan.tensors["driver"]]
    assert (rates(hit & decides, decides) - share).abs().max() < 0.035
    assert not (hit & ~decides).any(), "cells whose deciding cell is unseen are not hit"


@pytest.mark.parametrize("rows", ["uniform", "other", "self"])
def test_hits_grow_with_severity(rows: str) -> None:
    hits = [changed(*run("cells_missing", s, 2, rows=rows)) for s in range(1, 6)]
    for less, more in pairwise(hits):
        assert bool((less <= more).all())
        assert int(more.sum()) > int(less.sum())


def outside(values: Tensor, hit: Tensor) -> float:
    """Share of the rows within the range of the hit ones that are not hit: 0 for a contiguous window."""
    low, high = values[hit].min(), values[hit].max()
    between = (values >= low) & (values <= high)
    return float((between & ~hit).double().sum() / between.sum())


def test_windows_are_contiguous_in_the_deciding_column_only() -> None:
    x, mask = clean()
    data = dataset(x, mask)
    places = []
    for seed in range(8):
        plan = planned("outliers", data, 3, seed, rows="other")
        driver = plan.tensors["driver"]
        assert (driver != torch.arange(6)).all()
        _, _, out, seen = run("outliers", 3, seed, rows="other")
        hit = changed(x, mask, out, seen)
        for column in range(3):
            by = int(driver[column])
            both = mask[:, column] & mask[:, by]
            if by < 3:
                assert outside(x[both, by], hit[both, column]) == 0
            assert outside(x[both, column], hit[both, column]) > 0.5, "its own value does not matter"
        own = changed(*run("outliers", 3, seed, rows="self"))
        for column in range(3):
            assert outside(x[mask[:, column], column], own[mask[:, column], column]) == 0
        places.append(float((x[own[:, 0], 0]).mean()))
    assert np.ptp(places) > 1, "windows lie in different places"
    free = changed(*run("outliers", 3, rows="uniform"))
    assert stats.ks_2samp(x[free[:, 0], 0].numpy(), x[~free[:, 0], 0].numpy()).pvalue > 1e-3


def test_columns_of_categories_decide_with_ties_broken() -> None:
    x, mask = clean()
    plan = planned("cells_missing", dataset(x, mask), 3, 0, rows="self")
    hit = changed(*run("cells_missing", 3, 0, rows="self"))
    for column in (3, 4, 5):
        by_code = [float(hit[x[:, column] == code, column].double().mean()) for code in range(1, CODES[column] + 1)]
        width, start = 0.2, float(plan.tensors["place"][column]) * 0.8
        for code, found in enumerate(by_code):
            low, high = code / CODES[column], (code + 1) / CODES[column]
            overlap = max(0.0, min(high, start + width) - max(low, start)) * CODES[column]
            assert found == pytest.approx(overlap, abs=0.12), "the reference is a sample of 2,048 rows"


def test_percentiles_are_uniform_even_with_ties() -> None:
    rng = torch.Generator().manual_seed(0)
    values = torch.stack([torch.randn(20000, generator=rng), torch.randint(1, 4, (20000,), generator=rng).float()], 1)
    values = torch.cat([values, torch.where(values[:, :1] > 0, values[:, :1], 0)], 1).double()
    grid = torch.quantile(values, torch.linspace(0, 1, 201, dtype=torch.float64), dim=0)
    draws = torch.rand(20000, 3, generator=rng, dtype=torch.float64)
    ranks = percentiles(values, grid, draws)
    assert 0 <= float(ranks.min()) <= float(ranks.max()) < 1
    for column in range(3):
        assert stats.kstest(ranks[:, column].numpy(), "uniform").statistic < 0.015
    order = values[:, 0].argsort()
    assert (ranks[order, 0].diff() >= 0).all()
    assert percentiles(torch.full((1, 3), torch.nan), grid, draws[:1]).isnan().all()


# what happens to a cell ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", EVERY)
@pytest.mark.parametrize("rows", ["uniform", "other", "self"])
def test_unseen_cells_stay_and_categories_stay_legal(key: str, rows: str) -> None:
    for severity in (1, 5):
        x, mask, out, seen = run(key, severity, rows=rows)
        assert bool((seen <= mask).all())
        assert out[~mask].isnan().all()
        assert torch.isfinite(out[seen]).all()
        assert out[~seen].isnan().all()
        for column in (3, 4, 5):
            codes = out[seen[:, column], column]
            low = 0 if key == "broken_characters" else 1
            assert torch.equal(codes, codes.round())
            assert low <= float(codes.min()) <= float(codes.max()) <= CODES[column]
        if not OPERATORS[key].gaps:
            assert torch.equal(seen, mask)
        assert changed(x, mask, out, seen).any()


@pytest.mark.parametrize("key", EVERY)
@pytest.mark.parametrize("rows", ["uniform", "other", "self"])
def test_what_stands_in_unseen_cells_is_never_read(key: str, rows: str) -> None:
    x, mask = clean()
    _, _, one, seen = run(key, 4, x=x, mask=mask, rows=rows)
    _, _, two, again = run(key, 4, x=torch.where(mask, x, 1.0), mask=mask, rows=rows)
    assert torch.equal(seen, again)
    assert torch.equal(one[seen], two[seen])
    assert (two[~mask] == 1).all()


@pytest.mark.parametrize("key", EVERY)
def test_without_a_mask_every_cell_counts(key: str) -> None:
    x, _ = clean(seed=3)
    x = x.nan_to_num(1.0)
    x, mask, out, seen = run(key, 4, x=x)
    assert changed(x, mask, out, seen).double().mean() > 0.1


def test_broken_numbers_go_missing_and_broken_categories_are_unknown() -> None:
    x, mask, out, seen = run("broken_characters", 4)
    lost = mask & ~seen
    assert lost[:, :3].any()
    assert not lost[:, 3:].any()
    other = seen & (out != x)
    assert not other[:, :3].any()
    assert (out[other] == 0).all()
    assert other[:, 3:].any()


def test_another_category_is_each_of_the_others_alike() -> None:
    x, mask, out, seen = run("category_noise", 5)
    hit = changed(x, mask, out, seen)
    for code in range(1, 6):
        new = out[hit[:, 4] & (x[:, 4] == code), 4].long()
        counts = torch.bincount(new, minlength=6)
        assert counts[0] == counts[code] == 0
        others = torch.tensor([c for c in range(1, 6) if c != code])
        assert stats.chisquare(counts[others].numpy()).pvalue > 1e-3


def test_an_unknown_category_becomes_any() -> None:
    x, mask = clean()
    x[:, 3] = 0
    _, _, out, seen = run("category_noise", 5, x=x, mask=mask)
    counts = torch.bincount(out[seen[:, 3], 3].long(), minlength=4)
    assert len(counts) == 4
    assert counts[1:].min() > 0.15 * counts.sum()


def test_outliers_are_far_out() -> None:
    x, mask, out, seen = run("outliers", 4)
    hit = changed(x, mask, out, seen)
    for column in range(3):
        here = x[mask[:, column], column].double()
        low, high = (float(torch.quantile(here, q)) for q in (0.25, 0.75))
        far = out[hit[:, column], column].double()
        beyond = torch.maximum(far - high, low - far) / (high - low)
        assert 2.7 < float(beyond.min()) < 3.3
        assert 5.6 < float(beyond.max()) < 6.4
        assert float(beyond.mean()) == pytest.approx(4.5, abs=0.3)
        assert abs(float((far > high).double().mean()) - 0.5) < 0.06


def test_noise_of_one_to_five_standard_deviations() -> None:
    x, mask = clean()
    factors = []
    for seed in range(12):
        _, _, out, seen = run("cell_noise", 5, seed)
        hit = changed(x, mask, out, seen)
        for column in range(3):
            added = (out - x)[hit[:, column], column].double()
            factors.append(float(added.std() / x[mask[:, column], column].double().std()))
            assert abs(float(added.mean())) < 4 * float(added.std()) / len(added) ** 0.5
    assert 0.9 < min(factors) < 2
    assert 4 < max(factors) < 5.2
    assert np.mean(factors) == pytest.approx(3, abs=0.6)


def test_constant_numbers_stay_or_are_scaled() -> None:
    x, mask = clean()
    x[:, 1] = 7.0
    mask[:, 1] = True
    for key in ("outliers", "cell_noise"):
        assert (run(key, 5, x=x, mask=mask)[2][:, 1] == 7).all()


def test_scales_are_those_of_jenga() -> None:
    x, mask = clean()
    found = set()
    for seed in range(10):
        _, _, out, seen = run("scale_shift", 3, seed)
        hit = changed(x, mask, out, seen)
        for column in range(3):
            ratio = (out / x)[hit[:, column], column]
            assert torch.allclose(ratio, ratio[:1], rtol=1e-4), "one factor a column"
            found.add(round(float(ratio[0])))
    assert found == {10, 100, 1000}


def test_unit_errors_of_each_kind() -> None:
    x, mask = clean()
    for unit, factor, offset in (("milli", 1000.0, 0.0), ("gravity", 9.81, 0.0), ("fahrenheit", 1.8, 32.0)):
        _, _, out, seen = run("unit_error", 3, unit=unit)
        hit = changed(x, mask, out, seen)
        assert torch.allclose(out[hit], (factor * x + offset)[hit], rtol=1e-5)
    plans = [planned("unit_error", dataset(x, mask), 3, seed).tensors["factor"] for seed in range(10)]
    assert set(torch.cat(plans).tolist()) == {1000.0, 9.81, 1.8}
    with pytest.raises(UnknownName, match="did you mean 'milli'"):
        run("unit_error", 3, unit="mili")


# swaps --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("severity", "share"), SHARES)
def test_columns_of_a_kind_are_swapped(severity: int, share: float) -> None:
    x, mask, out, seen = run("swapped_columns", severity)
    hit = changed(x, mask, out, seen)
    full = mask[:, :3].all(1)
    assert torch.equal(out[full, :3].sort(1).values, x[full, :3].sort(1).values), "numbers stay among numbers"
    assert set(hit[full, :3].sum(1).tolist()) == {0, 2}
    assert float(hit[full, :3].any(1).double().mean()) == pytest.approx(share, abs=0.03)
    assert not hit[:, 4].any(), "no other column has five categories"
    codes = mask[:, 3] & mask[:, 5]
    assert torch.equal(out[codes][:, [3, 5]].sort(1).values, x[codes][:, [3, 5]].sort(1).values)
    differ = codes & (x[:, 3] != x[:, 5])
    assert float(hit[differ, 3].double().mean()) == pytest.approx(share, abs=0.03)
    assert not hit[~codes][:, [3, 5]].any(), "both cells must be seen"


def test_every_two_numbers_meet() -> None:
    x, mask, out, _ = run("swapped_columns", 5)
    pairs = {(a, b): int((mask[:, a] & (out[:, a] == x[:, b])).sum()) for a in range(3) for b in range(3) if a != b}
    assert min(pairs.values()) > 300
    assert max(pairs.values()) < 1.3 * min(pairs.values())


# original units -----------------------------------------------------------------------------------------------------
def frame(rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "celsius": rng.normal(20, 5, rows),
            "mass": rng.normal(70, 10, rows),
            "place": rng.choice(["sea", "hill", "town"], rows),
            "code": [rng.normal(3, 2, 4) for _ in range(rows)],
            "y": rng.choice(["a", "b"], rows),
        }
    )


def table(rows: pd.DataFrame) -> Table:
    readers = {
        "table": tabular(["celsius", "mass", "place"]),
        "code": vector("code", standardise=True),
        "plain": vector("code"),
    }
    return Table.from_pandas(rows, modalities=readers, target="y")


def original(data: Dataset, x: Tensor) -> Tensor:
    units = data.units("table")
    assert units is not None
    return units[0] + units[1] * x.double()


def test_units_lead_back_to_the_values_of_the_file() -> None:
    rows = frame()
    data = table(rows)
    values = original(data, data.batch(torch.arange(300)).inputs["table"])
    assert np.allclose(values[:, :2].numpy(), rows[["celsius", "mass"]].to_numpy(), atol=1e-4)
    assert set(values[:, 2].tolist()) == {1, 2, 3}, "categories have no units"
    code = data.units("code")
    assert code is not None
    back = code[0] + code[1] * data.batch(torch.arange(300)).inputs["code"].double()
    assert np.allclose(back.numpy(), np.stack(rows["code"].tolist()), atol=1e-4)
    assert data.units("plain") is None
    for same in (data.in_memory(), data.subset(torch.arange(5)), data.in_memory().subset(torch.arange(9))):
        units = same.units("table")
        assert units is not None
        assert torch.equal(units[0], data.units("table")[0])  # type: ignore[index]
    assert dataset(*clean(5)).units("table") is None


@pytest.mark.parametrize("memory", [False, True])
def test_units_go_wrong_in_original_units(memory: bool) -> None:
    data = table(frame())
    data = data.in_memory() if memory else data  # type: ignore[assignment]
    clean_ = original(data, data.batch(torch.arange(300)).inputs["table"])
    wrong = data.with_corruption(corrupt("unit_error", "table", 4, unit="fahrenheit")).batch(torch.arange(300))
    values = original(data, wrong.inputs["table"])
    hit = (values - clean_).abs() > 1e-3
    assert float(hit[:, :2].double().mean()) == pytest.approx(0.4, abs=0.08)
    assert torch.allclose(values[hit], 1.8 * clean_[hit] + 32, atol=1e-3)
    scaled = data.with_corruption(corrupt("scale_shift", "table", 4)).batch(torch.arange(300))
    ratio = (original(data, scaled.inputs["table"]) / clean_)[:, :2]
    assert set(ratio.round().flatten().tolist()) <= {1.0, 10.0, 100.0, 1000.0}
    assert float((ratio > 5).double().mean()) == pytest.approx(0.4, abs=0.08)
    swapped = data.with_corruption(corrupt("swapped_columns", "table", 5)).batch(torch.arange(300))
    moved = original(data, swapped.inputs["table"])
    there = (moved[:, 0] - clean_[:, 0]).abs() > 1e-3
    assert float(there.double().mean()) == pytest.approx(0.6, abs=0.1)
    assert torch.allclose(moved[there][:, :2], clean_[there][:, [1, 0]], atol=1e-3), "degrees where kilograms belong"


def test_units_are_known_behind_another_corruption() -> None:
    data = table(frame())
    both = Compose((corrupt("cells_missing", "table", 1), corrupt("unit_error", "table", 3, unit="milli")))
    alone = corrupt("unit_error", "table", 3, unit="milli").plan(data, 0)
    assert torch.equal(both.plan(data, 0).parts[1].tensors["shift"], alone.tensors["shift"])
    assert float(alone.tensors["shift"][0]) > 100


# errors -------------------------------------------------------------------------------------------------------------
def test_tables_without_such_cells_are_refused() -> None:
    x, mask = clean(20)
    numbers, codes = dataset(x[:, :3], mask[:, :3], (0, 0, 0)), dataset(x[:, 3:5], mask[:, 3:5], (3, 5))
    with pytest.raises(ConfigError, match="no cell of that kind"):
        planned("category_noise", numbers)
    with pytest.raises(ConfigError, match="no cell of that kind"):
        planned("outliers", codes)
    with pytest.raises(ConfigError, match="two columns of a kind"):
        planned("swapped_columns", codes)
    with pytest.raises(ConfigError, match="second column"):
        planned("outliers", dataset(x[:, :1], mask[:, :1], (0,)), rows="other")
    with pytest.raises(ConfigError, match="uniform, other, self"):
        planned("outliers", numbers, rows="all")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        planned("outliers", numbers, share=2.0)
    with pytest.raises(DataError, match=r"made for rows \[3\], not \[6\]"):
        operator("outliers").apply(x.nan_to_num(1.0), torch.arange(20), planned("outliers", numbers))


def test_a_table_that_says_nothing_of_categories_holds_numbers() -> None:
    x, mask = clean()
    out = operator("outliers").apply(x, torch.arange(ROWS), planned("outliers", dataset(x, mask, ()), 5), mask)[0]
    assert bool(((out != x) & mask).any(0).all())
