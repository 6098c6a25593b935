"""Corruptions made of others: which rows they reach, what they say of themselves, and how they are written down."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import kintsugi as kg
from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.evaluation import predict_conditions
from kintsugi.evaluation.protocols import Condition
from kintsugi.imperfect.combine import After
from kintsugi.imperfect.corruption import (
    Compose,
    Correlated,
    Corruption,
    Distortion,
    OneOf,
    Sometimes,
    corrupt,
    load_corruption,
    parse_corruption,
)
from kintsugi.imperfect.file import loads
from kintsugi.tasks import Classification

ROWS = 2000


def make(rows: int = ROWS, absent: float = 0.0) -> Dataset:
    """Two small pictures whose grey tells their row, and a series with padding."""
    rng = torch.Generator().manual_seed(0)
    grey = 0.2 + 0.6 * torch.arange(rows)[:, None, None, None] / rows
    steps = torch.arange(12) < (12 - torch.arange(rows) % 3)[:, None]
    inputs = {
        "p": grey.expand(rows, 1, 2, 2).clone(),
        "q": grey.flip(0).expand(rows, 1, 2, 2).clone(),
        "s": torch.where(steps[..., None], torch.randn(rows, 12, 1, generator=rng), torch.nan),
    }
    present = torch.rand(rows, 3, generator=rng) >= absent
    schema = Schema(
        (Modality("p", "image", (1, 2, 2)), Modality("q", "image", (1, 2, 2)), Modality("s", "series", (12, 1))),
        Classification(["x", "y"]),
    )
    batch = Batch(
        schema.names, inputs, present, torch.arange(rows), torch.arange(rows) % 2, mask={"s": steps & present[:, 2:]}
    )
    return Dataset(TensorSource(schema, batch))


def everything(data: Dataset) -> Batch:
    return data.batch(torch.arange(len(data)))


def run(spec: Distortion, data: Dataset, seed: int = 0) -> tuple[Batch, Batch]:
    before = everything(data)
    return before, spec.apply(before, spec.plan(data, seed))


def level(spec: Distortion, data: Dataset, seed: int = 0) -> Tensor:
    before, after = run(spec, data, seed)
    return torch.zeros(before.present.shape) if after.severity is None else after.severity


def same(a: Batch, b: Batch) -> bool:
    return (
        all(torch.equal(a.inputs[n].nan_to_num(9), b.inputs[n].nan_to_num(9)) for n in a.names)
        and a.mask.keys() == b.mask.keys()
        and all(torch.equal(a.mask[n], b.mask[n]) for n in a.mask)
        and torch.equal(a.present, b.present)
        and torch.equal(a.target, b.target)  # type: ignore[arg-type]
    )


def p(severity: int = 2, **given: Any) -> Corruption:
    return corrupt("gaussian_noise", "p", severity, **given)


def q(severity: int = 3) -> Corruption:
    return corrupt("gaussian_noise", "q", severity)


SHIFT = corrupt("desynchronisation", "s", 2)
ERROR = 4 * math.sqrt(0.25 / ROWS)  # four standard deviations of a share of so many rows, at its largest


# which rows ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", [None, (1, 3), (0, 1), (5, 1)])
def test_one_of_draws_by_weight_and_exactly_one(weights: tuple[float, float] | None) -> None:
    found = level(OneOf((p(), q()), weights), make())[:, :2] > 0
    assert (found.sum(1) == 1).all()
    share = 0.5 if weights is None else weights[0] / sum(weights)
    assert abs(float(found[:, 0].float().mean()) - share) < ERROR


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_sometimes_hits_its_share_and_a_larger_one_hits_the_same_rows_and_more(share: float) -> None:
    data = make()
    hit = level(Sometimes(p(), share), data)[:, 0] > 0
    assert abs(float(hit.float().mean()) - share) < ERROR
    more = level(Sometimes(p(), min(1.0, share + 0.2)), data)[:, 0] > 0
    assert not (hit & ~more).any()


@pytest.mark.parametrize("make_it", [lambda s: Sometimes(p(s), 0.4), lambda s: OneOf((p(s), q(s))),
                                     lambda s: Correlated((p(s), q(s)), 0.4, 0.5)])  # fmt: skip
def test_all_severities_hit_the_same_rows(make_it: Any) -> None:
    data = make()
    assert torch.equal(level(make_it(1), data) > 0, level(make_it(5), data) > 0)
    assert not torch.equal(level(make_it(1), data) > 0, level(make_it(1), data, seed=1) > 0)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("coupling", [0.0, 0.5, 1.0])
def test_correlated_keeps_each_share_and_couples_rows(share: float, coupling: float) -> None:
    spec, few = Correlated((p(), q()), share, coupling), make()
    found = spec.hits(torch.arange(50_000), spec.plan(few, 0))
    assert torch.equal(level(spec, few)[:, :2] > 0, found[:ROWS])
    error = 4 * math.sqrt(0.25 / 50_000)
    for column in (0, 1):
        assert abs(float(found[:, column].double().mean()) - share) < error
    both = float(found.all(1).double().mean())
    if coupling == 1:
        assert torch.equal(found[:, 0], found[:, 1])
    elif coupling == 0:
        assert abs(both - share**2) < error
    elif (
        share == 0.5
    ):  # Sheppard: P(both) = 1/4 + asin(c) / 2 pi of two normals with correlation c, both below the median
        assert abs(both - (0.25 + math.asin(0.5) / (2 * math.pi))) < error
    else:
        assert share**2 + error < both < share - error


def test_parts_of_a_combination_draw_independently_of_each_other() -> None:
    data = make()
    nested = Sometimes(Sometimes(p(), 0.5), 0.5)
    assert abs(float((level(nested, data)[:, 0] > 0).float().mean()) - 0.25) < ERROR
    twice = level(Compose((Sometimes(p(1), 0.5), Sometimes(p(2), 0.5))), data)[:, 0]
    assert abs(float((twice > 0).float().mean()) - 0.75) < ERROR
    inside = level(Sometimes(OneOf((p(), q())), 0.5), data)[:, :2] > 0
    assert abs(float(inside[:, 0].float().mean()) - 0.25) < ERROR
    assert abs(float(inside[:, 1].float().mean()) - 0.25) < ERROR


def test_a_compose_inside_sometimes_reaches_rows_as_a_whole() -> None:
    found = level(Sometimes(Compose((p(), q())), 0.3), make()) > 0
    assert torch.equal(found[:, 0], found[:, 1])
    assert 0.2 < float(found[:, 0].float().mean()) < 0.4


# what is done -------------------------------------------------------------------------------------------------------
NESTED = {
    "compose": Compose((p(1), SHIFT, q(2))),
    "one_of": OneOf((p(4), Compose((q(1), SHIFT))), (1, 2)),
    "sometimes": Sometimes(Compose((p(), Sometimes(q(), 0.5))), 0.3),
    "correlated": Correlated((p(), OneOf((q(1), SHIFT)), SHIFT), 0.4, 0.5),
    "pairs": Compose(
        (p(5), Sometimes(corrupt("mismatched_pairs", "p", 5), 0.5), corrupt("modality_swap", ("p", "q"), 3))
    ),
    "labels": Compose((Sometimes(corrupt("label_noise_symmetric", severity=5), 0.5), p(), OneOf((SHIFT, q())))),
}


@pytest.mark.parametrize("spec", NESTED.values(), ids=NESTED)
def test_rows_are_damaged_alike_in_any_batch_whatever_is_nested(spec: Distortion) -> None:
    data = make(60, absent=0.2)
    plan, batch = spec.plan(data, 3), everything(data)
    before = batch.map(torch.clone)
    whole = spec.apply(batch, plan)
    assert same(batch, before), "the input was changed"
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for rows in (order, *order.split(7)):
        part = spec.apply(batch.rows(rows), plan)
        for name in batch.names:
            assert torch.equal(part.inputs[name].nan_to_num(9), whole.inputs[name][rows].nan_to_num(9))
        assert torch.equal(part.present, whole.present[rows])
        assert torch.equal(part.target, whole.target[rows])  # type: ignore[arg-type, index]
        assert torch.equal(part.severity, whole.severity[rows])  # type: ignore[arg-type, index]
        assert torch.equal(part.mask["s"], whole.mask["s"][rows])
    assert torch.equal(whole.present[:, 2], whole.mask["s"].any(1))
    assert torch.isfinite(whole.inputs["s"][whole.mask["s"]]).all()
    assert (whole.present <= batch.present).all()


def test_the_level_of_a_slot_is_the_largest_of_what_was_done_to_it() -> None:
    found = level(Compose((p(4), q(1), p(2))), make())
    assert found.unique(dim=0).tolist() == [[4.0, 1.0, 0.0]]
    one = level(Compose((p(2), Sometimes(p(5), 0.5))), make())[:, 0]
    assert set(one.tolist()) == {2.0, 5.0}


def test_a_mask_that_appears_in_some_rows_is_whole_in_the_others() -> None:
    data = make(60, absent=0.3)
    source = data.source._all  # type: ignore[attr-defined]
    source.mask.clear()
    source.inputs["s"].nan_to_num_(0.0)
    before, after = run(Sometimes(SHIFT, 0.5), data)
    assert "s" not in before.mask
    hit = after.severity[:, 2] > 0  # type: ignore[index]
    assert 5 < int(hit.sum()) < 40
    here = before.present[:, 2]
    assert (after.mask["s"][here & ~hit]).all()
    assert (after.mask["s"][hit].sum(1) == 8).all()
    assert not after.mask["s"][~here].any()


def test_labels_go_through_compositions_in_batches_and_in_the_data_set_alike() -> None:
    flip = corrupt("label_noise_pair_flip", severity=5, share=1.0)
    data = make()
    for spec, share in (
        (Compose((flip, flip)), 0.0),
        (Sometimes(flip, 0.3), 0.3),
        (Compose((p(), OneOf((flip, q())))), 0.5),
    ):
        assert spec.labels
        damaged = data.with_corruption(spec, seed=1)
        assert torch.equal(damaged.target, everything(damaged).target)  # type: ignore[arg-type]
        assert damaged.target is not None
        assert data.target is not None
        changed = (damaged.target != data.target).float().mean()
        assert abs(float(changed) - share) < ERROR
    assert not Compose((p(), SHIFT)).labels


def test_partners_are_read_after_the_earlier_parts_of_a_chain() -> None:
    data = make(60)
    noise, pairs = p(5), corrupt("mismatched_pairs", "p", 5)
    noisy = noise.apply(everything(data), noise.plan(data, 0)).inputs["p"]
    plan = Compose((noise, pairs)).plan(data, 0)
    after = Compose((noise, pairs)).apply(everything(data), plan).inputs["p"]
    partner = plan.parts[1].tensors["partner"]
    assert torch.equal(after, noisy[partner]), "the partner's own noise came along"
    chained = data.with_corruption(noise).with_corruption(pairs)
    assert torch.equal(everything(chained).inputs["p"], after)
    other = Compose((pairs, noise))
    turned = other.apply(everything(data), other.plan(data, 0)).inputs["p"]
    assert not torch.equal(turned, after)


def test_rows_after_a_distortion_are_data_like_any_other() -> None:
    data = make(60, absent=0.2)
    spec = Compose((p(3), corrupt("label_noise_symmetric", severity=3)))
    plan = spec.plan(data, 0)
    after = After(data, spec, plan)
    assert same(after.batch(torch.arange(60)), spec.apply(everything(data), plan))
    assert torch.equal(after.target, after.batch(torch.arange(60)).target)  # type: ignore[arg-type]
    few = after.subset([4, 40])
    assert len(few) == 2
    assert torch.equal(few.batch(torch.tensor([1])).inputs["p"], after.batch(torch.tensor([40])).inputs["p"])
    assert after.fingerprint != data.fingerprint
    assert after.reference is data.reference


# plans --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", NESTED.values(), ids=NESTED)
def test_plans_have_a_hash_and_can_be_reseeded(spec: Distortion) -> None:
    data = make(60)
    plan = spec.plan(data, 0)
    assert plan.hash == spec.plan(data, 0).hash
    assert len({plan.hash, spec.plan(data, 1).hash, plan.reseeded(1).hash, plan.reseeded(2).hash}) == 4
    assert plan.reseeded("warm", 1).hash == plan.reseeded("warm", 1).hash
    before = everything(data)
    first, second = (spec.apply(before, plan.reseeded(epoch)) for epoch in (0, 1))
    assert not torch.equal(first.inputs["p"], second.inputs["p"])


def test_weights_and_shares_are_in_the_text_and_make_another_result() -> None:
    data = make(60)
    assert not same(run(OneOf((p(), q()), (1, 5)), data)[1], run(OneOf((p(), q())), data)[1])
    assert str(OneOf((p(), q()), (1, 5))) != str(OneOf((p(), q())))


# data sets ----------------------------------------------------------------------------------------------------------
def test_a_second_corruption_of_one_input_has_its_own_draws_and_the_first_keeps_its() -> None:
    data = make(60)
    once = data.with_corruption(p(2), seed=4)
    twice = once.with_corruption(p(2), seed=4)
    clean, first, second = (everything(d).inputs["p"] for d in (data, once, twice))
    assert not torch.allclose(second - first, first - clean, atol=1e-3)
    assert torch.equal(second, everything(data.with_corruption(Compose((p(2), p(2))), seed=4)).inputs["p"])
    assert torch.equal(first, run(p(2), data, 4)[1].inputs["p"])
    other = once.with_corruption(q(2), seed=4)
    assert torch.equal(everything(other).inputs["q"], run(q(2), data, 4)[1].inputs["q"]), (
        "another input keeps its draws"
    )
    assert len({d.fingerprint for d in (data, once, twice, other)}) == 4


def test_noise_inside_a_combination_counts_as_the_same_noise() -> None:
    data = make(60)
    once = data.with_corruption(Sometimes(p(2), 1.0), seed=4)
    clean, first, second = (everything(d).inputs["p"] for d in (data, once, once.with_corruption(p(2), seed=4)))
    assert not torch.allclose(second - first, first - clean, atol=1e-3)


def test_nothing_is_read_before_a_batch_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(60)
    monkeypatch.setattr(TensorSource, "read", lambda self, rows: pytest.fail("read"))
    spec = Compose(
        (p(), Sometimes(corrupt("mismatched_pairs", "p", 5), 0.5), corrupt("label_noise_symmetric", severity=3))
    )
    damaged = data.with_corruption(spec)
    assert len(damaged.subset([1, 2])) == 2
    assert damaged.target is not None


def test_splits_of_damaged_data_are_parts_of_it() -> None:
    damaged = make(200).with_corruption(NESTED["pairs"], seed=1)
    whole = everything(damaged)
    for part in damaged.split():
        assert same(everything(part), replace(whole.rows(part.index), severity=None))


# text ---------------------------------------------------------------------------------------------------------------
LEAVES = [
    p(1),
    q(5),
    SHIFT,
    p(2, sd=0.123456789),
    p(3, preset="mnist"),
    corrupt("modality_swap", ("p", "q"), 1),
    corrupt("label_noise_symmetric", severity=2),
    corrupt("mismatched_pairs", "my image", 4, within="class"),
    corrupt("gaussian_noise", "class", 3),
]
LEAF = st.sampled_from(LEAVES)
SHARE = st.floats(0, 1, allow_subnormal=False)


def _combined(part: st.SearchStrategy[Distortion]) -> st.SearchStrategy[Distortion]:
    parts = st.lists(part, min_size=1, max_size=3).map(tuple)
    weighted = parts.flatmap(
        lambda some: st.tuples(st.just(some), st.none() | st.tuples(*[st.floats(0.01, 9) for _ in some]))
    )
    return st.one_of(
        parts.map(lambda some: Compose(some) if len(some) > 1 else some[0]),
        weighted.map(lambda one: OneOf(*one)),
        st.builds(Sometimes, part, SHARE),
        st.builds(Correlated, parts, SHARE, SHARE),
    )


SPEC = st.recursive(LEAF, _combined, max_leaves=8)


@settings(max_examples=200, deadline=None)
@given(spec=SPEC)
def test_text_reads_back_as_the_same(spec: Distortion) -> None:
    assert parse_corruption(str(spec)) == spec
    assert str(parse_corruption(str(spec))) == str(spec)
    assert loads(f"- {str(spec)!r}" if "'" not in str(spec) else f'- "{spec}"') == spec


def test_mappings_and_lists_mean_what_the_text_means() -> None:
    text = "gaussian_noise(p, 2) + one_of(gaussian_noise(q, 3), sometimes(gaussian_noise(p, 1), share=0.2), weights=[1, 2])"
    mapping = [
        {"gaussian_noise": {"modality": "p", "severity": 2}},
        {"one_of": {
            "parts": [{"gaussian_noise": ["q", 3]}, {"sometimes": {"part": {"gaussian_noise": ["p", 1]}, "share": 0.2}}],
            "weights": [1, 2],
        }},
    ]  # fmt: skip
    assert parse_corruption(mapping) == parse_corruption(text)


def test_a_combination_without_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="parts of one_of is a list of corruptions, not 'gaussian_noise"):
        parse_corruption({"one_of": {"parts": "gaussian_noise(p, 2)"}})


# YAML ---------------------------------------------------------------------------------------------------------------
FILE = """
# everything in one file
- gaussian_noise(p, 2)
- gaussian_noise: {modality: q, severity: 3, sd: 0.1}
- one_of:
    parts:
      - gaussian_noise(p, 1) + gaussian_noise(q, 1)
      - desynchronisation: [s, 2]
    weights: [3, 1]
