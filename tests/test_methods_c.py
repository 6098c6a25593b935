"""M3Care and MiDl: the numbers of their papers and code, worked out apart from the library, and their toys."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kintsugi.core import Batch, Features, Fused, Modality, Model, Pipeline, Schema, Splits, Stream
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS, build_pipeline
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.layers.adaptation import adaptable, descend, outputs_of_versions
from kintsugi.layers.neighbours import AdaptiveGate, DeepKernel, NeighbourGraph, ReferenceNorm, Senders, evenly_spread
from kintsugi.layers.streams import Attention
from kintsugi.losses.distance import norm_gap
from kintsugi.methods.corrupted.denoising.centaur import Centaur
from kintsugi.methods.missing.alignment.m3care import Constant, M3Care
from kintsugi.methods.missing.distillation.midl import MiDl
from kintsugi.tasks import Classification, Multilabel, Regression
from kintsugi.testing.fixture import Fixture
from kintsugi.training.trainer import Trainer

NAN = float("nan")


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def schema_of(*widths: int, task: Any = None) -> Schema:
    modalities = tuple(Modality(f"m{i}", "vector", (width,)) for i, width in enumerate(widths))
    return Schema(modalities, task or Classification([str(i) for i in range(4)]))


def batch_of(inputs: list[Tensor], present: Tensor | None = None, target: Tensor | None = None) -> Batch:
    rows = len(inputs[0])
    seen = torch.ones(rows, len(inputs), dtype=torch.bool) if present is None else present
    names = tuple(f"m{i}" for i in range(len(inputs)))
    return Batch(names, dict(zip(names, inputs, strict=True)), seen, torch.arange(rows), target)


def features_of(latent: Tensor, present: Tensor, identity: Tensor | None = None) -> Features:
    return Features({f"m{i}": Stream.vector(x) for i, x in enumerate(latent.unbind(1))}, present, identity)


# M3Care: its parts ----------------------------------------------------------------------------------------------------
def test_the_norm_has_the_statistics_of_the_stored_rows_alone() -> None:
    stored = torch.tensor([[1.0, 4.0], [3.0, 8.0], [NAN, 1e9]])
    norm = ReferenceNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0]))
    normed = norm(torch.tensor([[5.0, 6.0]]), stored, torch.tensor([True, True, False]))
    expected = [(5 - 2) / math.sqrt(1 + 1e-5), 2 * (6 - 6) / math.sqrt(4 + 1e-5)]
    assert normed[0].tolist() == pytest.approx(expected)


def test_a_single_stored_row_gives_no_scale() -> None:
    normed = ReferenceNorm(2)(torch.tensor([[5.0, 6.0]]), torch.tensor([[1.0, 4.0]]), torch.tensor([True]))
    assert normed.tolist() == [[4, 2]]
    assert ReferenceNorm(2)(torch.ones(1, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool)).tolist() == [[1, 1]]


@pytest.mark.parametrize(("form", "eps", "expected"), [("product", 2.0, 0.7523188312), ("sum", -0.3, 0.6276672450)])
def test_the_mixed_kernel_has_the_published_numbers(
    form: str, eps: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = DeepKernel(2, eps, form)
    plain = iter((torch.tensor([[0.8]]), torch.tensor([[0.5]])))  # of the latents, then of what was learned
    monkeypatch.setattr("kintsugi.layers.neighbours.cross_kernel", lambda *_: next(plain))
    one = torch.ones(1, dtype=torch.bool)
    assert kernel(ReferenceNorm(2), torch.zeros(1, 2), torch.zeros(1, 2), one, one).item() == pytest.approx(expected)


def test_the_kernel_is_that_of_numpy_on_normalised_rows() -> None:
    with seeded():
        kernel, norm, x = DeepKernel(8), ReferenceNorm(8), torch.randn(5, 8)
    rows = x.double().numpy()
    parameters = [p.double().detach().numpy() for p in kernel.phi.parameters()]
    assert len(parameters) == 6
    learned = rows
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        learned = np.maximum(learned @ weight.T + bias, 0)  # in this form after the last layer too
    plain = [gaussian(standardised(rows)), gaussian(standardised(learned))]
    s = 1 / (1 + math.exp(-2))
    every = torch.ones(5, dtype=torch.bool)
    np.testing.assert_allclose(
        kernel(norm, x, x, every, every).detach(), ((1 - s) * plain[1] + s) * plain[0], rtol=1e-4
    )


def standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def gaussian(x: np.ndarray) -> np.ndarray:
    squared = ((x[:, None] - x[None]) ** 2).sum(2)
    width = squared.sum() / (len(x) ** 2 - len(x))
    return np.mean([np.exp(-squared / (width * scale)) for scale in (0.5, 1, 2)], 0)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="'mean'"):
        M3Care(schema_of(2, 2), form="mean")


def test_the_gate_has_the_published_numbers() -> None:
    gate = AdaptiveGate(2)
    with torch.no_grad():
        gate.neighbour.weight.copy_(torch.tensor([[0.4, 0.6]]))
        gate.own.weight.copy_(torch.tensor([[-0.2, 0.5]]))
        gate.neighbour.bias.zero_()
        gate.own.bias.zero_()
    z = gate(torch.tensor([[1.0, -0.5]]), torch.tensor([[0.3, 0.2]]))
    assert z[0].tolist() == pytest.approx([0.6550659849, -0.1550659849])


def test_a_gate_of_two_vanishing_shares_mixes_by_their_quotient() -> None:
    gate = AdaptiveGate(2)
    with torch.no_grad():
        for line, bias in ((gate.neighbour, math.log(3) - 200), (gate.own, -200)):  # sigmoids of which float32 makes 0
            line.weight.zero_()
            line.bias.fill_(bias)
    z = gate(torch.tensor([[1.0, -0.5]]), torch.tensor([[0.0, 0.0]]))
    assert z[0].tolist() == pytest.approx([0.75, -0.375], rel=1e-4)


class Given(NeighbourGraph):
    """With kernels that are given."""

    def __init__(self, kernels: Tensor, theta: float) -> None:
        super().__init__(len(kernels), 2, theta=theta)
        self.given = kernels
        self.kernels = nn.ModuleList(Read(self, m) for m in range(len(kernels)))


class Read(nn.Module):
    def __init__(self, graph: Given, m: int) -> None:
        super().__init__()
        self.table = graph.given[m]

    def forward(self, norm: Any, query: Tensor, stored: Tensor, present: Tensor, valid: Tensor) -> Tensor:
        return self.table[: len(query), : len(stored)]


KERNELS = torch.tensor([[[1, 0.9, 0.2], [0.9, 1, 0.4], [0.2, 0.4, 1]], [[1, 0.5, 0.7], [0.5, 1, 0.3], [0.7, 0.3, 1]]])
KNOWN = torch.tensor([[True, True], [True, False], [True, True]])
THETA = math.log(0.42 / 0.58)


def test_likeness_and_one_aggregation_have_the_published_numbers() -> None:
    graph = Given(KERNELS, -9.0)
    latent = torch.zeros(3, 2, 2)
    everything = graph.likeness(latent, KNOWN, latent, KNOWN)
    torch.testing.assert_close(everything, torch.tensor([[1, 0.9, 0.45], [0.9, 1, 0.4], [0.45, 0.4, 1]]))
    graph = Given(KERNELS, THETA)
    likeness = graph.likeness(latent, KNOWN, latent, KNOWN)
    sums = (likeness * KNOWN[:, 1]) @ torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, -1.0]])
    torch.testing.assert_close(sums, torch.tensor([[2.35, 1.55], [0.9, 1.8], [3.45, -0.1]]))


def test_a_graph_takes_from_senders_and_from_the_row_itself_in_rows_that_sum_to_one() -> None:
    graph, latent = Given(KERNELS, THETA), torch.zeros(3, 2, 2)
    others = ~torch.eye(3, dtype=torch.bool)
    own = graph.adjacency(latent, KNOWN, latent, KNOWN, others, share=2.0)[1]  # of the second modality
    away, itself = own[:, :3], own[:, 3:]
    torch.testing.assert_close(away[0], torch.tensor([0, 0, 0.9]) / 1.9)  # the second row has nothing to send
    torch.testing.assert_close(itself[0], torch.tensor([1 / 1.9, 0, 0]))
    torch.testing.assert_close(away[1], torch.tensor([1.0, 0, 0]))  # nor anything of its own
    assert itself[1].tolist() == [0, 0, 0]


def test_rows_that_share_no_modality_are_not_alike_and_those_that_share_one_as_like_as_in_it() -> None:
    with seeded():
        graph, latent = NeighbourGraph(2, 4, theta=-20.0), torch.randn(6, 2, 4)
    present = torch.tensor([[True, False], [False, True], [True, True]]).repeat(2, 1)
    latent = torch.where(present[..., None], latent, 0)
    likeness = graph.likeness(latent, present, latent, present)
    assert likeness[0, 1] == 0
    alone = graph.kernels[0](graph.norm, latent[:, 0], latent[:, 0], present[:, 0], present[:, 0])
    assert likeness[0, 2].item() == pytest.approx(alone[0, 2].item(), abs=1e-6)
    assert likeness[0, 2] > 0


def test_the_threshold_leaves_survivors_as_they_are_and_each_pulls_at_it() -> None:
    with seeded():
        graph, latent = NeighbourGraph(2, 4), torch.randn(12, 2, 4)
    every = torch.ones(12, 2, dtype=torch.bool)
    low = graph.likeness(latent, every, latent, every).detach()
    likeness = graph.likeness(latent, every, latent, every)
    likeness.sum().backward()
    survivors = int((likeness > 0).sum())
    assert 12 < survivors < 144
    assert graph.theta.grad is not None
    assert graph.theta.grad.item() == pytest.approx(-0.25 * survivors)  # sigmoid'(0)
    assert torch.equal(low[low > 0.5], likeness[likeness > 0])
    assert bool((likeness[likeness > 0] > 0.5).all())


def test_what_stands_in_empty_slots_changes_no_stand_in() -> None:
    with seeded():
        graph, latent, noise = NeighbourGraph(3, 8, theta=-2.0), torch.randn(16, 3, 8), torch.randn(16, 3, 8)
    present = torch.rand(16, 3, generator=torch.Generator().manual_seed(0)) > 0.4
    clean, noisy = torch.where(present[..., None], latent, 0), torch.where(present[..., None], latent, 99 * noise)
    assert torch.equal(graph(clean, present), graph(noisy, present))
    senders = [graph.senders(x, present) for x in (clean, noisy)]
    assert torch.equal(senders[0].hidden[present], senders[1].hidden[present])
    assert torch.equal(graph(clean, present, senders[0]), graph(noisy, present, senders[1]))


def test_senders_are_the_same_worked_out_in_parts() -> None:
    with seeded():
        graph, latent = NeighbourGraph(2, 4), torch.randn(9, 2, 4)
    every = torch.ones(9, 2, dtype=torch.bool)
    torch.testing.assert_close(graph.senders(latent, every, size=4).hidden, graph.senders(latent, every).hidden)


def test_stored_rows_give_what_a_batch_of_them_would() -> None:
    with seeded():
        graph, latent = NeighbourGraph(2, 4), torch.randn(9, 2, 4)
    present = torch.tensor([[True, True], [False, True], [True, False]]).repeat(3, 1)
    latent = torch.where(present[..., None], latent, 0)
    others = ~torch.eye(9, dtype=torch.bool)
    torch.testing.assert_close(graph(latent, present, graph.senders(latent, present), others), graph(latent, present))


def likeness_by_hand(graph: NeighbourGraph, latent: np.ndarray, present: np.ndarray, i: int, j: int) -> float:
    """Of two rows, before the threshold: the mean of the kernels of their common modalities."""
    each = []
    for m, kernel in enumerate(graph.kernels):
        has = present[:, m]
        if has[i] and has[j]:
            with torch.no_grad():
                learned = torch.relu(kernel.phi(torch.tensor(latent[:, m]))).numpy()  # type: ignore[operator]
            share = 1 / (1 + np.exp(-kernel.eps.item()))  # type: ignore[operator]
            place = np.cumsum(has) - 1  # of a row among those that have the modality
            own, deep = (gaussian(standardised(x[has]))[place[i], place[j]] for x in (latent[:, m], learned))
            each.append(((1 - share) * deep + share) * own)
    return float(np.mean(each)) if each else 0.0


def test_completed_rows_are_those_worked_out_pair_by_pair() -> None:
    with seeded():
        graph, x = NeighbourGraph(3, 4, theta=-1.5).double(), torch.randn(9, 3, 4, dtype=torch.float64)
    present = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]]).bool().repeat(2, 1)[:9]
    latent, has = torch.where(present[..., None], x, 0).numpy(), present.numpy()
    taken, share = np.eye(9), 3.0
    for i, j in itertools.permutations(range(9), 2):
        likeness = likeness_by_hand(graph, latent, has, i, j)
        taken[i, j] = share * likeness if likeness > 1 / (1 + math.exp(1.5)) else 0
    expected = np.zeros((9, 3, 4))
    gates: Any = graph.gates
    for m, gate in enumerate(gates):
        weights = taken * has[:, m]
        weights, borrowed = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9), latent[:, m]
        for step in (graph.first[m], graph.second[m]):
            matrix, bias = (p.detach().numpy() for p in step.parameters())
            borrowed = np.maximum(weights @ borrowed @ matrix.T + bias, 0)
        ours, theirs = (
            1 / (1 + np.exp(-(value @ line.weight.detach().numpy().T + line.bias.item())))
            for value, line in ((latent[:, m], gate.own), (borrowed, gate.neighbour))
        )
        mixed = (theirs * borrowed + ours * latent[:, m]) / (theirs + ours)
        expected[:, m] = np.where(has[:, m, None], mixed, borrowed)
    completed = graph(torch.tensor(latent), present, share=share)
    np.testing.assert_allclose(completed.detach().numpy(), expected, atol=1e-7)


def kernel_by_formula(x: Tensor, gain: Tensor) -> Tensor:
    """Normalised by the statistics of these rows, with gradient; the bandwidth is a constant."""
    normed = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() * gain
    squared = (normed[:, None] - normed[None]).square().sum(2)
    width = float(squared.detach().sum() / (len(x) ** 2 - len(x)))
    return sum(torch.exp(-squared / (width * scale)) for scale in (0.5, 1, 2)) / 3  # type: ignore[return-value]


def completed_by_formula(graph: Any, latent: Tensor, present: Tensor, share: float, form: str) -> Tensor:
    """The equations with plain operators, in the precision of the latents; rows of a batch take from one another."""
    rows, total, shared = len(latent), torch.zeros(1), torch.zeros(1)
    for m, kernel in enumerate(graph.kernels):
        has = present[:, m].nonzero()[:, 0]
        learned = own = latent[has, m]
        layers = [layer for layer in kernel.phi if isinstance(layer, nn.Linear)]
        for i, layer in enumerate(layers):
            learned = learned @ layer.weight.T + layer.bias
            learned = learned.clamp(min=0) if i < 2 or form == "product" else learned
        deep, plain, s = (
            *(kernel_by_formula(x, graph.norm.weight) for x in (learned, own)),
            1 / (1 + (-kernel.eps).exp()),
        )
        mixed = ((1 - s) * deep + s) * plain if form == "product" else (1 - s) * deep + s * plain
        pick = torch.eye(rows, dtype=latent.dtype)[has]
        total, shared = total + pick.T @ mixed @ pick, shared + pick.sum(0)[:, None] * pick.sum(0)
    t = 1 / (1 + (-graph.theta).exp())
    pulled = t - t.detach()  # 0 that pulls at the threshold
    likeness = total / shared.clamp(min=1)
    taken = share * torch.where(likeness > t, likeness - pulled, 0)
    taken = torch.where(torch.eye(rows) > 0, 1 - pulled, taken)
    completed = []
    for m, gate in enumerate(graph.gates):
        weights = taken * present[:, m]
        weights, z = weights / weights.sum(1, keepdim=True).clamp(min=1e-12), latent[:, m]
        for step in (graph.first[m], graph.second[m]):
            z = (weights @ z @ step.linear.weight.T + step.linear.bias).clamp(min=0)
        a, b = (
            1 / (1 + (-(x @ line.weight.T + line.bias)).exp())
            for x, line in ((z, gate.neighbour), (latent[:, m], gate.own))
        )
        completed.append(torch.where(present[:, m, None], (a * z + b * latent[:, m]) / (a + b), z))
    return torch.stack(completed, 1)


@pytest.mark.parametrize("form", ["product", "sum"])
def test_completed_rows_and_all_their_gradients_are_those_of_the_formulas(form: str) -> None:
    with seeded(1):
        graph = NeighbourGraph(3, 4, eps=0.3, theta=-1.0, form=form).double()
        latent = torch.randn(12, 3, 4, dtype=torch.float64, requires_grad=True)
        weights = torch.randn(12, 3, 4, dtype=torch.float64)
    present = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]]).bool().repeat(2, 1)
    shown = torch.where(present[..., None], latent, 0)
    likeness = graph.likeness(shown, present, shown, present)
    assert 0.2 < (likeness > 0).double().mean() < 0.8, "the threshold should divide the rows"
    ours, theirs = graph(shown, present, share=2.5), completed_by_formula(graph, shown, present, 2.5, form)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    moving = {"latent": latent, **dict(graph.named_parameters())}
    slopes = [torch.autograd.grad((z * weights).sum(), [*moving.values()], retain_graph=True) for z in (ours, theirs)]
    for name, a, b in zip(moving, *slopes, strict=True):
        # a bias that shifts all rows alike cancels in their distances
        assert b.abs().max() > 1e-9 or ("phi" in name and "bias" in name), f"nothing reaches {name}"
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10, msg=f"gradient by {name}")


def test_rows_are_spread_evenly_from_the_first_to_the_last() -> None:
    assert evenly_spread(torch.arange(10, 19), 3).tolist() == [10, 14, 18]
    assert evenly_spread(torch.arange(3), 5).tolist() == [0, 1, 2]


def test_attention_over_no_rows_gives_none() -> None:
    assert Attention(4)(torch.zeros(0, 3, 4), torch.zeros(0, 3, dtype=torch.bool)).shape == (0, 3, 4)


# M3Care: the model ----------------------------------------------------------------------------------------------------
def settled(stored: int = 1024) -> tuple[M3Care, Fixture]:
    fixture = Fixture(M3Care)
    model = fixture.pipeline(stored=stored).model.eval()
    assert isinstance(model, M3Care)
    model.bank.batch_rows.fill_(64)
    with torch.no_grad():
        model.settle(Splits(fixture.splits.train.identified(), fixture.splits.val))
    return model, fixture


@torch.no_grad()
def test_a_training_row_that_is_asked_again_is_not_its_own_neighbour() -> None:
    model, fixture = settled()
    model.graph.theta.fill_(-3.0)
    model.settle(Splits(fixture.splits.train.identified(), fixture.splits.val))
    rows = torch.arange(6)
    known, unknown = fixture.splits.train.identified().batch(rows), fixture.splits.train.batch(rows)
    assert not torch.equal(model(known).output, model(unknown).output)
    features = model.encode(known)
    latent, present = features.pooled(), features.present
    bank = Senders(*map(model.bank.read, Senders._fields))
    others = torch.ones(6, 320, dtype=torch.bool)
    others[rows, rows] = False
    expected = model.graph(latent, present, bank, others, 64 / 320)
    torch.testing.assert_close(model.complete(features).pooled(), expected)


@torch.no_grad()
def test_a_bank_keeps_at_most_so_many_rows_spread_over_the_table() -> None:
    model, fixture = settled(stored=5)
    assert len(model.bank) == 5
    train = model.encode_rows(fixture.splits.train).pooled()
    torch.testing.assert_close(model.bank.read("latent"), train[[0, 80, 160, 239, 319]])


@pytest.mark.parametrize("training", [True, False])
def test_a_row_without_neighbours_and_without_a_bank_is_answered(training: bool) -> None:
    model = M3Care(schema_of(3, 3)).train(training)
    x = [torch.randn(1, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    output = model(batch_of(x, torch.tensor([[True, False]]))).output
    assert bool(torch.isfinite(output).all())


def test_defaults_of_m3care_are_those_of_the_notebooks() -> None:
    model = M3Care(schema_of(3, 3))
    assert [kernel.eps.item() for kernel in model.graph.kernels] == [2, 2]  # type: ignore[operator,union-attr]
    assert [kernel.form for kernel in model.graph.kernels] == ["product"] * 2  # ODIR, like eps
    assert model.graph.theta.item() == 0  # OV
    assert (model.reg_weight, model.trunk[-1].p, model.stored) == (1e-7, 0.5, 1024)  # ODIR; ODIR; proposed here


def block_by_hand(block: Any, x: Tensor) -> Tensor:
    """``x + attention(LN x)``, then ``x + mlp(LN x)``, for tokens ``[B, M, D]``."""
    y = nn.functional.layer_norm(x, x.shape[2:], block.norm1.weight, block.norm1.bias)
    query, key, value = (y @ block.attention.qkv.weight.T + block.attention.qkv.bias).chunk(3, 2)
    width = x.shape[2] // block.attention.heads
    mixed = [
        torch.softmax(q @ k.transpose(1, 2) / math.sqrt(width), 2) @ v
        for q, k, v in zip(*(part.split(width, 2) for part in (query, key, value)), strict=True)
    ]
    x = x + torch.cat(mixed, 2) @ block.attention.out.weight.T + block.attention.out.bias
    y = nn.functional.layer_norm(x, x.shape[2:], block.norm2.weight, block.norm2.bias)
    hidden = nn.functional.gelu(y @ block.mlp[0].weight.T + block.mlp[0].bias)
    return x + hidden @ block.mlp[2].weight.T + block.mlp[2].bias


@torch.no_grad()
def test_completed_latents_pass_two_blocks_with_relu_and_a_linear_layer_over_all_of_them() -> None:
    with seeded():
        model, latent = M3Care(schema_of(3, 3, 3), dim=8).double().eval(), torch.randn(5, 3, 8, dtype=torch.float64)
    assert [block.attention.heads for block in model.blocks] == [4, 1]  # type: ignore[union-attr]
    tokens = latent + model.kind
    for block in model.blocks:
        tokens = block_by_hand(block, tokens).clamp(min=0)
    linear = model.trunk[0][0]  # type: ignore[index]
    expected = (tokens.flatten(1) @ linear.weight.T + linear.bias).clamp(min=0)
    features = features_of(latent, torch.tensor([[True, False, True]] * 5))
    torch.testing.assert_close(model.fuse(features).pooled(), expected)
    model.train()
    model.trunk[-1].p = 0.999
    assert (model.fuse(features).pooled() == 0).double().mean() > 0.9, "dropout before the head"
    model.trunk[-1].p = 0.0
    torch.testing.assert_close(model.fuse(features).pooled(), expected)


def trained_in_batches_of(size: int, pipeline: Pipeline, splits: Splits) -> float:
    Trainer(epochs=1, batch_size=size, progress=False).fit(pipeline, splits)
    assert isinstance(pipeline.model, M3Care)
    return pipeline.model.bank.batch_rows.item()


def test_stored_rows_count_for_the_largest_batch_of_the_last_training() -> None:
    fixture = Fixture(M3Care)
    pipeline = fixture.pipeline()
    rows = len(fixture.splits.train)
    assert rows % 100 > 1, "the last batch is smaller"
    assert trained_in_batches_of(100, pipeline, fixture.splits) == 100
    assert trained_in_batches_of(40, pipeline, fixture.splits) == 40


def test_a_bank_holds_rows_with_holes_too() -> None:
    fixture = Fixture(M3Care, epochs=1).world(holes=0.4)
    model = fixture.train(fixture.pipeline()).model
    assert isinstance(model, M3Care)
    train = fixture.splits.train
    present = train.batch(torch.arange(len(train))).present
    assert 0.2 < (~present).double().mean() < 0.6
    assert torch.equal(model.bank.read("present"), present)
    assert torch.equal(model.bank.read("latent"), model.encode_rows(train).pooled())


def test_the_stabiliser_has_the_published_number() -> None:
    graph = NeighbourGraph(2, 2)
    learned, latent = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[2.0, 2.0], [1.0, 0.0]])
    for kernel, phi in zip(graph.kernels, (Always(learned), nn.Identity()), strict=True):
        kernel.phi = phi
    pairs = graph.mapped(torch.stack([latent, latent], 1), torch.ones(2, 2, dtype=torch.bool))
    assert sum(norm_gap(*pair) for pair in pairs).item() == pytest.approx(0.5505102572)  # type: ignore[union-attr]


def test_the_penalty_reads_the_rows_that_have_the_modality() -> None:
    graph, latent = NeighbourGraph(2, 2), torch.tensor([[[1.0, 2.0], [NAN, NAN]], [[3.0, 4.0], [5.0, 6.0]]])
    pairs = graph.mapped(latent, torch.tensor([[True, False], [True, True]]))
    assert [x.tolist() for _, x in pairs] == [[[1, 2], [3, 4]], [[5, 6]]]


class Always(nn.Module):
    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer


def test_without_its_weight_the_stabiliser_is_no_loss() -> None:
    fixture = Fixture(M3Care)
    assert set(fixture.pipeline(reg_weight=0.0).training_step(fixture.batch()).losses) == {"task"}


# a label bit in the second modality, the same in all rows of a cluster and drawn anew for each batch: a row that lacks the
# second modality can read it off its neighbours only
def clusters(rows: int, draw: torch.Generator) -> tuple[Batch, Tensor]:
    centres = 3 * torch.randn(12, 8, generator=torch.Generator().manual_seed(12))
    cluster = torch.randint(12, (rows,), generator=draw)
    bit = torch.randint(2, (12,), generator=draw)[cluster]
    first = centres[cluster] + 0.3 * torch.randn(rows, 8, generator=draw)
    second = (2.0 * bit - 1)[:, None] + 0.3 * torch.randn(rows, 4, generator=draw)
    lacks = torch.rand(rows, generator=draw) < 0.5
    batch = batch_of([first, second], torch.stack([torch.ones_like(lacks), ~lacks], 1), bit)
    return replace(batch, identity=torch.arange(rows)), lacks


def accuracy_by_neighbours(cls: type[M3Care], shuffled: bool = False, steps: int = 80) -> float:
    """On rows that lack the second modality, asked as in use from a bank of their own batch."""
    draw = torch.Generator().manual_seed(3)
    with seeded():
        model = cls(schema_of(8, 4, task=Classification(["0", "1"])), dropout=0.0)
        descent = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
        for _ in range(steps):
            batch, _ = clusters(128, draw)
            descent.zero_grad()
            model.train().step(batch).total.backward()
            descent.step()
    right: list[Tensor] = []
    with torch.no_grad():
        for _ in range(8):
            batch, lacks = clusters(128, draw)
            stored = batch
            if shuffled:
                places = (~lacks).nonzero().flatten()
                second = batch.inputs["m1"].clone()
                second[places] = second[places.roll(7)]
                stored = replace(batch, inputs={**batch.inputs, "m1": second})
            model.eval()
            model.bank.remember(model.graph, model.encode(stored))
            assert batch.target is not None
            right.append((model(batch).output.argmax(1) == batch.target)[lacks])
    return float(torch.cat(right).float().mean())


def test_what_only_neighbours_know_is_read_off_them() -> None:
    assert accuracy_by_neighbours(M3Care) > 0.9


def test_without_neighbours_or_with_wrong_ones_it_is_guessed() -> None:
    assert accuracy_by_neighbours(Constant) < 0.65
    assert accuracy_by_neighbours(M3Care, shuffled=True) < 0.65


# groups of rows that are alike in both modalities; the second shows the label, which cannot be told from the first but by
# learning it for each group. Labels reach half of the groups; half of all rows lack the second modality
def groups(rows: int, seed: int, draw: int, labelled: int = 20) -> tuple[Batch, Tensor]:
    """And which rows lack the second modality in a group without labels."""
    world, drawn = (torch.Generator().manual_seed(number) for number in (seed, 1000 + 10 * seed + draw))
    centres, bits = torch.randn(40, 64, generator=world), torch.randint(2, (40,), generator=world)
    group, lacks = torch.randint(40, (rows,), generator=drawn), torch.rand(rows, generator=drawn) < 0.5
    first = centres[group] + 0.3 * torch.randn(rows, 64, generator=drawn)
    second = (2.0 * bits[group] - 1)[:, None] + 0.3 * torch.randn(rows, 4, generator=drawn)
    batch = batch_of([first, second], torch.stack([torch.ones_like(lacks), ~lacks], 1), bits[group])
    return replace(batch, target_present=group < labelled), lacks & (group >= labelled)


def accuracy_where_no_label_reaches(cls: type[M3Care], seed: int) -> float:
    schema = schema_of(64, 4, task=Classification(["0", "1"]))
    tables = [groups(rows, seed, i, labelled) for i, (rows, labelled) in enumerate([(600, 20), (200, 40), (600, 40)])]
    train, val = (Dataset(TensorSource(schema, batch, name)) for (batch, _), name in zip(tables, "tv", strict=False))
    with seeded(seed):
        pipeline = Pipeline(cls(schema, theta=1.0))  # at 0 groups that are near each other count as neighbours
    Trainer(epochs=15, lr=3e-3, batch_size=128, progress=False, seed=seed).fit(pipeline, Splits(train, val))
    (test, _), unreached = tables[2], groups(600, seed, 2)[1]
    with torch.no_grad():
        right = pipeline.eval()(test).output.argmax(1) == test.target
    return float(right[unreached].float().mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_after_training_stored_rows_tell_of_groups_that_no_label_reaches(seed: int) -> None:
    """Seen with these seeds: 1.00, 0.99 and 0.88 against 0.49, 0.46 and 0.48 for a constant in place of neighbours.

    Where labels reach all groups the constant is as good: 0.99, 0.96 and 0.99 against 1.00, 0.99 and 1.00 were seen in such
    a world of 16 numbers with three seeds, on rows that lack the second modality.
    """
    by_neighbours, by_constant = (accuracy_where_no_label_reaches(cls, seed) for cls in (M3Care, Constant))
    assert by_neighbours > 0.8
    assert by_constant < 0.65


# MiDl -----------------------------------------------------------------------------------------------------------------
P = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]).log()[:, None]  # three versions of one row
BEFORE = torch.tensor([[0.5, 0.4, 0.1]]).log()


def monitor_of(task: Any = None, widths: tuple[int, ...] = (3, 3), **hyper: Any) -> MiDl:
    with seeded():
        monitor = build_pipeline(
            MiDl, schema_of(*widths, task=task or Classification(["a", "b", "c"])), **hyper
        ).monitors[0]
    assert isinstance(monitor, MiDl)
    return monitor


def test_the_losses_have_the_published_numbers() -> None:
    losses = monitor_of().losses(P, BEFORE)
    assert losses["mutual_information"].item() == pytest.approx(3 * 0.1015985007, rel=1e-5)
    assert losses["distillation"].item() == pytest.approx(3 * 0.0239120506, rel=1e-5)
    assert sum(losses.values()).item() == pytest.approx(0.3765316544, rel=1e-5)  # type: ignore[union-attr]


def test_weights_of_zero_leave_their_losses_out() -> None:
    assert set(monitor_of(lambda_kl=0.0).losses(P, BEFORE)) == {"mutual_information"}
    assert monitor_of(lambda_kl=0.0, lambda_mi=0.0).losses(P, BEFORE) == {}


def test_versions_that_agree_have_no_information_and_all_get_a_gradient_where_they_do_not() -> None:
    monitor = monitor_of()
    assert monitor.losses(P[:1].expand(3, 1, 3), BEFORE)["mutual_information"].item() == pytest.approx(0, abs=1e-6)
    outputs = P.clone().requires_grad_()
    monitor.losses(outputs, BEFORE)["mutual_information"].backward()
    assert outputs.grad is not None
    assert bool(outputs.grad.flatten(1).any(1).all())


def test_the_loss_of_two_rows_is_the_mean_of_theirs() -> None:
    monitor = monitor_of()
    rows = torch.cat([P, P.roll(1, 2)], 1)
    before = torch.cat([BEFORE, BEFORE.roll(1, 1) / 2])
    both = monitor.losses(rows, before)
    each = [monitor.losses(rows[:, [i]], before[[i]]) for i in range(2)]
    for name, loss in both.items():
        assert loss.item() == pytest.approx((each[0][name] + each[1][name]).item() / 2)


def test_the_terms_of_labels_are_summed() -> None:
    monitor = monitor_of(Multilabel(["x", "y"]))
    p = np.array([[0.9, 0.3], [0.2, 0.4], [0.6, 0.5]])  # [V, label]
    outcomes = np.stack([p, 1 - p], -1)

    def entropy(q: np.ndarray) -> np.ndarray:
        return -(q * np.log(q + 1e-5)).sum(-1)

    information = (entropy(outcomes.mean(0)) - entropy(outcomes).mean(0)).sum()
    before = np.array([0.5, 0.6])
    old = np.stack([before, 1 - before], -1)
    kl = (old * (np.log(old) - np.log(outcomes[-1]))).sum()
    losses = monitor.losses(torch.logit(torch.tensor(p))[:, None], torch.logit(torch.tensor(before))[None])
    assert losses["mutual_information"].item() == pytest.approx(3 * information)
    assert losses["distillation"].item() == pytest.approx(3 * kl)


def test_defaults_of_midl_are_those_of_the_release() -> None:
    monitor = monitor_of()
    assert monitor.step_size == pytest.approx(2.5e-4 / 64 * 8 * 2)
    assert (monitor.lambda_mi, monitor.lambda_kl, monitor.momentum) == (3, 3, 0.9)


def test_a_task_of_numbers_and_a_weight_below_zero_are_refused() -> None:
    with pytest.raises(ConfigError, match="regression has none"):
        MiDl(schema_of(2, 2, task=Regression(["y"])))
    with pytest.raises(ConfigError, match="0 or more"):
        MiDl(schema_of(2, 2), lambda_kl=-1.0)


def test_layer_norms_adapt_else_other_norms_else_all_but_the_head() -> None:
    class Host(nn.Module):
        def __init__(self, *norms: nn.Module) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), *norms)
            self.task_head = nn.Linear(4, 2)

    frozen = nn.LayerNorm(4).requires_grad_(False)
    assert set(adaptable(Host(nn.LayerNorm(4), nn.BatchNorm1d(4)))) == {"body.1.weight", "body.1.bias"}
    assert set(adaptable(Host(nn.GroupNorm(2, 4), nn.BatchNorm1d(4), frozen))) == {
        "body.1.weight", "body.1.bias", "body.2.weight", "body.2.bias"
    }  # fmt: skip
    assert set(adaptable(Host())) == {"body.0.weight", "body.0.bias"}


def stream(pipeline: Pipeline, rows: Batch) -> Tensor:
    output: Tensor = pipeline(rows).output
    return output


def random_rows(rows: int = 24) -> Batch:
    draw = torch.Generator().manual_seed(5)
    return batch_of([torch.randn(rows, 3, generator=draw) for _ in range(2)])


def test_distillation_is_zero_at_first_and_then_the_divergence_from_the_model_of_before() -> None:
    pipeline = monitor_of(step_size=0.05).pipeline_in_use.eval()
    monitor = pipeline.monitors[0]
    assert isinstance(monitor, MiDl)
    pipeline.remember()
    rows = random_rows()
    before = pipeline.model(rows).output.detach()
    outputs = monitor.outputs(rows)
    loss = monitor.losses(outputs, pipeline.answer_before(rows).output)["distillation"]
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, outputs)[0].abs().max() < 1e-6
    stream(pipeline, rows.rows(torch.arange(20)))
    loss = monitor.losses(monitor.outputs(rows), pipeline.answer_before(rows).output)["distillation"] / 3
    p, q = (x.double().softmax(1).detach().numpy() for x in (before, pipeline.model(rows).output))
    forwards, backwards = ((a * np.log(a / b)).sum(1).mean() for a, b in ((p, q), (q, p)))
    assert loss.item() == pytest.approx(forwards, rel=1e-3)
    assert forwards > 0
    assert abs(backwards / forwards - 1) > 0.003


def test_momentum_carries_on_along_the_stream_and_a_reset_forgets_it() -> None:
    pipeline = monitor_of(step_size=0.05).pipeline_in_use.eval()
    pipeline.remember()
    monitor, rows = pipeline.monitors[0], random_rows()
    assert isinstance(monitor, MiDl)
    stream(pipeline, rows.only("m0"))
    assert monitor.velocity == {}
    stream(pipeline, rows)
    assert set(monitor.velocity) == set(adaptable(pipeline.model))
    pipeline.reset()
    assert monitor.velocity == {}


def test_a_row_is_answered_before_its_step_and_rows_with_holes_make_none() -> None:
    pipeline = monitor_of(step_size=0.5).pipeline_in_use.eval()
    pipeline.remember()
    rows = random_rows(4)
    before = pipeline.answer_before(rows).output
    torch.testing.assert_close(stream(pipeline, rows)[:1], before[:1])
    assert not torch.allclose(pipeline.model(rows).output, before, atol=1e-3)
    pipeline.reset()
    holes = rows.only("m1")
    torch.testing.assert_close(stream(pipeline, holes), pipeline.answer_before(holes).output)
    torch.testing.assert_close(pipeline.model(rows).output, before)


def behind_a_restorer() -> Pipeline:
    schema = schema_of(3, 3, task=Classification(["a", "b", "c"]))
    with seeded():
        host = METHODS["early_fusion"](schema)
        pipeline = Pipeline(
            host, restore=Centaur(schema, width=2, code=4), monitors=[MiDl(schema, step_size=0.5)]
        ).eval()
    pipeline.remember()
    return pipeline


def test_rows_that_a_restorer_completed_make_no_step() -> None:
    pipeline, rows = behind_a_restorer(), random_rows(4)
    holes, monitor = rows.only("m0"), pipeline.monitors[0]
    assert isinstance(monitor, MiDl)
    assert bool(pipeline.restored(holes).present.all()), "the model is shown both"
    before = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
    stream(pipeline, holes)
    assert monitor.velocity == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipeline.state_dict().items())
    stream(pipeline, rows)
    assert set(monitor.velocity) == set(adaptable(pipeline.model))


def test_a_row_too_large_for_float32_makes_no_step_and_harms_no_other() -> None:
    pipeline = monitor_of(step_size=0.05).pipeline_in_use.eval()
    pipeline.remember()
    rows = random_rows(8)
    huge = replace(
        rows, inputs={m: x * torch.where(torch.arange(8) == 3, 1e21, 1)[:, None] for m, x in rows.inputs.items()}
    )
    others = torch.arange(8) != 3
    assert bool(huge.inputs["m0"].isfinite().all())
    with_it = stream(pipeline, huge)[others]
    velocity = pipeline.monitors[0].velocity
    pipeline.reset()
    without = stream(pipeline, rows.rows(others))
    assert torch.equal(with_it, without)
    assert without.isfinite().all()
    for name, speed in pipeline.monitors[0].velocity.items():  # type: ignore[operator,union-attr]
        assert torch.equal(speed, velocity[name])  # type: ignore[index]


@pytest.mark.parametrize("where", ["loss", "gradient", "velocity"])
def test_a_descent_that_is_not_finite_moves_nothing(where: str) -> None:
    p, q = (nn.Parameter(torch.ones(2)) for _ in range(2))
    velocity = {"p": torch.full((2,), 3e38 if where == "velocity" else 1.0)}
    before = {name: speed.clone() for name, speed in velocity.items()}
    loss = {"loss": p.sum() * torch.inf, "gradient": (p - 1).sqrt().sum(), "velocity": p.sum() * 3e38}[where] + q.sum()
    assert bool(loss.isfinite()) == (where == "gradient") or where == "velocity"
    descend(loss, {"p": p, "q": q}, velocity, 0.1, 0.9)
    assert torch.equal(p, torch.ones(2))
    assert torch.equal(q, torch.ones(2))
    assert velocity.keys() == before.keys()
    assert torch.equal(velocity["p"], before["p"])


class Dropping(Model):
    """A host with much dropout, which shows whether a step is made in evaluation mode."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema, 8)
        self.norm, self.drop = nn.LayerNorm(8), nn.Dropout(0.5)

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(self.drop(self.norm(super().fuse(features).pooled())))


