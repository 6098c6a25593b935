"""What every corruption operator promises, for every one that is registered."""

from __future__ import annotations

import difflib
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from corruption_data import OPTIONS, ROWS, make, target, words
from kintsugi.core.batch import Batch
from kintsugi.core.errors import DataError
from kintsugi.core.schema import KINDS
from kintsugi.data.dataset import Dataset
from kintsugi.imperfect.corruption import Compose, Corruption, Sometimes, corrupt
from kintsugi.imperfect.operator import CROSS, OPERATORS, CrossOperator, Operator

EVERY = list(OPERATORS)
LABELS = [key for key in EVERY if corrupt(key, target(key)).labels]
INPUTS = [key for key in EVERY if key not in LABELS]
# Why is on each card. Published tables that are not in order, and operators of which no distance of samples tells the size.
NOT_MONOTONE = {
    "glass_blur", "frost", "saturate", "motion_blur", "snow", "spatter", "elastic_transform", "pitch", "speed",
}  # fmt: skip
NO_TREND = {"elastic_transform", "pitch", "speed"}
SINGLE = [key for key in EVERY if issubclass(OPERATORS[key], Operator)]


def spec(key: str, severity: int = 3, preset: str | None = None) -> Corruption:
    names = target(key)
    one = issubclass(OPERATORS[key], Operator)
    return corrupt(key, names[0] if one else names, severity, preset, **OPTIONS.get(key, {}))


@cache
def data(absent: bool = True) -> Dataset:
    return make(absent=absent)


def everything(rows: Dataset) -> Batch:
    return rows.batch(torch.arange(len(rows)))


def same(x: Tensor | None, y: Tensor | None) -> bool:
    if x is None or y is None:
        return x is y
    return torch.equal(x.nan_to_num(9e9), y.nan_to_num(9e9)) if x.is_floating_point() else torch.equal(x, y)


def equal(a: Batch, b: Batch) -> bool:
    """All that a method may see, and the targets."""
    keys = set(a.mask) | set(b.mask)
    return (
        all(same(a.inputs[n], b.inputs[n]) for n in a.names)
        and all(same(a.mask.get(n), b.mask.get(n)) for n in keys)
        and torch.equal(a.present, b.present)
        and same(a.target, b.target)
    )


def damage(key: str, before: Batch, after: Batch) -> float:
    """How much was done: share of labels or of characters, else mean squared change plus the share of steps that went."""
    if key in LABELS:
        assert before.target is not None
        assert after.target is not None
        return float((before.target != after.target).double().mean())
    total = 0.0
    for name in target(key):
        here = before.present[:, before.names.index(name)]
        x, y = before.inputs[name][here], after.inputs[name][here]
        if before.inputs[name].dtype == torch.int64:
            pairs = [(words(a), words(b)) for a, b in zip(x, y, strict=True)]
            total += sum(1 - difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in pairs) / len(x)
            continue
        was, now = seen(before, name)[here], seen(after, name)[here]
        both = (was & now).expand_as(x)
        total += float((x - y)[both].double().square().mean()) if bool(both.any()) else 0.0
        total += 100 * float((was & ~now).double().mean())
    return total


def seen(batch: Batch, name: str) -> Tensor:
    """Bool, of the shape of the input or one that expands to it."""
    x, here = batch.inputs[name], batch.present[:, batch.names.index(name)]
    mask = batch.mask.get(name)
    if mask is None:
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
    mask = mask & here[:, None]
    return mask.reshape(*mask.shape, *[1] * (x.ndim - 2))


@pytest.mark.parametrize("key", EVERY)
def test_input_stays_absent_rows_are_not_touched_and_something_happens(key: str) -> None:
    batch = everything(data())
    before = batch.map(torch.clone)
    it = spec(key, 4)
    after = it.apply(replace(batch, truth=batch), it.plan(data(), 1))
    assert equal(batch, before), "the input itself was changed"
    assert after.truth is batch
    for name in batch.names:
        if name not in it.modalities:
            assert after.inputs[name] is batch.inputs[name]
            assert after.mask.get(name) is batch.mask.get(name)
        elif key not in LABELS:
            here = batch.present[:, batch.names.index(name)]
            assert same(after.inputs[name][~here], batch.inputs[name][~here])
            assert after.inputs[name].dtype == batch.inputs[name].dtype
            assert after.inputs[name].shape == batch.inputs[name].shape
    assert bool((after.present <= batch.present).all()), "rows appeared"
    if key not in LABELS:
        assert after.target is batch.target
    assert damage(key, batch, after) > 0


