"""MISA, ShaSpec and dMCCA: numbers of their papers and code, worked out apart from the library, and what their parts promise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kintsugi.core import Batch, Modality, Schema, Splits
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import create
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.layers.disentangle import SharedSpecific
from kintsugi.losses import mse
from kintsugi.losses.distance import cmd
from kintsugi.losses.orthogonality import soft_orthogonality
from kintsugi.methods.corrupted.noise_aware.dmcca import DMCCA, Unpaired
from kintsugi.methods.general.misa import MISA, PostNorm
from kintsugi.methods.missing.modular.sha_spec import ShaSpec, ring_gap, some
from kintsugi.tasks import Classification
from kintsugi.testing.fixture import Fixture
from kintsugi.testing.toys import toy

NAN = float("nan")
X1 = torch.tensor([[0.2, 0.4], [0.6, 0.8], [0.4, 0.9]], dtype=torch.float64)
X2 = torch.tensor([[0.1, 0.5], [0.3, 0.7], [0.8, 0.6]], dtype=torch.float64)


def schema(modalities: int = 3) -> Schema:
    return Schema(tuple(Modality(f"m{i}", "vector", (4,)) for i in range(modalities)), Classification(("a", "b")))


def rows(present: list[list[bool]], seed: int = 0) -> Batch:
    """Vectors with NaN wherever nothing may be read."""
    seen = torch.tensor(present)
    noise = torch.Generator().manual_seed(seed)
    inputs = {
        f"m{i}": torch.where(here[:, None], torch.randn(len(seen), 4, generator=noise), NAN)
        for i, here in enumerate(seen.T)
    }
    return Batch(tuple(inputs), inputs, seen, torch.arange(len(seen)), torch.arange(len(seen)) % 2)


ALL = [[True] * 3, [True, True, False], [False, True, True], [True, False, True], [False, False, True], [True] * 3]


# parts ----------------------------------------------------------------------------------------------------------------
def test_soft_orthogonality_has_the_published_number_and_is_centred() -> None:
    assert soft_orthogonality(X1, X2).item() == pytest.approx(0.7924057693, abs=1e-9)
    assert soft_orthogonality(X1 + 3, X2 - 5).item() == pytest.approx(0.7924057693, abs=1e-9)


def test_soft_orthogonality_is_that_of_numpy_for_codes_of_two_widths() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(9, 3)), random.normal(size=(9, 5))
    u, v = (x - x.mean(0) for x in (a, b))
    u, v = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-6) for x in (u, v))
    value = soft_orthogonality(torch.from_numpy(a), torch.from_numpy(b)).item()
    assert value == pytest.approx(np.square(u.T @ v).mean(), rel=1e-12)


def test_soft_orthogonality_reaches_both_sides_but_not_their_lengths() -> None:
    a, b = X1.clone().requires_grad_(), X2.clone().requires_grad_()
    soft_orthogonality(a, b).backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.any()
    assert b.grad.any()
    centred = X1 - X1.mean(0)
    lengths = centred.norm(dim=1, keepdim=True)  # constants of the derivative
    h, slope = 1e-6, torch.zeros_like(X1)
    other = X2 - X2.mean(0)
    other = other / (other.norm(dim=1, keepdim=True) + 1e-6)
    for i, j in np.ndindex(3, 2):
        ends = []
        for step in (h, -h):
            moved = X1.clone()
            moved[i, j] += step
            ends.append((((moved - moved.mean(0)) / (lengths + 1e-6)).T @ other).square().mean())
        slope[i, j] = (ends[0] - ends[1]) / (2 * h)
    torch.testing.assert_close(a.grad, slope, atol=1e-8, rtol=1e-6)


def test_soft_orthogonality_never_reads_other_rows() -> None:
    torn = torch.cat([X1, torch.full((1, 2), NAN, dtype=torch.float64)]).requires_grad_()
    here = torch.tensor([True, True, True, False])
    value = soft_orthogonality(torn, torch.cat([X2, X2[:1]]), here)
    assert value.item() == pytest.approx(0.7924057693, abs=1e-9)
    value.backward()
    assert torn.grad is not None
    assert torn.grad[:3].any()
    assert not torn.grad[3].any()
    nothing = soft_orthogonality(torn, torn, ~here & here)
    assert nothing.item() == 0
    assert nothing.requires_grad
    single = soft_orthogonality(X1[:1].clone().requires_grad_(), X2[:1])
    assert single.item() == 0


def test_shared_and_specific_encoders_are_one_and_as_many_as_there_are_modalities() -> None:
    torch.manual_seed(0)
    parts = SharedSpecific(lambda: nn.Linear(4, 3), 2)
    x = torch.randn(5, 2, 4)
    shared, specific = parts(x)
    assert shared.shape == specific.shape == (5, 2, 3)
    for m in range(2):
        torch.testing.assert_close(shared[:, m], parts.shared(x[:, m]))
        torch.testing.assert_close(specific[:, m], parts.specific[m](x[:, m]))
    assert sum(p.numel() for p in parts.parameters()) == 3 * (4 * 3 + 3)


# MISA -----------------------------------------------------------------------------------------------------------------
def with_codes(model: MISA, u: Tensor, private: Tensor, shared: Tensor) -> None:
    """What the model makes of any batch are these codes, ``[B, 2, D]`` each."""
    fuse = model.fuse

    def fused(features: Any) -> Any:
        return replace(fuse(features), extras={"u": u, "private": private, "shared": shared})

    model.__dict__["fuse"] = fused


def test_the_losses_of_misa_are_the_published_numbers() -> None:
    model = MISA(schema(2), dim=2, heads=1, diff_weight=0.3).double().eval()
    codes = torch.stack([X1, X2], 1)
    with_codes(model, codes, codes, codes)
    batch = rows([[True, True]] * 3).map(lambda x: x.double() if x.is_floating_point() else x)
    losses = model.step(batch).losses
    assert losses["similarity"].item() == pytest.approx(0.1989101982, abs=1e-9)
    own = [soft_orthogonality(x, x).item() for x in (X1, X2)]
    assert losses["difference"].item() == pytest.approx(0.3 * (0.7924057693 + sum(own)), abs=1e-9)
    for decode in model.decoders:
        nn.init.zeros_(decode.bias)  # type: ignore[arg-type]
        decode.weight.data = torch.eye(2, dtype=torch.float64) / 2
    assert model.step(batch).losses["reconstruction"].item() == pytest.approx(0, abs=1e-12)
    with_codes(model, torch.stack([X2, X1], 1), codes, codes)
    assert mse(X1, X2).item() == pytest.approx(0.0616666667, abs=1e-9)
    assert model.step(batch).losses["reconstruction"].item() == pytest.approx(0.0616666667, abs=1e-9)


def test_the_reconstruction_needs_both_codes_after_training() -> None:
    fixture = Fixture(MISA)
    model: Any = fixture.trained().model.eval()
    codes = model(fixture.batch(80)).extras
    for decode, x, p, s in zip(
        model.decoders, *(codes[name].unbind(1) for name in ("u", "private", "shared")), strict=True
    ):
        whole = mse(decode(p + s), x)
        assert whole < mse(decode(s), x)
        assert whole < mse(decode(p), x)


@pytest.mark.parametrize("weight", ["sim_weight", "diff_weight"])
def test_a_loss_of_misa_does_what_it_says(weight: str) -> None:
    fixture = Fixture(MISA)
    with_it, without = (
        fixture.trained(**hyper).model.eval()(fixture.batch(80)).extras for hyper in ({}, {weight: 0.0})
    )

    def figure(codes: dict[str, Tensor]) -> float:
        shared, private = codes["shared"].unbind(1), codes["private"].unbind(1)
        if weight == "sim_weight":
            return sum(cmd(shared[i], shared[j]).item() for i, j in ((0, 1), (0, 2), (1, 2)))
        return sum(soft_orthogonality(p, s).item() for p, s in zip(private, shared, strict=True))

    assert figure(with_it) < 0.6 * figure(without)


def test_the_transformer_of_misa_is_that_of_torch() -> None:
    torch.manual_seed(0)
    own, theirs = PostNorm(8, 2).eval(), nn.TransformerEncoderLayer(8, 2, 128, batch_first=True).train()
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    theirs.self_attn.dropout = 0.0  # in training mode, so that it takes no short cut
    pairs = {
        "attention.qkv.weight": "self_attn.in_proj_weight", "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.out.weight": "self_attn.out_proj.weight", "attention.out.bias": "self_attn.out_proj.bias",
        "mlp.0.weight": "linear1.weight", "mlp.0.bias": "linear1.bias", "mlp.3.weight": "linear2.weight",
        "mlp.3.bias": "linear2.bias", "norm1.weight": "norm1.weight", "norm1.bias": "norm1.bias",
        "norm2.weight": "norm2.weight", "norm2.bias": "norm2.bias",
    }  # fmt: skip
    state = theirs.state_dict()
    own.load_state_dict({name: state[other] for name, other in pairs.items()})
    x, mask = torch.randn(5, 6, 8), torch.rand(5, 6) > 0.3
    mask[:, 0] = True
    torch.testing.assert_close(own(x, mask)[mask], theirs(x, src_key_padding_mask=~mask)[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("key", ["misa", "sha_spec"])
def test_losses_read_no_absent_slot_and_survive_a_row_of_nothing(key: str) -> None:
    model: Any = create(key, schema()).model
    for present in (ALL, [[False] * 3], [[True, False, False]], [[True, False, False], [False, True, False]]):
        step = model.step(rows(present))
        assert all(loss.isfinite() for loss in step.losses.values())
        model.zero_grad()
        step.total.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("third", "similarity", "parts"),
    [
        ([True, False, False], 0.1989101982, 3),  # a pair of one row is no pair, and the third modality has a row
        ([False, False, False], 0.1989101982, 2),
        ([True, True, True], 2 / 3 * 0.1989101982, 3),  # codes of the third are those of the first
    ],
)
def test_means_of_misa_are_over_what_a_batch_has(third: list[bool], similarity: float, parts: int) -> None:
    model = MISA(schema(3), dim=2, heads=1).double().eval()
    codes = torch.stack([X1, X2, X1], 1)
    with_codes(model, torch.ones_like(codes), codes, codes)
    for decode in model.decoders:  # an error of 1 for the first, of 4 for all others
        nn.init.zeros_(decode.weight)  # type: ignore[arg-type]
        nn.init.constant_(decode.bias, 0.0 if decode is model.decoders[0] else 3.0)  # type: ignore[arg-type]
    batch = rows([[True, True, here] for here in third]).map(lambda x: x.double() if x.is_floating_point() else x)
    losses = model.step(batch).losses
    assert losses["similarity"].item() == pytest.approx(similarity, abs=1e-9)
    assert losses["reconstruction"].item() == pytest.approx((1 + 4 * (parts - 1)) / parts, abs=1e-12)
    assert losses["reconstruction"].requires_grad


def test_misa_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="moments"):
        MISA(schema(), moments=0)
    with pytest.raises(ConfigError, match="diff_weight"):
        MISA(schema(), diff_weight=-1.0)
    with pytest.raises(ConfigError, match="layers=0"):
        MISA(schema(), layers=0)


# ShaSpec --------------------------------------------------------------------------------------------------------------
SHARED = torch.tensor([[[1.0, 2.0], [0.0, 1.0], [3.0, -1.0], [2.0, 2.0]]])


def test_the_ring_has_the_published_number() -> None:
    there = torch.ones(1, 4, dtype=torch.bool)
    assert ring_gap(SHARED, there).item() == pytest.approx(6.0)  # all six pairs: 10
    assert ring_gap(SHARED[:, :1].expand(-1, 4, -1), there).item() == 0
    assert ring_gap(SHARED[:, :2], there[:, :2]).item() == pytest.approx(1.0)  # one pair of two


def test_the_ring_compares_rows_that_have_both() -> None:
    torn = SHARED.repeat(3, 1, 1)
    there = torch.tensor([[True] * 4, [True, False, True, True], [False, False, False, True]])
    torn = torch.where(there[..., None], torn, NAN).requires_grad_()
    value = ring_gap(torn, there)
    assert value.item() == pytest.approx(6.0)
    value.backward()
    assert torn.grad is not None
    assert torn.grad[there].isfinite().all()
    assert not torn.grad[2].any()


def test_composition_and_stand_ins_have_the_published_numbers() -> None:
    model = ShaSpec(schema(4), dim=2)
    model.compose.weight.data = torch.tensor([[0.5, 0, 0.25, 0], [0, -0.5, 0, 1]])
    composed = SHARED[:, 0] + model.compose(torch.cat([SHARED[:, 0], torch.tensor([[4.0, 2.0]])], 1))
    assert composed.tolist() == [[2.5, 3.0]]
    there = torch.tensor([[True, False, True, False]])
    assert model.stand_in(SHARED, there).tolist() == [[2.0, 0.5]]
    torn = torch.where(there[..., None], SHARED, NAN)
    assert ShaSpec(schema(4), dim=2, general="first").stand_in(torn, there).tolist() == [[1, 2]]
    assert ShaSpec(schema(4), dim=2, general="first").stand_in(
        torn, torch.tensor([[False, False, True, True]])
    ).tolist() == [[3, -1]]
    assert ShaSpec(schema(4), dim=2, general="zero").stand_in(torn, there).tolist() == [[0, 0]]


def test_the_modality_classifier_is_softmax_regression_of_specific_codes() -> None:
    model = ShaSpec(schema(4), dim=4).eval()
    expected = sum(math.log(math.exp(v) + 3) - v for v in (2, 1, 0.5, 1)) / 4
    model.which.weight.data, model.which.bias.data = torch.diag(torch.tensor([2.0, 1.0, 0.5, 1.0])), torch.zeros(4)
    fuse = model.fuse
    specific = torch.eye(4)[None].repeat(2, 1, 1)
    model.__dict__["fuse"] = lambda features: replace(fuse(features), extras={"shared": specific, "specific": specific})
    loss = model.step(rows([[True] * 4, [True] * 4])).losses["modality"]
    assert loss.item() == pytest.approx(0.02 * expected, abs=1e-7)


def test_the_auxiliary_losses_of_shaspec_move_the_codes_that_they_are_about() -> None:
    model = ShaSpec(schema())
    losses = model.step(rows(ALL)).losses
    shared, specific = list(model.branches.shared.parameters()), list(model.branches.specific.parameters())

    def reached(loss: Tensor, parameters: list[nn.Parameter]) -> list[bool]:
        slopes = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        return [bool(slope.any()) for slope in slopes]

    # the last bias of the shared encoder is no difference of codes
    assert reached(losses["alignment"], shared) == [True, True, True, False]
    assert not any(reached(losses["alignment"], specific))
    assert all(reached(losses["modality"], specific))
    assert not any(reached(losses["modality"], shared))


def test_the_view_draws_the_number_first() -> None:
    batch = rows([[True] * 3] * 2000 + [[True, False, True]] * 2000)
    kept = some(batch, torch.Generator().manual_seed(1))
    assert not (kept & ~batch.present).any()
    counts = torch.bincount(kept[:2000].sum(1), minlength=4) / 2000
    assert counts.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.05)
    counts = torch.bincount(kept[2000:].sum(1), minlength=4) / 2000
    assert counts.tolist() == pytest.approx([0, 0.5, 0.5, 0], abs=0.05)
    nothing = some(rows([[False] * 3]), torch.Generator().manual_seed(1))
    assert not nothing.any()


def test_shaspec_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="known: mean, first, zero"):
        ShaSpec(schema(), general="last")
    with pytest.raises(ConfigError, match="alpha"):
        ShaSpec(schema(), alpha=-0.1)
    with pytest.raises(ConfigError, match="hidden=0"):
        ShaSpec(schema(), hidden=0)


# dMCCA ----------------------------------------------------------------------------------------------------------------
def test_codes_learn_without_labels_and_stay_as_they_are() -> None:
    """Other labels, the same encoders: they meet none."""
    states = []
    for flipped in (False, True):
        fixture = Fixture(DMCCA, epochs=2)
        if flipped:
            source: Any = fixture.data.source
            source.target.copy_(3 - source.target)
        states.append(fixture.train(fixture.pipeline()).model.state_dict())
    same = {name: bool(torch.equal(state, states[1][name])) for name, state in states[0].items()}
    assert not same["task_head.linear.weight"]
    assert all(
        equal for name, equal in same.items() if name.split(".")[0] in ("encoders", "projections", "centre", "spread")
    )


def test_the_correlation_of_dmcca_reads_complete_rows_alone() -> None:
    model = DMCCA(schema())
    model.clock.stage = "correlate"
    batch = rows(ALL * 4)
    part = batch.rows(batch.present.all(1))
    assert model.step(batch).losses["correlation"].item() == pytest.approx(
        model.step(part).losses["correlation"].item(), abs=1e-6
    )
    for present in ([[True] * 3], [[False] * 3], [[True, False, True]] * 4):
        step = model.step(rows(present))
        assert step.total.item() == 0
        step.total.backward()


def test_codes_of_different_rows_are_what_the_ablation_of_dmcca_compares() -> None:
    codes = torch.arange(24.0).view(4, 3, 2)
    mixed = Unpaired(schema()).compared(codes)
    rows_of = mixed[..., 0] // 6
    assert all(len(set(row)) == 3 for row in rows_of.tolist())
    assert mixed.sum(0).tolist() == codes.sum(0).tolist()
    assert DMCCA(schema()).compared(codes) is codes


def test_the_ablation_of_dmcca_pairs_complete_rows_with_complete_rows() -> None:
    model = Unpaired(schema())
    model.clock.stage = "correlate"
    whole = rows([[True] * 3] * 6)
    losses = []
    for at in ([0, 1, 2, 3, 4, 5], [0, 1, 6, 2, 3, 6, 4, 5]):  # row 6: the first once more, without its last modality
        mixed = torch.tensor(at)
        batch = whole.rows(mixed % 6)
        losses.append(model.step(batch.where((mixed < 6)[:, None] | torch.tensor([True, True, False]))).total.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)


@pytest.mark.parametrize("case", ["constant", "one row"])
def test_a_modality_that_does_not_vary_in_training_is_standardised_by_its_mean_alone(case: str) -> None:
    data = toy("classification", rows=96)
    batch = data.batch(torch.arange(96))
    if case == "constant":
        batch = replace(batch, inputs={**batch.inputs, "m2": torch.full_like(batch.inputs["m2"], 0.7)})
    else:
        batch.present[1:, 2] = False
    train = Dataset(TensorSource(data.schema, batch))
    model: Any = DMCCA(data.schema)
    model.clock.stage = "classify"
    with torch.no_grad():
        model.prepare(Splits(train, train, train), model.stages()[1])
    assert (model.spread[2] == 1).all()
    assert (model.spread[:2] != 1).all()


def test_a_modality_that_few_rows_have_is_standardised_by_those() -> None:
    data = toy("classification", holes=0.6)
    model = DMCCA(data.schema, width=8)
    train, val, test = data.split()
    model.clock.stage = "classify"
    with torch.no_grad():
        model.prepare(Splits(train, val, test), model.stages()[1])
        features = model.encode_rows(train)
        fused = model.fuse(features).pooled().unflatten(1, (3, 8))
    for m, here in enumerate(features.present.T):
        assert fused[here, m].mean(0).abs().max() < 1e-5
        assert (fused[here, m].std(0, correction=0) - 1).abs().max() < 1e-4
    absent = (~features.present.all(1)).nonzero()[0]  # a code that is not there is the mean of the others
    there = features.present[absent[0]]
    torch.testing.assert_close(
        fused[absent[0], ~there], fused[absent[0], there].mean(0).expand(int((~there).sum()), -1)
    )


def test_dmcca_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        DMCCA(schema(), shrinkage=1.5)
    with pytest.raises(ConfigError, match="width=0"):
        DMCCA(schema(), width=0)
