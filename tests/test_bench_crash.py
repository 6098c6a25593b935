"""The store of trials when a process is killed, the disk is full, or the file is damaged."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import shutil
import signal
import sqlite3
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from kintsugi.bench import Store, StoreError, Trial
from kintsugi.bench import store as store_module
from kintsugi.cli import app
from kintsugi.core.errors import ConfigError, KintsugiError
from kintsugi.evaluation.protocols import Condition, Protocol
from kintsugi.io.files import is_temporary

PROTOCOL = Protocol("two", (Condition("clean", "clean", x=0.0), Condition("image", "subset", keep=("image",))))
TRIAL = Trial("mean_fusion", {}, "toy", "f00d", "mcar(0.5)", 3, PROTOCOL, {"torch": "2.6"})
FORK = multiprocessing.get_context("fork")
CLASSES = {"clean": np.arange(50) % 7, "image": np.arange(50) % 5}


def trials(count: int) -> list[Trial]:
    return [replace(TRIAL, seed=seed) for seed in range(count)]


def table(trial: Trial) -> pd.DataFrame:
    lines = [
        {
            "dataset": trial.dataset, "method": trial.method, "seed": trial.seed, "training": trial.training,
            "condition": c.name, "group": c.group, "x": math.nan, "metric": "accuracy", "value": (trial.seed + place) / 3,
            "low": 0.0, "high": 1.0, "n": 50, "higher_is_better": True, "seconds": time.time(), "mask_hash": "",
        }
        for place, c in enumerate(trial.protocol.conditions)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def run(folder: Path, todo: list[Trial], log: Path, seconds: float) -> None:
    """A worker: claims what is missing, one after the other, and writes down what it begins and what it has finished."""
    store = Store.open(folder)
    with log.open("a", buffering=1) as file:
        for trial in store.missing(todo):
            if store.claim(trial):
                file.write(f"begun {trial.seed}\n")
                time.sleep(seconds)
                store.finish(trial, table(trial), CLASSES)
                file.write(f"finished {trial.seed}\n")


def exported(folder: Path) -> tuple[bytes, bytes]:
    store = Store.open(folder, create=False)
    return store.export(folder / "a.csv").read_bytes(), store.export(folder / "a.parquet").read_bytes()


# killed -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("seconds", "longest"), [(0.1, 0.4), (0.0, 0.06)], ids=["in a trial", "in between"])
def test_kills_at_any_moment_lose_the_trial_in_flight_and_nothing_else(
    tmp_path: Path, seconds: float, longest: float
) -> None:
    todo, random, kills = trials(12), Random(5), 0
    run(tmp_path / "calm", todo, tmp_path / "calm.log", 0)
    log = tmp_path / "log"
    for _ in range(10):
        child = FORK.Process(target=run, args=(tmp_path / "runs", todo, log, seconds))
        child.start()
        time.sleep(random.uniform(0.005, longest))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        if (tmp_path / "runs" / "runs.sqlite").exists():
            said = log.read_text().splitlines() if log.exists() else []
            store = Store.open(tmp_path / "runs")
            lost = {t.seed for t in store.missing(todo)} & {int(x.split()[1]) for x in said if x.startswith("finished")}
            assert lost == set()
            assert store.check() == []
    run(tmp_path / "runs", todo, log, 0)
    begun = Counter(line for line in log.read_text().splitlines() if line.startswith("begun"))
    assert kills > 0
    assert set(begun) == {f"begun {n}" for n in range(12)}
    assert begun.total() <= 12 + kills
    assert exported(tmp_path / "runs") == exported(tmp_path / "calm")


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("point", ["write_arrays", "add_rows", "rows_digest", "COMMIT"])
def test_a_kill_inside_finish_leaves_nothing_half(tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        store = Store.open(tmp_path)
        assert store.claim(TRIAL)
        if point == "COMMIT":
            store._db.set_trace_callback(lambda sql: die() if sql == "COMMIT" else None)
        else:
            setattr(store_module, point, die)
        store.finish(TRIAL, table(TRIAL), CLASSES)

    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    store = Store.open(tmp_path, create=False)
    assert (len(store.table()), store.outcomes(TRIAL), store.check()) == (0, {}, [])
    assert store.claim(TRIAL)
    assert store.finish(TRIAL, table(TRIAL))
    assert not store.outcomes_file(TRIAL).exists()  # not that of the run that was killed
    assert store.check() == []


# full ---------------------------------------------------------------------------------------------------------------
@contextmanager
def full_database(store: Store, _: pytest.MonkeyPatch) -> Iterator[None]:
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    yield
    store._db.execute("PRAGMA max_page_count = 1000000")


@contextmanager
def full_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> None:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", half)
        yield


@pytest.mark.parametrize("full", [full_database, full_files])
def test_a_full_disk_stores_nothing_and_the_trial_stays_claimable(
    tmp_path: Path, full: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = replace(
        TRIAL, protocol=Protocol("many", tuple(Condition(f"{i}" * 40, "subset", keep=("a",)) for i in range(300)))
    )
    store, other = Store.open(tmp_path), Store.open(tmp_path)
    assert store.claim(many)
    with full(store, monkeypatch), pytest.raises(StoreError, match="the disk is full; nothing was stored"):
        store.finish(many, table(many), {"0" * 40: CLASSES["clean"]})
    assert list(store.trial_folder(many).iterdir()) == []
    assert (store.counts(), store.check()) == ({"pending": 1}, [])
    assert other.claim(many)
    assert other.finish(many, table(many), {"0" * 40: CLASSES["clean"]})


def test_a_disk_too_full_to_give_a_claim_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path)
    assert store.claim(TRIAL)

    def full(*_: Any) -> bool:
        raise StoreError("full")

    with full_files(store, monkeypatch), monkeypatch.context() as patched:
        patched.setattr(Store, "release", full)
        with pytest.raises(StoreError, match="the disk is full"):
            store.finish(TRIAL, table(TRIAL), CLASSES)
    assert store.counts() == {"running": 1}
    assert not Store.open(tmp_path).claim(TRIAL)
    assert store.claim(TRIAL)
    assert not store.claim(TRIAL)


def test_an_export_to_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path)
    before = store.export(tmp_path / "a.csv").read_bytes()
    store.finish(TRIAL, table(TRIAL))
    with full_files(store, monkeypatch), pytest.raises(StoreError, match="the disk is full"):
        store.export(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if is_temporary(path.name)]


# of another version, of something else ------------------------------------------------------------------------------
def change(folder: Path, sql: str) -> None:
    db = sqlite3.connect(folder / "runs.sqlite")
    db.execute(sql)
    db.commit()
    db.close()


def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    change(tmp_path, "PRAGMA user_version = 2")
    before = (tmp_path / "runs.sqlite").read_bytes()
    with pytest.raises(StoreError, match=r"newer kintsugi \(schema 2\); this one reads schema 1\. Update kintsugi"):
        Store.open(tmp_path)
    assert (tmp_path / "runs.sqlite").read_bytes() == before


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no runs\.sqlite"):
        Store.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    change(tmp_path, "CREATE TABLE mine (a)")
    with pytest.raises(StoreError, match="but no store of trials"):
        Store.open(tmp_path)
    (tmp_path / "runs.sqlite").write_bytes(b"no database at all" * 400)
    with pytest.raises(StoreError, match=r"is damaged .*Store\.salvage"):
        Store.open(tmp_path)


# damaged ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trial]]:
    """A closed store of 202 trials in one file, one of them failed and one running."""
    folder, todo = tmp_path_factory.mktemp("whole") / "old", trials(202)
    store = Store.open(folder)
    for trial in todo[:200]:
        store.finish(trial, table(trial), CLASSES if trial.seed < 3 else None)
    store.claim(todo[200])
    store.fail(todo[200], "boom")
    store.claim(todo[201])
    (store.trial_folder(todo[0]) / "model.safetensors").write_bytes(b"weights")
    store.close()
    assert not (folder / "runs.sqlite-wal").exists()
    return folder, todo


@pytest.fixture
def broken(whole: tuple[Path, list[Trial]], tmp_path: Path) -> tuple[Path, list[Trial]]:
    """A copy of it, to be broken."""
    shutil.copytree(whole[0], tmp_path / "old")
    return tmp_path, whole[1]


def test_an_intact_store_is_salvaged_as_a_whole(broken: tuple[Path, list[Trial]]) -> None:
    folder, todo = broken
    before = (folder / "old" / "runs.sqlite").read_bytes()
    assert Store.open(folder / "old").check() == []
    report = Store.salvage(folder / "old", folder / "new")
    assert (report.kept, report.lost) == ({"done": 200, "failed": 1, "pending": 1}, [])
    assert str(report) == "kept: 200 done, 1 failed, 1 pending; lost: nothing"
    assert exported(folder / "new") == exported(folder / "old")
    new = Store.open(folder / "new")
    assert new.check() == []
    assert new.failures() == {todo[200].hash: "boom"}
    assert new.outcomes(todo[1])["image"].tolist() == CLASSES["image"].tolist()
    assert (new.trial_folder(todo[0]) / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "old" / "runs.sqlite").read_bytes() == before
    assert sorted(f.name for f in (folder / "new").iterdir() if "sqlite" not in f.name) == [
        "a.csv",
        "a.parquet",
        "trials",
    ]
    with pytest.raises(ConfigError, match="salvage into a new folder"):
        Store.salvage(folder / "old", folder / "new")


def damage(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def test_damaged_pages_cost_their_trials_alone(broken: tuple[Path, list[Trial]]) -> None:
    folder, todo = broken
    path = folder / "old" / "runs.sqlite"
    size = struct.unpack(">H", path.read_bytes()[16:18])[0]
    lost_ever = 0
    for page in range(1, path.stat().st_size // size, 3):  # not the first, without which there are no tables
        shutil.copytree(folder / "old", folder / f"{page}")
        damage(folder / f"{page}" / "runs.sqlite", page * size, b"\xff" * size)
        report = Store.salvage(folder / f"{page}", folder / f"{page}-new")
        new = Store.open(folder / f"{page}-new")
        assert new.check() == []
        for seed, values in new.table().groupby("seed")["value"]:
            assert values.tolist() == [int(str(seed)) / 3, (int(str(seed)) + 1) / 3]
        lost = 202 - sum(report.kept.values()) + len(new.missing(todo)) - 2
        assert bool(report.lost) == (lost > 0)
        lost_ever += 0 < lost < 150
        if lost:
            assert Store.open(folder / f"{page}").check() != []
    assert lost_ever > 3


def test_a_value_that_changed_in_silence_is_seen(broken: tuple[Path, list[Trial]]) -> None:
    folder, todo = broken
    path = folder / "old" / "runs.sqlite"
    place = path.read_bytes().find(struct.pack(">d", 101 / 3))  # of seeds 100 and 101
    damage(path, place, struct.pack(">d", 0.5))
    store = Store.open(folder / "old")
    assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    [said] = store.check()
    assert "its values are not those of its checksum" in said
    report = Store.salvage(folder / "old", folder / "new")
    assert report.lost == [said]
    assert report.kept == {"done": 199, "failed": 1, "pending": 2}
    [again] = [t for t in Store.open(folder / "new").missing(todo) if t.seed < 200]
    assert again.seed in (100, 101)


def test_a_trial_whose_fields_changed_is_not_kept(broken: tuple[Path, list[Trial]]) -> None:
    folder, todo = broken
    change(folder / "old", "DROP TRIGGER done_stays")
    change(folder / "old", "UPDATE trials SET training = 'clean' WHERE seed = 7")
    report = Store.salvage(folder / "old", folder / "new")
    assert [f"{todo[7].hash[:12]}: its fields are not those of its hash" in line for line in report.lost] == [True]
    assert report.kept["done"] == 199


def test_a_file_of_outcomes_that_is_gone_costs_its_trial(broken: tuple[Path, list[Trial]]) -> None:
    folder, todo = broken
    (folder / "old" / "trials" / todo[2].hash / "outcomes.npz").unlink()
    report = Store.salvage(folder / "old", folder / "new")
    assert report.kept == {"done": 199, "failed": 1, "pending": 2}
    assert ["cannot be read" in line for line in report.lost] == [True]
    assert Store.open(folder / "new").claim(todo[2])


def test_where_nothing_can_be_read_the_report_says_so(broken: tuple[Path, list[Trial]]) -> None:
    folder, todo = broken
    damage(folder / "old" / "runs.sqlite", 0, b"\0" * 4096)
    report = Store.salvage(folder / "old", folder / "new")
    assert report.kept == {}
    assert "all that runs.sqlite holds" in report.lost[0]
    assert todo[0].hash[:12] in report.lost[0]
    with pytest.raises(ConfigError, match="does not exist"):
        Store.salvage(folder / "none", folder / "newer")


# read by commands ---------------------------------------------------------------------------------------------------
SUITE = """\
datasets: [factors]
methods: [mean_fusion, mmin]
seeds: 1
protocol: clean
trainer: {epochs: 1}
resamples: 5
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite and, in one file, the store that it filled."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "suite.yaml").write_text(SUITE)
    assert called("bench", folder / "suite.yaml", "-o", folder / "good", "--workers", 0, "--no-report").exit_code == 0
    change(folder / "good", "PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


def called(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def commands(folder: Path, store: Path) -> list[tuple[object, ...]]:
    return [
        ("bench", "status", store), ("bench", "export", store, folder / "t.csv"), ("report", store, "-o", folder / "r.html"),
        ("compare", store, folder / "good"), ("compare", folder / "good", store, "--strict"),
        ("bench", folder / "suite.yaml", "-o", store, "--workers", 0, "--no-report"),
    ]  # fmt: skip


def test_whatever_byte_of_a_store_changes_no_command_ends_in_a_bare_exception(filled: Path, tmp_path: Path) -> None:
    draw, said = Random(7), Counter[str]()
    content = (filled / "good" / "runs.sqlite").read_bytes()
    texts = [place for place, byte in enumerate(content) if byte in b'{}[]:,"']
    for number in range(60):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(filled / "good", tmp_path / "bad", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
        mutated = bytearray(content)
        place = draw.choice(texts) + draw.randrange(-3, 4) if number % 2 else draw.randrange(len(content))
        mutated[place] ^= 1 << draw.randrange(8)
        (tmp_path / "bad" / "runs.sqlite").write_bytes(bytes(mutated))
        words = commands(filled, tmp_path / "bad")[number % 6]
        result = called(*words)
        assert result.exception is None or isinstance(result.exception, SystemExit | KintsugiError), (place, words)
        said["damaged" if "is damaged" in result.output else str(result.exit_code)] += 1
    assert said["damaged"] > 5
    assert said["0"] > 5


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE texts SET text = '[1]' WHERE id IN (SELECT min(versions) FROM trials)",
        "UPDATE texts SET text = substr(text, 1, 9) WHERE id IN (SELECT min(versions) FROM trials)",
        "UPDATE texts SET text = replace(text, '\"method mmin\":2', '\"method mmin\":true')",
        "UPDATE texts SET text = replace(text, '\"method mmin\":2', '\"method mmin\":\"2\"')",
        "UPDATE texts SET text = CAST(x'ff7b' AS TEXT) WHERE id IN (SELECT protocol FROM trials)",
        "UPDATE trials SET parameters = '{'", "UPDATE trials SET facts = '[]'", "UPDATE trials SET facts = '{\"costs\":[1]}'",
        "UPDATE trials SET facts = json_set(facts, '$.training.seconds', 'x')",
    ],
    ids=["list", "cut off", "true", "text", "no UTF-8", "parameters", "facts", "costs", "seconds"],
)  # fmt: skip
def test_damaged_texts_are_said_with_the_remedy_that_then_helps(damage: str, filled: Path, tmp_path: Path) -> None:
    shutil.copytree(filled / "good", tmp_path / "bad")
    change(tmp_path / "bad", "DROP TRIGGER done_stays")
    change(tmp_path / "bad", damage)
    for words in commands(filled, tmp_path / "bad")[2 if "facts" in damage else 1 : 5]:  # an export needs no facts
        result = called(*words)
        assert result.exit_code == 2, result.output
        assert f"{tmp_path / 'bad'} is damaged" in result.output.replace("\n", "")
        assert "--salvage" in result.output
    run = called(*commands(filled, tmp_path / "bad")[5])
    assert run.exit_code == 2 or "facts" in damage
    assert called("bench", "check", tmp_path / "bad").exit_code == 1
    assert called("bench", "check", tmp_path / "bad", "--salvage", tmp_path / "new").exit_code == 0
    for words in commands(filled, tmp_path / "new"):
        again = called(*words)
        assert again.exception is None or isinstance(again.exception, SystemExit)
        assert "is damaged" not in again.output
