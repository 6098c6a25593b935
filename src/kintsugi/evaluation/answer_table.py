"""Answers as a table that people read: what was predicted, how sure, and on what it rests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kintsugi.core.prediction import Prediction
from kintsugi.core.task import Task

if TYPE_CHECKING:
    import pandas as pd

PRIOR = "nothing (prior)"


def answer_frame(answer: Prediction, task: Task, names: Sequence[str], details: bool = False) -> pd.DataFrame:
    """One line for each row.

    Args:
        answer: on the CPU.
        task: which says how outputs are read.
        names: of the modalities of the model, in its order.
        details: with what each modality alone answers, the weights and the embedding, where the method gives them.

    Returns:
        The task's own columns; ``used``: modalities joined by "+"; ``uncertainty`` (of classes and labels in [0, 1]) or
        ``uncertainty_<target>`` (a variance, in squared units of the target); ``reliability_<modality>``. With details
        ``<modality>_<output>``, ``weight_<modality>``, ``embedding_<i>``. NaN where nobody can know.
    """
    import pandas as pd

    columns: dict[str, Any] = dict(task.decode(task.probabilities(answer.output.float())))
    columns["used"] = [
        "+".join(n for n, u in zip(names, row, strict=True) if u) or PRIOR for row in answer.used.tolist()
    ]
    if answer.uncertainty is not None:
        columns |= _uncertainty(answer.uncertainty.float(), task)
    columns |= _by_column("reliability", names, answer.reliability)
    if details:
        for modality, values in answer.unimodal.items():
            columns |= _by_column(modality, task.names, values.reshape(len(values), -1))
        columns |= _by_column("weight", names, answer.weights)
        embedding = answer.embedding
        columns |= _by_column("embedding", [] if embedding is None else range(embedding.shape[1]), embedding)
    return pd.DataFrame(columns)


def _uncertainty(uncertainty: Tensor, task: Task) -> dict[str, Any]:
    if uncertainty.ndim == 1:
        return {"uncertainty": uncertainty.numpy().round(4)}
    return _by_column("uncertainty", task.names, task.spread(uncertainty).reshape(len(uncertainty), -1))


def _by_column(what: str, names: Sequence[Any], values: Tensor | None) -> dict[str, Any]:
    if values is None:
        return {}
    return {f"{what}_{name}": column.numpy() for name, column in zip(names, values.T, strict=True)}
