"""The scikit-learn face: fit, predict, score, save, on tables, data frames or records with holes."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kintsugi.core import store
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError, DataError, ModelFileError
from kintsugi.core.methods import create
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.data.cells import Reader
from kintsugi.data.dataset import Dataset
from kintsugi.data.splits import split_rows
from kintsugi.data.table import Table
from kintsugi.training.trainer import Trainer

Rows = Dataset | pd.DataFrame | Sequence[Mapping[str, Any]] | str | os.PathLike[str]
CHUNK = 256


class _Estimator:
    """What classifier and regressor share.

    Args:
        method: key of a registered method (``kg.methods.list()``), or a pipeline of your own.
        params: arguments of the method; further keywords are taken as such too, a clash raises.
        modalities, target, task: how to read data frames and records, as in :class:`kintsugi.Table`; a table brings its own.
        epochs, lr, batch_size, patience, device, checkpoint, progress: see :class:`kintsugi.Trainer`.
        trainer: further arguments of the trainer.
        seed: of the initial weights, the order of rows, views, and the validation split where none is given.
        encoders: modules of your own, by modality.
    """

    tasks: ClassVar[tuple[str, ...]]
    pipeline_: Pipeline
    reading_: dict[str, Any] | None
    trainer_: Trainer
    trained_on_: dict[str, Any]
    training_condition_: str

    def __init__(
        self,
        method: str | Pipeline = "mean_fusion",
        *,
        params: Mapping[str, Any] | None = None,
        modalities: Mapping[str, Reader] | None = None,
        target: str | Sequence[str] | None = None,
        task: str | None = None,
        epochs: int = 20,
        lr: float = 1e-3,
        batch_size: int = 64,
        patience: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        trainer: Mapping[str, Any] | None = None,
        encoders: Mapping[str, nn.Module] | None = None,
        **hyper: Any,
    ) -> None:
        self.method, self.params, self.modalities, self.target, self.task = method, params, modalities, target, task
        self.epochs, self.lr, self.batch_size, self.patience, self.seed = epochs, lr, batch_size, patience, seed
        self.device, self.checkpoint, self.progress, self.trainer = device, checkpoint, progress, trainer
        self.encoders, self.hyper = encoders, hyper

    # scikit-learn's manners -----------------------------------------------------------------------------------
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments as given, the method's own among them."""
        names = [n for n, p in inspect.signature(_Estimator.__init__).parameters.items() if p.kind is p.KEYWORD_ONLY]
        return {"method": self.method, **{n: getattr(self, n) for n in names}, **self.hyper}

    def set_params(self, **params: Any) -> Self:
        """Change arguments; what is none of this class is the method's."""
        own = self.get_params().keys() - self.hyper.keys()
        for name, value in params.items():
            if name in own:
                setattr(self, name, value)
            else:
                self.hyper[name] = value
        return self

    def __sklearn_clone__(self) -> Self:
        """An unfitted twin; modules and pipelines of the user's are shared, not copied."""
        return type(self)(**self.get_params())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pipeline_")

    def __repr__(self) -> str:
        usual = type(self)().get_params()
        said = [f"{k}={v!r}" for k, v in self.get_params().items() if k not in usual or usual[k] is not v != usual[k]]
        return f"{type(self).__name__}({', '.join(s.removeprefix('method=') for s in said)})"

    # training -------------------------------------------------------------------------------------------------
    def fit(self, train: Rows, val: Rows | None = None) -> Self:
        """Train. Without ``val`` a tenth of the rows is held out to choose the epoch, with a warning.

        Raises:
            DataError: rows that cannot be used; the message names row, modality and remedy.
            ConfigError: arguments that make no sense; UnknownName: of a method, argument or column, with the nearest.
        """
        rows = self._table(train)
        if rows.schema.task.key not in self.tasks:
            raise ConfigError(
                f"{type(self).__name__} solves {' or '.join(self.tasks)}; the task of {rows.name} is {rows.schema.task.key}"
            )
        self.reading_ = rows.reading
        if val is None:
            warnings.warn("no validation rows were given: a tenth of the training rows is held out", stacklevel=2)
            kept, held, _ = split_rows(rows, 0.1, 0.0, seed=self.seed)
            rows, other = rows.subset(kept), rows.subset(held)
        else:
            other = self._table(val, like=self.reading_)
        pipeline = self._build(rows)
        self.trainer_ = Trainer(
            epochs=self.epochs, lr=self.lr, batch_size=self.batch_size, patience=self.patience, seed=self.seed,
            device=self.device, checkpoint=self.checkpoint, progress=self.progress, **dict(self.trainer or {}),
        )  # fmt: skip
        self.pipeline_ = self.trainer_.fit(pipeline, Splits(rows, other))
        self.training_condition_ = (
            "complete" if rows.condition == "as given" and bool(rows.present.all()) else rows.condition
        )
        self.trained_on_ = {
            "data": rows.name,
            "fingerprint": rows.fingerprint,
            "condition": rows.condition,
            "rows": len(rows),
        }
        return self

    def _build(self, rows: Dataset) -> Pipeline:
        if isinstance(self.method, Pipeline):
            if self.params or self.hyper or self.encoders:
                raise ConfigError("a pipeline of your own is complete: give it no params, encoders or other arguments")
            return self.method
        params = dict(self.params or {})
        clash = params.keys() & self.hyper.keys()
        if clash:
            raise ConfigError(f"{', '.join(sorted(clash))}: given in params and as a keyword")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return create(self.method, rows.schema, encoders=self.encoders, **params, **self.hyper)

    def _table(self, rows: Rows, like: Mapping[str, Any] | None = None, labels: bool = True) -> Dataset:
        if isinstance(rows, Dataset):
            return rows
        if like is not None:
            return Table.from_reading(rows, like, require_target=labels)
        if not self.modalities or not self.target:
            raise ConfigError(
                "to fit a data frame or records, say how to read them: modalities={'note': kg.text('note')}, target='outcome'"
                " — or make a kg.Table"
            )
        options: dict[str, Any] = {
            "modalities": self.modalities,
            "target": self.target,
            "task": self.task or self.tasks[0],
        }
        if isinstance(rows, pd.DataFrame):
            return Table.from_pandas(rows, **options)
        if isinstance(rows, str | os.PathLike):
            read = Table.from_csv if str(rows).lower().endswith(".csv") else Table.from_parquet
            return read(rows, **options)
        return Table.from_records(rows, **options)

    # use ------------------------------------------------------------------------------------------------------
    def _answers(self, rows: Rows) -> Iterator[tuple[Tensor, Prediction]]:
        if not hasattr(self, "pipeline_"):
            raise ConfigError(f"this {type(self).__name__} is not fitted yet; call fit first")
        data = self._table(rows, like=self.reading_, labels=False)
        schema = self.pipeline_.schema
        if data.schema.modalities != schema.modalities:
            raise DataError(
                f"{data.name} is read otherwise than the training rows were: {_differ(data.schema.modalities, schema.modalities)}"
            )
        self.pipeline_.eval()
        device = self.pipeline_.model.prior.device
        with torch.inference_mode():
            for batch in data.batches(CHUNK):
                prediction = self.pipeline_.answer(batch.to(device))
                yield batch.index, prediction

    def _values(self, rows: Rows) -> np.ndarray:
        task = self.pipeline_.schema.task if hasattr(self, "pipeline_") else None
        parts = [task.probabilities(p.output.float()).cpu() for _, p in self._answers(rows)]  # type: ignore[union-attr]
        return torch.cat(parts).numpy() if parts else np.zeros((0,), dtype=np.float32)

    def explain(self, rows: Rows) -> pd.DataFrame:
        """What each answer rests on: for every row and modality whether it was there and whether it was used."""
        names = self.pipeline_.schema.names
        used = torch.cat([p.used.cpu() for _, p in self._answers(rows)]).numpy()
        data = self._table(rows, like=self.reading_, labels=False)
        frame = pd.DataFrame(data.present.numpy(), columns=[f"{n}_present" for n in names])
        return frame.join(pd.DataFrame(used, columns=[f"{n}_used" for n in names]))

    def predict_frame(self, rows: Rows) -> pd.DataFrame:
        """Answers as a table: the prediction, its probability or each target, and which modalities were used."""
        schema = self.pipeline_.schema if hasattr(self, "pipeline_") else None
        found = [(self._columns(p), p.used.cpu()) for _, p in self._answers(rows)]
        assert schema is not None
        frame = pd.concat([columns for columns, _ in found], ignore_index=True) if found else pd.DataFrame()
        used = torch.cat([u for _, u in found]) if found else torch.zeros(0, len(schema), dtype=torch.bool)
        frame["used"] = [
            "+".join(n for n, u in zip(schema.names, row, strict=True) if u) or "nothing (prior)"
            for row in used.tolist()
        ]
        frame.insert(0, "row", range(len(frame)))
        return frame

    def _columns(self, prediction: Prediction) -> pd.DataFrame:
        task = self.pipeline_.schema.task
        values = task.probabilities(prediction.output.float()).cpu().numpy()
        names = list(task.names)  # type: ignore[attr-defined]
        if task.key == "classification":
            best = values.argmax(1)
            chosen = {"prediction": np.array(names)[best], "probability": values.max(1).round(4)}
            return pd.DataFrame(chosen)
        return pd.DataFrame(
            values.reshape(len(values), -1),
            columns=[f"probability_{n}" for n in names] if task.key == "multilabel" else names,
        )

    def _labelled(self, rows: Rows) -> tuple[Dataset, np.ndarray, np.ndarray]:
        data = self._table(rows, like=getattr(self, "reading_", None))
        if data.target is None or not bool(data.target_present.any()):
            raise DataError(f"{data.name} has no labels to score against")
        keep = data.target_present.numpy()
        return data, data.target.numpy()[keep], keep

    # keeping --------------------------------------------------------------------------------------------------
    def save(self, folder: str | os.PathLike[str]) -> Path:
        """A folder of safetensors and JSON that ``kg.load`` reads; an old model there survives a failure."""
        if not hasattr(self, "pipeline_"):
            raise ConfigError("there is nothing to save: call fit first")
        extra = {
            "estimator": type(self).__name__,
            "reading": self.reading_,
            "trained_on": self.trained_on_,
            "seed": self.seed,
            "training_condition": self.training_condition_,
        }
        if isinstance(self.method, str):
            extra["method"] = self.method
        return store.save(self.pipeline_, folder, extra)


