from __future__ import annotations

import itertools
import math
import subprocess
import sys
from functools import reduce

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.io.saved_models import fill
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
from kintsugi.layers.autoencoder import ConvolutionalAutoencoder, burst_mask, mask_of_periods
from kintsugi.layers.bank import Bank
from kintsugi.layers.distance import euclidean
from kintsugi.layers.evidential import NIG, NIGHead, aleatoric, epistemic, nig_stack, nig_sum
from kintsugi.layers.graph import (
    GraphConvolution,
    bandwidth,
    common_modality_mean,
    cross_kernel,
    learned_threshold,
    mixed_kernel,
    normalise_rows,
)
from kintsugi.layers.imagination import Imaginer
from kintsugi.layers.normalisation import GroupNorm
from kintsugi.layers.prompts import CasePrompts
from kintsugi.testing import toy

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


# evidence


def nig(*members: tuple[float, float, float, float]) -> NIG:
    """One row of members (mu, v, alpha, beta), in float64: ``[1, M, 1]``."""
    return NIG(*torch.tensor(members, dtype=torch.float64).T[:, None, :, None])


A, B2, C2 = (1.0, 2.0, 1.5, 0.4), (2.0, 1.0, 2.0, 0.6), (-0.5, 0.5, 1.2, 0.3)


def numbers(distribution: NIG) -> list[float]:
    return [part.item() for part in distribution]


def test_two_and_three_nig_sum_to_the_published_numbers() -> None:
    assert numbers(nig_sum(nig(A, B2))) == pytest.approx([4 / 3, 3, 4, 4 / 3], abs=1e-9)
    three = nig_sum(nig(A, B2, C2))
    assert numbers(three) == pytest.approx([1.0714285714, 3.5, 5.7, 2.3535714286], abs=1e-9)
    assert aleatoric(three).item() == pytest.approx(0.5007598784, abs=1e-9)
    assert epistemic(three).item() == pytest.approx(0.1430742510, abs=1e-9)


def folded(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    """The summation of two, as the paper writes it."""
    v = a[1] + b[1]
    mu = (a[1] * a[0] + b[1] * b[0]) / v
    beta = a[3] + b[3] + a[1] * (a[0] - mu) ** 2 / 2 + b[1] * (b[0] - mu) ** 2 / 2
    return mu, v, a[2] + b[2] + 0.5, beta


def test_the_closed_sum_of_nig_is_the_fold_in_every_order() -> None:
    members = [(0.3, 1.4, 2.2, 0.5), (-2.0, 0.1, 1.01, 3.0), (1.5, 7.0, 4.0, 0.02), (0.9, 0.6, 1.7, 1.1)]
    closed = numbers(nig_sum(nig(*members)))
    for order in itertools.permutations(members):
        assert closed == pytest.approx(list(reduce(folded, order)), rel=1e-9)
    assert closed[2] == pytest.approx(sum(m[2] for m in members) + 1.5)


def test_absent_members_do_not_count_and_are_never_read() -> None:
    members = NIG(*(part.clone().requires_grad_() for part in nig(A, (NAN,) * 4, B2)))
    total = nig_sum(members, torch.tensor([[True, False, True]]))
    assert numbers(total) == pytest.approx(numbers(nig_sum(nig(A, B2))))
    torch.stack(total).sum().backward()
    for part in members:
        assert part.grad is not None
        assert part.grad.isfinite().all()
        assert not part.grad[0, 1].any()
    assert numbers(nig_sum(nig(A, B2), torch.tensor([[True, False]]))) == pytest.approx(list(A))


def test_a_row_without_members_is_infinitely_uncertain_and_harmless() -> None:
    members = NIG(*(torch.full((2, 3, 2), NAN, requires_grad=True) for _ in range(4)))
    total = nig_sum(members, torch.zeros(2, 3, dtype=torch.bool))
    assert total.mu.tolist() == [[0, 0], [0, 0]]
    assert epistemic(total).isposinf().all()
    assert aleatoric(total).isposinf().all()
    torch.stack(total).sum().backward()
    assert all(part.grad is not None and not part.grad.any() for part in members)


def test_nig_of_different_shapes_are_refused() -> None:
    wrong = nig(A, B2)._replace(v=torch.ones(1, 2))
    with pytest.raises(DataError, match="one shape"):
        nig_sum(wrong)
    with pytest.raises(DataError, match="must be"):
        nig_sum(nig(A, B2), torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ConfigError, match="at least one"):
        nig_stack([])


def test_a_nig_head_stays_in_range_where_softplus_underflows() -> None:
    torch.manual_seed(0)
    head = NIGHead(D, 2)
    low = head(torch.randn(3, D))
    x = torch.randn(3, D)
    expected = [head.mu(x), (1 + head.v(x).exp()).log() + 1e-6, 1 + (1 + head.alpha(x).exp()).log()]
    for part, value in zip(head(x), expected, strict=False):
        torch.testing.assert_close(part, value)
    with torch.no_grad():
        for part in (head.v, head.alpha, head.beta):
            part.bias.fill_(-1000)
    low = head(x)
    assert (low.v == 1e-6).all()
    assert (low.beta == 1e-6).all()
    assert (low.alpha == 1 + 2.0**-20).all()
    assert (aleatoric(low) == 1e-6 * 2**20).all()
    assert nig_stack([low, low]).mu.shape == (3, 2, 2)


def test_an_alpha_at_its_floor_learns_and_half_precision_shows_it() -> None:
    head, x = NIGHead(D, 2), torch.zeros(3, D)
    with torch.no_grad():
        head.alpha.bias.fill_(-18)  # softplus is 1.5e-8, and 1 + 1.5e-8 is 1
    low = head(x)
    assert aleatoric(low).isfinite().all()
    (slope,) = torch.autograd.grad(low.alpha.sum(), head.alpha.bias)
    assert slope.tolist() == pytest.approx([3 / (1 + math.exp(18))] * 2)
    with torch.autocast("cpu", torch.bfloat16):
        half = head(x)
    assert {part.dtype for part in half} == {torch.float32}
    assert (half.alpha == 1 + 2.0**-20).all()


# banks


def filled_bank() -> Bank:
    bank = Bank("features", "present")
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [3.0, 4.0]])
    bank.write(torch.tensor([7, 8, 9, -1]), features=features, present=torch.ones(4, 2, dtype=torch.bool))
    return bank


