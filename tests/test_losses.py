from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from kintsugi.core.errors import DataError
from kintsugi.layers.evidential import NIG, nig_sum
from kintsugi.losses import mse
from kintsugi.losses.distance import norm_gap
from kintsugi.losses.evidential import nig_nll, nig_regulariser
from kintsugi.losses.information import kl_between, mutual_information

NAN = float("nan")


# distances


def test_mse() -> None:
    a = torch.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    b = torch.tensor([[1.0, 0.0], [NAN, NAN]])
    assert mse(a, b, torch.tensor([True, False])).item() == 2
    mse(a, b, torch.tensor([True, False])).backward()
    assert a.grad is not None
    assert a.grad.tolist() == [[0, 2], [0, 0]]
    nothing = mse(a, b, torch.tensor([False, False]))
    assert nothing.item() == 0
    assert nothing.requires_grad
    assert mse(a, torch.zeros(2, 2)).item() == pytest.approx(39 / 4)


def test_mse_refuses_to_broadcast() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        mse(torch.zeros(3, 1), torch.zeros(3))


def test_the_cleaning_loss_has_the_published_number() -> None:
    x, reconstruction = torch.tensor([[0.2, 0.4], [0.6, 0.8]]), torch.tensor([[0.25, 0.1], [0.6, 0.9]])
    assert mse(reconstruction, x).item() == pytest.approx(0.025625)


