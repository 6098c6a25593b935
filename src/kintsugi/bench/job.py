"""What is to be done for a trial, as plain values that travel to another process or machine, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kintsugi.bench.trial import Trial, facts
from kintsugi.core.catalogue import METHODS

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.data.dataset import Dataset

COMPLETE = "complete"


@dataclass(frozen=True)
class Source:
    """A data set of a suite.

    Args:
        key: its registered name; "" for a file.
        options: of a registered one; of a file ``file`` (Parquet or CSV) and ``columns`` (YAML that says how to read it).
        name: in tables; default: the key, or the name of the file.
    """

    key: str
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Job:
    """How one trial is run.

    Args:
        source: of the rows; its own split, or one drawn with seed 0, gives training, validation and test rows.
        method: key of a registered method.
        seed: of training, of the weights, and of the holes in training and validation rows.
        training: ``complete``, a mechanism such as ``mcar(0.3)``, or a corruption such as ``gaussian_noise(image, 3)``.
        protocol: what the test rows go through, such as ``standard`` or ``rates(0.1, 0.5)``.
        name: of the method in tables; default: its key.
        params: arguments of the method. trainer: of :class:`~kintsugi.training.trainer.Trainer`.
        metrics: names; default: those of the task.
        resamples: of the bootstrap over test rows.
        costs: also measure what answers cost.
        models: also bring back the trained model.
    """

    source: Source
    method: str
    seed: int = 0
    training: str = COMPLETE
    protocol: str = "standard"
    name: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    resamples: int = 200
    costs: bool = False
    models: bool = False

    @property
    def label(self) -> str:
        """The method's name in tables: its key of today, where it has no other."""
        return self.name or METHODS.current(self.method)

    def trial(self) -> Trial:
        """The trial that this job is; reads the data, and the same data only once in a process.

        Spellings of one thing are one trial (:mod:`kintsugi.bench.spelling`), and files that it names count by content.

        Raises:
            UnknownName, ConfigError, DataError: of the data set, the protocol or the method.
        """
        from kintsugi.bench.components import files_named, given_masks, trial_versions
        from kintsugi.bench.parameters import resolved_params, resolved_trainer
        from kintsugi.bench.spelling import params_spelling, protocol_spelling, training_spelling, without_folders

        parts = rows_of(self.source)
        test = parts[-1]
        protocol = protocol_spelling(self.protocol, test)
        training = training_spelling(self.training)
        key = METHODS.card(self.method).key
        params = params_spelling(key, self.params)
        trainer, metrics = resolved_trainer(self), list(self.metrics) or list(test.schema.task.metrics())
        decided: dict[str, Any] = {
            "method": key,
            "params": {
                name: without_folders(value) if isinstance(value, str) else value
                for name, value in resolved_params(key, params).items()
            },
            "trainer": trainer,
            "split": [part.fingerprint for part in parts],  # the same rows may be divided otherwise
            "metrics": metrics,
            "resamples": self.resamples,
        }
        if masks := given_masks(training, protocol):
            decided["masks"] = masks
        if files := files_named(key, params, parts[0].schema, training, protocol):
            decided["files"] = files
        return Trial(
            self.label,
            decided,
            test.name if not self.source.name else self.source.name,
            whole(self.source).fingerprint,
            without_folders(training),
            self.seed,
            protocol,
            trial_versions(
                key,
                params,
                parts[0].schema,
                training,
                protocol,
                metrics,
                trainer["select"],
                parts[0].reading is not None,
            ),
            facts(whole(self.source)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Planned:
    """A job and the trial that it is."""

    job: Job
    trial: Trial


@dataclass
class Done:
    """What a job brings back, all of it plain or small.

    results: one line for each condition and metric; outcomes: condition -> predicted classes ``[N]``, of classification;
    facts: costs, seconds, machine, curves; files: name -> content, of the model.
    """

    results: pd.DataFrame
    outcomes: dict[str, Any]
    facts: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


def whole(source: Source) -> Dataset:
    """All rows of a data set; read once in a process."""
    return _read(_frozen(source))[0]


def rows_of(source: Source) -> tuple[Dataset, Dataset, Dataset]:
    """Training, validation and test rows; the same objects for every job of a process, so that test rows are damaged once."""
    return _read(_frozen(source))[1]


def _frozen(source: Source) -> tuple[str, tuple[tuple[str, Any], ...]]:
    return source.key, tuple(sorted((k, _hashable(v)) for k, v in source.options.items()))


def _hashable(value: Any) -> Any:
    return tuple(_hashable(v) for v in value) if isinstance(value, list | tuple) else value


@lru_cache(maxsize=4)  # a suite goes through one data set after another
def _read(frozen: tuple[str, tuple[tuple[str, Any], ...]]) -> tuple[Dataset, tuple[Dataset, Dataset, Dataset]]:
    from pathlib import Path

    from kintsugi.data import datasets
    from kintsugi.data.columns import read_columns
    from kintsugi.data.table import Table

    key, options = frozen[0], dict(frozen[1])
    if key:
        data = datasets.load(key, **options)
    else:
        data = Table.from_rows(Path(options["file"]), **read_columns(Path(options["columns"])))
    return data, data.split()