def test_an_empty_bank_answers_with_nothing() -> None:
    bank = Bank("features")
    assert len(bank) == 0
    assert bank.others(torch.tensor([3, 4])).shape == (2, 0)
    assert [list(part.shape) for part in bank.nearest(torch.randn(2, 5), "features", 3)] == [[2, 0]] * 3
    assert bank.state_dict() == {}
    with pytest.raises(ConfigError, match=r"look at len\(bank\)"):
        bank.read("features")
    bank.write(torch.zeros(0, dtype=torch.int64), features=torch.zeros(0, 3, 5))
    assert len(bank) == 0
    assert bank.read("features").shape == (0, 3, 5)
    assert bank.nearest(torch.randn(2, 3, 5), "features", 1).row.shape == (2, 0)


def test_a_bank_leaves_a_row_itself_out() -> None:
    others = filled_bank().others(torch.tensor([8, -1, 5]))
    assert others.tolist() == [[True, False, True, True], [True] * 4, [True] * 4]


def test_the_nearest_rows_of_a_bank_by_hand() -> None:
    bank = filled_bank()
    query = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    plain = bank.nearest(query, "features", 2)
    assert plain.row.tolist() == [[1, 3], [0, 2]]
    assert plain.distance.tolist() == [[0, 0], [0, 1]]
    alone = bank.nearest(query, "features", 2, exclude=~bank.others(torch.tensor([8, 7])))
    assert alone.row.tolist() == [[3, 2], [2, 1]]
    torch.testing.assert_close(alone.distance, torch.tensor([[0, math.sqrt(4 + 16)], [1, 5]]))
    few = bank.nearest(query[:1], "features", 9, exclude=torch.tensor([[True, False, True, True]]))
    assert few.valid.tolist() == [[True, False, False, False]]
    assert few.row[0, 0] == 1


def test_neighbours_do_not_depend_on_the_other_queries() -> None:
    torch.manual_seed(0)
    bank, query = Bank("code"), torch.randn(40, 3, 17)
    bank.write(torch.arange(90), code=torch.randn(90, 3, 17))
    together = bank.nearest(query, "code", 5)
    for i in range(40):
        alone = bank.nearest(query[i : i + 1], "code", 5)
        assert torch.equal(alone.row[0], together.row[i])
        assert torch.equal(alone.distance[0], together.distance[i])