- sometimes: {share: 0.3, part: "mismatched_pairs(p, 5)"}
- correlated:
    gaussian_noise: {modality: p, severity: 5}
    desynchronisation: s
- sometimes:
    - modality_swap: {modality: [p, q]}
- label_noise_symmetric: {severity: 2}
- label_noise_pair_flip
"""
SAID = (
    "gaussian_noise(p, 2) + gaussian_noise(q, 3, sd=0.1) + one_of(gaussian_noise(p, 1) + gaussian_noise(q, 1), "
    "desynchronisation(s, 2), weights=[3, 1]) + sometimes(mismatched_pairs(p, 5), share=0.3) + "
    "correlated(gaussian_noise(p, 5), desynchronisation(s, 3), share=0.5, coupling=1) + "
    "sometimes(modality_swap(p+q, 3), share=0.5) + label_noise_symmetric(severity=2) + label_noise_pair_flip(severity=3)"
)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "damage.yaml").write_text(FILE)
    found = load_corruption(tmp_path / "damage.yaml")
    assert str(found) == SAID
    assert found == parse_corruption(SAID)
    assert loads("gaussian_noise: {modality: p, severity: 2}\ndesynchronisation: s") == Compose(
        (p(2), corrupt("desynchronisation", "s"))
    )
    assert loads("gaussian_noise(p, 2)") == p(2)


WRONG = {
    "a name": ("- gausian_noise(p, 3)", "line 1: unknown corruption 'gausian_noise'; did you mean 'gaussian_noise'"),
    "a nested name": ("- one_of:\n  - gaussian_noise(p, 3)\n  - gausian_noise: p", "line 3: unknown corruption 'gausian_noise'"),
    "a severity": ("- gaussian_noise:\n    modality: p\n    severity: 9", "line 3: the severity of gaussian_noise must be"),
    "text for a severity": ("- gaussian_noise:\n    modality: p\n    severity: high", "line 3: the severity"),
    "a severity in text": ("\n\n- gaussian_noise(p, 9)", "line 3: the severity of gaussian_noise"),
    "a key": ("gaussian_noise:\n  modality: p\n  sevrity: 3", "line 3: unknown key 'sevrity' of gaussian_noise; did you"),
    "a value": ("gaussian_noise:\n  modality: p\n  sd: big", "line 3: sd of gaussian_noise is a number"),
    "an option": ("mismatched_pairs:\n  modality: p\n  within: klass", "line 3: unknown within of mismatched_pairs"),
    "a preset": ("gaussian_noise:\n  modality: p\n  preset: cifr", "line 3: unknown preset of gaussian_noise 'cifr'; did"),
    "a modality": ("gaussian_noise:\n  modality: 3", "line 2: modality of gaussian_noise is the name"),
    "no modality": ("-\n gaussian_noise:", "line 2: gaussian_noise damages one modality, not none"),
    "twice": ("gaussian_noise: p\ngaussian_noise: q", "line 2: gaussian_noise is there twice"),
    "twice inside": ("gaussian_noise:\n  modality: p\n  modality: q", "line 3: modality is there twice"),
    "a share": ("sometimes:\n  part: gaussian_noise(p, 3)\n  share: 2", "line 3: the share of sometimes must be a share"),
    "no part": ("- sometimes: {share: 0.5}", "line 1: sometimes lacks part:"),
    "a key of a combination": ("sometimes:\n  chance: 0.5", "line 2: unknown key 'chance' of sometimes; did you mean 'share'"),
    "no list": ("one_of: gaussian_noise(p, 3)", "line 1: one_of takes a list of corruptions"),
    "an empty list": ("one_of: []", "line 1: one_of takes a list of corruptions"),
    "weights": ("one_of:\n  parts:\n    - gaussian_noise(p, 3)\n  weights: 3", "line 4: weights of one_of are a list of numbers"),
    "too many weights": ("one_of:\n  parts:\n    - gaussian_noise(p, 3)\n  weights: [1, 2]", "line 4: OneOf of 1 needs"),
    "a number": ("- 3", "line 1: here should be a corruption, such as"),
    "only a number": ("3", "line 1: here should be a corruption"),
    "nothing": ("# only a comment", "is empty; write corruptions such as"),
    "an empty mapping": ("{}", "is empty"),
    "no YAML": ("a: [\nb", "line 2: not YAML"),
    "an alias": ("- &a gaussian_noise(p, 3)\n- *a", r"line 2: \*a refers to another part"),
    "a bomb": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", r"line 2: \*a refers to another part"),
    "a deep one": ("\n" + "[" * 200, "line 2: more than 50 levels"),
    "code": ("!!python/object/apply:os.system ['true']", "line 1: not YAML: could not determine a constructor"),
    "a comma in braces": ("sometimes: {part: gaussian_noise(p, 3)}", "line 1: .*a comma inside .* ends a word, so quote it"),
    "a comma in brackets": ("- [gaussian_noise(p, 3)]", "line 1: 'gaussian_noise.p' is cut off"),
    "two documents": ("---\na: 1\n---\nb: 2", "line 3: not YAML"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "match"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_a_file_is_said_with_its_line(content: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "damage.yaml").write_text(content)
    with pytest.raises(ConfigError, match=match) as caught:
        load_corruption(tmp_path / "damage.yaml")
    assert str(tmp_path / "damage.yaml") in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        load_corruption(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_corruption(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("- größer".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_corruption(tmp_path / "latin.yaml")


# evaluation ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model() -> tuple[Any, Dataset]:
    rows = make(240)
    fitted = kg.Classifier("mean_fusion", epochs=1, dim=8, progress=False).fit(
        rows.subset(range(160)), rows.subset(range(160, 200))
    )
    return fitted, rows.subset(range(200, 240))


CONDITIONS = [
    Condition("clean", "clean"),
    *(
        Condition(f"{number}", "corruption/x", corruptions=(spec,), keep=keep)
        for number, (spec, keep) in enumerate(
            [
                ("sometimes(gaussian_noise(p, 5), share=0.5)", None),
                ("one_of(gaussian_noise(p, 5), gaussian_noise(q, 5))", ("p", "s")),
                ("correlated(gaussian_noise(p, 5), desynchronisation(s, 3), share=0.5, coupling=1)", None),
                ("gaussian_noise(p, 2) + mismatched_pairs(p, 5)", None),
                ("sometimes(modality_swap(p+q, 5), share=0.5)", ("p", "q")),
                ("conflicting_pairs(p, 5)", None),
            ]
        )
    ),
    Condition(
        "two", "corruption/x", corruptions=("gaussian_noise(p, 2)", "sometimes(mismatched_pairs(p, 5), share=0.5)")
    ),
]


def test_conditions_of_compositions_are_answered_alike_with_and_without_the_cache(model: tuple[Any, Dataset]) -> None:
    fitted, test = model
    fast, plain = (
        predict_conditions(fitted.pipeline_, test, CONDITIONS, cache=cache, chunk=size)
        for cache, size in ((True, 11), (False, 40))
    )
    for a, b in zip(fast, plain, strict=True):
        assert torch.allclose(a.probabilities, b.probabilities, atol=1e-5), a.condition
        assert torch.equal(a.present, b.present)
    clean = fast[0].probabilities
    assert all(not torch.equal(one.probabilities, clean) for one in fast[1:])
    direct = everything(test.with_corruption(parse_corruption("gaussian_noise(p, 2) + mismatched_pairs(p, 5)")))
    answer = fitted.pipeline_.eval()(direct).output.softmax(-1)
    assert torch.allclose(answer, fast[4].probabilities, atol=1e-5)


def test_evaluate_takes_compositions(model: tuple[Any, Dataset]) -> None:
    from kintsugi.evaluation.protocols import Protocol

    report = kg.evaluate(model[0], model[1], protocol=Protocol("compositions", tuple(CONDITIONS)))
    assert "sometimes(gaussian_noise(p, 5), share=0.5)" in str(
        report.to_json() if hasattr(report, "to_json") else vars(report)
    )


def test_conditions_that_change_labels_are_refused(model: tuple[Any, Dataset]) -> None:
    for spec in (
        "label_noise_symmetric(severity=3)",
        "gaussian_noise(p, 3) + sometimes(label_noise_pair_flip(severity=1))",
    ):
        with pytest.raises(
            ConfigError, match=r"changes labels, and test labels must stay; train on data.with_corruption"
        ):
            predict_conditions(model[0].pipeline_, model[1], [Condition("x", "x", corruptions=(spec,))])
