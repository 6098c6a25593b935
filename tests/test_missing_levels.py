"""Steps and labels that go missing, and slots that go missing depending on the data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data, Splits
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect._exact import bursty
from kintsugi.imperfect.mask import Mask
from kintsugi.imperfect.missing import (
    Mechanism,
    Phases,
    blocks,
    bursts,
    cells,
    gilbert_elliott,
    given,
    labels,
    mar,
    mcar,
    mnar,
    natural,
    parse_mechanism,
    parse_phases,
    pattern,
    per_modality,
    steps,
)
from kintsugi.tasks import Classification, Regression

NAMES = ("pic", "sound", "note", "tab", "ts", "vec")
SCHEMA = Schema(
    (
        Modality("pic", "image", (1, 3, 3)),
        Modality("sound", "audio", (32,), rate=16.0),
        Modality("note", "text", (12,), vocab=257),
        Modality("tab", "tabular", (6,), categories=(0, 0, 0, 0, 0, 3)),
        Modality("ts", "series", (20, 2), rate=1.0),
        Modality("vec", "vector", (4,)),
    ),
    Classification(["a", "b", "c", "d"]),
)
BIG = 10_000


def make(rows: int = 500, holes: float = 0.1, seed: int = 0, schema: Schema = SCHEMA) -> Dataset:
    """Rows with natural holes in slots, tokens, cells and labels; what is not there is NaN."""
    g = torch.Generator().manual_seed(seed)
    present = torch.rand(rows, 6, generator=g) >= holes
    lengths = torch.randint(1, 13, (rows, 1), generator=g)
    mask = {
        "note": (torch.arange(12) < lengths) & present[:, 2:3],
        "tab": torch.rand(rows, 6, generator=g) >= holes / 2,
    }
    mask["tab"][:, 0] = True
    mask["tab"] &= present[:, 3:4]
    brightness = torch.rand(rows, 1, 1, 1, generator=g)
    x = {
        "pic": brightness * torch.rand(rows, 1, 3, 3, generator=g),
        "sound": torch.randn(rows, 32, generator=g) * torch.rand(rows, 1, generator=g),
        "note": torch.randint(1, 257, (rows, 12), generator=g) * mask["note"],
        "tab": torch.randn(rows, 6, generator=g).masked_fill(~mask["tab"], math.nan),
        "ts": torch.randn(rows, 20, 2, generator=g) + torch.randn(rows, 1, 1, generator=g),
        "vec": torch.randn(rows, 4, generator=g),
    }
    for column, name in enumerate(NAMES):
        if name != "note":
            x[name][~present[:, column]] = math.nan
    y = torch.randint(1, 4, (rows,), generator=g)
    there = torch.rand(rows, generator=g) >= holes
    context = {"time": torch.randn(rows, generator=g)}
    batch = Batch(NAMES, x, present, torch.arange(rows), y * there, there, mask=mask, context=context)
    return Dataset(TensorSource(schema, batch))


@pytest.fixture(scope="module")
def big() -> Dataset:
    return make(BIG)


@pytest.fixture(scope="module")
def full() -> Dataset:
    """10,000 rows without holes."""
    return make(BIG, holes=0.0)


def whole(data: Data) -> Batch:
    return data.batch(torch.arange(len(data)))


def taken(data: Data, mask: Mask) -> Tensor:
    return data.present & ~mask.keep


# rates, of every mechanism --------------------------------------------------------------------------------------------
SLOTS: dict[str, Callable[[float], Mechanism]] = {
    "mcar": mcar,
    "mcar coupled": lambda r: mcar(r, keep_one=False, coupling=0.7),
    "per_modality": lambda r: per_modality({"pic": r, "tab": r / 2}, coupling=0.5),
    "mar by modality": lambda r: mar(r, "pic"),
    "mar by cell": lambda r: mar(r, "tab.1", of=["pic", "ts"]),
    "mar by context": lambda r: mar(r, "context.time", keep_one=False),
    "mnar": mnar,
    "mnar by label": lambda r: mnar(r, "label", strength=1.0),
    "bursts": lambda r: bursts(r, 12),
    "bursts jointly": lambda r: bursts(r, 12, of=("sound", "ts"), jointly=True),
}
STEPS: dict[str, Callable[[float], Mechanism]] = {
    "steps": steps,
    "steps of one": lambda r: steps(r, "note"),
    "blocks": lambda r: blocks(r, ["ts", "note"]),
    "blocks of 3": lambda r: blocks(r, "ts", length=3),
    "gilbert_elliott": lambda r: gilbert_elliott(r, 11, of="ts"),
    "cells mcar": lambda r: cells(r / 2, "tab", by="mcar"),
    "cells mar": lambda r: cells(r / 2, "tab"),
    "cells mnar": lambda r: cells(r / 2, "tab", by="mnar", tail="tail"),
    "labels": labels,
    "labels by class": lambda r: labels(r, by="class"),
    "labels of each class": lambda r: labels(r, by="each_class"),
    "labels by picture": lambda r: labels(r, by="pic"),
}
ALL = {**SLOTS, **STEPS}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.6])
@pytest.mark.parametrize("name", ALL)
def test_what_is_asked_comes_out(name: str, rate: float, big: Dataset) -> None:
    mask = ALL[name](rate).plan(big, 3)
    wanted = mask.asked
    if isinstance(wanted, dict):
        for modality, share in wanted.items():
            assert mask.realised_by_modality[modality] == pytest.approx(share, abs=1e-3)
    else:
        assert mask.realised == pytest.approx(wanted, abs=1e-3)
    before, after = units(whole(big), mask), units(whole(big.with_missing(given(mask))), mask)
    assert mask.realised == pytest.approx(1 - float(after.sum()) / float(before.sum()), abs=1e-9)
    by_row = torch.where(before > 0, 1 - after / before.clamp(min=1), 0.0)
    assert mask.realised_by_row.double().allclose(by_row, atol=1e-6)


def units(batch: Batch, mask: Mask) -> Tensor:
    """What each row has, counted in what a batch shows: float64 ``[N]``."""
    if mask.unit == "label":
        assert batch.target_present is not None
        return batch.target_present.double()
    if mask.unit == "slot":
        return batch.present.double().sum(1)
    return torch.stack([steps_of(batch, name).double().sum(1) for name in mask.steps]).sum(0)


def steps_of(batch: Batch, name: str) -> Tensor:
    here = batch.present[:, batch.names.index(name), None]
    if name in batch.mask:
        return batch.mask[name] & here
    return here.expand(batch.inputs[name].shape[:2])


@pytest.mark.parametrize("name", ALL)
def test_a_higher_rate_hides_more_of_the_same(name: str) -> None:
    data = make(400)
    low, high = (ALL[name](rate).plan(data, 1) for rate in (0.2, 0.5))
    for few, many in zip(tensors(low), tensors(high), strict=True):
        assert not bool((~few & many).any())
    assert high.realised > low.realised


def tensors(mask: Mask) -> list[Tensor]:
    found = [mask.steps[name] for name in sorted(mask.steps)] or [mask.keep]
    return found if mask.labels is None else [mask.labels]


@pytest.mark.parametrize("name", ALL)
def test_draws_belong_to_rows_and_the_seed(name: str) -> None:
    data, mechanism = make(300), ALL[name](0.4)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    mask, turned = mechanism.plan(data, 0), mechanism.plan(data.subset(order), 0)
    for straight, other in zip(tensors(mask), tensors(turned), strict=True):
        assert torch.equal(straight[order], other)
    assert mechanism.plan(data, 0) == mask
    assert mechanism.plan(data, 1) != mask
    assert parse_mechanism(str(mechanism)) == mechanism


@pytest.mark.parametrize("name", ALL)
def test_a_mask_goes_into_a_file_and_back(name: str, tmp_path: Path) -> None:
    data = make(61)
    mask = ALL[name](0.3).plan(data, 2)
    back = Mask.load(mask.save(tmp_path / "mask.npz"))
    assert back == mask
    for one, other in zip(tensors(mask), tensors(back), strict=True):
        assert torch.equal(one, other)
    for field in ("unit", "asked", "realised", "realised_by_modality", "seed", "mechanism", "rows", "hash"):
        assert getattr(back, field) == getattr(mask, field)
    again = data.with_missing(given(tmp_path / "mask.npz"))
    assert again.mask == mask
    assert torch.equal(again.present, data.with_missing(ALL[name](0.3), seed=2).present)
    with pytest.raises(DataError, match=rf"{mask.hash}.*\[61, 6\].*\[60, 6\]"):
        mask.check(make(60))


@pytest.mark.parametrize(("name", "part"), [("steps of one", "step_0"), ("labels", "labels"), ("mcar", "bits")])
def test_an_altered_mask_is_refused(name: str, part: str, tmp_path: Path) -> None:
    path = ALL[name](0.3).plan(make(61), 2).save(tmp_path / "mask.npz")
    with np.load(path) as file:
        parts = dict(file)
    parts[part] = parts[part] ^ 1
    np.savez(path, **parts)
    with pytest.raises(DataError, match="altered"):
        Mask.load(path)


def members(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file of a mask says of itself, and its arrays."""
    with np.load(path) as file:
        arrays = dict(file)
    return json.loads(arrays.pop("facts").tobytes()), arrays


