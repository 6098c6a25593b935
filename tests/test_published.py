"""Missingness and protocols of published work: what they say, and what comes out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.methods import create
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.evaluation import PROTOCOLS, Condition, evaluate, get_protocol, predict_conditions
from kintsugi.evaluation.published import IMAGENET_C, IMAGENET_C_HOLDOUT, MULTIBENCH
from kintsugi.imperfect import operator as operators
from kintsugi.imperfect.corruption import OPERATORS
from kintsugi.imperfect.missing import SETTINGS, Mask, Published, map_missing, parse_mechanism, published
from kintsugi.tasks import Classification

ROWS = 10_000
TASK = Classification(["no", "yes", "maybe"])
KINDS = {
    "pic": Modality("pic", "image", (3, 4, 4)),
    "sound": Modality("sound", "audio", (160,), rate=400.0),
    "note": Modality("note", "text", (8,), vocab=257),
    "tab": Modality("tab", "tabular", (3,), categories=(0, 0, 2)),
    "ts": Modality("ts", "series", (10, 2), rate=1.0),
}


def make(*names: str, rows: int = ROWS) -> Dataset:
    g = torch.Generator().manual_seed(0)
    schema = Schema(tuple(KINDS[name] for name in names), TASK)
    lengths = torch.randint(1, 9, (rows, 1), generator=g)
    seen = torch.arange(8) < lengths
    every = {
        "pic": torch.rand(rows, 3, 4, 4, generator=g),
        "sound": torch.rand(rows, 160, generator=g) - 0.5,
        "note": torch.randint(1, 257, (rows, 8), generator=g) * seen,
        "tab": torch.randn(rows, 3, generator=g).abs(),
        "ts": torch.randn(rows, 10, 2, generator=g),
    }
    every["tab"][:, 2] = 1.0
    x = {name: every[name] for name in names}
    mask = {"note": seen} if "note" in names else {}
    here = torch.ones(rows, len(names), dtype=torch.bool)
    return Dataset(TensorSource(schema, Batch(names, x, here, torch.arange(rows), torch.arange(rows) % 3, mask=mask)))


@pytest.fixture(scope="module")
def three() -> Dataset:
    return make("pic", "sound", "note")


def plan(name: str, data: Dataset, seed: int = 0) -> Mask:
    return parse_mechanism(name).plan(data, seed)


def patterns(keep: Tensor) -> dict[tuple[bool, ...], float]:
    found, counts = keep.unique(dim=0, return_counts=True)
    return {tuple(p): n / len(keep) for p, n in zip(found.tolist(), counts.tolist(), strict=True)}


# settings -------------------------------------------------------------------------------------------------------------
def test_every_setting_says_where_it_comes_from_and_what_is_odd() -> None:
    names = ["mmin6", "random-0.7-keep1", "gcnet-random-0.3", "map-0.7-both", "brats15", "tfrnet-token-0.4", "smil-0.1",
             "imml-mem-0.3", "imml-mcar-0.3", "imml-pm-0.3", "imml-mnar-0.3"]  # fmt: skip
    forms = set()
    for name in names:
        found = published(name)
        assert found is not None
        assert len(found.source) > 10
        assert len(found.quirk) > 20
        forms.add(found.form)
        assert parse_mechanism(str(found)) == found
    assert forms == set(SETTINGS)
    assert published("mcar(0.3)") is None
    with pytest.raises(UnknownName, match="smol"):
        parse_mechanism("smol-0.1")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        parse_mechanism("random-1.7-keep1")


def test_mmin6_draws_each_incomplete_pattern_equally_often(three: Dataset) -> None:
    mask = plan("mmin6", three)
    found = patterns(mask.keep)
    assert len(found) == 6
    assert all(share == pytest.approx(1 / 6, abs=1e-4) for share in found.values())
    assert mask.realised == pytest.approx(0.5, abs=1e-3)
    assert mask.asked == dict.fromkeys(three.schema.names, 0.5)
    with pytest.raises(ConfigError, match=r"3 modalities, and .* has 2"):
        plan("mmin6", make("pic", "note", rows=20))


@pytest.mark.parametrize("form", ["random-{}-keep1", "gcnet-random-{}"])
@pytest.mark.parametrize(("asked", "comes"), [(0.1, 0.1), (0.3, 0.3), (0.6, 0.6), (0.7, 2 / 3), (1.0, 2 / 3)])
def test_random_keep1_stops_where_one_is_left(form: str, asked: float, comes: float, three: Dataset) -> None:
    mask = plan(form.format(asked), three)
    assert mask.realised == pytest.approx(comes, abs=1e-3)
    assert mask.asked == asked
    assert mask.keep.any(1).all()
    assert mask.mechanism == form.format(f"{asked:g}")


def test_random_keep1_is_one_that_stays_and_others_independent(three: Dataset) -> None:
    # one of three stays; of the others each is lost with m M / (M - 1) = 0.45: both 0.2025, one 0.495, none 0.3025
    lost = (~plan("random-0.3-keep1", three).keep).sum(1)
    shares = torch.bincount(lost, minlength=4).double() / ROWS
    assert shares.tolist() == pytest.approx([0.3025, 0.495, 0.2025, 0.0], abs=0.02)
    two = plan("random-0.7-keep1", make("pic", "note"))
    assert two.realised == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(("what", "text", "image"), [("both", 0.35, 0.35), ("text", 0.7, 0.0), ("image", 0.0, 0.7)])
def test_map_counts_rows_and_never_takes_both(what: str, text: float, image: float, three: Dataset) -> None:
    mask = plan(f"map-0.7-{what}", three)
    assert mask.realised_by_modality == pytest.approx({"pic": image, "sound": 0.0, "note": text}, abs=1e-3)
    assert not (~mask.keep[:, 0] & ~mask.keep[:, 2]).any()
    assert not (mask.keep & ~plan(f"map-0.3-{what}", three).keep).any(), "a higher share takes more of the same"
    assert float((~mask.keep).any(1).double().mean()) == pytest.approx(0.7, abs=1e-3)


def test_map_wants_to_know_which_is_which(three: Dataset) -> None:
    data = make("pic", "tab", rows=1000)
    with pytest.raises(ConfigError, match="0 modalities of kind text"):
        plan("map-0.7-both", data)
    mask = map_missing(0.4, "text", text="tab").plan(data, 0)
    assert mask.realised_by_modality == pytest.approx({"pic": 0.0, "tab": 0.4})
    with pytest.raises(ConfigError, match="'sound'"):
        map_missing(0.4, "sound")
    with pytest.raises(UnknownName):
        map_missing(0.4, text="nota").plan(three, 0)


def test_brats15_draws_all_subsets() -> None:
    mask = plan("brats15", make("pic", "sound", "note", "tab"))
    found = patterns(mask.keep)
    assert len(found) == 15
    assert all(share == pytest.approx(1 / 15, abs=2e-4) for share in found.values())
    assert mask.realised == pytest.approx(1 - 32 / 60, abs=1e-3)
    with pytest.raises(ConfigError, match="4 modalities"):
        plan("brats15", make("pic", "note", rows=20))


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_tfrnet_takes_tokens_inside_the_valid_length(rate: float, three: Dataset) -> None:
    mask = plan(f"tfrnet-token-{rate:g}", three)
    assert mask.unit == "step"
    assert set(mask.steps) == {"sound", "note"}, "an image has no tokens"
    seen = three.batch(torch.arange(ROWS)).mask["note"]
    assert float((~mask.steps["note"]).sum() / seen.sum()) == pytest.approx(rate, abs=1e-4)
    assert mask.steps["note"][~seen].all()
    assert three.with_missing(parse_mechanism(f"tfrnet-token-{rate:g}")).present[:, 1:].any() == (rate < 1)


def test_smil_is_about_sound_unless_it_is_named(three: Dataset) -> None:
    for eta in (0.05, 0.2):
        left = plan(f"smil-{eta:g}", three).keep
        assert float(left[:, 1].double().mean()) == pytest.approx(eta, abs=1e-3)
        assert left[:, [0, 2]].all()
    assert not plan("smil-0.1-note", three).keep[:, 2].all()
    with pytest.raises(ConfigError, match=r"smil-0\.1-NAME"):
        plan("smil-0.1", make("pic", "note", rows=20))


@pytest.mark.parametrize(("kind", "slots"), [("mem", 0.2), ("mcar", 0.15), ("pm", 0.1)])
def test_imml_counts_rows(kind: str, slots: float, three: Dataset) -> None:
    for seed in range(4):
        mask = plan(f"imml-{kind}-0.3", three, seed)
        assert mask.realised == pytest.approx(slots, abs=1e-3)
        assert float((~mask.keep).any(1).double().mean()) == pytest.approx(0.3, abs=1e-3)
        assert mask.keep.any(1).all()
        incomplete = mask.keep[~mask.keep.all(1)]
        if kind == "mem":
            assert (incomplete.sum(1) == 1).all()
        if kind == "pm":
            assert incomplete.all(0).any(), "one modality at least is always there"


def test_imml_mcar_mends_by_one_flip() -> None:
    # of four: 14 patterns have 1/16 each; 1/16 of empty ones goes to the four singles, 1/16 of complete ones to triples
    found = patterns(plan("imml-mcar-1.0", make("pic", "sound", "note", "tab")).keep)
    for pattern, share in found.items():
        assert share == pytest.approx(1 / 16 + (sum(pattern) in (1, 3)) / 64, abs=2e-4)
    assert len(found) == 14


def test_what_imml_calls_mnar_does_not_look_at_the_data(three: Dataset) -> None:
    mask = plan("imml-mnar-0.3", three)
    assert mask.mechanism == "imml-fixed-sets-0.3"
    lost = {p for p in patterns(mask.keep) if not all(p)}
    assert sorted(sum(p) for p in lost) == [1, 2], "one fixed set for each size"
    bright = three.batch(torch.arange(ROWS)).inputs["pic"].mean((1, 2, 3))
    gone = ~mask.keep.all(1)
    assert abs(float(torch.corrcoef(torch.stack([gone.double(), bright.double()]))[0, 1])) < 6 / ROWS**0.5
    kinds = {frozenset(p for p in patterns(plan("imml-mnar-0.3", three, seed).keep) if not all(p)) for seed in range(8)}
    assert len(kinds) > 2, "another seed, other sets"


@pytest.mark.parametrize("name", ["mmin6", "random-0.4-keep1", "map-0.5-both", "imml-mcar-0.6", "tfrnet-token-0.3"])
def test_draws_belong_to_rows_and_the_seed(name: str) -> None:
    data = make("pic", "sound", "note", rows=300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(plan(name, data).keep[order], plan(name, data.subset(order)).keep)
    assert plan(name, data) != plan(name, data, 1)


def test_rows_with_holes_keep_something(three: Dataset) -> None:
    batch = three.batch(torch.arange(900))
    present = torch.rand(900, 3, generator=torch.Generator().manual_seed(0)) > 0.4
    data = Dataset(TensorSource(three.schema, Batch(batch.names, batch.inputs, present, batch.index, mask=batch.mask)))
    for name in ("mmin6", "random-0.3-keep1", "imml-mem-0.9"):
        assert torch.equal(data.with_missing(parse_mechanism(name)).present.any(1), present.any(1))


# protocols ------------------------------------------------------------------------------------------------------------
def test_protocols_of_patterns(three: Dataset) -> None:
    six = get_protocol("mmin6", three.schema)
    assert [c.keep for c in six.conditions] == [
        ("pic", "sound"), ("pic", "note"), ("sound", "note"), ("pic",), ("sound",), ("note",)
    ]  # fmt: skip
    assert len(get_protocol("gcnet-fixed", three)) == 7
    assert len(get_protocol("brats15", make("pic", "sound", "note", "tab", rows=9))) == 15
    for name, count in (("mmin6", 3), ("gcnet-fixed", 3), ("brats15", 4)):
        with pytest.raises(ConfigError, match=f"about {count} modalities, and here are 2"):
            get_protocol(name, make("pic", "note", rows=9))


def test_protocols_of_rates(three: Dataset) -> None:
    random = get_protocol("gcnet-random", three)
    assert [c.x for c in random.conditions] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert random.conditions[-1].missing == "gcnet-random-0.7"
    tokens = get_protocol("tfrnet-token", three)
    assert [c.x for c in tokens.conditions] == [i / 10 for i in range(11)]
    for name in ("random-0.7-keep1", "map-0.7-both", "tfrnet-token-0.3", "imml-mem-0.3"):
        clean, one = get_protocol(name, three).conditions
        assert clean.clean
        assert one.missing == name
    assert get_protocol("smil-0.1", three).conditions[1].keep == ("pic", "note")
    with pytest.raises(ConfigError, match="name the modality"):
        get_protocol("smil-0.1", make("pic", "note", rows=9))
    with pytest.raises(UnknownName, match="protocol"):
        get_protocol("map-0.7", three)


def test_imagenet_c_names_what_it_lacks(three: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    list(OPERATORS)
    things = dict(OPERATORS._things)
    for name in (*IMAGENET_C, *IMAGENET_C_HOLDOUT):
        things.setdefault(name, things["gaussian_noise"])
    monkeypatch.setattr(OPERATORS, "_things", things)
    found = get_protocol("imagenet-c", three)
    assert len(found) == 1 + 15 * 5
    assert found.conditions[1].corruptions == ("gaussian_noise(pic, 1)",)
    assert {c.group for c in found.conditions[1:]} == {f"corruption/{name}(pic)" for name in IMAGENET_C}
    assert len(get_protocol("imagenet-c-holdout", three)) == 1 + 4 * 5
    grey = Schema((Modality("pic", "image", (1, 4, 4)),), TASK)
    assert len(get_protocol("imagenet-c-holdout", grey)) in (16, 21), "colour alone may be left out"
    things.pop("spatter")
    with pytest.raises(ConfigError, match="'spatter'"):
        get_protocol("imagenet-c-holdout", three)
    with pytest.raises(ConfigError, match="corrupts images"):
        get_protocol("imagenet-c", make("note", "tab", rows=9))


def registered(monkeypatch: pytest.MonkeyPatch, names: dict[str, tuple[str, ...]]) -> None:
    """Operators of these kinds exist, whether or not they are there yet."""
    list(OPERATORS)
    things = dict(OPERATORS._things)
    for kind, keys in names.items():
        for key in keys:
            if key not in things:

                class Nothing(operators.Operator):
                    source = title = "stands in"
                    parameters = {"default": operators.levels(x=(1, 2, 3, 4, 5))}  # noqa: RUF012

                    def damage(self, x: Tensor, *_: object) -> tuple[Tensor, Tensor | None]:
                        return x + 0, None

                Nothing.key, Nothing.kind = key, kind
                things[key] = Nothing
    monkeypatch.setattr(OPERATORS, "_things", things)


def test_multibench_goes_through_each_modality_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, MULTIBENCH)
    data = make("pic", "tab", "ts", rows=9)
    found = get_protocol("multibench-noise", data)
    assert len(found) == 1 + 4 * 10
    groups = {c.group for c in found.conditions[1:]}
    assert groups == {f"corruption/multibench-noise({track})" for track in ("pic", "tab", "ts", "all")}
    by_name = {c.name: c for c in found.conditions}
    half = by_name["multibench-noise(tab, 0.5)"]
    assert (half.missing, half.corruptions, half.x) == ("steps(0.5, tab)", (), 0.5)
    both = by_name["multibench-noise(all, 0.3)"]
    assert both.missing == "steps(0.3, tab+ts)"
    assert all("share=0.3" in c for c in both.corruptions)
    assert len(both.corruptions) == len(MULTIBENCH["image"]) + len(MULTIBENCH["series"])


def test_standard_has_a_bit_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.evaluation.protocols import SPREAD

    registered(monkeypatch, dict(SPREAD))
    data = make("pic", "note", "tab", rows=30)
    found = get_protocol("standard", data)
    groups = [c.group.partition("/")[0] for c in found.conditions]
    operators_of = sum(len(SPREAD[kind]) for kind in ("image", "text", "tabular"))
    assert {g: groups.count(g) for g in set(groups)} == {
        "clean": 1, "subset": 6, "rate": 3, "corruption": 3 * operators_of
    }  # fmt: skip
    assert [c.x for c in found.conditions if c.group == "rate/mcar"] == [0.1, 0.3, 0.5]
    fewer = get_protocol("standard(2)", data)
    assert fewer.name == "standard(2)"
    assert {c.x for c in fewer.conditions if c.group.startswith("corruption")} == {2.0}
    many = Schema(tuple(Modality(f"m{i}", "vector", (2,)) for i in range(7)), TASK)
    assert sum(c.group == "subset" for c in get_protocol("standard", many).conditions) == 14
    with pytest.raises(ConfigError, match="severity 9"):
        get_protocol("standard(9)", data)
    monkeypatch.delitem(OPERATORS._things, "outliers")
    with pytest.raises(ConfigError, match="'outliers'"):
        get_protocol("standard", data)


def test_they_are_all_registered() -> None:
    assert {"mmin6", "gcnet-fixed", "gcnet-random", "brats15", "tfrnet-token", "imagenet-c", "imagenet-c-holdout",
            "multibench-noise", "standard"} <= set(PROTOCOLS)  # fmt: skip


# steps in the evaluator -------------------------------------------------------------------------------------------------
def pipeline(data: Dataset) -> Pipeline:
    torch.manual_seed(0)
    found = create("mean_fusion", data.schema)
    torch.manual_seed(1)
    torch.nn.init.normal_(found.model.task_head.linear.weight)
    for _, part in found.named_components():
        part.clock.stage = found.stages()[-1][1].name
    return found


@pytest.mark.parametrize("missing", ["steps(0.7)", "blocks(0.5, ts)", "tfrnet-token-1", "cells(0.4, tab)", "mcar(0.4)"])
@pytest.mark.parametrize("cache", [True, False])
def test_the_evaluator_hides_what_a_data_set_hides(missing: str, cache: bool) -> None:
    data = make("sound", "note", "tab", "ts", rows=70)
    asked = pipeline(data)
    if missing == "blocks(0.5, ts)":
        data = data.subset(torch.tensor([5, 2, 2, 60, 1, *range(20)]))  # repeated rows too
    conditions = [Condition("clean", "clean"), Condition("holes", "rate/x", missing=missing, seed=3)]
    clean, holes = predict_conditions(asked, data, conditions, chunk=13, cache=cache)
    less = data.with_missing(parse_mechanism(missing), seed=3)
    asked.eval()
    with torch.no_grad():
        expected = asked.answer(less.batch(torch.arange(len(data)))).output
    assert torch.allclose(holes.output, expected, atol=1e-5)
    assert torch.equal(holes.present, less.present)
    assert less.mask is not None
    assert holes.mask_hash == less.mask.hash
    assert not torch.allclose(holes.output, clean.output, atol=1e-3)


def test_steps_go_after_corruption_and_only_their_modality_is_encoded_anew() -> None:
    data = make("tab", "ts", rows=40)
    asked = pipeline(data)
    rows = dict.fromkeys(data.schema.names, 0)
    for name, encoder in asked.model.encoders.items():
        encoder.register_forward_pre_hook(lambda m, x, n=name: rows.update({n: rows[n] + len(x[0])}))
    conditions = [Condition("clean", "clean"), Condition("holes", "rate/x", missing="steps(0.4, ts)")]
    predict_conditions(asked, data, conditions)
    assert rows["tab"] == 40
    assert rows["ts"] == 80


def test_test_rows_keep_their_labels() -> None:
    data = make("tab", "ts", rows=40)
    with pytest.raises(ConfigError, match="cannot be scored"):
        predict_conditions(pipeline(data), data, [Condition("x", "rate/x", missing="labels(0.5)")])


def test_results_under_a_published_protocol(three: Dataset) -> None:
    data = three.subset(range(60))
    found = evaluate(pipeline(data), data, "mmin6", resamples=10, progress=False)
    assert len(found.table["condition"].unique()) == 6
    assert "mean" in found.summary()
    assert len(evaluate(pipeline(data), data, "random-0.7-keep1", resamples=10, progress=False).table) > 0


def test_a_published_mechanism_is_a_value() -> None:
    one = parse_mechanism("random-0.5-keep1")
    assert isinstance(one, Published)
    assert copy.deepcopy(one) == one
    assert one.setting.form == "random-RATE-keep1"
    assert one != parse_mechanism("random-0.6-keep1")
