from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.layers import (
    LOGVAR_BOUND,
    Attention,
    Block,
    GaussianHead,
    SingleStream,
    heads_for,
    kl_unit,
    product_of_experts,
    sample,
    sinusoid,
)
from kintsugi.losses import mse

B, T, D = 4, 6, 16
NAN = float("nan")


def stream(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(B, T, generator=generator) > 0.4
    mask[0], mask[1] = False, True
    return torch.randn(B, T, D, generator=generator), mask


def block(seed: int = 0) -> Block:
    torch.manual_seed(seed)
    return Block(D)


# attention


@pytest.mark.parametrize(("dim", "heads"), [(32, 4), (6, 2), (7, 1)])
def test_heads(dim: int, heads: int) -> None:
    assert heads_for(dim) == heads
    assert Attention(dim).heads == heads


def test_heads_must_divide() -> None:
    with pytest.raises(ConfigError, match="do not divide"):
        Attention(6, 4)


def test_attention_against_torch() -> None:
    torch.manual_seed(0)
    ours, x = Attention(D, 4), torch.randn(B, T, D)
    theirs = torch.nn.MultiheadAttention(D, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data
    mask = stream()[1]
    mask[0, 0] = True
    expected = theirs(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
    torch.testing.assert_close(ours(x, mask), expected, rtol=1e-4, atol=1e-5)


def test_masked_tokens_have_no_influence() -> None:
    x, mask = stream()
    model = block()
    clean = model(x, mask)
    poison = torch.where(mask[..., None], x, NAN).requires_grad_()
    dirty = model(poison, mask)
    assert torch.equal(clean, dirty)
    assert not dirty[~mask].any()
    dirty.square().sum().backward()
    assert poison.grad is not None
    assert not poison.grad[~mask].any()
    for p in model.parameters():
        assert p.grad is not None
        assert p.grad.isfinite().all()
        assert p.grad.any()


def test_a_row_without_tokens_is_zero_and_harmless() -> None:
    x, _ = stream()
    model = block()
    out = model(x, torch.zeros(B, T, dtype=torch.bool))
    assert not out.any()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_removing_masked_tokens_changes_nothing() -> None:
    x, mask = stream()
    model = block()
    together = model(x, mask)
    for i in range(1, B):
        here = mask[i]
        torch.testing.assert_close(model(x[i : i + 1, here], here[here][None])[0], together[i, here])


def test_visible_tokens_have_influence() -> None:
    x, mask = stream()
    changed = x.clone()
    changed[1, 0] += torch.randn(D)
    model = block()
    assert not torch.allclose(model(x, mask)[1, 1:], model(changed, mask)[1, 1:])


def test_prefix_is_attended_by_every_row() -> None:
    x, mask = stream()
    model = block()
    keys, values = torch.randn(B, 3, D, requires_grad=True), torch.randn(B, 3, D, requires_grad=True)
    out = model(x, mask, (keys, values))
    assert out.shape == x.shape
    assert not torch.allclose(out[1], model(x, mask)[1])
    out.square().sum().backward()
    assert keys.grad is not None
    assert values.grad is not None
    assert keys.grad[1].any()
    assert values.grad[1].any()
    assert not keys.grad[0].any()  # nothing of row 0 is visible, so nobody asks


def test_prefix_goes_in_after_the_projection() -> None:
    torch.manual_seed(0)
    attention, x = Attention(D, 1), torch.randn(1, 2, D)
    mask = torch.ones(1, 2, dtype=torch.bool)
    query, key, value = attention.qkv(x).chunk(3, -1)
    pk, pv = torch.randn(1, 3, D), torch.randn(1, 3, D)
    key, value = torch.cat([pk, key], 1), torch.cat([pv, value], 1)
    weights = (query @ key.transpose(1, 2) / math.sqrt(D)).softmax(-1)
    torch.testing.assert_close(attention(x, mask, (pk, pv)), attention.out(weights @ value))


def test_second_derivatives_exist() -> None:
    x, mask = stream()
    model = block()
    grads = torch.autograd.grad(model(x, mask).square().sum(), list(model.parameters()), create_graph=True)
    torch.stack([g.square().sum() for g in grads]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# one stream for all modalities

KINDS = torch.tensor([0, 0, 1, 1, 1, 2])


def backbone(depth: int = 3) -> SingleStream:
    torch.manual_seed(0)
    return SingleStream(D, depth, 3)


def with_gaps() -> tuple[Tensor, Tensor]:
    """Row 0 has nothing, row 1 everything, row 2 lacks modality 1, row 3 has a part of 1 only."""
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[0] = False
    mask[2, 2:5] = False
    mask[3] = torch.tensor([False, False, False, True, False, False])
    return torch.where(mask[..., None], torch.randn(B, T, D), NAN), mask


def test_single_stream_shapes() -> None:
    tokens, mask = with_gaps()
    summary, out = backbone()(tokens, mask, KINDS)
    assert summary.shape == (B, D)
    assert out.shape == (B, 1 + T, D)
    assert summary.isfinite().all()
    assert (summary.abs() <= 1).all()
    assert not out[:, 1:][~mask].any()


@pytest.mark.parametrize("prompted", [0, 1, 3])
def test_prompts_grow_the_sequence(prompted: int) -> None:
    tokens, mask = with_gaps()
    prompts = [torch.randn(B, 2 + i, D, requires_grad=True) for i in range(prompted)]
    model = backbone()
    lengths: list[int] = []
    for layer in model.blocks:
        layer.register_forward_hook(lambda module, given, out: lengths.append(out.shape[1]))
    summary, out = model(tokens, mask, KINDS, prompts)
    expected, length = [], 1 + T
    for i in range(3):
        length += 2 + i if i < prompted else 0
        expected.append(length)
    assert lengths == expected
    assert out.shape[1] == expected[-1]
    summary.square().sum().backward()
    for prompt in prompts:
        assert prompt.grad is not None
        assert prompt.grad.flatten(1).any(1).all()


def test_summary_is_the_cls_position_also_behind_prompts() -> None:
    tokens, mask = with_gaps()
    model = backbone()
    summary, out = model(tokens, mask, KINDS, [torch.randn(B, 2, D)] * 2)
    torch.testing.assert_close(summary, torch.tanh(model.pooler(out[:, 4])))


def test_attention_prompts_leave_the_length_alone() -> None:
    tokens, mask = with_gaps()
    prefix = (torch.randn(B, 5, D), torch.randn(B, 5, D))
    model = backbone()
    summary, out = model(tokens, mask, KINDS, attention_prompts=[prefix, prefix])
    assert out.shape == (B, 1 + T, D)
    assert not torch.allclose(summary, model(tokens, mask, KINDS)[0])


def test_too_many_prompts_are_an_error() -> None:
    tokens, mask = with_gaps()
    with pytest.raises(ConfigError, match="at most one a block"):
        backbone(1)(tokens, mask, KINDS, [torch.randn(B, 2, D)] * 2)


def test_absent_tokens_are_shown_exactly_when_asked() -> None:
    tokens, mask = with_gaps()
    model = backbone()
    with torch.no_grad():
        model.absent.normal_()
    _, hidden = model.embed(tokens, mask, KINDS)
    assert torch.equal(hidden[:, 1:], mask)
    x, shown = model.embed(tokens, mask, KINDS, show_absent=True)
    extra = (shown[:, 1:] & ~mask).tolist()
    assert extra[0] == [True, False, True, False, False, True]
    assert not any(extra[1])
    assert extra[2] == [False, False, True, False, False, False]
    assert extra[3] == [True, False, False, False, False, True]
    torch.testing.assert_close(x[2, 3], model.absent[1] + model.kind[1])
    plain, asked = model(tokens, mask, KINDS)[0], model(tokens, mask, KINDS, show_absent=True)[0]
    torch.testing.assert_close(plain[1], asked[1])
    for i in (0, 2, 3):
        assert not torch.allclose(plain[i], asked[i], atol=1e-4)


def test_absent_tokens_learn_when_shown_and_have_a_gradient_when_not() -> None:
    tokens, mask = with_gaps()
    for show in (True, False):
        model = backbone()
        summary, _ = model(tokens, mask, KINDS, show_absent=show)
        summary.square().sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name
            if name != "absent":
                assert p.grad.any(), name
        assert model.absent.grad is not None
        assert bool(model.absent.grad.any(1).all()) is show


def test_kinds_are_told_apart_and_masked_content_is_not_read() -> None:
    tokens, mask = with_gaps()
    model = backbone()
    a = model(tokens, mask, KINDS)[0]
    assert torch.equal(a, model(torch.where(mask[..., None], tokens, 7.0), mask, KINDS)[0])
    assert not torch.allclose(a[1], model(tokens, mask, KINDS.flip(0))[0][1], atol=1e-5)


def test_single_stream_row_alone() -> None:
    tokens, mask = with_gaps()
    model = backbone()
    together = model(tokens, mask, KINDS, show_absent=True)[0]
    for i in range(B):
        alone = model(tokens[i : i + 1], mask[i : i + 1], KINDS, show_absent=True)[0]
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


# positions


@pytest.mark.parametrize(
    ("grid", "dim"), [((16,), 32), ((4, 4), 32), ((5,), 7), ((3, 5), 6), ((2, 2, 2), 16), ((4,), 1)]
)
def test_sinusoid(grid: tuple[int, ...], dim: int) -> None:
    table = sinusoid(grid, dim)
    assert table.shape == (math.prod(grid), dim)
    assert (table.abs() <= 1).all()
    if dim >= 2 * len(grid):
        assert len(torch.unique(table, dim=0)) == math.prod(grid)


def test_sinusoid_by_hand() -> None:
    table = sinusoid((3,), 4)
    expected = [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    torch.testing.assert_close(table[2], torch.tensor(expected))


# Gaussians


def test_product_of_experts_by_hand() -> None:
    # experts N(1, 1/2) and N(3, 1/4), prior N(0, 1): precisions 2, 4, 1
    mean = torch.tensor([[[1.0], [3.0]]]).expand(4, 2, 1).clone()
    logvar = torch.log(torch.tensor([[[0.5], [0.25]]])).expand(4, 2, 1).clone()
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    mean[~present], logvar[~present] = NAN, NAN
    found, spread = product_of_experts(mean, logvar, present)
    torch.testing.assert_close(found[:, 0], torch.tensor([14 / 7, 2 / 3, 12 / 5, 0.0]))
    torch.testing.assert_close(spread.exp()[:, 0], torch.tensor([1 / 7, 1 / 3, 1 / 5, 1.0]))
    found, spread = product_of_experts(mean, logvar, present, prior=False)
    torch.testing.assert_close(found[:, 0], torch.tensor([14 / 6, 1.0, 3.0, 0.0]))
    torch.testing.assert_close(spread.exp()[:, 0], torch.tensor([1 / 6, 1 / 2, 1 / 4, 1.0]))


def test_product_of_experts_gradients_are_finite() -> None:
    mean = torch.full((2, 2, 3), NAN, requires_grad=True)
    logvar = torch.zeros(2, 2, 3, requires_grad=True)
    found, spread = product_of_experts(mean, logvar, torch.zeros(2, 2, dtype=torch.bool))
    (found + spread).sum().backward()
    assert mean.grad is not None
    assert not mean.grad.any()


def test_product_of_experts_is_the_normalised_product_of_densities() -> None:
    torch.manual_seed(0)
    mean, logvar = torch.randn(1, 3, 1), torch.randn(1, 3, 1)
    found, spread = product_of_experts(mean, logvar, torch.ones(1, 3, dtype=torch.bool))
    z = torch.linspace(-10, 10, 20001)
    log_density = -0.5 * z**2 - 0.5 * ((z - mean[0]) ** 2 / logvar[0].exp()).sum(0)
    density = log_density.exp() / log_density.exp().sum()
    average = (density * z).sum()
    torch.testing.assert_close(found[0, 0], average, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(spread.exp()[0, 0], (density * (z - average) ** 2).sum(), rtol=1e-3, atol=1e-4)


def test_gaussian_head_stays_in_range() -> None:
    head = GaussianHead(D, 5)
    x = torch.randn(3, 2, D) * 1e4
    mean, logvar = head(x.requires_grad_())
    assert mean.shape == logvar.shape == (3, 2, 5)
    assert (logvar.abs() <= LOGVAR_BOUND).all()
    small = head(torch.randn(3, D) * 1e-2)[1]
    torch.testing.assert_close(small, head.logvar(torch.zeros(3, D)), atol=0.2, rtol=0)


def test_sample() -> None:
    mean, logvar = torch.full((200_000, 1), 2.0), torch.full((200_000, 1), math.log(9.0))
    assert sample(mean, logvar, on=False) is mean
    torch.manual_seed(0)
    drawn = sample(mean, logvar, on=True)
    assert drawn.mean().item() == pytest.approx(2, abs=0.05)
    assert drawn.std().item() == pytest.approx(3, abs=0.05)


def test_kl_unit_against_torch() -> None:
    torch.manual_seed(0)
    mean, logvar = torch.randn(4, 7), torch.randn(4, 7)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * logvar).exp()), normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_unit(mean, logvar), expected)
    assert kl_unit(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


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
