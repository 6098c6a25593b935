"""CRA, IF-MMIN and EMMR: the numbers of their papers and code, worked out apart from the library, and their gradient routes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kintsugi.core import Batch, Features, Modality, Schema, Stream
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS
from kintsugi.layers.cascade import ResidualCascade
from kintsugi.losses.distance import cmd
from kintsugi.methods.missing.generative.cra import CRA, EachDropped, half_squares
from kintsugi.methods.missing.generative.if_mmin import IFMMIN
from kintsugi.methods.missing.selective_fusion.emmr import EMMR, GatedPooling, OneLost, symmetric_kl
from kintsugi.tasks import Classification, Multilabel
from kintsugi.training.sampling import generator

NAN = float("nan")


def schema_of(*widths: int, task: Any = None) -> Schema:
    modalities = tuple(Modality(f"m{i}", "vector", (width,)) for i, width in enumerate(widths))
    return Schema(modalities, task or Classification([str(i) for i in range(4)]))


def batch_of(schema: Schema, rows: int, seed: int = 0, present: Tensor | None = None) -> Batch:
    draw = generator("cascades", seed)
    inputs = {m.name: torch.randn(rows, int(m.shape[0] or 0), generator=draw) for m in schema.modalities}
    seen = torch.ones(rows, len(schema), dtype=torch.bool) if present is None else present
    target = torch.randint(4, (rows,), generator=draw)
    if isinstance(schema.task, Multilabel):
        target = (torch.rand(rows, schema.task.outputs, generator=draw) < 0.5).float()
    return Batch(schema.names, inputs, seen, torch.arange(rows), target)


def slopes(loss: Tensor, module: nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True))


# CRA -------------------------------------------------------------------------------------------------------------------
X = torch.tensor([[1.0, 2.0, -1.0, 3.0]])


class Fixed(nn.Module):
    """A block that predicts one residual, whatever it reads."""

    def __init__(self, residual: list[float]) -> None:
        super().__init__()
        self.residual, self.code_dim = torch.tensor([residual]), 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.residual, x[:, :1]


def test_cra_has_the_published_numbers() -> None:
    blocks: Any = [Fixed([0.1, -0.2, -0.5, 1.0]), Fixed([-0.1, 0.1, -0.3, 1.5])]
    cascade, shown = ResidualCascade(blocks), X * torch.tensor([1.0, 1.0, 0.0, 0.0])
    filled, known = cascade(shown).state, torch.ones(1, 4, dtype=torch.bool)
    assert filled.tolist() == [pytest.approx([1, 1.9, -0.8, 2.5])]
    assert half_squares(filled, X, known).item() == pytest.approx(0.15)
    assert half_squares(cascade(shown, 1).state, X, known).item() == pytest.approx(2.15)
    fourth_unknown = torch.tensor([[True, True, True, False]])
    assert half_squares(filled, X, fourth_unknown).item() == pytest.approx(0.025)


def test_cra_never_reads_unknown_targets() -> None:
    filled, known = torch.tensor([[1.0, 1e6]], requires_grad=True), torch.tensor([[True, False]])
    loss = half_squares(filled, torch.tensor([[0.0, NAN]]), known)
    (slope,) = torch.autograd.grad(loss, filled)
    assert (loss.item(), slope.tolist()) == (0.5, [[1.0, 0.0]])


def test_cra_drops_each_slot_by_itself_and_adds_none() -> None:
    present = torch.tensor([[True, True, False]]).expand(20_000, 3)
    keep = EachDropped(0.3)(batch_of(schema_of(2, 2, 2), 20_000, present=present), generator("view"))
    assert not bool(keep[:, 2].any())
    assert keep[:, :2].float().mean(0).tolist() == pytest.approx([0.7, 0.7], abs=0.015)
    assert float((~keep).all(1).float().mean()) == pytest.approx(0.09, abs=0.01)


def test_gradients_of_cra_keep_to_their_stage() -> None:
    schema = schema_of(5, 4, 3)
    model, batch = CRA(schema, dim=4), batch_of(schema, 12)
    shown = batch.view(torch.rand(12, 3, generator=generator("keep")) > 0.3)
    for k in range(3):
        model.clock.stage = f"block {k}"
        loss = model.step(shown).losses["imputation"]
        reached = [any(s is not None and bool(s.any()) for s in slopes(loss, block)) for block in model.cascade.blocks]
        assert reached == [j <= k for j in range(3)]  # blocks before it are frozen by the stage
    model.clock.stage = "together"
    losses = model.step(shown).losses
    assert all(s is not None and bool(s.any()) for s in slopes(losses["imputation"], model.cascade))
    assert all(s is None for s in slopes(losses["task"], model.cascade))
    assert all(s is None for s in slopes(losses["imputation"], model.trunk))
    stages = {stage.name: stage.trainable for stage in model.stages()}
    assert stages["block 1"] == ("cascade.blocks.1.*",)
    assert not any("encoders" in pattern for pattern in stages["together"])


def test_cra_of_others_learns_from_the_row_before() -> None:
    schema = schema_of(5, 4)
    other: Any = METHODS["cra"].ablations["the rows' own targets"]
    model, batch = other(schema, dim=4), batch_of(schema, 3)
    own, _ = CRA.target(model, batch)
    assert torch.equal(model.target(batch)[0], own[[2, 0, 1]])


class Affine(nn.Module):
    def __init__(self, slope: float, shift: float) -> None:
        super().__init__()
        self.slope, self.shift = slope, shift

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.slope * x + self.shift


# IF-MMIN ---------------------------------------------------------------------------------------------------------------
A = torch.tensor([[0.1, 0.9], [0.4, -0.2], [0.7, 0.3]])
B = torch.tensor([[0.5, 0.2], [-0.3, 0.6], [0.2, 0.1]])
C = torch.tensor([[0.0, 0.4], [0.6, 0.5], [0.3, -0.1]])


@pytest.mark.parametrize(("order", "expected"), [(1, 0.26874192), (2, 0.43179914), (5, 0.50778308)])
def test_the_discrepancy_has_the_numbers_of_the_release(order: int, expected: float) -> None:
    assert cmd(A, B, order).item() == pytest.approx(expected, abs=1e-7)


def test_the_first_stage_of_if_mmin_takes_the_mean_over_pairs() -> None:
    schema = schema_of(2, 2, 2)
    model = IFMMIN(schema, dim=2, w_cmd=1.0)
    model.invariant = nn.Identity()  # type: ignore[assignment]
    model.encoders = nn.ModuleDict({name: Affine(1, 0) for name in schema.names})
    model.clock.stage = "shared"
    batch = Batch(
        schema.names, {"m0": A, "m1": B, "m2": C}, torch.ones(3, 3, dtype=torch.bool), torch.arange(3), torch.arange(3)
    )
    assert model.step(batch).losses["cmd"].item() == pytest.approx(0.36833534, abs=1e-7)


def test_the_target_of_if_mmin_is_what_was_hidden() -> None:
    """The release has 1 where a modality was seen, its encoding of zeros; here an absent modality is an embedding of zeros."""
    schema = schema_of(1, 1, 1)
    model = IFMMIN(schema, dim=1)
    model.teacher, model.teacher_invariant = nn.ModuleDict({n: Affine(2, 1) for n in schema.names}), nn.Identity()
    inputs = {n: torch.tensor([[x]]) for n, x in zip(schema.names, (0.5, 2.0, -1.0), strict=True)}
    batch = Batch(schema.names, inputs, torch.ones(1, 3, dtype=torch.bool), torch.arange(1), torch.zeros(1).long())
    hidden, whole = model.taught(batch.view(torch.tensor([[True, False, True]])))
    assert hidden.tolist() == [[0, 5, 0]]
    assert whole.flatten().tolist() == [2, 5, -1]


def test_the_first_stage_of_if_mmin_compares_what_is_there() -> None:
    """Under a view that hides parts, an absent modality's features are a constant, of which no moment is taken."""
    schema = schema_of(2, 2, 2)
    model = IFMMIN(schema, dim=2, w_cmd=1.0)
    model.clock.stage = "shared"
    seen = torch.arange(8)[:, None] % 4 != torch.arange(3)
    x, y, z = model(batch := batch_of(schema, 8, present=seen)).extras["invariant"].unbind(1)
    a, b, c = seen.unbind(1)
    wanted = (cmd(x[a], y[b]) + cmd(x[a], z[c]) + cmd(y[b], z[c])) / 3
    assert model.step(batch).losses["cmd"].item() == pytest.approx(wanted.item())


