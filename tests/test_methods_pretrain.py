"""TIP and FLAVA: the numbers of their code, what each stage moves, and what pretraining learns; patches of every kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kintsugi.core import Batch, Modality, Schema, Splits
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.kind import KINDS
from kintsugi.encoders.patches import Columns, PatchEncoder, Patches
from kintsugi.methods.general import flava as module
from kintsugi.methods.general.flava import FLAVA
from kintsugi.methods.missing.hybrid.tip import TIP, Strangers
from kintsugi.tasks import Classification
from kintsugi.testing.fixture import Fixture
from kintsugi.testing.toys import mixed

TASK = Classification(["a", "b", "c"])


def schema_of(*modalities: Modality) -> Schema:
    return Schema(modalities, TASK)


def vectors(*widths: int) -> Schema:
    return schema_of(*(Modality(f"m{i}", "vector", (width,)) for i, width in enumerate(widths)))


def batch_of(inputs: dict[str, Tensor], present: Tensor | None = None, mask: dict[str, Tensor] | None = None) -> Batch:
    rows = len(next(iter(inputs.values())))
    here = torch.ones(rows, len(inputs), dtype=torch.bool) if present is None else present
    return Batch(tuple(inputs), inputs, here, torch.arange(rows), torch.arange(rows) % 3, mask=mask or {})


def moved_by(model: Any, batch: Batch, stage: str) -> set[str]:
    """Top modules of the parameters that the losses of a stage reach."""
    model.clock.stage = stage
    losses = model.step(batch).losses
    names = [name for name, _ in model.named_parameters()]
    slopes = torch.autograd.grad(sum(losses.values()), list(model.parameters()), allow_unused=True)
    return {n.split(".")[0] for n, slope in zip(names, slopes, strict=True) if slope is not None and bool(slope.any())}


# TIP ------------------------------------------------------------------------------------------------------------------
def test_the_table_is_the_first_table_or_the_first_vector_or_the_one_named() -> None:
    image, text = Modality("i", "image", (1, 8, 8)), Modality("t", "text", (16,), vocab=257)
    vector, other = Modality("v", "vector", (4,)), Modality("w", "vector", (3,))
    table, late = Modality("x", "tabular", (5,)), Modality("y", "tabular", (2,))
    assert TIP(schema_of(image, vector, table, late)).table == "x"
    assert TIP(schema_of(image, vector, other)).table == "v"
    assert TIP(schema_of(image, vector, other), table="w").table == "w"
    for schema, given in ((schema_of(image, vector), "i"), (schema_of(image, text), None)):
        with pytest.raises(ConfigError, match="only a table or a vector"):
            TIP(schema, table=given)
    with pytest.raises(UnknownName, match="'z'"):
        TIP(schema_of(image, vector), table="z")


def test_rebuilding_has_the_published_number(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_of(Modality("x", "tabular", (4,), categories=(1, 2, 0, 0)), Modality("v", "vector", (3,)))
    model: Any = TIP(schema, dim=5)
    model.rebuilt_category, model.rebuilt_number = (
        torch.nn.Identity(),
        Pick(0),
    )  # tokens of width 5 are logits of 5 codes
    category = [[[1.0, 0, 0, 0, 0], [0, 0, 2, 0, 0]], [[0, 1, 0, 0, 1], [0, 0, 0, 1, 0]]]
    number = torch.zeros(2, 2, 5)
    number[..., 0] = torch.tensor([[0.5, 1.0], [0.0, -1.0]])
    tokens = torch.cat([torch.tensor(category), number], 1)
    x = torch.tensor([[0.0, 1.0, 0.2, float("nan")], [1.0, 2.0, 1.0, 0.0]])
    masked = torch.tensor([[True, False, True, False], [False, True, True, True]])
    assert model.rebuilding(tokens, x, masked).item() == pytest.approx(1.05074953)


class Pick(torch.nn.Module):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.at : self.at + 1]


def test_each_stage_of_tip_moves_what_it_is_about() -> None:
    torch.manual_seed(0)
    model, data = Fixture(TIP, kind="tabular").pipeline().model, Fixture(TIP, kind="tabular").batch(16)
    body = {"encoders", "context", "multimodal", "norm"}
    own = {"project_table", "project_other", "matched", "rebuilt_number", "rebuilt_category"}
    assert moved_by(model, data, "pretrain") == body | own
    assert moved_by(model, data, "tune") == body | {"heads"}
    stages = {stage.name: {p.split(".")[0].rstrip("*") for p in stage.trainable} for stage in model.stages()}
    assert stages["pretrain"] == body | {"project_", "matched", "rebuilt_"}
    assert stages["tune"] == body | {"heads"}


def test_rows_that_have_no_partner_are_rebuilt_alone() -> None:
    torch.manual_seed(0)
    model: Any = TIP(vectors(4, 3))
    x = {"m0": torch.randn(3, 4), "m1": torch.full((3, 3), float("nan"))}
    x["m1"][0] = 0.0
    model.clock.stage = "pretrain"
    present = torch.tensor([[True, True], [True, False], [True, False]])
    losses = model.step(batch_of(x, present)).losses
    assert list(losses) == ["rebuilding"]
    losses["rebuilding"].backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    only = model.step(batch_of({"m0": x["m1"][1:, [0, 0, 0, 0]], "m1": x["m1"][[0, 0]]}, ~present[1:])).losses
    assert only["rebuilding"].item() == 0


def test_an_absent_table_is_one_of_missing_cells() -> None:
    torch.manual_seed(0)
    model: Any = TIP(vectors(4, 3)).eval()
    x = {"m0": torch.randn(2, 4), "m1": torch.randn(2, 3)}
    absent = batch_of(x, torch.tensor([[False, True]] * 2))
    empty = batch_of(x, mask={"m0": torch.zeros(2, 4, dtype=torch.bool)})
    torch.testing.assert_close(model(absent).output, model(empty).output)
    assert not torch.equal(model(absent).output, model(batch_of(x)).output)


def test_the_single_head_has_no_others_and_tip_of_two_says_what_each_alone_would() -> None:
    torch.manual_seed(0)
    model: Any = TIP(vectors(4, 3))
    single = TIP(vectors(4, 3), ensemble=False)
    x = {"m0": torch.randn(2, 4), "m1": torch.randn(2, 3)}
    assert set(single.heads) == {"multimodal"}
    assert not single(batch_of(x)).unimodal
    answer = model(batch_of(x))
    assert set(answer.unimodal) == {"m0", "m1"}
    with torch.no_grad():
        for head in (model.heads["multimodal"], model.heads["other"]):
            head.linear.weight.zero_()
            head.linear.bias.zero_()
    silent = model(batch_of(x))
    torch.testing.assert_close(silent.unimodal["m0"], (3 * silent.output).softmax(1))
    assert not torch.equal(model(batch_of({**x, "m0": -x["m0"]})).output, silent.output)


def test_columns_are_drawn_from_those_that_have_them() -> None:
    torch.manual_seed(0)
    model = TIP(vectors(10, 3))
    x = torch.arange(40.0).view(4, 10)
    seen = torch.ones(4, 10, dtype=torch.bool)
    seen[2:, :5] = False
    drawn = model.redrawn(torch.where(seen, x, float("nan")), seen)
    assert torch.equal(drawn.isnan(), ~seen)
    assert int((drawn[seen] % 10 != x[seen] % 10).sum()) == 0
    changes = torch.stack([(model.redrawn(x, seen) != x).sum(1) for _ in range(100)]).sum(0)
    assert bool(
        (changes[:2] > 150).all()
    )  # of 300 drawn: half of the donors of a column are the row itself, or 3 of 4 others
    assert model.columns_of(x, 3).sum(1).tolist() == [3] * 4


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_the_rows_is_tuned_on_drawn_columns(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = TIP(vectors(10, 3), augment=share)
    model.clock.stage = "tune"
    monkeypatch.setattr(model, "redrawn", lambda x, seen: x + 100)
    shown: list[Tensor] = []
    model.encoders["m0"].register_forward_pre_hook(lambda _, args: shown.append(args[0]))
    x = torch.randn(5, 10)
    model.step(batch_of({"m0": x, "m1": torch.randn(5, 3)}))
    torch.testing.assert_close(shown[0], x + 100 * share)


@pytest.mark.parametrize(("cls", "helps"), [(TIP, True), (Strangers, False)])
def test_cells_are_rebuilt_from_the_other_modality_where_it_is_their_own(cls: type[TIP], helps: bool) -> None:
    torch.manual_seed(0)
    model: Any = cls(vectors(4, 4), dim=16, depth=1)
    model.clock.stage = "pretrain"
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        x = torch.randn(32, 4)
        optimiser.zero_grad()
        sum(model.step(batch_of({"m0": x, "m1": x})).losses.values()).backward()
        optimiser.step()
    x, errors = torch.randn(256, 4), []
    masked = model.columns_of(x, 2)
    for other in (x, x.roll(1, 0)):
        batch = batch_of({"m0": x, "m1": other}, mask={"m0": ~masked})
        features = model.encode(batch)
        tokens, visible, _ = model.beside(features)
        guess = model.rebuilt_number(model.together(features.streams["m0"].tokens, tokens, visible)[:, 1:])[..., 0]
        errors.append(float((guess - x)[masked].detach().square().mean()))
    assert (errors[0] < 0.5 * errors[1]) is helps


# FLAVA ----------------------------------------------------------------------------------------------------------------
def flava(**hyper: Any) -> tuple[Any, Batch]:
    fixture = Fixture(FLAVA)
    model: Any = fixture.pipeline(**hyper).model
    model.prepare(fixture.splits, model.stages()[0])
    return model, fixture.batch(40)


def test_each_stage_of_flava_moves_what_it_is_about_and_pairs_no_heads_of_single_rows() -> None:
    model, batch = flava()
    torch.manual_seed(0)
    assert moved_by(model, batch, "pretrain") == {"encoders", "both", "paired", "project", "scale", "match"}
    assert moved_by(model, batch.only("m0"), "pretrain") == {"encoders", "alone"}
    assert moved_by(model, batch, "tune") == {"encoders", "both", "heads", "head_both"}
    assert moved_by(model, batch.only("m1"), "tune") == {"encoders", "heads"}


def test_the_mask_moves_codes_and_verdict_but_not_the_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = flava(mismatched=0.0)
    model.clock.stage = "pretrain"
    losses = []
    for first in (0, 3):
        hide = torch.zeros(40, 8, dtype=torch.bool)
        hide[:, first] = True
        monkeypatch.setattr(model, "hidden", lambda name, exists, hide=hide: hide)
        losses.append({name: float(x.detach()) for name, x in model.step(batch).losses.items()})
    changed = {name for name in losses[0] if losses[0][name] != losses[1][name]}
    assert changed == {"paired_m0", "paired_m1", "matching"}


def test_an_only_pair_always_matches_and_of_none_matching_all_are_shown() -> None:
    model, batch = flava(mismatched=1.0)
    model.clock.stage = "pretrain"
    alone = model.step(batch.rows(torch.tensor([0]))).losses
    assert alone["contrast"].item() == 0
    many = model.step(batch).losses  # none matches: no anchor, and the loss of codes is of all
    assert many["contrast"].item() == 0
    assert many["paired_m0"].item() > 0


@pytest.mark.parametrize(("pairs", "wanted"), [(1, 0.0), (2, 0.4), (8, 0.4)])
def test_pairs_are_mismatched_at_the_rate_however_few_they_are(
    monkeypatch: pytest.MonkeyPatch, pairs: int, wanted: float
) -> None:
    model, batch = flava(mismatched=0.4, depth=1)
    model.clock.stage, few, verdicts = "pretrain", batch.rows(torch.arange(pairs)), list[Tensor]()

    def noted(logits: Tensor, matched: Tensor) -> Tensor:
        verdicts.append(matched)
        return logits.sum()

    monkeypatch.setattr(module, "matching", noted)
    torch.manual_seed(0)
    for _ in range(1200 // pairs if pairs > 1 else 20):
        model.of_pairs(*prepared(model, few))
    assert 1 - torch.cat(verdicts).float().mean().item() == pytest.approx(wanted, abs=0.06)


def prepared(model: Any, batch: Batch) -> tuple[Any, ...]:
    """What the losses of pairs are given, where all rows are."""
    rows = torch.arange(len(batch))
    cut = {m: model.cut(m, batch) for m in batch.names}
    hide = {m: torch.arange(8).eq(3).expand(len(batch), 8) for m in batch.names}
    return rows, dict.fromkeys(batch.names, rows), cut, hide, {m: model.codebooks[m](x.tokens) for m, x in cut.items()}


@pytest.mark.parametrize(("part", "names"), [("unpaired rows", ("m0",)), ("masked pairs", ("m0", "m1"))])
def test_without_the_mechanism_a_row_that_is_alone_of_its_sort_is_asked_for_another_rows_codes(
    monkeypatch: pytest.MonkeyPatch, part: str, names: tuple[str, ...]
) -> None:
    fixture = Fixture(FLAVA, ablated=part)
    model: Any = fixture.pipeline().model
    model.prepare(fixture.splits, model.stages()[0])
    model.clock.stage, asked = "pretrain", list[Tensor]()
    if part == "unpaired rows":
        present = torch.tensor([[1, 1], [1, 0], [1, 1]]) > 0
    else:
        present = torch.tensor([[1, 0], [1, 1], [0, 1]]) > 0
    batch = fixture.batch(3).where(present)
    codes = {m: model.codebooks[m](model.cut(m, batch).tokens) for m in names}
    others = {"m0": 2 if part == "unpaired rows" else 0, "m1": 2}  # the next row that has it

    def noted(logits: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        asked.append(target)
        return logits.sum()

    monkeypatch.setattr(module, "masked_cross_entropy", noted)
    model.step(batch)
    alone = [target for target in asked if len(target) == 1]
    alone = alone[:1] if part == "unpaired rows" else alone[-2:]
    for name, target in zip(names, alone, strict=True):
        assert torch.equal(target[0], codes[name][others[name]])
        assert not torch.equal(target[0], codes[name][1])


def test_shares_of_what_exists_are_masked() -> None:
    torch.manual_seed(0)
    model: Any = FLAVA(schema_of(Modality("i", "image", (1, 8, 8)), Modality("t", "text", (16,), vocab=257)))
    exists = torch.rand(200, 16) < 0.6
    for name, share in (("i", 0.38), ("t", 0.15)):
        hidden = model.hidden(name, exists)
        wanted = np.maximum(1, np.round(np.float32(share) * exists.sum(1).numpy()))
        assert np.array_equal(hidden.sum(1).numpy(), wanted)
        assert not bool((hidden & ~exists).any())
        assert bool((hidden.float().mean(0) > 0).all())
    assert not model.hidden("t", torch.zeros(3, 16, dtype=torch.bool)).any()


def test_pairs_tell_masked_patches_from_each_other() -> None:
    torch.manual_seed(0)
    model: Any = FLAVA(vectors(4, 4), dim=16, depth=1, masked=0.5, mismatched=0.0, codes=2)
    for book in model.codebooks.values():
        book.fit(torch.randn(8000, 1).sign() + 0.05 * torch.randn(8000, 1))
    model.clock.stage = "pretrain"
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(160):
        x = torch.randn(32, 4).sign() + 0.1 * torch.randn(32, 4)
        optimiser.zero_grad()
        sum(model.step(batch_of({"m0": x, "m1": x})).losses.values()).backward()
        optimiser.step()
    x = torch.randn(256, 4).sign()
    torch.manual_seed(1)
    right = float(model.step(batch_of({"m0": x, "m1": x})).losses["paired_m0"].detach())
    torch.manual_seed(1)
    strange = float(model.step(batch_of({"m0": x, "m1": x.roll(1, 0)})).losses["paired_m0"].detach())
    assert right < 0.9 * strange


def test_what_only_pretraining_needs_is_not_served() -> None:
    for cls, gone in ((TIP, "project_table"), (FLAVA, "codebooks")):
        pipeline = Fixture(cls, epochs=2).pipeline()
        model: Any = pipeline.model
        model.strip()
        assert not any(name.startswith(gone) for name in model.state_dict())
        model.make_whole()
        assert any(name.startswith(gone) for name in model.state_dict())


# patches --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_comes_in_sixteen_patches_or_fewer(kind: str) -> None:
    drawn = torch.Generator().manual_seed(0)
    x, mask = KINDS[kind].toy_rows(torch.rand(6, generator=drawn), drawn)
    modality = Modality("m", kind, tuple(x.shape[1:]), rate=400.0 if kind == "audio" else None)
    patches = Patches(modality)
    cut = patches(x, mask)
    assert cut.tokens.shape == (6, cut.mask.shape[1], patches.width)
    assert 1 <= cut.mask.shape[1] <= 16
    assert bool(cut.tokens.isfinite().all())
    assert not bool(cut.tokens[~cut.mask].any())
    if mask is not None and kind != "text":
        gone = torch.where(mask.view(*mask.shape, *[1] * (x.ndim - 2)), x, float("nan"))
        torch.testing.assert_close(patches(gone, mask).tokens, cut.tokens)
    encoder = PatchEncoder(modality, 8).eval()
    states = encoder(x, mask)
    assert states.tokens.shape == (6, 1 + cut.mask.shape[1], 8)
    torch.testing.assert_close(encoder(x[2:3], None if mask is None else mask[2:3]).tokens, states.tokens[2:3])


def test_a_patch_of_a_picture_is_a_square_of_it() -> None:
    x = torch.arange(128.0).view(1, 2, 8, 8)
    cut = Patches(Modality("i", "image", (2, 8, 8)))(x)
    assert cut.grid == (4, 4)
    assert cut.tokens[0, 6].tolist() == x[0, :, 2:4, 4:6].flatten().tolist()
    open_size = Patches(Modality("i", "image", (1, None, 3)))
    assert (open_size.width, open_size(torch.rand(2, 1, 30, 3)).tokens.shape) == (4, (2, 12, 4))


def test_windows_of_ids_are_counts_and_of_cells_side_by_side() -> None:
    text = Patches(Modality("t", "text", (32,), vocab=1000))
    x = torch.zeros(1, 32, dtype=torch.int64)
    x[0, :3] = torch.tensor([5, 261, 7])
    cut = text(x, x > 0)
    assert cut.mask[0].tolist() == [True, True] + [False] * 14
    assert cut.tokens[0, 0, 5].item() == 1  # 261 is 5 modulo 256; the mean over two
    assert cut.tokens[0, 1, 7].item() == 1
    table = Patches(Modality("x", "tabular", (3,), categories=(0, 2, 0)))
    cells = table(torch.tensor([[0.5, 2.0, 9.0]]), torch.tensor([[True, True, False]]))
    assert cells.tokens[0].tolist() == [[0.5, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert cells.mask[0].tolist() == [True, True, False]
    vector = Patches(Modality("v", "vector", (10,)))
    assert vector(torch.arange(10.0)[None]).tokens[0].tolist() == [[2.0 * i, 2.0 * i + 1] for i in range(5)]


def test_each_column_has_a_map_of_its_own() -> None:
    torch.manual_seed(0)
    layer, x = Columns(3, 2, 4), torch.randn(5, 3, 2)
    expected = [x[:, i].numpy() @ layer.weight[i].detach().numpy() + layer.bias[i].detach().numpy() for i in range(3)]
    np.testing.assert_allclose(layer(x).detach(), np.stack(expected, 1), atol=1e-5)


def test_what_is_masked_is_the_mask_token_at_its_place() -> None:
    torch.manual_seed(0)
    encoder = PatchEncoder(Modality("v", "vector", (4,)), 8).eval()
    x, hidden = torch.randn(1, 4), torch.tensor([[False, True, False, False]])
    one, other = (encoder.read(encoder.patches(y), hidden).tokens for y in (x, x + torch.tensor([0, 7.0, 0, 0])))
    assert torch.equal(one, other)
    moved = encoder.read(encoder.patches(x), hidden.roll(1, 1)).tokens
    assert not torch.equal(one, moved)


def test_a_width_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="width of a patch"):
        Patches(Modality("s", "series", (5, None)))


def test_flava_reads_a_table_and_a_text_with_holes() -> None:
    data = mixed("classification", absent=0.3, poison=True, kinds=("text", "table"))
    train, val, _ = data.split()
    torch.manual_seed(0)
    model: Any = FLAVA(data.schema)
    model.prepare(Splits(train, val), model.stages()[0])
    model.clock.stage = "pretrain"
    batch = data.batch(torch.arange(60))
    losses = model.step(batch).losses
    assert set(losses) == {"alone_text", "alone_table", "contrast", "paired_text", "paired_table", "matching"}
    assert all(bool(x.isfinite()) for x in losses.values())
    none = replace(batch, inputs={n: torch.zeros_like(x) for n, x in batch.inputs.items()}).only()
    assert torch.equal(model(none).output, model.prior.expand(60, -1))
