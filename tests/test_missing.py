"""Missingness: exact rates, what is kept, masks as values, and text as mechanisms."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import kintsugi.imperfect
from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect.missing import MECHANISMS, Mask, given, mcar, parse_mechanism, pattern, per_modality, smil
from kintsugi.tasks.classification import Classification
from kintsugi.tasks.regression import Regression

NAMES = ("image", "speech", "clue", "table", "other")


def make(rows: int = 600, modalities: int = 3, holes: float = 0.0, classes: int = 10, seed: int = 0) -> Dataset:
    """Labelled rows with natural holes; some rows may have nothing at all."""
    rng = torch.Generator().manual_seed(seed)
    names = NAMES[:modalities]
    present = torch.rand(rows, modalities, generator=rng) >= holes
    task = Classification([str(c) for c in range(classes)])
    schema = Schema(tuple(Modality(name, "vector", (2,)) for name in names), task)
    inputs = {name: torch.randn(rows, 2, generator=rng) for name in names}
    target = torch.arange(rows) % classes
    return Dataset(TensorSource(schema, Batch(names, inputs, present, torch.arange(rows), target)))


def lost(data: Dataset, mask: Mask) -> Tensor:
    return data.present & ~mask.keep


# rates --------------------------------------------------------------------------------------------------------------
@settings(max_examples=80, deadline=None)
@forall(
    rate=st.floats(0, 1),
    holes=st.floats(0, 0.9),
    modalities=st.integers(1, 5),
    rows=st.integers(1, 300),
    keep=st.booleans(),
)
def test_mcar_is_exact_or_names_the_largest_rate(
    rate: float, holes: float, modalities: int, rows: int, keep: bool
) -> None:
    data = make(rows, modalities, holes)
    observed, alive = int(data.present.sum()), int(data.present.any(1).sum())
    wanted = round(rate * observed)
    if keep and wanted > observed - alive:
        with pytest.raises(ConfigError, match="at most") as error:
            mcar(rate, keep).plan(data, 0)
        named = float(str(error.value).split("at most ")[1].split()[0])
        assert int(lost(data, mcar(named).plan(data, 0)).sum()) <= observed - alive
        return
    mask = mcar(rate, keep).plan(data, 0)
    assert int(lost(data, mask).sum()) == wanted
    assert mask.realised == pytest.approx(wanted / max(observed, 1))
    assert mask.keep[~data.present].all()
    if keep:
        assert int((data.present & mask.keep).any(1).sum()) == alive


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.6])
@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_realised_rate_is_within_a_hundredth(rate: float, holes: float) -> None:
    data = make(2000, 5, holes)
    mask = mcar(rate).plan(data, 3)
    assert mask.asked == rate
    assert abs(mask.realised - rate) < 0.01
    for column, name in enumerate(data.schema.names):
        share = lost(data, mask)[:, column].sum() / data.present[:, column].sum()
        assert mask.realised_by_modality[name] == pytest.approx(float(share))
        assert abs(float(share) - rate) < 0.05
    assert mask.realised_by_row.shape == (2000,)
    assert mask.realised_by_row[data.present.any(1)].max() < 1


def test_the_largest_rate_leaves_one_modality_a_row() -> None:
    data = make(300, 3)
    left = data.present & mcar(2 / 3).plan(data, 0).keep
    assert (left.sum(1) == 1).all()
    assert left.sum(0).min() > 70, "which one is left is a fair draw"
    with pytest.raises(ConfigError, match=r"at most 0\.6666"):
        mcar(0.7).plan(data, 0)


def test_mcar_does_not_depend_on_the_target_or_between_slots() -> None:
    data = make(20_000, 3)
    hidden = lost(data, mcar(0.4, keep_one=False).plan(data, 1)).double()
    by_class = torch.stack([hidden[data.target == c].mean(0) for c in range(10)])
    assert (by_class - 0.4).abs().max() < 5 * (0.24 / 2000) ** 0.5
    assert torch.corrcoef(hidden.T).triu(1).abs().max() < 5 / 20_000**0.5


def test_keep_one_is_independence_but_for_rows_that_would_be_empty() -> None:
    data = make(20_000, 3)
    hidden = lost(data, mcar(0.5).plan(data, 1)).sum(1)
    counts = torch.bincount(hidden, minlength=3).double() / 20_000
    # 3 q - q³ = 1.5 gives q = 0.5 + …; the shares follow from independent slots with one given back
    q = float(np.roots([-1, 0, 3, -1.5])[np.argmin(abs(np.roots([-1, 0, 3, -1.5]) - 0.55))].real)
    expected = torch.tensor([(1 - q) ** 3, 3 * q * (1 - q) ** 2, 3 * q**2 * (1 - q) + q**3], dtype=torch.float64)
    assert (counts - expected).abs().max() < 0.015


@pytest.mark.parametrize("make_one", [mcar, lambda r: per_modality(image=r, clue=r), lambda r: smil(1 - r, "speech")])
def test_a_higher_rate_hides_more_of_the_same(make_one: object) -> None:
    data = make(500, 3, 0.2)
    low, high = (lost(data, make_one(rate).plan(data, 0)) for rate in (0.15, 0.4))  # type: ignore[operator]
    assert (low & ~high).sum() == 0
    assert high.sum() > low.sum()


@settings(max_examples=60, deadline=None)
@forall(
    rates=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    holes=st.floats(0, 0.7),
    rows=st.integers(1, 80),
    keep=st.booleans(),
)
def test_per_modality_is_exact(rates: list[float], holes: float, rows: int, keep: bool) -> None:
    data = make(rows, len(rates), holes)
    mechanism = per_modality(dict(zip(data.schema.names, rates, strict=True)), keep_one=keep)
    observed = data.present.sum(0)
    wanted = torch.tensor([round(r * int(n)) for r, n in zip(rates, observed, strict=True)])
    if keep and not hall(data.present.numpy(), (observed - wanted).numpy()):
        with pytest.raises(ConfigError, match="with nothing"):
            mechanism.plan(data, 0)
        return
    mask = mechanism.plan(data, 0)
    assert torch.equal(lost(data, mask).sum(0), wanted)
    if keep:
        assert torch.equal((data.present & mask.keep).any(1), data.present.any(1))


def hall(present: np.ndarray, kept: np.ndarray) -> bool:
    """Hall's condition: for every set of modalities, rows that have no other need no more slots than are kept in it."""
    count = present.shape[1]
    alive = present[present.any(1)]
    sets = [np.array([bool(code >> j & 1) for j in range(count)]) for code in range(1 << count)]
    return all((~alive[:, ~chosen].any(1)).sum() <= kept[chosen].sum() for chosen in sets)


