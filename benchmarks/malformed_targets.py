"""Twenty places where something from outside is read, each with unharmed examples and a way to harm them.

A target gives, for a random generator, what to do; case ``i`` of a target is seeded by ``target:i``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import torch
from malformed_inputs import NUMBERS, PIECES, harm_bytes, harm_json, harm_text, odd_value
from torch import Tensor

import kintsugi as kg
from kintsugi.core.data import Splits
from kintsugi.core.errors import KintsugiError
from kintsugi.core.methods import create
from kintsugi.core.randomness import fork_rng_in_turn
from kintsugi.data.columns import read_columns
from kintsugi.evaluation.protocols import Condition, Protocol, get_protocol
from kintsugi.imperfect.corruption import parse_corruption
from kintsugi.imperfect.file import load_corruption
from kintsugi.imperfect.mask import Mask
from kintsugi.imperfect.missing import parse_mechanism
from kintsugi.testing.fixture import toy

HARNESS = Path(__file__).parent
SOURCE = Path(kg.__file__).parent


@dataclass
class Case:
    """One harmed input.

    run: reads it and gives what came of it. names: one of these words has to be in a clear error. unharmed: the outcome of
    the input as it was, where a digest stands against any other.
    """

    run: Callable[[], Any]
    names: tuple[str, ...] = ()
    unharmed: str | None = None


Make = Callable[[Random], Case]
TARGETS: dict[str, tuple[int, Callable[[Path], Make]]] = {}
"""Name -> how many cases of 21,304, and what makes its unharmed examples in a folder."""


def target(cases: int) -> Callable[[Callable[[Path], Make]], Callable[[Path], Make]]:
    def enter(prepare: Callable[[Path], Make]) -> Callable[[Path], Make]:
        TARGETS[prepare.__name__.removeprefix("target_")] = (cases, prepare)
        return prepare

    return enter


# outcomes -----------------------------------------------------------------------------------------------------------
@dataclass
class Outcome:
    """kind: clear, unnamed (clear, but without the name of file or column), accepted, altered, not finite, or foreign."""

    kind: str
    said: str  # type and template of an error, and where a foreign one came from


class NotFinite(AssertionError):
    """What was accepted holds NaN or infinity."""


class TooLong(BaseException):
    """Raised by the clock."""


def outcome_of(case: Case) -> Outcome:
    """Do it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = digest_of(case.run())
        except KintsugiError as error:
            text = str(error)
            named = not case.names or any(name in text for name in case.names)
            return Outcome("clear" if named else "unnamed", f"{type(error).__name__}: {template(text)}")
        except NotFinite:
            return Outcome("not finite", "NaN or infinity reaches the model")
        except (Exception, SystemExit) as error:
            return Outcome("foreign", f"{type(error).__name__} at {place(error)}: {template(str(error))}")
    if case.unharmed is not None and result != case.unharmed:
        return Outcome("altered", "accepted, and the outcome is another")
    return Outcome("accepted", "")


def template(text: str) -> str:
    """A message without what is this case's own."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|/\S+|-?\d[\w.+-]*", "#", text)
    return " ".join("".join(c if c.isprintable() and c.isascii() else "?" for c in text).split())[:100]


def place(error: BaseException) -> str:
    """The last line of the library that an exception passed, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_relative_to(SOURCE)]
    where = f"{Path(own[-1].filename).relative_to(SOURCE)}:{own[-1].lineno}" if own else "harness"
    return f"{where} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"


def digest_of(value: Any) -> str:
    total = hashlib.sha256()
    for part in _parts(value):
        total.update(part)
    return total.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, pd.DataFrame):
        yield value.to_csv().encode(errors="replace")
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield str(key).encode(errors="replace")
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _parts(one)
    else:
        yield str(value).encode(errors="replace")


# reading tables -----------------------------------------------------------------------------------------------------
def read_all(data: Any) -> list[Any]:
    """Everything that a model would see."""
    found: list[Any] = []
    for batch in data.batches(16):
        for name, x in batch.inputs.items():
            if x.is_floating_point() and not bool(torch.isfinite(x[batch.present[:, batch.names.index(name)]]).all()):
                seen = batch.mask.get(name)
                if seen is None or not bool(torch.isfinite(x[seen]).all()):
                    raise NotFinite
        found += [batch.inputs, batch.present, batch.mask]
        found += [] if batch.target is None else [batch.target]
    return found


