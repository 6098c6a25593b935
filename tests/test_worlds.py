"""Worlds: their rows, what Bayes' rule reaches on them, and whether oracles see the premise."""

from __future__ import annotations

import importlib.util
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student

import kintsugi as kg
from kintsugi.core.batch import Batch
from kintsugi.core.card import WORLDS as NAMES
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.worlds import WORLDS, make, oracles, worlds
from kintsugi.data.worlds.law import Law, codebook, over_time, pattern, pick
from kintsugi.data.worlds.privileged import transition
from kintsugi.tasks import Classification

ROOT = Path(__file__).resolve().parents[1]
SMALL = (100, 20, 40)
BOTH = [(name, task) for name, world in WORLDS.items() for task in world.tasks]


def parts_of(data):
    return dict(zip(("train", "val", "test"), data.split(), strict=True))


def interval(values):
    return student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5


# names ---------------------------------------------------------------------------------------------------------------
def test_worlds_are_those_that_cards_may_name():
    assert tuple(WORLDS) == NAMES
    for name, world in WORLDS.items():
        assert world.premise == name
        assert world.title not in [other.title for other in WORLDS.values() if other is not world]
        for text in (world.what, world.made, world.control, world.rules):
            assert text[-1] == "."
            assert "  " not in text
    assert "worlds" in kg.datasets.list_datasets()
    assert "few_complete_rows" in NAMES
    assert len(kg.datasets.describe_dataset("worlds")) > 1000


@pytest.mark.parametrize("premise", NAMES)
def test_notes_and_shapes(premise):
    data = kg.datasets.load("worlds", premise=premise)
    assert [len(part) for part in data.split()] == [600, 500, 2000]
    note = data.note
    assert (note["premise"], note["strength"], note["metric"], note["chance"]) == (premise, 1.0, "accuracy", 0.25)
    assert note["chance"] < note["optimum"] <= 1
    assert note["optimum_full"] <= 1
    if premise != "informative_absence":
        assert note["optimum"] <= note["optimum_full"] + 0.005  # the same rows, with more to see
    assert note["parts"].keys() == note["optimum_parts"].keys()
    if note["parts"]:
        sizes = np.array([len(rows) for rows in note["parts"].values()])
        assert sizes.sum() == 2000
        assert sizes @ np.array(list(note["optimum_parts"].values())) / 2000 == pytest.approx(note["optimum"])
    assert all(m.kind == "vector" and 4 <= m.shape[0] <= 12 for m in data.schema.modalities)
    assert data.schema.names == ("m1", "m2", "m3", "m4")[: 4 if premise == "hidden_noise" else 3]
    assert bool(data.present.any(1).all())
    batch = data.batch(torch.arange(len(data)))
    for m, name in enumerate(data.schema.names):
        assert not batch.inputs[name][~batch.present[:, m]].any()  # what is absent was never there
        assert float(batch.inputs[name][batch.present[:, m]].abs().min()) > 0
    assert batch.truth is None
    assert bool(data.target_present[600:].all())


