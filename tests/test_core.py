"""What flows and what acts: batches, features, stages, cards, registries, components, pipelines, models, tasks."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.components.teachers import UnimodalTeacher
from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.component import Component
from kintsugi.core.encoder import Encoder, UserEncoder, own_encoders
from kintsugi.core.errors import ConfigError, DataError, NonFiniteLoss, UnknownName
from kintsugi.core.features import Features, Fused, Stream
from kintsugi.core.methods import (
    METHODS,
    arguments,
    build_ablation,
    card,
    component_class,
    create,
    list_methods,
    register,
    variant,
)
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.registry import Registry
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.stage import Stage, table_and_rows
from kintsugi.core.wrappers import Answer, Inner, Monitor, Restorer, Runner, Strategy
from kintsugi.tasks import Classification, Multilabel, Regression
from kintsugi.testing import build, everything, mixed
from kintsugi.testing.fixture import Fixture, toy

DIM = 8


def schema_of(modalities: int = 3, dim: int = 5) -> Schema:
    return Schema(
        tuple(Modality(f"m{i}", "vector", (dim,)) for i in range(modalities)), Classification(("a", "b", "c", "d"))
    )


def holes(rows: int = 12, modalities: int = 3, seed: int = 0) -> Batch:
    """Rows with holes, a mask on the first modality, context of several kinds; NaN wherever nothing may be read."""
    noise = torch.Generator().manual_seed(seed)
    names = tuple(f"m{i}" for i in range(modalities))
    present = torch.rand(rows, modalities, generator=noise) < 0.6
    inputs = {name: torch.randn(rows, 5, generator=noise) for name in names}
    for i, name in enumerate(names):
        inputs[name][~present[:, i]] = torch.nan
    mask = torch.rand(rows, 5, generator=noise) < 0.7
    mask[:, 0] = True
    mask &= present[:, :1]
    return Batch(
        names, inputs, present, torch.arange(rows) + 100, torch.arange(rows) % 4, torch.arange(rows) % 5 > 0,
        torch.rand(rows, generator=noise), {"m0": mask},
        {"speaker": [f"s{i}" for i in range(rows)], "time": torch.arange(rows).float(), "site": "north"},
    )  # fmt: skip


keeps = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=12, max_size=12).map(torch.tensor)


def agrees(batch: Batch) -> bool:
    """``present`` and the masks say the same."""
    return all(torch.equal(batch.present[:, batch.names.index(n)], m.any(1)) for n, m in batch.mask.items())


# batch --------------------------------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@forall(keep=keeps)
def test_where_only_takes_away_and_keeps_masks_in_step(keep: Tensor) -> None:
    batch = holes()
    seen = batch.where(keep)
    assert torch.equal(seen.present, batch.present & keep)
    assert agrees(batch)
    assert agrees(seen)
    assert seen.truth is None
    assert not bool((seen.mask["m0"] & ~batch.mask["m0"]).any())


@settings(max_examples=30, deadline=None)
@forall(first=keeps, second=keeps)
def test_a_view_remembers_the_first_truth_and_dropped_is_its_complement(first: Tensor, second: Tensor) -> None:
    batch = holes()
    before = batch.present.clone()
    seen = batch.view(first).view(second)
    assert seen.truth is batch
    assert torch.equal(batch.present, before)
    gone = seen.dropped()
    assert gone.truth is None
    assert not bool((gone.present & seen.present).any())
    assert torch.equal(gone.present | seen.present, batch.present)
    assert agrees(gone)


def test_nothing_is_dropped_where_no_view_was_taken() -> None:
    assert not bool(holes().dropped().present.any())


def test_one_row_of_keep_goes_for_all_rows() -> None:
    batch = holes()
    assert torch.equal(batch.where(torch.tensor([True, False, True])).present[:, 1], torch.zeros(12, dtype=torch.bool))


def test_only_keeps_the_named_modalities_and_knows_no_others() -> None:
    batch = holes()
    seen = batch.only("m2")
    assert torch.equal(seen.present[:, 2], batch.present[:, 2])
    assert not bool(seen.present[:, :2].any())
    assert not bool(batch.only().present.any())
    with pytest.raises(DataError, match=r"'m9'.*m0, m1, m2"):
        batch.only("m9")


@pytest.mark.parametrize("keep", [torch.tensor([3, 1, 1]), torch.arange(12) % 4 == 1], ids=["positions", "bool"])
def test_rows_takes_everything_along(keep: Tensor) -> None:
    batch = holes().view(torch.tensor([True, True, False]))
    positions = keep.nonzero().flatten() if keep.dtype == torch.bool else keep
    some = batch.rows(keep)
    assert len(some) == len(positions)
    assert torch.equal(some.index, positions + 100)
    assert torch.equal(some.mask["m0"], batch.mask["m0"][positions])
    assert torch.equal(some.present, batch.present[positions])
    assert some.context["speaker"] == [f"s{i}" for i in positions]
    assert torch.equal(some.context["time"], positions.float())
    assert some.context["site"] == "north"
    assert some.truth is not None
    assert torch.equal(some.truth.index, some.index)
    assert batch.truth is not None
    assert torch.equal(some.truth.present, batch.truth.present[positions])
    for name in ("target", "target_present", "weight"):
        assert torch.equal(getattr(some, name), getattr(batch, name)[positions])


def test_map_reaches_every_tensor_once_and_leaves_the_batch_alone() -> None:
    batch = replace(holes(), severity=torch.zeros(12, 3)).view(torch.tensor([True, True, False]))
    before = batch.present.clone()
    turned = batch.map(lambda x: x.flip(0))
    assert torch.equal(batch.present, before)
    assert torch.equal(turned.present, before.flip(0))
    back = turned.map(lambda x: x.flip(0))
    assert torch.equal(back.index, batch.index)
    assert turned.truth is not None
    assert torch.equal(turned.truth.index, batch.index.flip(0))
    seen: list[int] = []
    batch.map(lambda x: seen.append(x.data_ptr()) or x)  # type: ignore[func-returns-value]
    assert len(seen) == 2 * (3 + 2 + 3 + 1 + 1)  # inputs, present, index, three of the target, mask, severity; twice


def test_to_moves_truth_and_context_too() -> None:
    batch = holes().view(torch.tensor([True, False, True])).to("meta")
    assert batch.device.type == "meta"
    assert batch.truth is not None
    assert batch.truth.inputs["m1"].device.type == "meta"
    assert batch.context["time"].device.type == "meta"
    assert batch.context["site"] == "north"


# features -----------------------------------------------------------------------------------------------------------
def features() -> Features:
    """Two streams of different lengths, the second a map with a finer one; the last token of row 0 does not exist."""
    noise = torch.Generator().manual_seed(1)
    mask = torch.ones(3, 2, dtype=torch.bool)
    mask[0, 1] = False
    series = Stream(torch.randn(3, 2, DIM, generator=noise) * mask[..., None], mask)
    grid = Stream(
        torch.randn(3, 4, DIM, generator=noise), torch.ones(3, 4, dtype=torch.bool), (2, 2),
        (torch.randn(3, 5, 4, 4, generator=noise),),
    )  # fmt: skip
    return Features({"series": series, "map": grid}, torch.ones(3, 2, dtype=torch.bool))


def test_pooling_counts_only_tokens_that_exist() -> None:
    f = features()
    pooled = f.pooled()
    assert pooled.shape == (3, 2, DIM)
    assert torch.allclose(pooled[0, 0], f.streams["series"].tokens[0, 0])
    assert torch.allclose(pooled[1, 0], f.streams["series"].tokens[1].mean(0))
    assert torch.equal(f.flat(), pooled.flatten(1))
    none = replace(f.streams["series"], mask=torch.zeros(3, 2, dtype=torch.bool))
    assert torch.equal(none.pooled(), torch.zeros(3, DIM))


def test_pooling_one_token_is_that_token_or_zero() -> None:
    stream = Stream.vector(torch.ones(2, DIM))
    assert torch.equal(stream.pooled(), torch.ones(2, DIM))
    assert torch.equal(replace(stream, mask=torch.tensor([[True], [False]])).pooled()[1], torch.zeros(DIM))


def test_where_zeroes_tokens_masks_and_finer_maps_even_where_they_are_nan() -> None:
    f = features()
    f.streams["map"].tokens[2] = torch.nan
    seen = f.where(torch.tensor([[True, True], [False, True], [True, False]]))
    assert torch.equal(seen.present, torch.tensor([[True, True], [False, True], [True, False]]))
    assert not bool(seen.streams["series"].tokens[1].any())
    assert not bool(seen.streams["series"].mask[1].any())
    grid = seen.streams["map"]
    assert not bool(grid.tokens[2].any())
    assert not bool(grid.finer[0][2].any())
    assert torch.equal(grid.finer[0][:2], f.streams["map"].finer[0][:2])
    assert bool(f.streams["series"].mask[1].all()), "the original is changed"


def test_tokens_come_in_the_order_of_the_streams() -> None:
    f = features()
    tokens, mask, kinds = f.tokens()
    assert tokens.shape == (3, 6, DIM)
    assert kinds.tolist() == [0, 0, 1, 1, 1, 1]
    assert torch.equal(tokens[:, :2], f.streams["series"].tokens)
    assert torch.equal(mask[:, :2], f.streams["series"].mask)
    assert torch.equal(tokens[:, 2:], f.streams["map"].tokens)


def test_replace_keeps_order_and_says_present_only_when_told() -> None:
    f = features().where(torch.tensor([True, False]))
    other = Stream.vector(torch.ones(3, DIM))
    filled = f.replace({"series": other})
    assert list(filled.streams) == ["series", "map"]
    assert filled.streams["series"] is other
    assert torch.equal(filled.present, f.present)
    assert bool(f.replace({"map": other}, present=torch.ones(3, 2, dtype=torch.bool)).present.all())


def test_rows_of_features_and_spec_of_a_stream() -> None:
    f = features().rows(torch.tensor([2, 0]))
    assert torch.equal(f.streams["map"].finer[0][1], features().streams["map"].finer[0][0])
    assert len(f.present) == 2
    spec = f.streams["map"].spec
    assert (spec.dim, spec.grid, spec.finer) == (DIM, (2, 2), ((5, (4, 4)),))


# prediction and step ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 6)], ids=["one answer", "an answer a step"])
def test_the_prior_speaks_where_there_is_too_little(shape: tuple[int, ...]) -> None:
    output = torch.randn(shape)
    output[1] = torch.nan
    used = torch.ones(3, 2, dtype=torch.bool)
    enough, prior = torch.tensor([True, False, True]), torch.arange(float(shape[-1]))
    answer = Prediction(output, used).fall_back(enough, prior)
    assert torch.equal(answer.output[1], prior.expand(shape[1:]))
    assert torch.equal(answer.output[[0, 2]], output[[0, 2]])
    assert answer.used.tolist() == [[True, True], [False, False], [True, True]]
    assert bool(used.all()), "the original is changed"


def test_the_prior_takes_the_dtype_of_the_answer() -> None:
    answer = Prediction(torch.zeros(1, 2, dtype=torch.bfloat16), torch.ones(1, 1, dtype=torch.bool))
    assert answer.fall_back(torch.tensor([False]), torch.ones(2)).output.dtype == torch.bfloat16


def test_terms_add_up_and_a_second_of_the_same_name_is_refused() -> None:
    step = Step({"task": torch.tensor(1.0)})
    more = step.plus(kd=torch.tensor(2.0, dtype=torch.bfloat16))
    assert float(more.total) == 3.0
    assert list(step.losses) == ["task"]
    with pytest.raises(ConfigError, match="kd"):
        more.plus(kd=torch.tensor(0.0))


# stage, card, registry ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fraction", [0.0, -1.0])
def test_a_stage_needs_a_fraction_of_the_epochs(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"'warm'.*fraction"):
        Stage("warm", fraction)


@pytest.mark.parametrize("where", ["rows", "auxiliary"])
def test_a_stage_knows_its_rows(where: str) -> None:
    with pytest.raises(ConfigError, match=r"'warm'.*'completed'.*complete.*has:<modality>"):
        Stage("warm", **{where: "completed"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'warm'.*'test/all'"):
        Stage("warm", **{where: "test/all"})  # type: ignore[arg-type]
    for rows in ("has:image", "val", "val/complete", "auxiliary/unlabelled", "auxiliary/has:image", "has:a/b"):
        assert getattr(Stage("warm", **{where: rows}), where) == rows  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "table", "kind"),
    [
        ("all", "train", "all"), ("has:image", "train", "has:image"), ("has:a/b", "train", "has:a/b"), ("val", "val", "all"),
        ("val/complete", "val", "complete"), ("auxiliary/has:image", "auxiliary", "has:image"), ("train/all", "train", "all"),
    ],
)  # fmt: skip
def test_rows_of_another_table_have_its_name_before_a_slash(rows: str, table: str, kind: str) -> None:
    assert table_and_rows(rows) == (table, kind)


CARD: dict[str, Any] = {
    "key": "mine", "name": "Mine", "leaf": "general", "faithful": ("all",), "claims": ("it does",),
    "imperfection": ("missing at test",), "premise": "there is some", "confidence": "high",
}  # fmt: skip


@pytest.mark.parametrize("name", CARD)
def test_a_card_must_not_leave_out_what_a_page_is_made_of(name: str) -> None:
    Card(**CARD)
    with pytest.raises((ConfigError, UnknownName), match=f"{name} is|'{name}'|unknown leaf"):
        Card(**{**CARD, name: type(CARD[name])()})
    if name != "key":
        with pytest.raises(ConfigError, match=f"'mine': {name} must be said"):
            Card(**{n: value for n, value in CARD.items() if n != name})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("leaf", "missing/generativ", "leaf of card 'mine': 'missing/generativ'; did you mean 'missing/generative'"),
        ("imperfection", ("missing",), "imperfection of card 'mine': 'missing'; did you mean 'missing"),
        ("premis", "there is some", "field of card 'mine': 'premis'; did you mean 'premise'"),
        ("tasks", "regression", r"'mine': tasks is a tuple of texts: \('one',\) with a comma, not 'regression'"),
        ("tasks", frozenset({"regression"}), "'mine': tasks is a tuple"),
        ("version", 0, "'mine': version counts from 1, not 0"),
        ("version", True, "'mine': version is a whole number, not True"),
        ("joint", 1, "'mine': joint is True or False, not 1"),
        ("confidence", "sure", "'mine': confidence is low, medium or high, not 'sure'"),
        ("modalities", (3, 1), r"'mine': modalities is \(least, most\)"),
        ("modalities", (2, "x"), r"'mine': modalities is \(least, most\)"),
        ("modalities", 2, r"'mine': modalities is \(least, most\), of 1 or more, .* not 2"),
    ],
)
def test_a_strange_card_is_refused_in_the_user_s_words(field: str, value: object, message: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=message):
        Card(**{**CARD, field: value})


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown method 'mmim'; did you mean 'mmin'") as caught:
        METHODS["mmim"]
    assert "mmin" in caught.value.known
    assert isinstance(caught.value, KeyError)
    with pytest.raises(UnknownName, match=r"known: .*mean_fusion"):
        METHODS["qqqqqqqq"]


class First:
    pass


class Second:
    pass


def test_a_name_is_taken_once() -> None:
    names: Registry[type] = Registry("thing", "json")
    names.register("a")(First)
    names.register("a")(First)  # the same again
    with pytest.raises(ConfigError, match="'a' is registered twice"):
        names.register("a")(Second)
    namesake = type("First", (), {"__module__": "elsewhere"})
    with pytest.raises(ConfigError, match="'a' is registered twice"):
        names.register("a")(namesake)
    again = type("First", (), {"__module__": First.__module__})  # the same source, imported again
    names.register("a")(again)
    assert names["a"] is again


def package(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    home = folder / name
    home.mkdir()
    (home / "__init__.py").write_text("")
    for file, text in files.items():
        (home / f"{file}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))


def test_a_registry_walks_its_home_when_it_is_first_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import builtins\nbuiltins.kt_shelf.register({!r})({})"
    shelf: Registry[int] = Registry("thing", "kt_shelf")
    monkeypatch.setattr("builtins.kt_shelf", shelf, raising=False)
    package(tmp_path, "kt_shelf", monkeypatch, one=text.format("one", 1), two=text.format("two", 2), _heavy="1 / 0")
    shelf.register("zero")(0)
    assert shelf["zero"] == 0
    assert "kt_shelf.one" not in sys.modules, "what is known already needs no walk"
    assert list(shelf) == ["one", "two", "zero"]
    assert "kt_shelf.one" in sys.modules
    assert shelf.names("*o") == ["two", "zero"]
    assert "two" in shelf
    assert len(shelf) == 3


def test_a_home_that_fails_to_import_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "kt_broken", monkeypatch, bad="import a_library_that_is_not_there")
    shelf: Registry[int] = Registry("thing", "kt_broken")
    for _ in range(2):
        with pytest.raises(ImportError, match="a_library_that_is_not_there"):
            shelf["x"]


def test_methods_are_listed_by_key_leaf_and_task() -> None:
    assert "mmin" in list_methods("missing/*")
    assert "mean_fusion" not in list_methods("missing/*")
    assert list_methods("mmi*") == ["mmin"]
    assert list_methods("missing/generative/mmin") == ["mmin"]
    assert list_methods(task="no such task") == []
    assert "m3care" in list_methods(premise="neighbours")
    assert "mmin" not in list_methods(premise="neighbours")
    both = list_methods("missing/*", "regression", "redundant")
    assert both == [key for key in list_methods("missing/*", "regression") if "redundant" in card(key).worlds]
    assert "mmin" in both
    with pytest.raises(UnknownName, match="unknown premise 'neighbors'; did you mean 'neighbours'"):
        list_methods(premise="neighbors")
    assert card("mmin").name == "MMIN"


# creating a method --------------------------------------------------------------------------------------------------
def test_create_refuses_what_the_method_does_not_take() -> None:
    with pytest.raises(UnknownName, match="argument of mmin 'block'; did you mean 'blocks'"):
        create("mmin", schema_of(), block=3)
    with pytest.raises(ConfigError, match="mmin takes 2 to any number of modalities; this schema has 1: m0"):
        create("mmin", schema_of(1))
    with pytest.raises(ConfigError, match="takes 2 to 8 modalities"):
        create("missing_aware_prompts", schema_of(9))
    with pytest.raises(ConfigError, match="no host"):
        create("mmin", schema_of(), host=create("mean_fusion", schema_of()).model)
    with pytest.raises(ConfigError, match="no model of early_fusion takes an encoder for m0"):
        create("early_fusion", schema_of(), encoders={"m0": nn.Linear(5, 4)})
    with pytest.raises(UnknownName, match="modality 'm7'"):
        create("mean_fusion", schema_of(), encoders={"m7": nn.Linear(5, 4)})


def test_create_refuses_a_task_that_the_card_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = METHODS["mmin"]
    monkeypatch.setattr(cls, "card", replace(cls.card, tasks=("regression",)))
    with pytest.raises(ConfigError, match="mmin does not solve classification; it solves regression"):
        create("mmin", schema_of())


def test_arguments_are_those_of_constructor_and_recipe() -> None:
    found = arguments(METHODS["ccm"])
    assert {"dim", "latent", "beta"} <= found.keys(), "of the model's constructor"
    assert found["quantile"] == 0.99, "of the recipe"
    assert not found.keys() & {"self", "schema", "host", "encoders", "hyper"}
    pipeline = create("ccm", schema_of(), dim=DIM, quantile=0.9)
    assert pipeline.monitors[0].hyper["quantile"] == 0.9
    assert pipeline.model.dim == DIM


@pytest.mark.parametrize(
    ("how", "what", "said"),
    [
        ({"encoders": {"m0": None}}, ConfigError, "modality 'm0' is a NoneType, and an nn.Module is wanted"),
        ({"encoders": {"m0": lambda x: x}}, ConfigError, "modality 'm0' is a function, and an nn.Module is wanted"),
        ({"encoders": {"m0": nn.Identity}}, ConfigError, "modality 'm0' is the class Identity"),
        ({"encoders": [nn.Identity()]}, ConfigError, "encoders is a mapping from modality to module, not a list"),
        ({"host": 5}, ConfigError, "kd_mm is a model, such as .*, not 5"),
        ({"schema": 5}, UnknownName, "argument of kd_mm 'schema'"),
        ({"key": "mmin"}, UnknownName, "argument of kd_mm 'key'"),
    ],
)
def test_create_refuses_what_is_of_another_kind(how: dict[str, Any], what: type[Exception], said: str) -> None:
    with pytest.raises(what, match=said):
        create("kd_mm", schema_of(), **how)


@pytest.mark.parametrize("key", [None, 5, ["mmin"]])
def test_create_takes_a_key(key: Any) -> None:
    with pytest.raises(ConfigError, match="named by its key, such as 'mean_fusion'"):
        create(key, schema_of())


def test_encoders_beside_a_host_belong_to_the_host() -> None:
    host = create("mean_fusion", schema_of(), dim=DIM).model
    with pytest.raises(ConfigError, match="encoder for m0: the host was given, so its encoders are its own"):
        create("corruption_augmentation", schema_of(), host=host, encoders={"m0": nn.Linear(5, 4)})


def test_an_argument_under_its_name_of_before_and_of_today_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS["mmin"], "renamed", {"depth": "blocks"})
    with pytest.warns(UserWarning, match="mmin: the argument 'depth' is called 'blocks' now"):
        assert create("mmin", schema_of(), dim=DIM, depth=3).model.hyper["blocks"] == 3
    with pytest.raises(ConfigError, match="'depth' is called 'blocks' now, and both are given; leave 'depth' out"):
        create("mmin", schema_of(), depth=3, blocks=4)


@pytest.fixture
def variants() -> Iterator[tuple[type[Component], type[Component]]]:
    """A variant of ccm, and one of that; neither stays."""
    ccm = METHODS["ccm"]
    first = variant(replace(ccm.card, key="ccm_a"), ccm, quantile=0.9, dim=DIM)
    yield first, variant(replace(ccm.card, key="ccm_b"), first, quantile=0.8)
    for key in ("ccm_a", "ccm_b"):
        del METHODS._classes[key]


def test_a_variant_has_its_own_defaults_wherever_they_are_asked_for(
    variants: tuple[type[Component], type[Component]],
) -> None:
    for cls, quantile in zip(variants, (0.9, 0.8), strict=True):
        usual = arguments(cls)
        assert (usual["quantile"], usual["dim"]) == (quantile, DIM)
        assert usual.keys() == arguments(METHODS["ccm"]).keys()
        schema = schema_of()
        for pipeline in (create(cls.card.key, schema), build(cls, schema), Fixture(cls).pipeline()):
            assert (pipeline.monitors[0].hyper["quantile"], pipeline.model.dim) == (quantile, DIM)
        assert build(cls, schema, ablated=True).model.dim == DIM
    assert arguments(METHODS["ccm"])["quantile"] == 0.99


def test_a_variant_of_an_argument_that_does_not_exist_is_refused_when_it_is_made() -> None:
    ccm = METHODS["ccm"]
    with pytest.raises(
        UnknownName, match="argument of ccm, of which ccm_c is a variant, 'quantil'; did you mean 'quantile'"
    ):
        variant(replace(ccm.card, key="ccm_c"), ccm, quantil=0.9)
    assert "ccm_c" not in METHODS


def test_arguments_without_names_are_refused_when_a_method_is_registered() -> None:
    card_of = METHODS.card("mean_fusion")
    with pytest.raises(ConfigError, match="'starred': sizes can only be given by place"):

        @register(replace(card_of, key="starred"))
        class Starred(Model):
            def __init__(self, schema: Schema, *sizes: int) -> None:
                super().__init__(schema)

    assert "starred" not in METHODS


# parts --------------------------------------------------------------------------------------------------------------
class Plain(Model):
    """A model whose arguments come in every way."""

    def __init__(self, schema: Schema, dim: int = 4, *, tilt: float = 0.5, **rest: Any) -> None:
        super().__init__(schema, dim)
        self.tilt, self.rest = tilt, rest


def test_hyper_holds_the_arguments_as_given() -> None:
    own = nn.Linear(5, 4)
    with own_encoders({"m1": own}) as taken:
        part = Plain(schema_of(), 6, tilt=0.25, colour="red")
    assert taken == {"m1"}
    assert part.hyper == {"dim": 6, "tilt": 0.25, "colour": "red"}
    assert part.own_encoders == ("m1",)
    assert Plain(schema_of()).hyper == {}
    assert Plain(schema_of()).own_encoders == ()
    again = Plain(schema_of(), **part.hyper)
    assert (again.dim, again.tilt, again.rest) == (6, 0.25, {"colour": "red"})


@pytest.mark.parametrize("key", ["smil", "missing_aware_prompts", "kd_mm", "early_fusion", "ccm"])
def test_a_part_can_be_built_again_from_its_hyper_also_where_the_mechanism_is_off(key: str) -> None:
    hyper = {"hidden": DIM} if key == "early_fusion" else {"dim": DIM}
    for _, part in build_ablation(METHODS[key], schema_of(), **hyper).named_components():
        again = type(part)(schema_of(), **part.hyper)  # type: ignore[call-arg]
        assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in part.named_parameters()}


def test_a_part_that_takes_other_arguments_says_so() -> None:
    with pytest.raises(TypeError, match="too many positional arguments"):
        Plain(schema_of(), 6, 7)  # type: ignore[misc]


def test_a_deep_copy_is_independent_and_keeps_what_it_was_given() -> None:
    part = Plain(schema_of(), 6, tilt=0.25)
    twin = copy.deepcopy(part)
    assert twin.hyper == part.hyper
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    assert not torch.equal(next(part.parameters()), next(twin.parameters()))


def test_a_deep_copy_of_a_pipeline_stands_around_the_copied_model() -> None:
    pipeline = create("ccm", schema_of(), dim=DIM)
    twin = copy.deepcopy(pipeline)
    assert twin.monitors[0].host is twin.model  # type: ignore[union-attr]
    assert twin.model is not pipeline.model
    distilled = create("kd_mm", schema_of(), dim=DIM)
    copied = copy.deepcopy(distilled)
    assert all(component.pipeline_in_use is copied for _, component in copied.named_components())
    assert copied.shared["teacher_m1"] is not distilled.shared["teacher_m1"]
    assert copied.strategies[0].teachers["m1"] is copied.shared["teacher_m1"]  # type: ignore[union-attr,index]


def test_parameters_of_a_host_have_one_owner() -> None:
    pipeline = create("ccm", schema_of(), dim=DIM)
    names = [name for name, _ in pipeline.named_parameters(remove_duplicate=False)]
    assert not [name for name in names if name.startswith("monitors.")]


def test_a_frozen_copy_never_moves_and_stays_in_evaluation_mode() -> None:
    part = Plain(schema_of(), DIM)
    twin = part.keep_frozen("teacher", part.encoders)
    before = copy.deepcopy(twin.state_dict())
    assert part.get_submodule("teacher") is twin
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in part.encoders.parameters())
    with torch.no_grad():
        for p in part.encoders.parameters():
            p.add_(1)
    assert all(torch.equal(before[n], t) for n, t in twin.state_dict().items())
    Pipeline(part).train()
    assert part.training
    assert not any(m.training for m in twin.modules())
    assert part.frozen == {"teacher": ("encoders", False)}
    with pytest.raises(ConfigError, match=r"'other'.*not one of Plain's own"):
        part.keep_frozen("other", nn.Linear(1, 1))


def test_only_parts_in_the_files_of_methods_have_an_address() -> None:
    assert component_class("mmin") is METHODS["mmin"]
    assert component_class("ccm.DetectRejectCorrect").__name__ == "DetectRejectCorrect"
    assert component_class("component:teacher_vote").__name__ == "TeacherVote"
    for address in (
        "mmin.os",
        "mmin.Trainer",
        "mmin.Fixture",
        "mmin.Model",
        "mmin.nn",
        "mmin.mse",
        "mmin.MMIN.claims",
    ):
        with pytest.raises(UnknownName, match="component of mmin"):
            component_class(address)
    with pytest.raises(UnknownName, match="unknown method 'os'"):
        component_class("os.system")


# pipeline -----------------------------------------------------------------------------------------------------------
class Recorder(Model):
    """Notes which rows and which auxiliary rows arrive."""

    def __init__(self, schema: Schema, log: list[str]) -> None:
        super().__init__(schema, DIM)
        self.log = log

    def step(self, batch: Batch) -> Step:
        self.log.append(f"model {_name(batch)}+{_name(batch.auxiliary)}")
        return Step({"task": self.prior.sum()})


def _name(batch: Batch | None) -> str:
    return "none" if batch is None else str(int(batch.index[0]))


class Around(Strategy):
    """Notes when it is entered and left, and with which rows; hands on others in their place if it has some."""

    def __init__(self, schema: Schema, name: str, log: list[str], auxiliary: Batch | None = None) -> None:
        super().__init__()
        self.name, self.log, self.auxiliary = name, log, auxiliary

    def step(self, batch: Batch, inner: Inner) -> Step:
        self.log.append(f"{self.name} {_name(batch)}+{_name(batch.auxiliary)}")
        step = inner(batch if self.auxiliary is None else replace(batch, auxiliary=self.auxiliary))
        self.log.append(f"/{self.name}")
        return step.plus(**{self.name: torch.tensor(1.0)})

    def adjust_stages(self, stages: list[Stage]) -> list[Stage]:
        return [replace(stage, name=f"{self.name}({stage.name})") for stage in stages]

    def finish(self, model: Model) -> Model:
        self.log.append(f"finish {self.name}")
        return model


class Watch(Monitor):
    def __init__(self, schema: Schema, name: str, log: list[str]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def calibrate(self, data: Any) -> None:
        self.log.append(f"calibrate {self.name}")

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        self.log.append(self.name)
        answer = inner(batch)
        self.log.append(f"/{self.name}")
        return answer


def at(index: int) -> Batch:
    return replace(holes(), index=torch.full((12,), index))


def test_the_first_strategy_is_outermost() -> None:
    log: list[str] = []
    schema = schema_of()
    pipeline = Pipeline(Recorder(schema, log), strategies=[Around(schema, "a", log), Around(schema, "b", log)])
    step = pipeline.training_step(replace(at(3), auxiliary=at(7)))
    assert log == ["a 3+7", "b 3+7", "model 3+7", "/b", "/a"]
    assert list(step.losses) == ["task", "b", "a"]
    assert [stage.name for _, stage in pipeline.stages()] == ["a(b(train))"]
    pipeline.finish()
    assert log[-2:] == ["finish b", "finish a"]


def test_inner_gets_the_auxiliary_batch_that_the_strategy_around_it_hands_on() -> None:
    schema = schema_of()
    for place, seen in ((0, "1777"), (1, "1177"), (2, "1117")):
        log: list[str] = []
        around = [Around(schema, name, log, at(7) if i == place else None) for i, name in enumerate("abc")]
        Pipeline(Recorder(schema, log), strategies=around).training_step(replace(at(3), auxiliary=at(1)))
        assert "".join(line[-1] for line in log if "+" in line) == seen, f"given by strategy {place}"


def test_the_first_monitor_is_outermost_and_the_innermost_calibrates_first() -> None:
    log: list[str] = []
    schema = schema_of()
    pipeline = Pipeline(Model(schema, DIM), monitors=[Watch(schema, "a", log), Watch(schema, "b", log)]).eval()
    answer = pipeline(holes())
    assert log == ["a", "b", "/b", "/a"]
    assert torch.equal(answer.output, pipeline.model(holes()).output)
    pipeline.calibrate(None)  # type: ignore[arg-type]
    assert log[4:] == ["calibrate b", "calibrate a"]
    cached = pipeline(holes(), model=lambda batch: Prediction(torch.zeros(12, 4), batch.present))
    assert not bool(cached.output.any()), "what is given does not stand in for the model"


class Owner(Strategy):
    def __init__(self, schema: Schema | None = None) -> None:
        super().__init__()

    def fit(self, trainer: Runner, pipeline: Pipeline, data: Any) -> None:
        raise NotImplementedError


def test_two_strategies_cannot_both_own_the_loop() -> None:
    Pipeline(Model(schema_of(), DIM), strategies=[Owner(), Around(schema_of(), "a", [])])
    with pytest.raises(ConfigError, match="Owner, Owner"):
        Pipeline(Model(schema_of(), DIM), strategies=[Owner(), Owner()])


class Shift(Restorer):
    """Adds a learned number to what the first modality shows."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(1.0))

    def stages(self) -> list[Stage]:
        return [Stage("mend")]

    def restore(self, batch: Batch) -> Batch:
        return replace(batch, inputs={**batch.inputs, "m0": batch.inputs["m0"] + self.by})

    def step(self, batch: Batch) -> Step:
        return Step({"mend": self.by.square()})