@pytest.mark.parametrize("key", INPUTS)
def test_what_is_seen_is_finite_and_gaps_are_in_the_mask(key: str) -> None:
    batch = everything(data())
    for severity in (1, 5):
        it = spec(key, severity)
        after = it.apply(batch, it.plan(data(), 2))
        for name in it.modalities:
            column = batch.names.index(name)
            x, visible = after.inputs[name], seen(after, name)
            if x.is_floating_point():
                assert torch.isfinite(x[visible.expand_as(x)]).all()
            if name in after.mask:
                assert torch.equal(after.present[:, column], after.mask[name].any(1)), "present and mask disagree"
                if x.dtype != torch.int64:
                    assert bool((after.mask[name] <= seen(batch, name).reshape(after.mask[name].shape)).all()), (
                        "steps appeared"
                    )
                if not OPERATORS[key].gaps and x.dtype != torch.int64:
                    assert same(after.mask[name], batch.mask.get(name)), "gaps that the card does not tell"


@pytest.mark.parametrize("key", [k for k in SINGLE if OPERATORS[k].kind in ("image", "audio")])
def test_the_range_is_kept(key: str) -> None:
    batch = everything(data(absent=False))
    for severity in (1, 3, 5):
        it = spec(key, severity)
        name = it.modalities[0]
        after = it.apply(batch, it.plan(data(absent=False), 2)).inputs[name]
        low, high = (0.0, 1.0) if OPERATORS[key].kind == "image" else (-1.0, 1.0)
        assert low <= float(after.min()) <= float(after.max()) <= high


@pytest.mark.parametrize("key", EVERY)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(ROWS)), size=st.integers(1, ROWS))
def test_a_row_is_damaged_alike_in_any_batch_and_order(key: str, order: list[int], size: int) -> None:
    rows = data().with_corruption(spec(key), seed=5)
    straight = everything(rows).rows(torch.tensor(order))
    parts = [rows.batch(order[i : i + size]) for i in range(0, ROWS, size)]
    for name in spec(key).modalities:
        assert same(torch.cat([p.inputs[name] for p in parts]), straight.inputs[name])
        if name in straight.mask:
            assert same(torch.cat([p.mask[name] for p in parts]), straight.mask[name])
    assert torch.equal(torch.cat([p.target for p in parts]), straight.target)  # type: ignore[misc, arg-type]
    assert equal(everything(rows.subset(order)), straight)


@pytest.mark.parametrize("key", EVERY)
def test_threads_make_no_difference(key: str) -> None:
    batch, it = everything(data(absent=False)), spec(key)
    plan = it.plan(data(absent=False), 5)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = it.apply(batch, plan)
        torch.set_num_threads(2)
        two = it.apply(batch, plan)
    finally:
        torch.set_num_threads(before)
    assert equal(one, two)
    if key in SINGLE:
        name = it.modalities[0]
        operator = OPERATORS[key]()
        many = torch.cat([batch.inputs[name]] * 3)
        index = torch.arange(len(many))
        mask = None if name not in batch.mask else torch.cat([batch.mask[name]] * 3)
        alone = operator.apply(many, index, plan, mask)  # type: ignore[arg-type]
        type(operator).block, kept = 5 * many[0].numel() * many.element_size(), type(operator).block  # type: ignore[union-attr]
        try:
            shared = operator.apply(many, index, plan, mask, workers=3)  # type: ignore[arg-type, call-arg]
        finally:
            type(operator).block = kept  # type: ignore[union-attr]
        assert same(alone[0], shared[0]), "blocks or workers changed the result"  # type: ignore[index, arg-type]
        assert same(alone[1], shared[1])  # type: ignore[index, arg-type]


def digest(key: str) -> str:
    """What an operator does to the common data, as text."""
    it = spec(key)
    after = it.apply(everything(data()), it.plan(data(), 7))
    found = hashlib.sha256()
    for name in it.modalities:
        found.update(after.inputs[name].contiguous().numpy().tobytes())
    found.update(after.target.numpy().tobytes())  # type: ignore[union-attr]
    return found.hexdigest()[:16]


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, str]:
    code = "import json, test_operators as t; print(json.dumps({key: t.digest(key) for key in reversed(t.EVERY)}))"
    called = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    found: dict[str, str] = json.loads(called.stdout)
    return found


@pytest.mark.xdist_group("elsewhere")
@pytest.mark.parametrize("key", EVERY)
def test_another_process_gets_the_same(key: str, elsewhere: dict[str, str]) -> None:
    assert digest(key) == elsewhere[key]


