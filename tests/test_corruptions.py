"""Corruptions: what every operator promises, then what each one does."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kintsugi as kg
from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect.corrupt.audio import sounding
from kintsugi.imperfect.corrupt.text import neighbours
from kintsugi.imperfect.corruption import (
    OPERATORS,
    Compose,
    Plan,
    corrupt,
    list_corruptions,
    parse_corruption,
)
from kintsugi.tasks.classification import Classification

ROWS = 24


def ids(text: str, length: int = 40) -> Tensor:
    bytes_ = text.encode()[:length]
    return torch.tensor([b + 1 for b in bytes_] + [0] * (length - len(bytes_)))


def make(rows: int = ROWS, absent: bool = True, size: int = 28, channels: int = 1) -> Dataset:
    """An image, a clip and a text a row; every third row lacks each in turn, filled with what must not be read."""
    rng = torch.Generator().manual_seed(0)
    time = torch.arange(800) / 8000
    clips = 0.2 * torch.sin(6.2832 * 440 * time) * torch.rand(rows, 1, generator=rng).add(0.5)
    clips[:, 600:] = 0
    words = ("two or three", "An even digit, larger than 4, below nine", "Ünïcode ends", "prime")
    notes = torch.stack([ids(words[i % 4]) for i in range(rows)])
    inputs = {
        "photo": torch.rand(rows, channels, size, size, generator=rng) * 0.5 + 0.25,
        "speech": clips,
        "note": notes,
        "code": torch.randn(rows, 3, generator=rng),
    }
    present = torch.ones(rows, 4, dtype=torch.bool)
    if absent:
        for column in range(3):
            present[column::3, column] = False
        inputs["photo"][~present[:, 0]] = float("nan")
        inputs["speech"][~present[:, 1]] = float("nan")
    schema = Schema(
        (
            Modality("photo", "image", (channels, size, size)),
            Modality("speech", "audio", (800,), rate=8000),
            Modality("note", "text", (40,), vocab=257),
            Modality("code", "vector", (3,)),
        ),
        Classification(["a", "b"]),
    )
    mask = {"note": (notes > 0) & present[:, 2:3]}
    batch = Batch(schema.names, inputs, present, torch.arange(rows), torch.arange(rows) % 2, mask=mask)
    return Dataset(TensorSource(schema, batch))


def everything(data: Dataset) -> Batch:
    return data.batch(torch.arange(len(data)))


def same(x: Tensor, y: Tensor) -> bool:
    return torch.equal(x.nan_to_num(9.0), y.nan_to_num(9.0))


def test_another_process_gets_the_same_numbers() -> None:
    code = (
        "import torch; from kintsugi.imperfect.corruption import OPERATORS, Plan; "
        "p = Plan('gaussian_noise', 'photo', 3, 7, {'sd': 0.2}); "
        "print(OPERATORS['gaussian_noise']().apply(torch.full((2, 1, 4, 4), .5), torch.tensor([3, 8]), p)[0].tolist())"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    ]
    here = OPERATORS["gaussian_noise"]().apply(
        torch.full((2, 1, 4, 4), 0.5), torch.tensor([3, 8]), Plan("gaussian_noise", "photo", 3, 7, {"sd": 0.2})
    )[0]
    assert said[0] == said[1] == f"{here.tolist()}\n"


# what each one does -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("size", "channels", "preset", "sd"), [(224, 3, "imagenet", 0.18), (32, 3, "cifar", 0.08), (28, 1, "mnist", 0.3)]
)
def test_gaussian_noise_has_the_spread_of_its_preset(size: int, channels: int, preset: str, sd: float) -> None:
    data = make(4, absent=False, size=size, channels=channels)
    operator = OPERATORS["gaussian_noise"]()
    plan = operator.plan(data, "photo", 3, 0)
    assert plan.parameters == {"preset": preset, "sd": sd}
    x = torch.full((40, channels, size, size), 0.5)
    out, _ = operator.apply(x, torch.arange(40), plan)
    assert 0 <= out.min() <= out.max() <= 1
    middle = ((out - x).abs() < 0.6745 * sd).float().mean()
    assert abs(float(middle) - 0.5) < 0.01, "half of a normal lies within 0.6745 standard deviations"


def test_a_preset_can_be_named() -> None:
    spec = corrupt("gaussian_noise", "photo", 5, preset="imagenet")
    assert spec.plan(make(), 0).parameters["sd"] == 0.38
    assert str(spec) == "gaussian_noise(photo, 5, preset=imagenet)"
    with pytest.raises(UnknownName, match="did you mean 'cifar'"):
        corrupt("gaussian_noise", "photo", 5, preset="cifar10")


@pytest.mark.parametrize(("severity", "snr"), list(enumerate((20, 15, 10, 5, 0), 1)))
def test_white_noise_has_the_ratio_that_was_asked(severity: int, snr: float) -> None:
    data = make(absent=False)
    clean = everything(data).inputs["speech"].double()
    noisy = everything(data.with_corruption(corrupt("white_noise", "speech", severity))).inputs["speech"].double()
    content = sounding(clean)
    power = (clean.square() * content).sum(1) / ((noisy - clean).square() * content).sum(1)
    assert (10 * power.log10() - snr).abs().max() < 0.5
    assert (noisy[:, 600:] == 0).all(), "padding stays silent"


def test_silence_stays_and_loud_clips_are_clipped() -> None:
    operator = OPERATORS["white_noise"]()
    plan = operator.plan(make(), "speech", 5, 0)
    time = torch.arange(800) / 8000
    x = torch.stack([torch.zeros(800), 0.95 * torch.sin(6.2832 * 300 * time), 2 * torch.sin(6.2832 * 300 * time)])
    out, _ = operator.apply(x, torch.arange(3), plan)
    assert (out[0] == 0).all()
    assert out[1].abs().max() == 1
    assert out[2].abs().max() == x[2].abs().max()


def test_noise_does_not_depend_on_padding_or_on_what_is_masked() -> None:
    operator = OPERATORS["white_noise"]()
    plan = operator.plan(make(), "speech", 3, 0)
    x = torch.randn(3, 500, generator=torch.Generator().manual_seed(1)) * 0.1
    longer = torch.cat([x, torch.zeros(3, 123)], 1)
    out, _ = operator.apply(x, torch.arange(3), plan)
    padded, _ = operator.apply(longer, torch.arange(3), plan)
    assert torch.allclose(padded[:, :500], out, atol=1e-6)
    longer[:, 500:] = float("nan")
    masked, _ = operator.apply(longer, torch.arange(3), plan, torch.arange(623).expand(3, -1) < 500)
    assert torch.equal(masked[:, :500], padded[:, :500])
    assert masked[:, 500:].isnan().all()


def test_keyboard_neighbours() -> None:
    near = neighbours()
    assert len(near) == 26
    assert set(near["a"]) == set("qwsz")
    assert set(near["g"]) == set("tyfhvb")
    assert all(a in near[b] for a in near for b in near[a])


@pytest.mark.parametrize(("severity", "share"), list(enumerate((0.02, 0.05, 0.10, 0.15, 0.25), 1)))
def test_typos(severity: int, share: float) -> None:
    operator = OPERATORS["keyboard_typos"]()
    plan = operator.plan(make(), "note", severity, 0)
    texts = ["An even digit, larger than 4", "a", "", "1234 ?!", "日本語のテキスト ab", "Ünïcode ends here", "QWERTY"]
    x = torch.stack([ids(text) for text in texts])
    out, _ = operator.apply(x, torch.arange(len(texts)), plan)
    near = neighbours()
    for text, old, new in zip(texts, x, out, strict=True):
        where = (old != new).nonzero().flatten().tolist()
        letters = sum(c.isascii() and c.isalpha() for c in text)
        assert len(where) == min(letters, max(1, round(share * len(text))))
        for i in where:
            was, became = chr(int(old[i]) - 1), chr(int(new[i]) - 1)
            assert became.lower() in near[was.lower()]
            assert became.isupper() == was.isupper()
        bytes(int(b) - 1 for b in new if b > 0).decode()


def test_typos_do_not_depend_on_padding_and_spare_masked_steps() -> None:
    operator = OPERATORS["keyboard_typos"]()
    plan = operator.plan(make(), "note", 5, 0)
    short = torch.stack([ids("five or nine", 12), ids("two", 12)])
    long = torch.stack([ids("five or nine", 40), ids("two", 40)])
    assert torch.equal(
        operator.apply(short, torch.arange(2), plan)[0], operator.apply(long, torch.arange(2), plan)[0][:, :12]
    )
    mask = torch.arange(12).expand(2, -1) < 2
    out, seen = operator.apply(short, torch.arange(2), plan, mask)
    assert torch.equal(out[:, 2:], short[:, 2:])
    assert seen is mask


def test_typos_refuse_tokens() -> None:
    data = make()
    modalities = tuple(replace(m, vocab=30_000) if m.name == "note" else m for m in data.schema.modalities)
    data.source.schema = Schema(modalities, data.schema.task)
    with pytest.raises(ConfigError, match="30000 ids"):
        corrupt("keyboard_typos", "note").plan(data, 0)


# several, text, and errors ------------------------------------------------------------------------------------------
def test_compose_is_one_after_the_other() -> None:
    data = make()
    both = Compose((corrupt("gaussian_noise", "photo", 2), corrupt("keyboard_typos", "note", 4)))
    once = everything(data.with_corruption(both, seed=3))  # type: ignore[arg-type]
    chained = data.with_corruption(corrupt("gaussian_noise", "photo", 2), seed=3)
    twice = everything(chained.with_corruption(corrupt("keyboard_typos", "note", 4), seed=3))
    assert all(same(once.inputs[name], twice.inputs[name]) for name in once.inputs)
    assert both.modalities == ("photo", "note")
    assert str(both) == "gaussian_noise(photo, 2) + keyboard_typos(note, 4)"
    assert Compose((both, corrupt("white_noise", "speech"))).parts[:2] == both.parts
    with pytest.raises(ConfigError, match="one corruption or more"):
        Compose(())


def test_the_same_twice_draws_twice() -> None:
    data = make(absent=False)
    one = corrupt("gaussian_noise", "photo", 1)
    first, second = Compose((one, one)).plan(data, 0).parts
    assert first == one.plan(data, 0)
    assert first.key != second.key


def test_plans_have_hashes() -> None:
    data = make()
    plan = corrupt("gaussian_noise", "photo", 3).plan(data, 0)
    assert plan.hash == corrupt("gaussian_noise", "photo", 3).plan(data, 0).hash == "ac12fe49a61cb20a"
    others: list[Any] = [
        corrupt("gaussian_noise", "photo", 3).plan(data, 1),
        corrupt("gaussian_noise", "photo", 4).plan(data, 0),
        corrupt("gaussian_noise", "photo", 3, preset="cifar").plan(data, 0),
        Compose((corrupt("gaussian_noise", "photo", 3),)).plan(data, 0),
    ]
    assert len({plan.hash, *(other.hash for other in others)}) == 5


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("gaussian_noise(image, 3)", "gaussian_noise(image, 3)"),
        ("gaussian_noise(image)", "gaussian_noise(image, 3)"),
        ("gaussian_noise(image, 2, preset=cifar)", "gaussian_noise(image, 2, preset=cifar)"),
        ({"gaussian_noise": {"modality": "image", "severity": 1}}, "gaussian_noise(image, 1)"),
        ({"gaussian_noise": ["image", 1]}, "gaussian_noise(image, 1)"),
        ("white_noise('my mic', 5)", "white_noise('my mic', 5)"),
        ("gaussian_noise(a, 1) + white_noise(b, 2)", "gaussian_noise(a, 1) + white_noise(b, 2)"),
        (["gaussian_noise(a, 1)", {"white_noise": "b"}], "gaussian_noise(a, 1) + white_noise(b, 3)"),
    ],
)
def test_specs_and_their_way_back(spec: Any, said: str) -> None:
    found = parse_corruption(spec)
    assert str(found) == said
    assert parse_corruption(said) == found
    assert parse_corruption(found) is found


@pytest.mark.parametrize(
    ("spec", "error", "match"),
    [
        ("gausian_noise(image, 3)", UnknownName, "did you mean 'gaussian_noise'"),
        ("gaussian_noise(image, 6)", ConfigError, "from 1 to 5"),
        ("gaussian_noise(image, 2.5)", ConfigError, "from 1 to 5"),
        ("gaussian_noise(image, True)", ConfigError, "from 1 to 5"),
        ("gaussian_noise", ConfigError, "modality"),
        ("gaussian_noise(3)", ConfigError, "name of a modality"),
        ("gaussian_noise(image, 3, level=2)", UnknownName, "unknown parameter of gaussian_noise"),
        ("gaussian_noise(image, open('x'))", ConfigError, "whole number"),
        (None, ConfigError, "cannot read"),
    ],
)
def test_specs_that_make_no_sense(spec: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        parse_corruption(spec)


def test_wrong_modalities() -> None:
    data = make()
    with pytest.raises(ConfigError, match=r"'speech' is audio; for audio there is .*white_noise"):
        data.with_corruption(corrupt("gaussian_noise", "speech"))
    with pytest.raises(ConfigError, match="no corruption yet"):
        OPERATORS["gaussian_noise"]().check(Modality("lidar", "points", (None, 4)))
    with pytest.raises(UnknownName, match="did you mean 'photo'"):
        data.with_corruption(corrupt("gaussian_noise", "foto"))


def test_listing() -> None:
    assert {"gaussian_noise", "white_noise", "keyboard_typos"} <= set(list_corruptions())
    assert "white_noise" in list_corruptions("audio")
    assert "gaussian_noise" not in list_corruptions("audio")
    assert kg.corruptions.list(kind="audio") == list_corruptions("audio")
    assert all(OPERATORS[key].kind == "cross-modal" for key in kg.corruptions.list(kind="cross-modal"))
    with pytest.raises(UnknownName, match="audio"):
        list_corruptions("sound")


def test_hidden_slots_and_corruption_go_together() -> None:
    from kintsugi.imperfect.missing import mcar

    data = make().with_corruption(corrupt("gaussian_noise", "photo", 2)).with_missing(mcar(0.3), keep="truth")
    batch = everything(data)
    assert batch.truth is not None
    shown = batch.present[:, data.schema.column("photo")]
    assert same(batch.truth.inputs["photo"][shown], batch.inputs["photo"][shown])
    damaged = make().with_corruption(corrupt("gaussian_noise", "photo", 2))
    assert same(batch.truth.inputs["photo"], everything(damaged).inputs["photo"])
    assert data.condition == "mcar(0.3), hidden slots kept as truth, gaussian_noise(photo, 2) seed=0"
    assert np.isclose(data.mask.realised, 0.3, atol=0.01)  # type: ignore[union-attr]