def test_the_norm_gap_is_of_whole_matrices() -> None:
    learned = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    plain = torch.tensor([[2.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    gap = norm_gap(learned, plain)
    assert gap.item() == pytest.approx(0.5505102572, abs=1e-9)
    gap.backward()
    assert learned.grad is not None
    torch.testing.assert_close(learned.grad, -learned.detach() / math.sqrt(6))


# evidence

A, B = (1.0, 2.0, 1.5, 0.4), (2.0, 1.0, 2.0, 0.6)  # mu, v, alpha, beta


def nig(*rows: tuple[float, float, float, float]) -> NIG:
    """``[B]`` each, in float64."""
    return NIG(*torch.tensor(rows, dtype=torch.float64).T)


def fused() -> NIG:
    return nig_sum(NIG(*(part[None] for part in nig(A, B))))


def target(rows: int = 1) -> Tensor:
    return torch.full((rows,), 1.3, dtype=torch.float64)


def test_the_evidential_likelihood_has_the_published_numbers() -> None:
    single = nig_nll(nig(A, B), target(2)).tolist()
    assert single == pytest.approx([0.6873848068, 1.1898858531], abs=1e-9)
    assert nig_nll(fused(), target()).item() == pytest.approx(0.5460495344, abs=1e-9)


def test_the_evidential_regulariser_and_the_total_have_the_published_numbers() -> None:
    branches = [(nig(A), target()), (nig(B), target()), (fused(), target())]
    assert nig_regulariser(*branches[0]).item() == pytest.approx(1.65)
    assert nig_regulariser(*branches[1]).item() == pytest.approx(2.8)
    total = sum((nig_nll(*branch) + 0.01 * nig_regulariser(*branch)).item() for branch in branches)
    assert total == pytest.approx(2.4711535276, abs=1e-9)


def test_the_evidential_likelihood_is_that_of_a_student_t() -> None:
    random = np.random.default_rng(0)
    mu, y = random.normal(size=(2, 50, 3))
    v, alpha, beta = random.exponential(size=(3, 50, 3)) + np.array([1e-2, 1, 1e-2])[:, None, None]
    expected = -stats.t.logpdf(y, 2 * alpha, mu, np.sqrt(beta * (1 + v) / (v * alpha)))
    likelihood = nig_nll(NIG(*(torch.from_numpy(part) for part in (mu, v, alpha, beta))), torch.from_numpy(y))
    np.testing.assert_allclose(likelihood.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("alpha", [1.5, 15.9, 16.0, 2e3, 1e5, 1e7])
def test_the_evidential_likelihood_and_its_slope_stay_exact_in_float32_where_alpha_is_large(alpha: float) -> None:
    mu, v, beta, y = 0.0, 3.0, 0.75 * alpha, 0.4
    expected = -stats.t.logpdf(y, 2 * alpha, mu, math.sqrt(beta * (1 + v) / (v * alpha)))
    single = NIG(*(torch.tensor([part], requires_grad=True) for part in (mu, v, alpha, beta)))
    loss = nig_nll(single, torch.tensor([y]))
    assert loss.item() == pytest.approx(expected, abs=3e-6)
    (slope,) = torch.autograd.grad(loss, single.alpha)
    omega = 2 * beta * (1 + v)
    by_hand = math.log1p(v * y**2 / omega) + special.digamma(alpha) - special.digamma(alpha + 0.5)
    assert slope.item() == pytest.approx(by_hand, rel=1e-4)


def test_the_evidential_regulariser_grows_with_evidence_for_a_wrong_answer() -> None:
    distribution = NIG(*(part.requires_grad_() for part in nig(A, A)))
    y = torch.tensor([1.0, 3.5], dtype=torch.float64)
    value = nig_regulariser(distribution, y)
    assert value[0].item() == 0
    value.sum().backward()
    assert distribution.v.grad is not None
    assert distribution.alpha.grad is not None
    assert distribution.v.grad.tolist() == [0, 5]  # 2 |y - mu|
    assert distribution.alpha.grad.tolist() == [0, 2.5]


@pytest.mark.parametrize("loss", [nig_nll, nig_regulariser])
def test_evidential_losses_refuse_to_broadcast(loss: object) -> None:
    assert callable(loss)
    with pytest.raises(DataError, match="one shape"):
        loss(nig(A, B), target(2)[:, None])


# information

VERSIONS = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], dtype=torch.float64)
FROZEN = torch.tensor([[0.5, 0.4, 0.1]], dtype=torch.float64)


def test_mutual_information_has_the_published_numbers() -> None:
    three, two = VERSIONS.log()[None], VERSIONS[:2].log()[None]
    assert mutual_information(three).item() == pytest.approx(0.1015985007, abs=1e-10)
    assert mutual_information(three, eps=0).item() == pytest.approx(0.1015985009, abs=1e-10)
    assert mutual_information(two, eps=0).item() == pytest.approx(0.1329180061, abs=1e-10)


def test_versions_alike_carry_no_information_and_rows_are_not_mixed() -> None:
    alike = VERSIONS[:1].expand(3, 3)
    value = mutual_information(torch.stack([alike, VERSIONS]).log())
    assert value[0].item() == pytest.approx(0, abs=1e-12)
    assert value[1].item() == mutual_information(VERSIONS.log()[None]).item()


def test_mutual_information_reaches_every_version() -> None:
    logits = VERSIONS.log()[None].clone().requires_grad_()
    mutual_information(logits.log_softmax(-1)).sum().backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(2) > 1e-3).all()


def test_mutual_information_refuses_other_shapes() -> None:
    for shape in ((2, 3), (2, 0, 3)):
        with pytest.raises(DataError, match=r"\[B, V, C\]"):
            mutual_information(torch.zeros(shape))


def test_distillation_from_the_frozen_model_has_the_published_numbers() -> None:
    live = VERSIONS[2:]
    assert kl_between(FROZEN.log(), live.log() + 5).item() == pytest.approx(0.0239120506, abs=1e-10)
    assert kl_between(live.log(), FROZEN.log()).item() == pytest.approx(0.0230883123, abs=1e-10)
    total = 3 * mutual_information(VERSIONS.log()[None], eps=0) + 3 * kl_between(FROZEN.log(), live.log())
    assert total.item() == pytest.approx(0.3765316544, abs=1e-9)


def test_the_frozen_model_gets_no_gradient_and_equal_ones_give_none() -> None:
    frozen, live = (FROZEN.log().clone().requires_grad_() for _ in range(2))
    loss = kl_between(frozen, live)
    assert loss.item() == 0
    loss.backward()
    assert frozen.grad is None
    assert live.grad is not None
    assert live.grad.abs().max() < 1e-12


def test_distillation_refuses_to_broadcast() -> None:
    with pytest.raises(DataError, match="different shapes"):
        kl_between(torch.zeros(2, 3), torch.zeros(1, 3))
