"""What a model costs: operations against closed forms worked out here, parameters, the table; nothing depends on time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.batch import Batch
from kintsugi.core.encoder import ENCODERS, blank
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.wrappers import Answer, Monitor, Restorer
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.evaluation import costs_memory
from kintsugi.evaluation.costs import Costs, costs, part_sizes
from kintsugi.evaluation.costs_flops import FORMULAS, count_flops
from kintsugi.evaluation.costs_memory import peak_memory
from kintsugi.layers.streams import Block
from kintsugi.tasks import Classification

ROWS, DIM = 3, 8
CPU = torch.device("cpu")


def flops(call: Callable[[], object]) -> int:
    with torch.no_grad():
        counted, unknown = count_flops(call)
    assert unknown == ()
    return counted


# closed forms: two operations for each product with its sum --------------------------------------------------------


def linear(rows: int, before: int, after: int) -> int:
    return 2 * rows * before * after


def block(rows: int, tokens: int, dim: int = DIM) -> int:
    """Query, key, value, output; a token looks at all tokens, twice; an MLP of twice the width."""
    projections = linear(rows * tokens, dim, 3 * dim) + linear(rows * tokens, dim, dim)
    looks = 2 * (2 * rows * tokens * tokens * dim)
    return projections + looks + linear(rows * tokens, dim, 2 * dim) + linear(rows * tokens, 2 * dim, dim)


def vector(rows: int, width: int, dim: int = DIM) -> int:
    return linear(rows, width, 4 * dim) + linear(rows, 4 * dim, dim)


def tokens(rows: int, count: int, width: int, fixed: bool = True, dim: int = DIM) -> int:
    """A projection of each, and where their number is fixed one of all of them together."""
    return linear(rows * count, width, dim) + (linear(rows, count * width, dim) if fixed else 0)


R, D = ROWS, DIM
ENCODED = {
    "vector": (Modality("m", "vector", (7,)), vector(R, 7)),
    "tabular": (Modality("m", "tabular", (4,), categories=(0, 3, 0, 5)), block(R, 4)),
    # 10 numbers, 20 flags, 10 categories of width 8
    "tabular-wide": (Modality("m", "tabular", (20,), categories=(0, 3) * 10), vector(R, 10 + 20 + 80)),
    # 50 steps of 4 channels and the mask; three kernels of 3; windows of 4 make 13 tokens
    "series": (
        Modality("m", "series", (50, 4)),
        linear(R * 50, 5, D) + 3 * linear(R * 50, 3 * D, D) + tokens(R, 13, D, fixed=False),
    ),
    # kernels of 5; 64 bytes, then 16
    "text": (
        Modality("m", "text", (64,)),
        linear(R * (64 + 16), 5 * D, D) + tokens(R, 16, D, fixed=False) + block(R, 16),
    ),
    # a quarter each time: 300, 75, 19, 5
    "text-long": (
        Modality("m", "text", (300,)),
        linear(R * (300 + 75 + 19 + 5), 5 * D, D) + tokens(R, 5, D, fixed=False) + block(R, 5),
    ),
    # 28 -> 14 (stride) -> 7 -> 4 (pooled after the convolution): a 4 x 4 grid
    "image": (
        Modality("m", "image", (1, 28, 28)),
        linear(R * 14 * 14, 25, 8) + linear(R * 14 * 14, 9 * 8, 16) + linear(R * 7 * 7, 9 * 16, 32) + tokens(R, 16, 32),
    ),
    # 9 x 70 -> the same (no stride) -> 5 x 35 -> 3 x 18, averaged to 3 x 4
    "image-wide": (
        Modality("m", "image", (3, 9, 70)),
        linear(R * 9 * 70, 75, 8) + linear(R * 9 * 70, 9 * 8, 16) + linear(R * 5 * 35, 9 * 16, 32) + tokens(R, 12, 32),
    ),
    # 63 frames: a real transform of 256 points each (2.5 N log2 N), 129 bins to 32 bands; 63 x 32 -> 32 x 16 -> 16 x 8
    # before each convolution but the first, 16 tokens of 4 bands of 32
    "audio": (
        Modality("m", "audio", (8000,), rate=8000),
        R * 63 * 2.5 * 256 * 8
        + linear(R * 63, 129, 32)
        + linear(R * 32 * 16, 25, 8)
        + linear(R * 32 * 16, 9 * 8, 16)
        + linear(R * 16 * 8, 9 * 16, 32)
        + tokens(R, 16, 4 * 32),
    ),
}


@pytest.mark.parametrize("name", ENCODED)
def test_operations_of_the_built_in_encoders(name: str) -> None:
    modality, expected = ENCODED[name]
    encoder = ENCODERS[modality.kind](modality, DIM).eval()
    x = blank(modality, ROWS)
    x = x + 1 if modality.kind == "text" else x
    assert flops(lambda: encoder(x)) == expected


def test_every_built_in_encoder_has_a_closed_form() -> None:
    own = {name for name in ENCODERS if ENCODERS[name].__module__.startswith("kintsugi.encoders")}
    assert own == {modality.kind for modality, _ in ENCODED.values()}


# what torch counts as nothing on a CPU -----------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention(masked: bool) -> None:
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 6, 8)
    mask = torch.ones(5, 6, dtype=torch.bool) if masked else None
    # 2 rows, 4 heads, 5 x 6 pairs; a pair costs 8 products for the score and 8 for the value
    fused = flops(lambda: functional.scaled_dot_product_attention(query, key, key, attn_mask=mask))
    assert fused == 2 * 4 * 5 * 6 * (2 * 8 + 2 * 8)


def test_fused_attention_with_fewer_keys_than_queries() -> None:
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    grouped = flops(lambda: functional.scaled_dot_product_attention(query, key, key, enable_gqa=True))
    assert grouped == 2 * 4 * 5 * 5 * (2 * 8 + 2 * 8)


@contextmanager
def slow(module: nn.Module) -> Iterator[None]:
    """With gradients, torch leaves its fast path and falls apart into operations that it counts itself."""
    with torch.enable_grad():
        assert all(p.requires_grad for p in module.parameters())
        yield


@pytest.mark.parametrize("weights", [False, True])
def test_fast_path_of_multi_head_attention(weights: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    counted = flops(lambda: attention(x, x, x, need_weights=weights))
    assert counted == 4 * linear(3 * 5, 8, 8) + 2 * (2 * 3 * 5 * 5 * 8)
    with slow(attention):
        assert count_flops(lambda: attention(x, x, x, need_weights=weights))[0] == counted


def test_fast_path_of_an_encoder_layer() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    counted = flops(lambda: layer(x))
    assert counted == block(3, 5, 8)  # the same products as in the library's own block
    assert counted == flops(lambda: Block(8)(x, torch.ones(3, 5, dtype=torch.bool)))
    with slow(layer):
        assert count_flops(lambda: layer(x))[0] == counted


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padding_of_nested_rows_is_not_counted() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    x, gone = torch.randn(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    assert flops(lambda: encoder(x, src_key_padding_mask=gone)) == 2 * (block(1, 5, 8) + block(1, 3, 8))


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(kind: Callable[..., nn.Module], gates: int) -> None:
    net = kind(8, 6, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(3, 5, 8)
    # 3 x 5 steps, two directions; the second layer reads both directions of the first
    first, second = linear(15, 8 + 6, gates * 6), linear(15, 12 + 6, gates * 6)
    assert flops(lambda: net(x)) == 2 * first + 2 * second


def test_packed_rows_count_with_their_own_length() -> None:
    net = nn.LSTM(8, 6, batch_first=True)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(2, 5, 8), [5, 3], batch_first=True)
    assert flops(lambda: net(packed)) == linear(5 + 3, 8 + 6, 4 * 6)


def test_the_formula_for_recurrent_layers_on_a_gpu() -> None:
    net = nn.LSTM(8, 6, num_layers=2, bidirectional=True)
    formula = FORMULAS[torch.ops.aten._cudnn_rnn]
    expected = 2 * linear(15, 8 + 6, 24) + 2 * linear(15, 12 + 6, 24)
    assert formula(torch.randn(5, 3, 8), net._flat_weights) == expected
    assert formula(torch.randn(15, 8), net._flat_weights) == expected  # packed


CONVOLUTIONS = {
    "1d, dilated": (nn.Conv1d(3, 4, 3, dilation=2), (2, 3, 9), 2 * 5 * 4 * 3 * 3),
    "2d, strided": (nn.Conv2d(3, 4, 3, stride=2), (2, 3, 9, 9), 2 * 16 * 4 * 3 * 9),
    "2d, one channel a group": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5), 2 * 9 * 4 * 1 * 9),
    "3d": (nn.Conv3d(2, 4, 2), (2, 2, 3, 3, 3), 2 * 8 * 4 * 2 * 8),
    "transposed": (nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 5), 2 * 25 * 3 * 4 * 9),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    layer, shape, products = CONVOLUTIONS[name]
    x = torch.randn(shape)
    assert flops(lambda: layer(x)) == 2 * products
    if x.ndim == 4:
        near = x.to(memory_format=torch.channels_last)
        assert flops(lambda: layer(near)) == 2 * products


M35, V5 = torch.ones(3, 5), torch.ones(5)
PRODUCTS: dict[str, tuple[Callable[[], object], float]] = {
    "matrix and vector": (lambda: M35 @ V5, 2 * 15),
    "vector and vector": (lambda: V5 @ V5, 2 * 5),
    "added matrix and vector": (lambda: torch.addmv(torch.ones(3), M35, V5), 2 * 15),
    "added batch": (lambda: torch.addbmm(torch.ones(3, 3), M35[None], M35.T[None]), 2 * 3 * 5 * 3),
    "few distances": (lambda: torch.cdist(M35, M35), 2 * 9 * 5),
    "many distances": (lambda: torch.cdist(torch.ones(40, 5), torch.ones(50, 5)), 2 * 40 * 50 * 5),
    "bilinear": (lambda: functional.bilinear(M35, torch.ones(3, 4), torch.ones(2, 5, 4)), 2 * 3 * 2 * (5 * 4 + 4)),
    "complex transform": (lambda: torch.fft.fft(torch.ones(3, 16, dtype=torch.complex64)), 3 * 5 * 16 * 4),
    "real transform": (lambda: torch.fft.rfft(torch.ones(3, 16)), 3 * 2.5 * 16 * 4),
    "real transform back": (lambda: torch.fft.irfft(torch.ones(3, 9, dtype=torch.complex64)), 3 * 2.5 * 16 * 4),
    "elementwise": (lambda: functional.gelu(M35).softmax(1) + M35, 0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_other_products(name: str) -> None:
    call, expected = PRODUCTS[name]
    assert flops(call) == expected


def test_what_no_formula_covers_is_named() -> None:
    _, unknown = count_flops(lambda: torch.linalg.svd(torch.eye(3)))
    assert unknown == ("aten._linalg_svd",)
    _, unknown = count_flops(lambda: torch.linalg.solve(torch.eye(3), torch.ones(3)))
    assert unknown == ("aten._linalg_solve_ex",)  # not the look at its error code


# a whole pipeline --------------------------------------------------------------------------------------------------

SCHEMA = Schema((Modality("a", "vector", (5,)), Modality("b", "vector", (7,))), Classification(["no", "yes"]))
HEAD = 2 * DIM * 2  # a row: one linear layer from the mean to two outputs


def data(*present: tuple[bool, bool]) -> Dataset:
    here = torch.tensor(present or [(True, True)] * 4)
    n = len(here)
    x = {"a": torch.ones(n, 5), "b": torch.ones(n, 7)}
    return Dataset(TensorSource(SCHEMA, Batch(SCHEMA.names, x, here, torch.arange(n), torch.zeros(n).long())))


def pipeline(**around: object) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(Model(SCHEMA, dim=DIM), **around)  # type: ignore[arg-type]


class Mending(Restorer):
    """One linear layer over ``a``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def restore(self, batch: Batch) -> Batch:
        return replace(batch, inputs={**batch.inputs, "a": self.layer(batch.inputs["a"])})


