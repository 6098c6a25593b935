"""The scikit-learn face: fit, predict, score, save, on tables, data frames or records with holes."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kintsugi.core.data import Splits
from kintsugi.core.encoder import check_encoders
from kintsugi.core.errors import ConfigError, DataError, ModelFileError, UnknownName
from kintsugi.core.methods import create
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Schema
from kintsugi.core.task import TASKS, Face, Task
from kintsugi.data.cells import Reader
from kintsugi.data.dataset import Dataset
from kintsugi.data.reading import check_reading
from kintsugi.data.splits import split_rows
from kintsugi.data.table import Table
from kintsugi.evaluation.answer_table import answer_frame
from kintsugi.io import saved_models as store
from kintsugi.training.checks import cards_of
from kintsugi.training.trainer import Trainer

Rows = Dataset | pd.DataFrame | Sequence[Mapping[str, Any]] | str | os.PathLike[str]
CHUNK = 256


class _Estimator:
    """What classifier and regressor share.

    Args:
        method: key of a registered method (``kg.methods.list()``), or a pipeline of your own, of which a copy is trained.
        params: arguments of the method; further keywords are taken as such too, a clash raises.
        modalities, target, task: how to read data frames and records, as in :class:`kintsugi.Table`; a table brings its own.
            Without ``task`` a classifier takes one target for classes and several for labels.
        epochs, lr, batch_size, patience, device, checkpoint, progress: see :class:`kintsugi.Trainer`.
        trainer: further arguments of the trainer.
        seed: of the initial weights, the order of rows, views, and the validation split where none is given.
        encoders: modules of your own, by modality.
    """

    face: ClassVar[Face]
    usual: ClassVar[tuple[str, str]]  # keys of the tasks of one and of several targets, where none is said
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
        task: str | Task | None = None,
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

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        numbers = self.face == "regressor"
        return Tags(
            estimator_type="regressor" if numbers else "classifier",
            target_tags=TargetTags(required=False),  # it is a column of the rows
            classifier_tags=None if numbers else ClassifierTags(),
            regressor_tags=RegressorTags() if numbers else None,
            input_tags=InputTags(two_d_array=False, allow_nan=True),
        )

    def __repr__(self) -> str:
        usual = type(self)().get_params()
        said = [f"{k}={v!r}" for k, v in self.get_params().items() if k not in usual or usual[k] is not v != usual[k]]
        return f"{type(self).__name__}({', '.join(s.removeprefix('method=') for s in said)})"

    # training -------------------------------------------------------------------------------------------------
    def fit(self, train: Rows, val: Rows | None = None, *, auxiliary: Rows | None = None) -> Self:
        """Train. Without ``val`` a tenth of the rows is held out to choose the epoch, with a warning.

        Args:
            train: rows to learn from.
            val: rows that choose the epoch.
            auxiliary: a second table for methods whose stages read one: pairs, unlabelled rows, enrolment. It needs no
                target, and may lack columns.

        Raises:
            DataError: rows that cannot be used; the message names row, modality and remedy.
            ConfigError: arguments that make no sense; UnknownName: of a method, argument or column, with the nearest.
        """
        rows = self._table(train)
        self._check_face(rows)
        reading = None if rows.reading is None else dict(rows.reading)
        if val is None:
            warnings.warn("no validation rows were given: a tenth of the training rows is held out", stacklevel=2)
            kept, held, _ = split_rows(rows, 0.1, 0.0, seed=self.seed)
            rows, other = rows.pieces(kept, held)
        else:
            other = _alike(val, rows.schema, reading)
            _same_target(other, rows.schema)
        trained_on = {
            "data": rows.name,
            "fingerprint": rows.fingerprint,  # what it cannot tell is said before training
            "condition": rows.condition,
            "rows": len(rows),
        }
        trainer = self._trainer()
        built = self._build(rows)
        second = (
            None
            if auxiliary is None
            else _alike(auxiliary, rows.schema, rows.reading, labels=False, optional=rows.schema.names)
        )
        pipeline = trainer.fit(built, Splits(rows, other, auxiliary=second))
        # only now, so that a fit that fails leaves the one before as it was
        self.trainer_, self.pipeline_, self.reading_ = trainer, pipeline, reading
        self.training_condition_ = (
            "complete" if rows.condition == "as given" and bool(rows.present.all()) else rows.condition
        )
        self.trained_on_ = trained_on
        return self

    def _check_face(self, rows: Dataset) -> None:
        task = rows.schema.task
        if task.face == self.face:
            return
        mine = " or ".join(key for key in TASKS if TASKS[key].face == self.face)
        remedy = (
            "train a pipeline of it with kg.Trainer" if task.face is None else f"use {estimator_for(task).__name__}"
        )
        raise ConfigError(f"{type(self).__name__} solves {mine}; the task of {rows.name} is {task.key}: {remedy}")

    def _build(self, rows: Dataset) -> Pipeline:
        if isinstance(self.method, Pipeline):
            if self.params or self.hyper or self.encoders:
                raise ConfigError("a pipeline of your own is complete: give it no params, encoders or other arguments")
            if self.method.schema.modalities != rows.schema.modalities:
                odd = _differ(rows.schema.modalities, self.method.schema.modalities, "the pipeline was made for")
                raise ConfigError(f"{rows.name} does not fit the pipeline: {odd}")
            return store.clone(self.method)
        params = _mapping(self.params, "params")
        clash = params.keys() & self.hyper.keys()
        if clash:
            raise ConfigError(f"{', '.join(sorted(clash))}: given in params and as a keyword")
        own = params.keys() & (self.get_params().keys() - self.hyper.keys())
        if own:
            raise ConfigError(
                f"{', '.join(sorted(own))}: an argument of {type(self).__name__} itself; give it as a keyword, not in params"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return create(self.method, rows.schema, encoders=self.encoders, **params, **self.hyper)

    def _trainer(self) -> Trainer:
        own: dict[str, Any] = {
            "epochs": self.epochs, "lr": self.lr, "batch_size": self.batch_size, "patience": self.patience,
            "seed": self.seed, "device": self.device, "checkpoint": self.checkpoint, "progress": self.progress,
        }  # fmt: skip
        more = _mapping(self.trainer, "trainer")
        known = {f.name for f in fields(Trainer)} - own.keys()
        for name in more:
            if name in own:
                raise ConfigError(f"{name} is an argument of {type(self).__name__} itself, not one for trainer=")
            if name not in known:
                raise UnknownName("argument of the trainer", name, known)
        return Trainer(**own, **more)

    def _table(self, rows: Rows) -> Dataset:
        """Training rows."""
        if isinstance(rows, Dataset):
            return rows
        if not self.modalities or not self.target:
            raise ConfigError(
                "to fit a data frame or records, say how to read them: modalities={'note': kg.text('note')}, target='outcome'"
                " — or make a kg.Table"
            )
        several = not isinstance(self.target, str) and len(self.target) > 1
        options: dict[str, Any] = {
            "modalities": self.modalities,
            "target": self.target,
            "task": self.task or self.usual[several],
        }
        if isinstance(rows, pd.DataFrame):
            return Table.from_pandas(rows, **options)
        if isinstance(rows, str | os.PathLike):
            text = Path(rows).suffix.lower() in (".csv", ".tsv")
            return (Table.from_csv if text else Table.from_parquet)(rows, **options)
        return Table.from_records(rows, **options)

    # use ------------------------------------------------------------------------------------------------------
    def _fitted(self) -> Pipeline:
        if not hasattr(self, "pipeline_"):
            raise ConfigError(f"this {type(self).__name__} is not fitted yet; call fit first")
        return self.pipeline_

    def _rows(self, rows: Rows, labels: bool = False) -> Dataset:
        """Rows to answer for, read as the training rows were."""
        pipeline = self._fitted()
        may_lack = any("train" in card.modality_only_in for card in cards_of(pipeline))
        return _alike(rows, pipeline.schema, self.reading_, labels, pipeline.schema.names if may_lack else ())

    def _answers(self, data: Dataset, stream: bool = False) -> Iterator[tuple[Tensor, Prediction]]:
        """For each batch which modalities could be read, and the answer.

        A method that adapts starts from its calibrated state; ``stream``: from where the last call left it.
        """
        pipeline = self._fitted().eval()
        device = pipeline.model.prior.device
        if not stream:
            pipeline.reset()
        if any(card.reference for card in cards_of(pipeline)):
            data = data.identified()
        with torch.no_grad() if pipeline.adapts else torch.inference_mode():
            for batch in data.batches(CHUNK):
                prediction = pipeline(batch.to(device))
                wrong = ~torch.isfinite(prediction.output).flatten(1).all(1).cpu()
                if bool(wrong.any()):
                    raise DataError(
                        f"{data.name}: the answer to row {int(batch.index[wrong][0])} (counted from 0) is not finite; look "
                        "for numbers in this row that are far from all that the model was trained on"
                    )
                yield batch.present, prediction

    def _values(self, data: Dataset, stream: bool = False) -> Tensor:
        """What the task's ``probabilities`` makes of the answers ``[N, ...]``."""
        task = self._fitted().schema.task
        none = torch.zeros(0, *task.output_shape)
        outputs = [p.output.float().cpu() for _, p in self._answers(data, stream)] or [none]
        return torch.cat([task.probabilities(output) for output in outputs])

    def explain(self, rows: Rows) -> pd.DataFrame:
        """What each answer rests on: for every row and modality whether it was there and whether it was used."""
        names = self._fitted().schema.names
        none = torch.zeros(0, len(names), dtype=torch.bool)
        found = [(there, p.used.cpu()) for there, p in self._answers(self._rows(rows))] or [(none, none)]
        there, used = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        frame = pd.DataFrame(there, columns=[f"{n}_present" for n in names])
        return frame.join(pd.DataFrame(used, columns=[f"{n}_used" for n in names]))

    def predict_frame(self, rows: Rows, *, details: bool = False, stream: bool = False) -> pd.DataFrame:
        """Answers as a table: the prediction, its probability or each target, and which modalities were used.

        ``uncertainty``: of classes and labels in [0, 1], mostly the normalised entropy; of numbers a variance for each
        target, in its squared units, where the method gives one. ``reliability_<modality>`` in [0, 1], where the method
        gives it. Empty where nobody can know: the prior spoke, or the modality is absent.

        Args:
            rows: as for ``predict``.
            details: what each modality alone answers, the weights of modalities and the embedding too, where the method
                gives them.
            stream: a method that adapts goes on from where the last call left it.
        """
        pipeline = self._fitted()
        names = pipeline.model.schema.names
        parts = [
            answer_frame(answer.map(lambda x: x.cpu()), pipeline.schema.task, names, details)
            for _, answer in self._answers(self._rows(rows), stream)
        ]
        frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"used": []})
        frame.insert(0, "row", range(len(frame)))
        return frame

    def _score(self, rows: Rows) -> float:
        """The plain score of the task on those of the rows that have a label."""
        data = self._rows(rows, labels=True)
        if data.target is None or not bool(data.target_present.any()):
            raise DataError(f"{data.name} has no labels to score against")
        _same_target(data, self.pipeline_.schema)
        data = data.subset(data.target_present)
        assert data.target is not None
        return self.pipeline_.schema.task.score(self._values(data), data.target)[1]

    # keeping --------------------------------------------------------------------------------------------------
    def save(self, folder: str | os.PathLike[str]) -> Path:
        """A folder of safetensors and JSON that ``kg.load`` reads; an old model there survives a failure."""
        pipeline = self._fitted()
        extra = {
            "estimator": type(self).__name__,
            "reading": self.reading_,
            "trained_on": self.trained_on_,
            "seed": self.seed,
            "training_condition": self.training_condition_,
        }
        if isinstance(self.method, str):
            extra["method"] = self.method
        return store.save(pipeline, folder, extra)


