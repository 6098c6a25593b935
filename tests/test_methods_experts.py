"""VMLoc, ADMN and MITR-DNet: the numbers of their papers and code, worked out apart from the library, and gradient routes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kintsugi.core import Batch, Modality, Schema, Splits
from kintsugi.core.encoder import make_encoder, own_encoders
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import build_ablation
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.layers.gaussian import product_of_experts
from kintsugi.methods.corrupted.noise_aware.admn import ADMN, Loud, level_error
from kintsugi.methods.corrupted.robust_fusion.vmloc import Blanking, ChannelAttention, VMLoc, log_density
from kintsugi.methods.missing.distillation.mitr_dnet import MITRDNet, attraction, distillation, reconstruction
from kintsugi.tasks import Classification, Multilabel, Regression
from kintsugi.testing.fixture import Fixture

NAN = float("nan")


def schema_of(task: Any, *shapes: tuple[int, ...]) -> Schema:
    kinds = {1: "vector", 2: "series", 3: "image"}
    return Schema(tuple(Modality(f"m{i}", kinds[len(s)], s) for i, s in enumerate(shapes)), task)


def batch_of(
    schema: Schema, rows: int, target: Tensor | None = None, present: Tensor | None = None, seed: int = 0
) -> Batch:
    draws = torch.Generator().manual_seed(seed)
    inputs = {m.name: torch.randn([rows, *(n or 1 for n in m.shape)], generator=draws) for m in schema.modalities}
    seen = torch.ones(rows, len(schema), dtype=torch.bool) if present is None else present
    for i, name in enumerate(inputs):
        inputs[name][~seen[:, i]] = NAN
    return Batch(schema.names, inputs, seen, torch.arange(rows), target)


TWO = Classification(("a", "b"))


# VMLoc ------------------------------------------------------------------------------------------------------------------
def test_the_product_is_that_of_the_authors_code_with_the_prior_in_it() -> None:
    mean = torch.tensor([[[1.0, -1.0], [2.0, 0.5]]], dtype=torch.float64)
    logvar = torch.tensor([[[0.5, 2.0], [0.25, 1.0]]], dtype=torch.float64).log()
    for present, mu, var in (
        ([True, True], [1.428571, 0.0], [0.1428571, 0.4]),
        ([True, False], [0.6666667, -0.3333333], [0.3333333, 0.6666667]),
        ([False, False], [0, 0], [1, 1]),
    ):
        fused = product_of_experts(mean, logvar, torch.tensor([present]))
        assert fused[0][0].tolist() == pytest.approx(mu, abs=1e-6)
        assert fused[1][0].exp().tolist() == pytest.approx(var, abs=1e-6)
    sure = product_of_experts(
        mean, torch.stack([logvar[:, 0], torch.full((1, 2), math.log(1e8))], 1), torch.ones(1, 2) > 0
    )
    alone = product_of_experts(mean, logvar, torch.tensor([[True, False]]))
    torch.testing.assert_close(sure[0], alone[0], atol=1e-6, rtol=0)


def noted(model: VMLoc) -> list[Tensor]:
    """Where the weights of its samples are noted from now on."""
    weights, plain = list[Tensor](), model.weigh

    def weigh(score: Tensor) -> Tensor:
        weights.append(plain(score))
        return weights[-1]

    model.__dict__["weigh"] = weigh
    return weights


def saying(pose: list[float], ratio: list[float], weight: float, doubly: bool = False) -> tuple[VMLoc, Batch, Tensor]:
    """A model whose samples cost so much, and have this ``log p - log q``; their z, a leaf."""
    model = VMLoc(
        schema_of(Regression(), (2,), (2,)), dim=16, samples=3, ratio_weight=weight, doubly=doubly, dropout=0.0
    )
    model = model.double().train()
    batch = batch_of(model.schema, 1, torch.zeros(1)).map(lambda x: x.double() if x.is_floating_point() else x)
    fixed = torch.tensor([pose], dtype=torch.float64)
    model.__dict__["surprise"] = lambda output, rows, samples: fixed + 0 * output.sum()
    return model, batch, torch.tensor([ratio], dtype=torch.float64)


@pytest.mark.parametrize(
    ("weight", "expected"), [(1e-6, 0.8486849588), (0.1, 1.6486769587)], ids=["the weight of the code", "a larger one"]
)
def test_the_bound_is_that_of_the_authors_code(monkeypatch: pytest.MonkeyPatch, weight: float, expected: float) -> None:
    import kintsugi.methods.corrupted.robust_fusion.vmloc as module

    log_p, log_q = torch.tensor([[-3.0, -2.0, -4.0]]).double(), torch.tensor([[5.0, 6.0, 4.0]]).double()
    model, batch, _ = saying([1.0, 2.0, 0.5], [0.0] * 3, weight)
    weights = noted(model)
    monkeypatch.setattr(module, "log_density", lambda z, mean=None, logvar=None: log_p if mean is None else log_q)
    assert model.step(batch).losses["bound"].item() == pytest.approx(expected, abs=1e-9)
    if weight == 1e-6:
        assert weights[0][0].tolist() == pytest.approx([0.33149896, 0.12195165, 0.54654939], abs=1e-8)
    assert not weights[0].requires_grad


def test_the_density_is_of_a_gaussian_whose_deviation_is_the_root_of_the_variance() -> None:
    z, mean, var = (torch.tensor([[x]], dtype=torch.float64) for x in ([0.1, -0.2], [0.0, 0.1], [2.5e-4, 5e-4]))
    logvar = var.log()
    ratio = log_density(z) - log_density(z, mean, logvar)
    assert ratio.item() == pytest.approx(102.027524, abs=1e-5)
    released = log_density(z) - log_density(z, mean, 2 * logvar)  # the variance in the place of a deviation
    assert released.item() == pytest.approx(259984.080048, abs=1e-3)


def test_the_error_of_a_pose_is_that_of_the_authors_code() -> None:
    """There translation and rotation are means over three numbers each; here every number has a scale, and all are summed."""
    names = tuple("xyzuvw")
    model = VMLoc(schema_of(Regression(names, (0.0,) * 6, (1.0,) * 6), (2,), (2,)), dim=16).double()
    with torch.no_grad():
        model.log_scale.copy_(torch.tensor([0.0] * 3 + [-3.0] * 3))
    said = torch.tensor([[0.1, 0.2, 0.3, 0, 0.1, 0.2]] * 2, dtype=torch.float64)
    batch = batch_of(model.schema, 1, torch.tensor([[0, 0.5, 0.3, 0.1, 0.1, -0.1]], dtype=torch.float64))
    each = model.surprise(said, batch, 2)
    assert each.shape == (1, 2)
    # the target passes through float32
    assert (each / 3).flatten().tolist() == pytest.approx([-0.1885950769] * 2, abs=1e-6)
    assert model.log_scale.requires_grad
    assert not any("log_scale" in name for name, _ in VMLoc(schema_of(TWO, (2,), (2,)), dim=16).named_parameters())


def test_classes_and_labels_cost_their_negative_log_likelihood() -> None:
    output = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 3.0]])
    model = VMLoc(schema_of(TWO, (2,), (2,)), dim=16)
    each = model.surprise(output, batch_of(model.schema, 2, torch.tensor([0, 1])), 2)
    p = np.exp(output.numpy()) / np.exp(output.numpy()).sum(1, keepdims=True)
    np.testing.assert_allclose(each.flatten().detach(), -np.log(p[[0, 1, 2, 3], [0, 0, 1, 1]]), rtol=1e-5)
    labels = VMLoc(schema_of(Multilabel(("a", "b")), (2,), (2,)), dim=16)
    target = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    each = labels.surprise(output, batch_of(labels.schema, 2, target), 2)
    q, y = 1 / (1 + np.exp(-output.numpy())), target.numpy().repeat(2, 0)
    np.testing.assert_allclose(each.flatten(), -(y * np.log(q) + (1 - y) * np.log(1 - q)).mean(1), rtol=1e-5)


def test_the_doubly_reparameterised_gradient_of_a_sample_is_weighted_once_more_and_log_q_is_fixed() -> None:
    torch.manual_seed(0)
    schema = schema_of(TWO, (3,), (3,))
    batch = batch_of(schema, 6, torch.arange(6) % 2)
    slopes, weights = list[Tensor](), list[list[Tensor]]()
    for doubly in (False, True):
        torch.manual_seed(1)
        model = VMLoc(schema, dim=16, samples=4, ratio_weight=0.0, shrink=1.0, dropout=0.0, doubly=doubly).train()
        weights += [noted(model)]
        torch.manual_seed(2)
        step = model.step(batch)
        assert step.prediction is not None
        z = step.prediction.extras["z"]
        assert z.shape == (6, 4, 16)
        slopes.append(torch.autograd.grad(step.losses["bound"], z)[0])
    (weight,), (same,) = weights
    torch.testing.assert_close(weight, same)
    torch.testing.assert_close(weight.sum(1), torch.ones(6))
    torch.testing.assert_close(slopes[1], weight[..., None] * slopes[0])


def test_the_weights_of_samples_carry_no_gradient() -> None:
    """The derivative by what a sample costs is its weight, and nothing besides."""
    model, batch, _ = saying([0.0] * 3, [0.0] * 3, 0.0)
    cost = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    model.__dict__["surprise"] = lambda output, rows, samples: cost
    model.step(batch).losses["bound"].backward()
    w = np.exp([-1, -2, -0.5])
    assert cost.grad is not None
    np.testing.assert_allclose(cost.grad[0], w / w.sum(), rtol=1e-12)


def test_attention_is_over_the_last_axis_of_the_outer_product() -> None:
    torch.manual_seed(0)
    layer, x = ChannelAttention(16), torch.randn(5, 16)
    g, theta, phi = (f(x).detach().numpy() for f in (layer.g, layer.theta, layer.phi))
    for row in range(5):
        scores = np.exp(np.outer(phi[row], theta[row]))
        y = (scores / scores.sum(1, keepdims=True)) @ g[row]
        expected = x[row].numpy() + layer.out.weight.detach().numpy() @ y + layer.out.bias.detach().numpy()
        np.testing.assert_allclose(layer(x)[row].detach(), expected, rtol=1e-4, atol=1e-6)


def test_of_five_batches_one_lacks_the_first_and_one_the_second_modality_on_average() -> None:
    schema = schema_of(TWO, (2,), (2,))
    batch = batch_of(schema, 3, present=torch.tensor([[1, 1], [1, 0], [0, 1]]) > 0)
    view = Blanking()
    # a generator for each batch: epochs of one batch have their share too
    kept = [str(view(batch, torch.Generator().manual_seed(seed)).int().tolist()) for seed in range(2000)]
    whole, first, second = "[[1, 1], [1, 0], [0, 1]]", "[[0, 1], [1, 0], [0, 1]]", "[[1, 0], [1, 0], [0, 1]]"
    assert set(kept) == {whole, first, second}
    shares = [kept.count(each) / 2000 for each in (whole, first, second)]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.04)  # 4 standard deviations
    # the same draws are the same batches, whatever was drawn before: a training goes on as it would have
    draws = [torch.Generator().manual_seed(5) for _ in range(2)]
    again = [[view(batch, each).tolist() for _ in range(9)] for each in draws]
    assert again[0] == again[1]
    model = VMLoc(schema, dim=16)
    early, late = model.stages()
    assert (early.name, late.view) == ("blank", "natural")
    assert early.fraction == pytest.approx(1 / 3)
    assert [stage.name for stage in VMLoc(schema, dim=16, blanking=0.0).stages()] == ["whole"]


def test_in_use_nothing_is_drawn_and_weights_are_shares_of_precision() -> None:
    torch.manual_seed(0)
    model = VMLoc(schema_of(TWO, (3,), (3,)), dim=16)
    batch = batch_of(model.schema, 4, present=torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]) > 0)
    model.train()
    assert not torch.equal(model(batch).output, model(batch).output)
    model.eval()
    answer = model(batch)
    assert torch.equal(answer.output, model(batch).output)
    assert answer.weights is not None
    shares = answer.weights.detach()
    assert ((shares.sum(1) > 0) == torch.tensor([True, True, True, False])).all()
    assert (shares.sum(1) < 1).all(), "the rest is the prior's"
    _, logvar = model.experts(model.encode(batch))
    sure = torch.where(batch.present[..., None], (-logvar).exp(), 0)
    torch.testing.assert_close(shares[:3], (sure / (1 + sure.sum(1, keepdim=True))).mean(2)[:3].detach())


def test_a_row_without_label_or_modality_has_no_part_in_the_bound() -> None:
    torch.manual_seed(0)
    model = VMLoc(schema_of(TWO, (3,), (3,)), dim=16).train()
    batch = batch_of(model.schema, 4, torch.tensor([0, 1, 1, 0]), torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]) > 0)
    batch = replace(batch, target_present=torch.tensor([True, True, False, True]))
    losses = []
    for rows in (batch, replace(batch, target=torch.tensor([0, 1, 0, 1]))):
        torch.manual_seed(5)
        losses.append(model.step(rows).losses["bound"].item())
    assert losses[0] == losses[1]
    assert math.isfinite(losses[0])


def test_vmloc_refuses_what_it_cannot_do() -> None:
    refused: list[dict[str, Any]] = [
        {"dim": 12}, {"dim": 20}, {"dim": 8}, {"samples": 0}, {"blanking": 1.0}, {"ratio_weight": -1.0}, {"shrink": 0.0},
        {"shrink": -1.0},
    ]  # fmt: skip
    for hyper in refused:
        ((name, value),) = hyper.items()
        with pytest.raises(ConfigError, match=f"{name}={value}"):
            VMLoc(schema_of(TWO, (2,), (2,)), **hyper)


# ADMN -------------------------------------------------------------------------------------------------------------------
def test_the_error_of_levels_is_that_of_the_authors_code() -> None:
    """There the second level weighs 20; here all are in one unit, so that it is 20 times as large."""
    said, level = torch.tensor([[1.2, 20 * 0.25]]), torch.tensor([[1.5, 20 * 0.3]])
    assert level_error(said, level, torch.ones(1, 2) > 0).item() == pytest.approx(1.3, abs=1e-6)
    several = level_error(torch.tensor([[1.0, NAN], [4.0, 2.0]]), torch.ones(2, 2), torch.tensor([[1, 0], [1, 1]]) > 0)
    assert several.item() == pytest.approx(1.5 + 1)


def test_noise_is_on_numbers_of_every_kind_and_on_nothing_else() -> None:
    modalities = (
        Modality("v", "vector", (400,)), Modality("s", "series", (100, 4)), Modality("i", "image", (1, 20, 20)),
        Modality("c", "tabular", (3,), categories=(0, 4, 0)), Modality("t", "text", (16,), vocab=257),
    )  # fmt: skip
    schema = Schema(modalities, TWO)
    model = ADMN(schema, dim=8)
    inputs = {m.name: torch.zeros([200, *(n or 1 for n in m.shape)]) for m in modalities[:4]}
    inputs["t"] = torch.ones(200, 16, dtype=torch.int64)
    batch = Batch(schema.names, inputs, torch.ones(200, 5, dtype=torch.bool), torch.arange(200))
    torch.manual_seed(0)
    level = model.drawn(batch)
    assert not level[:, 4].any()
    assert level[:, :4].mean().item() == pytest.approx(1.5, abs=0.1)
    assert 2.9 < level.max() < 3
    model.spread[:] = torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0])
    shaken = model.shaken(batch, level)
    for i, name in enumerate("vsi"):
        deviation = shaken.inputs[name].flatten(1).std(1)
        torch.testing.assert_close(deviation, level[:, i] * model.spread[i], rtol=0.2, atol=1e-3)
    assert torch.equal(shaken.inputs["t"], inputs["t"])
    assert not shaken.inputs["c"][:, 1].any()
    assert (shaken.inputs["c"][:, [0, 2]] != 0).all()


def test_no_level_is_drawn_where_no_noise_can_be() -> None:
    codes = Modality("c", "tabular", (3,), categories=(4, 4, 4))
    model = ADMN(Schema((codes, Modality("k", "vector", (2,)), Modality("v", "vector", (2,))), TWO), dim=8)
    inputs = {"c": torch.ones(40, 3), "k": torch.ones(40, 2), "v": torch.randn(40, 2)}
    batch = Batch(tuple(inputs), inputs, torch.ones(40, 3) > 0, torch.arange(40), torch.arange(40) % 2)
    source = TensorSource(model.schema, batch, "constants")
    source.split = dict(zip(("train", "val", "test"), torch.arange(40).split([20, 10, 10]), strict=True))
    train, val, _ = Dataset(source).split()
    model.prepare(Splits(train, val), model.stages()[0])
    level = model.drawn(batch)
    assert not level[:, :2].any()
    assert level[:, 2].all()


def test_the_controller_is_told_how_loud_an_input_is() -> None:
    """The log of the root mean square of what is seen, times a linear map, beside what the encoder says."""
    torch.manual_seed(0)
    for modality, x, mask, seen in (
        (Modality("v", "vector", (3,)), [[3.0, 4.0, 0.0]], None, [3.0, 4.0, 0.0]),
        (Modality("s", "series", (2, 2)), [[[3.0, 4.0], [NAN, NAN]]], [[True, False]], [3.0, 4.0]),
        (Modality("c", "tabular", (3,), categories=(0, 4, 0)), [[3.0, 2.0, NAN]], [[True, True, False]], [3.0]),
    ):
        inside = make_encoder(modality, 8)
        layer = Loud(inside, modality, 8).eval()
        row, told = torch.tensor(x), None if mask is None else torch.tensor(mask)
        loud = 0.5 * math.log(np.square(seen).mean() + 1e-4)
        expected = inside(row, told).pooled() + layer.scale.weight[:, 0] * loud + layer.scale.bias
        torch.testing.assert_close(layer(row, told).tokens[:, 0], expected)


def test_the_spread_is_of_what_training_rows_show() -> None:
    fixture = Fixture(ADMN)
    model: Any = fixture.pipeline().model
    model.prepare(fixture.splits, model.stages()[0])
    train: Any = fixture.splits.train
    whole = train.batch(torch.arange(len(train)))
    expected = [float(np.std(whole.inputs[name].numpy())) for name in whole.names]
    assert model.spread.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_blocks_of_a_row_are_run_alone_and_add_up_to_the_budget() -> None:
    torch.manual_seed(0)
    model: Any = ADMN(schema_of(TWO, (3,), (3,), (3,)), dim=8, budget=7).eval()
    rows = []
    for blocks in model.backbones:
        for block in blocks.blocks:
            block.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    batch = batch_of(model.schema, 1)
    answer = model(batch)
    assert sum(rows) == 7
    assert answer.extras["keep"].sum() == 7
    assert answer.extras["keep"][..., 0].all()
    assert answer.weights is not None
    torch.testing.assert_close(answer.weights, answer.extras["keep"].sum(2) / 7)
    rows.clear()
    model(batch.only("m1"))
    assert sum(rows) == 4  # there are no more
    assert answer.reliability is not None
    torch.testing.assert_close(answer.reliability, 1 - answer.extras["level"] / 5)


def test_two_answers_agree_and_two_training_calls_differ() -> None:
    torch.manual_seed(0)
    model: Any = ADMN(schema_of(TWO, (3,), (3,)), dim=8)
    with torch.no_grad():
        model.controller.layers[2].weight.zero_()  # flat logits
    batch = batch_of(model.schema, 20, torch.arange(20) % 2)
    model.train()
    masks = [model(batch).extras["keep"].detach().round() for _ in range(2)]
    assert not torch.equal(*masks)
    assert all(torch.equal(mask.sum((1, 2)), torch.full((20,), 4.0)) for mask in masks)
    model.eval()
    assert torch.equal(model(batch).output, model(batch).output)
    assert model(batch).extras["keep"].dtype == torch.bool


def test_the_first_stage_has_no_level_the_second_no_task_and_the_third_both() -> None:
    torch.manual_seed(0)
    model: Any = ADMN(schema_of(TWO, (3,), (3,)), dim=8).train()
    batch = batch_of(model.schema, 8, torch.arange(8) % 2)
    for stage, names in (("backbone", ["task"]), ("levels", ["level"]), ("controller", ["level", "task"])):
        model.clock.stage = stage
        assert sorted(model.step(batch).losses) == names
    model.clock.stage = "levels"
    slopes = torch.autograd.grad(
        model.step(batch).total, model.controller.layers[0].weight, allow_unused=True, materialize_grads=True
    )
    assert not slopes[0].any(), "the logits of the blocks learn nothing yet"
    model.clock.stage = "backbone"
    model.eval()
    assert model(batch).extras["keep"].all(), "the first stage is validated with all blocks"
    model.train()
    model.clock.progress, kept = 0.0, []
    for progress in (0.0, 0.9):
        model.clock.progress = progress
        kept.append(torch.stack([model.dropped() for _ in range(4000)]).float().mean().item())
    assert kept == pytest.approx([0.9 * 0.9 + 0.025, 0.9 * 0.8 + 0.025], abs=0.015)


def test_without_the_controller_first_blocks_are_kept_in_turn() -> None:
    torch.manual_seed(0)
    schema = schema_of(TWO, (3,), (3,), (3,))
    model: Any = build_ablation(ADMN, schema, "controller", dim=8, budget=7).model.eval()
    batch = batch_of(schema, 3, present=torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1]]) > 0)
    kept = model(batch).extras["keep"].int().tolist()
    assert kept[0] == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert kept[1] == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert kept[2] == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


def test_admn_refuses_budgets_that_cannot_be() -> None:
    refused: list[dict[str, Any]] = [{"budget": 1}, {"budget": 9}, {"level_weight": 0.0}]
    for hyper in refused:
        with pytest.raises(ConfigError, match="of 4 blocks keep 2 to 8"):
            ADMN(schema_of(TWO, (2,), (2,)), **hyper)
    assert ADMN(schema_of(TWO, (2,), (2,)), budget=8).budget == 8


def test_a_noisy_modality_gets_fewer_blocks_than_the_other() -> None:
    """A toy of two modalities; the noise of one is of 3 spreads."""
    fixture = Fixture(ADMN, modalities=2)
    model: Any = fixture.pipeline(dim=16).model.train()
    train: Any = fixture.splits.train
    model.prepare(fixture.splits, model.stages()[0])
    torch.manual_seed(0)
    for stage, steps in (("backbone", 150), ("levels", 30), ("controller", 150)):
        model.clock.stage, model.clock.progress = stage, 1.0
        own = [
            (".second." in n or n.startswith("controller")) != (stage == "backbone")
            for n, _ in model.named_parameters()
        ]
        optimiser = torch.optim.Adam([p for p, mine in zip(model.parameters(), own, strict=True) if mine], 3e-3)
        for _ in range(steps):
            optimiser.zero_grad()
            model.step(train.batch(torch.randperm(len(train))[:96])).total.backward()
            optimiser.step()
    model.eval()
    batch, kept = fixture.batch(80), []
    for noisy in range(2):
        level = torch.zeros(80, 2)
        level[:, noisy] = 3
        answer = model(model.shaken(batch, level))
        kept.append(answer.extras["keep"].float().sum(2).mean(0).tolist())
        said = answer.extras["level"].mean(0)
        assert said[noisy] > said[1 - noisy] + 0.7
    assert kept[0][1] > kept[0][0], kept
    assert kept[1][0] > kept[1][1], kept
    assert kept[1][0] - kept[0][0] > 0.8, kept


# MITR-DNet --------------------------------------------------------------------------------------------------------------
def test_reconstruction_attraction_and_distillation_are_those_of_the_authors_code() -> None:
    guess = torch.tensor([[[0.5, 2], [1, 1], [3, -1]]], dtype=torch.float64)
    truth = torch.tensor([[[0, 0], [1, 0], [1, -1.5]]], dtype=torch.float64)
    lost = torch.tensor([[False, True, True]])
    assert reconstruction(guess, truth, lost).item() == pytest.approx(0.531249867, abs=1e-9)
    assert reconstruction(guess, truth, torch.zeros(1, 3, dtype=torch.bool)).item() == 0
    elsewhere = guess.clone()
    elsewhere[:, 0] = NAN
    assert reconstruction(elsewhere, truth, lost).item() == pytest.approx(0.531249867, abs=1e-9)

    p, taught, q, z = (torch.tensor([x], dtype=torch.float64) for x in ([1, 2, 0], [2, 1, 1], [0, 1, 1], [1, 1, 0]))
    assert attraction(p, taught, q, z, torch.tensor([True])).item() == pytest.approx(-0.615148372, abs=1e-9)
    twice = [torch.cat([x, torch.full_like(x, NAN)]) for x in (p, taught, q, z)]
    assert attraction(twice[0], twice[1], twice[2], twice[3], torch.tensor([True, False])).item() == pytest.approx(
        -0.615148372, abs=1e-9
    )

    r, other, their, joint = (
        torch.tensor([x], dtype=torch.float64) for x in ([1, 0, 2], [0.5, 0.5, 2], [1, 1, 1], [0, 0, 1])
    )
    terms = distillation(r[:, None], joint, other[:, None], their, torch.tensor([[True]]))
    assert 0.3 * terms.item() == pytest.approx(0.45, abs=1e-9)
    absent = distillation(
        torch.stack([r, r * NAN], 1), joint, torch.stack([other, other], 1), their, torch.tensor([[True, False]])
    )
    assert 0.3 * absent.item() == pytest.approx(0.45, abs=1e-9)


def test_targets_of_the_attraction_get_no_gradient() -> None:
    p, taught, q, z = (torch.randn(4, 5, requires_grad=True) for _ in range(4))
    attraction(p, taught, q, z, torch.ones(4, dtype=torch.bool)).backward()
    assert p.grad is not None
    assert q.grad is not None
    assert taught.grad is None
    assert z.grad is None


def loses_the_second(rows: Batch, whole: Any) -> tuple[Batch, dict[str, Tensor]]:
    """In place of what is drawn."""
    return rows.where(torch.tensor([True, False])), {n: torch.full((len(rows), 1), n == "m1") for n in rows.names}


@pytest.mark.parametrize("detached", [False, True])
def test_the_complete_pass_is_taught_unless_it_is_detached(detached: bool) -> None:
    """With the second modality lost in the incomplete pass, its encoder hears of the complete pass alone."""
    torch.manual_seed(0)
    schema = schema_of(TWO, (3,), (3,))
    model = MITRDNet(schema, dim=16, detach_teacher=detached).eval()
    batch = batch_of(schema, 6, torch.arange(6) % 2)
    model.__dict__["lossy"] = loses_the_second
    loss = model.step(batch).losses["distillation"]
    slopes = torch.autograd.grad(loss, [*model.encoders["m1"].parameters()], allow_unused=True, materialize_grads=True)
    assert any(bool(slope.any()) for slope in slopes) != detached


def test_the_target_of_reconstruction_does_not_move() -> None:
    torch.manual_seed(0)
    schema = schema_of(TWO, (3,), (3,))
    model = MITRDNet(schema, dim=16).eval()
    batch = batch_of(schema, 6, torch.arange(6) % 2)
    model.__dict__["lossy"] = loses_the_second
    loss = model.step(batch).losses["reconstruction"]
    assert loss > 0
    for name in ("m0", "m1"):
        slopes = torch.autograd.grad(
            loss, [*model.encoders[name].parameters()], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        assert not any(bool(slope.any()) for slope in slopes)
    model.__dict__["lossy"] = lambda rows, whole: (rows, {name: torch.zeros(6, 1) > 0 for name in rows.names})
    assert model.step(batch).losses["reconstruction"] == 0


def test_steps_are_lost_where_a_kind_has_them_and_modalities_whole_where_it_has_none() -> None:
    modalities = (
        Modality("s", "series", (40, 2)),
        Modality("t", "text", (16,), vocab=257),
        Modality("v", "vector", (3,)),
    )
    schema = Schema(modalities, TWO)
    draws = torch.Generator().manual_seed(0)
    inputs = {
        "s": torch.randn(300, 40, 2, generator=draws), "v": torch.randn(300, 3, generator=draws),
        "t": torch.randint(1, 200, (300, 16), generator=draws),
    }  # fmt: skip
    text = torch.arange(16) < torch.randint(1, 17, (300, 1), generator=draws)
    batch = Batch(schema.names, inputs, torch.ones(300, 3, dtype=torch.bool), torch.arange(300), mask={"t": text})
    torch.manual_seed(0)
    model = MITRDNet(schema, dim=16, rate=0.5).eval()
    less, lost = model.lossy(batch, model.encode(batch))
    assert less.mask["s"].float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert not (less.mask["t"] & ~text).any()
    assert less.mask["t"].sum() / text.sum() == pytest.approx(0.5, abs=0.05)
    assert less.present[:, 2].float().mean().item() == pytest.approx(0.5, abs=0.08)
    for i, name in enumerate("st"):
        assert torch.equal(less.mask[name].any(1), less.present[:, i])
    runs = less.mask["s"][:, :39].view(300, 13, 3)  # three steps make a token
    assert (runs.all(2) | ~runs.any(2)).all(), "what makes one token is lost together"
    tokens = less.mask["s"][:, ::3]
    assert torch.equal(lost["s"], ~tokens)
    assert torch.equal(lost["v"][:, 0], ~less.present[:, 2])
    nothing = MITRDNet(schema, dim=16, rate=0.0).eval()
    less, lost = nothing.lossy(batch, nothing.encode(batch))
    assert torch.equal(less.mask["t"], text)
    assert not any(bool(x.any()) for x in lost.values())


@pytest.mark.parametrize("rate", [0.6, 0.9, 1.0])
def test_a_row_that_would_lose_everything_keeps_one_of_what_it_had(rate: float) -> None:
    """So that more is lost the higher the rate: of two vectors ``rate - rate**2 / 2``, of a row's 16 steps all but one."""
    torch.manual_seed(0)
    schema = schema_of(TWO, (3,), (3,))
    model = MITRDNet(schema, dim=16, rate=rate).eval()
    batch = batch_of(schema, 4000)
    less, _ = model.lossy(batch, model.encode(batch))
    assert less.present.any(1).all()
    assert 1 - less.present.float().mean().item() == pytest.approx(rate - rate**2 / 2, abs=0.02)
    assert less.present.float().mean(0).tolist() == pytest.approx([1 - rate + rate**2 / 2] * 2, abs=0.03)
    if rate == 1:
        schema = schema_of(TWO, (16, 2), (3,))
        model = MITRDNet(schema, dim=16, rate=rate).eval()
        batch = batch_of(schema, 400, present=torch.tensor([[True, False]]).expand(400, 2))
        less, lost = model.lossy(batch, model.encode(batch))
        assert less.mask["m0"].sum(1).eq(1).all()
        assert less.mask["m0"].any(0).all()
        assert torch.equal(lost["m0"], ~less.mask["m0"])


