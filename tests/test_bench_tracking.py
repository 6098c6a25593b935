"""Trackers are told of every trial, and can fail without harm."""

from __future__ import annotations

import inspect
import math
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from kintsugi.bench import Store, Trial
from kintsugi.bench.job import Done, Job, Planned, Source
from kintsugi.bench.running import Ledger
from kintsugi.bench.tracking import figures, flat, get_tracker
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.evaluation.protocols import CLEAN, Condition, Protocol

HOLES = [Condition(name, "subset", keep=(name,)) for name in ("image", "sound")]
PROTOCOL = Protocol("three", (CLEAN, *HOLES))
PARAMETERS = {"params": {"width": 8, "dropout": 0.5, "bias": True}, "trainer": {"epochs": 1}, "metrics": ["accuracy"]}
VALUES = {"accuracy": (0.9, 0.5, 0.7), "detection": (math.nan, math.nan, 0.25), "never": (math.nan,) * 3}


def planned(seed: int = 3) -> Planned:
    trial = Trial("mean: 1/2", PARAMETERS, "toy", "f00d", "mcar(0.5)", seed, PROTOCOL, {})
    return Planned(Job(Source("toy"), "mean_fusion", seed=seed), trial)


def done(seed: int = 3, costs: bool = False) -> Done:
    trial = planned(seed).trial
    lines = [
        {
            "dataset": trial.dataset, "method": trial.method, "seed": seed, "training": trial.training,
            "condition": condition.name, "group": condition.group, "x": math.nan, "metric": metric, "value": value,
            "low": math.nan, "high": math.nan, "n": 4, "higher_is_better": True, "seconds": 0.5, "mask_hash": "",
        }
        for metric, values in VALUES.items()
        for condition, value in zip(PROTOCOL.conditions, values, strict=True)
    ]  # fmt: skip
    facts: dict[str, Any] = {"training": {"seconds": 12.5, "epochs": 1}, "evaluation": {"seconds": 1.5}}
    if costs:
        cell = {"batch_size": 1, "flops": 100, "p50": 0.01, "p95": 0.02, "memory": None}
        facts["costs"] = {
            "parameters": 30,
            "trainable": 20,
            "cells": [
                {**cell, "subset": ["image", "sound"]},
                {**cell, "subset": ["image", "sound"], "batch_size": 64, "flops": 6400, "memory": 1024},
                {**cell, "subset": ["image"], "flops": 1},
            ],
        }
    return Done(pd.DataFrame(lines), {}, facts)


FIGURES = {
    "clean/accuracy": 0.9, "degraded/accuracy": 0.6, "degraded/detection": 0.25, "seconds/training": 12.5,
    "seconds/evaluation": 1.5,
}  # fmt: skip


def told(spec: str) -> None:
    """One trial that is done and one that fails."""
    tracker = get_tracker(spec)
    tracker.watch("start", planned(), "worker 1")
    tracker.finished(planned(), done())
    tracker.watch("done", planned(), "")
    tracker.watch("start", planned(4), "worker 1")
    tracker.watch("failed", planned(4), "ValueError: no luck")
    tracker.watch("elsewhere", planned(5), "")
    tracker.close()


def close(found: dict[str, float], wanted: dict[str, float]) -> bool:
    return found == pytest.approx(wanted)


# what is told -------------------------------------------------------------------------------------------------------
def test_figures_are_clean_values_and_means_over_the_others() -> None:
    assert close(figures(planned(), done()), FIGURES)


def test_costs_are_those_with_all_modalities() -> None:
    found = {k: v for k, v in figures(planned(), done(costs=True)).items() if k.startswith("costs/")}
    assert found == {
        "costs/parameters": 30, "costs/trainable": 20, "costs/flops_1": 100, "costs/p50_1": 0.01, "costs/p95_1": 0.02,
        "costs/flops_64": 6400, "costs/p50_64": 0.01, "costs/p95_64": 0.02, "costs/memory_64": 1024,
    }  # fmt: skip


def test_parameters_are_flattened() -> None:
    assert dict(flat({"a": {"b": 1, "c": {"d": None}}, "e": [1, "x"], "f": True, "g": {}})) == {
        "a.b": 1, "a.c.d": "None", "e": "[1, 'x']", "f": True,
    }  # fmt: skip