def test_per_modality_at_the_limit() -> None:
    data = make(300, 3)
    left = data.present & per_modality(image=0.5, speech=0.75, clue=0.75, keep_one=True).plan(data, 0).keep
    assert (left.sum(1) == 1).all()
    assert left.sum(0).tolist() == [150, 75, 75]


# other mechanisms ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("eta", "kept"), [(0.05, 5), (0.10, 10), (0.15, 16), (0.20, 21)])
def test_smil_keeps_the_published_counts(eta: float, kept: int) -> None:
    data = make(1050, 3)
    left = smil(eta, "speech").plan(data, 0).keep
    assert torch.bincount(data.target[left[:, 1]], minlength=10).tolist() == [kept] * 10
    assert left[:, [0, 2]].all()


def test_smil_counts_rows_that_have_the_modality() -> None:
    data = make(1000, 3, 0.4)
    here = data.present[:, 1]
    left = smil(0.3, "speech").plan(data, 0).keep[:, 1] & here
    for label in range(10):
        rows = data.target == label
        assert int(left[rows].sum()) == round(0.3 * int(here[rows].sum()))
    anywhere = smil(0.3, "speech", by_class=False).plan(data, 0).keep[:, 1] & here
    assert int(anywhere.sum()) == round(0.3 * int(here.sum()))


def test_smil_without_classes() -> None:
    data = make(50, 2)
    schema = Schema(data.schema.modalities, Regression())
    batch = Batch(schema.names, data.batch(range(50)).inputs, data.present, torch.arange(50), torch.randn(50))
    values = Dataset(TensorSource(schema, batch))
    with pytest.raises(ConfigError, match="by_class=False"):
        smil(0.2, "image").plan(values, 0)
    assert int(smil(0.2, "image", by_class=False).plan(values, 0).keep[:, 0].sum()) == 10


def test_pattern_leaves_only_what_it_names() -> None:
    data = make(100, 3, 0.3)
    left = data.with_missing(pattern("image", "clue"))
    assert torch.equal(left.present, data.present & torch.tensor([True, False, True]))
    assert left.mask is not None
    assert left.mask.asked == {"image": 0.0, "speech": 1.0, "clue": 0.0}
    with pytest.raises(UnknownName, match="did you mean 'speech'"):
        pattern("speach").plan(data, 0)