def test_steps_are_made_in_evaluation_mode() -> None:
    schema = schema_of(3, 3, task=Classification(["a", "b", "c"]))
    with seeded():
        pipeline = Pipeline(Dropping(schema), monitors=[MiDl(schema, step_size=0.5)]).eval()
    pipeline.remember()
    rows, answers, moved = random_rows(12), [], []
    for seed in (1, 2):
        pipeline.reset()
        with seeded(seed):
            answers.append(stream(pipeline, rows))
        moved.append(pipeline.model.norm.weight.detach().clone())  # type: ignore[union-attr,operator]
        assert not any(module.training for module in pipeline.modules())
    assert torch.equal(*answers)
    assert torch.equal(*moved)
    assert not torch.equal(moved[0], torch.ones(8))


def test_versions_of_rows_show_what_they_name() -> None:
    pipeline, rows = monitor_of().pipeline_in_use.eval(), random_rows(3)
    outputs = outputs_of_versions(pipeline.model, rows, [("m1",), ("m0", "m1")])
    each = [pipeline.model(version).output for version in (rows.only("m1"), rows)]
    torch.testing.assert_close(outputs, torch.stack(each))


def test_a_descent_is_that_of_torch() -> None:
    with seeded():
        p, q = (nn.Parameter(x) for x in torch.randn(1, 4).repeat(2, 1))
    descent = torch.optim.SGD([q], lr=0.1, momentum=0.9)
    velocity: dict[str, Tensor] = {}
    for power in (2, 3):
        descend(p.pow(power).sum(), {"p": p, "unused": nn.Parameter(torch.ones(1))}, velocity, 0.1, 0.9)
        descent.zero_grad()
        q.pow(power).sum().backward()
        descent.step()
    torch.testing.assert_close(p, q)
    assert set(velocity) == {"p"}


