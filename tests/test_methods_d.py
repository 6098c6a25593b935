"""MoNIG and Centaur: the numbers of their papers and code, worked out apart from the library, and their toys."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kintsugi.core import Batch, Features, Modality, Pipeline, Schema, Splits, Stream
from kintsugi.core.encoder import own_encoders
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import build_ablation, build_pipeline, create
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.layers.autoencoder import ConvolutionalAutoencoder, burst_mask
from kintsugi.layers.channels import ActivityNetwork, ChannelWindow
from kintsugi.layers.evidential import aleatoric, epistemic
from kintsugi.layers.initialisation import start_for_relu
from kintsugi.layers.twins import Twins
from kintsugi.methods.corrupted.confidence.monig import MoNIG
from kintsugi.methods.corrupted.denoising.centaur import ActivityModel, Centaur
from kintsugi.tasks import Classification, Regression
from kintsugi.training.trainer import Trainer

NAN = float("nan")
A, B, C = (1.0, 2.0, 1.5, 0.4), (2.0, 1.0, 2.0, 0.6), (-0.5, 0.5, 1.2, 0.3)  # mu, v, alpha, beta


def batch_of(inputs: dict[str, Tensor], target: Tensor | None = None, present: Tensor | None = None) -> Batch:
    names = tuple(inputs)
    rows = len(inputs[names[0]])
    seen = torch.ones(rows, len(names), dtype=torch.bool) if present is None else present
    return Batch(names, inputs, seen, torch.arange(rows), target)


# MoNIG ----------------------------------------------------------------------------------------------------------------
def before_softplus(value: float) -> float:
    return math.log(math.expm1(value))


def that_says(*members: tuple[float, float, float, float], pseudo: bool = False) -> MoNIG:
    """A model of as many modalities (the last member is the pseudo-modality's, where there is one), in float64."""
    modalities = tuple(Modality(f"m{i}", "vector", (2,)) for i in range(len(members) - pseudo))
    model = MoNIG(Schema(modalities, Regression()), dim=4, pseudo=pseudo).double().eval()
    for branch, (mu, v, alpha, beta) in zip(model.branches, members, strict=True):
        head: Any = branch[-1]
        biases = (mu, before_softplus(v - 1e-6), before_softplus(alpha - 1), before_softplus(beta - 1e-6))
        for layer, bias in zip((head.mu, head.v, head.alpha, head.beta), biases, strict=True):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)
    return model


def rows_for(model: MoNIG, present: list[list[bool]], y: float = 1.3) -> Batch:
    seen = torch.tensor(present)
    inputs = {m: torch.where(seen[:, [i]], 1.0, NAN).double().expand(-1, 2) for i, m in enumerate(model.schema.names)}
    return batch_of(inputs, torch.full((len(seen),), y), seen)


def test_the_answer_is_the_published_sum_of_three_distributions_with_its_two_variances() -> None:
    model = that_says(A, B, C)
    answer = model(rows_for(model, [[True] * 3, [True, True, False]]))
    assert answer.output.flatten().tolist() == pytest.approx([1.0714285714, 4 / 3], abs=1e-9)
    assert answer.uncertainty is not None
    assert answer.uncertainty[0].item() == pytest.approx(0.5007598784 + 0.1430742510, abs=1e-9)
    merged = answer.extras["merged"]
    assert [part[1].item() for part in merged] == pytest.approx([4 / 3, 3, 4, 4 / 3], abs=1e-9)
    assert [part[0].item() for part in merged] == pytest.approx([1.0714285714, 3.5, 5.7, 2.3535714286], abs=1e-9)
    assert aleatoric(merged)[0].item() == pytest.approx(0.5007598784, abs=1e-9)
    assert epistemic(merged)[0].item() == pytest.approx(0.1430742510, abs=1e-9)
    assert answer.weights is not None
    assert answer.weights.tolist()[0] == pytest.approx([2 / 3.5, 1 / 3.5, 0.5 / 3.5], abs=1e-9)
    assert answer.weights.tolist()[1] == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-9)


def test_the_losses_are_the_published_ones_of_each_branch_and_of_the_sum() -> None:
    model = that_says(A, B)
    losses = {name: loss.item() for name, loss in model.step(rows_for(model, [[True, True]])).losses.items()}
    assert losses["alone/m0"] == pytest.approx(0.6873848068 + 0.01 * 1.65, abs=1e-6)
    assert losses["alone/m1"] == pytest.approx(1.1898858531 + 0.01 * 2.8, abs=1e-6)
    assert losses["fused"] == pytest.approx(0.5460495344 + 0.01 * (4 / 3 - 1.3) * (6 + 4), abs=1e-6)
    assert sum(losses.values()) == pytest.approx(2.4711535276, abs=1e-6)
    heavier = MoNIG(model.schema, dim=4, regularisation=1.0, pseudo=False).double()
    heavier.load_state_dict(model.state_dict())
    loss = heavier.step(rows_for(model, [[True, True]])).losses["alone/m0"]
    assert loss.item() == pytest.approx(0.6873848068 + 1.65, abs=1e-6)