class Classifier(_Estimator):
    """Predicts a class, also one of an order, or several labels, for rows with holes."""

    __doc__ = f"{__doc__}\n\n{(_Estimator.__doc__ or '').partition(chr(10))[2].strip()}"
    face = "classifier"
    usual = ("classification", "multilabel")

    @property
    def classes_(self) -> np.ndarray:
        """Names of the classes, in the order of the columns of ``predict_proba``."""
        return np.array(self.pipeline_.schema.task.names)

    def predict_proba(self, rows: Rows, *, stream: bool = False) -> np.ndarray:
        """Probabilities ``[N, C]``; a row with nothing gets the class frequencies of the training rows.

        ``stream``: a method that adapts in use goes on from where the last call left it; otherwise it starts from the
        state in which it was saved.
        """
        values: np.ndarray = self._values(self._rows(rows), stream).numpy()
        return values

    def predict(self, rows: Rows, *, stream: bool = False) -> np.ndarray:
        """Names of the classes ``[N]``; for several labels a 0/1 matrix ``[N, C]`` at probability 0.5.

        ``stream``: see :meth:`predict_proba`.
        """
        chosen: np.ndarray = self._fitted().schema.task.decide(self._values(self._rows(rows), stream))
        return chosen

    def score(self, rows: Rows) -> float:
        """Accuracy on the rows that have a label; for several labels the mean accuracy of a label, for classes in an order
        kappa with quadratic weights.
        """
        return self._score(rows)


