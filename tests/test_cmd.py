from __future__ import annotations

import numpy as np
import pytest
import torch

from kintsugi.losses.distance import cmd

NAN = float("nan")
X = torch.tensor([[0.1, 0.9], [0.4, -0.2], [0.7, 0.3]], dtype=torch.float64)
Y = torch.tensor([[0.5, 0.2], [-0.3, 0.6], [0.2, 0.1]], dtype=torch.float64)
Z = torch.tensor([[0.0, 0.4], [0.6, 0.5], [0.3, -0.1]], dtype=torch.float64)


@pytest.mark.parametrize(("moments", "value"), [(1, 0.26874192), (2, 0.43179914), (5, 0.50778308)])
def test_the_central_moment_discrepancy_has_the_published_numbers(moments: int, value: float) -> None:
    assert cmd(X, Y, moments).item() == pytest.approx(value, abs=1e-8)


def test_the_central_moment_discrepancy_of_three_batches_and_of_another_pair() -> None:
    assert ((cmd(X, Y) + cmd(X, Z) + cmd(Y, Z)) / 3).item() == pytest.approx(0.36833534, abs=1e-8)
    a = torch.tensor([[0.2, 0.4], [0.6, 0.8], [0.4, 0.9]], dtype=torch.float64)
    b = torch.tensor([[0.1, 0.5], [0.3, 0.7], [0.8, 0.6]], dtype=torch.float64)
    assert cmd(a, b).item() == pytest.approx(0.1989101982, abs=1e-10)
    assert cmd(a, b, moments=1).item() == pytest.approx(0.1, abs=1e-10)


def test_it_compares_batches_of_any_two_sizes_and_not_rows() -> None:
    random = np.random.default_rng(0)
    x, y = random.uniform(size=(7, 3)), random.uniform(size=(5, 3))
    expected = np.linalg.norm(x.mean(0) - y.mean(0))
    for k in (2, 3, 4):
        expected += np.linalg.norm(((x - x.mean(0)) ** k).mean(0) - ((y - y.mean(0)) ** k).mean(0))
    left, right = torch.from_numpy(x), torch.from_numpy(y)
    assert cmd(left, right, 4).item() == pytest.approx(expected, rel=1e-12)
    assert cmd(left.flip(0), right.roll(2, 0), 4).item() == pytest.approx(expected, rel=1e-12)


def test_equal_batches_have_no_discrepancy_and_a_gradient_of_zero() -> None:
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    value = cmd(x, y)
    assert value.item() == 0
    value.backward()
    assert x.grad is not None
    assert y.grad is not None
    assert not x.grad.any()
    assert not y.grad.any()


def test_both_sides_get_the_gradient() -> None:
    x, y = X.clone().requires_grad_(), Y.clone().requires_grad_()
    assert torch.autograd.gradcheck(cmd, (x, y))


def test_rows_that_do_not_count_are_never_read() -> None:
    torn = torch.cat([X, torch.full((1, 2), NAN, dtype=torch.float64)]).requires_grad_()
    here = torch.tensor([True, True, True, False])
    value = cmd(torn, Y, rows_x=here)
    assert value.item() == pytest.approx(0.50778308, abs=1e-8)
    assert cmd(Y, torn, rows_y=here).item() == pytest.approx(value.item(), abs=1e-12)
    value.backward()
    assert torn.grad is not None
    assert torn.grad[:3].any(1).all()
    assert not torn.grad[3].any()
    nothing = cmd(torn, Y, rows_x=~here.logical_or(~here))
    assert nothing.item() == 0
    assert nothing.requires_grad


def test_it_refuses_widths_that_differ_and_no_moment() -> None:
    with pytest.raises(ValueError, match="one width"):
        cmd(X, Y[:, :1])
    with pytest.raises(ValueError, match="at least the first moment"):
        cmd(X, Y, 0)