def rewrite(path: Path, facts: Any, arrays: dict[str, Any]) -> None:
    np.savez_compressed(path, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)


@pytest.mark.parametrize("name", ["steps of one", "labels", "mcar"])
def test_a_change_of_anything_that_a_mask_says_is_noticed(name: str, tmp_path: Path) -> None:
    path = ALL[name](0.3).plan(make(61), 2).save(tmp_path / "mask.npz")
    facts, arrays = members(path)
    ways = [(key, inner) for key, value in facts.items() for inner in (value if isinstance(value, dict) else [None])]
    assert {"unit", "asked", "realised", "mechanism", "rows", "hash", "shape", "digest"} <= {key for key, _ in ways}
    for key, inner in ways:
        changed = json.loads(json.dumps(facts))
        place, last = (changed, key) if inner is None else (changed[key], inner)
        match place[last]:
            case int() | float():
                place[last] += 1
            case str():
                place[last] = "step" if place[last] == "slot" else "slot" if key == "unit" else place[last] + "x"
            case [first, second]:
                place[last] = [first, second + 1]
        assert changed != facts
        rewrite(path, changed, arrays)
        with pytest.raises(DataError, match=r"mask\.npz (was altered|is not a mask)"):
            Mask.load(path)
    rewrite(path, facts, {**arrays, "by_row": arrays["by_row"] * np.float32(0.5)})
    with pytest.raises(DataError, match="was altered"):
        Mask.load(path)
    rewrite(path, facts, arrays)
    Mask.load(path)


def test_a_mask_of_version_0_1_0_is_read_and_its_bits_are_checked(tmp_path: Path) -> None:
    mask = ALL["mcar"](0.3).plan(make(61), 2)
    facts, arrays = members(mask.save(tmp_path / "mask.npz"))
    del facts["digest"]
    rewrite(tmp_path / "mask.npz", facts, arrays)
    assert Mask.load(tmp_path / "mask.npz") == mask
    rewrite(tmp_path / "mask.npz", facts, {**arrays, "bits": arrays["bits"] ^ 1})
    with pytest.raises(DataError, match="its bits have hash"):
        Mask.load(tmp_path / "mask.npz")


def unlike(**more: Any) -> Callable[[dict[str, Any], dict[str, Any]], Any]:
    return lambda facts, arrays: facts.update(more)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (unlike(realised="<b>"), "realised is '<b>'"),
        (unlike(realised=True), "realised is 'True'"),
        (unlike(seed=1.5), "seed is '1.5'"),
        (unlike(unit="page"), "unit is 'page'"),
        (unlike(unit=["slot"]), "unit is"),
        (unlike(asked={"m0": "half"}), "asked is"),
        (unlike(realised_by_modality=[0.1]), "realised_by_modality is"),
        (unlike(shape=[10**6, 10**6]), "unlike a mask of this shape"),
        (unlike(shape=[-61, 6]), "shape is"),
        (unlike(shape=[61]), "shape is"),
        (unlike(steps={"m0": [60, 4]}), "steps is"),
        (unlike(steps={"m0": [61, 4]}), "'step_0' is lacking"),
        (unlike(note="more"), "facts are not those of a mask"),
        (lambda facts, arrays: facts.pop("seed"), "facts are not those of a mask"),
        (lambda facts, arrays: arrays.pop("by_row"), "'by_row' is lacking"),
        (lambda facts, arrays: arrays.update(by_row=arrays["by_row"].astype(np.float64)), "by_row"),
        (lambda facts, arrays: arrays.update(bits=arrays["bits"][:, None]), "bits.npy holds uint8"),
        (lambda facts, arrays: arrays.update(labels=np.zeros(1 << 20, np.uint8)), "more than a mask of this shape"),
        (lambda facts, arrays: arrays.update(pad=np.zeros(1 << 20, np.uint8)), "'pad' is lacking, or no member"),
    ],
)
def test_a_mask_with_types_or_members_that_no_mask_has_is_refused(
    change: Callable[[Any, Any], Any], problem: str, tmp_path: Path
) -> None:
    path = ALL["mcar"](0.3).plan(make(61), 2).save(tmp_path / "mask.npz")
    facts, arrays = members(path)
    change(facts, arrays)
    rewrite(path, facts, arrays)
    with pytest.raises(DataError, match=rf"mask\.npz is not a mask .*{re.escape(problem)}"):
        Mask.load(path)


