"""Results of a bench for trackers: TensorBoard, MLflow, Weights & Biases, one run a trial.

A tracker is a window, not a store: what it shows is in the store of the trials, and a tracker that fails does not end a
bench. None is needed, and each is imported only where it is asked for.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kintsugi.bench.job import Done, Planned
from kintsugi.bench.running import Event
from kintsugi.core.errors import ConfigError, UnknownName

PROJECT = "kintsugi"
MANY = 100  # parameters in one call of MLflow, at most (mlflow.utils.validation, MAX_PARAMS_TAGS_PER_BATCH)
LONG = 500  # characters of a text: the shortest limit that MLflow has had for a parameter (MAX_PARAM_VAL_LENGTH)
TAG = 64  # characters of a tag of wandb, at most


class Tracker(Protocol):
    """Is told what happens to trials.

    :meth:`finished` is for the ``trackers`` of a :class:`~kintsugi.bench.running.Ledger`. One that is not told of starts takes
    what training and evaluation took for the length of a run, and one that is not told of failures has no runs of them.
    """

    def watch(self, event: Event, planned: Planned, text: str) -> None:
        """What a :class:`~kintsugi.bench.running.Ledger` tells: a start, a failure."""

    def finished(self, planned: Planned, done: Done) -> None:
        """The result of a trial."""

    def close(self) -> None:
        """There will be no more."""


def get_tracker(spec: str) -> Tracker:
    """A tracker.

    Args:
        spec: ``tensorboard:FOLDER``; ``mlflow`` or ``mlflow:URI`` (default: what MLflow itself takes, such as its variable
            MLFLOW_TRACKING_URI); ``wandb`` or ``wandb:PROJECT`` (default: ``kintsugi``), offline unless the variable
            WANDB_MODE says otherwise.

    Raises:
        UnknownName: another one.
        ConfigError: TensorBoard without a folder.
        ImportError: it is not installed; names the extra.
    """
    kind, _, where = spec.partition(":")
    if kind not in _KINDS:
        raise UnknownName("tracker", kind, _KINDS)
    return _Guarded(kind, _KINDS[kind](where))


# what is told ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Told:
    """A trial that has ended. began: seconds since 1970; failure: last line of its traceback, empty where it is done."""

    planned: Planned
    began: float
    figures: dict[str, float]
    failure: str = ""

    @property
    def name(self) -> str:
        trial = self.planned.trial
        return f"{trial.method} on {trial.dataset}, {trial.training}, seed {trial.seed}"

    @property
    def tags(self) -> dict[str, str]:
        trial = self.planned.trial
        return {
            "method": trial.method, "dataset": trial.dataset, "training": trial.training, "seed": str(trial.seed),
            "protocol": trial.protocol.name, "hash": trial.hash, **({"failure": self.failure} if self.failure else {}),
        }  # fmt: skip

    @property
    def parameters(self) -> dict[str, str | int | float | bool]:
        return dict(flat(self.planned.trial.parameters))


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    """``{"a": {"b": 1}}`` -> ``a.b``, 1; lists become text, None the text ``None``."""
    for key, value in values.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from flat(value, name)
        else:
            yield name, value if isinstance(value, str | int | float | bool) else str(value)


def figures(planned: Planned, done: Done) -> dict[str, float]:
    """What a tracker shows of a result.

    ``clean/METRIC``: in the clean condition; ``degraded/METRIC``: mean over all others that have a value;
    ``seconds/training`` and ``seconds/evaluation``; where costs were measured, ``costs/parameters``, ``costs/trainable``
    and, with all modalities present and for each batch size, ``costs/flops_B``, ``costs/p50_B`` and ``costs/p95_B``
    (seconds a batch) and ``costs/memory_B`` (bytes).
    """
    clean = {condition.name for condition in planned.trial.protocol.conditions if condition.clean}
    table, found = done.results, {}
    for metric in dict.fromkeys(table["metric"]):
        chosen = table[table["metric"] == metric]
        pure = chosen["condition"].isin(clean)
        found[f"clean/{metric}"] = chosen.loc[pure, "value"].mean()
        found[f"degraded/{metric}"] = chosen.loc[~pure, "value"].mean()
    for part in ("training", "evaluation"):
        found[f"seconds/{part}"] = done.facts.get(part, {}).get("seconds", math.nan)
    found |= _costs(done.facts.get("costs"))
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def _costs(costs: Mapping[str, Any] | None) -> dict[str, float]:
    if not costs:
        return {}
    cells = costs["cells"]
    most = max((len(cell["subset"]) for cell in cells), default=0)
    return {f"costs/{name}": costs[name] for name in ("parameters", "trainable")} | {
        f"costs/{name}_{cell['batch_size']}": cell[name]
        for cell in cells
        if len(cell["subset"]) == most
        for name in ("flops", "p50", "p95", "memory")
    }


# trackers -------------------------------------------------------------------------------------------------------------
class _Runs(ABC):
    """A tracker that writes a run when its trial has ended."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def watch(self, event: Event, planned: Planned, text: str) -> None:
        if event == "start":
            self._began[planned.trial.hash] = time.time()
        elif event == "failed":
            self.write(_Told(planned, self._since(planned, 0.0), {}, text[:LONG] or "failed"))

    def finished(self, planned: Planned, done: Done) -> None:
        found = figures(planned, done)
        took = sum(seconds for name, seconds in found.items() if name.startswith("seconds/"))
        self.write(_Told(planned, self._since(planned, took), found))

    def _since(self, planned: Planned, took: float) -> float:
        return self._began.pop(planned.trial.hash, time.time() - took)

    @abstractmethod
    def write(self, told: _Told) -> None:
        """Write one run, whole."""

    def close(self) -> None:  # noqa: B027 - nothing is left open: every run is closed when it is written
        """Nothing to end."""


