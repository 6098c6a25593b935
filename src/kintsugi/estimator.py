"""The scikit-learn face: fit, predict, score, save, on tables, data frames or records with holes."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.data import Splits
from kintsugi.core.encoder import check_encoders
from kintsugi.core.errors import ConfigError, DataError, ModelFileError, NonFiniteLoss, UnknownName
from kintsugi.core.methods import create
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.randomness import fork_rng_in_turn
from kintsugi.core.schema import Schema
from kintsugi.core.task import TASKS, Face, Task
from kintsugi.data.cells import Reader, reader_from_json
from kintsugi.data.dataset import Dataset
from kintsugi.data.labelled import check_rows, is_rows, with_labels, with_weights
from kintsugi.data.labels import OnError
from kintsugi.data.profile import Profile, tell
from kintsugi.data.reading import check_reading, rows_for
from kintsugi.data.refit import learned_from, read_as
from kintsugi.data.splits import split_rows
from kintsugi.data.table import Table
from kintsugi.evaluation.answer_table import answer_frame
from kintsugi.io import saved_models as store
from kintsugi.training.checks import absent_in_use, cards_of
from kintsugi.training.trainer import Trainer

__all__ = ["Classifier", "Regressor", "estimator_for", "load", "rows_for", "unlabelled"]

Rows = Dataset | pd.DataFrame | Sequence[Mapping[str, Any]] | str | os.PathLike[str]
CHUNK = 256


class _Estimator:
    """What classifier and regressor share.

    Args:
        method: key of a registered method (``kg.methods.list()``), or a pipeline of your own, of which a copy is trained.
        params: arguments of the method; further keywords are taken as such too, a clash raises.
        modalities, target, task: how to read data frames and records, as in :class:`kintsugi.Table`; a table brings its own.
            Without ``task`` a classifier takes one target for classes and several for labels.
        epochs, updates, lr, batch_size, patience, select, device, checkpoint, progress: see :class:`kintsugi.Trainer`.
        trainer: further arguments of the trainer.
        seed: of the initial weights, the order of rows, views, and the validation split where none is given.
        encoders: modules of your own, by modality.
        class_weight: of a classification: ``balanced`` (inverse to the frequency in the training rows), a dict from label to
            weight, or weights in the order of the classes. A table brings its own.
    """

    face: ClassVar[Face]
    usual: ClassVar[tuple[str, str]]  # keys of the tasks of one and of several targets, where none is said
    pipeline_: Pipeline
    reading_: dict[str, Any] | None
    trainer_: Trainer
    trained_on_: dict[str, Any]
    training_condition_: str
    profile_: Profile | None = None  # of the training rows; models that were saved without one say nothing
    _stopped: dict[str, Any] | None = None  # what a fit had found out before its loss was not finite

    def __init__(
        self,
        method: str | Pipeline = "mean_fusion",
        *,
        params: Mapping[str, Any] | None = None,
        modalities: Mapping[str, Reader] | None = None,
        target: str | Sequence[str] | None = None,
        task: str | Task | None = None,
        epochs: int = 20,
        updates: int | None = None,
        lr: float = 1e-3,
        batch_size: int = 64,
        patience: int | None = None,
        select: bool | str = True,
        seed: int = 0,
        device: str = "cpu",
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        trainer: Mapping[str, Any] | None = None,
        encoders: Mapping[str, nn.Module] | None = None,
        class_weight: str | Mapping[Any, float] | Sequence[float] | None = None,
        **hyper: Any,
    ) -> None:
        self.method, self.params, self.modalities, self.target, self.task = method, params, modalities, target, task
        self.epochs, self.updates, self.lr, self.batch_size = epochs, updates, lr, batch_size
        self.patience, self.seed = patience, seed
        self.device, self.checkpoint, self.progress, self.trainer = device, checkpoint, progress, trainer
        self.encoders, self.class_weight, self.select, self.hyper = encoders, class_weight, select, hyper

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
        told = [f"{k}={v!r}" for k, v in self.get_params().items() if k in usual and usual[k] is not v != usual[k]]
        told += [f"{k}={v!r}" for k, v in self.hyper.items()]
        return f"{type(self).__name__}({', '.join([repr(self.method), *(t for t in told if not t.startswith('method='))])})"

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Columns that the modalities read, in their order; only of rows that were read from a table."""
        reading = vars(self).get("reading_")
        if reading is None:
            raise AttributeError(f"{type(self).__name__} has no feature_names_in_: it was not fitted on a table")
        columns = (c for saved in reading["modalities"].values() for c in reader_from_json(saved).columns)
        return np.array(list(dict.fromkeys(columns)), dtype=object)

    @property
    def n_features_in_(self) -> int:
        """How many columns :attr:`feature_names_in_` names."""
        return len(self.feature_names_in_)

    # training -------------------------------------------------------------------------------------------------
    def fit(
        self,
        X: Rows,
        y: Any = None,
        *,
        val: Rows | tuple[Rows, Any] | None = None,
        auxiliary: Rows | None = None,
        sample_weight: Any = None,
    ) -> Self:
        """Train. Without ``val`` a tenth of the rows is held out to choose the epoch, with a warning.

        Args:
            X: rows to learn from: a data set, a frame, records, a file.
            y: labels of the rows, ``[N]``, or ``[N, K]`` for several targets, where they are no column of ``X``: a Series, an
                array or a list. They become the column ``target``, or one of their own where ``target`` is not said. Anything
                that is a table is taken for ``val``: ``fit(train, val)``.
            val: rows that choose the epoch, or a pair of such rows and their labels.
            auxiliary: a second table for methods whose stages read one: pairs, unlabelled rows, enrolment. It needs no
                target, and may lack columns.
            sample_weight: weight of each row in the loss, ``[N]``.

        Raises:
            DataError: rows that cannot be used; the message names row, modality and remedy.
            ConfigError: arguments that make no sense; UnknownName: of a method, argument or column, with the nearest.
            NonFiniteLoss: a loss became NaN or infinite; :meth:`keep_best` gives the best epoch before it.

        What the training rows were like is kept in ``profile_`` and saved with the model (see
        :class:`~kintsugi.data.profile.Profile`): later calls warn where a modality is absent far more often, where numbers are
        far out of their range, and where rows are scored that the model was trained on.

        The fits of one process take turns: one in another thread waits (see :meth:`~kintsugi.training.trainer.Trainer.fit`).
        """
        self._stopped = None
        if y is not None and is_rows(y):
            if val is not None:
                raise ConfigError("validation rows were given twice, as the second argument and as val=")
            self._check_no_labels(X, y)
            y, val = None, y
        rows = self._table(*self._supervised(X, y, sample_weight))
        self._check_face(rows)
        if y is not None and rows.schema.task.exclusive:
            _tell_order(rows.schema.task)
        reading = None if rows.reading is None else dict(rows.reading)
        if val is None:
            warnings.warn("no validation rows were given: a tenth of the training rows is held out", stacklevel=2)
            kept, held, _ = split_rows(rows, 0.1, 0.0, seed=self.seed)
            rows, other = rows.pieces(kept, held)
        else:
            if isinstance(val, tuple) and len(val) == 2 and is_rows(val[0]) and not isinstance(val[1], Mapping):
                val = self._joined(val[0], val[1], None if reading is None else reading["target"])
            other = _alike(val, rows.schema, reading)  # type: ignore[arg-type]
            _same_target(other, rows.schema)
        made_for = self.method.schema.task if isinstance(self.method, Pipeline) else None
        task = made_for if made_for == rows.schema.task else None
        # neither what was hidden nor other rows say how these are read
        rows, other = learned_from(rows, other, task=task)
        reading = None if rows.reading is None else dict(rows.reading)
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
            else _alike(auxiliary, rows.schema, rows.reading, labels=None, optional=rows.schema.names)
        )
        condition = "complete" if rows.condition == "as given" and bool(rows.present.all()) else rows.condition
        facts: dict[str, Any] = {
            "trainer_": trainer,
            "reading_": reading,
            "training_condition_": condition,
            "trained_on_": trained_on,
            "profile_": Profile.of(rows),
        }
        try:
            pipeline = trainer.fit(built, Splits(rows, other, auxiliary=second))
        except NonFiniteLoss:
            self._stopped = facts
            raise
        # only now, so that a fit that fails leaves the one before as it was
        pipeline.reading = reading
        vars(self).update(facts, pipeline_=pipeline, _stopped=None)
        return self

    def keep_best(self) -> Self:
        """After a fit that a loss stopped which was not finite: what the best epoch before it had learned is what was fitted.

        The training is not run again; see :meth:`~kintsugi.training.trainer.Trainer.keep_best`.

        Raises:
            ConfigError: the last fit did not end so, or no epoch whose score is known had ended.
        """
        if self._stopped is None:
            raise ConfigError(
                "there is no best epoch to keep: the last fit was not stopped by a loss that is not finite"
            )
        pipeline = self._stopped["trainer_"].keep_best()
        pipeline.reading = self._stopped["reading_"]
        vars(self).update(self._stopped, pipeline_=pipeline, _stopped=None)
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
                raise ConfigError(
                    f"{rows.name} does not fit the pipeline: {odd}. Sizes are those of the training rows: make the "
                    "pipeline for kintsugi.data.refit.learned_from(train)[0].schema"
                )
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
        with fork_rng_in_turn():
            torch.manual_seed(self.seed)
            return create(self.method, rows.schema, encoders=self.encoders, **params, **self.hyper)

    def _trainer(self) -> Trainer:
        own: dict[str, Any] = {
            "epochs": self.epochs, "updates": self.updates, "lr": self.lr, "batch_size": self.batch_size,
            "patience": self.patience, "seed": self.seed, "device": self.device, "checkpoint": self.checkpoint,
            "progress": self.progress, "select": self.select,
        }  # fmt: skip
        more = _mapping(self.trainer, "trainer")
        if self.select is True and "select" in more:  # where it was said before it had a keyword of its own
            own["select"] = more.pop("select")
        known = {f.name for f in fields(Trainer)} - own.keys()
        for name in more:
            if name in own:
                raise ConfigError(f"{name} is an argument of {type(self).__name__} itself, not one for trainer=")
            if name not in known:
                raise UnknownName("argument of the trainer", name, known)
        return Trainer(**own, **more)

    def _supervised(self, X: Rows, y: Any, weight: Any) -> tuple[Rows, list[str] | None, str | None]:
        """Rows with the labels and weights that came beside them as columns, the names of the targets, and of the weights."""
        targets = [self.target] if isinstance(self.target, str) else None if self.target is None else list(self.target)
        if y is not None:
            X, targets = with_labels(X, y, targets, classes=self.face == "classifier")
        name = None
        if weight is not None:
            X, (name,) = with_weights(X, weight)
        return X, targets, name

    def _joined(self, rows: Any, y: Any, target: Sequence[str] | None) -> Rows:
        """Rows with labels that came beside them, to be read as the training rows were."""
        if target is None and not isinstance(rows, Dataset):
            raise ConfigError("the training rows were tensors, so nothing says how to read others; give a kg.Dataset")
        joined: Rows = with_labels(
            rows,
            y,
            target,
            classes=self.face == "classifier",
            remedy="it brings its own labels: leave y out",
        ).rows
        return joined

    def _check_no_labels(self, X: Rows, y: Any) -> None:
        """A frame as the second argument is validation rows; one that cannot be is labels, which a frame does not hand over."""
        if not isinstance(X, pd.DataFrame) or not isinstance(y, pd.DataFrame) or not self.modalities:
            return
        columns = {c for reader in self.modalities.values() for c in reader.columns}
        if columns <= set(X.columns) and not columns & set(y.columns):
            raise ConfigError(
                "a data frame as the second argument is taken for validation rows, and this one has none of the columns that "
                "the modalities read; if it holds labels, give y.to_numpy(), or one of its columns"
            )

    def _table(self, rows: Rows, target: list[str] | None = None, weight: str | None = None) -> Dataset:
        """Training rows."""
        if isinstance(rows, Dataset):
            if self.class_weight is not None:
                raise ConfigError(
                    f"{rows.name} is a data set, which brings its own weights of classes: leave class_weight out, and give "
                    "class_weights= to the table"
                )
            return rows
        if not self.modalities or not target:
            raise ConfigError(
                "to fit a data frame or records, say how to read them: modalities={'note': kg.text('note')}, target='outcome'"
                " or labels as the second argument — or make a kg.Table"
            )
        check_rows(rows)
        several = len(target) > 1
        options: dict[str, Any] = {
            "modalities": self.modalities,
            "target": target if several or not isinstance(self.target, str | None) else target[0],
            "task": self.task or self.usual[several],
            "class_weights": self.class_weight,
            "weight": weight,
        }
        return Table.from_rows(rows, **options)

    # use ------------------------------------------------------------------------------------------------------
    def _fitted(self) -> Pipeline:
        if not hasattr(self, "pipeline_"):
            raise ConfigError(f"this {type(self).__name__} is not fitted yet; call fit first")
        return self.pipeline_

    def read(self, rows: Rows, *, labels: bool = True, on_error: OnError | None = None) -> Dataset:
        """Rows as a data set, read as the training rows were; a data set is returned as it is.

        Args:
            rows: a data set, a frame, records, a file.
            labels: the target column has to be there; otherwise it is not looked at.
            on_error: as for ``predict``.
        """
        pipeline = self._fitted()
        return _alike(rows, pipeline.schema, self.reading_, labels, absent_in_use(pipeline), on_error)

    def _tell(self, data: Dataset, scored: bool = False) -> None:
        """Warn where rows are unlike those of training, or where those that are scored are the very same."""
        tell(self.profile_, data, scored=scored, optional=absent_in_use(self._fitted()), stacklevel=4)

    def _answers(
        self, data: Dataset, stream: bool = False, on_error: OnError | None = None
    ) -> Iterator[tuple[Tensor, Prediction]]:
        """For each batch which modalities could be read, and the answer.

        A method that adapts starts from its calibrated state; ``stream``: from where the last call left it. A row whose answer
        is not finite gets the prior, and one warning names such rows.
        """
        pipeline = self._fitted().eval()
        device = pipeline.model.prior.device
        if not stream:
            pipeline.reset()
        if any(card.reference for card in cards_of(pipeline)):
            data = data.identified()
        lost: list[int] = []
        with torch.no_grad() if pipeline.adapts else torch.inference_mode():
            for batch in data.batches(CHUNK):
                prediction, wrong = finite_answers(pipeline, batch.to(device))
                lost += batch.index[wrong].tolist()
                if lost and on_error == "raise":
                    raise DataError(_not_finite(data.name, lost))
                yield batch.present, prediction
        if lost:
            warnings.warn(f"{_not_finite(data.name, lost)} They get the answer of a row with nothing", stacklevel=4)

    def _values(self, data: Dataset, stream: bool = False, on_error: OnError | None = None) -> Tensor:
        """What the task's ``probabilities`` makes of the answers ``[N, ...]``."""
        task = self._fitted().schema.task
        none = torch.zeros(0, *task.output_shape)
        outputs = [p.output.float().cpu() for _, p in self._answers(data, stream, on_error)] or [none]
        return torch.cat([task.probabilities(output) for output in outputs])

    def _asked(self, rows: Rows, stream: bool, on_error: OnError | None) -> Tensor:
        """What ``predict`` and ``predict_proba`` make their answers of."""
        data = self.read(rows, labels=False, on_error=on_error)
        self._tell(data)
        values = self._values(data, stream, on_error)
        _tell_problems(data, on_error)
        return values

    def explain(self, rows: Rows, *, on_error: OnError | None = None) -> pd.DataFrame:
        """What each answer rests on: for every row and modality whether it was there and whether it was used.

        ``on_error``: see ``predict``.
        """
        names = self._fitted().schema.names
        none = torch.zeros(0, len(names), dtype=torch.bool)
        data = self.read(rows, labels=False, on_error=on_error)
        self._tell(data)
        found = [(there, p.used.cpu()) for there, p in self._answers(data, on_error=on_error)] or [(none, none)]
        _tell_problems(data, on_error)
        there, used = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        frame = pd.DataFrame(there, columns=[f"{n}_present" for n in names])
        return frame.join(pd.DataFrame(used, columns=[f"{n}_used" for n in names]))

    def predict_frame(
        self, rows: Rows, *, details: bool = False, stream: bool = False, on_error: OnError | None = None
    ) -> pd.DataFrame:
        """Answers as a table: the prediction, its probability or each target, and which modalities were used.

        ``uncertainty``: of classes and labels in [0, 1], mostly the normalised entropy; of numbers a variance for each
        target, in its squared units, where the method gives one. ``reliability_<modality>`` in [0, 1], where the method
        gives it. Empty where nobody can know: the prior spoke, or the modality is absent.

        Args:
            rows: as for ``predict``.
            details: what each modality alone answers, the weights of modalities and the embedding too, where the method
                gives them.
            stream: a method that adapts goes on from where the last call left it.
            on_error: see ``predict``.
        """
        pipeline = self._fitted()
        names = pipeline.model.schema.names
        data = self.read(rows, labels=False, on_error=on_error)
        self._tell(data)
        parts = [
            answer_frame(answer.map(lambda x: x.cpu()), pipeline.schema.task, names, details)
            for _, answer in self._answers(data, stream, on_error)
        ]
        _tell_problems(data, on_error)
        frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"used": []})
        frame.insert(0, "row", range(len(frame)))
        return frame

    def _score(self, rows: Rows, y: Any, sample_weight: Any, on_error: OnError | None) -> float:
        """The plain score of the task on those of the rows that have a label."""
        pipeline = self._fitted()
        if y is not None:
            rows = self._joined(rows, y, None if self.reading_ is None else self.reading_["target"])
        data = self.read(rows, on_error=on_error)
        if data.target is None or not bool(data.target_present.any()):
            raise DataError(f"{data.name} has no labels to score against")
        _same_target(data, pipeline.schema)
        self._tell(data, scored=True)
        weight = None
        if sample_weight is not None:
            weight = torch.as_tensor(np.asarray(sample_weight, dtype=np.float64))
            if weight.shape != (len(data),):
                raise DataError(f"sample_weight has shape {list(weight.shape)} for {len(data)} rows")
            weight = weight[data.target_present]
        data = data.subset(data.target_present)
        assert data.target is not None
        more = () if weight is None else (weight,)
        values = self._values(data, on_error=on_error)
        _tell_problems(data, on_error)
        return pipeline.schema.task.score(values, data.target, *more)[1]

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
            "profile": None if self.profile_ is None else self.profile_.to_json(),
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
        """The classes in the type of the labels, in the order of the columns of ``predict_proba``; or names of the labels."""
        return np.array(self.pipeline_.schema.task.labels)

    def predict_proba(self, rows: Rows, *, stream: bool = False, on_error: OnError | None = None) -> np.ndarray:
        """Probabilities ``[N, C]``; a row with nothing gets the class frequencies of the training rows.

        ``stream``: a method that adapts in use goes on from where the last call left it; otherwise it starts from the
        state in which it was saved.

        ``on_error``: of a cell that cannot be read: ``raise``, or ``missing``: it is absent, and a warning says how many are;
        None: as the training rows were read. A row whose numbers are so large that the answer is not finite gets the answer
        of a row with nothing, with a warning, unless ``raise`` is said.
        """
        values: np.ndarray = self._asked(rows, stream, on_error).numpy()
        return values

    def predict(self, rows: Rows, *, stream: bool = False, on_error: OnError | None = None) -> np.ndarray:
        """The classes ``[N]``, in the type of the labels: numbers, booleans or text; for several labels a 0/1 matrix
        ``[N, C]`` at probability 0.5. A model saved by a version that did not know the type answers with text.

        ``stream``, ``on_error``: see :meth:`predict_proba`.
        """
        chosen: np.ndarray = self._fitted().schema.task.decide(self._asked(rows, stream, on_error))
        return chosen

    def score(self, X: Rows, y: Any = None, sample_weight: Any = None, *, on_error: OnError | None = None) -> float:
        """Accuracy on the rows that have a label; for several labels the mean accuracy of a label, for classes in an order
        kappa with quadratic weights.

        Args:
            X: rows, as for ``predict``, with their target column unless ``y`` is given.
            y: labels of the rows, as for ``fit``.
            sample_weight: weight of each row ``[N]``.
            on_error: see :meth:`predict_proba`.
        """
        return self._score(X, y, sample_weight, on_error)