def test_a_bank_is_saved_and_loaded_with_the_size_that_it_had() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bank = Bank("features", "present")

    saved, fresh, other = Owner(), Owner(), Owner()
    saved.bank = filled_bank()
    weights = load(save(saved.state_dict()))
    fill(fresh, weights, fresh.state_dict(), "the model", "save it again")
    other.bank.write(torch.arange(2), features=torch.zeros(2, 9), present=torch.ones(2, 1))
    other.load_state_dict(saved.state_dict())
    for owner in (fresh, other):
        assert len(owner.bank) == 4
        for name in ("identity", "features", "present"):
            assert torch.equal(owner.bank.read(name), saved.bank.read(name))
    empty = Owner()
    empty.bank.write(torch.zeros(0, dtype=torch.int64), features=torch.zeros(0, 2), present=torch.zeros(0, 2))
    fill(fresh, load(save(empty.state_dict())), fresh.state_dict(), "the model", "save it again")
    assert len(fresh.bank) == 0


def test_a_bank_holds_copies_without_a_graph() -> None:
    bank, source = Bank("code"), torch.randn(2, 3, requires_grad=True)
    bank.write(torch.arange(2), code=source * 1)
    before = bank.read("code").clone()
    with torch.no_grad():
        source.zero_()
    assert not bank.read("code").requires_grad
    assert torch.equal(bank.read("code"), before)


def test_a_bank_refuses_what_does_not_fit() -> None:
    for names in ((), ("a", "a"), ("write",), ("identity",), ("a.b",)):
        with pytest.raises(ConfigError, match=r"bank"):
            Bank(*names)
    bank, identity = Bank("code"), torch.arange(2)
    with pytest.raises(ConfigError, match="written were none"):
        bank.write(identity)
    with pytest.raises(DataError, match="one row for each"):
        bank.write(identity, code=torch.zeros(3, 1))
    with pytest.raises(DataError, match="int64"):
        bank.write(identity.float(), code=torch.zeros(2, 1))
    bank.write(identity, code=torch.zeros(2, 1))
    with pytest.raises(ConfigError, match="not 'cod'"):
        bank.read("cod")
    with pytest.raises(ConfigError, match="at least 1"):
        bank.nearest(torch.zeros(1, 1), "code", 0)
    with pytest.raises(DataError, match="one shape"):
        bank.nearest(torch.zeros(1, 2), "code", 1)
    with pytest.raises(DataError, match="must be"):
        bank.nearest(torch.zeros(1, 1), "code", 1, exclude=torch.zeros(2, 2, dtype=torch.bool))


def test_distances_against_numpy_with_a_gradient_of_zero_at_distance_zero() -> None:
    a = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    b = torch.tensor([[1.0, 2.0], [4.0, 6.0], [0.0, -1.0]])
    distance = euclidean(a, b)
    expected = np.linalg.norm(a.detach().numpy()[:, None] - b.numpy(), axis=2)
    torch.testing.assert_close(distance, torch.from_numpy(expected))
    distance[0, 0].backward()
    assert a.grad is not None
    assert not a.grad.any()


# graphs between rows

CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
K1 = torch.tensor([[1, 0.9, 0.2], [0.9, 1, 0.4], [0.2, 0.4, 1]])
K2 = torch.tensor([[1, 0.5, 0.7], [0.5, 1, 0.3], [0.7, 0.3, 1]])
BOTH_BUT_ROW_2 = torch.tensor([[True, True], [True, False], [True, True]])


def test_the_kernel_of_three_bandwidths_has_the_published_numbers() -> None:
    assert bandwidth(CORNERS).item() == pytest.approx(10 / 3)
    kernel = cross_kernel(CORNERS, CORNERS)
    expected = [0.7167792777, 0.3135746004, 0.2484279271]
    assert [kernel[0, 1].item(), kernel[0, 2].item(), kernel[1, 2].item()] == pytest.approx(expected, abs=1e-9)
    assert torch.equal(kernel, kernel.T)
    assert kernel.diagonal().tolist() == [1, 1, 1]