@pytest.mark.parametrize("key", [k for k in SINGLE if OPERATORS[k].random])
def test_rows_and_seeds_differ(key: str) -> None:
    rows = data(absent=False)
    batch, it = everything(rows), spec(key, 5)
    name = it.modalities[0]
    x = batch.inputs[name][:1].expand(20, *batch.inputs[name].shape[1:])
    mask = batch.mask.get(name)
    mask = None if mask is None else mask[:1].expand(20, -1)
    operator = OPERATORS[key]()
    made = [operator.apply(x, torch.arange(20), it.plan(rows, seed), mask) for seed in (0, 1)]  # type: ignore[arg-type]
    first, second = (y.nan_to_num(9e9) if y.is_floating_point() else y for y, _ in made)  # type: ignore[union-attr]
    assert len(torch.unique(first.flatten(1), dim=0)) > 5
    assert (first != second).flatten(1).any(1).sum() > 10


@pytest.mark.parametrize("key", [k for k in SINGLE if not OPERATORS[k].random])
def test_what_draws_nothing_treats_rows_alike(key: str) -> None:
    rows = data(absent=False)
    batch, it = everything(rows), spec(key, 5)
    name = it.modalities[0]
    x = batch.inputs[name][:1].expand(6, *batch.inputs[name].shape[1:])
    mask = batch.mask.get(name)
    mask = None if mask is None else mask[:1].expand(6, -1)
    operator = OPERATORS[key]()
    made = [operator.apply(x, torch.arange(6), it.plan(rows, seed), mask)[0] for seed in (0, 1)]  # type: ignore[arg-type, index]
    assert all(same(made[0][0], row) for y in made for row in y)


@pytest.mark.parametrize("key", EVERY)
def test_damage_grows_with_severity(key: str) -> None:
    batch = everything(data(absent=False))
    sizes = []
    for severity in range(6):
        it = spec(key, severity)
        sizes.append(damage(key, batch, it.apply(batch, it.plan(data(absent=False), 0))))
    assert sizes[0] == 0
    assert sizes[1] > 0
    if OPERATORS[key].not_monotone:
        assert min(sizes[1:]) > 0
        assert sizes[5] > sizes[1] or key in NO_TREND, OPERATORS[key].not_monotone
    else:
        assert sizes == sorted(sizes)
        assert len(set(sizes)) == 6


def test_the_exceptions_are_few_and_say_why() -> None:
    exceptions = {key: OPERATORS[key].not_monotone for key in EVERY if OPERATORS[key].not_monotone}
    assert set(exceptions) == NOT_MONOTONE
    assert all(len(reason) > 20 for reason in exceptions.values())


@pytest.mark.parametrize("key", EVERY)
def test_the_plan_of_a_level_depends_on_seed_and_level_only(key: str) -> None:
    it = spec(key)
    plan = it.plan(data(), 3)
    assert plan.hash == it.plan(data(), 3).hash
    assert plan == it.plan(data(), 3)
    assert plan.hash != spec(key, 4).plan(data(), 3).hash
    assert plan.hash != it.plan(data(), 4).hash
    assert plan.reseeded(1).hash != plan.hash
    assert plan.reseeded(1).parameters == plan.parameters


@pytest.mark.parametrize("key", EVERY)
def test_severity_0_and_small_batches(key: str) -> None:
    batch = everything(data())
    nothing = spec(key, 0)
    assert nothing.apply(batch, nothing.plan(data(), 0)) is batch
    it = spec(key, 5)
    plan = it.plan(data(), 0)
    assert len(it.apply(batch.rows(torch.zeros(0, dtype=torch.long)), plan)) == 0
    whole = it.apply(batch, plan)
    for row in (0, 5, 23):
        assert equal(it.apply(batch.rows(torch.tensor([row])), plan), whole.rows(torch.tensor([row])))


@pytest.mark.parametrize("key", INPUTS)
def test_severity_is_recorded(key: str) -> None:
    batch = everything(data())
    two, four = spec(key, 2), spec(key, 4)
    after = two.apply(batch, two.plan(data(), 0))
    columns = [batch.names.index(name) for name in two.modalities]
    assert after.severity is not None
    assert after.severity.max() == 2
    others = [c for c in range(len(batch.names)) if c not in columns]
    assert after.severity[:, others].max() == 0
    here = batch.present[:, columns]
    assert after.severity[:, columns][~here].sum() == 0
    if key in SINGLE:
        assert bool((after.severity[:, columns][here] == 2).all())
    both = Compose((four, two))
    assert both.apply(batch, both.plan(data(), 0)).severity.max() == 4  # type: ignore[union-attr]
    assert data().with_corruption(two).batch(torch.arange(3)).severity is None, "methods must not see it"


