"""One training for a page, as plain values, and the trial that it is."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kintsugi.bench.job import Job, Source, whole
from kintsugi.bench.suite_trainer import OWN
from kintsugi.bench.trial import Trial, canonical
from kintsugi.core.catalogue import METHODS

if TYPE_CHECKING:
    from kintsugi.core.schema import Schema

PLAIN = "plain_baseline"
PLAIN_VERSION = 2  # raised with the candidates of the plain baseline
GENERATED = ("worlds",)  # sets that their options decide
WORLDS_VERSION = 1  # raised with the numbers of any world


@dataclass(frozen=True)
class Judged(Job):
    """As :class:`~kintsugi.bench.job.Job`.

    Args:
        without: name of the mechanism that an ablation takes away, of several; "": the only one; None: the method itself.
    """

    without: str | None = None

    def trial(self) -> Trial:
        """The trial that this job is. A world is told by its options and version; it is not made for that."""
        from kintsugi.bench.components import trial_versions
        from kintsugi.bench.spelling import protocol_spelling, training_spelling

        schema = schema_of(self.source)
        protocol = protocol_spelling(self.protocol, schema)
        training = training_spelling(self.training)
        metric = metric_of(schema)
        decided: dict[str, Any] = {
            "method": self.method, "metrics": [metric], "resamples": self.resamples,
            "source": {"key": self.source.key, **self.source.options},
        }  # fmt: skip
        if self.method == PLAIN:
            decided["candidates"] = PLAIN_VERSION
            versions: dict[str, Any] = {"origin": "scikit-learn"}
        else:
            decided |= {"trainer": _trainer(self.trainer)}
            if self.params:
                decided |= {"params": dict(self.params)}
            if self.without is not None:
                decided |= {"without": self.without, "ablation": _ablation(self.method, self.without)}
            table = self.source.key not in GENERATED
            versions = trial_versions(self.method, {}, schema, training, protocol, [metric], True, table)
        return Trial(
            self.label, decided, self.source.name, _fingerprint(self.source), training, self.seed, protocol, versions
        )

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.name or (self.method if self.method == PLAIN else METHODS.current(self.method))


def schema_of(source: Source) -> Schema:
    """That of the data; worlds of one premise share it, whatever their strength and seed."""
    options = {name: value for name, value in source.options.items() if name not in ("strength", "seed")}
    return _schema(source.key, canonical(options, "options"))


@lru_cache(maxsize=64)
def _schema(key: str, options: str) -> Schema:
    return whole(Source(key, json.loads(options))).schema


def metric_of(schema: Schema) -> str:
    """Accuracy, or of numbers R²."""
    names = list(schema.task.metrics())
    return "r2" if "r2" in names else names[0]


def _fingerprint(source: Source) -> str:
    if source.key not in GENERATED:
        return whole(source).fingerprint
    return canonical({**source.options, "version": WORLDS_VERSION}, "options")


def _ablation(method: str, part: str) -> Any:
    """What an ablation is, since it has no version: its arguments, or 16 digits of its class without words for people."""
    cls = METHODS[method]
    found = cls.ablations[part] if part else cls.ablation
    if isinstance(found, dict):
        return json.loads(canonical(found, "ablation"))
    tree = ast.parse(textwrap.dedent(inspect.getsource(found)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _trainer(given: Any) -> dict[str, Any]:
    from kintsugi.training.trainer import Trainer

    trainer = Trainer(**given)
    return {f.name: getattr(trainer, f.name) for f in fields(Trainer) if f.name not in OWN}
