"""Saved models: the same answers after loading, clear refusals of what is damaged, and an old model that survives."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError, ModelFileError, UnknownName
from kintsugi.core.features import Features, Fused
from kintsugi.core.methods import METHODS, build_ablation, create
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.stage import Stage
from kintsugi.data.dataset import Dataset
from kintsugi.imperfect import parse_mechanism
from kintsugi.io import saved_models as store
from kintsugi.io.files import digest
from kintsugi.testing import ask, everything
from kintsugi.testing.fixture import toy
from kintsugi.training.trainer import Trainer

KEYS = ("mean_fusion", "early_fusion", "kd_mm", "mmin", "smil", "ccm", "missing_aware_prompts")
SMALL: dict[str, dict[str, Any]] = {"early_fusion": {"hidden": 8}, "missing_aware_prompts": {"dim": 8, "depth": 2}}


@cache
def data() -> Dataset:
    """Rows with holes, a few of them with nothing."""
    whole = toy(rows=96, dim=5)
    whole.source.present[90:93] = False
    return whole


def train(pipeline: Pipeline, rows: Dataset | None = None, epochs: int = 1) -> Pipeline:
    part, val, _ = (rows or data()).split()
    holey = part.with_missing(parse_mechanism("mcar(0.3)"), seed=1)
    return Trainer(epochs=epochs, batch_size=32, progress=False).fit(pipeline, Splits(holey, val))


def untrained(key: str) -> Pipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create(key, data().schema, **SMALL.get(key, {"dim": 8}))


@cache
def trained(key: str) -> Pipeline:
    return train(untrained(key))


def answers(pipeline: Pipeline) -> Tensor:
    """To rows with holes of every pattern, and to rows with nothing."""
    hidden = data().with_missing(parse_mechanism("mcar(0.4)"), seed=2)
    return ask(pipeline, everything(hidden)).output


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return store.save(trained("mmin"), tmp_path / "model", {"note": "mine"})


def weights_of(folder: Path) -> Path:
    """The file of weights that ``model.json`` names."""
    return folder / str(json.loads((folder / store.CONFIG).read_text())["weights"])


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what ``model.json`` says, and its digest, as someone would who knows the format."""
    config = json.loads((folder / store.CONFIG).read_text())
    change(config)
    config["digest"] = digest({name: value for name, value in config.items() if name != "digest"})
    (folder / store.CONFIG).write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the weights and everything that is said about them, as someone would who knows the format."""
    weights = load_file(weights_of(folder))
    change(weights)
    save_file(weights, weights_of(folder))
    kinds = {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in weights.items()}
    checksum = hashlib.sha256(weights_of(folder).read_bytes()).hexdigest()
    edit(folder, lambda c: c.update(tensors=kinds, sha256=checksum))


# there and back -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", KEYS)
def test_a_loaded_model_gives_the_same_answers_on_rows_with_holes(key: str, tmp_path: Path) -> None:
    pipeline = trained(key)
    folder = store.save(pipeline, tmp_path / "model", {"note": "mine"})
    loaded, extra = store.load(folder)
    assert extra == {"note": "mine"}
    assert not loaded.training
    assert loaded.schema == pipeline.schema
    assert torch.equal(answers(loaded), answers(pipeline))
    assert sorted(p.name for p in folder.iterdir()) == [weights_of(folder).name, store.CONFIG]
    for (path, one), (other_path, other) in zip(pipeline.named_components(), loaded.named_components(), strict=True):
        assert (path, type(one), one.clock, one.hyper) == (other_path, type(other), other.clock, other.hyper)


@pytest.mark.parametrize("key", ["kd_mm", "smil", "ccm", "mmin"])
def test_a_model_with_its_mechanism_off_is_saved_too(key: str, tmp_path: Path) -> None:
    pipeline = train(build_ablation(METHODS[key], data().schema, dim=8))
    loaded, _ = store.load(store.save(pipeline, tmp_path / "model"))
    assert torch.equal(answers(loaded), answers(pipeline))


def test_a_monitor_s_calibration_and_the_prior_come_back(tmp_path: Path) -> None:
    pipeline = trained("ccm")
    loaded, _ = store.load(store.save(pipeline, tmp_path / "model"))
    limit = loaded.monitors[0].get_buffer("limit")
    assert torch.equal(limit, pipeline.monitors[0].get_buffer("limit"))
    assert bool(torch.isfinite(limit).all())
    assert loaded.monitors[0].host is loaded.model  # type: ignore[union-attr]
    nothing = ask(loaded, everything(data()).only())
    assert torch.equal(nothing.output[0], pipeline.model.prior)


def test_loading_draws_nothing_from_the_global_generator(saved: Path) -> None:
    before = torch.get_rng_state()
    store.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copy_is_independent() -> None:
    pipeline = trained("mean_fusion")
    before = answers(pipeline)
    twin = store.clone(pipeline)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert torch.equal(answers(pipeline), before)
    assert not torch.equal(answers(twin), before)


# what is in the folder ----------------------------------------------------------------------------------------------
def test_frozen_copies_that_inference_does_not_need_are_not_written(saved: Path) -> None:
    whole = untrained("mmin")
    before, rows, _ = data().split()
    Trainer(epochs=1, batch_size=32, progress=False).fit(whole, Splits(before, rows), strip=False)
    unneeded = ("model.teacher.", "model.warm_trunk.", "model.warm_head.", "model.backward_imagination.")
    for prefix in unneeded:
        assert any(name.startswith(prefix) for name in whole.state_dict()), prefix
    for folder in (saved, store.save(whole, saved.parent / "whole")):
        names = load_file(weights_of(folder)).keys()
        assert any(name.startswith("model.encoders.") for name in names)
        assert not any(name.startswith(unneeded) for name in names)
        assert {n.partition(".")[0] for n in store.load(folder)[0].state_dict()} == {"model"}
    assert any(name.startswith(unneeded) for name in whole.state_dict()), "saving let go of it"


CARD = Card(
    key="kept", name="Kept", leaf="general", faithful=("all",), claims=("none",), imperfection=("missing at test",),
    premise="none", confidence="high", tasks=("classification",),
)  # fmt: skip


class Kept(Model):
    """Answers from a frozen copy of its encoders as they were after the first stage, and from a bank of features."""

    card = CARD

    def __init__(self, schema: Any, dim: int = 8) -> None:
        super().__init__(schema, dim)
        self.register_buffer("bank", None)
        self.register_buffer("found", torch.zeros(0, dtype=torch.int64))
        self.levels = nn.Parameter(torch.zeros(1), requires_grad=False)

    def stages(self) -> list[Stage]:
        return [Stage("first"), Stage("second")]

    def prepare(self, data: Splits, stage: Stage) -> None:
        if stage.name == "second":
            self.keep_frozen("old", self.encoders, save=True)
            self.bank = self.encode_rows(data.train, "complete").flat()
            self.found = data.train.positions("complete")
            self.levels = nn.Parameter(self.bank[:, 0].sort().values, requires_grad=False)

    def fuse(self, features: Features) -> Fused:
        fused = super().fuse(features).pooled()
        return Fused.vector(fused if self.bank is None else fused + self.bank.mean() + self.levels.mean())

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        return super().encode(batch, encoders or getattr(self, "old", None))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setitem(METHODS._classes, "kept", Kept)
    return train(Pipeline(Kept(data().schema)))


def test_frozen_copies_and_buffers_of_data_dependent_size_come_back(kept: Pipeline, tmp_path: Path) -> None:
    rows = len(kept.model.get_buffer("bank"))
    assert 0 < rows < 64
    loaded, _ = store.load(store.save(kept, tmp_path / "model"))
    assert torch.equal(loaded.model.get_buffer("bank"), kept.model.get_buffer("bank"))
    assert torch.equal(loaded.model.get_buffer("found"), kept.model.get_buffer("found"))
    assert len(loaded.model.get_parameter("levels")) == rows
    old = loaded.model.get_submodule("old")
    assert all(torch.equal(t, kept.model.get_submodule("old").state_dict()[n]) for n, t in old.state_dict().items())
    assert not any(p.requires_grad for p in old.parameters())
    loaded.train()
    assert not old.training
    loaded.eval()
    assert torch.equal(answers(loaded), answers(kept))


def raw_rows(key: str, folder: Path) -> list[int]:
    """Training rows whose numbers stand in the folder."""
    found = b"".join(file.read_bytes() for file in folder.iterdir())
    rows = data().split()[0]
    batch = everything(rows)
    return [
        int(i)
        for i, x in zip(batch.index, batch.inputs["m0"], strict=True)
        if x.numpy().tobytes() in found or json.dumps(x.tolist())[1:-1].encode() in found
    ]


@pytest.mark.parametrize("key", [k for k in KEYS if not METHODS[k].card.reference])
def test_a_folder_holds_no_training_rows_unless_it_says_so(key: str, tmp_path: Path) -> None:
    folder = store.save(trained(key), tmp_path / "model")
    assert raw_rows(key, folder) == []
    assert json.loads((folder / store.CONFIG).read_text())["reference"] is False
    (folder / "rows").write_bytes(everything(data()).inputs["m0"][3].numpy().tobytes())
    assert raw_rows(key, folder) == [3], "rows would not be found"


def test_a_folder_says_that_its_method_reads_stored_rows(
    kept: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kept, "card", replace(CARD, reference=True))
    folder = store.save(kept, tmp_path / "model")
    assert json.loads((folder / store.CONFIG).read_text())["reference"] is True


def test_what_cannot_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    class Local(Model):
        pass

    with pytest.raises(ConfigError, match="Local belongs to no registered method"):
        store.save(Pipeline(Local(data().schema, 8)), tmp_path / "model")
    part = create("mean_fusion", data().schema, dim=8)
    part.model.hyper["schedule"] = object()
    with pytest.raises(ConfigError, match="MeanFusion has an argument that cannot be saved"):
        store.save(part, tmp_path / "model")
    with pytest.raises(TypeError):
        store.save(trained("mean_fusion"), tmp_path / "model", {"note": object()})
    assert list(tmp_path.iterdir()) == []


# damaged, altered, hostile ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 7, 100, -1], ids=["empty", "half a header", "cut early", "one byte short"])
def test_truncated_weights_are_refused(saved: Path, size: int) -> None:
    file = weights_of(saved)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelFileError, match="truncated or altered"):
        store.load(saved)


def test_one_altered_byte_of_the_weights_is_noticed(saved: Path) -> None:
    content = bytearray(weights_of(saved).read_bytes())
    content[-5] ^= 1
    weights_of(saved).write_bytes(content)
    with pytest.raises(ModelFileError, match="truncated or altered"):
        store.load(saved)


def test_weights_that_are_no_safetensors_are_refused(saved: Path) -> None:
    weights_of(saved).write_bytes(b"no tensors at all")
    edit(saved, lambda c: c.update(sha256=hashlib.sha256(b"no tensors at all").hexdigest()))
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        store.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "\x00\x01"])
def test_a_damaged_description_is_refused(saved: Path, text: str) -> None:
    (saved / store.CONFIG).write_text(text)
    with pytest.raises(ModelFileError, match=r"model\.json"):
        store.load(saved)


def _at(config: dict[str, Any], *path: str) -> dict[str, Any]:
    for name in path:
        config = config[name]
    return config


@pytest.mark.parametrize(
    "change",
    [
        lambda c: _at(c, "parts", "model", "hyper").update(dim=16),
        lambda c: _at(c, "parts", "model", "hyper").update(blocks=2),
        lambda c: _at(c, "parts", "model", "hyper").update(no_such_argument=1),
        lambda c: _at(c, "parts", "model", "hyper").update(dim="wide"),
        lambda c: _at(c, "parts", "model").pop("class"),
        lambda c: _at(c, "parts", "model").pop("clock"),
        lambda c: _at(c, "parts", "model").update(clock={"hour": 3}),
        lambda c: _at(c, "parts", "model").update(frozen={"teacher": "no.such.module"}),
        lambda c: c["parts"].pop("model"),
        lambda c: c.update(parts=[]),
        lambda c: c.update(parts={"model": 3}),
        lambda c: c.update(schema={}),
        lambda c: c["schema"].update(modalities=[{"name": "m0"}]),
        lambda c: c["schema"]["modalities"][0].update(shape=[7]),
        lambda c: c["schema"]["task"].update(classes=["a", "b"]),
        lambda c: c["tensors"].popitem(),
        lambda c: next(iter(c["tensors"].values())).__setitem__(0, "float64"),
        lambda c: c.update(sha256="0" * 64),
        lambda c: c.pop("extra"),
    ],
)
def test_a_description_that_was_altered_is_refused(saved: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit(saved, lambda c: None)
    store.load(saved)
    edit(saved, change)
    with pytest.raises(ModelFileError):
        store.load(saved)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every number, text, truth, null and empty container of a JSON value stands."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inside:
        yield path
    for key, each in list(inside):
        yield from leaves(each, (*path, key))


def altered(leaf: Any) -> Any:
    """Another value of the same type."""
    match leaf:
        case bool():
            return not leaf
        case int() | float():
            return leaf + 1
        case str():
            return leaf + "x"
        case None:
            return 0
    return None


def test_a_change_of_any_entry_of_the_description_is_noticed(tmp_path: Path) -> None:
    folder = store.save(trained("ccm"), tmp_path / "model", {"scale": [0.5, None], "empty": {}})
    text = (folder / store.CONFIG).read_text()
    paths = list(leaves(json.loads(text)))
    assert len(paths) > 100
    for *way, last in paths:
        config = json.loads(text)
        place = config
        for key in way:
            place = place[key]
        place[last] = altered(place[last])
        (folder / store.CONFIG).write_text(json.dumps(config))
        with pytest.raises(ModelFileError, match=r"model\.json (was altered|has format)"):
            store.load(folder)
    (folder / store.CONFIG).write_text(json.dumps(json.loads(text), sort_keys=True))  # the same in another order
    store.load(folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "model.safetensors", "/etc/passwd", 3, None, ["model"]])
def test_weights_are_read_from_the_folder_and_by_their_own_name_alone(saved: Path, name: Any) -> None:
    edit(saved, lambda c: c.update(weights=name))
    with pytest.raises(ModelFileError, match="is no name of weights"):
        store.load(saved)


@pytest.mark.parametrize("number", [0, 4, "1", None, True, 1.0])
def test_another_format_is_named(saved: Path, number: Any) -> None:
    edit(saved, lambda c: c.update(format=number))
    with pytest.raises(ModelFileError, match=f"format {number!r}; this version reads formats 1 and 2 and 3"):
        store.load(saved)


def test_a_folder_in_part_or_none_at_all_is_no_model(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        store.load(tmp_path / "nowhere")
    weights_of(saved).unlink()
    with pytest.raises(
        ModelFileError, match=r"holds no model-[0-9a-f]{16}\.safetensors; the folder was copied in part"
    ):
        store.load(saved)
    (saved / store.CONFIG).unlink()
    with pytest.raises(ModelFileError, match=r"holds no model\.json"):
        store.load(saved)


@pytest.mark.parametrize("start", [0x80, int.from_bytes(b"PK", "little")], ids=["pickle", "zip"])
def test_a_header_whose_length_looks_like_a_pickle_is_none(saved: Path, start: int) -> None:
    file = weights_of(saved)
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    padding = (start - length) % 2**16
    padded = (length + padding).to_bytes(8, "little") + content[8 : 8 + length] + b" " * padding + content[8 + length :]
    assert padded[:1] == b"\x80" or padded[:2] == b"PK"
    file.write_bytes(padded)
    edit(saved, lambda c: c.update(sha256=hashlib.sha256(padded).hexdigest()))
    assert torch.equal(answers(store.load(saved)[0]), answers(trained("mmin")))


class Bomb:
    """Goes off when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["pickle", "zip of torch"])