class Strided(nn.Module):
    """A user's encoder: four steps a token, and no mask."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 16, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return out


def test_what_was_to_be_lost_is_rebuilt_whatever_the_encoder_still_shows() -> None:
    """Cells of a table and strides of a user's encoder, whose tokens always exist; images, all of whose tokens are lost."""
    kinds = (Modality("c", "tabular", (5,)), Modality("s", "series", (32, 2)), Modality("i", "image", (1, 8, 8)))
    torch.manual_seed(0)
    with own_encoders({"s": Strided()}):
        model = MITRDNet(Schema(kinds, TWO), dim=16).eval()
    inputs = {"c": torch.randn(400, 5), "s": torch.randn(400, 32, 2), "i": torch.rand(400, 1, 8, 8)}
    unseen = torch.rand(400, 5) < 0.3
    unseen[:, 0] = False
    batch = Batch(
        tuple(inputs), inputs, torch.ones(400, 3) > 0, torch.arange(400), torch.arange(400) % 2, mask={"c": ~unseen}
    )
    whole = model.encode(batch)
    less, lost = model.lossy(batch, whole)
    assert torch.equal(lost["c"], ~unseen & ~less.mask["c"])
    assert torch.equal(lost["s"], ~less.mask["s"].view(400, 8, 4).any(2))
    assert torch.equal(lost["i"], ~less.present[:, 2:].expand(-1, whole.streams["i"].mask.shape[1]))
    shares = [(lost["c"].sum() / (~unseen).sum()).item(), *(lost[n].float().mean().item() for n in "si")]
    assert shares == pytest.approx([0.4] * 3, abs=0.07)
    loss = model.step(batch).losses["reconstruction"]
    slopes = torch.autograd.grad(loss, [head.weight for head in list[Any](model.rebuild)[:2]])
    assert all(bool(slope.any()) for slope in slopes)