def test_the_bandwidth_is_the_mean_squared_distance_of_valid_pairs() -> None:
    torch.manual_seed(0)
    x, valid = torch.randn(12, 3, 5, dtype=torch.float64), torch.rand(12) > 0.4
    rows = x[valid].flatten(1).numpy()
    squared = ((rows[:, None] - rows) ** 2).sum(2)
    expected = squared.sum() / (len(rows) ** 2 - len(rows))
    x[~valid] = NAN
    assert bandwidth(x, valid).item() == pytest.approx(expected)


@pytest.mark.parametrize("valid", [[False] * 3, [True, False, False]])
def test_the_bandwidth_of_fewer_than_two_rows_is_one(valid: list[bool]) -> None:
    assert bandwidth(CORNERS, torch.tensor(valid)).item() == 1


def test_the_bandwidth_of_rows_alike_is_one() -> None:
    assert bandwidth(CORNERS * 1e-3).item() == 1
    assert bandwidth(CORNERS[:0]).item() == 1


def test_rows_that_are_not_valid_have_no_part_in_a_kernel() -> None:
    valid = torch.tensor([True, True, False, True])
    x = torch.cat([CORNERS[:2], torch.full((1, 2), NAN, dtype=torch.float64), CORNERS[2:]]).requires_grad_()
    kernel = cross_kernel(x, x, valid, valid)
    torch.testing.assert_close(kernel[valid][:, valid], cross_kernel(CORNERS, CORNERS))
    other = x.nan_to_num(55.0)
    assert torch.equal(kernel, cross_kernel(other, other, valid, valid))
    assert not kernel[2].any()
    assert not kernel[:, 2].any()
    kernel.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[0].any()


def test_the_cross_kernel_takes_its_width_from_the_stored_rows() -> None:
    torch.testing.assert_close(cross_kernel(CORNERS[:1], CORNERS), cross_kernel(CORNERS, CORNERS)[:1])
    query = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    likeness = cross_kernel(query, CORNERS, width=2.0)[0, 2].item()  # squared distance 4
    assert likeness == pytest.approx((math.exp(-4) + math.exp(-2) + math.exp(-1)) / 3)
    blank = torch.tensor([False])
    assert not cross_kernel(query * NAN, CORNERS, blank).any()
    part = cross_kernel(query, CORNERS, stored_valid=torch.tensor([True, False, True]), width=2.0)
    assert part[0].tolist() == [1, 0, likeness]
    assert cross_kernel(query, CORNERS[:0]).shape == (1, 0)
    with pytest.raises(ConfigError, match="at least one scale"):
        cross_kernel(query, CORNERS, scales=())


def test_both_forms_of_the_mixed_kernel_have_the_published_numbers() -> None:
    learned, plain = torch.tensor([0.5, 0.8], dtype=torch.float64)
    shares = torch.tensor([2.0, -0.3], dtype=torch.float64).sigmoid()
    assert mixed_kernel(learned, plain, shares[0]).item() == pytest.approx(0.7523188312, abs=1e-9)
    assert mixed_kernel(learned, plain, shares[1], "sum").item() == pytest.approx(0.6276672450, abs=1e-9)
    with pytest.raises(ConfigError, match="known: product, sum"):
        mixed_kernel(learned, plain, 0.5, "mean")


def test_common_modalities_and_one_step_of_aggregation_have_the_published_numbers() -> None:
    likeness = common_modality_mean(torch.stack([K1, K2]), BOTH_BUT_ROW_2, BOTH_BUT_ROW_2)
    torch.testing.assert_close(likeness, torch.tensor([[1, 0.9, 0.45], [0.9, 1, 0.4], [0.45, 0.4, 1]]))
    adjacency = learned_threshold(likeness, torch.logit(torch.tensor(0.42)))
    step, h = GraphConvolution(2, 2), torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, -1.0]])
    sums = torch.tensor([[2.35, 1.55], [0.9, 1.8], [3.45, -0.1]])
    for bias in (0, 1):  # above which the ReLU shows what is below 0
        with torch.no_grad():
            step.linear.weight.copy_(torch.eye(2))
            step.linear.bias.fill_(bias)
        torch.testing.assert_close(step(adjacency * BOTH_BUT_ROW_2[:, 1], h), (sums + bias).clamp(min=0))


