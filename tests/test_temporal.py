"""Sequences in both directions of time, against numbers worked out by hand and against what must not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError
from kintsugi.layers.temporal import BidirectionalTemporal, CausalAttention, CausalUnit, GatedBlock, mean_over, reach


def set_to(layer: Any, weight: list[list[float]], bias: list[float]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


def test_a_gated_block_has_the_numbers_of_the_authors_code() -> None:
    """One channel, no norm, dilation 2; a ReLU stands before tanh and sigmoid."""
    block = GatedBlock(1, 2).double()
    block.units.norm = nn.Identity()
    set_to(block.units.conv, [[0.5, 1.0], [-1.0, 0.5]], [0.1, 0.0])  # of x[t - 2] and x[t]
    set_to(block.out, [[0.8]], [0.05])
    x = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64).view(1, 4, 1)
    expected = [1.448622469, -1.950000000, 3.547224469, 0.550000000]
    assert block(x).flatten().tolist() == pytest.approx(expected, abs=1e-8)


def test_a_causal_unit_is_the_convolution_of_torch_with_zeros_before_the_start() -> None:
    torch.manual_seed(0)
    unit, x = CausalUnit(3, 5, kernel=2, dilation=4), torch.randn(2, 9, 3)
    weight = torch.stack(unit.conv.weight.split(3, 1), 2)  # [5, 3, 2]
    y = nn.functional.conv1d(nn.functional.pad(x.transpose(1, 2), (4, 0)), weight, unit.conv.bias, dilation=4)
    torch.testing.assert_close(unit(x), torch.relu(unit.norm(y.transpose(1, 2))))


def test_units_that_are_computed_together_are_those_that_are_computed_apart() -> None:
    torch.manual_seed(0)
    both, x = CausalUnit(3, 4, 2, 2, copies=2), torch.randn(2, 6, 3)
    norm: Any = both.norm
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    for i, part in enumerate(both(x).chunk(2, -1)):
        one = CausalUnit(3, 4, 2, 2)
        own = slice(4 * i, 4 * i + 4)
        one.norm = nn.LayerNorm(4)
        with torch.no_grad():
            one.conv.weight.copy_(both.conv.weight[own])
            one.conv.bias.copy_(both.conv.bias[own])
            one.norm.weight.copy_(norm.weight[own])
            one.norm.bias.copy_(norm.bias[own])
        torch.testing.assert_close(one(x), part)


@pytest.mark.parametrize("layer", [CausalUnit(8, 8, 2, 2), GatedBlock(8, 4), CausalAttention(8)])
def test_no_step_depends_on_a_later_one(layer: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 10, 8)
    later = x.clone()
    later[:, 6:] = torch.randn(1, 4, 8)
    one, other = layer.eval()(x), layer(later)
    torch.testing.assert_close(one[:, :6], other[:, :6])
    assert not torch.allclose(one[:, 6:], other[:, 6:])


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    layer, x = CausalAttention(8).eval(), torch.randn(2, 5, 8)
    from kintsugi.layers.positions import sinusoid

    h = x * 8**0.5 + sinusoid((5,), 8)
    q, k, v = layer.qkv(layer.norm1(h)).chunk(3, -1)
    h = h + layer.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))
    expected = layer.norm3(h + layer.feed(layer.norm2(h)))
    torch.testing.assert_close(layer(x), expected)


def plain(dim: int = 16) -> BidirectionalTemporal:
    """Without the transformer layer, which knows one direction."""
    torch.manual_seed(0)
    network = BidirectionalTemporal(dim).eval()
    network.context = nn.Identity()
    return network


def test_a_reversed_sequence_and_units_that_change_places_give_the_same_mean() -> None:
    network, x = plain(), torch.randn(3, 12, 16)
    steps = torch.ones(3, 12, dtype=torch.bool)
    there = network(x, steps)
    network.forwards, network.backwards = network.backwards, network.forwards
    back = network(x.flip(1), steps)
    torch.testing.assert_close(mean_over(there, steps), mean_over(back, steps))
    torch.testing.assert_close(there, back.flip(1))


def test_both_directions_share_blocks_and_levels_stand_side_by_side() -> None:
    network, x = plain(), torch.randn(3, 12, 16)
    there, back, levels = network.forwards(x), network.backwards(x.flip(1)), []
    for block in network.blocks:
        there, back = block(there), block(back)
        levels.append(there + back.flip(1))
    torch.testing.assert_close(network(x, torch.ones(3, 12, dtype=torch.bool)), torch.cat(levels, 2))
    blocks: list[Any] = list(network.blocks)
    assert [each.units.shifts for each in blocks] == [[1, 0], [2, 0], [4, 0], [8, 0]]


def test_every_step_is_told_of_those_before_and_behind() -> None:
    torch.manual_seed(0)
    network, x = BidirectionalTemporal(16).eval(), torch.randn(1, 9, 16)
    steps = torch.ones(1, 9, dtype=torch.bool)
    for changed in (0, 8):
        other = x.clone()
        other[:, changed] = torch.randn(16)
        moved = (network(other, steps) - network(x, steps)).abs().amax(2)[0]
        assert (moved > 1e-7).all()


def test_padding_behind_the_end_changes_nothing() -> None:
    torch.manual_seed(0)
    network, x = BidirectionalTemporal(16).eval(), torch.randn(4, 7, 16)
    mask = torch.tensor([[1, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 1], [1] * 7]) > 0
    x = torch.where(mask[..., None], x, 0)
    padded = torch.cat([x, torch.zeros(4, 5, 16)], 1)
    longer = torch.cat([mask, torch.zeros(4, 5, dtype=torch.bool)], 1)
    short, long = network(x, reach(mask)), network(padded, reach(longer))
    torch.testing.assert_close(short, long[:, :7])
    assert not long[:, 7:].any()
    torch.testing.assert_close(mean_over(short, reach(mask)), mean_over(long, reach(longer)))


def test_reach_ends_at_the_last_step_seen_and_holds_the_first_at_least() -> None:
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]) > 0
    assert reach(mask).int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    x = torch.tensor([[1.0, 2.0, 6.0, float("nan")]])[..., None]
    assert mean_over(x, torch.tensor([[1, 1, 1, 0]]) > 0).item() == 3


def test_a_width_that_does_not_share_out_is_refused() -> None:
    for dim in (18, 4, 8, 12):
        with pytest.raises(ConfigError, match=f"dim={dim} does not share out.*at least 16"):
            BidirectionalTemporal(dim)


def test_dropout_is_of_units_in_training_alone() -> None:
    torch.manual_seed(0)
    network, x = BidirectionalTemporal(16, dropout=0.5), torch.randn(2, 5, 16)
    steps = torch.ones(2, 5, dtype=torch.bool)

    def asked() -> Tensor:
        out: Tensor = network(x, steps)
        return out

    assert not torch.equal(asked(), asked())
    network.eval()
    assert torch.equal(asked(), asked())