class Classifier(_Estimator):
    """Predicts a class, or several labels, for rows with holes."""

    __doc__ = f"{__doc__}\n\n{(_Estimator.__doc__ or '').partition(chr(10))[2].strip()}"
    tasks = ("classification", "multilabel")

    @property
    def classes_(self) -> np.ndarray:
        """Names of the classes, in the order of the columns of ``predict_proba``."""
        return np.array(self.pipeline_.schema.task.names)  # type: ignore[attr-defined]

    def predict_proba(self, rows: Rows) -> np.ndarray:
        """Probabilities ``[N, C]``; a row with nothing gets the class frequencies of the training rows."""
        return self._values(rows)

    def predict(self, rows: Rows) -> np.ndarray:
        """Names of the classes ``[N]``; for several labels a 0/1 matrix ``[N, C]`` at probability 0.5."""
        return self._names(self.predict_proba(rows))

    def _names(self, probabilities: np.ndarray) -> np.ndarray:
        if self.pipeline_.schema.task.key == "multilabel":
            return (probabilities > 0.5).astype(np.int64)
        chosen: np.ndarray = self.classes_[probabilities.argmax(1)] if len(probabilities) else self.classes_[:0]
        return chosen

    def score(self, rows: Rows) -> float:
        """Accuracy on the rows that have a label; for several labels the mean accuracy of a label."""
        _, target, keep = self._labelled(rows)
        probabilities = self.predict_proba(rows)[keep]
        if self.pipeline_.schema.task.key == "multilabel":
            return float(((probabilities > 0.5) == (target > 0.5)).mean())
        return float((probabilities.argmax(1) == target).mean())


