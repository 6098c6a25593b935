"""The store of trials: nothing twice, nothing half, nothing changed, whatever is killed, full or damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import multiprocessing
import os
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from kintsugi.bench import Store, StoreError, Trial, export, facts, packing, trial_hash, workers
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.evaluation.protocols import Condition, Protocol
from kintsugi.evaluation.results import Results

PROTOCOL = Protocol("two", (Condition("clean", "clean", x=0.0), Condition("image", "subset", keep=("image",))))
TRIAL = Trial("mean_fusion", {"width": 8, "rate": 0.1}, "toy", "f00d", "mcar(0.5)", 3, PROTOCOL, {"torch": "2.6"})
FORK = multiprocessing.get_context("fork")
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def trials(count: int) -> list[Trial]:
    return [replace(TRIAL, seed=seed) for seed in range(count)]


def table(trial: Trial, seconds: float = 0.25, **changed: Any) -> pd.DataFrame:
    """Two metrics in each condition; the values are thirds, which no decimal number is."""
    lines = [
        {
            "dataset": trial.dataset, "method": trial.method, "seed": trial.seed, "training": trial.training,
            "condition": c.name, "group": c.group, "x": math.nan if c.x is None else c.x, "metric": metric,
            "value": (trial.seed + place) / 3, "low": -1 / 3, "high": math.nan, "n": 4, "higher_is_better": metric == "accuracy",
            "seconds": seconds, "mask_hash": "ab" if place else "",
        }
        for place, c in enumerate(trial.protocol.conditions)
        for metric in ("accuracy", "log_loss")
    ]  # fmt: skip
    return pd.DataFrame(lines).assign(**changed)


def classes(trial: Trial) -> dict[str, Any]:
    return {"clean": np.array([0, 1, 2, trial.seed]), "image": np.array([2, 2, 1, 0])}


def in_child(target: Callable[[], None]) -> Any:
    child = FORK.Process(target=target)
    child.start()
    return child


# the hash -----------------------------------------------------------------------------------------------------------
def test_the_hash_is_that_of_sorted_json() -> None:
    text = (
        '{"dataset":"toy","fingerprint":"f00d","method":"mean_fusion","parameters":{"rate":0.1,"width":8},"protocol":'
        '{"conditions":[{"corruptions":[],"group":"clean","keep":null,"missing":null,"name":"clean","seed":0,"x":0.0},'
        '{"corruptions":[],"group":"subset","keep":["image"],"missing":null,"name":"image","seed":0,"x":null}],"name":'
        '"two"},"seed":3,"training":"mcar(0.5)","versions":{"torch":"2.6"}}'
    )
    assert TRIAL.hash == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"method": "other"}, {"parameters": {"width": 9, "rate": 0.1}}, {"parameters": {"width": 8.0, "rate": 0.1}},
        {"dataset": "toy2"}, {"fingerprint": "beef"}, {"training": "clean"}, {"seed": 4}, {"versions": {"torch": "2.7"}},
        {"protocol": Protocol("two", PROTOCOL.conditions[:1])},
    ],
)  # fmt: skip
def test_everything_that_decides_a_result_is_in_the_hash(change: dict[str, Any]) -> None:
    assert replace(TRIAL, **change).hash != TRIAL.hash


def test_the_order_of_parameters_and_facts_are_not_in_the_hash() -> None:
    assert replace(TRIAL, parameters={"rate": 0.1, "width": 8}, about={"rows": 4}).hash == TRIAL.hash


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"a": [1, math.nan]}, r"parameters\.a\[1\] is nan"),
        ({"a": {1: 2}}, r"parameters\.a: key 1 is no text; write it as '1'"),
        ({"a": np.float64(1.0) + 0j}, "JSON has no such value"),
    ],
)
def test_what_json_lacks_is_no_parameter(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(TRIAL, parameters=parameters)


def test_a_seed_beyond_64_bits_is_refused() -> None:
    assert replace(TRIAL, seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(ConfigError, match="64 bits"):
        replace(TRIAL, seed=2**63)
    assert trial_hash(**{k: getattr(TRIAL, k) for k in TRIAL.__dataclass_fields__ if k != "about"}) == TRIAL.hash


# claims -------------------------------------------------------------------------------------------------------------
def test_a_trial_is_claimed_once(tmp_path: Path) -> None:
    store, other = Store.open(tmp_path), Store.open(tmp_path)
    assert store.claim(TRIAL, "a")
    assert not other.claim(TRIAL, "b")
    assert not store.claim(TRIAL, "a")
    assert store.release(TRIAL)
    assert other.claim(TRIAL, "b")
    assert not store.fail(TRIAL, "too late")  # it is b's now
    assert store.counts() == {"running": 1}


def test_processes_at_once_never_have_the_same_trial(tmp_path: Path) -> None:
    # A look at a store that another process is making went wrong in one round of four; twelve find that.
    for turn in range(12):
        todo, start, end = trials(40), FORK.Barrier(6), FORK.Barrier(6)
        folder = tmp_path / str(turn)
        folder.mkdir()

        def work(number: int, todo=todo, start=start, end=end, folder=folder) -> None:  # type: ignore[no-untyped-def]
            start.wait(30)
            store = Store.open(folder / "runs")  # made by all of them at once
            won = [t.seed for t in todo if store.claim(t, str(number))]
            (folder / f"{number}.json").write_text(json.dumps(won))
            end.wait(60)  # what a process that has ended left unfinished is anybody's

        children = [FORK.Process(target=work, args=(n,)) for n in range(6)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        won = [seed for n in range(6) for seed in json.loads((folder / f"{n}.json").read_text())]
        assert sorted(won) == list(range(40))


@linux
def test_the_claim_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    pipe, far = FORK.Pipe()

    def claim() -> None:
        Store.open(tmp_path).claim(TRIAL, "child")
        far.send(1)
        time.sleep(60)

    store, child = Store.open(tmp_path), in_child(claim)
    assert pipe.poll(30)
    assert not store.claim(TRIAL)
    os.kill(child.pid, signal.SIGKILL)
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert store.claim(TRIAL)  # it is a zombie, still with a number, and dead all the same


@linux
@pytest.mark.parametrize(
    ("change", "age", "expected"),
    [
        ({}, 0, True), ({}, 99, True), ({}, 101, False), ({"boot": "another"}, 0, False), ({"born": "1"}, 0, False),
        ({"host": "another", "boot": "x", "born": "1"}, 99, True), ({"host": "another"}, 101, False),
        ({"space": "pid:[1]", "born": "1"}, 99, True), ({"boot": ""}, 99, True),
    ],
)  # fmt: skip
def test_who_is_alive(change: dict[str, str], age: float, expected: bool) -> None:
    process = json.dumps(json.loads(workers.this_process()) | change)
    assert workers.alive(process, 1000.0 - age, 1000.0, stale=100) is expected


def test_a_worker_that_is_silent_for_too_long_loses_its_claim(tmp_path: Path) -> None:
    slow, other = Store.open(tmp_path, stale=0.2), Store.open(tmp_path, stale=0.2)
    assert slow.claim(TRIAL)
    time.sleep(0.15)
    assert slow.beat(TRIAL)
    time.sleep(0.1)
    assert not other.claim(TRIAL)
    time.sleep(0.2)
    assert other.claim(TRIAL)
    assert not slow.beat(TRIAL)
    assert not slow.release(TRIAL)


def test_a_failed_trial_waits_for_retry(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.claim(TRIAL)
    assert store.fail(TRIAL, "Traceback: boom")
    assert store.failures() == {TRIAL.hash: "Traceback: boom"}
    assert not store.claim(TRIAL)
    store.retry(TRIAL.hash)
    assert store.claim(TRIAL)
    with pytest.raises(ConfigError, match="is running; only a failed one"):
        store.retry(TRIAL.hash)
    with pytest.raises(UnknownName, match="unknown trial 'abc'"):
        store.retry("abc")


def test_missing_are_those_without_a_result_in_their_order(tmp_path: Path) -> None:
    store, todo = Store.open(tmp_path), trials(5)[::-1]
    store.add(todo[:4])
    store.finish(todo[1], table(todo[1]))
    store.claim(todo[2])
    store.claim(todo[3])
    store.fail(todo[3], "boom")
    assert store.missing(todo) == [todo[0], todo[2], todo[3], todo[4]]


# results ------------------------------------------------------------------------------------------------------------
def test_what_was_stored_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.finish(TRIAL, Results(table(TRIAL)), classes(TRIAL))
    back = Store.open(tmp_path, create=False)
    assert Results(back.table()).table["value"].tolist() == [1.0, 1.0, 4 / 3, 4 / 3]
    pd.testing.assert_frame_equal(back.table()[list(table(TRIAL))], table(TRIAL), check_exact=True, check_dtype=False)
    found = back.outcomes(TRIAL)
    assert {name: found[name].tolist() for name in found} == {"clean": [0, 1, 2, 3], "image": [2, 2, 1, 0]}


def test_a_second_run_that_agrees_changes_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.finish(TRIAL, table(TRIAL), classes(TRIAL))
    before = store.table()
    assert not store.finish(TRIAL, table(TRIAL, seconds=9.0), classes(TRIAL))
    pd.testing.assert_frame_equal(store.table(), before)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"value": [1.0, 1.0, 4 / 3, math.nextafter(4 / 3, 2)]},
            r"value of 'log_loss' in 'image': 1\.3333333333333333 stored, 1\.3333333333333335 now",
        ),
        ({"n": 5}, r"n of 'accuracy' in 'clean': 4 stored, 5 now; .*image"),
        ({"mask_hash": "cd"}, "mask_hash of 'accuracy' in 'image': 'ab' stored, 'cd' now"),
        ({"high": 1.0}, "high of 'accuracy' in 'clean': None stored, 1.0 now"),
        (
            {"metric": ["accuracy", "log_loss", "accuracy", "f1"]},
            "'log_loss' in 'image' is stored and was not measured now; 'f1' in 'image' was",
        ),
    ],
)  # fmt: skip
def test_a_second_run_that_differs_is_an_error_that_says_where(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    store = Store.open(tmp_path)
    store.finish(TRIAL, table(TRIAL))
    before = store.table()
    with pytest.raises(StoreError, match=said):
        store.finish(TRIAL, table(TRIAL, **changed))
    pd.testing.assert_frame_equal(store.table(), before)


def test_outcomes_of_a_second_run_must_agree_too(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.finish(TRIAL, table(TRIAL), classes(TRIAL))
    with pytest.raises(StoreError, match="outcomes of 'image': 1 of 4 differ"):
        store.finish(TRIAL, table(TRIAL), classes(TRIAL) | {"image": [2, 2, 1, 1]})
    with pytest.raises(StoreError, match="outcomes of 'image' only stored"):
        store.finish(TRIAL, table(TRIAL), {"clean": classes(TRIAL)["clean"]})
    assert store.outcomes(TRIAL)["image"].tolist() == [2, 2, 1, 0]


def test_the_database_itself_keeps_results(tmp_path: Path) -> None:
    Store.open(tmp_path).finish(TRIAL, table(TRIAL))
    db = sqlite3.connect(tmp_path / "runs.sqlite")
    for change in ("UPDATE results SET value = 0", "DELETE FROM results", "UPDATE trials SET state = 'pending'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(change)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: table(TRIAL, seed=4), "seed is 4, not 3"),
        (lambda: table(TRIAL)[:2], "lack condition 'image'"),
        (lambda: table(TRIAL, condition="fog"), "lack condition 'clean'"),
        (lambda: pd.concat([table(TRIAL)] * 2), "two values of 'accuracy' in condition 'clean'"),
        (lambda: table(TRIAL).drop(columns="low"), "lack low"),
    ],
)  # fmt: skip
def test_results_of_something_else_are_refused(tmp_path: Path, made: Callable[[], pd.DataFrame], said: str) -> None:
    store = Store.open(tmp_path)
    with pytest.raises(DataError, match=said):
        store.finish(TRIAL, made())
    assert store.counts() == {}


@pytest.mark.parametrize("wrong", [{"clean": [0.5]}, {"clean": [-1]}, {"fog": [1]}])
def test_outcomes_are_classes_of_conditions_of_the_protocol(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="outcomes of mean_fusion"):
        Store.open(tmp_path).finish(TRIAL, table(TRIAL), wrong)


def test_sizes_of_a_condition_and_of_a_row(tmp_path: Path) -> None:
    protocol = Protocol(
        "many", tuple(Condition(f"gaussian_noise(image, {i})", "corruption/x", x=i) for i in range(100))
    )
    store, random = Store.open(tmp_path), np.random.default_rng(0)
    for seed in range(5):
        trial = replace(TRIAL, protocol=protocol, seed=seed)
        outcomes = {c.name: random.integers(0, 1000, 1000) for c in protocol.conditions}  # nothing to deflate
        store.finish(trial, table(trial, mask_hash=[f"{i:016x}" for i in range(200)]), outcomes)
        assert (store.trial_folder(trial) / "outcomes.npz").stat().st_size / 100_000 < 4
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert store.path.stat().st_size / 500 < 1024


def test_a_file_of_outcomes_that_was_changed_is_seen(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.finish(TRIAL, table(TRIAL), classes(TRIAL))
    packing.write_arrays(store.outcomes_file(TRIAL), {"clean": np.zeros(4, np.uint8)})
    with pytest.raises(DataError, match="checksum differs"):
        store.outcomes(TRIAL)
    store.outcomes_file(TRIAL).write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot be read"):
        store.outcomes(TRIAL)
    assert ["cannot be read" in line for line in store.check()] == [True]


# export -------------------------------------------------------------------------------------------------------------
def exported(store: Store, folder: Path) -> tuple[bytes, bytes]:
    return store.export(folder / "a.csv").read_bytes(), store.export(folder / "a.parquet").read_bytes()


def test_an_export_does_not_depend_on_when_trials_ran(tmp_path: Path) -> None:
    todo = [replace(t, method=m) for t in trials(6) for m in ("b", "a")]
    stores = [Store.open(tmp_path / name) for name in "xy"]
    for store, order in zip(stores, (todo, Random(1).sample(todo, 12)), strict=True):
        for place, trial in enumerate(order):
            store.finish(trial, table(trial, seconds=place))
    one, other = (exported(store, tmp_path) for store in stores)
    assert one == other
    lines = one[0].decode().splitlines()
    assert len(lines) == 1 + 12 * 4
    assert lines[0].split(",") == [
        "dataset", "method", "seed", "training", "condition", "group", "x", "metric", "value", "low", "high", "n",
        "higher_is_better", "mask_hash", "parameters", "protocol", "fingerprint", "trial", "origin",
    ]  # fmt: skip
    assert lines[1].startswith("toy,a,0,mcar(0.5),clean,clean,0.0,accuracy,0.0,-0.3333333333333333,,4,True,,")
    parquet, timed = (
        pd.read_parquet(tmp_path / "a.parquet"),
        pd.read_csv(stores[0].export(tmp_path / "t.csv", timing=True)),
    )
    assert parquet["value"].tolist() == stores[0].table()["value"].tolist()
    assert list(timed.columns[-3:]) == ["seconds", "trial_seconds", "started"]
    with pytest.raises(ConfigError, match=r"'\.xls'"):
        stores[0].export(tmp_path / "a.xls")


def test_an_empty_store_exports_a_header(tmp_path: Path) -> None:
    csv, _ = exported(Store.open(tmp_path), tmp_path)
    assert csv.count(b"\n") == 1


# data sets that change ----------------------------------------------------------------------------------------------
def test_another_data_set_of_the_same_name_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.add([replace(TRIAL, about={"rows": 600, "labelled": 9})])
    changed = replace(TRIAL, fingerprint="beef", about={"rows": 599, "labelled": 9})
    for attempt in (
        lambda: store.claim(changed),
        lambda: store.finish(changed, table(changed)),
        lambda: store.add([changed]),
    ):
        with pytest.raises(StoreError, match=r"'toy' is another one .* f00d → beef; rows 600 → 599"):
            attempt()
    with pytest.raises(StoreError, match="other values in the rows"):
        store.add([replace(changed, about={"rows": 600, "labelled": 9})])
    assert store.counts() == {"pending": 1}


def test_facts_of_a_data_set() -> None:
    from kintsugi.core.data import Data

    class Rows:
        schema = SimpleNamespace(
            task=SimpleNamespace(key="classification"),
            modalities=(SimpleNamespace(name="a", kind="image"), SimpleNamespace(name="b", kind="text")),
        )
        present = torch.tensor([[True, False], [True, True], [True, False]])
        target_present = torch.tensor([True, True, False])

        def __len__(self) -> int:
            return 3

    assert facts(cast(Data, Rows())) == {
        "rows": 3,
        "labelled": 2,
        "task": "classification",
        "modalities": {"a": "image, 3 rows", "b": "text, 1 rows"},
    }


@pytest.mark.parametrize(("high", "kind"), [(1, "uint8"), (255, "uint8"), (256, "uint16"), (65536, "uint32")])
def test_classes_take_the_smallest_type(high: int, kind: str) -> None:
    assert str(packing.pack({"clean": torch.tensor([0, high])}, TRIAL)["clean"].dtype) == kind


# where nothing can be written ---------------------------------------------------------------------------------------
@contextmanager
def nothing_to_be_written(folder: Path) -> Iterator[None]:
    """A folder and its files for reading alone, as on a medium that is; also for who may do everything."""
    nobody, was = 65534, os.geteuid()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if was == 0:
        os.seteuid(nobody)
    try:
        yield
    finally:
        if was == 0:
            os.seteuid(was)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def archive() -> Iterator[Path]:
    """A store with one result, in a folder that anybody can look into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Store.open(folder / "runs") as store:
            store.finish(TRIAL, table(TRIAL), classes(TRIAL))
        yield folder / "runs"