def beside(cell: Any, good: Any, reader: Any) -> Any:
    """A table of a harmed cell and good ones, read in full."""
    cells = np.empty(3, dtype=object)
    cells[0], cells[1], cells[2] = cell, good, good
    frame = pd.DataFrame({"c": pd.Series(cells, dtype=object), "y": [0.5, 1.5, 2.5]})
    return read_all(kg.Table.from_pandas(frame, modalities={"m": reader}, target="y"))


def in_file(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def bytes_or_path(random: Random, folder: Path, ending: str, content: bytes) -> tuple[Any, tuple[str, ...]]:
    if random.random() < 0.5:
        return content, ("'c'",)
    return in_file(folder, f"cell{ending}", content), (f"cell{ending}", "'c'")


# media --------------------------------------------------------------------------------------------------------------
def recordings() -> list[tuple[str, bytes]]:
    import soundfile

    wave = np.sin(np.arange(4000) / 9) * 0.5
    found = []
    for form, kind, ending in (
        ("WAV", "PCM_16", ".wav"), ("WAV", "FLOAT", ".wav"), ("WAV", "PCM_24", ".wav"), ("WAV", "ULAW", ".wav"),
        ("AIFF", "PCM_16", ".aiff"),
        ("FLAC", "PCM_16", ".flac"), ("OGG", "VORBIS", ".ogg"), ("MP3", "MPEG_LAYER_III", ".mp3"), ("AU", "PCM_16", ".au"),
    ):  # fmt: skip
        file = io.BytesIO()
        soundfile.write(file, np.stack([wave, wave], 1) if form == "AIFF" else wave, 8000, format=form, subtype=kind)
        found.append((ending, file.getvalue()))
    return found


@target(2500)
def target_audio(folder: Path) -> Make:
    seeds, reader = recordings(), kg.audio("c", rate=4000, seconds=0.25)

    def make(random: Random) -> Case:
        ending, content = random.choice(seeds)
        cell, names = bytes_or_path(random, folder, ending, harm_bytes(random, content))
        return Case(lambda: beside(cell, content, reader), names)

    return make


def pictures() -> list[tuple[str, bytes]]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 4), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    found = []
    for form, mode, ending in (
        ("PNG", "RGB", ".png"), ("PNG", "L", ".png"), ("PNG", "RGBA", ".png"), ("PNG", "P", ".png"), ("PNG", "1",
        ".png"), ("JPEG", "RGB", ".jpg"),
        ("JPEG", "CMYK", ".jpg"), ("GIF", "P", ".gif"), ("BMP", "RGB", ".bmp"), ("TIFF", "RGB", ".tif"), ("WEBP",
        "RGB", ".webp"),
        ("PPM", "RGB", ".ppm"), ("JPEG2000", "RGB", ".jp2"), ("PCX", "RGB", ".pcx"), ("SGI", "RGB", ".sgi"),
    ):  # fmt: skip
        file = io.BytesIO()
        with contextlib.suppress(OSError, KeyError):  # a Pillow without it
            colour.convert(mode).save(file, form)
            found.append((ending, file.getvalue()))
    deep = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (12, 10), dtype=np.uint16)).save(deep, "PNG")
    return [*found, (".png", deep.getvalue())]


def _pictures(folder: Path, reader: Any) -> Make:
    seeds = pictures()

    def make(random: Random) -> Case:
        ending, content = random.choice(seeds)
        cell, names = bytes_or_path(random, folder, ending, harm_bytes(random, content))
        return Case(lambda: beside(cell, content, reader), names)

    return make


@target(2500)
def target_image(folder: Path) -> Make:
    return _pictures(folder, kg.image("c", size=(8, 8)))


@target(500)
def target_image_nosize(folder: Path) -> Make:
    return _pictures(folder, kg.image("c"))


