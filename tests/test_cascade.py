"""Cascades of autoencoders, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kintsugi.core.errors import ConfigError
from kintsugi.layers.cascade import Autoencoder, InjectedCascade, ResidualCascade


def dense(layers: Any, x: np.ndarray) -> np.ndarray:
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.detach().double().numpy().T
            x = x if layer.bias is None else x + layer.bias.detach().double().numpy()
        elif isinstance(layer, nn.LeakyReLU):
            x = np.where(x > 0, x, 0.01 * x)
        else:
            assert isinstance(layer, nn.ReLU)
            x = np.maximum(x, 0)
    return x


def three(**options: object) -> list[Autoencoder]:
    torch.manual_seed(0)
    return [Autoencoder([6, 5, 2], **options).double() for _ in range(3)]  # type: ignore[arg-type]


X = np.linspace(-2, 2, 24).reshape(4, 6)
H = np.cos(np.arange(24.0)).reshape(4, 6)


@pytest.mark.parametrize("residual", [True, False])
def test_a_residual_block_adds_to_its_own_input(residual: bool) -> None:
    cascade = ResidualCascade(three(down=nn.LeakyReLU, code=True, output=True, bias=False), residual)
    x, codes, out = X, [], X
    for depth, block in enumerate(cascade.blocks, 1):
        codes.append(dense(block.down, x))
        out = dense(block.up, codes[-1])
        x = x + out if residual else out
        found = cascade(torch.from_numpy(X), depth)
        np.testing.assert_allclose(found.state.detach(), x, atol=1e-12)
        np.testing.assert_allclose(found.out.detach(), out, atol=1e-12)
        np.testing.assert_allclose(found.codes.detach(), np.concatenate(codes, 1), atol=1e-12)
    assert torch.equal(cascade(torch.from_numpy(X)).state, found.state)
    assert found.codes.shape[1] == cascade.code_dim == 6


def test_an_injected_cascade_has_no_identity_path() -> None:
    cascade = InjectedCascade(three(down=nn.LeakyReLU))
    out, codes = X, []
    for block in cascade.blocks:
        codes.append(dense(block.down, out + H))
        out = dense(block.up, codes[-1])
    found = cascade(torch.from_numpy(X), torch.from_numpy(H))
    np.testing.assert_allclose(found.state.detach(), out, atol=1e-12)
    np.testing.assert_allclose(found.codes.detach(), np.concatenate(codes, 1), atol=1e-12)


def scalars(ups: list[float]) -> list[Autoencoder]:
    blocks = [Autoencoder([1, 1], bias=False).double() for _ in ups]
    for block, up in zip(blocks, ups, strict=True):
        block.down[0].weight.data.fill_(1.0)  # type: ignore[operator]
        block.up[0].weight.data.fill_(up)  # type: ignore[operator]
    return blocks


def test_the_published_arithmetic_of_injection() -> None:
    cascade = InjectedCascade(scalars([0.5, -0.25, 2.0]))
    found = cascade(torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[0.3]], dtype=torch.float64))
    assert float(found.state.detach()) == pytest.approx(0.125)
    np.testing.assert_allclose(found.codes.detach(), [[1.3, 0.95, 0.0625]], atol=1e-12)  # 0.65 + H, -0.2375 + H


def test_activations_stand_where_they_are_asked_for() -> None:
    kinds = [[type(layer).__name__ for layer in half] for half in (lambda a: (a.down, a.up))(Autoencoder([4, 3, 2]))]
    assert kinds == [["Linear", "ReLU", "Linear"]] * 2
    closed = Autoencoder([4, 3, 2], nn.LeakyReLU, nn.Tanh, code=True, output=True, bias=False)
    assert [type(layer).__name__ for layer in closed.down] == ["Linear", "LeakyReLU"] * 2
    assert [type(layer).__name__ for layer in closed.up] == ["Linear", "Tanh"] * 2
    assert all("bias" not in name for name, _ in closed.named_parameters())


def test_the_way_back_may_differ_from_the_way_there() -> None:
    block = Autoencoder([6, 6, 3, 2], back=[2, 3, 6])
    shapes = [
        [tuple(layer.weight.shape) for layer in half if isinstance(layer, nn.Linear)] for half in (block.down, block.up)
    ]
    assert shapes == [[(6, 6), (3, 6), (2, 3)], [(3, 2), (6, 3)]]


def test_dropout_is_of_what_is_decoded_and_ends_with_training() -> None:
    torch.manual_seed(0)
    block = Autoencoder([4, 64], dropout=0.5)
    x = torch.randn(3, 4)
    code = block(x)[1]
    assert torch.equal(code, block(x)[1])
    assert not torch.equal(block(x)[0], block(x)[0])
    assert torch.equal(block.eval()(x)[0], block.up(code))


def test_an_empty_cascade_is_refused() -> None:
    for kind in (ResidualCascade, InjectedCascade):
        with pytest.raises(ConfigError, match="at least one block"):
            kind([])