def test_a_restorer_stands_before_the_model_and_is_trained_first() -> None:
    pipeline = Pipeline(Model(schema_of(), DIM), restore=Shift(schema_of())).eval()
    assert [(part, stage.name) for part, stage in pipeline.stages()] == [("restore", "mend"), ("model", "train")]
    assert [path for path, _ in pipeline.named_components()] == ["restore", "model"]
    batch = toy(rows=24, dim=5).batch(torch.arange(8))
    shifted = replace(batch, inputs={**batch.inputs, "m0": batch.inputs["m0"] + 1})
    assert torch.equal(pipeline(batch).output, pipeline.model(shifted).output)
    pipeline.training_step(batch).total.backward()
    assert pipeline.restore is not None
    assert next(pipeline.restore.parameters()).grad is None, "the model's loss moves the restorer"
    assert list(pipeline.training_step(batch, trains="restore").losses) == ["mend"]


# encoders of the user's ---------------------------------------------------------------------------------------------
class Give(nn.Module):
    """Returns whatever a function makes of its input."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(x)


SERIES = Modality("pulse", "series", (6, 3))


@pytest.mark.parametrize(
    ("change", "tokens", "grid"),
    [
        (lambda x: x.flatten(1), 1, None),
        (lambda x: x, 6, None),
        (lambda x: x.transpose(1, 2).unflatten(2, (2, 3)), 6, (2, 3)),
    ],
    ids=["[R, D]", "[R, T, D]", "[R, C, H, W]"],
)
def test_a_module_may_return_a_vector_steps_or_a_map(change: Any, tokens: int, grid: Any) -> None:
    encoder = UserEncoder(SERIES, DIM, Give(change))
    stream = encoder(torch.randn(4, 6, 3))
    assert stream.tokens.shape == (4, tokens, DIM)
    assert stream.mask.shape == (4, tokens)
    assert bool(stream.mask.all())
    assert stream.grid == grid


def test_a_map_is_laid_out_row_by_row() -> None:
    encoder = UserEncoder(SERIES, 2, Give(lambda x: torch.arange(12.0).view(1, 2, 2, 3).expand(len(x), 2, 2, 3)))
    assert encoder(torch.zeros(1, 6, 3)).tokens[0].tolist() == [[i, i + 6] for i in range(6)]


@pytest.mark.parametrize(
    "change",
    [lambda x: x.sum((1, 2)), lambda x: x[:1], lambda x: x[..., None, None, None], lambda x: (x, x), lambda x: x @ x],
    ids=["[R]", "other rows", "five axes", "a tuple", "fails"],
)
def test_a_module_that_returns_something_else_is_refused_by_the_modality_it_was_given_for(change: Any) -> None:
    with pytest.raises(ConfigError, match="modality 'pulse'"):
        UserEncoder(SERIES, DIM, Give(change))


def test_a_module_that_changes_its_mind_is_refused_when_it_does() -> None:
    encoder = UserEncoder(SERIES, DIM, Give(lambda x: x if len(x) == 2 else x.sum((1, 2))))
    with pytest.raises(ConfigError, match=r"modality 'pulse'.*R = 3 rows; it returned \[3\]"):
        encoder(torch.zeros(3, 6, 3))


def test_masked_steps_reach_neither_the_module_nor_the_output() -> None:
    encoder = UserEncoder(SERIES, DIM, Give(lambda x: x))
    x, mask = torch.randn(2, 6, 3), torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    dirty = torch.where(mask[..., None], x, torch.nan)
    stream = encoder(dirty, mask)
    assert torch.equal(stream.mask, mask)
    assert torch.equal(stream.tokens, encoder(torch.where(mask[..., None], x, 0), mask).tokens)
    assert not bool(stream.tokens[1, 4:].any())
    pooled = UserEncoder(SERIES, DIM, Give(lambda x: x.sum(1)))
    assert bool(torch.isfinite(pooled(dirty, mask).tokens).all())


def test_a_module_is_copied_so_that_nobody_shares_it() -> None:
    own = nn.Sequential(nn.Linear(5, DIM), nn.BatchNorm1d(DIM))
    own[1].eval()
    before = copy.deepcopy(own.state_dict())
    pipeline = create("kd_mm", schema_of(), dim=DIM, encoders={"m0": own})
    teacher = pipeline.strategies[0].teachers["m0"]  # type: ignore[union-attr,index]
    with torch.no_grad():
        for p in pipeline.model.parameters():
            p.add_(1)
    assert torch.equal(teacher.encoders["m0"].module[0].weight, before["0.weight"])
    assert all(torch.equal(before[n], t) for n, t in own.state_dict().items())
    assert [m.training for m in own] == [True, False], "building a model changes the mode of the user's module"


def test_batchnorm_is_not_asked_to_normalise_a_single_row() -> None:
    own = nn.Sequential(nn.Linear(5, DIM), nn.BatchNorm1d(DIM))
    with own_encoders({"m0": own}):
        model = Model(schema_of(), DIM).train()
    norm = model.encoders["m0"].module[1]  # type: ignore[union-attr,index]
    batch = toy(rows=24, dim=5).batch(torch.arange(8))
    for rows in (1, 0):  # one row present; none, which goes through the encoder as a row of weight zero
        seen = batch.where(torch.tensor([[i < rows, True, True] for i in range(8)]))
        before = norm.running_mean.clone()
        model.step(seen).total.backward()
        assert torch.equal(norm.running_mean, before)
        assert norm.training
    model.step(batch).total.backward()
    assert not torch.equal(norm.running_mean, torch.zeros(DIM)), "with many rows it does normalise"


def test_a_part_of_a_module_that_was_frozen_stays_so_after_a_single_row() -> None:
    encoder = UserEncoder(SERIES, DIM, nn.Sequential(nn.Flatten(), nn.Linear(18, DIM), nn.BatchNorm1d(DIM))).train()
    encoder.module[2].eval()  # type: ignore[index]
    encoder(torch.randn(1, 6, 3))
    assert encoder.module.training
    assert not encoder.module[2].training  # type: ignore[index]


# encoding -----------------------------------------------------------------------------------------------------------
class Spy(Encoder):
    """Hands on to another encoder and notes the rows that it is shown."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        self.shown.append(x)
        stream: Stream = self.inner(x, mask)
        return stream