def test_given_repeats_a_mask() -> None:
    data = make(60, 3, 0.2)
    mask = mcar(0.3).plan(data, 4)
    assert data.with_missing(given(mask)).mask is mask
    again = given(mask.keep).plan(data, 0)
    assert again.hash == mask.hash
    assert again.asked == again.realised_by_modality
    with pytest.raises(DataError, match=r"\[60, 3\]"):
        given(mask.keep).plan(make(61, 3), 0)
    with pytest.raises(DataError, match="bool"):
        given(mask.keep.float())


# masks are values ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "mechanism",
    [mcar(0.4), per_modality(image=0.6, clue=0.7, speech=0.5, keep_one=True), smil(0.2, "clue"), pattern("image")],
)
def test_a_mask_belongs_to_rows_not_to_their_order(mechanism: object) -> None:
    data = make(400, 3, 0.1)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(5))
    straight = mechanism.plan(data, 0).keep  # type: ignore[attr-defined]
    assert torch.equal(straight[order], mechanism.plan(data.subset(order), 0).keep)  # type: ignore[attr-defined]


def test_the_seed_decides_and_the_hash_is_stable() -> None:
    data = make(50, 3)
    assert mcar(0.3).plan(data, 0) == mcar(0.3).plan(data, 0)
    assert mcar(0.3).plan(data, 0) != mcar(0.3).plan(data, 1)
    assert mcar(0.3).plan(data, 0).hash == "63c398a1fe151769"
    first, second = data.subset(range(25)), data.subset(range(25, 50))
    assert not torch.equal(mcar(0.3).plan(first, 0).keep, mcar(0.3).plan(second, 0).keep)


def test_save_and_load(tmp_path: Path) -> None:
    data = make(77, 3, 0.2)
    mask = per_modality(image=0.2, clue=0.4).plan(data, 9)
    back = Mask.load(mask.save(tmp_path / "mask"))
    assert back == mask
    assert torch.equal(back.keep, mask.keep)
    assert torch.equal(back.realised_by_row, mask.realised_by_row)
    for name in ("unit", "asked", "realised", "realised_by_modality", "seed", "mechanism", "rows", "hash"):
        assert getattr(back, name) == getattr(mask, name)
    back.check(data)
    assert data.with_missing(parse_mechanism(f"given({str(tmp_path / 'mask')!r})")).mask == mask


def test_a_mask_that_does_not_fit_says_so() -> None:
    data = make(40, 3)
    mask = mcar(0.2).plan(data, 0)
    with pytest.raises(DataError, match=rf"{mask.hash}.*\[40, 3\].*\[41, 3\]"):
        mask.check(make(41, 3))
    with pytest.raises(DataError, match="order"):
        mask.check(data.subset(torch.arange(39, -1, -1)))


def test_files_that_are_no_masks(tmp_path: Path) -> None:
    path = tmp_path / "mask.npz"
    path.write_bytes(b"not a mask")
    with pytest.raises(DataError, match="not a mask"):
        Mask.load(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match="not a mask"):
        Mask.load(path)
    with open(path, "wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a mask"):
        Mask.load(path)
    mcar(0.2).plan(make(40, 3), 0).save(path)
    with np.load(path) as file:
        parts = dict(file)
    parts["bits"] = parts["bits"] ^ 1
    np.savez(path, **parts)
    with pytest.raises(DataError, match="altered"):
        Mask.load(path)
    with pytest.raises(FileNotFoundError):
        Mask.load(tmp_path / "none.npz")


def test_the_data_set_hides_what_the_mask_takes() -> None:
    data = make(200, 3, 0.2)
    less = data.with_missing(mcar(0.3), seed=2)
    mask = mcar(0.3).plan(data, 2)
    assert torch.equal(less.present, data.present & mask.keep)
    assert less.condition == "mcar(0.3)"
    assert torch.equal(less.batch(torch.arange(5)).present, less.present[:5])