# cells --------------------------------------------------------------------------------------------------------------
@target(1000)
def target_npy(folder: Path) -> Make:
    seeds = []
    for array, reader in (
        (np.arange(6.0), kg.vector("c")), (np.arange(6, dtype=np.float32), kg.vector("c")),
        (np.arange(12.0).reshape(6, 2), kg.series("c")),
        (np.arange(5), kg.series("c")), (np.ones((4, 5, 3), np.uint8), kg.image("c", size=(4, 4))), (np.zeros(900,
        np.int16), kg.audio("c", 4000, 0.1)),
    ):  # fmt: skip
        file = io.BytesIO()
        np.save(file, array)
        seeds.append((file.getvalue(), array, reader))

    def make(random: Random) -> Case:
        content, array, reader = random.choice(seeds)
        if random.random() < 0.4:
            head = int.from_bytes(content[8:10], "little")
            text = harm_text(random, content[10 : 10 + head].decode()).encode(errors="replace")
            harmed = content[:8] + min(len(text), 2**16 - 1).to_bytes(2, "little") + text + content[10 + head :]
        else:
            harmed = harm_bytes(random, content)
        path = in_file(folder, "cell.npy", harmed)
        return Case(lambda: beside(path, array, reader), ("cell.npy", "'c'"))

    return make


JSON_CELLS: tuple[tuple[Any, Callable[[], Any]], ...] = (
    ([1.0, 2.5, -300.0], lambda: kg.vector("c")),
    ([[1, 2], [3, 4], [None, 6]], lambda: kg.series("c")),
    ([0.0, 0.5, -0.5] * 9, lambda: kg.audio("c", rate=1000, seconds=0.02)),
    ([[0, 1], [0.5, 0.25]], lambda: kg.image("c", size=(2, 2))),
    ([1, 2, None, 4], lambda: kg.series("c", length=3)),
)


@target(1000)
def target_json_cells(folder: Path) -> Make:
    def make(random: Random) -> Case:
        good, reader = random.choice(JSON_CELLS)
        text = harm_json(random, good) if random.random() < 0.6 else harm_text(random, json.dumps(good))
        return Case(lambda: beside(text, good, reader()), ("'c'",))

    return make


ODD_READERS: tuple[tuple[Callable[[], Any], Any], ...] = (
    (lambda: kg.vector("c"), [1.0, 2.0, 3.0]),
    (lambda: kg.vector("c", standardise=True), [1.0, 2.0, 3.0]),
    (lambda: kg.series("c"), [[1.0, 2.0], [3.0, 4.0]]),
    (lambda: kg.series("c", length=4, channels=2), [[1.0, 2.0], [3.0, 4.0]]),
    (lambda: kg.image("c", size=(4, 4)), np.zeros((5, 5), np.uint8)),
    (lambda: kg.image("c"), np.zeros((5, 5), np.uint8)),
    (lambda: kg.audio("c", rate=1000, seconds=0.05), np.zeros(80)),
    (lambda: kg.text("c"), "a note"),
    (lambda: kg.tabular(["c"]), 1.5),
    (lambda: kg.tabular(["c"], categories=["c"]), "a"),
)


@target(900)
def target_odd_cells(folder: Path) -> Make:
    def make(random: Random) -> Case:
        reader, good = random.choice(ODD_READERS)
        value = odd_value(random)
        if random.random() < 0.2:
            value = random.choice(
                ([value], [value, value], (value,), {"bytes": value}, {"array": value, "sampling_rate": 4000})
            )
        return Case(lambda: beside(value, good, reader()), ("'c'",))

    return make


@target(500)
def target_text(folder: Path) -> Make:
    seeds = ("the patient went home", "naïve café – 12 °C", "日本語のメモ", "😀 fine")

    def make(random: Random) -> Case:
        good = random.choice(seeds)
        match random.randrange(4):
            case 0:
                cell: Any = harm_text(random, good)
            case 1:
                cell = good.encode(random.choice(("utf-8", "utf-16", "latin-1", "cp932")), errors="replace")
            case 2:
                cell = harm_bytes(random, good.encode())
            case _:
                cell = harm_bytes(random, good.encode()).decode(
                    errors=random.choice(("replace", "surrogateescape", "ignore"))
                )
        return Case(lambda: beside(cell, good, kg.text("c", length=24)), ("'c'",))

    return make