def test_encoders_see_present_rows_and_nothing_else() -> None:
    data = mixed("classification", absent=0.4, poison=True)
    model = Model(data.schema, DIM).eval()
    for name in data.schema.names:
        model.encoders[name] = Spy(model.encoders[name])
    batch = everything(data)
    features = model.encode(batch)
    for column, name in enumerate(data.schema.names):
        (shown,) = model.encoders[name].shown  # type: ignore[misc]
        here = batch.present[:, column]
        assert torch.equal(torch.nan_to_num(shown), torch.nan_to_num(batch.inputs[name][here]))
        stream = features.streams[name]
        assert bool(torch.isfinite(stream.tokens).all())
        assert not bool(stream.tokens[~here].any())
        assert not bool(stream.mask[~here].any())
        assert bool(stream.mask[here].any(1).all())


def test_a_modality_that_nobody_has_is_encoded_as_one_row_of_zeros() -> None:
    data = mixed("classification", absent=0.4, poison=True)
    model = Model(data.schema, DIM)
    for name in data.schema.names:
        model.encoders[name] = Spy(model.encoders[name])
    features = model.encode(everything(data).only("image"))
    for name in ("text", "table"):
        (shown,) = model.encoders[name].shown  # type: ignore[misc]
        assert len(shown) == 1
        assert not bool(shown.any())
        assert not bool(features.streams[name].tokens.any())
        assert features.streams[name].tokens.requires_grad, "in several processes the gradient of each must exist"


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_of_few_rows_has_the_shapes_of_a_large_one(rows: int) -> None:
    data = mixed("classification", absent=0.4, modalities=4)
    model = Model(data.schema, DIM).eval()
    full, few = model.encode(everything(data)), model.encode(data.batch(torch.arange(rows)))
    for name, stream in few.streams.items():
        assert stream.tokens.shape == (rows, *full.streams[name].tokens.shape[1:])
    assert model(data.batch(torch.arange(rows))).output.shape == (rows, 3)