def test_a_store_that_nobody_can_write_is_read_as_ever(archive: Path) -> None:
    with Store.open(archive) as store:
        before = store.table(), store.counts(), store.outcomes(TRIAL)
    with nothing_to_be_written(archive), Store.open(archive, create=False) as store:
        assert store.counts() == before[1] == {"done": 1}
        pd.testing.assert_frame_equal(store.table(), before[0])
        assert {name: list(values) for name, values in store.outcomes(TRIAL).items()} == {
            name: list(values) for name, values in before[2].items()
        }
        assert store.check() == []
        assert [record.state for record in store.records()] == ["done"]
        with pytest.raises(StoreError, match="cannot be opened for writing"):
            store.add(trials(3))
    assert sorted(path.name for path in archive.iterdir()) == ["runs.sqlite", "trials"]


def test_a_store_that_nobody_can_write_and_a_killed_process_left_says_what_to_do(archive: Path) -> None:
    log = archive / "runs.sqlite-wal"
    store = Store.open(archive)
    store.add(trials(3))
    kept = {path.name: path.read_bytes() for path in archive.iterdir() if path.is_file()}
    assert len(kept[log.name]) > 0
    store.close()
    for name in ("runs.sqlite", log.name):  # without the index of the log, as copies of a folder often are
        (archive / name).write_bytes(kept[name])
    with nothing_to_be_written(archive), pytest.raises(StoreError, match=r"runs\.sqlite-wal.*copy the folder to where"):
        Store.open(archive, create=False)
    with Store.open(archive, create=False) as store:  # where it can be merged, it is
        assert store.counts() == {"done": 1, "pending": 3}