def test_damage_to_any_byte_of_a_mask_is_said_of_its_file(tmp_path: Path) -> None:
    mask = ALL["mcar"](0.3).plan(make(61), 2)
    path = mask.save(tmp_path / "mask.npz")
    content = path.read_bytes()
    refused = 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            back = Mask.load(path)
        except DataError as error:
            refused += str(path) in str(error)
        else:  # a date, say
            assert back == mask
            assert back.mechanism == mask.mechanism
            refused += 1
    assert refused == len(content)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [0, 1, 2, 7])
def test_few_rows_and_modalities_that_nobody_has(name: str, rows: int) -> None:
    batch = whole(make(rows, holes=0.0))
    batch.present[:, 4] = False  # nobody has a series
    data = Dataset(TensorSource(SCHEMA, batch))
    mask = ALL[name](0.2).plan(data, 0)
    assert mask.keep.shape == (rows, 6)
    less = data.with_missing(given(mask))
    assert torch.equal(whole(less).present, less.present)
    if mask.unit == "slot":
        assert less.present.any(1).all() or "bursts" in name or "coupled" in name or "context" in name
    observed = units(whole(data), mask).sum()
    if isinstance(mask.asked, dict):
        for column, (modality, share) in enumerate(mask.asked.items()):
            off = (mask.realised_by_modality[modality] - share) * int(data.present[:, column].sum())
            assert abs(off) <= 0.5 + 1e-9
    else:  # each modality, or each class, is rounded on its own
        assert (
            abs(mask.realised - mask.asked) * observed
            <= 0.5 * max(1, len(mask.steps), 3 * (mask.unit == "label")) + 1e-9
        )


# steps in a data set ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in STEPS if "labels" not in n])
def test_steps_that_go_are_masked_and_hold_nothing(name: str) -> None:
    data = make(200)
    clean, less = whole(data), data.with_missing(STEPS[name](0.6), seed=4)
    batch = whole(less)
    assert less.mask is not None
    assert set(less.mask.steps) <= set(NAMES[1:])
    for each in less.mask.steps:
        gone = steps_of(clean, each) & ~steps_of(batch, each)
        assert gone.any()
        x = batch.inputs[each]
        assert bool((torch.isnan(x) if x.is_floating_point() else x == 0)[gone].all())
        kept = steps_of(batch, each)
        assert torch.equal(x[kept], clean.inputs[each][kept])
    for column, each in enumerate(NAMES):
        if each in batch.mask:
            assert torch.equal(batch.present[:, column], batch.mask[each].any(1))
    assert torch.equal(less.present, batch.present)
    some = torch.tensor([3, 150, 7])
    assert torch.equal(less.subset(some).present, batch.present[some])
    assert torch.equal(steps_of(whole(less.subset(some)), next(iter(less.mask.steps))),
                       steps_of(batch, next(iter(less.mask.steps)))[some])  # fmt: skip


def test_a_slot_that_loses_all_its_steps_is_absent() -> None:
    data = make(300)
    less = data.with_missing(steps(0.7, "note"))
    lost = data.present[:, 2] & ~less.present[:, 2]
    assert lost.any(), "short texts lose everything"
    assert less.present[:, [0, 1, 3, 4, 5]].equal(data.present[:, [0, 1, 3, 4, 5]])
    kept = data.with_missing(steps(0.7, "note", keep_one=True))
    assert torch.equal(kept.present, data.present)
    with pytest.raises(ConfigError, match="at most") as error:
        data.with_missing(steps(0.95, "note", keep_one=True))
    most = float(str(error.value).split("at most ")[1].split()[0])
    assert torch.equal(data.with_missing(steps(most, "note", keep_one=True)).present, data.present)
    assert not data.with_missing(steps(1.0, "note")).present[:, 2].any()


def test_steps_that_others_took_count_too() -> None:
    """An operator may have left fewer steps than the plan saw; a slot is then absent where both together took all."""
    data = make(30, holes=0.0)
    mask, batch = steps(0.5, "note").plan(data, 0), whole(data)
    batch.mask["note"] &= ~mask.steps["note"] | (torch.arange(30) < 10)[:, None]
    after = mask.gaps.hide(batch)
    assert torch.equal(after.present[:, 2], after.mask["note"].any(1))
    assert not after.present[10:, 2].any()
    assert after.present[:10, 2].any()


def test_inputs_are_never_changed() -> None:
    data = make(100)
    before = {n: x.clone() for n, x in whole(data).inputs.items()}
    whole(data.with_missing(steps(0.8)).with_missing(mcar(0.3)).with_missing(labels(0.5)))
    after = whole(data)
    for name, x in before.items():
        assert torch.equal(x.nan_to_num(99), after.inputs[name].nan_to_num(99))


def test_text_without_a_mask_counts_its_tokens() -> None:
    batch = whole(make(50, holes=0.0))
    del batch.mask["note"]
    data = Dataset(TensorSource(SCHEMA, batch))
    mask = steps(0.5, "note").plan(data, 0)
    tokens = batch.inputs["note"] > 0
    assert int((tokens & ~mask.steps["note"]).sum()) == round(0.5 * int(tokens.sum()))
    assert mask.steps["note"][~tokens].all()