class Regressor(_Estimator):
    """Predicts one or more numbers for rows with holes."""

    __doc__ = f"{__doc__}\n\n{(_Estimator.__doc__ or '').partition(chr(10))[2].strip()}"
    face = "regressor"
    usual = ("regression", "regression")

    def predict(self, rows: Rows, *, stream: bool = False) -> np.ndarray:
        """Values ``[N]`` (or ``[N, K]``) in the target's units; a row with nothing gets the training mean.

        ``stream``: a method that adapts in use goes on from where the last call left it; otherwise it starts from the
        state in which it was saved.
        """
        values: np.ndarray = self._fitted().schema.task.decide(self._values(self._rows(rows), stream))
        return values

    def score(self, rows: Rows) -> float:
        """R² on the rows that have a label."""
        return self._score(rows)


FACES: dict[Face, type[Classifier | Regressor]] = {"classifier": Classifier, "regressor": Regressor}


def estimator_for(task: Task) -> type[Classifier | Regressor]:
    """The estimator that serves a task, by its face.

    Raises:
        ConfigError: none does.
    """
    if task.face is None:
        raise ConfigError(f"no estimator serves task {task.key!r}; train a pipeline of it with kg.Trainer")
    return FACES[task.face]


def load(folder: str | os.PathLike[str], encoders: Mapping[str, nn.Module] | None = None) -> Classifier | Regressor:
    """A saved model, ready to predict.

    Args:
        folder: that :meth:`Classifier.save` wrote.
        encoders: modules of your own that it was trained with, by modality; another ``fit`` starts from them too.

    Raises:
        ModelFileError: not a saved model, truncated, altered, of another format, or a pickle in disguise.
        ConfigError: encoders that it was trained with are not given, or others are.
    """
    check_encoders(encoders)
    pipeline, extra = store.load(folder, encoders)
    kinds: dict[str, type[Classifier | Regressor]] = {"Classifier": Classifier, "Regressor": Regressor}
    if not isinstance(extra, dict) or extra.get("estimator") not in kinds:
        raise ModelFileError(
            f"{folder} holds a bare pipeline, not a saved estimator; read it with kintsugi.io.saved_models.load"
        )
    face = kinds[extra["estimator"]]
    if pipeline.schema.task.face != face.face:
        raise ModelFileError(f"{folder} is damaged: a {face.__name__} of task {pipeline.schema.task.key}")
    if isinstance(extra.get("method"), str):  # a pipeline of the user's own is complete with its encoders
        model = face(extra["method"], seed=extra.get("seed", 0), encoders=encoders)
    else:
        model = face(pipeline, seed=extra.get("seed", 0))
    model.pipeline_, model.reading_, model.trained_on_ = pipeline, extra.get("reading"), extra.get("trained_on", {})
    model.training_condition_ = extra.get("training_condition", "unstated")
    return model


