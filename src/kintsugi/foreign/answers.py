"""What a foreign model answers, checked and brought into the form of the task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Task

KINDS = ("logits", "probabilities", "values")
# A probability of 0 has no finite logarithm; the smallest normal number of float32 stands for it, exp(-87.3).
TINY = torch.finfo(torch.float32).tiny


def kind_of(output: str | None, task: Task, estimator: bool, who: str) -> str:
    """What the numbers of the answer are; see ``output`` of :func:`~kintsugi.foreign.wrap`.

    Raises:
        ConfigError: no such kind, or one that does not go with the task.
    """
    if output is not None and output not in KINDS:
        raise ConfigError(f"output={output!r} is unknown; known: {', '.join(KINDS)}")
    numbers = task.link == "identity"
    usual = "values" if numbers else "probabilities" if estimator else "logits"
    if output is not None and (output == "values") != numbers:
        raise ConfigError(f"{who}: output={output!r} does not go with {task.key}; say output={usual!r}")
    if estimator and output == "logits":
        raise ConfigError(f"{who} is an estimator: it is asked for probabilities; leave output= out")
    return output or usual


def tensor_of(raw: Any, who: str) -> Tensor:
    """The numbers of an answer: a tensor, an array, or the ``logits`` of a larger output.

    Raises:
        ConfigError: none of these.
    """
    found = raw["logits"] if isinstance(raw, Mapping) and "logits" in raw else getattr(raw, "logits", raw)
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(np.ascontiguousarray(found))
    if not isinstance(found, Tensor):
        raise ConfigError(
            f"{who} gave a {type(raw).__name__}; give a tensor, an array or an output with .logits: wrap a function that does"
        )
    return found


def checked(out: Tensor, rows: int, task: Task, labels: Sequence[Any] | None, who: str) -> Tensor:
    """The answer ``[rows, outputs]``, or as many columns as there are ``labels``; one column may lack its axis.

    Raises:
        ConfigError: another shape, NaN or infinity.
    """
    width = task.outputs if labels is None else len(labels)
    if out.ndim == 1 and width == 1:
        out = out[:, None]
    if tuple(out.shape) != (rows, width):
        raise ConfigError(
            f"{who} gave {list(out.shape)} for {rows} rows and {width} outputs of {task.key}; it has to be {[rows, width]}: "
            "wrap a function that brings it there, or say with labels= which columns there are"
        )
    if not bool(torch.isfinite(out).all()):
        bad = int((~torch.isfinite(out).all(1)).nonzero()[0])
        raise ConfigError(f"{who} gave NaN or infinity in row {bad} of a batch; look at what it makes of absent= there")
    return out


def as_logits(out: Tensor, task: Task, who: str) -> Tensor:
    """Probabilities ``[B, C]`` as logits: logarithms of classes, log odds of labels.

    Raises:
        ConfigError: below 0, above 1, or classes that do not sum to 1 within 1e-3.
    """
    one_of_several = task.link == "softmax"
    off = float((out.sum(1) - 1).abs().max()) if one_of_several else 0.0
    if float(out.min()) < 0 or float(out.max()) > 1 + 1e-5 or off > 1e-3:
        raise ConfigError(
            f"{who} gave no probabilities (from {float(out.min()):.3g} to {float(out.max()):.3g}, sums off by {off:.3g}); "
            "say output='logits'"
        )
    if one_of_several:
        return out.clamp(min=TINY).log()
    eps = torch.finfo(out.dtype).eps
    return out.clamp(eps, 1 - eps).logit()


def in_order(out: Tensor, task: Task, labels: Sequence[Any] | None, who: str) -> Tensor:
    """Logits ``[B, len(labels)]`` in the order of the task ``[B, C]``; a class that the model lacks has probability 0.

    Raises:
        ConfigError: a label that the task lacks, or that is there twice, or a label of several that is lacking.
    """
    if labels is None:
        return out
    names = list(task.names)
    columns = places(labels, names, who)
    if columns == list(range(len(names))):
        return out
    if len(columns) < len(names):
        if task.link != "softmax":
            raise ConfigError(f"{who} answers {len(columns)} of {len(names)} labels; each of them needs an answer")
        out = out.log_softmax(1)
    ordered = out.new_full((len(out), len(names)), math.log(TINY))
    ordered[:, columns] = out
    return ordered


def places(labels: Sequence[Any], names: Sequence[str], who: str) -> list[int]:
    """Column of the task for each label: by name, or whole numbers as ids from 0.

    Raises:
        ConfigError: unknown, twice, or whole numbers that mean one thing as names and another as ids.
    """
    if len(set(labels)) != len(labels):
        raise ConfigError(f"{who}: a label is there twice among {', '.join(map(str, labels))}")
    by_name = [names.index(str(x)) for x in labels] if all(str(x) in names for x in labels) else None
    whole = all(isinstance(x, int | np.integer) and 0 <= x < len(names) for x in labels)
    by_id = [int(x) for x in labels] if whole else None
    if by_name is not None and by_id is not None and by_name != by_id:
        raise ConfigError(
            f"{who}: labels {', '.join(map(str, labels))} may be ids or names of {', '.join(names)}, and differ; "
            "give labels= as text"
        )
    found = by_name if by_name is not None else by_id
    if found is None:
        odd = next(x for x in labels if str(x) not in names)
        raise ConfigError(
            f"{who} knows label {odd!r}, which the task lacks; it has {', '.join(names)}; see labels= of kg.wrap"
        )
    return found


def config_labels(model: Any, task: Task) -> list[str] | None:
    """Names of the outputs out of a transformers ``config.id2label``; None where these are placeholders."""
    said = getattr(getattr(model, "config", None), "id2label", None)
    if task.link == "identity" or not isinstance(said, Mapping) or not said:
        return None
    names = [str(said[k]) for k in sorted(said, key=int)]
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names
