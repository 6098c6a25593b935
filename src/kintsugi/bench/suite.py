"""Suites: which data sets, training conditions, methods, seeds and protocols make the trials of a benchmark.

.. code-block:: yaml

    about: one line
    budget: 2                            # minutes on two cores, optional
    datasets: [handwritten, {name: small, key: factors, options: {synergy: 1}}]
    training: [complete, "mcar(0.3)"]
    methods: [mean_fusion, {key: mmin, name: "mmin, wide", params: {dim: 64}}, "corrupted/*"]
    seeds: 3                             # 0, 1, 2; or a list
    protocol: standard                   # or a list: each has trials of its own
    trainer: {epochs: 20, lr: 0.003}
    reference: mean_fusion               # relative figures refer to it
    overrides:
      - {dataset: handwritten, method: mmin, trainer: {epochs: 30}}

Inside ``[ ]`` and ``{ }`` a comma ends a word of YAML, so what has one is quoted there. Whatever can be wrong is said
before anything runs, with file and line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.bench.job import Job, Planned, Source, rows_of
from kintsugi.bench.running import Limits
from kintsugi.bench.suite_conditions import read_metrics, read_protocols, read_seeds, read_training
from kintsugi.bench.suite_estimate import seconds_of
from kintsugi.bench.suite_file import Override, listed, read_file
from kintsugi.bench.suite_fitting import check_conditions, check_made, fitting, schema_of
from kintsugi.bench.suite_methods import Chosen, read_methods
from kintsugi.bench.suite_overrides import applies, params_for, read_overrides
from kintsugi.bench.suite_places import Places
from kintsugi.bench.suite_settings import apply_settings
from kintsugi.bench.suite_sources import read_sources
from kintsugi.bench.suite_trainer import read_trainer
from kintsugi.core.catalogue import METHODS
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.io.yaml_lines import document, read_text

if TYPE_CHECKING:
    from kintsugi.bench.store import Store

__all__ = ["Chosen", "Suite", "list_suites", "load_suite"]

SHIPPED = Path(__file__).parent / "suites"


@dataclass(frozen=True)
class Suite:
    """What a suite's file says, validated. It is made by :func:`load_suite`.

    name: of the file, without its ending; about: one line; budget: minutes on two cores that it promises;
    reference: label of the method that relative figures refer to, or several: mCE goes by the first, and effective
    robustness fits its line to all of them, so that it needs two; limits: of each trial.
    datasets, training, methods, seeds, protocols: every combination is a trial; what a pattern found and does not fit a
    data set is left out. trainer: arguments of :class:`~kintsugi.training.trainer.Trainer`; metrics: names, default:
    those of the task; resamples: of the bootstrap; costs: measured once a method and data set; models: keep them.
    """

    name: str
    about: str
    budget: float | None
    reference: str | list[str] | None
    limits: Limits
    datasets: tuple[Source, ...]
    training: tuple[str, ...]
    methods: tuple[Chosen, ...]
    seeds: tuple[int, ...]
    protocols: tuple[str, ...]
    trainer: Mapping[str, Any]
    metrics: tuple[str, ...]
    resamples: int
    costs: bool
    models: bool
    settings: Mapping[str, Any]
    _text: str = field(repr=False)
    _overrides: tuple[Override, ...] = field(repr=False)
    _places: Places = field(repr=False, compare=False)

    def text(self) -> str:
        """The YAML as it was read, without ``settings``."""
        return self._text

    def jobs(self) -> list[Job]:
        """Every trial, as what an executor runs. Reads the data sets, and checks all that depends on them.

        Data set after data set, so that a process holds few of them; then by protocol, method, training and seed.

        Raises:
            ConfigError: a data set that cannot be read; a method that was named and does not fit a data set; training,
                a protocol or a metric that a data set does not have. The message gives file and line.
        """
        return list(self._jobs)

    @cached_property
    def _jobs(self) -> tuple[Job, ...]:
        found: list[Job] = []
        for place, source in enumerate(self.datasets):
            schema = schema_of(source, place, self._places)
            methods = fitting(self.methods, source, schema, self._places)
            self._check(source, methods)
            first = (self.protocols[0], self.training[0], self.seeds[0])
            for protocol, method, training, seed in product(self.protocols, methods, self.training, self.seeds):
                trainer, params = self._values(source, method, training, protocol)
                found.append(
                    Job(
                        source, method.key, seed, training, protocol, method.label, params, trainer, self.metrics,
                        self.resamples, self.costs and (protocol, training, seed) == first, self.models,
                    )
                )  # fmt: skip
        return tuple(found)

    def planned(self, progress: Callable[[int, int], None] | None = None) -> list[Planned]:
        """The jobs with the trials that they are.

        Args:
            progress: told ``(trials named, trials in all)``.

        Raises:
            ConfigError, DataError: as :meth:`jobs`.
        """
        jobs, found = self.jobs(), []
        for job in jobs:
            found.append(Planned(job, job.trial()))
            if progress is not None:
                progress(len(found), len(jobs))
        return found

    def estimate(self, store: Store | None = None) -> float:
        """Seconds that all trials take on one worker, roughly; see :meth:`seconds`."""
        return sum(self.seconds(store))

    def seconds(self, store: Store | None = None) -> list[float]:
        """Seconds of each job, roughly.

        Where the store has results: the median of what trials of the same method, data set and protocol took, else of
        the same method and data set, else of the same method. Else by the table at the top of
        :mod:`kintsugi.bench.suite_estimate`: for each training row and epoch by the kinds of the modalities and the cost
        that the method's card states, and for each test row and condition. Another machine, or other work on this one,
        easily makes it half or twice as much.

        Args:
            store: of earlier trials.
        """
        return seconds_of(self._jobs, store)

    def _check(self, source: Source, methods: Sequence[Chosen]) -> None:
        """Training, protocols, metrics and arguments, before any of them costs time."""
        check_conditions(self, source, self._places)
        schema = rows_of(source)[0].schema
        for method in methods:
            pairs = product(self.training, self.protocols)
            wanted = (self._values(source, method, training, protocol)[1] for training, protocol in pairs)
            check_made(method, schema, wanted, self._places)

    def _values(
        self, source: Source, method: Chosen, training: str, protocol: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trainer and arguments of a job: of the suite, then of each override that matches, then as settings have them."""
        trainer, params = dict(self.trainer), dict(method.params)
        for other in self._overrides:
            if applies(other, source, method, training, protocol):
                trainer |= other.trainer
                params |= params_for(other, method.key)
        said = [key.partition(".")[2] for key in self.settings if key.startswith("trainer.")]
        if "trainer" in self.settings:
            said += list(self.settings["trainer"])
        return trainer | {name: self.trainer[name] for name in said}, params


