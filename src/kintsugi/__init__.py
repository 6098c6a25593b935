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
    "wrap": "foreign",
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
    from kintsugi import contract as contract
    from kintsugi import encoders as encoders
    from kintsugi import methods as methods
    from kintsugi import tasks as tasks
    from kintsugi.core.batch import Batch as Batch
    from kintsugi.core.card import Card as Card
    from kintsugi.core.data import Splits as Splits
    from kintsugi.core.errors import KintsugiError as KintsugiError
    from kintsugi.core.features import Features as Features
    from kintsugi.core.features import Fused as Fused
    from kintsugi.core.features import Stream as Stream
    from kintsugi.core.methods import register as register
    from kintsugi.core.methods import variant as variant
    from kintsugi.core.model import Model as Model
    from kintsugi.core.part import Part as Part
    from kintsugi.core.pipeline import Pipeline as Pipeline
    from kintsugi.core.prediction import Prediction as Prediction
    from kintsugi.core.prediction import Step as Step
    from kintsugi.core.schema import Modality as Modality
    from kintsugi.core.schema import Schema as Schema
    from kintsugi.core.schema import StreamSpec as StreamSpec
    from kintsugi.core.schema import Task as Task
    from kintsugi.core.stage import Stage as Stage
    from kintsugi.core.wrappers import Monitor as Monitor
    from kintsugi.core.wrappers import Restorer as Restorer
    from kintsugi.core.wrappers import Strategy as Strategy
    from kintsugi.data import datasets as datasets
    from kintsugi.data.dataset import Dataset as Dataset
    from kintsugi.data.dataset import TensorSource as TensorSource
    from kintsugi.data.readers import (
        audio as audio,
    )
    from kintsugi.data.readers import (
        image as image,
    )
    from kintsugi.data.readers import (
        series as series,
    )
    from kintsugi.data.readers import (
        tabular as tabular,
    )
    from kintsugi.data.readers import (
        text as text,
    )
    from kintsugi.data.readers import (
        vector as vector,
    )
    from kintsugi.data.table import Table as Table
    from kintsugi.estimator import Classifier as Classifier
    from kintsugi.estimator import Regressor as Regressor
    from kintsugi.estimator import load as load
    from kintsugi.evaluation import (
        Condition as Condition,
    )
    from kintsugi.evaluation import (
        Protocol as Protocol,
    )
    from kintsugi.evaluation import (
        Results as Results,
    )
    from kintsugi.evaluation import (
        evaluate as evaluate,
    )
    from kintsugi.foreign import wrap as wrap
    from kintsugi.imperfect import corruption as corruptions
    from kintsugi.imperfect import missing as missing
    from kintsugi.training.trainer import Trainer as Trainer