class Twice(Monitor):
    """Asks twice, and counts how often it was asked; ``told`` is shared by copies."""

    adapts: ClassVar[bool] = True
    told: ClassVar[list[Batch]] = []
    learning: ClassVar[set[bool]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        self.asked += 1
        self.told.append(batch)
        self.learning.add(self.training or torch.is_grad_enabled())
        torch.rand(1)
        inner(batch)
        return inner(batch)


def by_cell(found: Costs) -> dict[tuple[tuple[str, ...], int], int]:
    return {(cell.subset, cell.batch_size): cell.flops for cell in found.cells}


def test_operations_of_a_subset_are_those_of_a_batch_with_it_alone() -> None:
    found = costs(pipeline(), data(), batch_sizes=(1, 6), runs=1)
    expected: dict[tuple[tuple[str, ...], int], int] = {}
    for size in (1, 6):  # an absent modality costs one row of zeros through its encoder
        expected[("a", "b"), size] = vector(size, 5) + vector(size, 7) + size * HEAD
        expected[("a",), size] = vector(size, 5) + vector(1, 7) + size * HEAD
        expected[("b",), size] = vector(1, 5) + vector(size, 7) + size * HEAD
    assert by_cell(found) == expected
    assert found.uncounted == ()


def test_restorers_and_monitors_count() -> None:
    plain = by_cell(costs(pipeline(), data(), [("a", "b")], (4,), 1))
    mended = by_cell(costs(pipeline(restore=Mending()), data(), [("a", "b")], (4,), 1))
    watched = by_cell(costs(pipeline(monitors=[Twice()]), data(), [("a", "b")], (4,), 1))
    key = (("a", "b"), 4)
    assert mended[key] == plain[key] + linear(4, 5, 5)
    assert watched[key] == 2 * plain[key]


def test_parameters_of_each_part() -> None:
    whole = pipeline(restore=Mending())
    whole.model.encoders["b"].requires_grad_(False)
    whole.model.task_head.tied = whole.model.encoders["a"]  # shared: counted where it is met first
    a, b = (width * 4 * DIM + 4 * DIM + 8 * DIM + 4 * DIM * DIM + DIM + 2 * DIM for width in (5, 7))  # with LayerNorms
    sizes = {size.part: (size.trainable, size.all) for size in part_sizes(whole)}
    assert sizes == {
        "restore": (30, 30),
        "model.encoders.a": (a, a),
        "model.encoders.b": (0, b),
        "model.task_head": (DIM * 2 + 2, DIM * 2 + 2),
        "model": (0, 0),  # the prior, a buffer
    }
    found = costs(whole, data(), [("a",)], (1,), 1)
    assert (found.trainable, found.parameters) == (30 + a + 18, 30 + a + b + 18)
    assert found.parameters == sum(p.numel() for p in whole.parameters())
    assert sum(p.bytes for p in found.parts) == 4 * (found.parameters + 2)


def test_the_table_and_json() -> None:
    found = costs(SimpleNamespace(pipeline_=pipeline(), method="mine"), data(), [("b", "a"), ["a"]], (2, 3), runs=4)
    table = found.frame()
    assert table[["method", "subset", "batch_size"]].to_numpy().tolist() == [
        ["mine", "a + b", 2], ["mine", "a", 2], ["mine", "a + b", 3], ["mine", "a", 3],
    ]  # fmt: skip
    assert (table["flops"] == table["flops_per_row"] * table["batch_size"]).all()
    assert (table["p50"] > 0).all()
    assert (table["p95"] >= table["p50"]).all()
    assert table["parameters"].unique().tolist() == [found.parameters]
    saved = found.to_json()
    assert json.loads(json.dumps(saved)) == saved
    assert saved["runs"] == 4
    assert saved["cells"][1]["subset"] == ["a"]
    assert saved["machine"]["device"] == "cpu"
    assert saved["machine"]["threads"] == torch.get_num_threads()
    with pytest.raises(FrozenInstanceError):
        found.runs = 1  # type: ignore[misc]


def test_calls_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kintsugi.evaluation.costs.peak_memory", lambda *given: (None, "off"))
    Twice.told.clear()
    found = costs(pipeline(monitors=[Twice()]), data(), [("a",), ("b",)], (1,), runs=5)
    said = ["a" if batch.present[0, 0] else "b" for batch in Twice.told]
    assert "".join(said) == "ab" + "aaabbb" + "ab" * 5  # counted, warm-up, timed
    assert [cell.memory for cell in found.cells] == [None, None]
    assert found.memory_note == "off"
    assert found.frame()["memory"].isna().all()


def test_everything_is_left_as_it_was() -> None:
    whole = pipeline(monitors=[Twice()]).train()
    whole.model.encoders["a"].eval()
    modes = {name: module.training for name, module in whole.named_modules()}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Twice.learning.clear()
    costs(whole, data(), [("a",)], (1,), 1)
    assert Twice.learning == {True}, "what adapts needs gradients"
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: module.training for name, module in whole.named_modules()} == modes
    assert whole.monitors[0].asked == 0  # it adapts: a copy was asked
    assert all(batch.target is None for batch in Twice.told)
    assert all(p.grad is None for p in whole.parameters())