def test_ablations_of_if_mmin_move_as_much_and_imagine_the_mean() -> None:
    schema = schema_of(1, 1, 1)
    kinds: list[Any] = [IFMMIN, METHODS["if_mmin"].ablation, METHODS["if_mmin"].ablations["the imagination"]]
    assert len({sum(p.numel() for p in kind(schema, dim=2).parameters() if p.requires_grad) for kind in kinds}) == 1
    for kind in kinds[1:]:
        model = kind(schema, dim=1)
        model.teacher, model.teacher_invariant = nn.ModuleDict({n: Affine(2, 1) for n in schema.names}), nn.Identity()
        inputs = {n: torch.tensor([[x], [x + 1], [9.0]]) for n, x in zip(schema.names, (0.5, 2.0, -1.0), strict=True)}
        batch = Batch(schema.names, inputs, torch.ones(3, 3, dtype=torch.bool), torch.arange(3), torch.zeros(3).long())
        hidden, _ = model.taught(
            batch.view(torch.tensor([[True, False, True], [False, False, True], [True, True, True]]))
        )
        assert hidden.tolist() == [[0, 6, 0], [4, 6, 0], [0, 0, 0]]  # means of 5 and 7, of 4 alone


def test_invariant_features_are_shown_to_every_block_of_if_mmin() -> None:
    model = IFMMIN(schema_of(5, 4, 3), dim=4, blocks=5)
    with torch.no_grad():
        for block in model.cascade.blocks:
            for parameter in block.up.parameters():  # type: ignore[union-attr]
                parameter.zero_()
    h, first, second = torch.randn(3, 2, 12, generator=generator("h")).unbind(0)
    codes = [model.cascade(h, shared).codes.unflatten(1, (5, -1)) for shared in (first, second)]
    assert bool((codes[0] != codes[1]).any(2).all())


