"""Table cells as tokens, and attention under a mask, against values worked out apart from the library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kintsugi.core.errors import ConfigError
from kintsugi.layers.cells import CellBlock, CellTokens, CrossBlock, MaskedAttention, cells_to_look_at

NAN = float("nan")


def tokens_of(kinds: tuple[int, ...] = (0, 3, 0, 2), dim: int = 4) -> CellTokens:
    torch.manual_seed(0)
    return CellTokens(kinds, dim).double()


def test_a_token_is_its_value_or_its_category_and_its_column() -> None:
    layer = tokens_of()
    x, seen = torch.tensor([[0.5, 2.0, -1.0, 1.0]]).double(), torch.tensor([[True, True, False, True]])
    w, b = layer.value.weight.detach().numpy()[:, 0], layer.value.bias.detach().numpy()
    table, place = layer.category.weight.detach().numpy(), layer.column.detach().numpy()
    assert table.shape == (4 + 3, 4)  # code 0, that training never showed, is one more in each column
    missing, cls = layer.missing.detach().numpy(), layer.cls.detach().numpy()
    rows = np.stack([cls, 0.5 * w + b, table[2], missing, table[4 + 1]]) + place
    rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer(x, seen)[0].detach().numpy(), rows, atol=1e-12)


def test_unknown_categories_start_silent_and_large_codes_are_the_last() -> None:
    layer = tokens_of()
    assert not layer.category.weight[[0, 4]].any()
    assert layer.code(torch.tensor([[9.0, 7.0, 9.0, 0.4], [0.0, -2.0, 0.0, 1.6]])).tolist() == [
        [0, 3, 0, 4],
        [0, 0, 0, 6],
    ]


@pytest.mark.parametrize("kinds", [(0, 0), (2, 3)])
def test_what_stands_in_a_missing_cell_is_never_read(kinds: tuple[int, ...]) -> None:
    layer, seen = tokens_of(kinds), torch.tensor([[True, False]])
    one, other = (layer(torch.tensor([[1.0, x]]).double(), seen) for x in (NAN, 1e9))
    assert torch.equal(one, other)
    assert bool(one.isfinite().all())


def test_a_table_without_cells_is_refused() -> None:
    with pytest.raises(ConfigError, match="one cell"):
        CellTokens((), 4)


def test_a_missing_cell_is_seen_by_itself_alone() -> None:
    looks = cells_to_look_at(torch.tensor([[True, False, True]]))
    assert looks[0].int().tolist() == [[1, 0, 1], [1, 1, 1], [1, 0, 1]]


def plain(attention: MaskedAttention) -> MaskedAttention:
    """Of width 1, whose scores are the context itself for a query of 1."""
    with torch.no_grad():
        for layer in (attention.query, attention.key, attention.value, attention.out):
            layer.weight.fill_(1)
        attention.out.bias.zero_()
    return attention


def test_attention_has_the_published_numbers() -> None:
    logits = torch.tensor([0.3, 0.1, 0.5, -0.2])
    out = plain(MaskedAttention(1, 1))(
        torch.ones(1, 1, 1), logits[None, :, None], torch.tensor([[[True, False, True, True]]])
    )
    shares = torch.tensor([0.35361511, 0, 0.43190648, 0.21447841])
    assert out.item() == pytest.approx(float(shares @ logits))


def test_without_a_mask_all_is_looked_at_and_with_nothing_to_look_at_zeros_come_out() -> None:
    torch.manual_seed(0)
    layer, x, y = MaskedAttention(6, 2).double(), torch.randn(2, 3, 6).double(), torch.randn(2, 4, 6).double()
    whole = layer(x, y, torch.ones(2, 3, 4, dtype=torch.bool))
    torch.testing.assert_close(layer(x, y), whole)
    heads = [f(z).unflatten(2, (2, 3)).transpose(1, 2) for f, z in ((layer.query, x), (layer.key, y), (layer.value, y))]
    mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    torch.testing.assert_close(whole, layer.out(mixed))
    some = torch.tensor([True, False])[:, None, None].expand(2, 1, 4)
    out = layer(x, y, some)
    torch.testing.assert_close(out[0], whole[0])
    assert not out[1].any()
    out.sum().backward()
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in layer.parameters())


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="3 attention heads"):
        MaskedAttention(4, 3)


def test_blocks_add_what_each_part_says() -> None:
    torch.manual_seed(0)
    block, x, seen = CellBlock(4, 2).double(), torch.randn(1, 3, 4).double(), torch.tensor([[True, False, True]])
    looks = cells_to_look_at(seen)
    y = x + block.attention(block.norm1(x), block.norm1(x), looks)
    torch.testing.assert_close(block(x, looks), y + block.mlp(block.norm2(y)))
    other = x + torch.tensor([0.0, 5.0, 0.0])[:, None] * torch.randn(1, 1, 4).double()
    gap = (block(other, looks) - block(x, looks)).abs().amax(2)[0]
    assert (gap > 0).tolist() == [False, True, False]  # what a missing cell says reaches nobody else


def test_a_crossing_block_sees_what_is_visible_of_the_other_and_leaves_it() -> None:
    torch.manual_seed(0)
    block, x, context = CrossBlock(4, 2).double(), torch.randn(1, 3, 4).double(), torch.randn(1, 2, 4).double()
    visible = torch.tensor([[True, False]])
    y = x + block.block.attention(block.block.norm1(x), block.block.norm1(x))
    y = y + block.cross(block.norm(y), context[:, :1])
    torch.testing.assert_close(block(x, context, visible), y + block.block.mlp(block.block.norm2(y)))
    torch.testing.assert_close(block(x, context, ~visible), block(x, context[:, [1, 1]], ~visible))
