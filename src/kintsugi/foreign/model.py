"""Models that were made elsewhere, put under the same protocols as the methods of this library.

A foreign model knows no holes. Here it gets rows without any: what stands in absent slots and in unseen steps is replaced
before the model, or any function of the user's, is asked; and what it answers is checked and brought into the task's form.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.features import Features, Stream
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Stage
from kintsugi.foreign import answers, asking

__all__ = ["Foreign", "ForeignModel", "wrap"]

Absent = Literal["zero", "mean"] | Callable[[str, tuple[int, ...], Tensor], Tensor]
Inputs = Literal["dict", "positional", "keywords", "matrix"] | Callable[[Batch], Any]
Output = Literal["logits", "probabilities", "values"]
Prepare = Mapping[str, Callable[[Tensor], Any]]


def wrap(
    model: Any,
    schema: Schema,
    *,
    absent: Absent = "zero",
    reference: Data | None = None,
    inputs: Inputs | None = None,
    output: Output | None = None,
    prepare: Prepare | None = None,
    labels: Sequence[Any] | None = None,
) -> Foreign:
    """A model of any origin as a pipeline that :func:`kintsugi.evaluate` takes.

    Rows that hold nothing are not shown to the model: they get the prior of ``reference``'s labels, or without it the even
    answer (equal probabilities; the centre of a regression's scale), and a warning says so.

    Args:
        model: trained. A module or function of tensors, a scikit-learn estimator, or a model whose output has ``.logits``.
        schema: what the model reads; its modalities in the order in which it reads them.
        absent: what stands for an absent modality: ``zero``, the ``mean`` of each value over ``reference``, or a function of
            name, shape of a row and row ids int64 ``[R]`` that gives ``[R, *shape]``. Whole numbers, such as ids of text, and
            codes of categories have no mean: they get 0, which is padding and "unknown". Steps that were not seen get
            zero, or with ``mean`` the mean of that step.
        reference: training rows.
        inputs: how the model is called, with the tensors ``[B, ...]`` of the modalities: one ``dict`` of them,
            ``positional``, as ``keywords``, or as a NumPy ``matrix`` ``[B, F]`` of all of them flat, side by side. A function
            gets the filled batch and gives a tuple of positional arguments, a mapping of keywords, or the only argument.
            Default: ``matrix`` for what has ``predict``, ``keywords`` for what has a transformers ``config``, else ``dict``.
        output: ``logits``, ``probabilities`` or, for regression, ``values`` in the target's units. Default: values for
            regression, probabilities of an estimator, else logits.
        prepare: name -> function of the seen rows ``[R, ...]`` that gives what the model reads ``[R, ...]``, such as tokens
            for bytes. ``absent`` fills what it gives.
        labels: the label of each column of the output. Default: the estimator's ``classes_``, the names in a config's
            ``id2label``, else the order of the schema. Classes that the model does not know get a probability of 0.

    Raises:
        ConfigError: an argument that does not fit the task or the model, or labels that the schema lacks.
        DataError: the reference lacks a modality, or has other labels.
        UnknownName: ``prepare`` names a modality that the schema lacks.
    """
    if isinstance(model, Pipeline) or hasattr(model, "pipeline_"):
        raise ConfigError(f"a {type(model).__name__} is of this library: give it to kg.evaluate as it is")
    core = ForeignModel(
        schema, model, absent=absent, reference=reference, inputs=inputs, output=output, prepare=prepare, labels=labels
    )
    return Foreign(core)


class Foreign(Pipeline):
    """A foreign model as a pipeline; ``method`` is its name in tables."""

    model: ForeignModel

    def __init__(self, model: ForeignModel) -> None:
        super().__init__(model)
        self.method = model.who

    def matrix(self, data: Data) -> np.ndarray:
        """What an estimator gets of these rows, float32 ``[N, F]``: to fit it on, with the same stand-ins."""
        parts = [asking.flat(self.model.filled(batch)) for batch in data.batches(256)]
        if not parts:
            raise DataError(f"{data.name} has no rows")
        return np.concatenate(parts)


class ForeignModel(Model):
    """Fills holes, asks, checks the answer. Asked anew for each condition. Arguments: see :func:`wrap`."""

    encoding: ClassVar[Literal["separate", "joint"]] = "joint"

    def __init__(
        self,
        schema: Schema,
        model: Any,
        *,
        absent: Absent = "zero",
        reference: Data | None = None,
        inputs: Inputs | None = None,
        output: Output | None = None,
        prepare: Prepare | None = None,
        labels: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(schema, 1, fused=None)
        self.who, self.foreign = asking.name_of(model), model
        self.absent, self.functions, self.labels = absent, dict(prepare or {}), labels
        for name in self.functions:
            schema.column(name)
        self.estimator = not isinstance(model, nn.Module) and callable(getattr(model, "predict", None))
        self.inputs = asking.way_of(inputs, model, self.estimator)
        self.kind = answers.kind_of(output, schema.task, self.estimator, self.who)
        if not self.estimator and not callable(self.inputs):
            asking.check_call(model, self.inputs, schema.names)
        if not callable(absent) and absent not in ("zero", "mean"):
            raise ConfigError(f"absent={absent!r} is unknown; known: zero, mean, or a function of name, shape, row ids")
        self.steps: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}
        self.informed = reference is not None and reference.target is not None
        if reference is not None:
            asking.check_reference(reference, schema)
            if reference.target is not None:
                self.prior.copy_(schema.task.prior(reference))
        if absent == "mean":
            if reference is None:
                raise ConfigError("absent='mean' needs reference=, the training rows that the mean is taken over")
            self.steps = asking.means(reference, schema, lambda name, x, mask: (x, False))
            self.means = self.steps
            if self.functions:
                self.means = asking.means(
                    reference, schema, lambda name, x, mask: (self._seen(name, x, mask), name in self.functions)
                )
        if isinstance(model, nn.Module):
            self.to(next((p.device for p in model.parameters()), torch.device("cpu")))

    # what the model gets --------------------------------------------------------------------------------------------
    def filled(self, batch: Batch) -> Batch:
        """These rows as the model reads them, without holes; ``present`` and ``mask`` still tell where they were.

        Raises:
            DataError: the rows lack a modality that the model reads.
        """
        self._require(batch)
        present = self.columns(batch)
        return Batch(
            self.schema.names,
            {name: self._whole(name, batch, present[:, i]) for i, name in enumerate(self.schema.names)},
            present,
            batch.index,
            mask={name: m for name, m in batch.mask.items() if name in self.schema.names},
            context=batch.context,
        )

    def _require(self, batch: Batch) -> None:
        for name in self.schema.names:
            if name not in batch.names:
                raise DataError(f"{self.who} reads modality {name!r}; these rows have {', '.join(batch.names)}")

    def _whole(self, name: str, batch: Batch, here: Tensor) -> Tensor:
        x, mask = batch.inputs[name], batch.mask.get(name)
        if bool(here.any()):
            part = self._seen(name, x[here], None if mask is None else mask[here])
        else:  # a row of zeros tells the shape
            part = self._seen(name, x.new_zeros(1, *x.shape[1:]), None)[:0]
        out = part.new_zeros(len(here), *part.shape[1:])
        out[here] = part
        gone = batch.index[~here]
        if len(gone):
            out[~here] = self._stand_in(name, tuple(part.shape[1:]), gone).to(out)
        return out

    def _seen(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """Present rows ``[R, ...]``: unseen steps replaced, then prepared."""
        if mask is not None:
            fill = self.steps[name].to(x) if name in self.steps else x.new_zeros(())
            x = torch.where(mask.view(*mask.shape, *[1] * (x.ndim - 2)), x, fill)
        if name not in self.functions:
            return x
        out = torch.as_tensor(self.functions[name](x), device=x.device)
        if out.ndim < 1 or len(out) != len(x):
            raise ConfigError(f"prepare[{name!r}] made {list(out.shape)} of {len(x)} rows; give one row for each")
        return out

    def _stand_in(self, name: str, shape: tuple[int, ...], rows: Tensor) -> Tensor:
        if not callable(self.absent):
            return self.means[name] if self.absent == "mean" else torch.zeros(())
        given = torch.as_tensor(self.absent(name, shape, rows))
        if tuple(given.shape) != (len(rows), *shape) or not bool(torch.isfinite(given).all()):
            raise ConfigError(
                f"absent= gave {list(given.shape)} for {name!r}; it has to be finite and {[len(rows), *shape]}"
            )
        return given

    # what the model says --------------------------------------------------------------------------------------------
    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        self._require(batch)
        present = self.columns(batch)
        some = present.any(1)
        if not bool(some.all()) and not self.informed:
            warnings.warn(
                f"{self.who}: rows that hold nothing get the even answer, since no labels are known to take a prior "
                "from; give wrap(..., reference=train)",
                stacklevel=2,
            )
        out = self.prior.new_zeros(len(batch), *self.task.output_shape)
        if bool(some.any()):
            out[some] = self._answer(self.filled(batch.rows(some))).to(out)
        return Features({"answer": Stream.vector(out)}, present)

    def head(self, fused: Any, features: Features) -> Prediction:
        return Prediction(features.streams["answer"].pooled(), features.present)

    def fuse(self, features: Features) -> Any:
        return features.streams["answer"]

    def _answer(self, batch: Batch) -> Tensor:
        """The answer to rows without holes ``[B, outputs]``, as the task's loss wants it."""
        labels = self.labels
        try:
            if self.estimator:
                (x,), _ = self._arguments(batch)
                raw, own = asking.ask_estimator(self.foreign, x, self.task)
                labels = own if labels is None else labels
            else:
                given, named = self._arguments(batch)
                raw = self.foreign(*given, **named)
                labels = answers.config_labels(self.foreign, self.task) if labels is None else labels
        except Exception as error:
            sizes = ", ".join(f"{n} {list(x.shape)} {x.dtype}" for n, x in batch.inputs.items())
            raise ConfigError(
                f"{self.who} failed when it was called by inputs={self._way()} with {sizes} "
                f"({type(error).__name__}: {error}); see inputs= and prepare= of kg.wrap"
            ) from error
        out = answers.tensor_of(raw, self.who).to(self.prior.device).float()
        out = answers.checked(out, len(batch), self.task, labels, self.who)
        if self.kind == "values":
            return self.task.standardised(out)
        if self.kind == "probabilities":
            out = answers.as_logits(out, self.task, self.who)
        return answers.in_order(out, self.task, labels, self.who)

    def _way(self) -> str:
        return asking.name_of(self.inputs) if callable(self.inputs) else repr(self.inputs)

    def _arguments(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if callable(self.inputs):
            given = self.inputs(batch)
            if isinstance(given, tuple):
                return given, {}
            return ((), dict(given)) if isinstance(given, Mapping) else ((given,), {})
        if self.inputs == "matrix":
            return (asking.flat(batch),), {}
        if self.inputs == "dict":
            return (dict(batch.inputs),), {}
        return ((), dict(batch.inputs)) if self.inputs == "keywords" else (tuple(batch.inputs.values()), {})

    # what it does not do --------------------------------------------------------------------------------------------
    def stages(self) -> list[Stage]:
        return []

    def step(self, batch: Batch) -> Step:
        raise ConfigError(f"{self.who} is wrapped to be evaluated; train it with its own code and wrap it again")

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: its code is not of this library, so no saved folder could build it again."""
        raise ConfigError(
            f"{self.who} is a wrapped model and cannot be saved here; save it in its own format and wrap it after loading"
        )