def test_under_mixed_precision_rows_are_scattered_in_the_encoder_s_dtype() -> None:
    with own_encoders({"m0": nn.Linear(5, DIM)}):
        model = Model(schema_of(2), DIM).eval()
    batch = toy(rows=24, dim=5, modalities=2).batch(torch.arange(6))
    batch = batch.where(torch.tensor([[i % 2 == 0, True] for i in range(6)]))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        stream = model.encode(batch).streams["m0"]
        alone = model.encoders["m0"](batch.inputs["m0"][::2])
        assert stream.tokens.dtype == torch.bfloat16
        assert torch.equal(stream.tokens[::2], alone.tokens)
        assert not bool(stream.tokens[1::2].any())
        assert bool(torch.isfinite(model(batch).output).all())


def test_a_model_of_few_modalities_reads_a_batch_of_many() -> None:
    schema = schema_of(3)
    teacher = UnimodalTeacher(schema, "m2", DIM).eval()
    batch = toy(rows=24, dim=5).batch(torch.arange(8))
    alone = Batch(("m2",), {"m2": batch.inputs["m2"]}, batch.present[:, 2:], batch.index, batch.target)
    assert torch.equal(teacher(batch).output, teacher(alone).output)
    seen = batch.where(torch.tensor([[True, True, i > 3] for i in range(8)]))
    answer = teacher(seen)
    assert answer.used.shape == (8, 1)
    assert torch.equal(answer.used[:, 0], seen.present[:, 2])
    assert torch.equal(answer.output[:4], teacher.prior.expand(4, -1))
    turned = replace(batch, names=("m2", "m1", "m0"), present=seen.present.flip(1))
    assert torch.equal(teacher(turned).output, answer.output), "columns are told by name"