@pytest.mark.parametrize("checksum", [False, True])
def test_a_pickle_is_never_opened(saved: Path, tmp_path: Path, kind: str, checksum: bool) -> None:
    marker = tmp_path / "exploded"
    if kind == "pickle":
        weights_of(saved).write_bytes(pickle.dumps(Bomb(marker)))
    else:
        torch.save(Bomb(marker), weights_of(saved))
    if checksum:
        known = hashlib.sha256(weights_of(saved).read_bytes()).hexdigest()
        edit(saved, lambda c: c.update(sha256=known))
    with pytest.raises(ModelFileError, match="is a pickle"):
        store.load(saved)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists(), "the bomb was a dud"


def test_a_method_that_is_not_here_is_answered_with_the_nearest(saved: Path) -> None:
    edit(saved, lambda c: c["parts"]["model"].update({"class": "mmni"}))
    with pytest.raises(UnknownName, match="unknown method 'mmni'; did you mean 'mmin'"):
        store.load(saved)


@pytest.mark.parametrize(
    "address",
    [
        "mmin.os",
        "mmin.Trainer",
        "mmin.Fixture",
        "mmin.Model",
        "mmin.mse",
        "mmin.MMIN.pipeline",
        "mmin.__builtins__",
        "os.system",
    ],
)
def test_an_address_reaches_parts_in_the_files_of_methods_and_nothing_else(saved: Path, address: str) -> None:
    edit(saved, lambda c: c["parts"]["model"].update({"class": address}))
    with pytest.raises(UnknownName):
        store.load(saved)


