"""Kintsugi: multimodal learning when the data is imperfect.

Names are loaded when they are first used, so ``import kintsugi`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "estimator", "Regressor": "estimator", "load": "estimator",
    "Table": "data.table", "Dataset": "data.dataset", "TensorSource": "data.dataset",
    "image": "data.readers", "audio": "data.readers", "text": "data.readers", "tabular": "data.readers",
    "series": "data.readers", "vector": "data.readers",
    "evaluate": "evaluation", "Results": "evaluation", "Protocol": "evaluation", "Condition": "evaluation",
    "Trainer": "training.trainer", "Splits": "core.data",
    "Pipeline": "core.pipeline", "Model": "core.model", "Part": "core.part",
    "Restorer": "core.wrappers", "Strategy": "core.wrappers", "Monitor": "core.wrappers",
    "Batch": "core.batch", "Features": "core.features", "Stream": "core.features", "Fused": "core.features",
    "Prediction": "core.prediction", "Step": "core.prediction", "Stage": "core.stage",
    "Card": "core.card", "register": "core.methods", "variant": "core.methods",
    "Schema": "core.schema", "Modality": "core.schema", "StreamSpec": "core.schema", "Task": "core.schema",
    "KintsugiError": "core.errors",
}  # fmt: skip
_MODULES = {
    "methods": "methods", "datasets": "data.datasets", "missing": "imperfect.missing", "corruptions": "imperfect.corruption",
    "tasks": "tasks", "encoders": "encoders", "contract": "contract",
}  # fmt: skip

__all__ = [*_HOMES, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"kintsugi.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"kintsugi.{_MODULES[name]}")
    raise AttributeError(f"module 'kintsugi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:  # for type checkers and editors; nothing here runs
    from kintsugi import contract, encoders, methods, tasks
    from kintsugi.core.batch import Batch
    from kintsugi.core.card import Card
    from kintsugi.core.data import Splits
    from kintsugi.core.errors import KintsugiError
    from kintsugi.core.features import Features, Fused, Stream
    from kintsugi.core.methods import register, variant
    from kintsugi.core.model import Model
    from kintsugi.core.part import Part
    from kintsugi.core.pipeline import Pipeline
    from kintsugi.core.prediction import Prediction, Step
    from kintsugi.core.schema import Modality, Schema, StreamSpec, Task
    from kintsugi.core.stage import Stage
    from kintsugi.core.wrappers import Monitor, Restorer, Strategy
    from kintsugi.data import datasets
    from kintsugi.data.dataset import Dataset, TensorSource
    from kintsugi.data.readers import audio, image, series, tabular, text, vector
    from kintsugi.data.table import Table
    from kintsugi.estimator import Classifier, Regressor, load
    from kintsugi.evaluation import Condition, Protocol, Results, evaluate
    from kintsugi.imperfect import corruption as corruptions
    from kintsugi.imperfect import missing
    from kintsugi.training.trainer import Trainer