@target(900)
def target_targets(folder: Path) -> Make:
    def make(random: Random) -> Case:
        good = random.choice(
            (["a", "b"] * 4, [0, 1] * 4, [0.5, 1.5, 2.5, 4.0] * 2, [1, 2, 3, 4] * 2, [True, False] * 4)
        )
        cells = np.empty(8, dtype=object)
        for row in range(8):
            cells[row] = good[row]
        for _ in range(random.choice((1, 1, 2, 8))):
            cells[random.randrange(8)] = random.choice(
                (odd_value(random), random.choice(NUMBERS), random.choice(PIECES))
            )
        task = random.choice((None, None, "classification", "regression", "multilabel", "ordinal"))
        frame = pd.DataFrame({"a": np.arange(8.0), "y": pd.Series(cells, dtype=object), "z": [0, 1] * 4})
        columns: Any = ["y", "z"] if task == "multilabel" or random.random() < 0.1 else "y"
        return Case(
            lambda: read_all(
                kg.Table.from_pandas(frame, modalities={"m": kg.tabular(["a"])}, target=columns, task=task)
            ),
            ("'y'",),
        )

    return make


# tables in files ----------------------------------------------------------------------------------------------------
def small_frame(rows: int = 24) -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame({
        "age": random.integers(20, 90, rows) + 0.5, "ward": random.choice(["north", "south", "east"], rows),
        "note": random.choice(["fine", "in pain, sleeps", ""], rows), "vec": [json.dumps([float(i),
        1.0]) for i in range(rows)],
        "y": np.resize(["p", "q", "r"], rows),
    })  # fmt: skip


def readers() -> dict[str, Any]:
    return {"tab": kg.tabular(["age", "ward"]), "note": kg.text("note", length=16), "vec": kg.vector("vec")}


TABLE_WORDS = ("'age'", "'ward'", "'note'", "'vec'", "'y'")


@target(1200)
def target_csv(folder: Path) -> Make:
    content = small_frame().to_csv(index=False)

    def make(random: Random) -> Case:
        harmed = (
            harm_text(random, content).encode(errors="replace")
            if random.random() < 0.6
            else harm_bytes(random, content.encode())
        )
        path = in_file(folder, "rows.csv", harmed)
        return Case(lambda: read_all(kg.Table.from_csv(path, modalities=readers(), target="y")), ("rows.csv", "rows"))

    return make


@target(1200)
def target_parquet(folder: Path) -> Make:
    seeds = []
    for compression in ("snappy", "none", "zstd"):
        file = io.BytesIO()
        frame = small_frame()
        frame["vec"] = frame["vec"].map(json.loads)
        frame.to_parquet(file, compression=None if compression == "none" else compression)
        seeds.append(file.getvalue())

    def make(random: Random) -> Case:
        content = random.choice(seeds)
        foot = int.from_bytes(content[-8:-4], "little") + 8
        part = random.random() < 0.6  # most mutations of the pages are found by no one; the foot says how to read them
        harmed = content[:-foot] + harm_bytes(random, content[-foot:]) if part else harm_bytes(random, content)
        path = in_file(folder, "rows.parquet", harmed)
        return Case(
            lambda: read_all(kg.Table.from_parquet(path, modalities=readers(), target="y")), ("rows.parquet", "rows")
        )

    return make


# YAML, specs --------------------------------------------------------------------------------------------------------
COLUMNS = """\
modalities:
  tab: {kind: tabular, columns: [age, ward], categories: [ward]}
  note: {kind: text, column: note, length: 16}
  vec:
    kind: vector
    column: vec
    standardise: true
target: y
task: classification
"""
CORRUPTION = """\
- gaussian_noise(image, 3)
- white_noise: {modality: speech, severity: 2}
- one_of:
    parts: [keyboard_typos(note), "keyboard_typos(note, 4)"]
    weights: [3, 1]
- sometimes: {share: 0.3, part: "mismatched_pairs(image, 5)"}
- correlated:
    - gaussian_noise(image, 5)
    - white_noise(speech, 5)
"""
SUITE = """\
about: small
datasets: [{name: small, key: factors, options: {rows: 60, synergy: 1}}]
methods: [{key: mean_fusion, name: mean, params: {dim: 8}}, late_fusion]
training: [complete, "mcar(0.5)"]
seeds: 2
protocol: rates(0.1)
trainer: {epochs: 3, lr: 3e-3, select: false}
metrics: accuracy
resamples: 20
limits: {seconds: 60, memory: 1.5 GB}
"""