def test_if_mmin_without_imagination_leaves_what_fed_it_alone() -> None:
    model = IFMMIN(schema_of(5, 4, 3), dim=4, blocks=5, w_imagine=0.0)
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in still} == {"transition", "cascade"}
    assert all(name.startswith(("transition", "cascade.blocks.4.up")) for name in still)


# EMMR ------------------------------------------------------------------------------------------------------------------
def test_the_two_divergences_have_the_published_numbers() -> None:
    student, teacher = torch.tensor([[1.0, 0, -1], [0.5, 0.5, 2]]), torch.tensor([[0.0, 1, 0], [1, -1, 1]])
    each = symmetric_kl(student, teacher)
    assert each.tolist() == pytest.approx([0.47432066 + 0.43227814, 0.23536177 + 0.28113379])
    assert each.mean().item() == pytest.approx(0.71154718)
    assert torch.allclose(each, symmetric_kl(teacher, student))


def test_gated_pooling_has_the_published_numbers() -> None:
    pool = GatedPooling(2, 1)
    with torch.no_grad():
        pool.content[0] = torch.tensor([[0.5, -0.1], [0.2, 0.7]])
        pool.gate[0] = torch.tensor([[1, 0.3], [-0.6, 0.4]])
        pool.score[0] = torch.tensor([[0.8], [-0.5]])
    x = torch.tensor([[0.2, -0.5], [1, 0.3], [-0.4, 0.8]])
    assert pool(x[None, None])[0, 0].tolist() == pytest.approx([0.36989977, 0.16096912])


def test_pairs_and_reconstructors_weigh_in_as_published() -> None:
    model = EMMR(schema_of(3, 3, 3), dim=2)
    outputs = torch.full((3, 3, 1, 4), -1.0)
    outputs[:, :, 0, 2] = torch.tensor([1.2, 0.4, 2.0])
    shares = model.shares(outputs)
    np.testing.assert_allclose(shares[:, :, 0].detach(), [[0.27211848, 0.12227071, 0.60561081]] * 3, atol=1e-6)
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor([[0.7, -1.0]]))
    q = torch.tensor([[0.2, -0.4], [1, 0.5], [-0.3, 0.9]])[:, None, None]
    assert model.ensemble(q.expand(3, 3, 1, 2), shares)[0].tolist() == pytest.approx([0.32782346, 0.04558655])