@pytest.mark.parametrize("premise", NAMES)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_made_again_it_is_the_same(premise, strength):
    first, again, other = (worlds(premise, strength, seed) for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert {key: first.note[key] for key in ("optimum", "optimum_full", "optimum_parts")} == {
        key: again.note[key] for key in ("optimum", "optimum_full", "optimum_parts")
    }
    if premise == "unpaired":
        pairs = [each.note["auxiliary"].fingerprint for each in (first, again, other)]
        assert pairs[0] == pairs[1] != pairs[2]
    for other_law, law in zip(make(premise, strength, 4).law.codes, make(premise, strength, 3).law.codes, strict=True):
        assert not np.allclose(other_law, law)


# what can be reached ---------------------------------------------------------------------------------------------------
def brute(law, x, present, row):
    """P(class | row), every state, codeword and level one by one."""
    total = np.zeros(law.classes.shape[1])
    for state, chance in enumerate(law.prior):
        value = chance
        for m in np.flatnonzero(present[row]):
            table = np.eye(len(law.prior)) if law.tables[m] is None else law.tables[m]
            value *= sum(
                table[state, word] * share * norm.pdf(x[m, row], law.codes[m][word], factor * law.noise).prod()
                for word in np.flatnonzero(table[state])
                for factor, share in law.levels
            )
        total += value * law.classes[state]
    if law.patterns is not None:
        total *= law.patterns[:, sum(1 << int(m) for m in np.flatnonzero(present[row]))]
    return total / total.sum()


@pytest.mark.parametrize("premise", NAMES)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_posterior_is_that_of_brute_force(premise, strength):
    made = make(premise, strength, 7, rows=SMALL)
    test = made.ask.part("test")
    found = made.best(made.law)
    rows = 1 if premise in ("neighbours", "hidden_noise") else 5
    for row in range(rows):
        slow = brute(made.law, made.x[:, test], made.present[test], row)
        assert found[row] == pytest.approx(slow, abs=1e-9)


def test_posterior_of_a_law_with_everything_in_it():
    rng = np.random.default_rng(0)
    tables = (rng.dirichlet(np.ones(3), 4), None, rng.dirichlet(np.ones(2), 4))
    codes = tuple(rng.normal(size=(size, 2)) for size in (3, 4, 2))
    patterns = rng.dirichlet(np.ones(8), 2)
    law = Law(
        rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(2), 4), tables, codes, 0.8, ((1, 0.7), (3, 0.3)), patterns
    )
    _, _, x = law.draw(8, rng)
    present = (np.arange(8)[:, None] >> np.arange(3)) % 2 == 1  # every pattern, nothing at all among them
    assert (pattern(present) == np.arange(8)).all()
    found = law.posterior(x, present)
    for row in range(8):
        assert found[row] == pytest.approx(brute(law, x, present, row))


def test_the_optimum_of_the_redundant_world_worked_out_apart():
    """Its law in words: tied rows show one state, others a state of the class each, and m1, which is absent, nothing."""
    made = make("redundant", 0.5, 1, rows=SMALL)
    test, (codes_2, codes_3) = made.ask.part("test"), made.law.codes[1:]
    hits = 0
    for x2, x3, label in zip(made.x[1, test], made.x[2, test], made.y[test], strict=True):
        seen_2, seen_3 = (norm.pdf(x, codes, 0.7).prod(1) for x, codes in ((x2, codes_2), (x3, codes_3)))
        tied = [(seen_2 * seen_3)[y::4].mean() for y in range(4)]
        apart = [seen_2[y::4].mean() * seen_3[y::4].mean() for y in range(4)]
        hits += int(np.argmax(0.5 * np.array(tied) + 0.5 * np.array(apart)) == label)
    assert worlds("redundant", 0.5, 1, rows=SMALL).note["optimum"] == hits / 40


def test_the_optimum_of_hidden_noise_worked_out_apart():
    """Each modality is right, of the right kind with any class, or anything, by the probabilities that its page tells."""
    made = make("hidden_noise", 1.0, 1, rows=SMALL)
    test, hits = made.ask.part("test"), 0
    for row in range(test.start, test.stop):
        evidence = np.ones((12, 4))
        for m, (shown, swapped) in enumerate(zip((0.95, 0.85, 0.2, 0.1), (0.4, 0.4, 0.2, 0.2), strict=True)):
            seen = norm.pdf(made.x[m, row], made.law.codes[m], 0.5).prod(1).reshape(12, 4)
            right = shown * seen + (1 - shown) * seen.mean(1, keepdims=True)
            evidence *= (1 - swapped) * right + swapped * seen.mean()
        hits += int(evidence.sum(0).argmax() == made.y[row])
    assert worlds("hidden_noise", 1.0, 1, rows=SMALL).note["optimum"] == hits / 40


def test_the_optimum_of_numbers_worked_out_apart():
    made = make("complementary", 1.0, 2, task="regression", rows=SMALL)
    test, levels = made.ask.part("test"), np.array([-1.5, -0.5, 0.5, 1.5]) / 1.25**0.5
    post = np.stack([brute(made.law, made.x[:, test], made.present[test], row) for row in range(40)])
    data = worlds("complementary", 1.0, 2, task="regression", rows=SMALL)
    number = data.split()[2].target.numpy()
    residual = ((post @ levels - number) ** 2).sum() / ((number - number.mean()) ** 2).sum()
    assert data.note["optimum"] == pytest.approx(1 - residual, abs=1e-5)
    assert (data.note["metric"], data.note["chance"]) == ("r2", 0.0)
    assert (number - levels[made.y[test]]).std() == pytest.approx(0.2, abs=0.07)