@pytest.mark.parametrize("address", [3, None, ["mmin"], {}])
def test_an_address_that_is_no_text_is_refused(saved: Path, address: Any) -> None:
    edit(saved, lambda c: c["parts"]["model"].update({"class": address}))
    with pytest.raises(ModelFileError):
        store.load(saved)


@pytest.mark.parametrize("name", ["model.surprise", "model.encoders.m0.mlp.0.more", "elsewhere.weight", "weight"])
def test_an_extra_tensor_is_refused(saved: Path, name: str) -> None:
    edit_weights(saved, lambda w: None)
    store.load(saved)
    edit_weights(saved, lambda w: w.update({name: torch.zeros(3)}))
    with pytest.raises(ModelFileError, match=name):
        store.load(saved)


def test_a_buffer_that_is_not_saved_cannot_be_set_by_a_file(tmp_path: Path) -> None:
    folder = store.save(trained("missing_aware_prompts"), tmp_path / "model")
    edit_weights(folder, lambda w: w.update({"model.prompts.powers": torch.tensor([1, 1, 1])}))
    with pytest.raises(ModelFileError, match=r"model\.prompts\.powers"):
        store.load(folder)


def test_a_tensor_that_is_lacking_or_of_another_size_is_refused(saved: Path) -> None:
    full = load_file(weights_of(saved))
    edit_weights(saved, lambda w: w.pop("model.task_head.linear.bias"))
    with pytest.raises(ModelFileError, match=r"lacks model\.task_head\.linear\.bias"):
        store.load(saved)
    edit_weights(saved, lambda w: w.update(full | {"model.task_head.linear.bias": torch.zeros(9)}))
    with pytest.raises(ModelFileError, match=r"another size.*task_head\.linear\.bias: \[9\], not \[4\]"):
        store.load(saved)