@pytest.mark.parametrize(("kind", "length"), [("text", 65), ("text", 100), ("series", 33), ("series", 120)])
def test_tokens_are_lost_at_the_rate_whatever_the_stride_of_the_encoder(kind: str, length: int) -> None:
    """What stands for one token is lost together, so that none straddles two groups."""
    text = kind == "text"
    modality = Modality("x", kind, (length,) if text else (length, 2), vocab=257 if text else None)
    schema = Schema((modality, Modality("v", "vector", (3,))), TWO)
    torch.manual_seed(0)
    model = MITRDNet(schema, dim=16).eval()
    x = torch.randint(1, 200, (500, length)) if text else torch.randn(500, length, 2)
    batch = Batch(schema.names, {"x": x, "v": torch.randn(500, 3)}, torch.ones(500, 2) > 0, torch.arange(500))
    less, lost = model.lossy(batch, model.encode(batch))
    left = model.encode(less).streams["x"].mask
    assert torch.equal(lost["x"], ~left)
    assert left.float().mean().item() == pytest.approx(0.6, abs=0.04)


def test_the_text_is_added_and_the_others_attend_to_each_other() -> None:
    kinds = (Modality("v", "vector", (3,)), Modality("t", "text", (16,), vocab=257), Modality("w", "vector", (2,)))
    torch.manual_seed(0)
    model = MITRDNet(Schema(kinds, TWO), dim=16).eval()
    assert model.added == 1
    assert len(model.branches) == 2
    assert MITRDNet(schema_of(TWO, (2,), (2,)), dim=16).added == 0
    inputs = {"v": torch.randn(4, 3), "t": torch.randint(1, 200, (4, 16)), "w": torch.randn(4, 2)}
    batch = Batch(("v", "t", "w"), inputs, torch.ones(4, 3, dtype=torch.bool), torch.arange(4))
    for adapter in (a for branch in list[Any](model.branches) for a in branch.adapters):
        nn.init.normal_(adapter[2].weight)
    extras = model(batch).extras
    v, t, w = extras["alone"].unbind(1)
    joint = 0
    first, second = list[Any](model.branches)
    read: list[Any] = [first.read(v, t), second.read(w, t)]
    for branch, own, other in ((first, read[0], read[1]), (second, read[1], read[0])):
        one, across = branch.adapters
        joint = joint + branch.perceptron(own) + own + one(own) + across(branch.value(other))
    torch.testing.assert_close(extras["joint"], joint)
    attention = first.encoder
    torch.testing.assert_close(read[0], attention((v + t)[:, None], torch.ones(4, 1) > 0)[:, 0] + v)