# text ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mcar(0.3)", "mcar(0.3)"),
        ("mcar(rate=1, keep_one=False)", "mcar(1, keep_one=False)"),
        ({"mcar": {"rate": 0.3}}, "mcar(0.3)"),
        ({"mcar": 0.3}, "mcar(0.3)"),
        ("pattern(image, clue)", "pattern(image+clue)"),
        ("pattern(image+clue)", "pattern(image+clue)"),
        ("pattern('a-b', clue)", "pattern('a-b'+clue)"),
        ({"pattern": ["image", "clue"]}, "pattern(image+clue)"),
        ("smil(0.1, speech)", "smil(0.1, speech)"),
        ({"smil": {"eta": 0.1, "modality": "speech", "by_class": False}}, "smil(0.1, speech, by_class=False)"),
        ("per_modality(image=0.3, clue=0.5)", "per_modality(image=0.3, clue=0.5)"),
        ({"per_modality": {"image": 0.3, "keep_one": True}}, "per_modality(image=0.3, keep_one=True)"),
        ("per_modality({'a-b': 0.3})", "per_modality({'a-b': 0.3})"),
        ("per_modality(image=0.3, coupling=0.5)", "per_modality(image=0.3, coupling=0.5)"),
        ("mcar(0.3, coupling=1)", "mcar(0.3, coupling=1)"),
        ("mar(0.3, image)", "mar(0.3, image)"),
        ("mar(0.3, 'tab.3', of=image+clue, strength=-1)", "mar(0.3, 'tab.3', of=image+clue, strength=-1)"),
        ({"mar": {"rate": 0.3, "by": "context.site"}}, "mar(0.3, 'context.site')"),
        ("mnar(0.3, by=label, keep_one=False)", "mnar(0.3, by=label, keep_one=False)"),
        ("mnar(0.3, of=image)", "mnar(0.3, of=image)"),
        ("bursts(0.3, 10, jointly=True)", "bursts(0.3, 10, jointly=True)"),
        ("natural", "natural()"),
        ("natural(0.5)", "natural(0.5)"),
        ("steps(0.2, image+clue)", "steps(0.2, of=image+clue)"),
        ("steps(0.2, all)", "steps(0.2)"),
        ("blocks(0.2, clue, length=4)", "blocks(0.2, of=clue, length=4)"),
        ("gilbert_elliott(0.2, 4)", "gilbert_elliott(0.2, 4)"),
        ("cells(0.2, tab, incomplete=[1, 2], tail=left)", "cells(0.2, tab, incomplete=[1, 2], tail=left)"),
        ("labels(0.9, by='class')", "labels(0.9, by='class')"),
        ("labels(0.9, only_complete=True)", "labels(0.9, only_complete=True)"),
        ("map_missing(0.7, text, text=note)", "map_missing(0.7, text, text=note)"),
        ("random-0.7-keep1", "random-0.7-keep1"),
        (" mmin6 ", "mmin6"),
        ("imml-mnar-0.30", "imml-fixed-sets-0.3"),
    ],
)
def test_specs_and_their_way_back(spec: object, said: str) -> None:
    mechanism = parse_mechanism(spec)  # type: ignore[arg-type]
    assert str(mechanism) == said
    assert parse_mechanism(said) == mechanism
    assert parse_mechanism(mechanism) is mechanism


@pytest.mark.parametrize(
    ("spec", "error", "match"),
    [
        ("mcr(0.3)", UnknownName, "did you mean 'mcar'"),
        ("mcar(1.2)", ConfigError, "between 0 and 1"),
        ("mcar(-0.1)", ConfigError, "between 0 and 1"),
        ("mcar('0.3')", ConfigError, "between 0 and 1"),
        ("mcar", ConfigError, "rate"),
        ("mcar(0.3, 1, 2)", ConfigError, "too many"),
        ("mcar(0.3, keep=True)", ConfigError, "keep"),
        ("mcar(0.3", ConfigError, "cannot read"),
        ("mcar(open('x'))", ConfigError, "cannot read"),
        ("mcar(**{})", ConfigError, "cannot read"),
        ("__import__('os').system('true')", ConfigError, "cannot read"),
        ("mcar(0.1) + mcar(0.2)", ConfigError, "takes one"),
        ("pattern()", ConfigError, "names"),
        ("per_modality(0.3)", ConfigError, "each modality"),
        ({"mcar": 0.3, "smil": 1}, ConfigError, "cannot read"),
        (3, ConfigError, "cannot read"),
        ("smil(2, image)", ConfigError, "between 0 and 1"),
    ],
)
def test_specs_that_make_no_sense(spec: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        parse_mechanism(spec)  # type: ignore[arg-type]


def test_nan_is_no_rate() -> None:
    with pytest.raises(ConfigError):
        mcar(float("nan"))


def test_every_mechanism_is_registered() -> None:
    assert {"mcar", "pattern", "per_modality", "smil", "given"} <= set(MECHANISMS)


def test_simulators_read_no_data_sets() -> None:
    home = Path(kintsugi.imperfect.__file__).parent
    for path in home.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.startswith(("pandas", "kintsugi.data"))], path


def test_facts_are_plain_json(tmp_path: Path) -> None:
    path = mcar(0.2).plan(make(10, 3), 0).save(tmp_path / "m.npz")
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(file["facts"].tobytes())["shape"] == [10, 3]