def test_the_mean_counts_present_modalities_and_a_row_with_nothing_gets_the_prior() -> None:
    model = Model(schema_of(), DIM).eval()
    model.prior.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    batch = toy(rows=24, dim=5).batch(torch.arange(3))
    batch = batch.where(torch.tensor([[True, True, True], [True, False, False], [False, False, False]]))
    features = model.encode(batch)
    fused = model.fuse(features)
    assert torch.allclose(fused.pooled()[0], features.pooled()[0].mean(0))
    assert torch.equal(fused.pooled()[1], features.pooled()[1, 0])
    assert fused.weights is not None
    assert fused.weights.tolist() == [pytest.approx([1 / 3] * 3), [1, 0, 0], [0, 0, 0]]
    answer = model(batch)
    assert torch.equal(answer.output[2], model.prior)
    assert answer.used.tolist() == batch.present.tolist()


def test_other_weights_can_be_tried_without_touching_one_s_own() -> None:
    model = Model(schema_of(), DIM).eval()
    batch = toy(rows=24, dim=5).batch(torch.arange(4))
    zero = {name: torch.zeros_like(p) for name, p in model.named_parameters() if name.startswith("task_head")}
    before = model(batch).output
    assert not bool(model.call(zero, batch).output.any())
    assert torch.equal(model(batch).output, before)