def test_the_pseudo_modality_speaks_and_learns_where_nothing_is_absent() -> None:
    model = that_says(A, B, C, pseudo=True)
    rows = rows_for(model, [[True, True], [True, False], [False, True]])
    answer = model(rows)
    assert answer.output.flatten().tolist() == pytest.approx([1.0714285714, 1, 2], abs=1e-9)
    assert answer.weights is not None
    assert answer.weights.tolist()[0] == pytest.approx([2 / 3.5, 1 / 3.5], abs=1e-9)
    whole = model.step(rows).losses["joint"].item()
    assert whole == pytest.approx(model.step(rows.rows(torch.tensor([0]))).losses["joint"].item(), abs=1e-12)


def test_a_single_row_of_nothing_gets_the_prior_and_harms_no_gradient() -> None:
    model = that_says(A, B, C, pseudo=True)
    rows = rows_for(model, [[False, False]])
    answer = model(rows)
    assert answer.output.tolist() == [[0.0]]
    assert answer.uncertainty is not None
    assert answer.uncertainty.isnan().all()
    assert all(x.isnan().all() for x in answer.unimodal.values())
    model.step(rows).total.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or not parameter.grad.any()


def test_the_variance_is_in_units_of_the_output_and_may_be_of_several_numbers() -> None:
    task = Regression(("a", "b"), (5.0, -1.0), (2.0, 10.0))
    schema = Schema((Modality("m0", "vector", (2,)), Modality("m1", "vector", (3,))), task)
    model = MoNIG(schema, dim=4)
    rows = batch_of({"m0": torch.randn(5, 2), "m1": torch.randn(5, 3)}, torch.randn(5, 2))
    answer = model(rows)
    assert answer.uncertainty is not None
    assert answer.uncertainty.shape == answer.output.shape == (5, 2)
    assert answer.weights is not None
    assert answer.weights.shape == (5, 2)
    assert torch.allclose(task.spread(answer.uncertainty), answer.uncertainty * torch.tensor([4.0, 100.0]))


def test_the_sum_alone_would_teach_every_head_something_else() -> None:
    torch.manual_seed(0)
    schema = Schema((Modality("m0", "vector", (2,)), Modality("m1", "vector", (3,))), Regression())
    model = MoNIG(schema, dim=4)
    rows = batch_of({"m0": torch.randn(9, 2), "m1": torch.randn(9, 3)}, torch.randn(9))
    step = model.step(rows)
    assert sorted(step.losses) == ["alone/m0", "alone/m1", "fused", "joint"]
    heads = [p for branch in model.branches for p in branch[-1].parameters()]  # type: ignore[index]
    whole = torch.autograd.grad(step.total, heads, retain_graph=True)
    fused = torch.autograd.grad(step.losses["fused"], heads)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(whole, fused, strict=True))


def test_the_two_sets_of_encoders_share_nothing_not_even_where_they_are_a_users() -> None:
    schema = Schema((Modality("m0", "vector", (2,)), Modality("m1", "vector", (3,))), Regression())
    with own_encoders({"m0": nn.Linear(2, 4)}) as taken:
        model = MoNIG(schema, dim=4)
    assert taken == {"m0"}
    twins = model.encoders["m0"]
    assert isinstance(twins, Twins)
    first, second = (next(iter(e.parameters())) for e in (twins.first, twins.second))
    assert first is not second
    x = torch.randn(3, 2)
    tokens = twins(x).tokens
    assert tokens.shape == (3, 1, 8)
    assert torch.equal(tokens[:, 0, 4:], twins.second(x).pooled())


def noisy_pair(rows: int, seed: int, strength: Tensor | float) -> Batch:
    """Two modalities that both show the target; noise of this strength is on the first."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.randn(rows, generator=draws)
    shown = y[:, None] + 0.3 * torch.randn(rows, 8, generator=draws)
    noise = strength * torch.randn(rows, 8, generator=draws)
    return batch_of({"m0": shown + noise, "m1": y[:, None] + 0.5 * torch.randn(rows, 8, generator=draws)}, y)


def test_noise_that_training_has_shown_lowers_the_share_of_its_modality_and_raises_epistemic_variance() -> None:
    schema = Schema(tuple(Modality(m, "vector", (8,)) for m in ("m0", "m1")), Regression())
    model = MoNIG(schema, pseudo=False)
    strength = 3 * torch.rand(800, 1, generator=torch.Generator().manual_seed(1))
    fit(model, noisy_pair(800, 0, strength), epochs=60)
    clean, noisy = noisy_pair(400, 2, 0.0), noisy_pair(400, 2, 4.0)
    with torch.no_grad():
        calm, shaken = model(clean), model(noisy)
    print(epistemics(calm), epistemics(shaken), calm.weights.mean(0), shaken.weights.mean(0))
    target = model.task.target(noisy)
    print((shaken.output - target).abs().mean(), (shaken.extras["members"].mu.mean(1) - target).abs().mean())


def epistemics(answer: Any) -> list[float]:
    return epistemic(answer.extras["members"])[..., 0].median(0).values.tolist()


def fit(model: Any, rows: Batch, epochs: int, loss: str | None = None) -> None:
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    draws = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for chosen in torch.randperm(len(rows), generator=draws).split(32):
            optimiser.zero_grad()
            step = model.step(rows.rows(chosen))
            (step.total if loss is None else step.losses[loss]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.8)
            optimiser.step()