def list_suites() -> list[str]:
    """Names of the suites that ship."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def load_suite(
    name_or_path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, check: bool = True
) -> Suite:
    """A suite that ships, by its name, or one from a YAML file.

    Args:
        name_or_path: the name, or the file; paths inside it are relative to it.
        settings: other values, as YAML would give them: ``trainer.epochs``, ``limits.seconds``, ``DATASET.OPTION`` (paths
            relative to where the process is), or a key of the file. Those of the trainer also go before overrides. Where
            methods are set and the file's reference is none of them, there is none.
        check: False also takes a suite that lacks options that its data sets need: to look at it, not to run it.

    Raises:
        UnknownName: no such suite, or no such setting.
        ConfigError: the file cannot be read, or something in it is unknown, twice there or makes no sense. The message
            gives file, line and the nearest right word.
    """
    path = _find(name_or_path)
    content = read_text(path)
    node, values = document(content, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys such as datasets: and methods:, found {type(values).__name__}")
    settings = dict(settings or {})
    values, given = apply_settings(values, settings)
    places = Places(str(path), node, given)
    read = read_file(values, places)
    methods = read_methods(read, places)
    labels = [method.label for method in methods]
    reference = _under_labels(read.reference, labels)
    unknown = next((name for name in listed(reference) or [] if name not in labels), None)
    if unknown is not None:
        if "methods" not in settings or "reference" in settings:
            raise places.wrong(str(UnknownName("method of this suite", unknown, labels)), "reference")
        reference = None
    sources = read_sources(read, path.parent, places, check)
    return Suite(
        name=path.stem, about=read.about, budget=read.budget, reference=reference,
        limits=Limits(read.limits.seconds, read.limits.memory),
        datasets=sources, training=read_training(read, places), methods=methods, seeds=read_seeds(read, places),
        protocols=read_protocols(read, places), trainer=read_trainer(read.trainer, places, "trainer"),
        metrics=read_metrics(read, places), resamples=read.resamples, costs=read.costs,
        models=read.models, settings=settings, _text=content,
        _overrides=read_overrides(read, sources, methods, places), _places=places,
    )  # fmt: skip


def _under_labels(reference: str | list[str] | None, labels: Sequence[str]) -> str | list[str] | None:
    """References as the methods are called; a key of before is that of today."""
    if isinstance(reference, list):
        return [name if name in labels else METHODS.current(name) for name in reference]
    return reference if reference is None or reference in labels else METHODS.current(reference)


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    if not isinstance(name_or_path, str):
        return Path(name_or_path)
    if name_or_path in list_suites():
        return SHIPPED / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix.lower() in (".yaml", ".yml") or len(path.parts) > 1 or path.is_file():
        return path
    raise UnknownName("suite", name_or_path, list_suites())