def _yaml(folder: Path, name: str, content: str, read: Callable[[str], Any], *words: str) -> Make:
    read(in_file(folder, name, content.encode()))  # it is right as it is; and what a first call costs is no case's

    def make(random: Random) -> Case:
        harmed = (
            harm_text(random, content).encode(errors="replace")
            if random.random() < 0.85
            else harm_bytes(random, content.encode())
        )
        path = in_file(folder, name, harmed)
        return Case(lambda: read(path), (name, *words))

    return make


@target(1200)
def target_columns_yaml(folder: Path) -> Make:
    frame = small_frame()
    return _yaml(
        folder, "columns.yaml", COLUMNS, lambda path: read_all(kg.Table.from_pandas(frame, **read_columns(path))), "column"
    )  # fmt: skip


@target(900)
def target_corruption_yaml(folder: Path) -> Make:
    return _yaml(folder, "corruption.yaml", CORRUPTION, load_corruption)


@target(900)
def target_suite_yaml(folder: Path) -> Make:
    from kintsugi.bench.suite import load_suite

    return _yaml(folder, "suite.yaml", SUITE, lambda path: len(load_suite(path).jobs()))


SPECS: dict[str, tuple[str, ...]] = {
    "mechanism": ("mcar(0.3)", "per_modality(m0=0.2, m1=0.4)", "pattern(m0, m1)", "blocks(0.3)", "cells(0.2)", "bursts(0.3)"),
    "corruption": (
        "gaussian_noise(image, 3)", "feature_noise(m1, 3)", "one_of(gaussian_noise(image), keyboard_typos(note))",
        "sometimes(gaussian_noise(image, 2), share=0.3)", "gaussian_noise(image, 3) + feature_noise(m1, 2)",
    ),
    "protocol": ("rates(0.1, 0.5)", "subsets", "corruptions(1, 5)", "standard(3)", "rates(0.1, seeds=2)", "clean"),
}  # fmt: skip


@target(1500)
def target_specs(folder: Path) -> Make:
    data = toy(rows=24, dim=3)
    parsers: dict[str, Callable[[str], Any]] = {
        "mechanism": parse_mechanism, "corruption": parse_corruption, "protocol": lambda spec: get_protocol(spec, data).to_json(),
    }  # fmt: skip

    def make(random: Random) -> Case:
        kind = random.choice(list(SPECS))
        text = harm_text(random, random.choice(SPECS[kind]))
        reads = parsers[kind if random.random() < 0.95 else random.choice(list(SPECS))]
        return Case(lambda: reads(text), tuple(word for word in re.findall(r"[A-Za-z_]\w+", text)[:1]))

    return make


# files of the library's own -----------------------------------------------------------------------------------------
@target(1200)
def target_mask(folder: Path) -> Make:
    data = toy(rows=40, dim=3)
    mask = parse_mechanism("mcar(0.4)").plan(data, 1)
    content = Path(mask.save(folder / "whole")).read_bytes()
    (folder / "mask.npz").write_bytes(content)

    def read() -> Any:
        loaded = Mask.load(folder / "mask.npz")
        return [loaded.keep, repr(loaded), loaded.hash]

    unharmed = digest_of(read())

    def make(random: Random) -> Case:
        (folder / "mask.npz").write_bytes(
            _in_archive(random, content) if random.random() < 0.5 else harm_bytes(random, content)
        )
        return Case(read, ("mask.npz",), unharmed)

    return make


def _in_archive(random: Random, content: bytes) -> bytes:
    """A member of a ZIP file is changed and the file put together anew, with the right sums."""
    import zipfile

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice(list(members))
    match random.randrange(4):
        case 0:
            del members[name]
        case 1:
            members[random.choice(("extra.npy", "../x.npy", name.upper()))] = members[name]
        case _:
            members[name] = harm_bytes(random, members[name])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for member, value in members.items():
            archive.writestr(member, value)
    return file.getvalue()


