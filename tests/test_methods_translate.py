"""MCTN, UniMF and TransModality: the numbers of their code, worked out apart from the library, and what may learn from what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core import Batch, Modality, Schema, Stream
from kintsugi.core.data import Data, Splits
from kintsugi.core.encoder import UserEncoder, own_encoders
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.methods import build_ablation, create
from kintsugi.io import saved_models
from kintsugi.methods.corrupted.noise_aware.mctn import MCTN
from kintsugi.methods.missing.generative.transmodality import TransModality, Written
from kintsugi.methods.missing.generative.unimf import UniMF, cls_mask, filled
from kintsugi.tasks import Classification, Regression

NAN = float("nan")


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


SERIES = (Modality("a", "series", (4, 3)), Modality("b", "series", (6, 2)), Modality("c", "vector", (5,)))
IMAGE = (Modality("a", "vector", (5,)), Modality("b", "image", (1, 8, 8)), Modality("c", "vector", (3,)))


def schema_of(modalities: tuple[Modality, ...] = SERIES, task: Any = None) -> Schema:
    return Schema(modalities, task or Classification(["0", "1", "2"]))


def rows_of(schema: Schema, present: Any = None, rows: int = 6) -> Batch:
    """Random rows, NaN wherever something is absent, one step of each series unseen."""
    noise = torch.Generator().manual_seed(3)
    seen = (
        torch.ones(rows, len(schema), dtype=torch.bool) if present is None else torch.tensor(present, dtype=torch.bool)
    )
    inputs, mask = {}, {}
    for i, m in enumerate(schema.modalities):
        x = torch.rand(len(seen), *(n or 7 for n in m.shape), generator=noise)
        here = seen[:, i].view(-1, *[1] * (x.ndim - 1))
        if m.kind == "series":
            mask[m.name] = seen[:, i, None].repeat(1, x.shape[1])
            mask[m.name][:, 2] = False
            here = mask[m.name][..., None]
        inputs[m.name] = torch.where(here, x, NAN)
    return Batch(schema.names, inputs, seen, torch.arange(len(seen)), torch.arange(len(seen)) % 3, mask=mask)


class Held(Data):
    """These rows as a table."""

    def __init__(self, schema: Schema, rows: Batch) -> None:
        self.schema, self.name, self.rows = schema, "held", rows
        self.index, self.present, self.target = rows.index, rows.present, rows.target
        self.target_present = torch.ones(len(rows), dtype=torch.bool)

    def batch(self, rows: Tensor) -> Batch:
        return self.rows.rows(rows)

    def subset(self, rows: Tensor | Sequence[int]) -> Data:
        return Held(self.schema, self.rows.rows(torch.as_tensor(rows)))

    @property
    def fingerprint(self) -> str:
        return "held"


def lasting(steps: Sequence[int], declared: int | None = None) -> tuple[Schema, Splits]:
    """Rows of which each has a vector and so many steps of a series, which none but the last may lack."""
    schema = schema_of((SERIES[2], Modality("s", "series", (declared, 3))))
    rows = rows_of(
        Schema((SERIES[2], Modality("s", "series", (declared or max(steps), 3))), schema.task), rows=len(steps)
    )
    mask = torch.arange(rows.inputs["s"].shape[1]) < torch.tensor(steps)[:, None]
    rows.mask["s"], rows.present[:, 1] = mask, mask.any(1)
    rows.inputs["s"] = torch.where(mask[..., None], rows.inputs["s"].nan_to_num(0.5), NAN)
    held = Held(schema, rows)
    return schema, Splits(held, held)


def with_unseen_numbers(batch: Batch, name: str) -> Batch:
    """Of the vector the first number alone was seen in the first half of the rows."""
    x = batch.inputs[name].clone()
    seen = torch.ones(x.shape, dtype=torch.bool)
    seen[: len(x) // 2, 1:] = False
    x[~seen] = NAN
    return Batch(**{**vars(batch), "inputs": {**batch.inputs, name: x}, "mask": {**batch.mask, name: seen}})


def poisoned(batch: Batch, *names: str) -> Batch:
    inputs = {n: torch.full_like(x, NAN) if n in names else x for n, x in batch.inputs.items()}
    return Batch(batch.names, inputs, batch.present, batch.index, batch.target, mask=batch.mask)


class Says(nn.Module):
    """In place of a module: gives these, one call after the other."""

    def __init__(self, *answers: Tensor) -> None:
        super().__init__()
        self.answers, self.asked = list(answers), 0

    def forward(self, *_: Any) -> Tensor:
        self.asked += 1
        return self.answers[(self.asked - 1) % len(self.answers)]


def reached(loss: Tensor, module: nn.Module) -> bool:
    """Does a loss reach each parameter of a module (True), or none (False)?"""
    slopes = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    hit = {s is not None and bool(s.any()) for s in slopes}
    assert len(hit) == 1, "some of its parameters and others not"
    return hit.pop()


# MCTN -----------------------------------------------------------------------------------------------------------------
def test_mctn_has_the_published_losses() -> None:
    modalities = (Modality("s", "series", (2, 2)), Modality("t", "series", (2, 2)))
    model = MCTN(Schema(modalities, Regression()), dim=4, l2=0.0)
    target = torch.tensor([[[0.1, 0.4], [-0.2, 0.3]]])
    source = torch.tensor([[[0.3, -0.3], [0.6, 0.0]]])
    model.decoder = Says(torch.tensor([[[0, 0.5], [-0.1, 0.1]]]), torch.tensor([[[0.2, -0.1], [0.5, 0.2]]]))  # type: ignore[assignment]
    batch = Batch(("s", "t"), {"s": source, "t": target}, torch.ones(1, 2) > 0, torch.arange(1), torch.tensor([1.2]))
    losses = model.step(batch).losses
    assert losses["translation/t"].item() == pytest.approx(0.1 * 0.0175)
    assert losses["cycle"].item() == pytest.approx(0.1 * 0.0250)
    assert sorted(losses) == ["cycle", "task", "translation/t"]
    total = losses["translation/t"] + losses["cycle"] + abs(1.2 - 0.7)
    assert total.item() == pytest.approx(0.50425)


def test_mctn_attends_over_time_as_published() -> None:
    model = MCTN(schema_of(), dim=2)
    h = torch.tensor([[[0.2, -0.5], [1.0, 0.3], [-0.4, 0.8], [9.0, 9.0]]])
    model.attention.weight.data, model.attention.bias.data = torch.tensor([[0.6, -0.9]]), torch.tensor([0.1])
    alpha = model.attended(h, torch.tensor([[True, True, True, False]]))
    assert alpha[0].tolist() == pytest.approx([0.47320503, 0.39538904, 0.13140593, 0], abs=1e-6)
    assert (alpha[..., None] * h).sum(1)[0].tolist() == pytest.approx([0.43746768, -0.01286106], abs=1e-6)


def test_mctn_reads_the_source_alone() -> None:
    with seeded():
        model = MCTN(schema_of(), dim=8, source="b").eval()
    rows = rows_of(model.schema, [[1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 0]])
    answer = model(rows)
    assert torch.equal(model(poisoned(rows, "a", "c")).output, answer.output)
    assert answer.used.tolist() == [[False, True, False]] * 2 + [[False] * 3] * 2
    assert torch.equal(answer.output[2], model.prior)
    assert model.order == ("a", "c")
    with pytest.raises(UnknownName, match="zzz"):
        MCTN(schema_of(), source="zzz")


def test_mctn_has_the_gradients_of_the_paper() -> None:
    with seeded():
        model = MCTN(schema_of(), dim=8)
    losses = model.step(rows_of(model.schema)).losses
    assert sorted(losses) == ["cycle", "l2", "task", "translation/b", "translation/c"]
    for name, first, second, decoder in (
        ("task", True, True, False),
        ("translation/b", True, False, True),
        ("cycle", True, False, True),
        ("translation/c", True, True, False),
    ):
        assert reached(losses[name], model.encoder) == first, name
        assert reached(losses[name], model.deeper) == second, name
        assert reached(losses[name], model.decoder) == decoder, name
    assert reached(losses["task"], model.reader)
    linear: Any = model.task_head.linear
    weight = linear.weight
    assert losses["l2"].item() == pytest.approx(0.01 * float(np.square(weight.detach().numpy()).sum()), rel=1e-5)
    assert not list(model.encoders.parameters())


def test_mctn_translates_what_a_view_took_and_only_rows_that_have_both_sides() -> None:
    with seeded():
        model = MCTN(schema_of(), dim=8)
    whole = rows_of(model.schema, [[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0]])
    expected = model.step(whole).losses
    kept = whole.view(torch.tensor([True, False, False]))
    for name, loss in model.step(kept).losses.items():
        assert loss.item() == pytest.approx(expected[name].item()), name
    both = model.step(whole.rows(torch.tensor([0, 3]))).losses
    assert both["translation/b"].item() == pytest.approx(expected["translation/b"].item(), rel=1e-5)
    assert both["cycle"].item() == pytest.approx(expected["cycle"].item(), rel=1e-5)
    pair = model.step(whole.rows(torch.tensor([0, 1]))).losses
    assert pair["translation/c"].item() == pytest.approx(expected["translation/c"].item(), rel=1e-5)
    labels = whole.rows(torch.tensor([0, 1, 3]))
    assert model.step(labels).losses["task"].item() == pytest.approx(expected["task"].item(), rel=1e-5)
    none = model.step(whole.rows(torch.tensor([2]))).losses  # nobody has the source
    assert {name: loss.item() for name, loss in none.items() if name != "l2"} == dict.fromkeys(set(none) - {"l2"}, 0.0)


def test_mctn_recalls_the_source_as_it_was_before_an_augmentation() -> None:
    with seeded():
        model = MCTN(schema_of(), dim=8)
    clean = rows_of(model.schema)
    noisy = Batch(**{**vars(clean), "inputs": {**clean.inputs, "a": clean.inputs["a"] + 1}, "truth": clean})
    recalled = Says(torch.zeros(6, 6, 3), torch.zeros(6, 4, 3))
    model.decoder = recalled  # type: ignore[assignment]
    expected = clean.inputs["a"][clean.mask["a"]].square().mean()
    assert model.step(noisy).losses["cycle"].item() == pytest.approx(0.1 * expected.item(), rel=1e-5)


def test_mctn_of_other_kinds_has_fixed_targets_and_a_source_that_learns() -> None:
    with seeded():
        model, back = MCTN(schema_of(IMAGE), dim=8), MCTN(schema_of(IMAGE), dim=8, source="b")
    fixed = model.targets["b"]
    assert not [p for p in fixed.parameters() if p.requires_grad]
    assert reached(model.step(rows_of(model.schema)).losses["translation/b"], model.decoder.out)
    losses = back.step(rows_of(back.schema)).losses
    assert reached(losses["translation/a"], back.encoders)
    assert reached(losses["cycle"], back.encoders), "through the way there, not through its target"
    true = back.encode_one("b", rows_of(back.schema), back.encoders["b"]).tokens
    back.decoder = Says(torch.zeros(6, 1, 8), torch.zeros(6, 16, 8))  # type: ignore[assignment]
    cycle = back.step(rows_of(back.schema)).losses["cycle"]
    assert cycle.item() == pytest.approx(0.1 * true.square().mean().item(), rel=1e-5)
    assert not cycle.requires_grad


def test_mctn_of_two_and_of_four_modalities_and_without_weights() -> None:
    four = (*SERIES, Modality("d", "vector", (4,)))
    for modalities, deeper in ((SERIES[:2], 0), (four, 2)):
        model = MCTN(schema_of(modalities), dim=8)
        assert len(model.deeper) == len(model.deeper_decoders) == deeper
        model.step(rows_of(model.schema)).total.backward()
    plain = MCTN(schema_of(), dim=8, w_trans=0.0, w_cycle=0.0, w_deeper=0.0, l2=0.0)
    assert sorted(plain.step(rows_of(plain.schema)).losses) == ["task"]
    sizes = [sum(p.numel() for p in MCTN(schema_of(), w_cycle=w).parameters()) for w in (0.0, 0.1)]
    assert sizes[0] == sizes[1], "the way back has no parameters of its own"


def test_mctn_serves_neither_targets_nor_decoders() -> None:
    pipeline = create("mctn", schema_of(), dim=8)
    rows = rows_of(pipeline.schema)
    before = pipeline.eval()(rows).output
    pipeline.strip()
    names = {name.split(".")[1] for name, _ in pipeline.named_parameters()}
    assert names == {"encoder", "deeper", "reader", "attention", "task_head"}
    assert torch.equal(pipeline(rows).output, before)


# UniMF ----------------------------------------------------------------------------------------------------------------
def test_the_cls_mask_is_that_of_the_authors_code() -> None:
    assert cls_mask([2, 1, 1]).int().tolist() == [
        [0, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]


def test_what_was_written_stands_in_its_rows_alone() -> None:
    stream = Stream(torch.zeros(3, 2, 1), torch.tensor([[1, 1], [0, 0], [1, 0]]) > 0)
    rows, mask = torch.tensor([False, True, False]), torch.ones(1, 3, dtype=torch.bool)
    longer = filled(stream, rows, torch.ones(1, 3, 1), mask)
    assert longer.tokens[..., 0].tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert longer.mask.int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    shorter = filled(stream, rows, torch.full((1, 1, 1), NAN), ~mask[:, :1])
    assert torch.equal(shorter.tokens, stream.tokens)
    assert torch.equal(shorter.mask, stream.mask)


def test_unimf_of_two_blocks_mixes_modalities_and_of_one_does_not() -> None:
    with seeded():
        model = UniMF(schema_of(), dim=8, depth=2)
    features = model.encode(rows_of(model.schema))
    streams = list(features.streams.values())
    moved = [Stream(streams[0].tokens + 1, streams[0].mask), *streams[1:]]
    for depth, mixes in ((2, True), (1, False)):
        model.predictor.blocks = model.predictor.blocks[:depth]
        gap = (model.states(streams) != model.states(moved)).any(2)
        seen = torch.cat([s.mask for s in streams], 1)
        others = gap[:, 1 + streams[0].mask.shape[1] :][seen[:, streams[0].mask.shape[1] :]]
        assert bool(others.all()) == bool(others.any()) == mixes
        assert gap[:, 0].all()


def test_unimf_writes_what_is_absent_and_reads_nothing_of_it() -> None:
    with seeded():
        model = UniMF(schema_of(), dim=8).eval()
    rows = rows_of(model.schema, [[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    completed = model.complete(model.encode(rows))
    assert [bool(s.mask.any(1)[:4].all()) for s in completed.streams.values()] == [True] * 3
    assert not any(s.mask[4].any() for s in completed.streams.values())
    assert completed.present.equal(rows.present)
    assert completed.streams["b"].mask[2].all()
    answer = model(rows)
    assert answer.used.equal(rows.present)
    assert torch.equal(answer.output[4], model.prior)
    for row in range(5):
        alone = model(rows.rows(torch.tensor([row])))
        torch.testing.assert_close(alone.output[0], answer.output[row])


def test_unimf_is_taught_by_what_the_view_took_which_stays_as_it_is() -> None:
    with seeded():
        model = UniMF(schema_of(IMAGE), dim=8)
    whole = rows_of(model.schema)
    batch = whole.view(torch.tensor([[True, False, True]] * 3 + [[False, True, True]] * 3))
    losses = model.step(batch).losses
    assert sorted(losses) == ["task", "translation/a", "translation/b"]
    assert reached(losses["translation/b"], model.translators["b"])
    assert reached(losses["task"], model.translators["b"])
    assert not any(
        s is not None and bool(s.any())
        for s in torch.autograd.grad(
            losses["translation/b"], list(model.encoders.parameters()), allow_unused=True, retain_graph=True
        )
    ), "the image is a target there, and no source"
    assert reached(losses["translation/a"], model.encoders), "and a source here"
    true = model.encode(whole).streams["b"].tokens[:3]
    sources = [model.encode(whole).streams[n].rows(torch.arange(3)) for n in ("a", "c")]
    steps: list[Tensor] = []
    for t in range(16):
        past = Stream(true[:, :t], torch.ones(3, t, dtype=torch.bool))
        steps.append(model.translators["b"](sources, past)[:, -1])
    expected = np.square((torch.stack(steps, 1) - true).detach().numpy()).mean()
    assert losses["translation/b"].item() == pytest.approx(float(expected), rel=1e-4)
    half = UniMF(schema_of(IMAGE), dim=8, w_trans=0.5)
    half.load_state_dict(model.state_dict())
    assert half.step(batch).losses["translation/b"].item() == pytest.approx(0.5 * expected, rel=1e-4)


def test_unimf_trains_on_complete_rows_of_which_it_hides_parts() -> None:
    (stage,) = UniMF(schema_of()).stages()
    assert (stage.rows, stage.view) == ("complete", "subsets")
    nothing = UniMF(schema_of(), dim=8).step(rows_of(schema_of())).losses
    assert sorted(nothing) == ["task"]
    unguided = UniMF(schema_of(), dim=8, w_trans=0.0)
    hidden = rows_of(schema_of()).view(torch.tensor([True, False, True]))
    assert sorted(unguided.step(hidden).losses) == ["task"]


def test_unimf_answers_rows_of_an_open_length_alone_or_together() -> None:
    modalities = (Modality("a", "series", (None, 3)), SERIES[2])
    with seeded():
        model = UniMF(schema_of(modalities), dim=8).eval()
    short = Batch(
        ("a", "c"), {"a": torch.zeros(1, 1, 3), "c": torch.ones(1, 5)}, torch.tensor([[False, True]]), torch.arange(1),
        mask={"a": torch.zeros(1, 1, dtype=torch.bool)},
    )  # fmt: skip
    wide = torch.full((1, 90, 3), NAN)
    long = Batch(
        ("a", "c"), {"a": wide, "c": torch.ones(1, 5)}, short.present, short.index,
        mask={"a": torch.zeros(1, 90, dtype=torch.bool)},
    )  # fmt: skip
    torch.testing.assert_close(model(short).output, model(long).output)


def test_without_truth_the_translators_of_unimf_are_taught_the_mean() -> None:
    ablated: Any = build_ablation(UniMF, schema_of(), "translation", dim=8).model
    batch = rows_of(schema_of()).view(torch.tensor([True, True, False]))
    truth = ablated.truth(batch).streams["c"].tokens
    expected = batch.truth.inputs["c"].mean(0)  # type: ignore[union-attr]
    torch.testing.assert_close(truth[:, 0], expected.expand(6, 5))


# TransModality --------------------------------------------------------------------------------------------------------
def test_transmodality_has_the_published_total() -> None:
    modalities = (Modality("t", "series", (3, 2)), Modality("v", "series", (3, 2)), Modality("u", "series", (3, 2)))
    model = TransModality(schema_of(modalities), dim=4)
    y, x = torch.tensor([[[1, 2], [0.5, -1], [4, 4]]]), torch.tensor([[[0.5, 2.5], [1, 1], [NAN, NAN]]])
    mask = torch.tensor([[True, True, False]])
    zero = Stream(torch.zeros(1, 3, 2), mask)
    nobody = Stream(torch.zeros(1, 3, 4), mask)
    written = {
        "v": Written(nobody, nobody, y, torch.full((1, 3, 2), 0.1)),
        "u": Written(nobody, nobody, torch.full((1, 3, 2), 0.2), torch.full((1, 3, 2), -0.05)),
    }
    truth = {"t": zero, "v": Stream(x, mask), "u": zero}
    losses = model.translation(written, truth, torch.ones(1, 3, dtype=torch.bool), {})
    assert losses["forth/v"].item() == pytest.approx(8.75)
    p = torch.tensor([[0.7, 0.3], [0.2, 0.8]]).log()
    total = torch.stack([*losses.values()]).sum() + F.cross_entropy(p, torch.tensor([0, 1]))
    assert total.item() == pytest.approx(12.539909248)


def test_transmodality_gradients_go_through_both_halves() -> None:
    with seeded():
        model = TransModality(schema_of(), dim=8)
    losses = model.step(rows_of(model.schema)).losses
    assert sorted(losses) == ["back/b", "back/c", "forth/b", "forth/c", "task"]
    cell, other = model.cells["b"], model.cells["c"]
    for part, forth, back, task in (
        ("encoder", True, True, True),
        ("decoder", True, True, True),
        ("back_encoder", False, True, True),
        ("back_decoder", False, True, False),
        ("to_target", True, False, False),
        ("to_anchor", False, True, False),
    ):
        asked = (losses["forth/b"], losses["back/b"], losses["task"])
        assert [reached(loss, cell.get_submodule(part)) for loss in asked] == [forth, back, task], part
        assert not reached(losses["forth/b"], other.get_submodule(part))
    assert not reached(losses["forth/b"], model.fronts["b"])
    assert reached(losses["back/b"], model.fronts["a"])
    cut: Any = build_ablation(TransModality, schema_of(), "way back", dim=8).model
    losses = cut.step(rows_of(model.schema)).losses
    assert not reached(losses["back/b"], cut.cells["b"].encoder)
    assert reached(losses["back/b"], cut.cells["b"].back_encoder)
    assert reached(losses["task"], cut.cells["b"].decoder), (
        "the task still goes through the second encoder into the first"
    )
    assert reached(losses["task"], cut.cells["b"].back_encoder)


def test_transmodality_joins_the_means_of_four_encoders_and_three_features() -> None:
    with seeded():
        model = TransModality(schema_of(), dim=8).eval()
    rows = rows_of(model.schema, [[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]])
    fused = model.fuse(model.encode(rows)).tokens[:, 0].unflatten(1, (7, 8))
    zero = (fused == 0).all(2)
    assert zero.int().tolist() == [[0] * 7, [0] * 5 + [1, 0], [1] * 5 + [0, 0], [0] * 5 + [1, 1], [1] * 7]
    own, written = model.translate(model.encode(rows))
    first = own["a"].tokens[0][rows.mask["a"][0]]
    torch.testing.assert_close(fused[0, 4], first.mean(0))
    torch.testing.assert_close(fused[0, 0], written["b"].forth.tokens[0][rows.mask["a"][0]].mean(0))
    torch.testing.assert_close(fused[0, 1], written["b"].back.tokens[0].mean(0))
    torch.testing.assert_close(fused[0, 2:4], torch.stack([s.pooled()[0] for s in written["c"][:2]]))
    answer, linear = model(rows), model.task_head.get_submodule("linear")
    torch.testing.assert_close(answer.output[:4], linear(fused.flatten(1))[:4])
    assert answer.used.equal(rows.present)


def test_transmodality_asks_learned_vectors_or_the_target() -> None:
    with seeded():
        learned, given = (TransModality(schema_of(), dim=8, decoder_query=q).eval() for q in ("learned", "target"))
    rows = rows_of(learned.schema)
    moved = Batch(**{**vars(rows), "inputs": {**rows.inputs, "b": rows.inputs["b"] + 1}})
    for model, follows in ((learned, False), (given, True)):
        one, other = (model.translate(model.encode(each))[1]["b"] for each in (rows, moved))
        assert bool((one.target != other.target).any()) == follows
        assert torch.equal(one.forth.tokens, other.forth.tokens)
        assert bool((one.back.tokens != other.back.tokens).any()) == follows
        own = model.asked("b", model.fronts["b"](model.encode(rows).streams["b"]))
        assert torch.equal(own.mask, rows.mask["b"] if follows else torch.ones_like(rows.mask["b"]))
    absent = rows_of(learned.schema, [[1, 0, 1], [1, 1, 1]])
    assert given.asked("b", given.fronts["b"](given.encode(absent).streams["b"])).mask[0].all()
    given.step(absent).total.backward()
    assert [name for name, _ in given.named_parameters() if "start" in name] == []
    with pytest.raises(ConfigError, match="decoder_query"):
        TransModality(schema_of(), decoder_query="mean")


def test_transmodality_errors_are_of_rows_that_have_both_sides_seen_before_the_view() -> None:
    with seeded():
        model = TransModality(schema_of(), dim=8, anchor="b", dropout=0.0)
    assert list(model.cells) == ["a", "c"]
    whole = rows_of(model.schema, [[1, 1, 1], [0, 1, 1], [1, 0, 1]])
    expected = model.step(whole).losses
    kept = model.step(whole.view(torch.tensor([False, True, False]))).losses
    for name in ("forth/a", "back/a", "forth/c", "back/c"):
        assert kept[name].item() == pytest.approx(expected[name].item(), rel=1e-5), name
    first = model.step(whole.rows(torch.tensor([0]))).losses
    for name in ("forth/a", "back/a"):
        assert first[name].item() == pytest.approx(expected[name].item(), rel=1e-5), name
    written, true = model.translate(model.encode(whole))[1]["c"].target[:2, 0], whole.inputs["c"][:2]
    gap = np.abs((written - true).detach().numpy()).mean()
    assert expected["forth/c"].item() == pytest.approx(10 * float(gap), rel=1e-5)


def test_transmodality_leaves_the_targets_of_other_kinds_alone() -> None:
    with seeded():
        model = TransModality(schema_of(IMAGE), dim=8)
    losses = model.step(rows_of(model.schema)).losses
    slopes = torch.autograd.grad(
        losses["forth/b"], list(model.encoders.parameters()), retain_graph=True, allow_unused=True
    )
    assert not any(s is not None and bool(s.any()) for s in slopes)
    assert reached(losses["task"], model.encoders)


# all three ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["mctn", "unimf", "transmodality"])
def test_a_users_encoder_takes_the_place_of_raw_numbers(key: str) -> None:
    schema = schema_of(IMAGE)
    with own_encoders({"a": nn.Linear(5, 6), "c": nn.Linear(3, 4)}) as taken:
        model: Any = create(key, schema, dim=8, encoders={"a": nn.Linear(5, 6), "c": nn.Linear(3, 4)}).model
    assert model.sizes["a"].width == model.sizes["c"].width == 8
    assert not taken
    model.step(rows_of(schema).view(torch.tensor([[True, False, True], [False, True, True]] * 3))).total.backward()


@pytest.mark.parametrize("key", ["mctn", "unimf", "transmodality"])
def test_steps_that_do_not_exist_move_neither_losses_nor_answers(key: str) -> None:
    with seeded():
        model: Any = create(key, schema_of(), dim=8).model.eval()
    rows = rows_of(schema_of())
    other = Batch(**{**vars(rows), "inputs": {n: x.nan_to_num(7.0) for n, x in rows.inputs.items()}})
    keep = torch.tensor([[True, False, True], [True, True, False]] * 3)
    one, two = (model.step(each.view(keep)) for each in (rows, other))
    assert {n: x.item() for n, x in one.losses.items()} == {n: x.item() for n, x in two.losses.items()}
    assert torch.equal(model(rows).output, model(other).output)
    assert all(np.isfinite(x.item()) for x in one.losses.values())


@pytest.mark.parametrize("key", ["mctn", "unimf", "transmodality"])
def test_unseen_numbers_of_a_vector_are_no_target(key: str) -> None:
    """The error of a translation is that of the numbers that were seen, whatever the translator writes in place of others."""
    with seeded():
        model: Any = create(key, schema_of(), dim=8).model.eval()
    batch = with_unseen_numbers(rows_of(schema_of()), "c")
    step = model.step(batch.view(torch.tensor([True, True, False])))
    features = model.encode(batch)
    if key == "mctn":
        source = features.streams["a"]
        written = model.deeper_decoders[0](model.states(source)[1], source.mask, 1)
        given, weight, square = step.losses["translation/c"], 0.1, True
    elif key == "unimf":
        sources = [features.streams[n] for n in ("a", "b")]
        written, given = model.translators["c"].generate(sources, 1), step.losses["translation/c"]
        weight, square = 1.0, True
    else:
        written, given = model.translate(features)[1]["c"].target, step.losses["forth/c"]
        weight, square = 10.0, False
    gap = (written[:, 0] - batch.inputs["c"])[batch.mask["c"]].detach().numpy()
    assert gap.size == 3 * 1 + 3 * 5
    assert given.item() == pytest.approx(
        weight * float(np.square(gap).mean() if square else np.abs(gap).mean()), rel=1e-5
    )


@pytest.mark.parametrize("key", ["mctn", "transmodality"])
def test_unseen_numbers_of_a_source_are_not_to_be_recalled(key: str) -> None:
    name = {"mctn": "cycle", "transmodality": "back/a"}[key]
    with seeded():
        model: Any = (MCTN(schema_of(), 8, "c") if key == "mctn" else TransModality(schema_of(), 8, "c")).eval()
    batch = with_unseen_numbers(rows_of(schema_of()), "c")
    if key == "mctn":
        model.decoder = Says(torch.zeros(6, 4, 5), torch.zeros(6, 1, 5))
        expected = 0.1 * batch.inputs["c"][batch.mask["c"]].square().mean()
    else:
        recalled = model.translate(model.encode(batch))[1]["a"].anchor[:, 0]
        expected = 10 * (recalled - batch.inputs["c"])[batch.mask["c"]].abs().mean()
    assert model.step(batch).losses[name].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("declared", "steps", "expected"),
    [(None, (3, 9, 0, 5), 3), (None, (90, 8), 23), (8, (2, 6), 6), (8, (8, 2), 8)],
)
@pytest.mark.parametrize("key", ["unimf", "transmodality"])
def test_as_many_steps_are_written_as_the_longest_row_was_taught(
    key: str, declared: int | None, steps: tuple[int, ...], expected: int, tmp_path: Path
) -> None:
    """Of an open length a token is of 4 steps, of a declared one of up to 16 it is one step."""
    schema, data = lasting(steps, declared)
    pipeline = create(key, schema, dim=8).eval()
    model: Any = pipeline.model
    model.prepare(data, model.stages()[0])
    saved_models.save(pipeline, tmp_path / "model")
    again: Any = saved_models.load(tmp_path / "model")[0].model
    for each in (model, again):
        features = each.encode(data.train.batch(torch.arange(2)).only("c"))
        written = (
            each.complete(features).streams["s"].mask if key == "unimf" else each.translate(features)[1]["s"].target
        )
        assert written.shape[1] == max(expected, features.streams["s"].mask.shape[1] if key == "unimf" else 0)
        assert key == "transmodality" or written.sum(1).tolist() == [expected] * 2


def test_transmodality_is_told_of_steps_behind_the_sixteenth_token() -> None:
    schema, data = lasting((120, 120))
    with seeded():
        model: Any = create("transmodality", schema, dim=8).model.eval()
    model.prepare(data, model.stages()[0])
    rows = data.train.batch(torch.arange(2))
    late = Batch(**{**vars(rows), "inputs": {**rows.inputs, "s": rows.inputs["s"].clone()}})
    late.inputs["s"][:, 64:] += 100
    before, after = (model.step(each).losses["forth/s"].item() for each in (rows, late))
    assert after - before == pytest.approx(10 * 100 * 14 / 30, abs=2)  # 14 of 30 tokens, each of them 100 further away


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_saved_model_asks_for_the_encoders_of_targets_that_it_no_longer_holds(name: str, tmp_path: Path) -> None:
    schema, width = schema_of(), dict(zip("abc", (3, 2, 5), strict=True))[name]
    with seeded():
        own = nn.Linear(width, 6)
        pipeline = create("mctn", schema, dim=8, encoders={name: own}).eval()
    pipeline.strip()
    saved_models.save(pipeline, tmp_path / "model")
    with pytest.raises(ConfigError, match=f"your own encoder for {name}"):
        saved_models.load(tmp_path / "model")
    loaded: Any = saved_models.load(tmp_path / "model", {name: own})[0]
    assert torch.equal(loaded(rows_of(schema)).output, pipeline(rows_of(schema)).output)
    with own_encoders(loaded.own_encoders):
        loaded.begin_training()
    encoders = {**loaded.model.encoders, **loaded.model.targets}
    assert [n for n, each in encoders.items() if isinstance(each, UserEncoder)] == [name]


def test_a_stage_of_the_host_that_answers_nothing_has_no_distillation() -> None:
    schema = schema_of()
    with seeded():
        pipeline: Any = create("kd_mm", schema, host=create("cra", schema, dim=8).model)
    for _, stage in pipeline.stages():
        pipeline.model.clock.stage = stage.name
        step, own = pipeline.training_step(rows_of(schema)), pipeline.model.step(rows_of(schema))
        assert ("kd" in step.losses) == (own.prediction is not None) == (step.prediction is not None)
        assert own.losses.keys() - step.losses.keys() == set()