# TensorBoard --------------------------------------------------------------------------------------------------------
def test_tensorboard_has_a_run_for_each_trial(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed (extra 'tensorboard')")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    told(f"tensorboard:{tmp_path}")
    good, bad = sorted(tmp_path.iterdir(), key=lambda folder: "seed_4" in folder.name)
    assert good.name == f"mean_1_2_on_toy_mcar(0.5)_seed_3-{planned().trial.hash[:12]}"
    read = EventAccumulator(str(good)).Reload()
    tags = read.Tags()
    assert close({tag: read.Scalars(tag)[-1].value for tag in tags["scalars"]}, FIGURES)
    text = read.Tensors("tags/text_summary")[0].tensor_proto.string_val[0].decode()
    assert f"hash: {planned().trial.hash}" in text
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    saved = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert saved["params.width"].number_value == 8
    assert saved["params.bias"].number_value == 1  # torch writes it as a number
    assert saved["method"].string_value == "mean: 1/2"
    assert saved["seed"].number_value == 3
    failed = EventAccumulator(str(bad)).Reload()
    assert failed.Tags()["scalars"] == []
    assert b"failure: ValueError: no luck" in failed.Tensors("tags/text_summary")[0].tensor_proto.string_val[0]


def test_tensorboard_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="tensorboard:FOLDER"):
        get_tracker("tensorboard")


# MLflow and wandb, by modules that note what they are asked; with the signatures of mlflow 3.17 and wandb 0.31 --------
class FakeClient:
    made: list[FakeClient] = []  # noqa: RUF012 - of one test

    def __init__(
        self, tracking_uri: str | None = None, registry_uri: str | None = None, workspace_store_uri: str | None = None
    ) -> None:
        self.uri, self.experiments, self.runs = tracking_uri, [], []
        FakeClient.made.append(self)

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7") if name in self.experiments else None

    def create_experiment(self, name: str, artifact_location: Any = None, tags: Any = None) -> str:
        self.experiments.append(name)
        return "7"

    def create_run(
        self, experiment_id: str, start_time: int | None = None, tags: Any = None, run_name: str | None = None
    ) -> Any:
        run = {
            "experiment": experiment_id,
            "tags": tags,
            "name": run_name,
            "start": start_time,
            "params": [],
            "metrics": [],
        }
        self.runs.append(run)
        assert start_time is not None
        assert start_time > 1e12  # milliseconds
        return SimpleNamespace(info=SimpleNamespace(run_id=str(len(self.runs) - 1)))

    def log_batch(
        self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = (), synchronous: Any = None
    ) -> None:
        assert len(params) <= 100
        self.runs[int(run_id)]["params"] += [(p.key, p.value) for p in params]
        self.runs[int(run_id)]["metrics"] += [(m.key, m.value) for m in metrics]

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        self.runs[int(run_id)]["status"] = status


class Param(SimpleNamespace):
    def __init__(self, key: str, value: str) -> None:
        super().__init__(key=key, value=value)


class Metric(SimpleNamespace):
    def __init__(self, key: str, value: float, timestamp: int, step: int) -> None:
        super().__init__(key=key, value=value, timestamp=timestamp, step=step)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> list[FakeClient]:
    monkeypatch.setattr(FakeClient, "made", [])
    fake, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    fake.__dict__.update(MlflowClient=FakeClient, entities=entities, __file__="fake")
    entities.__dict__.update(Param=Param, Metric=Metric)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return FakeClient.made


def test_mlflow_has_a_run_for_each_trial(mlflow: list[FakeClient]) -> None:
    told("mlflow:http://localhost:5000")
    (client,) = mlflow
    assert client.uri == "http://localhost:5000"
    good, bad = client.runs
    assert good["name"] == "mean: 1/2 on toy, mcar(0.5), seed 3"
    assert (good["experiment"], good["status"], bad["status"]) == ("7", "FINISHED", "FAILED")
    assert good["tags"] == {
        "method": "mean: 1/2", "dataset": "toy", "training": "mcar(0.5)", "seed": "3", "protocol": "three",
        "hash": planned().trial.hash,
    }  # fmt: skip
    assert dict(good["params"])["params.width"] == "8"
    assert close(dict(good["metrics"]), FIGURES)
    assert bad["tags"]["failure"] == "ValueError: no luck"
    assert bad["metrics"] == []


def test_mlflow_gets_no_more_than_it_takes(mlflow: list[FakeClient]) -> None:
    many = Trial("m", {f"p({n})": "x" * 9999 for n in range(150)}, "toy", "f00d", "complete", 0, PROTOCOL, {})
    get_tracker("mlflow").watch("failed", Planned(planned().job, many), "no")
    (client,) = mlflow
    assert client.uri is None
    params = dict(client.runs[0]["params"])
    assert len(params) == 150
    assert params["p_149_"] == "x" * 500