class Regressor(_Estimator):
    """Predicts one or more numbers for rows with holes."""

    __doc__ = f"{__doc__}\n\n{(_Estimator.__doc__ or '').partition(chr(10))[2].strip()}"
    face = "regressor"
    usual = ("regression", "regression")

    def predict(self, rows: Rows, *, stream: bool = False, on_error: OnError | None = None) -> np.ndarray:
        """Values ``[N]`` (or ``[N, K]``) in the target's units; a row with nothing gets the training mean.

        ``stream``: a method that adapts in use goes on from where the last call left it; otherwise it starts from the
        state in which it was saved.

        ``on_error``: of a cell that cannot be read: ``raise``, or ``missing``: it is absent, and a warning says how many are;
        None: as the training rows were read. A row whose numbers are so large that the answer is not finite gets the answer
        of a row with nothing, with a warning, unless ``raise`` is said.
        """
        values: np.ndarray = self._fitted().schema.task.decide(self._asked(rows, stream, on_error))
        return values

    def score(self, X: Rows, y: Any = None, sample_weight: Any = None, *, on_error: OnError | None = None) -> float:
        """R² on the rows that have a label.

        Args:
            X: rows, as for ``predict``, with their target columns unless ``y`` is given.
            y: labels of the rows, as for ``fit``.
            sample_weight: weight of each row ``[N]``.
            on_error: see :meth:`predict`.
        """
        return self._score(X, y, sample_weight, on_error)


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
    pipeline.reading = model.reading_
    model.training_condition_ = extra.get("training_condition", "unstated")
    try:
        model.profile_ = Profile.from_json(extra.get("profile"))
    except DataError as error:
        raise ModelFileError(f"{folder} is damaged: {error}") from error
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
    labels: bool | None = True,
    optional: Collection[str] = (),
    on_error: OnError | None = None,
) -> Dataset:
    """Rows read as the training rows were; ``labels``: the target has to be there, is not looked at, or None: may be there.

    optional: modalities whose columns may be absent. on_error: of cells that cannot be read; None: as in training.
    """
    if not isinstance(rows, Dataset):
        if reading is None:
            raise ConfigError("the training rows were tensors, so nothing says how to read others; give a kg.Dataset")
        check_rows(rows)
        wanted = unlabelled(reading) if labels is False else reading
        return Table.from_reading(rows, wanted, require_target=bool(labels), optional=optional, on_error=on_error)
    if on_error is not None:
        raise ConfigError(
            f"on_error= is for frames, records and files; {rows.name} is a data set, which was told when it was made"
        )
    rows = rows if reading is None else read_as(rows, reading, bool(labels))
    if rows.schema.modalities != schema.modalities:
        raise DataError(
            f"{rows.name} is read otherwise than the training rows were: {_differ(rows.schema.modalities, schema.modalities)}"
        )
    check_reading(rows, reading)
    return rows


