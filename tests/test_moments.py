"""Moments of columns with holes and the lasso from them, against numbers of the paper's script, numpy, pandas, sklearn, scipy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import brentq
from sklearn.linear_model import Lasso, Ridge
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.layers.moments import (
    huber_covariance,
    lasso,
    one_parameter_weights,
    pairwise_covariance,
    ridge,
    semidefinite,
    shrunk,
    smallest_eigenvalue,
    standardised,
)

NAN = float("nan")
X = torch.tensor(
    [[1, 2, NAN], [0, -1, NAN], [2, NAN, 1], [-1, NAN, -2], [0.5, 1, 0], [1.5, 1.5, 2]], dtype=torch.float64
)
Y = torch.tensor([[1.0], [0], [2], [-2], [1], [3]], dtype=torch.float64)
BLOCK = torch.tensor([0, 0, 1])
ALL = torch.ones(6, 1, dtype=torch.bool)


def covariances() -> tuple[Tensor, Tensor]:
    return pairwise_covariance(X, ~X.isnan()).covariance, pairwise_covariance(X, ~X.isnan(), Y, ALL).covariance[:, 0]


def table(rows: int = 200, columns: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=rng, dtype=torch.float64)
    x = x + 0.7 * x.roll(1, 1) + 3
    return x, torch.rand(rows, columns, generator=rng) > 0.3


# moments --------------------------------------------------------------------------------------------------------------
def test_covariances_have_the_numbers_of_the_script() -> None:
    s, c = covariances()
    expected = [[1.1666667, 0.7083333, 2.0833333], [0.7083333, 1.7291667, 0.5], [2.0833333, 0.5, 2.9166667]]
    np.testing.assert_allclose(s, expected, atol=1e-7)
    np.testing.assert_allclose(c, [1.7333333, 1.0416667, 3.6666667], atol=1e-7)
    assert pairwise_covariance(X, ~X.isnan()).rows.tolist() == [[6, 4, 4], [4, 4, 2], [4, 2, 4]]


def test_covariances_are_those_of_pandas() -> None:
    x, seen = table()
    own = pairwise_covariance(x, seen)
    frame = pd.DataFrame(torch.where(seen, x, NAN).numpy())
    np.testing.assert_allclose(own.covariance, frame.cov(), rtol=1e-9)
    np.testing.assert_array_equal(own.rows, (seen.double().T @ seen.double()))


def test_cross_covariances_are_those_of_numpy_over_rows_that_have_both() -> None:
    x, seen = table(40, 3)
    y, known = table(40, 2, seed=1)
    own = pairwise_covariance(x, seen, y, known)
    for i in range(3):
        for k in range(2):
            both = seen[:, i] & known[:, k]
            assert float(own.covariance[i, k]) == pytest.approx(np.cov(x[both, i], y[both, k])[0, 1])
            assert int(own.rows[i, k]) == int(both.sum())


@pytest.mark.parametrize("moments", [pairwise_covariance, huber_covariance])
@pytest.mark.parametrize("rubbish", [NAN, 1e9])
def test_what_is_unseen_is_never_read(moments: object, rubbish: float) -> None:
    x, seen = table(60, 4)
    y, known = table(60, 2, seed=1)
    clean = moments(x, seen, y, known)  # type: ignore[operator]
    dirty = moments(torch.where(seen, x, rubbish), seen, torch.where(known, y, rubbish), known)  # type: ignore[operator]
    assert torch.equal(clean.covariance, dirty.covariance)


def test_a_pair_that_no_two_rows_have_is_not_known() -> None:
    x = torch.randn(4, 2, dtype=torch.float64)
    seen = torch.tensor([[True, False], [True, True], [False, True], [False, True]])
    for moments in (pairwise_covariance, huber_covariance):
        covariance, rows = moments(x, seen)
        assert covariance[0, 1] == 0
        assert rows.tolist() == [[2, 1], [1, 3]]


def test_tables_of_different_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[3, 2\]"):
        pairwise_covariance(torch.zeros(3, 2), torch.ones(3, 2).bool(), torch.zeros(4, 1), torch.ones(4, 1).bool())


def test_columns_are_standardised_by_what_is_seen() -> None:
    x, seen = table(50, 4)
    x[:, 3] = 7.0
    own, mean, spread = standardised(torch.where(seen, x, NAN), seen)
    given = torch.where(seen, x, NAN).numpy()
    expected = (given - np.nanmean(given, 0)) / np.r_[np.nanstd(given[:, :3], 0, ddof=1), 1]
    np.testing.assert_allclose(own, np.nan_to_num(expected), atol=1e-12)
    assert spread[3] == 1
    assert mean[3] == 7
    assert bool((own[~seen] == 0).all())


@pytest.mark.parametrize(("mean", "spread"), [(1e6, 0.5), (1.7e9, 1000.0), (0.0, 1e-8), (-3e-5, 1e-9)])
def test_columns_far_from_zero_and_small_ones_are_scaled_too(mean: float, spread: float) -> None:
    x = mean + spread * torch.randn(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own, _, _ = standardised(x, torch.ones_like(x, dtype=torch.bool))
    assert float(own.std()) == pytest.approx(1)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e6 / 3])
def test_columns_that_vary_by_rounding_alone_are_not_scaled(level: float) -> None:
    x = torch.full((201, 1), level).double()
    x[::2] *= 1 + 6e-8  # half a step of float32
    seen = torch.ones_like(x, dtype=torch.bool)
    assert float(standardised(x, seen)[2]) == 1
    assert float(standardised(1e-7 * (x - x.mean() + torch.arange(201.0)[:, None] / 201), seen, 1e-6)[2]) == 1


def test_the_huber_estimate_solves_its_equation() -> None:
    x, seen = table(80, 3)
    x[5] = 60.0
    own = huber_covariance(x, seen, k=0.5).covariance
    for i in range(3):
        for j in range(3):
            both = (seen[:, i] & seen[:, j]).numpy()
            a, b = x[both, i].numpy(), x[both, j].numpy()
            products = (a - a.mean()) * (b - b.mean())
            deviation = 1.4826 * np.median(np.abs(products - np.median(products)))
            limit = 0.5 * math.sqrt(both.sum() / math.log(3)) * deviation

            def pull(place: float, products: np.ndarray = products, limit: float = limit) -> float:
                return float(np.clip(products - place, -limit, limit).sum())

            expected = brentq(pull, products.min(), products.max(), xtol=1e-12)
            assert float(own[i, j]) == pytest.approx(expected, abs=2e-5 * deviation)


def test_a_wide_huber_threshold_gives_the_mean_of_products_and_outliers_do_not_move_a_narrow_one() -> None:
    x, seen = table(100, 4)
    wide, counts = huber_covariance(x, seen, k=1e6)
    plain = pairwise_covariance(x, seen).covariance
    np.testing.assert_allclose(wide, plain * (counts - 1) / counts, rtol=1e-9)
    spoilt = x.clone()
    spoilt[0, :] = 40.0
    calm = huber_covariance(x, seen, k=0.3).covariance
    assert float((huber_covariance(spoilt, seen, k=0.3).covariance - calm).abs().max()) < 1
    assert float((pairwise_covariance(spoilt, seen).covariance - plain).abs().max()) > 10


def test_of_products_that_are_mostly_equal_the_median_is_taken() -> None:
    x = torch.cat([torch.zeros(30, 2), torch.tensor([[10.0, 10.0]])]).double()
    covariance, _ = huber_covariance(x, torch.ones_like(x, dtype=torch.bool))
    assert float(covariance.abs().max()) == pytest.approx((10 / 31) ** 2)


# shrinkage ------------------------------------------------------------------------------------------------------------
def test_shrinkage_has_the_numbers_of_the_script() -> None:
    s, _ = covariances()
    sigma = shrunk(s, BLOCK, 0.8, 0.5)
    expected = [[1.3208333, 0.5666667, 1.0416667], [0.5666667, 1.7708333, 0.25], [1.0416667, 0.25, 2.7208333]]
    np.testing.assert_allclose(sigma, expected, atol=1e-7)
    assert float(smallest_eigenvalue(s)) == pytest.approx(-0.2707713, abs=1e-7)
    assert float(smallest_eigenvalue(sigma)) == pytest.approx(0.6270034, abs=1e-7)
    assert [bool(semidefinite(m)) for m in (s, sigma)] == [False, True]


def test_the_trace_stays_and_entries_shrink_by_the_weight_of_their_place() -> None:
    s, _ = covariances()
    weights = torch.tensor([[1.0, 1.0], [0.3, 1.0], [1.0, 0.2], [0.4, 0.1]], dtype=torch.float64)
    for (inside, across), sigma in zip(weights, shrunk(s, BLOCK, weights[:, 0], weights[:, 1]), strict=True):
        assert float(sigma.trace()) == pytest.approx(5.8125)
        assert float(sigma[0, 1]) == pytest.approx(float(inside * s[0, 1]))
        assert sigma[0, 2].tolist() == pytest.approx(float(across * s[0, 2]))
        assert torch.equal(sigma, sigma.T)
    assert torch.equal(shrunk(s, BLOCK, 1.0, 1.0), s)


def test_a_singular_covariance_counts_as_semidefinite() -> None:
    x, _ = table(6, 9)
    assert bool(semidefinite(pairwise_covariance(x, torch.ones_like(x, dtype=torch.bool)).covariance))


def test_weights_along_one_parameter_leave_no_negative_eigenvalue() -> None:
    s, _ = covariances()
    rows = pairwise_covariance(X, ~X.isnan()).rows
    weights = one_parameter_weights(s, BLOCK, rows, 30)
    one, two = math.sqrt(math.log(3) / 4), math.sqrt(math.log(3) / 2)
    k = (1 - weights[:, 0]) / one
    np.testing.assert_allclose((1 - weights[:, 1]) / two, k, atol=1e-12)
    assert float(k[-1]) == pytest.approx(1 / two)
    np.testing.assert_allclose(k.diff(), float(k.diff()[0]), atol=1e-12)
    inside = s * (BLOCK[:, None] == BLOCK)
    towards = (two - one) * inside + one * s.trace() / 3 * torch.eye(3)
    least, gain = (float(np.linalg.eigvalsh(m)[0]) for m in (s, towards))
    assert float(k[0]) == pytest.approx(least / (two * least - gain))
    assert bool(semidefinite(shrunk(s, BLOCK, weights[:, 0], weights[:, 1])).all())


def test_a_covariance_that_is_definite_need_not_shrink() -> None:
    x, _ = table(200, 4)
    s, rows = pairwise_covariance(x, torch.ones_like(x, dtype=torch.bool))
    assert one_parameter_weights(s, torch.tensor([0, 0, 1, 1]), rows, 5)[0].tolist() == [1, 1]


# lasso and ridge ------------------------------------------------------------------------------------------------------
def test_the_lasso_has_the_numbers_of_the_script() -> None:
    s, c = covariances()
    beta = lasso(shrunk(s, BLOCK, 0.8, 0.5), c, torch.tensor([0.6, 0.1], dtype=torch.float64))
    np.testing.assert_allclose(beta, [[0, 0.0914776, 1.1187004], [0.1288016, 0.3165517, 1.2324755]], atol=1e-7)


@pytest.mark.parametrize("penalty", [0.5, 0.1, 0.01])
def test_on_complete_data_it_is_the_lasso_of_sklearn(penalty: float) -> None:
    x, _ = table(120, 12)
    y = x @ torch.linspace(-1, 1, 12, dtype=torch.float64) + torch.randn(120, dtype=torch.float64)
    around, out = x - x.mean(0), y - y.mean()
    own = lasso(around.T @ around / 120, around.T @ out / 120, torch.tensor([penalty], dtype=torch.float64))[0]
    expected = Lasso(penalty, tol=1e-12, max_iter=100_000).fit(x.numpy(), y.numpy()).coef_
    np.testing.assert_allclose(own, expected, atol=1e-6)


def test_problems_are_solved_side_by_side_as_alone() -> None:
    s, c = covariances()
    matrices = torch.stack([shrunk(s, BLOCK, a, b) for a, b in ((0.8, 0.5), (0.3, 0.3), (0.01, 0.001))])
    penalties = torch.tensor([4.0, 1.0, 0.2, 0.0], dtype=torch.float64)
    together = lasso(matrices, c.expand(3, 3), penalties)
    assert together.shape == (3, 4, 3)
    for matrix, path in zip(matrices, together, strict=True):
        np.testing.assert_allclose(path, lasso(matrix, c, penalties), atol=1e-9)
        for penalty, beta in zip(penalties, path, strict=True):
            slope = c - matrix @ beta
            assert float(slope.abs().max() - penalty) < 1e-8
            active = beta != 0
            np.testing.assert_allclose(slope[active], penalty * beta[active].sign(), atol=1e-8)
    assert bool((together[:, 0] == 0).all())  # above every |c_j|


@pytest.mark.parametrize(("rows", "penalty"), [(120, 0.001), (2000, 0.05)])
def test_many_correlated_columns_are_solved_as_well(rows: int, penalty: float) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 256, generator=rng, dtype=torch.float64)
    for j in range(1, 256):
        x[:, j] = 0.97 * x[:, j - 1] + 0.24 * x[:, j]
    y = x[:, ::17].sum(1) + torch.randn(rows, generator=rng, dtype=torch.float64)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    s, c = x.T @ x / rows, x.T @ y / rows
    own = lasso(s, c, torch.tensor([penalty]))[0]
    slope = c - s @ own
    assert float(slope.abs().max()) - penalty < 1e-8
    np.testing.assert_allclose(slope[own != 0], penalty * own[own != 0].sign(), atol=1e-8)
    line = Lasso(penalty, tol=1e-9, max_iter=20_000).fit(x.numpy(), y.numpy()).coef_
    value, other = (float(b @ s @ b / 2 - c @ b + penalty * b.abs().sum()) for b in (own, torch.from_numpy(line)))
    assert value <= other + 1e-12


def test_a_column_that_never_varies_has_no_coefficient() -> None:
    s = torch.tensor([[2.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert lasso(s, torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.5]))[0].tolist() == [0.25, 0]


def test_what_is_no_lasso_is_refused() -> None:
    s, c = covariances()
    with pytest.raises(ConfigError, match="-1"):
        lasso(s, c, torch.tensor([-1.0]))
    with pytest.raises(DataError, match=r"\[2\]"):
        lasso(s, c[:2], torch.tensor([1.0]))


@pytest.mark.parametrize("rows", [50, 6])
def test_the_ridge_is_that_of_sklearn(rows: int) -> None:
    x, _ = table(rows, 9)
    y = torch.randn(rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, offset = ridge(x, y, 0.1)
    expected = Ridge(0.1 * rows).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(weight, expected.coef_.T, atol=1e-9)
    np.testing.assert_allclose(offset, expected.intercept_, atol=1e-9)