def _mapping(value: object, name: str) -> dict[str, Any]:
    """A copy of what was given as arguments by name; nothing is none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is a mapping from argument to value, not {value!r}")
    return dict(value)


def unlabelled(reading: Mapping[str, Any]) -> dict[str, Any]:
    """The same reading for rows whose target is not looked at: it may be absent, or hold what training did not know."""
    return {**reading, "target": []}


def _alike(
    rows: Rows,
    schema: Schema,
    reading: Mapping[str, Any] | None,
    labels: bool = True,
    optional: Collection[str] = (),
) -> Dataset:
    """Rows read as the training rows were; ``labels``: the target has to be there, otherwise it is not looked at.

    optional: modalities whose columns may be absent.
    """
    if not isinstance(rows, Dataset):
        if reading is None:
            raise ConfigError("the training rows were tensors, so nothing says how to read others; give a kg.Dataset")
        return Table.from_reading(
            rows, reading if labels else unlabelled(reading), require_target=labels, optional=optional
        )
    if rows.schema.modalities != schema.modalities:
        raise DataError(
            f"{rows.name} is read otherwise than the training rows were: {_differ(rows.schema.modalities, schema.modalities)}"
        )
    check_reading(rows, reading)
    return rows


def _same_target(rows: Dataset, schema: Schema) -> None:
    reason = schema.task.same_meaning(rows.schema.task)
    if reason is not None:
        raise DataError(
            f"{rows.name} {reason}. Give the file, frame or records themselves, or read them with "
            "kg.Table.from_reading(rows, model.reading_)"
        )


def _differ(one: Sequence[Any], other: Sequence[Any], trained: str = "the model was trained on") -> str:
    names, wanted = [m.name for m in one], [m.name for m in other]
    if names != wanted:
        return f"it has the modalities {', '.join(names)}, {trained} {', '.join(wanted)}"
    a, b = next((a, b) for a, b in zip(one, other, strict=True) if a != b)
    for what in ("kind", "shape", "rate", "vocab", "categories"):
        mine, theirs = getattr(a, what), getattr(b, what)
        if mine != theirs:
            shown = [list(v) if isinstance(v, tuple) else v for v in (mine, theirs)]
            return f"modality {a.name!r} has {what} {shown[0]}, {trained} {shown[1]}"
    return f"modality {a.name!r} is another"