def finite_answers(pipeline: Pipeline, batch: Batch) -> tuple[Prediction, Tensor]:
    """Answers of which none is NaN or infinite, and bool ``[B]`` on the CPU: rows that got the prior's for that reason.

    Of a pipeline that adapts, which such a row would spoil for those after it, these rows are taken out of what it learns from,
    and it goes on from its calibrated state.

    Raises:
        DataError: the model itself is not finite.
    """
    prediction: Prediction = pipeline(batch)
    wrong = _wrong(prediction)
    if not bool(wrong.any()):
        return prediction, wrong.cpu()
    if pipeline.adapts:
        pipeline.reset()
        wrong = _wrong(pipeline.answer_before(batch))
        prediction = pipeline(replace(batch, present=batch.present & ~wrong[:, None]))
        pipeline_lost = _wrong(prediction)
        wrong = wrong | pipeline_lost
        if bool(pipeline_lost.any()):
            pipeline.reset()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (*pipeline.parameters(), pipeline.model.prior)):
        raise DataError("the weights of this model are not finite, so it has no answers; train it again")
    names = pipeline.model.schema.names
    present = pipeline.model.columns(batch) & ~wrong[:, None]
    return prediction.where_present(names, present).fall_back(~wrong, pipeline.model.prior), wrong.cpu()