def test_images_have_no_steps() -> None:
    with pytest.raises(ConfigError, match="occlusion or cutout"):
        steps(0.2, "pic").plan(make(20), 0)
    assert set(steps(0.2).plan(make(20), 0).steps) == set(NAMES[1:])
    only = Schema((Modality("pic", "image", (1, 2, 2)),), Classification(["a", "b"]))
    batch = Batch(("pic",), {"pic": torch.rand(4, 1, 2, 2)}, torch.ones(4, 1, dtype=torch.bool), torch.arange(4))
    with pytest.raises(ConfigError, match="no modality"):
        steps(0.2).plan(Dataset(TensorSource(only, batch)), 0)


@pytest.mark.parametrize("mechanism", [mcar(0.4), steps(0.5), labels(0.5)], ids=str)
def test_truth_is_the_batch_before(mechanism: Mechanism) -> None:
    data = make(80)
    clean = whole(data)
    assert whole(data.with_missing(mechanism)).truth is None
    batch = whole(data.with_missing(mechanism, keep="truth"))
    assert batch.truth is not None
    for name in NAMES:
        assert torch.equal(batch.truth.inputs[name].nan_to_num(9), clean.inputs[name].nan_to_num(9))
    assert torch.equal(batch.truth.present, clean.present)
    assert batch.truth.target is not None
    assert torch.equal(batch.truth.target, clean.target)  # type: ignore[arg-type]
    lost = (batch.truth.present & ~batch.present).any() or not torch.equal(batch.target, clean.target)  # type: ignore[arg-type]
    assert lost


def test_what_is_hidden_for_good_is_not_in_truth() -> None:
    data = make(80)
    both = data.with_missing(mcar(0.3), keep="truth").with_missing(labels(0.6))
    batch = whole(both)
    assert batch.truth is not None
    assert torch.equal(batch.truth.present, data.present)
    hidden = data.target_present & ~both.target_present
    assert hidden.any()
    assert batch.truth.target_present is not None
    assert not batch.truth.target_present[hidden].any()
    assert not batch.truth.target[hidden].any()  # type: ignore[index]
    assert both.condition == "mcar(0.3) + labels(0.6), hidden slots kept as truth"


def test_one_mechanism_of_each_unit() -> None:
    data = make(60).with_missing(steps(0.3)).with_missing(mcar(0.2)).with_missing(labels(0.2))
    assert data.damage.missing == "steps(0.3) + mcar(0.2) + labels(0.2)"
    for again in (steps(0.1), mcar(0.1), labels(0.1)):
        with pytest.raises(ConfigError, match="already"):
            data.with_missing(again)
    with pytest.raises(ConfigError, match="'truth'"):
        make(20).with_missing(mcar(0.1), keep="all")  # type: ignore[arg-type]
    one, other = make(60).with_missing(steps(0.3)), make(60).with_missing(steps(0.3), seed=1)
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == make(60).with_missing(steps(0.3)).fingerprint


def test_steps_of_a_table_that_was_read() -> None:
    import pandas as pd

    import kintsugi as kg

    frame = pd.DataFrame({
        "age": [1.0, math.nan, 3.0, 4.0, 5.5, 2.0] * 10, "dose": [3.0, 1.0, math.nan, 2.0, 9.0, 4.0] * 10,
        "note": ["a b c", "de", None, "fgh ijk", "l", "mnopqr"] * 10, "y": ["yes", "no"] * 30,
    })  # fmt: skip
    readers = {"tab": kg.tabular(["age", "dose"]), "note": kg.text("note")}
    data = kg.Table.from_pandas(frame, modalities=readers, target="y")
    clean = whole(data)
    less = data.with_missing(steps(0.4))
    batch = whole(less)
    for column, name in enumerate(("tab", "note")):
        was, now = clean.mask[name], batch.mask[name]
        assert int((was & ~now).sum()) == round(0.4 * int(was.sum()))
        assert torch.equal(batch.present[:, column], now.any(1))
    assert torch.equal(less.present, batch.present)
    stored = whole(less.in_memory())
    assert torch.equal(stored.mask["note"], batch.mask["note"])


def test_training_goes_on_with_fewer_steps_and_labels() -> None:
    import kintsugi as kg

    small = Schema(SCHEMA.modalities[3:], SCHEMA.task)
    batch = whole(make(120))
    x = {name: batch.inputs[name] for name in small.names}
    source = Batch(small.names, x, batch.present[:, 3:], batch.index, batch.target, batch.target_present,
                   mask={"tab": batch.mask["tab"]})  # fmt: skip
    x["tab"][:, 5] = batch.mask["tab"][:, 5].float().masked_fill(~batch.mask["tab"][:, 5], math.nan)
    data = Dataset(TensorSource(small, source))
    train = data.subset(range(90)).with_missing(gilbert_elliott(0.3, 3)).with_missing(labels(0.4))
    model = kg.Classifier("mean_fusion", epochs=1, seed=0).fit(train, data.subset(range(90, 120)))
    assert torch.isfinite(torch.as_tensor(model.predict_proba(train))).all()


# labels ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mechanism", [labels(0.5), labels(0.5, by="each_class")], ids=str)
def test_hidden_labels_cannot_be_read(mechanism: Mechanism) -> None:
    data = make(200)
    less = data.with_missing(mechanism)
    hidden = data.target_present & ~less.target_present
    assert int(hidden.sum()) == pytest.approx(0.5 * int(data.target_present.sum()), abs=2)
    assert (data.target[hidden] > 0).all()  # type: ignore[index]
    batch = whole(less)
    for target in (less.target, batch.target):
        assert target is not None
        assert not target[hidden].any()
        assert torch.equal(target[~hidden], data.target[~hidden])  # type: ignore[index]
    assert torch.equal(batch.target_present, less.target_present)  # type: ignore[arg-type]
    assert torch.equal(less.present, data.present)
    assert len(less.positions("labelled")) == int((less.target_present & less.present.any(1)).sum())
    assert torch.equal(less.subset([5, 3]).target_present, less.target_present[[5, 3]])


def test_labels_by_class_and_by_input(full: Dataset) -> None:
    y = full.target
    assert y is not None
    plain = gone_labels(labels(0.5), full)
    for label in (1, 2, 3):  # 3,333 rows a class: one standard deviation is 0.0087
        assert abs(plain[y == label].float().mean() - 0.5) < 5 * 0.0087
    by_class = gone_labels(labels(0.5, by="class"), full)
    shares = [float(by_class[y == label].float().mean()) for label in (1, 2, 3)]
    assert shares[0] < 0.25 < 0.75 < shares[2]
    each = gone_labels(labels(0.5, by="each_class"), full)
    for label in (1, 2, 3):
        assert int(each[y == label].sum()) == round(0.5 * int((y == label).sum()))
    bright = whole(full).inputs["pic"].mean((1, 2, 3))
    assert auc(gone_labels(labels(0.5, by="pic"), full), bright) > 0.8
    assert abs(auc(plain, bright) - 0.5) < 0.03


