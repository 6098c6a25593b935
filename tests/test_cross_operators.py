"""What each cross-modal and label operator does, beyond what test_operators.py asks of all of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality, Schema, Task
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect import mcar, parse_corruption
from kintsugi.imperfect.corrupt.cross._common import nearest, spread_order
from kintsugi.imperfect.corrupt.cross._features import features
from kintsugi.imperfect.corruption import Plan, corrupt
from kintsugi.tasks import Classification, Multilabel, Regression

CLASSES = 4


def make(
    rows: int = 400, absent: float = 0.0, target: Tensor | None = None, task: Task | None = None, seed: int = 0
) -> Dataset:
    """Two vectors that tell their row, a short series of 20 steps at 100 Hz whose value is the step, and a clip."""
    rng = torch.Generator().manual_seed(seed)
    own = torch.arange(rows).float()[:, None]
    steps = torch.arange(20.0)[None, :, None].expand(rows, 20, 2).clone()
    inputs = {
        "a": own.expand(rows, 3) + torch.tensor([0.0, 0.25, 0.5]),
        "b": -own.expand(rows, 3) - 1,
        "s": steps,
        "clip": (torch.arange(1, 1001) / 1000).expand(rows, 1000).clone(),
    }
    length = 20 - torch.arange(rows) % 3 * 4
    mask = {"s": torch.arange(20) < length[:, None]}
    present = torch.rand(rows, 4, generator=rng) >= absent
    present[:, 1] |= ~present.any(1)
    mask["s"] = mask["s"] & present[:, 2:3]
    inputs["s"][~mask["s"]] = torch.nan
    schema = Schema(
        (
            Modality("a", "vector", (3,)),
            Modality("b", "vector", (3,)),
            Modality("s", "series", (20, 2), rate=100),
            Modality("clip", "audio", (1000,), rate=1000),
        ),
        task or Classification([str(c) for c in range(CLASSES)]),
    )
    label = torch.arange(rows) * 7 % CLASSES if target is None else target
    return Dataset(TensorSource(schema, Batch(schema.names, inputs, present, torch.arange(rows), label, mask=mask)))


def everything(data: Dataset) -> Batch:
    return data.batch(torch.arange(len(data)))


def origin(batch: Batch) -> Tensor:
    """Which row the vector ``a`` came from."""
    return batch.inputs["a"][:, 0].long()


def partners(data: Dataset, severity: int = 3, key: str = "mismatched_pairs", seed: int = 0, **given: Any) -> Tensor:
    return origin(everything(data.with_corruption(corrupt(key, "a", severity, **given), seed=seed)))


# mismatched pairs ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("within", ["any", "class", "other_class"])
def test_a_mismatch_is_a_derangement_of_an_exact_share(within: str, severity: int) -> None:
    data = make()
    came = partners(data, severity, within=within)
    hit = came != torch.arange(400)
    assert int(hit.sum()) == severity * 80
    assert torch.equal(came[hit].sort().values, hit.nonzero().flatten()), "inputs were used twice or got lost"
    label = data.target
    assert label is not None
    same = label[came[hit]] == label[hit]
    if within == "class":
        assert same.all()
        assert torch.equal(torch.bincount(label[hit]), torch.full((CLASSES,), severity * 20))
    elif within == "other_class":
        assert not same.any()
    else:
        assert 0.1 < float(same.float().mean()) < 0.4


@pytest.mark.parametrize("within", ["any", "class", "other_class"])
def test_lower_levels_hit_a_subset_and_seeds_differ(within: str) -> None:
    data, own = make(absent=0.2), torch.arange(400)
    hits = [partners(data, severity, within=within) != own for severity in range(6)]
    for low, high in pairwise(hits):
        assert not (low & ~high).any()
    other = partners(data, 3, within=within, seed=1)
    assert ((other != own) != hits[3]).sum() > 50
    ring = partners(data, 2), partners(data, 3)
    kept = hits[2] & (ring[0] != own) & (ring[0] == ring[1])
    assert within != "any" or kept.sum() >= hits[2].sum() - 1, "only where the ring closes do partners differ"


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(12, 80),
    severity=st.integers(1, 5),
    within=st.sampled_from(["any", "class"]),
    seed=st.integers(0, 9),
)
def test_no_row_keeps_its_own_whatever_is_absent(rows: int, severity: int, within: str, seed: int) -> None:
    data = make(rows, absent=0.1, seed=seed)
    label, here = data.target, data.present[:, 0]
    assert label is not None
    if here.sum() * 0.2 < 1.5 or (within == "class" and bool((torch.bincount(label[here]) == 1).any())):
        return
    if within == "class" and float(torch.bincount(label[here]).max()) * severity / 5 < 1:
        return
    plan = corrupt("mismatched_pairs", "a", severity, within=within).plan(data, seed)
    hit = plan.tensors["partner"] >= 0
    assert not (hit & ~here).any()
    assert not (plan.tensors["partner"] == torch.arange(rows)).any()
    assert torch.equal(plan.tensors["partner"][hit].sort().values, hit.nonzero().flatten())
    if within == "any":
        assert int(hit.sum()) == nearest(severity / 5, int(here.sum()))
    else:
        for each in range(CLASSES):
            size, got = int((here & (label == each)).sum()), int((hit & (label == each)).sum())
            assert abs(got - severity / 5 * size) <= 1.0


def test_masks_go_along_and_other_modalities_stay() -> None:
    data = make()
    before = everything(data)
    plan = corrupt("mismatched_pairs", "s", 4).plan(data, 0)
    after = corrupt("mismatched_pairs", "s", 4).apply(before, plan)
    partner = plan.tensors["partner"]
    source = torch.where(partner >= 0, partner, torch.arange(400))
    assert torch.equal(after.mask["s"], before.mask["s"][source])
    assert torch.equal(after.inputs["s"].nan_to_num(-1), before.inputs["s"][source].nan_to_num(-1))
    assert (after.mask["s"] != before.mask["s"]).any()
    assert after.severity is not None
    assert torch.equal(after.severity[:, 2] == 4, partner >= 0)
    assert after.severity[:, [0, 1, 3]].sum() == 0
    assert after.inputs["a"] is before.inputs["a"]


def test_a_majority_class_gets_partners_from_the_others_in_turn() -> None:
    label = (torch.arange(400) % 10 == 0).long()
    data = make(target=label)
    plan = corrupt("mismatched_pairs", "a", 5, within="other_class").plan(data, 0)
    assert plan.parameters["exchanged"] is False
    assert (label[plan.tensors["partner"]] != label).all()
    used = torch.bincount(plan.tensors["partner"][label == 0], minlength=400)[label == 1]
    assert used.min() == used.max() == 9
    assert corrupt("mismatched_pairs", "a", 5, within="other_class").plan(make(), 0).parameters["exchanged"] is True


def test_classes_of_a_regression_are_its_bins() -> None:
    value = torch.linspace(0, 1, 400)
    data = make(target=value, task=Regression(("v",), (0.5,), (0.3,), (0.25, 0.5, 0.75)))
    came = partners(data, 5, within="class")
    assert torch.equal((value[came] * 4 - 1e-4).long(), (value * 4 - 1e-4).long())
    assert (came != torch.arange(400)).all()


def test_rows_without_a_label_are_left_alone_where_classes_count() -> None:
    data = make()
    data.source.target_present[:100] = False
    assert torch.equal(partners(data, 5, within="class")[:100], torch.arange(100))
    assert (partners(data, 5)[:100] != torch.arange(100)).all()


def test_partners_are_read_from_rows_outside_the_batch_and_after_a_subset() -> None:
    data = make().with_corruption(corrupt("mismatched_pairs", "a", 5), seed=3)
    whole = origin(everything(data))
    few = data.subset([5, 17, 200])
    assert torch.equal(origin(few.batch([0, 1, 2])), whole[torch.tensor([5, 17, 200])])
    assert not set(whole[torch.tensor([5, 17, 200])].tolist()) & {5, 17, 200}
    assert torch.equal(origin(data.batch([7, 7])), whole[torch.tensor([7, 7])])


def test_one_read_a_batch_and_only_what_is_needed() -> None:
    data = make()
    spec = corrupt("mismatched_pairs", "a", 2)
    plan = spec.plan(data, 0)
    asked: list[Tensor] = []
    assert plan.others is not None
    read = plan.others.batch
    plan.others.batch = lambda rows: (asked.append(rows), read(rows))[1]  # type: ignore[method-assign, func-returns-value]
    batch = data.batch(torch.arange(50))
    spec.apply(batch, plan)
    assert len(asked) == 1
    assert len(asked[0]) == int((plan.tensors["partner"][:50] >= 0).sum())


def test_rows_that_were_not_planned_are_refused() -> None:
    spec = corrupt("mismatched_pairs", "a", 3)
    plan = spec.plan(make(40), 0)
    with pytest.raises(DataError, match=r"made for 40 rows, and row 40 is none"):
        spec.apply(make(41).batch([40]), plan)


def test_hidden_slots_neither_give_nor_take() -> None:
    data = make().with_missing(mcar(0.4), seed=2)
    plan = corrupt("mismatched_pairs", "a", 5).plan(data, 0)
    hit = plan.tensors["partner"] >= 0
    assert torch.equal(hit, data.present[:, 0])
    assert data.present[:, 0][plan.tensors["partner"][hit]].all()


def test_pairs_that_cannot_be() -> None:
    with pytest.raises(DataError, match="an exchange needs two rows"):
        corrupt("mismatched_pairs", "a", 1).plan(make(4), 0)
    with pytest.raises(DataError, match="class '3' has a single row"):
        corrupt("mismatched_pairs", "a", 1, within="class").plan(
            make(9, target=torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])), 0
        )
    with pytest.raises(DataError, match="20% of the rows of each class are less than one row"):
        corrupt("mismatched_pairs", "a", 1, within="class").plan(make(16), 0)
    with pytest.raises(DataError, match="all 40 rows that can be hit are of one class"):
        corrupt("conflicting_pairs", "a", 1).plan(make(40, target=torch.zeros(40, dtype=torch.long)), 0)
    with pytest.raises(UnknownName, match="unknown within of mismatched_pairs 'klass'; did you mean 'class'"):
        corrupt("mismatched_pairs", "a", within="klass")
    with pytest.raises(ConfigError, match="share of mismatched_pairs must be a share between 0 and 1"):
        corrupt("mismatched_pairs", "a", share=1.5)
    with pytest.raises(ConfigError, match="takes 1 modalities, not a, b"):
        corrupt("mismatched_pairs", ("a", "b"))
    with pytest.raises(UnknownName, match="unknown modality 'c'"):
        corrupt("mismatched_pairs", "c").plan(make(), 0)


def test_conflicting_pairs_contradict_the_rest_of_their_row() -> None:
    data = make(absent=0.6)
    label, came = data.target, partners(data, 5, "conflicting_pairs")
    assert label is not None
    present = data.present
    hit = came != torch.arange(400)
    assert torch.equal(hit, present[:, 0] & (present.sum(1) >= 2))
    assert (label[came[hit]] != label[hit]).all()
    assert bool((present[:, 0] & (present.sum(1) == 1)).any()), "some rows have nothing to contradict"
    with pytest.raises(UnknownName, match="within"):
        corrupt("conflicting_pairs", "a", within="any")


# swaps --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("severity", "rows"), [(1, 20), (2, 40), (3, 100), (4, 200), (5, 400)])
def test_a_swap_exchanges_an_exact_share_and_swaps_back(severity: int, rows: int) -> None:
    data = make()
    spec = corrupt("modality_swap", ("a", "b"), severity)
    plan, before = spec.plan(data, 0), everything(data)
    after = spec.apply(before, plan)
    hit = after.inputs["a"][:, 0] < 0
    assert int(hit.sum()) == rows
    assert torch.equal(after.inputs["a"][hit], before.inputs["b"][hit])
    assert torch.equal(after.inputs["b"][hit], before.inputs["a"][hit])
    assert torch.equal(after.inputs["a"][~hit], before.inputs["a"][~hit])
    again = spec.apply(after, plan)
    assert torch.equal(again.inputs["a"], before.inputs["a"])
    assert after.severity is not None
    assert torch.equal(after.severity[:, 0], hit * float(severity))
    assert torch.equal(after.severity[:, 0], after.severity[:, 1])


def test_masks_swap_and_rows_with_one_of_the_two_are_left_alone() -> None:
    data = make(absent=0.4)
    schema = Schema(
        (*data.schema.modalities[:2], replace(data.schema["s"]), Modality("t", "series", (20, 2))), data.schema.task
    )
    batch = everything(data)
    inputs = {**{n: batch.inputs[n] for n in ("a", "b", "s")}, "t": torch.full((400, 20, 2), 7.0)}
    rows = Dataset(TensorSource(schema, replace(batch, names=schema.names, inputs=inputs)))
    spec = corrupt("modality_swap", ("s", "t"), 5)
    after, both = spec.apply(everything(rows), spec.plan(rows, 0)), batch.present[:, 2:].all(1)
    assert 50 < int(both.sum()) < 300
    assert (after.inputs["s"][both] == 7).all()
    assert after.mask["s"][both].all()
    assert torch.equal(after.mask["t"][both], batch.mask["s"][both])
    assert torch.equal(after.mask["t"].any(1), batch.present[:, 3])
    assert torch.equal(after.present, batch.present)
    assert (after.inputs["t"][~both] == 7).all()


def test_swaps_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"one kind and shape; 'a' is vector \[3\], 's' is series \[20, 2\]"):
        corrupt("modality_swap", ("a", "s")).plan(make(), 0)
    with pytest.raises(ConfigError, match="'a' twice"):
        corrupt("modality_swap", ("a", "a")).plan(make(), 0)
    with pytest.raises(ConfigError, match="takes 2 modalities, not a"):
        corrupt("modality_swap", "a")
    lonely = make()
    lonely.source.present[:, 0] = torch.arange(400) % 2 == 0
    lonely.source.present[:, 1] = torch.arange(400) % 2 == 1
    with pytest.raises(DataError, match="no row has both 'a' and 'b'"):
        corrupt("modality_swap", ("a", "b")).plan(lonely, 0)


# timing -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("severity", "steps"), [(1, 5), (2, 9), (3, 10)])
@pytest.mark.parametrize("direction", ["early", "late"])
def test_a_series_is_shifted_by_milliseconds_within_its_own_length(severity: int, steps: int, direction: str) -> None:
    data = make()
    before = everything(data)
    spec = corrupt("desynchronisation", "s", severity, direction=direction)
    after = spec.apply(before, spec.plan(data, 0))
    length = before.mask["s"].sum(1)
    for row in (0, 1, 2):
        size = int(length[row])
        seen = after.mask["s"][row]
        values = after.inputs["s"][row, :, 0]
        left = max(size - steps, 0)
        assert int(seen.sum()) == left
        assert torch.isnan(values[~seen]).all()
        if left:
            where = torch.arange(left) if direction == "early" else torch.arange(steps, size)
            what = torch.arange(steps, size) if direction == "early" else torch.arange(left)
            assert torch.equal(seen.nonzero().flatten(), where)
            assert torch.equal(values[where], what.float())
    assert torch.equal(after.present[:, 2], after.mask["s"].any(1))
    assert bool((~after.present[:, 2]).any()) == (steps >= int(length.min()))


def test_audio_gets_silence_and_rows_draw_their_direction_once_for_all_levels() -> None:
    data = make()
    before = everything(data).inputs["clip"]
    late = []
    for severity, steps in zip(range(1, 6), (45, 90, 185, 400, 500), strict=True):  # 1000 at 5, but half a row at most
        x = everything(data.with_corruption(corrupt("desynchronisation", "clip", severity))).inputs["clip"]
        is_late = x[:, 0] == 0
        assert (x[is_late, :steps] == 0).all()
        assert torch.equal(x[is_late, steps:], before[is_late, :-steps])
        assert torch.equal(x[~is_late, :-steps], before[~is_late, steps:])
        assert (x[~is_late, -steps:] == 0).all()
        late.append(is_late)
    assert all(torch.equal(late[0], one) for one in late)
    assert 150 < int(late[0].sum()) < 250


def test_inner_gaps_move_with_what_surrounds_them_and_nothing_unseen_is_spread() -> None:
    data = make(6)
    batch = everything(data)
    batch.mask["s"][0, 7] = False
    batch.inputs["s"][0, 7] = torch.nan
    spec = corrupt("desynchronisation", "s", 2, shift=30, direction="late")
    after = spec.apply(batch, spec.plan(data, 0))
    assert torch.equal((~after.mask["s"][0]).nonzero().flatten(), torch.tensor([0, 1, 2, 10]))
    assert torch.isfinite(after.inputs["s"][after.mask["s"]]).all()


@pytest.mark.parametrize("rate", [None, 10.0])
def test_where_the_rate_says_nothing_shifts_are_counted_in_steps(rate: float | None) -> None:
    data = make(8)
    schema = Schema((*data.schema.modalities[:2], Modality("s", "series", (20, 2), rate=rate)), data.schema.task)
    batch = everything(data)
    inputs = {n: batch.inputs[n] for n in ("a", "b", "s")}
    rows = Dataset(
        TensorSource(schema, replace(batch, names=schema.names, inputs=inputs, present=batch.present[:, :3]))
    )
    plan = corrupt("desynchronisation", "s", 3).plan(rows, 0)
    assert plan.parameters["preset"] == "steps"
    assert plan.parameters["steps"] == 6
    match = "has no rate" if rate is None else "less than half a step"
    with pytest.raises(ConfigError, match=match):
        corrupt("desynchronisation", "s", 1, preset="time").plan(rows, 0)


def test_shifts_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="'a' is vector, which has no axis of time"):
        corrupt("desynchronisation", "a").plan(make(8), 0)
    with pytest.raises(UnknownName, match="direction"):
        corrupt("desynchronisation", "s", direction="back")
    with pytest.raises(ConfigError, match="0 or more"):
        corrupt("desynchronisation", "s", shift=-5)


# labels -------------------------------------------------------------------------------------------------------------
LABELS = {
    "label_noise_symmetric": (0.1, 0.2, 0.4, 0.6, 0.8),
    "label_noise_pair_flip": (0.05, 0.1, 0.2, 0.3, 0.4),
    "label_noise_instance": (0.1, 0.2, 0.3, 0.4, 0.5),
}


def noisy(data: Dataset, key: str, severity: int, seed: int = 0, **given: Any) -> Tensor:
    found = data.with_corruption(corrupt(key, severity=severity, **given), seed=seed).target
    assert found is not None
    return found


@pytest.mark.parametrize("key", LABELS)
def test_label_noise_is_exact_nested_and_seeded(key: str) -> None:
    data = make(397)
    clean = data.target
    assert clean is not None
    before = clean.clone()
    made = [noisy(data, key, severity) for severity in range(6)]
    assert torch.equal(made[0], clean)
    for severity, share in enumerate(LABELS[key], start=1):
        hit = made[severity] != clean
        assert int(hit.sum()) == nearest(share, 397)
        if key != "label_noise_instance":
            by_class = torch.bincount(clean[hit], minlength=CLASSES) - share * torch.bincount(clean)
            assert by_class.abs().max() <= 1
        low = made[severity - 1] != clean
        assert not (low & ~hit).any()
        assert torch.equal(made[severity][low], made[severity - 1][low])
    assert torch.equal(clean, before)
    assert (noisy(data, key, 3, seed=1) != made[3]).sum() > 20
    assert set(made[5].tolist()) == set(range(CLASSES))


def test_symmetric_noise_reaches_every_other_class_alike() -> None:
    data = make(6000)
    clean = data.target
    assert clean is not None
    new = noisy(data, "label_noise_symmetric", 5)
    step = (new - clean) % CLASSES
    counts = torch.bincount(step[step > 0], minlength=CLASSES)[1:]
    assert int(counts.sum()) == 4800
    assert (counts - 1600).abs().max() < 4 * (4800 * 2 / 9) ** 0.5  # four standard deviations of a multinomial count


def test_pair_flips_go_to_the_next_class() -> None:
    data = make()
    new = noisy(data, "label_noise_pair_flip", 5)
    assert data.target is not None
    assert set(((new - data.target) % CLASSES).tolist()) == {0, 1}


def test_instance_noise_sends_alike_rows_to_the_same_class() -> None:
    """Rows of two clusters in each class: within a cluster one wrong class prevails, of 3; drawn blindly each has 1/3."""
    rows = 1200
    cluster = torch.arange(rows) % 2
    label = torch.arange(rows) // 2 % CLASSES
    data = make(rows, target=label)
    noise = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0)) * 0.01
    data.source._all.inputs["a"] = noise + cluster[:, None] * 2.0  # type: ignore[attr-defined]
    data.source._all.inputs["b"] = noise.flip(0)  # type: ignore[attr-defined]
    data.source.present[:, 1:] = False

    def prevailing(sharpness: float) -> float:
        new = noisy(data, "label_noise_instance", 5, sharpness=sharpness)
        shares = []
        for each in range(CLASSES):
            for side in (0, 1):
                here = (label == each) & (cluster == side) & (new != label)
                shares.append(float(torch.bincount(new[here], minlength=CLASSES).max() / here.sum()))
        return sum(shares) / len(shares)

    assert prevailing(20.0) > 0.85
    assert prevailing(0.0) < 0.5, "without a projection the classes are drawn blindly"


def test_features_are_standardised_and_absent_rows_are_the_mean() -> None:
    data = make(100, absent=0.3)
    found = features(data, torch.arange(100))
    assert found.shape == (100, 3 + 3 + 40 + 128)
    assert torch.isfinite(found).all()
    assert (found[~data.present[:, 0], :3] == 0).all()
    here = data.present[:, 0]
    assert torch.allclose(found[here, :3].mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(found[here, :3].std(0, correction=0), torch.ones(3, dtype=torch.float64))


def test_multilabel_noise_flips_bits_of_each_label_alike() -> None:
    bits = (torch.arange(400)[:, None] % torch.tensor([2, 5]) == 0).float()
    data = make(target=bits, task=Multilabel(("x", "y")))
    new = noisy(data, "label_noise_symmetric", 3)
    flipped = new != bits
    assert flipped.sum(0).tolist() == [160, 160]
    assert set(new.flatten().tolist()) == {0.0, 1.0}
    assert new.dtype == bits.dtype
    for key in ("label_noise_pair_flip", "label_noise_instance"):
        with pytest.raises(ConfigError, match="changes labels of classification"):
            corrupt(key).plan(data, 0)


def test_batches_subsets_and_splits_see_the_same_labels() -> None:
    data = make().with_corruption(corrupt("label_noise_symmetric", severity=4), seed=2)
    whole = data.target
    assert whole is not None
    rows = torch.tensor([3, 300, 42, 3])
    for part in (data.subset(rows), data):
        batch = part.batch(torch.arange(4) if part is not data else rows)
        assert torch.equal(batch.target, whole[rows])  # type: ignore[arg-type]
    assert torch.equal(data.subset(rows).target, whole[rows])  # type: ignore[arg-type]
    train, val, test = data.split()
    for part in (train, val, test):
        assert torch.equal(part.target, whole[part.index])  # type: ignore[arg-type]


def test_rows_without_a_label_count_for_nothing() -> None:
    data = make()
    data.source.target_present[::2] = False
    new = noisy(data, "label_noise_symmetric", 3)
    assert data.target is not None
    changed = new != data.target
    assert not changed[::2].any()
    assert int(changed.sum()) == 80


def test_labels_that_cannot_be_changed() -> None:
    value = make(target=torch.rand(400), task=Regression(("v",), (0.5,), (0.3,), (0.5,)))
    with pytest.raises(ConfigError, match="changes labels of classification or multilabel; tensors is a regression"):
        corrupt("label_noise_symmetric").plan(value, 0)
    with pytest.raises(ConfigError, match=r"takes no modality, not 'a'; write label_noise_symmetric\(severity=3\)"):
        corrupt("label_noise_symmetric", "a")
    with pytest.raises(ConfigError, match="takes no modality, not 3"):
        parse_corruption("label_noise_symmetric(3)")
    with pytest.raises(ConfigError, match="share of label_noise_pair_flip"):
        corrupt("label_noise_pair_flip", share=2)


def test_text_of_label_noise_reads_back() -> None:
    for spec in (
        corrupt("label_noise_symmetric", severity=4),
        corrupt("label_noise_instance", severity=1, sharpness=3.5),
    ):
        assert parse_corruption(str(spec)) == spec
    assert str(corrupt("label_noise_symmetric")) == "label_noise_symmetric(severity=3)"
    assert parse_corruption("label_noise_symmetric((), 4)") == corrupt("label_noise_symmetric", severity=4)


# helpers ------------------------------------------------------------------------------------------------------------
@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_every_beginning_of_a_spread_order_holds_each_group_in_its_share(
    sizes: list[int], share: float, seed: int
) -> None:
    group = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)])
    draw = torch.rand(len(group), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    order = spread_order(draw, group)
    assert torch.equal(order.sort().values, torch.arange(len(group)))
    taken = group[order[: nearest(share, len(group))]]
    for number, size in enumerate(sizes):
        assert abs(int((taken == number).sum()) - share * size) <= 1.5


def test_plans_hold_what_was_worked_out() -> None:
    data = make()
    first = corrupt("mismatched_pairs", "a", 3).plan(data, 0)
    other = replace(first, tensors={**first.tensors, "partner": first.tensors["partner"].roll(1)})
    assert isinstance(first, Plan)
    assert first.hash != other.hash
    assert first.hash == replace(first, others=None).hash