@pytest.mark.parametrize("premise", NAMES)
@pytest.mark.parametrize("kind", ["vector", "series"])
def test_rows_are_of_the_law_that_the_optimum_is_of(premise, kind):
    """A posterior of the right law is right as often as it says, on rows as they are and on whole ones."""
    for strength in (0.0, 0.5, 1.0):
        made = make(premise, strength, 5, kind=kind)
        test = made.ask.part("test")
        whole = made.best(made.whole, made.clean[:, test], np.ones_like(made.present[test]))
        for found in (made.best(made.law), whole):
            said, hit = found.max(1), found.argmax(1) == made.y[test]
            error = np.sqrt((said * (1 - said)).sum()) / 2000 + 1e-3
            assert abs(said.mean() - hit.mean()) < 4 * error


# the premise -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("premise", [name for name, world in WORLDS.items() if world.margin])
def test_oracles_see_the_premise_where_it_holds_and_not_where_it_does_not(premise):
    for strength in (0.0, 1.0):
        found = [oracles(premise, strength, seed) for seed in range(5)]
        gains = np.array([each["with"] - each["without"] for each in found])
        best = [worlds(premise, strength, seed).note["optimum"] for seed in range(5)]
        for each, optimum in zip(found, best, strict=True):
            assert max(each.values()) < optimum + 3 * (optimum * (1 - optimum) / 2000) ** 0.5 + 1e-9
        if strength:
            assert gains.mean() >= 0.10
            assert gains.mean() - interval(gains) > 0
        else:
            assert gains.mean() <= (0.0 if WORLDS[premise].relies else 0.005)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_late_fusion_is_the_optimum_of_the_control(strength, task):
    data = worlds("complementary", strength, 0, task=task)
    found = oracles("complementary", strength, 0, task=task)
    assert found["with"] == pytest.approx(data.note["optimum"], abs=1e-6)
    assert found["without"] <= found["with"] + 1e-9


def test_with_all_labels_there_is_little_to_gain_by_redundancy():
    gains = [np.subtract(*oracles("redundant", 1.0, seed, labels=1.0).values()) for seed in range(3)]
    assert abs(np.mean(gains)) < 0.03


@pytest.mark.parametrize("premise", ["redundant", "privileged", "visible_noise", "hidden_noise"])
def test_oracles_of_numbers_and_of_series(premise):
    for options in ({"task": "regression"}, {"kind": "series"}):
        found = [oracles(premise, 1.0, seed, **options) for seed in range(2)]
        assert np.mean([each["with"] - each["without"] for each in found]) > 0.08


# each world ------------------------------------------------------------------------------------------------------------
def test_redundant_rows():
    parts = parts_of(worlds("redundant"))
    assert parts["train"].present.all()
    assert int(parts["train"].target_present.sum()) == 30
    known = parts["train"].target[parts["train"].target_present]
    assert torch.bincount(known).min() >= 7
    assert not parts["train"].target[~parts["train"].target_present].any()  # a label that is not said cannot be read
    for name in ("val", "test"):
        assert parts[name].present.all(0).tolist() == [False, True, True]
        assert not parts[name].present[:, 0].any()
    full = worlds("redundant", labels=1.0)
    assert bool(full.target_present.all())
    few = worlds("redundant", labels=0.0).split()[0]
    assert torch.bincount(few.target[few.target_present]).tolist() == [1, 1, 1, 1]


def nearest_words(made, m):
    codes = made.law.codes[m]
    return ((made.clean[m][:, None] - codes[None]) ** 2).sum(2).argmin(1)


def test_strength_breaks_every_pair_of_the_redundant_world():
    for strength in (0.0, 1.0):
        made = make("redundant", strength, 0, kind="series")
        words = [nearest_words(made, m) for m in range(3)]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            same = (words[a] == words[b]).mean()
            assert same > 0.7 if strength else same < 0.15  # not all, since noise has them misread
        if not strength:  # m1 knows nothing of the class, and others no more of each other than the class
            assert (words[0] % 4 == made.y).mean() < 0.3
            assert (words[1] == words[2]).mean() == pytest.approx(1 / 8, abs=0.03)