def gone_labels(mechanism: Mechanism, data: Dataset) -> Tensor:
    found = mechanism.plan(data, 0).labels
    assert found is not None
    return ~found


def test_labels_of_complete_rows_only() -> None:
    data = make(400)
    mask = labels(0.1, only_complete=True).plan(data, 0)
    assert mask.labels is not None
    assert data.present[~mask.labels].all()
    assert mask.realised == pytest.approx(0.1, abs=0.002)
    with pytest.raises(ConfigError, match="at most"):
        labels(0.9, only_complete=True).plan(data, 0)


def test_labels_that_are_not_there() -> None:
    batch = whole(make(20))
    bare = Dataset(TensorSource(SCHEMA, Batch(NAMES, batch.inputs, batch.present, batch.index, mask=batch.mask)))
    with pytest.raises(ConfigError, match="no labels"):
        labels(0.5).plan(bare, 0)
    with pytest.raises(ConfigError, match="no labels"):
        mnar(0.2, "label").plan(bare, 0)
    values = Schema(SCHEMA.modalities, Regression())
    floats = Batch(NAMES, batch.inputs, batch.present, batch.index, torch.randn(20), mask=batch.mask)
    data = Dataset(TensorSource(values, floats))
    with pytest.raises(ConfigError, match="no classes"):
        labels(0.5, by="each_class").plan(data, 0)
    less = data.with_missing(labels(0.5))
    assert int((less.target == 0).sum()) == 10, "a hidden value reads 0"


# dependence -----------------------------------------------------------------------------------------------------------
def auc(gone: Tensor, value: Tensor) -> float:
    """Chance that a lost row has a higher value than a kept one; 1/2 where they do not hang together."""
    rank = value.double().argsort().argsort().double()
    a, b = int(gone.sum()), int((~gone).sum())
    return float((rank[gone].sum() - a * (a - 1) / 2) / (a * b))


def features(data: Dataset) -> dict[str, Tensor]:
    x = whole(data).inputs
    return {
        "pic": x["pic"].mean((1, 2, 3)),
        "sound": x["sound"].square().mean(1).log10(),
        "note": (x["note"] > 0).sum(1) + torch.rand(len(data), generator=torch.Generator().manual_seed(0)) / 2,
        "tab": x["tab"][:, :5].mean(1),
        "ts": x["ts"].mean((1, 2)),
        "vec": x["vec"].mean(1),
    }


# 10,000 rows: under independence the AUC has a standard deviation of 0.0058 at a rate of one half (1/sqrt(12 n p q)); six
# of them bound every test below with a chance of 2e-9 each.
CHANCE = 6 * 0.0058


def test_mcar_depends_on_nothing(full: Dataset) -> None:
    gone = taken(full, mcar(0.5, keep_one=False).plan(full, 0))
    for value in [*features(full).values(), full.target]:
        for column in range(6):
            noise = torch.rand(BIG, generator=torch.Generator().manual_seed(1)) * 1e-6
            assert value is not None
            assert abs(auc(gone[:, column], value + noise) - 0.5) < CHANCE


@settings(max_examples=15, deadline=None)
@forall(seed=st.integers(0, 10_000), rate=st.floats(0.2, 0.6))
def test_mcar_depends_on_nothing_whatever_the_seed(seed: int, rate: float) -> None:
    data = make(1500, holes=0.0)
    gone = taken(data, mcar(rate).plan(data, seed))
    bright = features(data)["pic"]
    for column in range(6):  # standard deviation at most 1 / sqrt(12 * 1500 * 0.2 * 0.8) = 0.019; six of them
        assert abs(auc(gone[:, column], bright) - 0.5) < 6 * 0.019


def test_mar_depends_on_what_decides_and_on_nothing_else(full: Dataset) -> None:
    values = features(full)
    gone = taken(full, mar(0.5, "pic").plan(full, 0))
    assert not gone[:, 0].any()
    for column, name in list(enumerate(NAMES))[1:]:
        assert auc(gone[:, column], values["pic"]) > 0.8
        # Given the driver, what goes missing has no say: within narrow bins of the driver the value is a coin.
        assert abs(within(gone[:, column], values["pic"], values[name]) - 0.5) < CHANCE
    cell = taken(full, mar(0.5, "tab.2", of="ts").plan(full, 0))[:, 4]
    x = whole(full).inputs["tab"]
    assert auc(cell, x[:, 2]) > 0.8
    assert abs(auc(cell, x[:, 1]) - 0.5) < CHANCE
    time = taken(full, mar(0.5, "context.time", of="ts", strength=-2.0).plan(full, 0))[:, 4]
    assert auc(time, whole(full).context["time"]) < 0.2


def within(gone: Tensor, driver: Tensor, value: Tensor, bins: int = 40) -> float:
    """AUC of the value's rank within bins of the driver."""
    order = driver.argsort()
    rank = torch.empty(len(value), dtype=torch.float64)
    for rows in order.chunk(bins):
        rank[rows] = value[rows].argsort().argsort().double() / len(rows)
    # The share lost differs between bins, so lost and kept rows are compared within each.
    found, weight = 0.0, 0.0
    for rows in order.chunk(bins):
        a, b = int(gone[rows].sum()), int((~gone[rows]).sum())
        if a and b:
            found += auc(gone[rows], rank[rows]) * a * b / (a + b)
            weight += a * b / (a + b)
    return found / weight


