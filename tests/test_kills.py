"""kill -9 at random moments of writing: the old file or the new one, whole, and nothing left over after the next write.

``KINTSUGI_KILLS=100`` kills each writer so often; by default it is 10 times.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kintsugi import cli
from kintsugi.bench import Store, Trial
from kintsugi.core.methods import create
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.randomness import fork_rng_in_turn
from kintsugi.evaluation.protocols import Condition, Protocol
from kintsugi.imperfect.mask import Mask
from kintsugi.imperfect.missing import parse_mechanism
from kintsugi.io import saved_models
from kintsugi.io.files import is_temporary
from kintsugi.testing.fixture import toy

KILLS = int(os.environ.get("KINTSUGI_KILLS", "10"))
WRITES = 6  # a child is killed within the time of so many

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@dataclass
class Writer:
    """Two contents that are written in turn to one place.

    write: the content 0 or 1; read: what is there, the same for the same content; left: names in the folder after a write.
    """

    folder: Path
    write: Callable[[int], object]
    read: Callable[[], str]
    left: Callable[[int], set[str]]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def model(folder: Path) -> Writer:
    """Saving a model, of which a folder holds description and weights."""
    schema = toy(rows=24, dim=5).schema
    pipelines: list[Pipeline] = []
    for seed in (0, 1):
        with fork_rng_in_turn():
            torch.manual_seed(seed)
            pipelines.append(create("mmin", schema, dim=16))
    place = folder / "model"

    def read() -> str:
        state = saved_models.load(place)[0].state_dict()
        return sha(b"".join(tensor.numpy().tobytes() for tensor in state.values()))

    def left(which: int) -> set[str]:
        assert [path.name for path in folder.iterdir()] == ["model"]
        weights = {path.name for path in place.iterdir() if path.suffix == ".safetensors"}
        assert len(weights) == 1
        return {"model.json", *weights}

    return Writer(place, lambda which: saved_models.save(pipelines[which], place), read, left)


def predictions(folder: Path) -> Writer:
    """The file that ``kintsugi predict -o`` writes."""
    random = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"prediction": random.choice(["a", "b"], 4000), "probability": random.random(4000)})
        for _ in range(2)
    ]
    place = folder / "out.csv"
    return Writer(
        folder, lambda which: cli._write(frames[which], place), lambda: sha(place.read_bytes()), lambda which: {"out.csv"}
    )  # fmt: skip


def masks(folder: Path) -> Writer:
    """``Mask.save``."""
    data = toy(rows=2000, dim=2)
    drawn = [parse_mechanism("mcar(0.4)").plan(data, seed) for seed in (1, 2)]
    place = folder / "mask.npz"

    def read() -> str:
        return Mask.load(place).hash

    return Writer(folder, lambda which: drawn[which].save(place), read, lambda which: {"mask.npz"})


PROTOCOL = Protocol("many", tuple(Condition(f"c{i}", "clean", x=float(i)) for i in range(60)))


def export(folder: Path) -> Writer:
    """``kintsugi bench export``, of two stores into one file."""
    stores = []
    for which in (0, 1):
        store = Store.open(folder.parent / f"runs{which}")
        trial = Trial("mean", {"width": 8}, "toy", "f00d", "complete", which, PROTOCOL, {"method mean": 1})
        lines = [
            {"dataset": "toy", "method": "mean", "seed": which, "training": "complete", "condition": c.name, "group": c.group,
             "x": c.x, "metric": "accuracy", "value": 0.5 + which / 3, "low": 0.1, "high": 0.9, "n": 4, "higher_is_better": True,
             "seconds": 0.5, "mask_hash": ""}
            for c in PROTOCOL.conditions
        ]  # fmt: skip
        numbers = dict.fromkeys(("x", "value", "low", "high"), "float64")
        store.finish(trial, pd.DataFrame(lines).astype(numbers), None, {"training": {"seconds": 1.0}})
        stores.append(store)
    place = folder / "table.csv"
    return Writer(
        folder, lambda which: stores[which].export(place), lambda: sha(place.read_bytes()), lambda which: {"table.csv"}
    )  # fmt: skip


def killed(writer: Writer, wait: float) -> bool:
    """A fork writes again and again, and is killed so many seconds after it began; False: it ended by itself."""
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(begun, b"x")
            for turn in range(100_000):
                writer.write(turn % 2)
        except BaseException as error:
            print(f"the writer failed: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os.close(begun)
    os.read(ready, 1)
    os.close(ready)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("make", [model, predictions, masks, export])
def test_a_kill_leaves_the_old_file_or_the_new_one_and_the_next_write_what_it_writes(
    make: Callable[[Path], Writer], tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    writer = make(folder)
    whole: list[str] = []
    for which in (0, 1):
        writer.write(which)
        whole.append(writer.read())
    assert whole[0] != whole[1]
    began = time.monotonic()  # what the first calls import has been paid for
    for turn in range(WRITES):
        writer.write(turn % 2)
    seconds = time.monotonic() - began
    random, found = Random(make.__name__), Counter[Any]()
    for _ in range(KILLS):
        assert killed(writer, random.uniform(0, seconds))
        after = writer.read()
        assert after in whole
        found[whole.index(after)] += 1
        found["cut"] += any(is_temporary(path.name) for path in writer.folder.iterdir())
        which = random.randrange(2)
        writer.write(which)
        assert writer.read() == whole[which]
        assert {path.name for path in writer.folder.iterdir()} == writer.left(which)
    print(
        f"{make.__name__}: {KILLS} kills: {found[0]} times the one file, {found[1]} times the other; {found['cut']} cut a write, "
        "and what these left was gone after the next; 0 torn"
    )
    assert found[0] + found[1] == KILLS
    assert KILLS < 100 or found["cut"] > 0, "no kill was in the middle of a write"