def _wrong(prediction: Prediction) -> Tensor:
    return ~torch.isfinite(prediction.output).flatten(1).all(1)


def _not_finite(name: str, rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
    return (
        f"{name}: the answer to {len(rows)} rows is not finite: row {shown} (counted from 0). Look for numbers there that are "
        "far from all that the model was trained on."
    )


def _tell_order(task: Task) -> None:
    """scikit-learn takes columns of probabilities for sorted classes, whatever ``classes_`` says: of those it hands ``y``."""
    if list(task.labels) != sorted(task.labels):
        warnings.warn(
            f"the classes stand in the order {', '.join(map(repr, task.labels))}, which is not the sorted one: scores of "
            "scikit-learn that take probabilities, such as roc_auc and neg_log_loss, would take columns for other classes; "
            "give labels that sort in this order, such as numbers",
            stacklevel=3,
        )


def _tell_problems(data: Dataset, on_error: OnError | None) -> None:
    """Who asked here for unreadable cells to be absent is told how many are; the rows themselves are not handed back."""
    if on_error != "missing" or not len(data.problems):
        return
    first = next(iter(data.problems))
    warnings.warn(
        f"{data.name}: {len(data.problems)} cells cannot be used and count as absent; the first is row {first.row} (counted "
        f"from 0), modality {first.modality!r}: {first.where}: {first.reason}",
        stacklevel=4,
    )


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