@target(1200)
def target_model(folder: Path) -> Make:
    frame = small_frame()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = kg.Table.from_pandas(frame, modalities=readers(), target="y")
        kg.Classifier("mean_fusion", epochs=1, progress=False).fit(data, data).save(folder / "model")
    files = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    weights = next(name for name in files if name.endswith(".safetensors"))

    def read() -> Any:
        return kg.load(folder / "model").predict_proba(frame)

    unharmed = digest_of(read())

    def make(random: Random) -> Case:
        changed = dict(files)
        match random.randrange(5):
            case 0 | 1:
                changed["model.json"] = harm_json(random, json.loads(files["model.json"])).encode(errors="replace")
            case 2:
                changed["model.json"] = harm_text(random, files["model.json"].decode()).encode(errors="replace")
            case 3:
                changed["model.json"] = harm_bytes(random, files["model.json"])
            case _:
                changed[weights] = harm_bytes(random, files[weights])
        for name, content in changed.items():
            (folder / "model" / name).write_bytes(content)
        return Case(read, ("model.json", weights, str(folder / "model")), unharmed)

    return make


@target(300)
def target_checkpoint(folder: Path) -> Make:
    from kintsugi.training.trainer import Trainer

    train, val, test = toy(rows=36, dim=3).split()
    file = folder / "state" / "checkpoint.safetensors"

    def fit(stop: bool = False) -> Any:
        with fork_rng_in_turn():
            torch.manual_seed(0)
            pipeline = create("mean_fusion", train.schema, dim=4)
        trainer = Trainer(epochs=3, batch_size=12, progress=False, checkpoint=folder / "state")
        if stop:
            trainer.observers.append(_stop_in_the_third_epoch)
        return trainer.fit(pipeline, Splits(train, val, test)).state_dict()

    with contextlib.suppress(KeyboardInterrupt):
        fit(stop=True)
    content = file.read_bytes()
    unharmed = digest_of(fit())

    def make(random: Random) -> Case:
        length = int.from_bytes(content[:8], "little")
        if random.random() < 0.5:
            head = json.loads(content[8 : 8 + length])
            head["__metadata__"]["kintsugi"] = harm_json(random, json.loads(head["__metadata__"]["kintsugi"]))
            text = json.dumps(head).encode(errors="replace")
            harmed = len(text).to_bytes(8, "little") + text + content[8 + length :]
        else:
            harmed = harm_bytes(random, content)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(harmed)
        return Case(fit, ("checkpoint.safetensors",), unharmed)

    return make


def _stop_in_the_third_epoch(losses: Any) -> None:
    if losses.epoch == 2:
        raise KeyboardInterrupt


# the bench ----------------------------------------------------------------------------------------------------------
PROTOCOL = Protocol("two", (Condition("clean", "clean", x=0.0), Condition("image", "subset", keep=("image",))))


def filled_store(folder: Path) -> Any:
    """Three trials with results and outcomes."""
    from kintsugi.bench import Store, Trial

    store = Store.open(folder)
    for seed in range(3):
        trial = Trial("mean", {"width": 8}, "toy", "f00d", "mcar(0.5)", seed, PROTOCOL, {"method mean": 1})
        lines = [
            {"dataset": "toy", "method": "mean", "seed": seed, "training": "mcar(0.5)", "condition": c.name,
            "group": c.group,
             "x": c.x, "metric": metric, "value": (seed + i) / 3, "low": 0.1, "high": 0.9, "n": 4, "higher_is_better": True,
             "seconds": 0.5, "mask_hash": ""}
            for i, c in enumerate(PROTOCOL.conditions) for metric in ("accuracy", "log_loss")
        ]  # fmt: skip
        numbers = dict.fromkeys(("x", "value", "low", "high"), "float64")
        outcomes = {"clean": np.array([0, 1, 2, seed]), "image": np.array([2, 2, 1, 0])}
        store.finish(trial, pd.DataFrame(lines).astype(numbers), outcomes, {"training": {"seconds": 1.0}})
    return store