@pytest.mark.parametrize("key", SINGLE)
def test_sometimes_reaches_some_rows_and_leaves_the_others(key: str) -> None:
    batch = everything(data(absent=False))
    whole, some = spec(key), Sometimes(spec(key), 0.5)
    every = whole.apply(batch, whole.plan(data(absent=False), 0))
    plan = some.plan(data(absent=False), 0)
    after = some.apply(batch, plan)
    hit = some.hits(batch.index, plan)[:, 0]
    assert 4 < int(hit.sum()) < 20
    assert equal(after.rows(hit), every.rows(hit))
    assert equal(after.rows(~hit), batch.rows(~hit))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("key", [k for k in SINGLE if OPERATORS[k].kind != "text"])
def test_dtype_is_kept(key: str, dtype: torch.dtype) -> None:
    batch, it = everything(data(absent=False)), spec(key, 2)
    name = it.modalities[0]
    x, mask = batch.inputs[name].to(dtype), batch.mask.get(name)
    operator = OPERATORS[key]()
    out, _ = operator.apply(x, batch.index, it.plan(data(absent=False), 0), mask)  # type: ignore[arg-type, misc]
    assert out.dtype == dtype  # type: ignore[union-attr]
    assert out.shape == x.shape  # type: ignore[union-attr]


@pytest.mark.parametrize("key", [k for k in SINGLE if OPERATORS[k].differentiable])
def test_gradients_reach_the_clean_input(key: str) -> None:
    batch, it = everything(data(absent=False)), spec(key, 2)
    name = it.modalities[0]
    x, mask = batch.inputs[name].nan_to_num(0.0), batch.mask.get(name)
    operator, plan = OPERATORS[key](), it.plan(data(absent=False), 0)
    leaf = x.clone().requires_grad_()
    out, seen_ = operator.apply(leaf, batch.index, plan, mask)  # type: ignore[arg-type, misc]
    plain, _ = operator.apply(x, batch.index, plan, mask)  # type: ignore[arg-type, misc]
    assert torch.allclose(out.detach().nan_to_num(9.0), plain.nan_to_num(9.0), atol=1e-6)  # type: ignore[union-attr]
    if seen_ is not None:  # type: ignore[has-type]
        out = torch.where(seen_.view(*seen_.shape, *[1] * (out.ndim - 2)), out, 0)  # type: ignore[union-attr, has-type]
    (out**2).sum().backward()  # type: ignore[operator]
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("key", EVERY)
def test_operators_say_what_they_are(key: str) -> None:
    operator = OPERATORS[key]
    assert operator.key == key
    assert operator.kind in (*KINDS, CROSS)
    assert operator.title
    assert operator.title[-1] != "."
    assert len(operator.source) > 20
    assert operator.__doc__
    for preset in operator.parameters.values():
        assert list(preset) == [1, 2, 3, 4, 5]
        json.dumps(preset[1])
    assert issubclass(operator, Operator | CrossOperator)


# bad input ----------------------------------------------------------------------------------------------------------
def applied(key: str, x: Tensor, index: Tensor | None = None, mask: Tensor | None = None) -> Any:
    it = spec(key)
    operator = OPERATORS[key]()
    return operator.apply(x, torch.arange(len(x)) if index is None else index, it.plan(data(), 0), mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [k for k in SINGLE if OPERATORS[k].kind != "text"])
def test_nan_in_present_data_is_refused(key: str) -> None:
    x = everything(data(absent=False)).inputs[target(key)[0]].nan_to_num(0.0)[:4].clone()
    x[2].view(-1)[3] = float("nan")
    with pytest.raises(DataError, match="row 12"):
        applied(key, x, torch.tensor([10, 11, 12, 13]))


@pytest.mark.parametrize("key", SINGLE)
def test_other_types_and_shapes_are_refused(key: str) -> None:
    x = everything(data(absent=False)).inputs[target(key)[0]][:4]
    with pytest.raises(DataError, match="int64" if x.dtype == torch.int64 else "floats"):
        applied(key, x.float() if x.dtype == torch.int64 else torch.ones(x.shape, dtype=torch.uint8))
    with pytest.raises(DataError, match="axes"):
        applied(key, x[0])
    with pytest.raises(DataError, match="one index and one bool mask each"):
        applied(key, x, torch.arange(3))


@pytest.mark.parametrize("key", [k for k in SINGLE if OPERATORS[k].kind == "image"])
def test_images_out_of_range_are_refused(key: str) -> None:
    with pytest.raises(DataError, match="divide bytes by 255"):
        applied(key, everything(data(absent=False)).inputs["photo"][:2] * 255)