def test_only_complete_rows_of_a_batch_that_is_asked_at_once_count() -> None:
    rows = random_rows(4)
    holes = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    adapted = []
    for batch in (rows.where(holes), rows.rows(torch.tensor([0, 3]))):
        pipeline = monitor_of(step_size=0.1).pipeline_in_use.eval()
        pipeline.remember()
        pipeline.monitors[0].answer(batch, pipeline.model)  # type: ignore[operator]
        adapted.append(pipeline.state_dict())
    for name, tensor in adapted[0].items():
        torch.testing.assert_close(tensor, adapted[1][name])


# four classes in two modalities of unequal strength, and a model that was trained on complete rows
def redundant(rows: int = 1200) -> Dataset:
    draw = torch.Generator().manual_seed(
        2
    )  # where the weak modality alone tells more than the trained model makes of it
    label = torch.randint(4, (rows,), generator=draw)
    centres = torch.randn(2, 4, 8, generator=draw) * torch.tensor([3.0, 0.9])[:, None, None]
    inputs = [centre[label] + torch.randn(rows, 8, generator=draw) for centre in centres]
    return Dataset(TensorSource(schema_of(8, 8), batch_of(inputs, target=label), "redundant"))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_stream_of_complete_rows_helps_those_that_miss_the_strong_modality(seed: int) -> None:
    data = redundant()
    train, val = data.subset(torch.arange(500)), data.subset(torch.arange(500, 600))
    in_use, unseen = data.batch(torch.arange(600, 900)), data.batch(torch.arange(900, 1200))
    with seeded(seed):
        pipeline = build_pipeline(MiDl, data.schema, host=METHODS["early_fusion"](data.schema), step_size=5e-3)
    Trainer(epochs=15, lr=3e-3, batch_size=64, progress=False, seed=seed).fit(pipeline, Splits(train, val))
    pipeline.eval()

    def figures() -> tuple[float, float, float]:
        """Mutual information of unseen rows, and accuracy by the weak modality and by both."""
        with torch.no_grad():
            p = pipeline.monitors[0].outputs(unseen).softmax(-1)  # type: ignore[operator]
        information = -(p.mean(0) * p.mean(0).log()).sum(1) + (p * p.log()).sum(-1).mean(0)
        weak, both = ((x.argmax(1) == unseen.target).float().mean().item() for x in p[1:])
        return information.mean().item(), weak, both

    information, weak, both = figures()
    stream(pipeline, in_use)
    adapted = figures()
    assert adapted[0] < 0.8 * information
    assert adapted[1] >= weak + 0.05
    assert adapted[2] >= both - 0.01
