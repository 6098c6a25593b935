"""Correlation of several views, against scipy and the numbers of the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from kintsugi.losses.correlation import covariances, multiset_correlations

NAN = float("nan")
H1 = [[1, 0], [0, 1], [-1, 0.5], [0, -1.5]]
H2 = [[0.8, 0.1], [0.2, 1], [-1.1, 0], [0.1, -1]]
H3 = [[0.5, -0.3], [0, 0.7], [-0.9, 0.4], [0.6, -1.2]]


def published() -> Tensor:
    """``[4, 3, 2]``"""
    return torch.tensor([H1, H2, H3], dtype=torch.float64).transpose(0, 1).contiguous()


def drawn(rows: int = 30, views: int = 4, dim: int = 5, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, 1, dim)) + 0.7 * random.normal(size=(rows, views, dim))


def by_scipy(codes: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and inter-set correlations, from covariances that are summed pair by pair."""
    rows, views, dim = codes.shape
    h = codes - codes.mean(0)
    within = sum(h[:, i].T @ h[:, i] for i in range(views)) / (rows - 1)
    between = sum(h[:, i].T @ h[:, j] for i in range(views) for j in range(views) if i != j) / (rows - 1) / (views - 1)
    shrunk = (1 - shrinkage) * within + shrinkage * np.diag(within).mean() * np.eye(dim)
    values, vectors = linalg.eigh(between, shrunk)
    return values, np.array([v @ between @ v / (v @ within @ v) for v in vectors.T])


def test_the_covariances_have_the_published_numbers() -> None:
    within, between = covariances(published())
    assert within.flatten().tolist() == pytest.approx([1.77, -0.51, -0.51, 2.5491667], abs=1e-7)
    assert between.flatten().tolist() == pytest.approx([1.5833333, -0.6108333, -0.6108333, 2.36], abs=1e-7)


def test_the_correlations_have_the_published_numbers() -> None:
    plain = multiset_correlations(published(), 0.0)
    assert plain.tolist() == pytest.approx([0.8175660, 0.9675855], abs=1e-7)
    assert plain.mean().item() == pytest.approx(0.8925758, abs=1e-7)
    shrunk = multiset_correlations(published())
    assert shrunk.tolist() == pytest.approx([0.7561582, 1.0109105], abs=1e-7)
    assert shrunk.mean().item() == pytest.approx(0.8835344, abs=1e-7)
    _, released = by_scipy(published().numpy(), 0.2)  # which divides by the covariance that is not shrunk
    assert released.mean() == pytest.approx(0.8923772, abs=1e-7)
    assert abs(shrunk.mean().item() - released.mean()) < 0.01


@pytest.mark.parametrize("shrinkage", [0.0, 0.2, 0.9])
def test_the_correlations_are_those_of_scipy(shrinkage: float) -> None:
    values, _ = by_scipy(drawn(), shrinkage)
    np.testing.assert_allclose(multiset_correlations(torch.from_numpy(drawn()), shrinkage).numpy(), values, atol=1e-9)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_views_alike_have_a_correlation_of_one_and_opposite_ones_the_least(views: int) -> None:
    one = torch.from_numpy(drawn(views=1))
    assert multiset_correlations(one.expand(-1, views, -1), 0.0).tolist() == pytest.approx([1] * 5, abs=1e-9)
    opposite = torch.cat([one, -one], 1)
    assert multiset_correlations(opposite, 0.0).tolist() == pytest.approx([-1] * 5, abs=1e-9)
    balanced = torch.from_numpy(drawn(views=views))
    balanced = balanced - balanced.mean(1, keepdim=True)  # the views cancel: the least that there is
    assert multiset_correlations(balanced, 0.0).tolist() == pytest.approx([-1 / (views - 1)] * 5, abs=1e-9)


def test_a_map_of_all_views_and_a_shift_of_one_change_nothing() -> None:
    codes = torch.from_numpy(drawn())
    before = multiset_correlations(codes, 0.0).mean().item()
    mix = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 5)))
    assert multiset_correlations(codes @ mix, 0.0).mean().item() == pytest.approx(before, abs=1e-9)
    shifted, mapped = codes.clone(), codes.clone()
    shifted[:, 1] += 7
    mapped[:, 1] = codes[:, 1] @ mix
    assert multiset_correlations(shifted, 0.2).tolist() == pytest.approx(
        multiset_correlations(codes, 0.2).tolist(), abs=1e-9
    )
    assert abs(multiset_correlations(mapped, 0.0).mean().item() - before) > 0.05


def test_gradients_are_those_of_finite_differences_also_where_eigenvalues_repeat() -> None:
    codes = torch.from_numpy(drawn(rows=9, views=3, dim=3)).requires_grad_()
    assert torch.autograd.gradcheck(multiset_correlations, (codes,))
    assert torch.autograd.gradcheck(lambda x: multiset_correlations(x, 0.0), (codes,))
    alike = torch.from_numpy(drawn(rows=9, views=1, dim=3)).expand(-1, 3, -1).clone().requires_grad_()
    multiset_correlations(alike, 0.0).mean().backward()
    assert alike.grad is not None
    assert alike.grad.abs().max() < 1e-6  # at its largest value, with all eigenvalues 1


def test_the_mean_of_all_correlations_is_a_trace() -> None:
    codes = torch.from_numpy(drawn())
    within, between = (x.numpy() for x in covariances(codes))
    shrunk = 0.8 * within + 0.2 * np.diag(within).mean() * np.eye(5)
    assert multiset_correlations(codes).mean().item() == pytest.approx(np.trace(np.linalg.solve(shrunk, between)) / 5)


def test_rows_that_do_not_count_are_never_read_and_one_row_is_none() -> None:
    codes = torch.from_numpy(drawn())
    torn = torch.cat([codes, torch.full((1, 4, 5), NAN, dtype=torch.float64)]).requires_grad_()
    here = torch.arange(31) < 30
    value = multiset_correlations(torn, rows=here)
    assert value.tolist() == pytest.approx(multiset_correlations(codes).tolist(), abs=1e-12)
    value.sum().backward()
    assert torn.grad is not None
    assert torn.grad.isfinite().all()
    assert not torn.grad[30].any()
    single = multiset_correlations(torn, rows=torch.arange(31) < 1)
    assert single.tolist() == [0] * 5
    assert single.requires_grad


def test_codes_that_do_not_vary_have_no_correlation() -> None:
    still = torch.ones(6, 3, 2, requires_grad=True)
    value = multiset_correlations(still)
    assert value.tolist() == [0, 0]
    value.sum().backward()
    assert still.grad is not None
    assert still.grad.isfinite().all()


def test_single_precision_is_worked_out_in_double() -> None:
    codes = torch.from_numpy(drawn()).float()
    values, _ = by_scipy(codes.double().numpy(), 0.2)
    np.testing.assert_allclose(multiset_correlations(codes).numpy(), values, atol=1e-12)