def test_rows_with_holes() -> None:
    rows = data((True, False), (True, True), (False, True))
    Twice.told.clear()
    found = costs(pipeline(monitors=[Twice()]), rows, [("a",), ("a", "b")], (3,), 1)
    assert len(found.cells) == 2
    asked = {tuple(batch.index.tolist()): batch.present.tolist() for batch in Twice.told}
    assert asked == {(1,): [[True, True]], (0,): [[True, False]]}, "row after row, since it adapts"


def test_all_subsets_of_few_modalities_and_the_ends_of_many() -> None:
    few = costs(pipeline(), data(), runs=1, batch_sizes=(1,))
    assert [cell.subset for cell in few.cells] == [("a", "b"), ("a",), ("b",)]
    wide = Schema(tuple(Modality(f"m{i}", "vector", (1,)) for i in range(6)), SCHEMA.task)
    x = {name: torch.ones(1, 1) for name in wide.names}
    one = Dataset(TensorSource(wide, Batch(wide.names, x, torch.ones(1, 6).bool(), torch.zeros(1).long())))
    many = costs(Pipeline(Model(wide, dim=2)), one, runs=1, batch_sizes=(1,))
    assert [len(cell.subset) for cell in many.cells] == [6] + [5] * 6 + [1] * 6


def test_what_makes_no_sense_is_refused() -> None:
    whole, rows = pipeline(), data()
    with pytest.raises(ConfigError, match="cannot be evaluated"):
        costs(nn.Linear(1, 1), rows)
    with pytest.raises(UnknownName, match="unknown modality 'c'"):
        costs(whole, rows, [("c",)])
    with pytest.raises(ConfigError, match=r"write \('a',\)"):
        costs(whole, rows, ["a"])
    with pytest.raises(ConfigError, match="the prior answers"):
        costs(whole, rows, [()])
    with pytest.raises(ConfigError, match="no subset"):
        costs(whole, rows, [])
    for sizes, runs in (((0,), 1), ((), 1), ((1,), 0)):
        with pytest.raises(ConfigError, match="at least 1"):
            costs(whole, rows, batch_sizes=sizes, runs=runs)
    with pytest.raises(DataError, match=r"no row of tensors has a \+ b"):
        costs(whole, data((True, False), (False, True)))