def test_with_four_modalities_a_branch_weighs_the_other_two() -> None:
    torch.manual_seed(0)
    model = MITRDNet(schema_of(TWO, (2,), (2,), (2,), (2,)), dim=16)
    branch: Any = model.branches[0]
    nn.init.normal_(branch.adapters[1][2].weight)
    x, others = torch.randn(5, 16, requires_grad=True), torch.randn(5, 2, 16, requires_grad=True)
    scores = torch.einsum("bd,bnd->bn", branch.query(x), branch.key(others)) / 16**0.5
    heard = torch.einsum("bn,bnd->bd", scores.softmax(1), branch.value(others))
    own, across = branch.adapters
    expected, weights = branch.perceptron(x) + x + own(x) + across(heard), torch.randn(5, 16)
    torch.testing.assert_close(branch(x, others), expected)
    slopes = [torch.autograd.grad((out * weights).sum(), (x, others)) for out in (branch(x, others), expected)]
    torch.testing.assert_close(*slopes)


def test_what_only_training_needs_is_let_go_and_weightless_losses_move_nothing() -> None:
    schema = schema_of(TWO, (2,), (2,))
    model = MITRDNet(schema, dim=16)
    assert model.not_served() == ["project", "predictor", "rebuild"]
    plain: Any = build_ablation(MITRDNet, schema, dim=16).model
    heads = ("project", "predictor", "rebuild")
    assert not any(p.requires_grad for n, p in plain.named_parameters() if n.startswith(heads))
    assert all(p.requires_grad for p in model.parameters())
    losses = plain.step(batch_of(schema, 4, torch.arange(4) % 2)).losses
    assert sorted(losses) == ["task", "task/complete"]


def test_mitr_dnet_refuses_what_it_cannot_do() -> None:
    refused: list[dict[str, Any]] = [{"rate": 1.5}, {"teach_weight": -1.0}]
    for hyper in refused:
        with pytest.raises(ConfigError, match="rate must be within 0 and 1"):
            MITRDNet(schema_of(TWO, (2,), (2,)), **hyper)
    for dim in (18, 8):
        with pytest.raises(ConfigError, match=f"dim={dim} does not share out"):
            MITRDNet(schema_of(TWO, (2,), (2,)), dim=dim)
    with pytest.raises(ConfigError, match="dropout must be at least 0 and below 1, not 2"):
        MITRDNet(schema_of(TWO, (2,), (2,)), dropout=2.0)
