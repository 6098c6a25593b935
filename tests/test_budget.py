"""Blocks that rows skip and the choice among them, against numbers worked out by hand or by numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kintsugi.layers.budget import SkippableBlocks, gumbel, layer_drop, select_blocks


class Times(nn.Module):
    """A block that multiplies, and counts the rows that it is given."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.rows = factor, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return x * self.factor


def multiplying(*factors: float) -> tuple[SkippableBlocks, list[Times]]:
    blocks, times = SkippableBlocks(1, len(factors)), [Times(factor) for factor in factors]
    blocks.blocks = nn.ModuleList(times)
    return blocks, times


def test_a_gumbel_variable_and_its_softmax_are_those_of_the_authors_code() -> None:
    uniform = torch.tensor([0.2, 0.9, 0.5, 0.4], dtype=torch.float64)
    noise = 0.1 * gumbel(uniform)
    assert noise.tolist() == pytest.approx([-0.0475884995, 0.2250367327, 0.0366512921, 0.0087421572], abs=1e-9)
    # a first block in front, which is not up for choice
    logits = torch.tensor([[[0.0, 0.3, -0.2, 0.1, 0.05]]], dtype=torch.float64)
    padded = torch.cat([torch.zeros(1), noise])[None, None]
    kept, soft = select_blocks(logits, torch.ones(1, 1, dtype=torch.bool), 3, padded)
    expected = [0, 0.2847995703, 0.2268776540, 0.2536677811, 0.2346549946]
    assert soft.flatten().tolist() == pytest.approx(expected, abs=1e-9)
    assert kept.flatten().tolist() == [True, True, False, True, False]


def test_the_best_of_all_modalities_are_kept_and_every_first_block() -> None:
    logits = torch.tensor([[[-99, 0.2, 0.5, -0.1], [-99, 0.4, 0.3, 0.6]]])
    kept, _ = select_blocks(logits, torch.ones(1, 2, dtype=torch.bool), 5)
    assert kept.int().tolist() == [[[1, 0, 1, 0], [1, 1, 0, 1]]]
    only_first, _ = select_blocks(logits, torch.ones(1, 2, dtype=torch.bool), 2)
    assert only_first.int().tolist() == [[[1, 0, 0, 0], [1, 0, 0, 0]]]
    large = logits.clone()
    large[..., 0] = 50.0  # what is said of first blocks takes no place of others
    assert torch.equal(select_blocks(large, torch.ones(1, 2, dtype=torch.bool), 5)[0], kept)


def test_the_share_of_an_absent_modality_goes_to_the_others() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, 4, generator=draws)
    present = torch.rand(40, 3, generator=draws) > 0.4
    present[0] = False
    kept, soft = select_blocks(logits, present, 6)
    assert torch.equal(kept.sum((1, 2)), (4 * present.sum(1)).clamp(max=6))
    assert not (kept & ~present[..., None]).any()
    assert not soft[~present].any()
    assert not soft[..., 0].any()
    assert (kept[..., 0] == present).all()
    several = present.any(1)
    torch.testing.assert_close(soft.sum((1, 2))[several], torch.ones(int(several.sum())))


def test_temperature_and_noise_move_the_softmax_and_only_noise_the_choice() -> None:
    logits = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    here = torch.ones(1, 1, dtype=torch.bool)
    kept, soft = select_blocks(logits, here, 2, tau=2.0)
    assert kept.flatten().tolist() == [True, False, False, True]
    np.testing.assert_allclose(soft.flatten()[1:], np.exp([0.5, 1, 1.5]) / np.exp([0.5, 1, 1.5]).sum(), rtol=1e-6)
    moved, _ = select_blocks(logits, here, 2, torch.tensor([[[0.0, 9.0, 0.0, 0.0]]]))
    assert moved.flatten().tolist() == [True, True, False, False]


def test_a_blend_has_a_gradient_in_every_block_and_the_softmax_carries_it_to_all_logits() -> None:
    blocks, _ = multiplying(2, 3, 5)
    logits = torch.tensor([0.4, 0.1, -0.2], dtype=torch.float64, requires_grad=True)
    soft = logits.softmax(0)
    mask = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64) + (soft - soft.detach())
    mask.retain_grad()
    out = blocks(torch.full((1, 1), 2.0, dtype=torch.float64), mask[None])
    out.sum().backward()
    assert out.item() == 4
    assert mask.grad is not None
    assert mask.grad.tolist() == [2, 8, 16]
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([-2.3134939984, 0.2274437159, 2.0860502825], abs=1e-9)


def test_a_block_is_run_on_the_rows_that_keep_it_alone() -> None:
    blocks, times = multiplying(2, 3, 5)
    keep = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]]) > 0
    x = torch.tensor([[1.0], [10.0], [100.0], [7.0]], requires_grad=True)
    out = blocks(x, keep)
    assert out.flatten().tolist() == [30, 20, 500, 7]
    assert [each.rows for each in times] == [2, 1, 2]
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [30, 2, 5, 1]


def test_to_skip_is_to_blend_with_zeros_and_ones() -> None:
    torch.manual_seed(0)
    blocks, x = SkippableBlocks(8, 4), torch.randn(30, 8)
    keep = torch.rand(30, 4) > 0.5
    torch.testing.assert_close(blocks(x, keep), blocks(x, keep.float()))
    assert torch.equal(blocks(x, torch.zeros(30, 4, dtype=torch.bool)), x)
    whole = x
    for block in blocks.blocks:
        whole = whole + block.inside(whole)  # type: ignore[operator]
    torch.testing.assert_close(blocks(x, torch.ones(30, 4, dtype=torch.bool)), whole)


def test_layer_drop_keeps_the_published_share_of_twelve_blocks() -> None:
    torch.manual_seed(0)
    keep = layer_drop(20000, 12, 0.2, 0.1).double()
    assert keep.sum(1).mean().item() == pytest.approx(8.74, abs=0.1)
    assert keep[:, 0].mean().item() == pytest.approx(0.82, abs=0.01)
    assert keep[:, 5].mean().item() == pytest.approx(0.72, abs=0.012)
    alone = (keep.sum(1) == 1) & (keep[:, 0] == 1)
    assert alone.double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert layer_drop(3, 4, 0.0, 0.0).all()
    assert math.isclose(float(layer_drop(50, 4, 0.0, 1.0).sum()), 50)