# memory ------------------------------------------------------------------------------------------------------------

MB = 1 << 20
needs_proc = pytest.mark.skipif(not os.access(costs_memory.CLEAR, os.W_OK), reason="needs Linux with clear_refs")


@needs_proc
def test_the_high_water_mark_of_a_call_on_a_cpu() -> None:
    def lasting() -> Tensor:
        return torch.ones(8 * MB) + 1  # two tensors of 32 MB at once

    def passing() -> float:
        return float(torch.ones(4 * MB).sum())  # 16 MB

    found, note = peak_memory([lasting, passing, lambda: None], CPU)
    assert found is not None
    large, middle, none = (n / MB for n in found)
    assert large == pytest.approx(64, abs=4)
    assert middle == pytest.approx(16, abs=4)
    assert none < 4
    assert "fork" in note


@needs_proc
def test_a_measurement_that_fails_says_why() -> None:
    def broken() -> None:
        raise ValueError("out of paint")

    assert peak_memory([broken], CPU) == (None, "not measured: ValueError: out of paint")
    assert peak_memory([lambda: os._exit(1)], CPU) == (None, "not measured: the measuring process ended or hung")


@needs_proc
def test_a_child_that_hangs_is_not_waited_for() -> None:
    hold, other = os.pipe()
    try:
        assert peak_memory([lambda: os.read(hold, 1)], CPU, patience=0.1)[0] is None
    finally:
        os.close(hold)
        os.close(other)


def test_where_memory_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    found, note = peak_memory([lambda: None], CPU)
    assert found is None
    assert "needs Linux" in note
    assert peak_memory([lambda: None], torch.device("mps"))[1] == "not measured: no counter for device 'mps'"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    whole = pipeline().to("cuda")
    found = costs(whole, data(), [("a", "b")], (64,), 3)
    assert found.machine["device"] == "cuda"
    assert found.cells[0].flops == vector(64, 5) + vector(64, 7) + 64 * HEAD
    memory = found.cells[0].memory
    assert memory is not None
    assert memory >= 64 * 4 * DIM * 4  # the hidden layer of one encoder in float32
    net, x = nn.LSTM(8, 6, num_layers=2, bidirectional=True).cuda(), torch.randn(5, 3, 8).cuda()
    assert flops(lambda: net(x)) == 2 * linear(15, 8 + 6, 24) + 2 * linear(15, 12 + 6, 24)
    assert math.isclose(peak_memory([lambda: torch.ones(MB, device="cuda")], torch.device("cuda"))[0][0], 4 * MB)  # type: ignore[index]