def test_mnar_depends_on_what_goes_missing(full: Dataset) -> None:
    values = features(full)
    gone = taken(full, mnar(0.5, keep_one=False).plan(full, 0))
    for column, name in enumerate(NAMES):
        if name != "tab" and name != "vec":  # these average standardised columns; see below
            assert auc(gone[:, column], values[name]) < 0.2, name
        assert auc(gone[:, column], values[name]) < 0.25, name
        others = [n for n in NAMES if n != name]
        assert all(abs(auc(gone[:, column], values[n]) - 0.5) < CHANCE for n in others)
    reverse = taken(full, mnar(0.5, strength=2.0, of="sound").plan(full, 0))
    assert auc(reverse[:, 1], values["sound"]) > 0.8
    assert not reverse[:, [0, 2, 3, 4, 5]].any()
    by_label = taken(full, mnar(0.5, "label", strength=2.0, keep_one=False).plan(full, 0))
    assert full.target is not None
    assert all(auc(by_label[:, c], full.target + torch.rand(BIG) * 0.1) > 0.7 for c in range(6))
    assert all(abs(auc(by_label[:, c], values["pic"]) - 0.5) < CHANCE for c in range(6))


@pytest.mark.parametrize(("strength", "low", "high"), [(0.0, 0.465, 0.535), (0.5, 0.58, 0.68), (4.0, 0.9, 0.99)])
def test_strength_says_how_much(strength: float, low: float, high: float, full: Dataset) -> None:
    gone = taken(full, mar(0.5, "pic", of="ts", strength=strength).plan(full, 0))[:, 4]
    assert low < auc(gone, features(full)["pic"]) < high


def test_mar_is_the_logistic_that_it_says(full: Dataset) -> None:
    gone = taken(full, mar(0.3, "context.time", of="ts", strength=1.5).plan(full, 0))[:, 4].double()
    z = whole(full).context["time"].double()
    z = (z - z.mean()) / z.std(correction=0)
    slope, intercept = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(25):  # Newton's method of logistic regression
        p = torch.sigmoid(intercept + slope * z)
        w = p * (1 - p)
        h = torch.stack([torch.stack([w.sum(), (w * z).sum()]), torch.stack([(w * z).sum(), (w * z * z).sum()])])
        step = torch.linalg.solve(h, torch.stack([(gone - p).sum(), ((gone - p) * z).sum()]))
        intercept, slope = intercept + step[0], slope + step[1]
    assert float(slope) == pytest.approx(1.5, abs=0.15)  # five standard errors of about 0.03


def test_rows_without_what_decides_count_as_average(big: Dataset) -> None:
    gone = taken(big, mar(0.3, "pic", of="ts", strength=6.0, keep_one=False).plan(big, 0))[:, 4]
    unknown = ~big.present[:, 0] & big.present[:, 4]
    known = big.present[:, 0] & big.present[:, 4]
    rate, other = float(gone[unknown].double().mean()), float(gone[known].double().mean())
    assert 0 < rate < 1
    assert abs(other - 0.3) < 0.05


def test_mar_keeps_what_decides() -> None:
    data = make(50)
    with pytest.raises(ConfigError, match="must stay observed"):
        mar(0.2, "pic", of=["pic", "ts"]).plan(data, 0)
    with pytest.raises(ConfigError, match="must stay observed"):
        mar(0.2, "tab.1", of="tab").plan(data, 0)
    with pytest.raises(UnknownName, match="did you mean 'pic'"):
        mar(0.2, "pik").plan(data, 0)
    with pytest.raises(ConfigError, match="no cell"):
        mar(0.2, "tab.9").plan(data, 0)
    with pytest.raises(ConfigError, match="no cell"):
        mar(0.2, "tab.first").plan(data, 0)
    with pytest.raises(ConfigError, match="it has time"):
        mar(0.2, "context.site").plan(data, 0)


@pytest.mark.parametrize("make_one", [mnar, lambda r: mar(r, "context.time"), lambda r: bursts(r, 30, keep_one=True)])
def test_keep_one_bounds_the_rate_and_says_so(make_one: Callable[[float], Mechanism]) -> None:
    data = make(600, holes=0.0)
    with pytest.raises(ConfigError, match="at most") as error:
        make_one(0.95).plan(data, 0)
    most = float(str(error.value).split("at most ")[1].split()[0])
    assert 0.75 < most < 0.84
    mask = make_one(most).plan(data, 0)
    assert (data.present & mask.keep).any(1).all()


# coupling and bursts --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("coupling", [0.0, 0.5, 1.0])
def test_coupling_keeps_rates_and_moves_the_correlation(coupling: float, full: Dataset) -> None:
    one, two = taken(full, per_modality({"pic": 0.5, "ts": 0.5}, coupling=coupling).plan(full, 0))[:, [0, 4]].T
    assert one.double().mean() == two.double().mean() == 0.5
    found = float(torch.corrcoef(torch.stack([one.double(), two.double()]))[0, 1])
    # Sheppard (1899): the correlation of the signs of two normal numbers is (2 / pi) asin(correlation).
    assert found == pytest.approx(2 / math.pi * math.asin(coupling), abs=0.05)


def test_coupled_mcar_keeps_one() -> None:
    data = make(2000, holes=0.0)
    for coupling in (0.3, 1.0):
        left = mcar(0.6, coupling=coupling).plan(data, 0).keep
        assert left.any(1).all()
        assert left[left.sum(1) == 1].sum(0).min() > 0.1 * int((left.sum(1) == 1).sum()), "which one is left is fair"
    with pytest.raises(ConfigError, match="coupling"):
        mcar(0.2, coupling=1.5)


def runs(bad: Tensor) -> Tensor:
    """Lengths of the runs of True."""
    padded = torch.cat([torch.zeros(1, dtype=torch.bool), bad, torch.zeros(1, dtype=torch.bool)]).int()
    edge = padded.diff()
    return (edge == -1).nonzero().flatten() - (edge == 1).nonzero().flatten()


@pytest.mark.parametrize(("rate", "length"), [(0.1, 2.0), (0.3, 10.0), (0.5, 40.0), (0.6, 3.0)])
def test_bursts_last_as_long_as_they_say(rate: float, length: float, full: Dataset) -> None:
    gone = taken(full, bursts(rate, length).plan(full, 0))
    found = torch.cat([runs(gone[:, column]) for column in range(6)]).double()
    # a geometric length has a standard deviation below its mean, so the mean of n bursts is known to mean / sqrt(n)
    assert abs(float(found.mean()) - length) < 5 * length / len(found) ** 0.5
    assert abs(torch.corrcoef(gone.double().T)[0, 1]) < 6 * (2 * length / BIG) ** 0.5