def test_rows_that_share_no_modality_are_not_alike_and_one_shared_modality_speaks_alone() -> None:
    query = torch.tensor([[True, False], [False, False], [True, True]])
    stored = torch.tensor([[False, True], [True, False], [True, True], [False, False]])
    kernels = torch.rand(2, 3, 4)
    kernels[1, 0], kernels[:, 1], kernels[:, :, 3] = NAN, NAN, NAN
    likeness = common_modality_mean(kernels, query, stored)
    assert likeness[0].tolist() == [0, kernels[0, 0, 1], kernels[0, 0, 2], 0]
    assert not likeness[1].any()
    torch.testing.assert_close(likeness[2, 2], kernels[:, 2, 2].mean())
    assert likeness[2, :2].tolist() == [kernels[1, 2, 0], kernels[0, 2, 1]]
    with pytest.raises(DataError, match="do not belong"):
        common_modality_mean(kernels, query, stored[:2])


def test_the_learned_threshold_keeps_values_and_has_the_published_gradient() -> None:
    theta = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    likeness = torch.tensor([0.95, 0.90, 0.60], dtype=torch.float64, requires_grad=True)
    kept = learned_threshold(likeness, theta)
    assert kept.tolist() == [0.95, 0.90, 0]
    kept.sum().backward()
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(-0.2099871708, abs=1e-9)
    assert likeness.grad is not None
    assert likeness.grad.tolist() == [1, 1, 0]


def test_receivers_and_senders_may_be_different_rows() -> None:
    step = GraphConvolution(3, 2)
    assert step(torch.rand(5, 4), torch.randn(4, 3)).shape == (5, 2)
    assert step(torch.rand(5, 0), torch.randn(0, 3)).isfinite().all()


def test_normalised_rows_sum_to_one_or_to_nothing() -> None:
    rows = normalise_rows(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    assert rows.tolist() == [[0.25, 0.75], [0, 0]]


# windows of sensor channels


@pytest.mark.parametrize(
    ("window", "sizes", "flat"),
    [
        ((27, 171), [(14, 86), (7, 43), (4, 22), (2, 11)], 11264),
        ((113, 24), [(57, 12), (29, 6), (15, 3), (8, 2)], 8192),
        ((6, 100), [(3, 50), (2, 25), (1, 13), (1, 7)], 3584),
    ],
)
def test_the_sizes_of_the_autoencoder_are_the_published_ones(
    window: tuple[int, int], sizes: list[tuple[int, int]], flat: int
) -> None:
    with torch.device("meta"):
        model = ConvolutionalAutoencoder(*window)
        x = torch.randn(2, 1, *window)
    assert model.sizes == [window, *sizes]
    assert model.flat == flat
    for layer, shape in zip(model.encoder[:8:2], sizes, strict=True):
        x = layer(x)
        assert tuple(x.shape[2:]) == shape
    assert model(torch.randn(2, 1, *window, device="meta")).shape == (2, 1, *window)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 16, 27])
@pytest.mark.parametrize("steps", [1, 2, 4, 7, 24, 33])
def test_the_autoencoder_restores_every_size(channels: int, steps: int) -> None:
    model = ConvolutionalAutoencoder(channels, steps, (2, 3, 2, 3), 4)
    assert model(torch.randn(2, 1, channels, steps)).shape == (2, 1, channels, steps)


def test_the_output_of_the_autoencoder_is_linear_unless_asked_and_every_channel_sees_the_others() -> None:
    torch.manual_seed(0)
    linear = ConvolutionalAutoencoder(40, 8, (2, 2), 5)
    bounded = ConvolutionalAutoencoder(40, 8, (2, 2), 5, sigmoid=True)
    with torch.no_grad():
        linear.decoder[-1].bias.fill_(-2)
    bounded.load_state_dict(linear.state_dict())
    x = torch.randn(3, 1, 40, 8).requires_grad_()
    out = linear(x)
    assert (out < 0).any()
    torch.testing.assert_close(bounded(x), out.sigmoid())
    out[:, :, 0].square().sum().backward()
    assert x.grad is not None
    assert x.grad[:, :, -1].any()  # 39 channels away: further than the convolutions reach
    assert all(p.grad is not None for p in linear.parameters())


def test_the_autoencoder_refuses_other_sizes() -> None:
    with pytest.raises(DataError, match="takes"):
        ConvolutionalAutoencoder(4, 8, (2,), 3)(torch.randn(2, 1, 4, 9))
    for sizes in ((0, 8, (2,), 3), (4, 8, (), 3), (4, 8, (2,), 0)):
        with pytest.raises(ConfigError, match="at least 1"):
            ConvolutionalAutoencoder(*sizes)