class Regressor(_Estimator):
    """Predicts one or more numbers for rows with holes."""

    __doc__ = f"{__doc__}\n\n{(_Estimator.__doc__ or '').partition(chr(10))[2].strip()}"
    tasks = ("regression",)

    def predict(self, rows: Rows) -> np.ndarray:
        """Values ``[N]`` (or ``[N, K]``) in the target's units; a row with nothing gets the training mean."""
        return self._values(rows)

    def score(self, rows: Rows) -> float:
        """R² on the rows that have a label."""
        _, target, keep = self._labelled(rows)
        values = self.predict(rows)[keep].reshape(len(target), -1)
        target = target.reshape(len(target), -1)
        rest = ((values - target) ** 2).sum(0)
        spread = ((target - target.mean(0)) ** 2).sum(0)
        return float((1 - rest / np.where(spread > 0, spread, np.nan)).mean())


def load(folder: str | os.PathLike[str], encoders: Mapping[str, nn.Module] | None = None) -> Classifier | Regressor:
    """A saved model, ready to predict.

    Raises:
        ModelFileError: not a saved model, truncated, altered, of another format, or a pickle in disguise.
    """
    pipeline, extra = store.load(folder, encoders)
    kinds = {"Classifier": Classifier, "Regressor": Regressor}
    if extra.get("estimator") not in kinds:
        raise ModelFileError(
            f"{folder} holds a bare pipeline, not a saved estimator; read it with kintsugi.core.store.load"
        )
    model = kinds[extra["estimator"]](extra.get("method", pipeline), seed=extra.get("seed", 0))
    model.pipeline_, model.reading_, model.trained_on_ = pipeline, extra["reading"], extra.get("trained_on", {})
    model.training_condition_ = extra.get("training_condition", "unstated")
    return model


def _differ(one: Sequence[Any], other: Sequence[Any]) -> str:
    names, wanted = [m.name for m in one], [m.name for m in other]
    if names != wanted:
        return f"it has the modalities {', '.join(names)}, the model was trained on {', '.join(wanted)}"
    odd = next((a, b) for a, b in zip(one, other, strict=True) if a != b)
    return f"modality {odd[0].name!r} has shape {list(odd[0].shape)}, the model was trained on {list(odd[1].shape)}"