def test_few_complete_rows():
    for strength, complete in ((1.0, 30), (0.5, 315), (0.0, 600)):
        data = worlds("few_complete_rows", strength)
        parts = parts_of(data)
        assert int(parts["train"].present.all(1).sum()) == complete
        rows = parts["test"].present
        assert rows[data.note["parts"]["complete"]].all()
        assert not rows[data.note["parts"]["holes"]].all(1).any()
        assert len(data.note["parts"]["holes"]) == 1000
        assert data.note["optimum_parts"]["complete"] > data.note["optimum_parts"]["holes"] + 0.05
    train = worlds("few_complete_rows").split()[0].present
    assert len(train.unique(dim=0)) == 7
    made = make("few_complete_rows", 1.0, 0)
    shown = [(nearest_words(made, m) // 6 == made.y).mean() for m in range(3)]
    assert shown == pytest.approx([0.85, 0.75, 0.65], abs=0.04)


def test_privileged_rows():
    made, parts = make("privileged"), parts_of(worlds("privileged"))
    assert parts["train"].present.all()
    assert not parts["val"].present[:, 2].any()
    assert not parts["test"].present[:, 2].any()
    train = made.ask.part("train")
    assert (made.given[train] == made.y[train]).mean() == pytest.approx(0.6, abs=0.06)
    wrong = (made.given - made.y)[train] % 4
    assert np.bincount(wrong[wrong > 0]).tolist()[1:] == pytest.approx([80] * 3, abs=30)
    assert (made.given[600:] == made.y[600:]).all()
    assert (nearest_words(made, 2) == made.y).mean() > 0.95
    assert (nearest_words(make("privileged", 0.0), 2) == made.y).mean() < 0.3


@pytest.mark.parametrize("premise", ["visible_noise", "visible_noise_at_test"])
def test_visible_noise(premise):
    data = worlds(premise)
    parts = parts_of(data)
    for name, part in parts.items():
        batch = part.batch(range(len(part)))
        size = torch.stack([batch.inputs[m].norm(dim=1) for m in data.schema.names])
        loud = float((size > 8).float().mean())
        noisy = premise == "visible_noise" or name == "test"
        assert loud == pytest.approx(0.5, abs=0.06) if noisy else loud < 0.05
        if name == "test":
            hit = (size > 8).any(0)
            assert hit[data.note["parts"]["noisy"]].float().mean() > 0.9
            assert hit[data.note["parts"]["clean"]].float().mean() < 0.2
    assert set(worlds(premise, 0.0).note["parts"]) == {"clean"}


def test_hidden_noise_looks_like_what_it_replaces():
    for where in ("test", "everywhere"):
        made = make("hidden_noise", 1.0, 0, where=where)
        for part in ("train", "test"):
            rows = made.ask.part(part)
            changed = (made.x[:, rows] != made.clean[:, rows]).any(2).mean(1)
            expected = [0.4, 0.4, 0.2, 0.2] if part == "test" or where == "everywhere" else [0] * 4
            assert changed.tolist() == pytest.approx(expected, abs=0.05)
        test = made.ask.part("test")
        hit = (made.x[:, test] != made.clean[:, test]).any((0, 2))
        assert (np.flatnonzero(hit) == worlds("hidden_noise", where=where).note["parts"]["noisy"].numpy()).all()
        for m in range(4):
            other = (made.x[m] != made.clean[m]).any(1)
            size = np.linalg.norm(made.x[m], axis=1)
            assert size[other].mean() == pytest.approx(size[~other].mean(), rel=0.05)
    assert worlds("hidden_noise").fingerprint == worlds("hidden_noise", where="test").fingerprint


def test_informative_absence():
    made = make("informative_absence")
    patterns = made.law.patterns
    assert patterns.sum(1) == pytest.approx([1] * 4)
    assert not patterns[:, 0].any()
    for part in ("train", "test"):
        rows = made.ask.part(part)
        seen = pattern(made.present[rows])
        for y in range(4):
            share = np.bincount(seen[made.y[rows] == y], minlength=8) / (made.y[rows] == y).sum()
            assert share == pytest.approx(patterns[y], abs=0.14 if part == "train" else 0.06)
    assert np.ptp(make("informative_absence", 0.0).law.patterns, axis=0) == pytest.approx([0] * 8)


def test_neighbours():
    made = make("neighbours")
    word = nearest_words(make("neighbours", kind="series"), 0)
    cluster = word // 4
    assert len(np.unique(cluster[:600])) == 60
    most = [np.bincount(made.y[cluster == c], minlength=4).max() / (cluster == c).sum() for c in range(60)]
    assert np.mean(most) > 0.7
    assert worlds("neighbours", 0.0).note["optimum"] < 0.8


def test_noisy_labels_and_trusted_rows():
    data, made = worlds("noisy_labels"), make("noisy_labels")
    train = made.ask.part("train")
    right = made.given == made.y
    trusted = made.trusted[train]
    assert int(trusted.sum()) == 60
    assert right[train][trusted].all()
    assert right[600:].all()
    for y, share in enumerate((0.4, 0.85, 0.85, 0.85)):
        rows = ~trusted & (made.y[train] == y)
        assert right[train][rows].mean() == pytest.approx(share, abs=0.1)
        wrong = made.given[train][rows & ~right[train]]
        assert (wrong == (y + 1) % 4).all()
    assert transition(made.ask, 1.0).sum(1) == pytest.approx([1] * 4)
    table = data.split()[0]
    assert table.positions("trusted").tolist() == np.flatnonzero(trusted).tolist()
    assert len(table.positions("labelled")) == 600
    half = table.subset(torch.arange(300))
    assert half.positions("trusted").tolist() == np.flatnonzero(trusted[:300]).tolist()
    assert len(worlds("noisy_labels", trusted=0.0).split()[0].positions("trusted")) == 0
    assert worlds("noisy_labels", 0.0).split()[0].target.tolist() == made.y[train].tolist()


def test_unpaired_tables():
    data = worlds("unpaired")
    parts, pairs = parts_of(data), data.note["auxiliary"]
    assert parts["train"].present.sum(1).tolist() == [1] * 600
    assert parts["train"].present.sum(0).tolist() == [540, 30, 30]
    assert len(pairs) == 600
    assert pairs.present.all()
    assert not pairs.target_present.any()
    assert pairs.schema == data.schema
    assert not parts["test"].present[:, 0].any()
    assert not parts["val"].present[:, 0].any()
    alone = worlds("unpaired", others=0.0).split()[0]
    assert alone.present.sum(0).tolist() == [600, 0, 0]
    assert oracles("unpaired", 1.0, 0, others=0.0)["without"] < 0.35
    with pytest.raises(ConfigError, match="reads no auxiliary table"):
        kg.Classifier("mean_fusion", epochs=1, progress=False).fit(parts["train"], parts["val"], auxiliary=pairs)


def test_data_that_says_nothing_of_trust_trusts_every_label():
    schema = Schema((Modality("a", "vector", (2,)),), Classification(["x", "y"]))
    target, said = torch.tensor([0, 1, 0, 1]), torch.tensor([True, True, False, True])

    def table(trusted=None):
        batch = Batch(
            ("a",), {"a": torch.ones(4, 2)}, torch.ones(4, 1, dtype=torch.bool), torch.arange(4), target, said
        )
        source = TensorSource(schema, batch)
        source.trusted = trusted
        return Dataset(source)

    assert table().trusted is None
    assert table().positions("trusted").tolist() == [0, 1, 3]
    some = table(torch.tensor([False, True, True, True]))
    assert some.positions("trusted").tolist() == [1, 3]  # a row without a label is trusted in nothing
    assert some.positions("labelled").tolist() == [0, 1, 3]
    assert some.fingerprint != table().fingerprint
    assert some.in_memory().positions("trusted").tolist() == [1, 3]


# pieces ----------------------------------------------------------------------------------------------------------------
def test_series_hold_the_codewords_of_vectors():
    for dim in (5, 12):
        spread = over_time(dim)
        assert spread @ spread.T == pytest.approx(24 / dim * np.eye(dim), abs=1e-9)
    vector, series = make("redundant"), make("redundant", kind="series")
    for a, b in zip(vector.law.codes, series.law.codes, strict=True):
        assert b == pytest.approx(a @ over_time(12))
        assert b.std() == pytest.approx(1, abs=0.15)
    data = worlds("redundant", kind="series")
    assert {(m.kind, m.shape) for m in data.schema.modalities} == {("series", (8, 3))}
    assert data.note["optimum"] == pytest.approx(worlds("redundant").note["optimum"], abs=0.02)


def test_codebook_and_picks():
    rng = np.random.default_rng(0)
    book = codebook((3, 4), 6, rng)
    assert book.shape == (12, 6)
    assert book.mean(0) == pytest.approx([0] * 6)
    assert book.std() == pytest.approx(1)
    first = (book.reshape(3, 4, 6) - book.reshape(3, 4, 6).mean(1, keepdims=True)).var()
    assert 0.2 < first < 0.8  # both latents move it
    drawn = pick(np.tile([0.2, 0.0, 0.8], (5000, 1)), rng)
    assert (np.bincount(drawn, minlength=3) / 5000).tolist() == pytest.approx([0.2, 0, 0.8], abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.5}, "strength must be from 0 to 1, not 1.5"),
        ({"strength": float("nan")}, "strength must be from 0 to 1"),
        ({"seed": -1}, "seed must be a whole number of 0 or more, not -1"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"task": "ranking"}, "task must be 'classification' or 'regression', not 'ranking'"),
        (
            {"premise": "noisy_labels", "task": "regression"},
            "'noisy_labels' has no regression; those that have: redundant,",
        ),
        ({"kind": "image"}, "kind must be 'vector' or 'series', not 'image'"),
        ({"modalities": 1}, "modalities of world 'redundant' must be 2 to 4, not 1"),
        ({"premise": "hidden_noise", "modalities": 2}, "modalities of world 'hidden_noise' must be 3 to 4, not 2"),
        ({"classes": 0}, "classes of world 'redundant' must be 3 to 4, not 0"),
        ({"rows": (600, 500)}, "rows are those of training, validation and test"),
        ({"rows": (10, 500, 2000)}, "at least 100, 20, 20; not"),
        ({"rows": 600}, "rows are those of training, validation and test"),
        ({"labels": 2}, "labels must be from 0 to 1, not 2"),
        ({"trusted": 0.1}, "trusted is an option of world 'noisy_labels', not of 'redundant'"),
        ({"premise": "hidden_noise", "where": "train"}, "where must be 'test' or 'everywhere', not 'train'"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        worlds(**options)


def test_names_that_are_unknown():
    with pytest.raises(UnknownName, match="unknown premise 'redundent'; did you mean 'redundant'"):
        worlds("redundent")
    with pytest.raises(UnknownName, match="option of data set worlds 'strenght'; did you mean 'strength'"):
        kg.datasets.load("worlds", strenght=1)
    with pytest.raises(UnknownName, match="option of a world 'lables'; did you mean 'labels'"):
        oracles("redundant", lables=1.0)


@pytest.mark.parametrize(("modalities", "classes"), list(product((3, 4), (3, 4))))
def test_other_sizes(modalities, classes):
    for premise, task in BOTH:
        data = worlds(premise, 1.0, 1, task=task, modalities=modalities, classes=classes, rows=SMALL)
        assert len(data.schema) == modalities
        assert [len(part) for part in data.split()] == list(SMALL)
        assert np.isfinite(list(oracles(premise, 1.0, 1, task=task, modalities=modalities, rows=SMALL).values())).all()
        if task == "classification":
            assert data.note["chance"] == 1 / classes


@pytest.mark.parametrize(("premise", "task"), BOTH)
@pytest.mark.parametrize("kind", ["vector", "series"])
def test_a_plain_model_can_be_trained_in_every_world(premise, task, kind):
    data = worlds(premise, task=task, kind=kind, rows=SMALL)
    train, val, test = data.split()
    estimator = {"classification": kg.Classifier, "regression": kg.Regressor}[task]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few rows
        model = estimator("mean_fusion", epochs=1, progress=False).fit(train, val)
        assert np.isfinite(model.score(test))  # and test rows that are unlike them, which is what some worlds are about


# the page ---------------------------------------------------------------------------------------------------------------
def test_the_page_says_what_the_code_says():
    spec = importlib.util.spec_from_file_location("worlds_script", ROOT / "scripts" / "worlds.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "worlds_tables.txt").read_text(encoding="utf-8")
    assert page.startswith(script.described())
    assert script.ruled() in page
    for premise in NAMES:
        assert f'"{premise}", "1"' in page
    assert script.cells(*script.line("visible_noise", 1.0, 5)) in page