def test_bursts_follow_the_index_not_the_order() -> None:
    data = make(400, holes=0.0)
    order = torch.arange(399, -1, -1)
    gone = ~bursts(0.4, 20).plan(data.subset(order), 0).keep
    assert float(runs(gone[:, 0].flip(0)).double().mean()) > 6
    joint = ~bursts(0.4, 20, jointly=True).plan(data, 0).keep
    assert (joint.all(1) | ~joint.any(1)).all()


def test_bursts_cannot_be_shorter_than_chance() -> None:
    with pytest.raises(ConfigError, match=r"rate of 0\.5 at most.*must last 3\.333 or more"):
        bursts(0.7, 2)
    with pytest.raises(ConfigError, match="must last"):
        gilbert_elliott(0.7, 2)
    with pytest.raises(ConfigError, match="1 or more"):
        bursts(0.1, 0.5)
    with pytest.raises(ConfigError, match="cannot leave"):
        bursts(0.1, 5, jointly=True, keep_one=True)


@settings(max_examples=60, deadline=None)
@forall(
    rows=st.integers(1, 4), width=st.integers(1, 60), length=st.floats(1, 9), seed=st.integers(0, 99), e=st.floats(0, 1)
)
def test_bursty_keys_are_the_chain(rows: int, width: int, length: float, seed: int, e: float) -> None:
    u = np.random.default_rng(seed).random((rows, width))
    stay = 1 - 1 / length
    enter = e * stay
    bad, state = np.zeros_like(u, dtype=bool), np.zeros(rows, dtype=bool)
    for t in range(width):
        state = u[:, t] < np.where(state, stay, enter)
        bad[:, t] = state
    keys = bursty(u, length)
    assert np.array_equal(keys < np.floor(enter * 2.0**40), bad) or np.array_equal(keys <= enter * 2.0**40, bad)


# steps along time ------------------------------------------------------------------------------------------------------
def gone_steps(mechanism: Mechanism, data: Dataset, name: str) -> Tensor:
    return ~mechanism.plan(data, 0).steps[name]


def test_one_block_is_one_block() -> None:
    data = make(500)
    gone = gone_steps(blocks(0.4, ["ts", "note"]), data, "ts")
    here = data.present[:, 4]
    assert (torch.tensor([len(runs(row)) for row in gone[here]]) == 1).all()
    assert (gone[here].sum(1) == 8).all(), "0.4 of 20 steps"
    starts = torch.bincount(gone[here].int().argmax(1), minlength=20).double()
    expected = int(here.sum()) / 13  # 13 places where 8 of 20 steps can start
    chi = float(((starts[:13] - expected) ** 2 / expected).sum())
    assert chi < 32.9, "12 degrees of freedom: 0.1 %"
    assert not starts[13:].any()
    text, seen = gone_steps(blocks(0.4, "note"), data, "note"), whole(data).mask["note"]
    assert all(len(runs(row)) <= 1 for row in text)
    share = text.sum(1) / seen.sum(1).clamp(min=1)
    assert (share - 0.4)[seen.sum(1) > 0].abs().max() <= 0.6
    assert int(text.sum()) == round(0.4 * int(seen.sum()))


def test_blocks_of_a_length() -> None:
    data = make(500, holes=0.0)
    gone = gone_steps(blocks(0.3, "ts", length=5), data, "ts")
    inner = [int(n) for row in gone for n, last in zip(runs(row), [False] * 99, strict=False) if not last]
    short = sum(n < 5 for n in inner)
    # a block that starts near the end is cut by it: at most one a row
    assert short <= int(gone[:, -1].sum()) + 1
    assert np.mean(inner) > 4.5


@pytest.mark.parametrize(("rate", "length"), [(0.2, 2.0), (0.4, 6.0)])
def test_steps_come_in_bursts(rate: float, length: float) -> None:
    wide = Schema((Modality("ts", "series", (400, 1)),), Classification(["a", "b"]))
    batch = Batch(("ts",), {"ts": torch.randn(60, 400, 1)}, torch.ones(60, 1, dtype=torch.bool), torch.arange(60))
    data = Dataset(TensorSource(wide, batch))
    found = torch.cat([runs(row) for row in gone_steps(gilbert_elliott(rate, length), data, "ts")]).double()
    assert abs(float(found.mean()) - length) < 5 * length / len(found) ** 0.5 + 0.03 * length  # rows end
    alone = torch.cat([runs(row) for row in gone_steps(steps(rate), data, "ts")]).double()
    assert abs(float(alone.mean()) - 1 / (1 - rate)) < 0.1


def test_bursts_may_be_shared() -> None:
    two = Schema((Modality("a", "series", (30, 1)), Modality("b", "series", (30, 2))), Classification(["a", "b"]))
    x = {"a": torch.randn(40, 30, 1), "b": torch.randn(40, 30, 2)}
    data = Dataset(TensorSource(two, Batch(("a", "b"), x, torch.ones(40, 2, dtype=torch.bool), torch.arange(40))))
    joint = gilbert_elliott(0.3, 5, jointly=True).plan(data, 0).steps
    assert torch.equal(joint["a"], joint["b"])
    alone = gilbert_elliott(0.3, 5).plan(data, 0).steps
    assert not torch.equal(alone["a"], alone["b"])
    with pytest.raises(ConfigError, match="steps of the same time"):
        gilbert_elliott(0.3, 5, of=["ts", "sound"], jointly=True).plan(make(20), 0)


# cells of tables -------------------------------------------------------------------------------------------------------
def test_cells_by_cells_that_stay(full: Dataset) -> None:
    x = whole(full).inputs["tab"].double()
    gone = gone_steps(cells(0.2, "tab"), full, "tab")
    assert not gone[:, :3].any()
    assert abs(int((gone[:, 3:].any(1) & ~gone[:, 3:].all(1)).sum())) <= 1, "cells of a row go together"
    decides = x[:, :3].sum(1)
    assert auc(gone[:, 3], decides) > 0.65
    assert abs(within(gone[:, 3], decides, x[:, 3]) - 0.5) < CHANCE
    left = gone_steps(cells(0.2, "tab", tail="left"), full, "tab")[:, 3]
    assert auc(left, decides) < 0.35
    far = gone_steps(cells(0.2, "tab", tail="tail", strength=3), full, "tab")[:, 3]
    assert auc(far, decides.abs()) > 0.7
    assert abs(auc(far, decides) - 0.5) < CHANCE
    mid = gone_steps(cells(0.2, "tab", tail="mid", strength=3), full, "tab")[:, 3]
    assert auc(mid, decides.abs()) < 0.3