def test_emmr_asks_the_pair_that_is_there() -> None:
    model = EMMR(schema_of(3, 3, 3), dim=4)
    present = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0]]).bool()
    whole = one_hot([1, 1, 1, 1])
    pairs = torch.stack([one_hot(says) for says in ([1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 2, 1])])
    assert model.consistent(whole, pairs, present).tolist() == [True, True, False, False]


def one_hot(classes: list[int]) -> Tensor:
    return nn.functional.one_hot(torch.tensor(classes), 4).float()


def test_emmr_of_four_modalities_sums_the_pairs_that_are_there() -> None:
    model = EMMR(schema_of(3, 3, 3, 3), dim=6)
    assert model.backbone.maps.shape == (6, 6, 2)
    present = torch.tensor([[True, True, True, False]])
    pairs = torch.zeros(6, 1, 4)
    pairs[0, 0, 1] = pairs[1, 0, 2] = 1.0  # (0, 1) and (0, 2)
    pairs[3, 0, 2] = 0.5  # (1, 2)
    pairs[2, 0, 1] = 9.0  # (0, 3), of which the second is absent
    assert model.consistent(one_hot([2]), pairs, present).tolist() == [True]
    assert model.consistent(one_hot([1]), pairs, present).tolist() == [False]


def test_emmr_compares_all_labels_and_weighs_by_their_size() -> None:
    model = EMMR(schema_of(3, 3, 3, task=Multilabel(["a", "b"])), dim=4)
    present = torch.tensor([[True, True, False]] * 2)
    whole, pairs = torch.tensor([[3.0, -1.0], [3.0, 1.0]]), torch.zeros(3, 2, 2)
    pairs[0] = torch.tensor([[1.0, -2.0], [1.0, -2.0]])
    assert model.consistent(whole, pairs, present).tolist() == [True, False]
    shares = model.shares(pairs.expand(3, 3, 2, 2))
    assert shares[0, :, 0].tolist() == pytest.approx((np.exp([1.5, 0, 0]) / np.exp([1.5, 0, 0]).sum()).tolist())


def test_only_the_absent_modality_is_decoded() -> None:
    schema = schema_of(5, 4, 3)
    model = EMMR(schema, dim=4)
    joint, decoded = torch.randn(2, 2, 3, 4, generator=generator("joint")).unbind(0)
    present = torch.tensor([[True, False, True], [True, True, True]])
    recovered = model.recover(joint, decoded, present)
    assert torch.equal(recovered[:, present], joint[present].expand(3, -1, -1))
    assert torch.equal(recovered[0, 0, 1], decoded[0, 1])
    flat = joint.flatten(1)
    assert torch.equal(recovered[1, 0, 1], model.decode(model.autoencoder(flat)[0])[0, 4:8])
    assert torch.equal(recovered[2, 0, 1], model.cascade(flat).out[0, 4:8])