# writing ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("beginning", ["model-", "model.json"])
def test_a_full_disk_leaves_the_old_model_and_no_litter(
    beginning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.save(trained("mmin"), tmp_path / "model")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    real = store.replace_file

    def full(path: Path, content: bytes) -> None:
        if path.name.startswith(beginning):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    monkeypatch.setattr(store, "replace_file", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(trained("ccm"), folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert torch.equal(answers(store.load(folder)[0]), answers(trained("mmin")))
    with pytest.raises(OSError, match="No space left"):
        store.save(trained("ccm"), tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


STEPS = (
    (os, ("replace", "fsync", "open", "close", "chmod", "unlink", "mkdir", "listdir")),
    (Path, ("write_bytes", "unlink", "mkdir")),
)


def killed_at(step: int, work: Callable[[], Any]) -> bool:
    """Does the work in a fork that is killed before its ``step``-th call of the system; True: it was, False: it got through."""
    child = os.fork()
    if child == 0:
        count = itertools.count(1)

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if next(count) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return call

        for owner, names in STEPS:
            for name in names:
                setattr(owner, name, counted(getattr(owner, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("old", ["none", "format 1", "format 3"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_kill_before_any_step_of_a_save_leaves_the_old_model_or_the_new_one(
    old: str, kept: Pipeline, tmp_path: Path
) -> None:
    first, second = kept, trained("mean_fusion")
    outcomes = []
    for step in range(1, 200):
        folder = tmp_path / str(step) / "model"
        folder.parent.mkdir()
        if old != "none":
            store.save(first, folder)
            (folder / "notes.txt").write_text("mine")
        if old == "format 1":
            as_format_1(folder)
        killed = killed_at(step, lambda to=folder: store.save(second, to))  # type: ignore[misc]
        if old == "none" and not (folder / store.CONFIG).exists():
            outcomes.append("none")
        else:
            outcomes.append(type(store.load(folder)[0].model).__name__)
        assert outcomes[-1] in ("MeanFusion", "none" if old == "none" else "Kept")
        store.save(second, folder)
        assert torch.equal(answers(store.load(folder)[0]), answers(second))
        left = {path.name for path in folder.iterdir()}
        assert left == {store.CONFIG, weights_of(folder).name} | ({"notes.txt"} if old != "none" else set())
        assert [path.name for path in folder.parent.iterdir()] == ["model"]
        if not killed:
            break
    assert not killed, "it was never let through"
    assert len(outcomes) > 8
    turn = outcomes.index("MeanFusion")
    assert 4 < turn < len(outcomes) - 1, "it was not killed both before and after the move"
    assert set(outcomes[turn:]) == {"MeanFusion"}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_save_to_one_folder_while_a_third_reads_it(tmp_path: Path) -> None:
    folder = store.save(trained("mmin"), tmp_path / "model")
    end = time.monotonic() + 2

    def repeat(work: Callable[[], Any]) -> int:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                while time.monotonic() < end:
                    work()
                status = 0
            finally:
                os._exit(status)
        return child

    children = [
        repeat(lambda: store.save(trained("mmin"), folder)),
        repeat(lambda: store.save(trained("mean_fusion"), folder)),
        repeat(lambda: store.load(folder)),
    ]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    store.load(folder)
    assert {path.name for path in folder.iterdir()} == {store.CONFIG, weights_of(folder).name}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_reader_whose_weights_were_superseded_reads_the_description_again(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, stale = store._config, []

    def slow(source: Path) -> dict[str, Any]:
        config = read(source)
        if not stale:
            stale.append(config["weights"])
            store.save(trained("mean_fusion"), source)
        return config

    monkeypatch.setattr(store, "_config", slow)
    loaded, _ = store.load(saved)
    assert not (saved / stale[0]).exists()
    assert torch.equal(answers(loaded), answers(trained("mean_fusion")))


def as_format_1(folder: Path) -> None:
    """The folder as version 0.1.0 wrote it: weights of a fixed name, no digest."""
    weights = weights_of(folder)
    config = json.loads((folder / store.CONFIG).read_text())
    del config["weights"], config["digest"], config["training"]
    (folder / store.CONFIG).write_text(json.dumps(config | {"format": 1}, indent=1))
    weights.rename(folder / "model.safetensors")


def test_a_model_of_format_1_is_read_and_saved_over(kept: Pipeline, tmp_path: Path) -> None:
    saved = store.save(kept, tmp_path / "model")
    as_format_1(saved)
    assert torch.equal(answers(store.load(saved)[0]), answers(kept))
    content = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(content[:-1])
    with pytest.raises(ModelFileError, match=r"model\.safetensors is truncated or altered"):
        store.load(saved)
    store.save(trained("ccm"), saved)
    assert {path.name for path in saved.iterdir()} == {store.CONFIG, weights_of(saved).name}
    assert torch.equal(answers(store.load(saved)[0]), answers(trained("ccm")))


@pytest.mark.parametrize("number", [1, 2])
def test_what_only_training_needs_is_left_out_of_a_model_of_before(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formats before 3 wrote strategies, and what is for training only, with their weights."""

    class Warm(Model):
        training_only = ("warm",)

        def __init__(self, schema: Any, dim: int = 8) -> None:
            super().__init__(schema, dim)
            self.warm = nn.Linear(2, 2)

    Warm.card = replace(CARD, key="warm")
    monkeypatch.setitem(METHODS._classes, "warm", Warm)
    pipeline = Pipeline(Warm(data().schema)).eval()
    folder = store.save(pipeline, tmp_path / "model")
    strategy = {"class": "corruption_augmentation", "hyper": {"seed": 3}, "clock": {}, "frozen": {}, "own_encoders": []}
    more = {"strategies.0.gain": torch.ones(1), "model.warm.weight": torch.ones(2, 2), "model.warm.bias": torch.ones(2)}
    edit(folder, lambda c: c["parts"].update({"strategies.0": strategy}))
    edit_weights(folder, lambda weights: weights.update(more))
    with pytest.raises(ModelFileError, match=r"holds model\.warm\.bias, which its class does not have"):
        store.load(folder)  # nothing of the kind is in a model of today
    if number == 1:
        as_format_1(folder)
    else:
        edit(folder, lambda c: (c.update(format=2), c.pop("training")))
    loaded, _ = store.load(folder)
    assert torch.equal(answers(loaded), answers(pipeline))
    assert not hasattr(loaded.model, "warm")
    assert list(loaded.recipes) == ["strategies.0"]
    assert loaded.recipes["strategies.0"].hyper == {"draws": 3}, "an argument has its name of today"


def test_weights_are_kept_where_a_damaged_description_does_not_say_whose_they_are(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(saved)
    (saved / store.CONFIG).write_text("{")

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "replace_file", full)
        with pytest.raises(OSError, match="No space left"):
            store.save(trained("ccm"), saved)
    assert weights.exists()
    store.save(trained("ccm"), saved)
    assert not weights.exists()


def test_saving_over_a_model_replaces_it_and_keeps_what_else_lives_there(tmp_path: Path) -> None:
    folder = store.save(trained("mmin"), tmp_path / "model")
    (folder / "checkpoint.safetensors").write_bytes(b"precious")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine")
    store.save(trained("ccm"), folder)
    assert torch.equal(answers(store.load(folder)[0]), answers(trained("ccm")))
    assert (folder / "checkpoint.safetensors").read_bytes() == b"precious"
    assert (folder / "notes" / "a.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no saved model"):
        store.save(trained("mmin"), home)
    assert [p.name for p in home.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="is a file"):
        store.save(trained("mmin"), home / "thesis.txt")
    empty = tmp_path / "empty"
    empty.mkdir()
    store.load(store.save(trained("mmin"), empty))
    assert (home / "thesis.txt").read_text() == "years of work"


def test_a_model_may_be_saved_where_a_link_points_and_in_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.save(trained("mmin"), tmp_path / "disk" / "model")
    link = tmp_path / "link"
    link.symlink_to(real)
    store.save(trained("ccm"), link)
    assert link.is_symlink()
    assert torch.equal(answers(store.load(real)[0]), answers(trained("ccm")))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    store.save(trained("mmin"), ".")
    assert torch.equal(answers(store.load(here)[0]), answers(trained("mmin")))


# encoders of the user's ---------------------------------------------------------------------------------------------
def own(width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(5, width), nn.Tanh())


@pytest.mark.parametrize("key", ["mean_fusion", "kd_mm", "ccm"])
def test_a_model_with_encoders_of_the_user_s_asks_for_them(key: str, tmp_path: Path) -> None:
    pipeline = train(create(key, data().schema, dim=8, encoders={"m1": own()}))
    folder = store.save(pipeline, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"your own encoder for m1: load\(folder, encoders=\{'m1': module"):
        store.load(folder)
    with pytest.raises(ConfigError, match="without an encoder of your own for m0"):
        store.load(folder, {"m1": own(), "m0": own()})
    given = own()
    before = given[0].weight.clone()
    loaded, _ = store.load(folder, {"m1": given})
    assert torch.equal(answers(loaded), answers(pipeline))
    assert torch.equal(given[0].weight, before), "the module that is given is filled with weights"
    with pytest.raises(ModelFileError, match="another size"):
        store.load(folder, {"m1": own(7)})


def test_a_model_without_encoders_of_the_user_s_takes_none(saved: Path) -> None:
    with pytest.raises(ConfigError, match="without an encoder of your own for m1"):
        store.load(saved, {"m1": own()})