def test_encode_rows_reads_the_named_rows_in_evaluation_mode_and_leaves_modes_alone() -> None:
    data = mixed("classification", absent=0.4)
    model = Model(data.schema, DIM).train()
    model.encoders["text"].eval()
    features = model.encode_rows(data, "complete", size=7)
    assert len(features.present) == int(data.present.all(1).sum())
    assert not features.pooled().requires_grad
    assert model.training
    assert not model.encoders["text"].training
    model.eval()
    rows = data.positions("complete")
    assert torch.allclose(features.pooled(), model.encode(data.batch(rows)).pooled(), atol=1e-6)
    with pytest.raises(DataError, match="no unlabelled rows"):
        model.encode_rows(data, "unlabelled")


def test_fused_is_a_stream_with_weights() -> None:
    fused = Fused.vector(torch.ones(2, DIM), torch.ones(2, 3), {"note": 1})
    assert fused.tokens.shape == (2, 1, DIM)
    assert fused.extras == {"note": 1}


# tasks --------------------------------------------------------------------------------------------------------------
def rows_of(target: Tensor, present: Tensor | None = None, weight: Tensor | None = None) -> Batch:
    n = len(target)
    return Batch(("m0",), {}, torch.ones(n, 1, dtype=torch.bool), torch.arange(n), target, present, weight)


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2, 2, 1])
HERE = torch.tensor([True, True, False, True])