class FakeWandb(ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.__file__ = "fake"
        self.runs: list[Any] = []

    class Settings(SimpleNamespace):
        pass

    def init(
        self, entity: Any = None, project: Any = None, dir: Any = None, id: Any = None, name: Any = None,
        notes: Any = None, tags: Any = None, config: Any = None, group: Any = None, job_type: Any = None,
        mode: Any = None, reinit: Any = None, settings: Any = None,
    ) -> Any:  # fmt: skip
        run = SimpleNamespace(
            project=project, name=name, tags=tags, config=config, group=group, mode=mode, reinit=reinit, summary={},
            code=None,
        )  # fmt: skip

        def finish(exit_code: int | None = None) -> None:
            run.code = exit_code

        run.finish = finish
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


def test_wandb_has_a_run_for_each_trial_and_is_offline(wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    told("wandb:thesis")
    good, bad = wandb.runs
    assert (good.project, good.name, good.group) == ("thesis", "mean: 1/2 on toy, mcar(0.5), seed 3", "toy")
    assert (good.mode, good.reinit, good.code, bad.code) == ("offline", "create_new", 0, 1)
    assert good.config["parameters"] == PARAMETERS
    assert good.config["hash"] == planned().trial.hash
    assert "method:mean: 1/2" in good.tags
    assert max(map(len, good.tags)) <= 64
    assert close(good.summary, FIGURES)
    assert bad.summary == {"failure": "ValueError: no luck"}
    monkeypatch.setenv("WANDB_MODE", "online")
    told("wandb")
    assert (wandb.runs[2].mode, wandb.runs[2].project) == ("online", "kintsugi")


def test_the_calls_are_those_of_the_real_modules() -> None:
    """Only where they are installed: what the fakes take is what the real ones take."""
    pairs: list[tuple[Any, Any]] = []
    try:
        from mlflow import MlflowClient  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        MlflowClient = None
    if MlflowClient is not None:
        names = ("create_run", "log_batch", "set_terminated", "get_experiment_by_name", "create_experiment", "__init__")
        pairs += [(getattr(MlflowClient, name), getattr(FakeClient, name)) for name in names]
    try:
        from wandb import init  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        init = None
    if init is not None:
        pairs.append((init, FakeWandb().init))
    if not pairs:
        pytest.skip("neither mlflow nor wandb is installed (extras 'mlflow' and 'wandb')")
    for theirs, fake in pairs:
        assert inspect.signature(fake).parameters.keys() <= inspect.signature(theirs).parameters.keys()


# beside a bench -----------------------------------------------------------------------------------------------------
def test_a_tracker_that_fails_is_switched_off(
    mlflow: list[FakeClient], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[str] = []

    def refuse(*_: Any, **given: Any) -> None:
        asked.append(given["run_name"])
        raise ConnectionError("no server\nat this address")

    monkeypatch.setattr(FakeClient, "create_run", refuse)
    store, seen = Store.open(tmp_path), []
    todo = [planned(seed) for seed in range(3)]
    with Ledger(store, todo, lambda event, *_: seen.append(event), trackers=[get_tracker("mlflow")]) as ledger:
        while (one := ledger.next()) is not None:
            ledger.done(one, done(one.trial.seed))
    assert store.counts() == {"done": 3}
    assert seen == ["start", "done"] * 3
    assert len(asked) == 1
    assert capsys.readouterr().err == (
        "tracker mlflow is switched off: ConnectionError: no server at this address. The results are in the store\n"
    )


def test_a_ledger_tells_its_tracker(mlflow: list[FakeClient], tmp_path: Path) -> None:
    tracker = get_tracker("mlflow")
    with Ledger(Store.open(tmp_path), [planned(0), planned(1)], tracker.watch, trackers=[tracker]) as ledger:
        one, two = ledger.next(), ledger.next()
        assert one is not None
        assert two is not None
        ledger.done(one, done(0))
        ledger.failed(two, "Traceback\nValueError: no luck\n")
    assert [run["status"] for run in mlflow[0].runs] == ["FINISHED", "FAILED"]
    assert mlflow[0].runs[1]["tags"]["failure"] == "ValueError: no luck"


def test_a_run_is_as_long_as_its_trial(mlflow: list[FakeClient]) -> None:
    tracker = get_tracker("mlflow")
    tracker.finished(planned(0), done(0))  # its start was not told
    tracker.watch("start", planned(1), "")
    tracker.finished(planned(1), done(1))
    unknown, known = (time.time() - run["start"] / 1000 for run in mlflow[0].runs)
    assert 14 <= unknown < 1000
    assert known < 14


# names --------------------------------------------------------------------------------------------------------------
def test_an_unknown_tracker_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown tracker 'mlflo'; did you mean 'mlflow'"):
        get_tracker("mlflo:here")


@pytest.mark.parametrize("kind", ["tensorboard:here", "mlflow", "wandb"])
def test_what_is_not_installed_is_said_with_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = kind.partition(":")[0]
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'kintsugi-ml\[{name}\]'"):
        get_tracker(kind)


def test_a_folder_that_is_called_like_a_package_is_not_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(tmp_path)])
        with pytest.raises(ImportError, match="this tracker needs wandb"):
            get_tracker("wandb")
    sys.modules.pop("wandb", None)