def test_the_mask_of_given_periods_is_the_published_one() -> None:
    mask = mask_of_periods(torch.tensor([3.7, 2.9, 4.2, 6.0]), 12)
    assert mask.int().tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert mask_of_periods(torch.tensor([0.4, 2.0, 0.9, 1.0, 9.0]), 5).int().tolist() == [0, 0, 0, 1, 1]


def runs(missing: np.ndarray) -> list[int]:
    """Lengths of the runs of missing samples along the last axis."""
    edges = np.diff(np.pad(missing.astype(int), [(0, 0), (0, 0), (1, 1)]), axis=2)
    return (np.argwhere(edges == -1)[:, 2] - np.argwhere(edges == 1)[:, 2]).tolist()


@pytest.mark.parametrize(
    ("missing_mean", "normal_mean", "steps", "share", "run"),
    [(40, 80, 171, 0.2814, 31.8), (8, 10, 24, 0.3625, 6.6)],
)
def test_bursts_have_the_published_share_and_length(
    missing_mean: float, normal_mean: float, steps: int, share: float, run: float
) -> None:
    mask = burst_mask(2000, 2, steps, normal_mean, missing_mean, torch.Generator().manual_seed(0))
    missing = ~mask.numpy()
    assert missing.mean() == pytest.approx(share, abs=0.02)
    assert np.mean(runs(missing)) == pytest.approx(run, rel=0.05)
    assert missing[:, :, 0].mean() == pytest.approx(1 - math.exp(-1 / normal_mean), abs=0.02)
    differ = (missing[:, 0] != missing[:, 1]).any(1)
    assert differ.mean() > 0.7