def test_class_weights_are_those_of_torch() -> None:
    task = Classification(("a", "b", "c"), (1.0, 2.0, 5.0))
    expected = functional.cross_entropy(LOGITS, LABELS, torch.tensor([1.0, 2.0, 5.0]))
    assert torch.allclose(task.loss(LOGITS, rows_of(LABELS)), expected)
    assert not torch.allclose(Classification(("a", "b", "c")).loss(LOGITS, rows_of(LABELS)), expected)
    with pytest.raises(ConfigError, match="2 class weights for 3 classes"):
        Classification(("a", "b", "c"), (1.0, 2.0))


def test_row_weights_are_a_weighted_mean() -> None:
    weight = torch.tensor([1.0, 0.0, 3.0, 0.0])
    each = functional.cross_entropy(LOGITS, LABELS, reduction="none")
    loss = Classification(("a", "b", "c")).loss(LOGITS, rows_of(LABELS, weight=weight))
    assert torch.allclose(loss, (each[0] + 3 * each[2]) / 4)


THREE = torch.tensor([[1.0, 0, 1], [0, 0, 0], [math.nan] * 3, [1, 1, 1]])
TASKS = {
    "classification": (Classification(("a", "b", "c")), LOGITS, torch.tensor([0, 2, -100, 1])),
    "multilabel": (Multilabel(("x", "y", "z")), LOGITS, THREE),
    "regression": (Regression(("u", "v", "w"), (1.0, 0.0, 2.0), (2.0, 1.0, 0.5)), LOGITS, THREE),
}  # fmt: skip


@pytest.mark.parametrize("key", TASKS)
def test_rows_without_a_label_change_neither_loss_nor_gradient(key: str) -> None:
    task, logits, target = TASKS[key]
    output = logits.clone().requires_grad_()
    loss = task.loss(output, rows_of(target, HERE))
    loss.backward()
    assert torch.allclose(loss, task.loss(logits[HERE], rows_of(target[HERE])))
    assert output.grad is not None
    assert not bool(output.grad[2].any())
    assert bool(output.grad[HERE].any(1).all())


@pytest.mark.parametrize("key", TASKS)
def test_the_loss_of_some_rows_is_the_loss_of_a_batch_of_them(key: str) -> None:
    task, logits, target = TASKS[key]
    some = torch.tensor([True, False, True, True])
    part = task.loss(logits, rows_of(target, HERE), some)
    assert torch.allclose(part, task.loss(logits[HERE & some], rows_of(target[HERE & some])))