@pytest.mark.parametrize("agree", [True, False])
def test_the_answer_of_emmr_trains_reconstructors_where_the_test_fails(
    agree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = schema_of(5, 4, 3)
    model = EMMR(schema, dim=4)
    monkeypatch.setattr(EMMR, "consistent", lambda self, whole, *_: torch.full((len(whole),), agree))
    shown = batch_of(schema, 12, present=torch.tensor([[True, False, True]]).expand(12, 3))
    loss = model.task.loss(model(shown).output, shown)
    for part in (model.autoencoder, model.cascade, model.backbone.decoder, model.score):
        assert any(s is not None and bool(s.any()) for s in slopes(loss, part)) is not agree
    assert all(s is not None for s in slopes(loss, model.code_pool))


def test_complete_rows_of_emmr_take_the_encoding_whatever_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_of(5, 4, 3)
    model, batch = EMMR(schema, dim=4).eval(), batch_of(schema, 6)
    monkeypatch.setattr(EMMR, "consistent", lambda self, whole, *_: torch.zeros(len(whole), dtype=torch.bool))
    prediction = model(batch)
    code = model.trunk(model.code_pool(prediction.extras["encoded"][None])[0])
    assert torch.allclose(prediction.output, model.task_head(Stream.vector(code)))


def test_the_second_stage_of_emmr_takes_one_modality_of_complete_rows() -> None:
    present = torch.ones(6000, 3, dtype=torch.bool)
    present[::2, 1] = False
    keep = OneLost(0.5)(batch_of(schema_of(2, 2, 2), 6000, present=present), generator("view"))
    assert torch.equal(keep[::2], present[::2])
    assert (~keep[1::2]).sum(1).unique().tolist() == [0, 1]
    assert (~keep[1::2]).float().mean(0).tolist() == pytest.approx([1 / 6] * 3, abs=0.02)


def test_emmr_learns_nothing_from_the_teacher_in_rows_that_were_never_complete() -> None:
    schema = schema_of(5, 4, 3)
    model = EMMR(schema, dim=4)
    model.keep_frozen("teacher_encoders", model.encoders)
    model.keep_frozen("teacher", model.backbone)
    model.clock.stage = "holes"
    holed = batch_of(schema, 6, present=torch.tensor([[True, False, True]]).expand(6, 3))
    assert model.step(holed).losses["encoding"].item() == 0
    shown = batch_of(schema, 6).view(torch.tensor([True, False, True]))
    assert model.step(shown).losses["encoding"].item() > 0
    assert not any(p.requires_grad for p in model.get_submodule("teacher").parameters())
    assert not model.train().get_submodule("teacher").training


def test_emmr_learns_nothing_from_a_row_in_which_nothing_came_in() -> None:
    schema, present = schema_of(5, 4, 3), torch.ones(6, 3, dtype=torch.bool)
    present[0] = False
    model, batch = EMMR(schema, dim=4), batch_of(schema, 6, present=present)
    some = batch_of(schema, 6).rows(torch.arange(1, 6))
    for name, loss in model.step(some).losses.items():
        if name != "task":  # there the prior answers, from which nothing is learned
            assert model.step(batch).losses[name].item() == pytest.approx(loss.item(), rel=1e-5), name
    nothing = batch_of(schema, 2, present=torch.zeros(2, 3, dtype=torch.bool))
    assert {n: x.item() for n, x in model.step(nothing).losses.items() if n != "task"} == {"branches": 0, "decoding": 0}


def test_reconstructors_of_emmr_keep_what_differs_by_row() -> None:
    """Seven layers, slope 0.2 and weights of Glorot's variance, 2 / (in + out), as in the release."""
    model = EMMR(schema_of(5, 4, 3), dim=100)
    for each in (model.autoencoder, *model.cascade.blocks):
        linear = [layer for layer in each.modules() if isinstance(layer, nn.Linear)]
        assert [layer.out_features for layer in linear] == [300, 256, 128, 64, 128, 256, 300]
        assert {layer.negative_slope for layer in each.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}
        for layer in linear:
            wanted = 2 / (layer.in_features + layer.out_features)
            assert layer.weight.var().item() == pytest.approx(wanted, rel=0.05)


def test_each_choice_of_emmr_is_switched_off_alone() -> None:
    outputs = torch.randn(3, 3, 5, 4, generator=generator("outputs"))
    for hyper, even in (({}, False), ({"selection": "uniform"}, False), ({"confident": False}, True)):
        shares = EMMR(schema_of(3, 3, 3), dim=2, **hyper).shares(outputs)
        assert torch.allclose(shares, torch.full_like(shares, 1 / 3)) is even


def test_an_unknown_selection_is_refused() -> None:
    with pytest.raises(ConfigError, match="'always'"):
        EMMR(schema_of(2, 2, 2), selection="always")


def test_emmr_gives_the_absent_modality_a_token_of_its_own() -> None:
    model = EMMR(schema_of(5, 4, 3), dim=4)
    pooled = torch.randn(1, 3, 4, generator=generator("pooled"))
    features = Features({}, torch.tensor([[True, False, True]]))
    joint = model.backbone(torch.where(features.present[..., None], pooled, NAN), features.present)[0]
    w_01, w_02, w_12 = model.backbone.maps
    assert torch.allclose(joint[0, 0], torch.cat([pooled[0, 0] @ w_01, pooled[0, 0] @ w_02]))
    assert torch.allclose(joint[0, 1], torch.cat([model.backbone.absent[1] @ w_01, model.backbone.absent[1] @ w_12]))
