"""How a foreign model is called: by what arguments, with what stand-ins, and what an estimator is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Schema, Task

WAYS = ("dict", "positional", "keywords", "matrix")


def name_of(model: Any) -> str:
    """The class of a model, the name of a function, the last step of a scikit-learn pipeline."""
    steps = getattr(model, "steps", None)
    if not isinstance(model, nn.Module) and isinstance(steps, list) and steps and isinstance(steps[-1], tuple):
        return name_of(steps[-1][-1])
    if inspect.isfunction(model) or inspect.ismethod(model):
        return "function" if model.__name__ == "<lambda>" else model.__name__
    return type(model).__name__


def way_of(inputs: Any, model: Any, estimator: bool) -> Any:
    """How the model is called; see ``inputs`` of :func:`~kintsugi.foreign.wrap`.

    Raises:
        ConfigError: no such way, or an estimator is to be called by something other than a matrix.
    """
    if inputs is None:
        return "matrix" if estimator else "keywords" if hasattr(model, "config") else "dict"
    if not callable(inputs) and inputs not in WAYS:
        raise ConfigError(f"inputs={inputs!r} is unknown; known: {', '.join(WAYS)}, or a function of the batch")
    if estimator and not callable(inputs) and inputs != "matrix":
        raise ConfigError(f"{name_of(model)} is an estimator: it takes inputs='matrix' or a function, not {inputs!r}")
    return inputs


def check_call(model: Any, way: str, names: Sequence[str]) -> None:
    """Does the model take these modalities, as far as its signature tells?

    Raises:
        ConfigError: it is no function, or takes fewer or other arguments.
    """
    who = name_of(model)
    if not callable(model):
        raise ConfigError(f"a {who} can neither be called nor asked to predict; give a function, module or estimator")
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):  # written in C: it says nothing of its arguments
        return
    given: tuple[Any, ...] = (None,) if way in ("dict", "matrix") else tuple(names) if way == "positional" else ()
    named = dict.fromkeys(names) if way == "keywords" else {}
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        raise ConfigError(
            f"{who}{signature} does not take the modalities {', '.join(names)} by inputs={way!r} ({error}); "
            "name in the schema those that it reads, in its order, or give inputs= a function of the batch"
        ) from error


def check_reference(reference: Data, schema: Schema) -> None:
    """Are the reference rows of the same task, and do they hold every modality?

    Raises:
        DataError: they lack a modality, or have other labels or another order of labels.
    """
    for modality in schema.names:
        if modality not in reference.schema.names:
            raise DataError(
                f"reference={reference.name} lacks modality {modality!r}; give the training rows of the model"
            )
    reason = schema.task.same_meaning(reference.schema.task)
    if reason is not None:
        raise DataError(f"reference={reference.name} {reason}")


def means(
    reference: Data, schema: Schema, seen: Callable[[str, Tensor, Tensor | None], tuple[Tensor, bool]]
) -> dict[str, Tensor]:
    """Mean of each value of a row over the rows, and the steps, where it was seen: name -> float ``[*shape]``.

    Args:
        reference: the rows.
        schema: the modalities.
        seen: name, present rows ``[R, ...]``, their mask ``[R, T]`` -> what is averaged ``[R, ...]``, and whether it is no
            longer the input itself (so that neither mask nor kind say anything of it).

    Raises:
        DataError: no row has the modality.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    changed: dict[str, bool] = {}
    whole: dict[str, bool] = {}
    for batch in reference.batches(256):
        for name in schema.names:
            here = batch.present[:, batch.names.index(name)]
            if not bool(here.any()):
                continue
            mask = batch.mask[name][here] if name in batch.mask else None
            x, changed[name] = seen(name, batch.inputs[name][here], mask)
            whole[name] = not x.is_floating_point()
            count = torch.ones_like(x, dtype=torch.float64)
            if mask is not None and not changed[name]:
                count = mask.view(*mask.shape, *[1] * (x.ndim - 2)).expand_as(x).double()
            total = torch.where(count > 0, x.double(), 0).sum(0)
            sums[name] = sums[name] + total if name in sums else total
            counts[name] = counts[name] + count.sum(0) if name in counts else count.sum(0)
    for name in schema.names:
        if name not in sums:
            raise DataError(f"no row of reference={reference.name} has modality {name!r}: there is no mean to take")
    found = {name: (sums[name] / counts[name].clamp(min=1)).float() for name in schema.names}
    for (
        name,
        mean,
    ) in found.items():  # ids and codes have no mean; 0 stands for padding and for "never seen in training"
        modality = schema[name]
        if whole[name] or (modality.vocab is not None and not changed[name]):
            mean.zero_()
        elif not changed[name]:
            mean[[k for k, categories in enumerate(modality.categories) if categories]] = 0
    return found


def flat(batch: Batch) -> np.ndarray:
    """All modalities side by side, each row flat: float32 ``[B, F]``."""
    parts = [x.detach().reshape(len(x), -1).float() for x in batch.inputs.values()]
    matrix: np.ndarray = torch.cat(parts, 1).cpu().numpy()
    return matrix


def ask_estimator(model: Any, x: Any, task: Task) -> tuple[Any, Sequence[Any] | None]:
    """Numbers or probabilities ``[B, outputs]`` of a scikit-learn estimator, and the label of each column (None: unsaid).

    What predicts labels only says 1 of the predicted class and 0 of the others.
    """
    wanted = getattr(model, "n_features_in_", None)
    if wanted is not None and getattr(x, "ndim", 0) == 2 and x.shape[1] != wanted:
        raise DataError(f"it was fitted on {wanted} features, and the modalities give {x.shape[1]}")
    if task.link == "identity":
        return model.predict(x), None
    classes = getattr(model, "classes_", None)
    if not callable(getattr(model, "predict_proba", None)):
        said = np.asarray(model.predict(x))
        if task.link == "sigmoid":
            return said.astype(np.float32), None
        known = list(task.names if classes is None else classes)
        return np.stack([said == label for label in known], 1).astype(np.float32), known
    said = model.predict_proba(x)
    if isinstance(said, list):  # a forest answers several labels one by one, each with the classes that it has seen
        columns = zip(said, classes if classes is not None else [(0, 1)] * len(said), strict=True)
        return np.stack([np.asarray(p)[:, [int(c) == 1 for c in known]].sum(1) for p, known in columns], 1), None
    return said, None if classes is None or task.link == "sigmoid" else list(classes)