@pytest.mark.parametrize("key", TASKS)
def test_a_loss_of_no_rows_is_zero_and_still_has_a_gradient(key: str) -> None:
    task, logits, target = TASKS[key]
    for batch, rows in (
        (rows_of(target, HERE), torch.tensor([False, False, True, False])),
        (rows_of(target, torch.zeros(4, dtype=torch.bool)), None),
    ):
        output = logits.clone().requires_grad_()
        loss = task.loss(output, batch, rows)
        loss.backward()
        assert float(loss.detach()) == 0
        assert output.grad is not None
        assert not bool(output.grad.any())


def test_regression_is_learned_in_units_of_its_scale_and_read_in_the_user_s() -> None:
    target = torch.tensor([10.0, 20.0, 30.0, 60.0])
    task = Regression.fitted(target, ("kg",))
    assert task.centre == (30.0,)
    assert task.scale == pytest.approx((float(target.std(correction=0)),), rel=0.2)
    assert len(task.bins) == 9
    output = ((target - task.centre[0]) / task.scale[0])[:, None]
    assert float(task.loss(output, rows_of(target))) == pytest.approx(0, abs=1e-10)
    assert torch.allclose(task.probabilities(output), target)
    off = task.loss(output + 1, rows_of(target))
    assert float(off) == pytest.approx(1, rel=1e-5), "one scale off is a loss of one, whatever the units"


def test_regression_of_several_numbers_scales_each() -> None:
    target = torch.stack([torch.arange(20.0), 1000 * torch.arange(20.0).flip(0)], 1)
    task = Regression.fitted(target, ("a", "b"))
    assert task.scale[1] == pytest.approx(1000 * task.scale[0])
    output = torch.randn(20, 2)
    assert task.probabilities(output).shape == (20, 2)
    by_hand = ((target - torch.tensor(task.centre)) / torch.tensor(task.scale) - output).square().mean()
    assert torch.allclose(task.loss(output, rows_of(target)), by_hand, rtol=1e-5)
    bins = task.classes(rows_of(target))
    assert sorted(bins.bincount().tolist()) == [2] * 10
    assert torch.equal(bins, bins.sort().values), "bins are of the first target"


def test_a_target_that_never_varies_cannot_be_regressed() -> None:
    with pytest.raises(ConfigError, match="never varies"):
        Regression.fitted(torch.full((5,), 2.0))


def test_priors_are_what_a_row_with_nothing_is_answered() -> None:
    data = toy(rows=48, dim=5)
    task = data.schema.task
    counts = torch.bincount(data.target, minlength=4) + 1.0
    assert torch.allclose(task.probabilities(task.prior(data)), counts / counts.sum())
    several = toy("multilabel", rows=48, dim=5)
    assert several.target is not None
    shares = (several.target.sum(0) + 1) / 50
    assert torch.allclose(several.schema.task.probabilities(several.schema.task.prior(several)), shares)
    numbers = toy("regression", rows=48, dim=5)
    assert numbers.target is not None
    mean = numbers.schema.task.probabilities(numbers.schema.task.prior(numbers)[None])
    assert torch.allclose(mean, numbers.target.mean())


def test_a_prior_counts_only_labelled_rows() -> None:
    data = toy(rows=48, dim=5)
    data.source.target_present = data.target == 1
    prior = data.schema.task.prior(data)
    assert int(prior.argmax()) == 1
    assert torch.allclose(prior.exp()[[0, 2, 3]], torch.tensor(1 / (4 + int((data.target == 1).sum()))))


def test_multilabel_is_the_mean_of_independent_questions() -> None:
    task = Multilabel(("x", "y"))
    output, target = torch.randn(5, 2), torch.tensor([[1.0, 0], [0, 0], [0, 1], [1, 1], [0, 0]])
    assert torch.allclose(
        task.loss(output, rows_of(target)), functional.binary_cross_entropy_with_logits(output, target)
    )
    assert torch.allclose(task.probabilities(output), output.sigmoid())
    assert task.classes(rows_of(target)).tolist() == [0, 2, 1, 0, 2]


@pytest.mark.parametrize("task", [t for t, _, _ in TASKS.values()], ids=list(TASKS))
def test_a_schema_survives_json(task: Any) -> None:
    schema = Schema((Modality("t", "tabular", (4,), categories=(0, 0, 3, 2)), SERIES), task)
    assert Schema.from_json(schema.to_json()) == schema
    assert schema.column("pulse") == 1
    with pytest.raises(UnknownName, match="'puls'; did you mean 'pulse'"):
        schema.column("puls")


def test_a_schema_refuses_names_that_cannot_be_told_apart() -> None:
    with pytest.raises(ConfigError, match="same name"):
        Schema((SERIES, SERIES), Classification(("a", "b")))
    with pytest.raises(ConfigError, match="at least one"):
        Schema((), Classification(("a", "b")))
    with pytest.raises(ConfigError, match="dot"):
        Modality("a.b", "vector", (3,))
    with pytest.raises(UnknownName, match="'vectr'; did you mean 'vector'"):
        Modality("a", "vectr", (3,))
    with pytest.raises(ConfigError, match="two classes or more"):
        Classification(("a",))


# rows of data -------------------------------------------------------------------------------------------------------
def test_a_stage_s_rows_are_found_by_name() -> None:
    data = mixed("classification", absent=0.4)
    data = data.subset(torch.arange(144))
    data.source.target_present = torch.arange(144) % 3 > 0
    try:
        full, labelled, any_ = data.present.all(1), data.target_present, data.present.any(1)
        expected = {
            "all": any_, "complete": full, "incomplete": any_ & ~full, "labelled": any_ & labelled,
            "unlabelled": any_ & ~labelled, "trusted": any_ & labelled, "has:text": data.present[:, 1],
        }  # fmt: skip
        for rows, keep in expected.items():
            assert data.positions(rows).tolist() == keep.nonzero().flatten().tolist(), rows
            assert 0 < len(data.positions(rows)) <= 144, rows
        with pytest.raises(UnknownName, match="'txt'; did you mean 'text'"):
            data.positions("has:txt")
        with pytest.raises(ConfigError, match="'some'"):
            data.positions("some")
    finally:
        mixed.cache_clear()


def test_batches_cover_all_rows_once_in_order() -> None:
    data = toy(rows=24, dim=5)
    assert torch.cat([b.index for b in data.batches(7)]).tolist() == list(range(24))
    assert [len(b) for b in data.batches(7, torch.arange(9))] == [7, 2]


def test_a_component_is_one_life_cycle_with_nothing_to_do_by_default() -> None:
    component = Component()
    assert component.stages() == []
    assert (component.clock.stage, component.clock.epoch, component.clock.progress) == ("", 0, 0.0)
    assert component.not_served() == []
    with pytest.raises(ConfigError, match="Component is in no pipeline yet"):
        _ = component.pipeline_in_use


def test_errors_can_cross_from_a_worker() -> None:
    import pickle

    for error in (
        UnknownName("method", "mmim", ["mmin", "smil"]),
        NonFiniteLoss("train", 2, {"task": float("nan")}, [4, 7]),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