class TensorBoard(_Runs):
    """Event files in ``FOLDER/NAME-HASH/``: the figures as scalars, parameters in the tab HParams, tags as a text."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        if not folder:
            raise ConfigError("TensorBoard needs a folder; give it as 'tensorboard:FOLDER'")
        self.folder = Path(folder)
        _need("tensorboard", "tensorboard")
        self.writer: Callable[..., Any] = importlib.import_module("torch.utils.tensorboard").SummaryWriter

    def write(self, told: _Told) -> None:
        name = re.sub(r"[^\w.()-]+", "_", told.name)[:150]  # of a folder, on any system
        writer = self.writer(str(self.folder / f"{name}-{told.planned.trial.hash[:12]}"))
        try:
            writer.add_text("tags", "\n\n".join(f"{key}: {value}" for key, value in told.tags.items()))
            if not told.failure:
                tags = {k: v for k, v in told.tags.items() if k != "seed"} | {"seed": told.planned.trial.seed}
                writer.add_hparams({**tags, **told.parameters}, told.figures, run_name=".")
        finally:
            writer.close()


class MLflow(_Runs):
    """Runs of the experiment ``kintsugi``, through ``mlflow.MlflowClient``; the active run of a caller is left alone.

    Seen working with mlflow-skinny 3.17.2; the tests use a stand-in with its signatures.
    """

    def __init__(self, uri: str = "") -> None:
        super().__init__()
        self.mlflow, self.uri = _need("mlflow", "mlflow"), uri
        self._client: Any = None
        self._experiment = ""

    def write(self, told: _Told) -> None:
        if self._client is None:
            self._client = self.mlflow.MlflowClient(tracking_uri=self.uri or None)
            known = self._client.get_experiment_by_name(PROJECT)
            self._experiment = self._client.create_experiment(PROJECT) if known is None else known.experiment_id
        entities = importlib.import_module("mlflow.entities")
        began, now = int(told.began * 1000), int(time.time() * 1000)
        run = self._client.create_run(
            self._experiment, start_time=began, tags=told.tags, run_name=told.name
        ).info.run_id
        params = [entities.Param(_plain(key), str(value)[:LONG]) for key, value in told.parameters.items()]
        metrics = [entities.Metric(_plain(key), value, now, 0) for key, value in told.figures.items()]
        for start in range(0, len(params), MANY):
            self._client.log_batch(run, params=params[start : start + MANY])
        if metrics:
            self._client.log_batch(run, metrics=metrics)
        self._client.set_terminated(run, "FAILED" if told.failure else "FINISHED")


class Wandb(_Runs):
    """Runs of a project; offline, unless the variable WANDB_MODE says otherwise, so that nothing leaves the machine.

    Seen working offline with wandb 0.31.0; the tests use a stand-in with its signatures.
    """

    def __init__(self, project: str = "") -> None:
        super().__init__()
        self.wandb, self.project = _need("wandb", "wandb"), project or PROJECT

    def write(self, told: _Told) -> None:
        run = self.wandb.init(
            project=self.project, name=told.name, group=told.tags["dataset"], job_type=told.tags["method"],
            tags=[f"{key}:{value}"[:TAG] for key, value in told.tags.items() if key != "failure"],
            config={**told.tags, "parameters": dict(told.planned.trial.parameters)},
            mode=os.environ.get("WANDB_MODE", "offline"), reinit="create_new",
            settings=self.wandb.Settings(silent=True),
        )  # fmt: skip
        run.summary.update({**told.figures, **({"failure": told.failure} if told.failure else {})})
        run.finish(exit_code=int(bool(told.failure)))


class _Guarded:
    """A tracker that is switched off when it fails, and never ends a bench. Threads may share it."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self.tracker, self.on = name, tracker, True
        self._lock = threading.Lock()

    def watch(self, event: Event, planned: Planned, text: str) -> None:
        self._try(self.tracker.watch, event, planned, text)

    def finished(self, planned: Planned, done: Done) -> None:
        self._try(self.tracker.finished, planned, done)

    def close(self) -> None:
        self._try(self.tracker.close)

    def _try(self, call: Callable[..., None], *given: Any) -> None:
        with self._lock:
            if not self.on:
                return
            try:
                call(*given)
            except Exception as error:
                self.on = False
                said = " ".join(str(error).split())[:300]
                print(
                    f"tracker {self.name} is switched off: {type(error).__name__}: {said}. The results are in the store",
                    file=sys.stderr,
                )


_KINDS: dict[str, Callable[[str], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": Wandb}


def _need(module: str, extra: str) -> Any:
    try:
        found = importlib.import_module(module)
        if getattr(found, "__file__", None) is None:  # such as the folder "wandb" where wandb keeps its runs
            raise ImportError(f"{module} is a folder here, and not the package")
    except ImportError as error:
        raise ImportError(f"this tracker needs {module}: pip install 'kintsugi-ml[{extra}]'") from error
    return found


def _plain(name: str) -> str:
    """A name that MLflow takes: letters, digits, ``_ - . /`` and blanks (mlflow.utils.validation), at most 250 characters."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:250]