def test_bursts_follow_their_generator_and_reach_the_end_of_long_windows() -> None:
    first, second, other = (burst_mask(3, 4, 500, 0.7, 0.6, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first[:, :, -50:].any()
    assert not first[:, :, -50:].all()
    assert burst_mask(0, 4, 9, 3, 2, torch.Generator()).shape == (0, 4, 9)


@pytest.mark.parametrize("means", [(0, 3), (3, -1), (0.4, 0.4), (math.inf, 3), (NAN, 3)])
def test_bursts_of_no_length_are_refused(means: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="mean lengths"):
        burst_mask(1, 1, 5, *means, torch.Generator())


# normalisation

ONLY_NORMS = """
import torch
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.schema import Modality
import kintsugi.encoders

torch.manual_seed(0)
for modality, x in (
    (Modality("m", "image", (3, 16, 16)), torch.rand(2, 3, 16, 16)),
    (Modality("m", "audio", (1600,), rate=16000), torch.rand(2, 1600) - 0.5),
):
    encoder = ENCODERS[modality.kind](modality, 8)
    norms = [p for name, p in encoder.layers.named_parameters() if p.dim() == 1]
    assert len(norms) == 6, len(norms)
    def gradients(x, wanted):
        out = encoder(x)
        return torch.autograd.grad(out.tokens.square().sum(), wanted)
    def channels_last(x):
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    everything = gradients(x, norms + list(encoder.layers.parameters()))[:6]
    asked = gradients(channels_last(x), norms)  # the rest could move, but nobody asks
    for p in encoder.parameters():
        p.requires_grad_(False)
    for p in norms:
        p.requires_grad_()
    frozen = gradients(channels_last(x), norms)
    encoder = encoder.to(memory_format=torch.contiguous_format)
    plain = gradients(x, norms)
    for of in zip(everything, asked, frozen, plain):
        for other in of[1:]:
            torch.testing.assert_close(of[0], other, rtol=1e-4, atol=1e-5)
print("alive")
"""


def test_the_norms_of_image_and_audio_encoders_can_be_trained_alone() -> None:
    """In a process of its own: where it fails it is killed, without an exception."""
    done = subprocess.run([sys.executable, "-c", ONLY_NORMS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "alive\n"


def test_group_norm_has_the_state_and_the_numbers_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = GroupNorm(4, 8), nn.GroupNorm(4, 8)
    theirs.weight.data.normal_()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 8, 5, 4).to(memory_format=torch.channels_last)
    results = []
    for norm in (ours, theirs):
        leaf = x.clone().requires_grad_()
        out = norm(leaf)
        first = torch.autograd.grad(out.pow(3).sum(), [leaf, *norm.parameters()], create_graph=True)
        second = torch.autograd.grad(first[1].square().sum(), [leaf, norm.weight])
        results.append([out, *first, *second])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    plain = GroupNorm(4, 8, affine=False)
    assert torch.equal(plain(x), nn.GroupNorm(4, 8, affine=False)(x))


# imagination and prompts


def test_the_bottleneck_of_imagination_is_linear() -> None:
    torch.manual_seed(0)
    model, x = Imaginer(12, blocks=2), torch.randn(30, 12)
    last, codes = model.codes(x)
    assert codes.shape == (30, model.code_dim)
    assert (codes < 0).any()
    weight, bias = model.down[0][-1].weight, model.down[0][-1].bias
    torch.testing.assert_close(codes[:, : len(bias)], model.down[0][:-1](x) @ weight.T + bias)
    first, second = codes.chunk(2, 1)
    step = model.up[0](first)
    torch.testing.assert_close(second, model.down[1](x + step))
    torch.testing.assert_close(last, x + step + model.up[1](second))


def ones_of(table: Tensor) -> dict[int, list[int]]:
    """The tokens of ones of each case; every other value is 0, and all layers and channels agree."""
    tokens = table[:, 0, :, 0]
    assert torch.equal(table, tokens[:, None, :, None].expand_as(table))
    assert ((tokens == 0) | (tokens == 1)).all()
    return {case: row.nonzero().flatten().tolist() for case, row in enumerate(tokens)}


TEXT_ALONE, IMAGE_ALONE, COMPLETE = 0, 1, 2  # the first modality is the text


@pytest.mark.parametrize("length", [4, 16])
def test_prompts_start_as_the_authors_released_them(length: int) -> None:
    ones = ones_of(CasePrompts(2, 3, length, 5).table)
    assert ones == {COMPLETE: [0], TEXT_ALONE: [1], IMAGE_ALONE: [2]}


def test_prompts_of_attention_start_as_the_authors_released_them() -> None:
    ones = ones_of(CasePrompts(2, 3, 16, 5, attention=True).table)
    assert ones == {COMPLETE: [0, 8], TEXT_ALONE: [1, 9], IMAGE_ALONE: [2, 10]}


@pytest.mark.parametrize(
    ("modalities", "length", "attention"), [(3, 4, False), (4, 4, False), (2, 4, True), (8, 16, True)]
)
def test_prompts_of_all_cases_start_unlike(modalities: int, length: int, attention: bool) -> None:
    table = CasePrompts(modalities, 1, length, 2, attention).table.detach()
    assert len(torch.unique(table, dim=0)) == 2**modalities - 1
    if attention:
        assert torch.equal(*table.chunk(2, 2))


def test_more_cases_than_sets_of_tokens_start_over() -> None:
    ones = ones_of(CasePrompts(3, 1, 2, 2).table)
    assert [ones[case] for case in (6, 0, 1, 2, 3, 4, 5)] == [[0], [1], [0, 1], [0], [1], [0, 1], [0]]


def test_a_pattern_picks_its_own_prompt() -> None:
    prompts = CasePrompts(2, 3, 4, 5)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    assert prompts.case(present).tolist() == [COMPLETE, TEXT_ALONE, IMAGE_ALONE]
    layers = prompts(present)
    assert len(layers) == 3
    assert [row[:, 0].tolist().index(1) for row in layers[0]] == [0, 1, 2]


def test_a_prompt_of_attention_has_halves() -> None:
    with pytest.raises(ConfigError, match="even"):
        CasePrompts(2, 1, 5, 4, attention=True)


def test_a_row_of_a_table_is_kept_from_being_its_own_neighbour_whatever_the_sign_of_its_identity() -> None:
    data = toy(rows=96).identified()
    identity = data.batch(torch.arange(96)).identity
    assert identity is not None
    assert bool((identity < 0).any()), "half of them are negative"
    bank = Bank("x")
    bank.write(identity, x=torch.randn(96, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(bank.others(identity), ~torch.eye(96, dtype=torch.bool))
    assert bool(bank.others(torch.full((2,), -1)).all()), "-1 is no row"