def test_cells_by_cells_that_go(full: Dataset) -> None:
    x = whole(full).inputs["tab"].double()
    gone = gone_steps(cells(0.1, "tab", by="mnar", incomplete=[1]), full, "tab")
    assert auc(gone[:, 1], x[:, 1]) > 0.65
    assert abs(auc(gone[:, 1], x[:, 0]) - 0.5) < CHANCE
    plain = gone_steps(cells(0.1, "tab", by="mcar", incomplete=[1]), full, "tab")
    assert abs(auc(plain[:, 1], x[:, 1]) - 0.5) < CHANCE
    weighed = gone_steps(cells(0.1, "tab", weights=[0, 1, 0, 0, 0, 0]), full, "tab")
    assert auc(weighed[:, 4], x[:, 1]) > 0.65
    assert abs(auc(weighed[:, 4], x[:, 0]) - 0.5) < CHANCE


@pytest.mark.parametrize(
    ("mechanism", "match"),
    [
        (lambda: cells(0.6, "tab"), r"at most 0\.5.*3 of them"),
        (lambda: cells(0.1, "pic"), "is image"),
        (lambda: cells(0.1, "tab", incomplete=[6]), "from 0 to 5"),
        (lambda: cells(0.1, "tab", incomplete=[]), "at least"),
        (lambda: cells(0.1, "tab", incomplete=range(6)), "left to decide"),
        (lambda: cells(0.1, "tab", weights=[1, 2]), "2 weights for 6"),
        (lambda: cells(0.1, "tab", weights=[0, 0, 0, 1, 0, 0]), "must not decide"),
        (lambda: cells(0.1, "tab", by="chance"), "by 'chance'"),
        (lambda: cells(0.1, "tab", tail="up"), "'up'"),
        (lambda: cells(0.1, "tab", incomplete=["x"]), "lists of numbers"),
        (lambda: cells(0.1, ["tab"]), "one table"),
        (lambda: mnar(0.1, by="weather"), "'weather'"),
        (lambda: mar(0.1, by=""), "what decides"),
        (lambda: mar(0.1, "pic", strength=math.inf), "strength"),
        (lambda: steps(0.1, of=[3]), "names"),
        (lambda: blocks(0.1, length=0), "1 step"),
        (lambda: labels(0.1, by=""), "what decides"),
        (lambda: natural(2), "between 0 and 1"),
    ],
)
def test_arguments_that_make_no_sense(mechanism: Callable[[], Mechanism], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        mechanism().plan(make(40, holes=0.0), 0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rate", [-0.1, 1.2, math.nan, "0.3", True])
def test_rates_are_shares(name: str, rate: Any) -> None:
    if "cells" in name or "per_modality" in name:
        # the table above halves their rate
        with pytest.raises(ConfigError, match="between 0 and 1"):
            cells(rate, "tab")
        with pytest.raises(ConfigError, match="between 0 and 1"):
            per_modality(pic=rate)
        return
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ALL[name](rate)


# natural --------------------------------------------------------------------------------------------------------------
def test_complete_rows_get_the_holes_of_the_others() -> None:
    g = torch.Generator().manual_seed(0)
    kind = torch.rand(4000, generator=g)
    present = torch.ones(4000, 6, dtype=torch.bool)
    present[kind < 0.3, 0] = False
    present[kind < 0.1, 4] = False  # 10 % lack both, 20 % the picture alone
    batch = whole(make(4000, holes=0.0))
    data = Dataset(TensorSource(SCHEMA, Batch(NAMES, batch.inputs, present, batch.index, batch.target, mask={})))
    left = data.present & natural().plan(data, 0).keep
    whole_rows = data.present.all(1)
    assert torch.equal(left[~whole_rows], data.present[~whole_rows])
    share = float((~left[whole_rows]).any(1).double().mean())
    assert share == pytest.approx(float((~whole_rows).double().mean()), abs=0.001)
    both = ~left[whole_rows][:, 0] & ~left[whole_rows][:, 4]
    alone = ~left[whole_rows][:, 0] & left[whole_rows][:, 4]
    assert float(both.sum() / alone.sum()) == pytest.approx(
        float((kind < 0.1).sum() / ((kind >= 0.1) & (kind < 0.3)).sum()), abs=0.01
    )
    assert left[:, [1, 2, 3, 5]].all()
    more = data.present & natural(0.8).plan(data, 0).keep
    assert float((~more[whole_rows]).any(1).double().mean()) == pytest.approx(0.8, abs=0.001)
    complete = data.subset(whole_rows)
    assert natural().plan(complete, 0).realised > 0.03, "the patterns are those of the data set, not of the subset"
    with pytest.raises(ConfigError, match="no incomplete row"):
        natural().plan(make(50, holes=0.0), 0)


# phases ---------------------------------------------------------------------------------------------------------------
def test_phases_differ() -> None:
    data = make(90)
    splits = Splits(data.subset(range(40)), data.subset(range(40, 60)), data.subset(range(60, 90)))
    phases = parse_phases({"train": "mcar(0.4)", "test": {"pattern": ["pic", "ts"]}})
    less = phases.apply(splits, seed=7, keep="truth")
    assert torch.equal(less.train.present, splits.train.present & mcar(0.4).plan(splits.train, 7).keep)
    assert less.val is splits.val
    assert less.test is not None
    assert splits.test is not None
    assert torch.equal(less.test.present, splits.test.present & torch.tensor([True, False, False, False, True, False]))
    assert less.train.batch(torch.arange(3)).truth is not None
    assert less.test.batch(torch.arange(3)).truth is None
    assert phases.apply(Splits(splits.train, splits.val)).test is None
    same = parse_phases("mcar(0.2)")
    assert same == Phases(mcar(0.2), mcar(0.2), mcar(0.2))
    assert parse_phases(str(phases)) == phases == parse_phases(phases.to_json())
    assert parse_phases(phases) is phases
    for wrong in ("phases(mcar(0.1))", "phases(train=mcar(0.1), later=mcar(0.2))", {"train": 3}):
        with pytest.raises(ConfigError):
            parse_phases(wrong)
    with pytest.raises(ConfigError, match="train phase"):
        Phases(train="mcar(0.1)")  # type: ignore[arg-type]
    assert parse_phases({"train": pattern("pic"), "val": None}) == Phases(train=pattern("pic"))