@target(500)
def target_outcomes(folder: Path) -> Make:
    store = filled_store(folder / "runs")
    trial = next(iter(store.records("done"))).trial
    file = store.outcomes_file(trial)
    content = file.read_bytes()
    unharmed = digest_of(store.outcomes(trial))

    def make(random: Random) -> Case:
        file.write_bytes(_in_archive(random, content) if random.random() < 0.4 else harm_bytes(random, content))
        return Case(lambda: store.outcomes(trial), (file.name,), unharmed)

    return make


@target(660)
def target_store(folder: Path) -> Make:
    from kintsugi.bench import Store

    filled_store(folder / "whole").close()
    database = next(path for path in (folder / "whole").iterdir() if path.suffix in (".db", ".sqlite", ".sqlite3"))
    content = database.read_bytes()
    columns = _columns(database)

    def read() -> Any:
        with Store.open(folder / "runs", create=False) as store:
            found = [store.counts(), store.table(timing=False), store.failures(), store.versions()]
            found += [store.outcomes(record.trial) for record in store.records("done")]
            store.export(folder / "table.csv")
            problems = store.check()
        if problems:
            raise KintsugiError(f"{database.name} noticed by check")
        return found

    shutil.copytree(folder / "whole", folder / "runs")
    unharmed = digest_of(read())

    def make(random: Random) -> Case:
        shutil.rmtree(folder / "runs")
        shutil.copytree(folder / "whole", folder / "runs")
        path = folder / "runs" / database.name
        if random.random() < 0.4:
            _change_by_sql(random, path, columns)
        else:
            path.write_bytes(harm_bytes(random, content))
        return Case(read, (database.name, "runs"), unharmed)

    return make


def _columns(database: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(database)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = [(t, row[1]) for t in tables for row in connection.execute(f"PRAGMA table_info({t})")]
    connection.close()
    return [(t, c) for t, c in found if not t.startswith("sqlite_")]


def _change_by_sql(random: Random, path: Path, columns: list[tuple[str, str]]) -> None:
    """As somebody would with a tool: triggers and constraints out of the way, then another value in one cell."""
    connection = sqlite3.connect(path)
    with contextlib.suppress(sqlite3.Error):
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        table, column = random.choice([pair for pair in columns if pair[1] != "seconds"])
        (at,) = connection.execute(f"SELECT rowid FROM {table} ORDER BY random() LIMIT 1").fetchone() or (0,)
        old = connection.execute(f"SELECT {column} FROM {table} ORDER BY rowid LIMIT 1").fetchone()
        text = str(old[0]) if old else ""
        value = random.choice(
            (
                None,
                -1,
                0.5,
                1e308,
                "",
                "x",
                b"\0",
                "9" * 30,
                "[" * 999,
                harm_text(random, text),
                harm_text(random, text),
            )
        )
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, at))
        connection.commit()
    connection.close()


@target(744)
def target_result_json(folder: Path) -> Make:
    from kintsugi.bench import Store
    from kintsugi.bench.outside import add_outside

    page = (HARNESS.parent / "docs" / "outside.rst").read_text()
    block = re.search(r"code-block:: json\n\n((?:   .*\n|\n)+)", page)
    assert block is not None
    values = json.loads(block[1])

    def read() -> Any:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        with Store.open(folder / "runs") as store:
            add_outside(store, folder / "RESULT.json")
            store.export(folder / "table.csv")
            return store.check()

    def make(random: Random) -> Case:
        if random.random() < 0.7:
            harmed = harm_json(random, values).encode(errors="replace")
        else:
            harmed = random.choice(
                (harm_bytes(random, block[1].encode()), harm_text(random, block[1]).encode(errors="replace"))
            )
        (folder / "RESULT.json").write_bytes(harmed)
        return Case(read, ("RESULT.json",))

    return make


def cases(name: str, folder: Path, numbers: range) -> Iterator[tuple[int, Case]]:
    """Cases of a target in a folder of its own; each is made right before it is to be run, since some share a file."""
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)  # what is a relative path to somebody leads here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make = TARGETS[name][1](folder)
        for number in numbers:
            yield number, make(Random(f"{name}:{number}"))
    finally:
        os.chdir(before)