def test_what_is_no_store_is_none_where_it_cannot_be_written_either(archive: Path) -> None:
    (archive / "runs.sqlite").write_bytes(b"")
    with nothing_to_be_written(archive), pytest.raises(StoreError, match="is cut off: it has 0 bytes"):
        Store.open(archive, create=False)
    (archive / "runs.sqlite").write_bytes(b"no database" * 500)
    with nothing_to_be_written(archive), pytest.raises(StoreError, match=r"damaged.*salvage"):
        Store.open(archive, create=False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_to_a_full_disk_names_the_file_and_asks_for_no_other_run(
    ending: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(number, os.strerror(number), str(path))

    store = Store.open(tmp_path / "runs")
    store.finish(TRIAL, table(TRIAL))
    monkeypatch.setattr(export, "replace_file", full)
    with pytest.raises(StoreError, match=rf"results\.{ending}: the disk is full; the file was not written") as caught:
        store.export(tmp_path / f"results.{ending}")
    assert "run the trial again" not in str(caught.value)


@pytest.mark.parametrize("damage", ["protocol", "versions", "parameters", "process"])
def test_reading_a_damaged_store_names_the_remedy(damage: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs") as store:
        store.claim(TRIAL)
        if damage != "process":
            store.finish(TRIAL, table(TRIAL))
    db = sqlite3.connect(tmp_path / "runs" / "runs.sqlite")
    db.executescript("DROP TRIGGER results_stay; DROP TRIGGER done_stays;")
    db.execute(
        {
            "protocol": "UPDATE texts SET text = '{' WHERE id = (SELECT protocol FROM trials)",
            "versions": "UPDATE texts SET text = '[1' WHERE id = (SELECT versions FROM trials)",
            "parameters": "UPDATE trials SET parameters = '5'",
            "process": "UPDATE trials SET process = '{'",
        }[damage]
    )
    db.commit()
    db.close()
    uses: list[Callable[[Store], Any]] = [lambda s: s.claim(TRIAL)] if damage == "process" else [
        lambda s: s.table(), lambda s: list(s.records()),
    ]  # fmt: skip
    for use in uses:
        with Store.open(tmp_path / "runs", create=False) as store, pytest.raises(StoreError, match="--salvage"):
            use(store)


@pytest.mark.parametrize("seed", range(30))
def test_a_store_with_damaged_bytes_is_read_or_is_one_error(seed: int, tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs") as store:
        store.finish(TRIAL, table(TRIAL), classes(TRIAL), {"training": {"seconds": 1.0}})
        store.claim(replace(TRIAL, seed=9))
    file, draw = tmp_path / "runs" / "runs.sqlite", Random(seed)
    content = bytearray(file.read_bytes())
    for _ in range(draw.choice([1, 10, 100])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    content[100 + draw.randrange(2000)] ^= 1 << draw.randrange(8)  # the page of the schema, which SQLite's errors quote
    file.write_bytes(content)
    try:
        with Store.open(tmp_path / "runs", create=False) as store:
            store.table()
            store.export(tmp_path / "all.csv")
            damage = store.check()
            store.claim(replace(TRIAL, seed=9))
    except StoreError as error:
        damage = [str(error)]
    assert all(isinstance(line, str) and line for line in damage)


def test_a_result_of_another_type_is_damage(tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs") as store:
        store.finish(TRIAL, table(TRIAL))
    db = sqlite3.connect(tmp_path / "runs" / "runs.sqlite")
    db.execute("UPDATE texts SET text = x'00ff' WHERE text = 'accuracy'")
    db.commit()
    db.close()
    with Store.open(tmp_path / "runs") as store, pytest.raises(StoreError, match="--salvage"):
        store.table()
