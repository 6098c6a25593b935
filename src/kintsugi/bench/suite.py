"""Suites: which data sets, training conditions, methods, seeds and protocols make the trials of a benchmark.

.. code-block:: yaml

    about: one line
    budget: 2                            # minutes on two cores, optional
    datasets: [handwritten, {name: small, key: factors, options: {synergy: 1}}]
    training: [complete, "mcar(0.3)"]
    methods: [mean_fusion, {key: mmin, name: "mmin, wide", params: {width: 64}}, "corrupted/*"]
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

import inspect
import os
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, TypeAdapter, ValidationError

from kintsugi.bench.job import COMPLETE, Job, Planned, Source, rows_of, whole
from kintsugi.bench.running import Limits
from kintsugi.core.errors import ConfigError, KintsugiError, UnknownName, nearest
from kintsugi.core.yaml_lines import document, line, read_text

if TYPE_CHECKING:
    from kintsugi.bench.store import Store
    from kintsugi.core.schema import Schema

SHIPPED = Path(__file__).parent / "suites"
OWN = ("seed", "checkpoint", "progress")  # fields of the trainer that the bench gives itself
UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
LARGEST_SEED = 2**62  # validation rows take the next one, and both have to fit 64 bits

# Processor seconds on one core of a 2-core virtual machine: medians over nine methods, factors and avdigits at batch 32 and
# handwritten at 32 and 64, rounded. Good for an order of magnitude; earlier records of a store are better.
SECONDS_A_ROW_EPOCH = {"image": 2e-4, "audio": 5e-4, "text": 3e-4}  # of each modality of the kind
SECONDS_A_ROW_EPOCH_ELSE = 3e-5  # of each modality of another kind
FACTOR = {"low": 1.0, "medium": 1.6, "high": 3.0}  # of training, by the cost that a card states; "high" is assumed
SECONDS_A_ROW_CONDITION = 1e-4  # to answer and score a test row under one condition
SECONDS_A_TRIAL, SECONDS_OF_COSTS = 0.5, 2.0  # whatever the data


# what a file may say -------------------------------------------------------------------------------------------------
def _listed(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


def _keyed(value: Any) -> Any:
    return {"key": value} if isinstance(value, str) else value


def _counted(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError("seeds is a list of seeds, or how many there are: 1 or more")
        return list(range(value))
    return value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]i?b)\s*", value.lower())
    try:
        return int(float(found[1]) * UNITS[found[2]]) if found else int(value)
    except ValueError:
        raise ValueError("write memory as a number of bytes, or such as 4 GB or 512 MiB") from None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Dataset(_Strict):
    name: str = ""
    key: str = ""
    file: str = ""
    columns: str = ""
    options: dict[str, Any] = {}


class _Method(_Strict):
    key: Annotated[str, Field(min_length=1)]
    name: str = ""
    params: dict[str, Any] = {}


class _Limits(_Strict):
    seconds: Annotated[float, Field(gt=0)] | None = None
    memory: Annotated[int | None, BeforeValidator(_bytes), Field(gt=0)] = None


class _Override(_Strict):
    dataset: str = "*"
    method: str = "*"
    training: str = "*"
    protocol: str = "*"
    trainer: dict[str, Any] = {}
    params: dict[str, Any] = {}


_Keyed = BeforeValidator(_keyed)
_Names = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]


class _File(_Strict):
    about: str = ""
    budget: Annotated[float, Field(gt=0)] | None = None
    datasets: Annotated[list[Annotated[_Dataset, _Keyed]], BeforeValidator(_listed), Field(min_length=1)]
    training: _Names = [COMPLETE]
    methods: Annotated[list[Annotated[_Method, _Keyed]], BeforeValidator(_listed), Field(min_length=1)]
    seeds: Annotated[
        list[Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)]], BeforeValidator(_counted), Field(min_length=1)
    ] = [0]
    protocol: _Names = ["standard"]
    trainer: dict[str, Any] = {}
    metrics: Annotated[list[str], BeforeValidator(_listed)] = []
    resamples: Annotated[int, Field(ge=2)] = 200
    costs: bool = False
    models: bool = False
    reference: str | None = None
    limits: _Limits = _Limits()
    overrides: list[_Override] = []


_PARTS: dict[str, type[_Strict]] = {
    "datasets": _Dataset, "methods": _Method, "limits": _Limits, "overrides": _Override,
}  # fmt: skip


class _Located(ConfigError):
    """An error that says where already."""


class _Places:
    """Where everything of a file is, for errors.

    Args:
        name: of the file. node: its root. given: dotted setting -> the location that it set.
    """

    def __init__(self, name: str, node: Any, given: Mapping[str, tuple[Any, ...]]) -> None:
        self.name, self.node, self.given = name, node, given

    def said(self, *location: Any) -> str:
        """The setting that a value comes from, or the file and the line."""
        for setting, place in self.given.items():
            if location[: len(place)] == place:
                return ": ".join(
                    [f"--set {setting}", *([_dotted(location[len(place) :])] if location[len(place) :] else [])]
                )
        return f"{self.name}, line {line(self.node, location)}: {_dotted(location)}"

    @contextmanager
    def at(self, *location: Any) -> Iterator[None]:
        """Errors inside get this place."""
        try:
            yield
        except _Located:
            raise
        except KintsugiError as error:
            raise self.wrong(str(error), *location) from error

    def wrong(self, what: str, *location: Any) -> _Located:
        return _Located(f"{self.said(*location)}: {what}")


def _dotted(location: Sequence[Any]) -> str:
    return ".".join(map(str, location))


# a suite -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Chosen:
    """A method of a suite.

    key: of the registered method; label: its name in tables; params: its arguments; place: of it in the file's list;
    named: it is there by its key, so that it has to fit every data set; False: by a pattern.
    """

    key: str
    label: str
    params: Mapping[str, Any]
    place: int
    named: bool


@dataclass(frozen=True)
class Suite:
    """What a suite's file says, validated. It is made by :func:`load_suite`.

    name: of the file, without its ending; about: one line; budget: minutes on two cores that it promises;
    reference: label of the method that relative figures refer to; limits: of each trial.
    datasets, training, methods, seeds, protocols: every combination is a trial; what a pattern found and does not fit a
    data set is left out. trainer: arguments of :class:`~kintsugi.training.trainer.Trainer`; metrics: names, default:
    those of the task; resamples: of the bootstrap; costs: measured once a method and data set; models: keep them.
    """

    name: str
    about: str
    budget: float | None
    reference: str | None
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
    _overrides: tuple[_Override, ...] = field(repr=False)
    _places: _Places = field(repr=False, compare=False)

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
            schema = self._schema(place, source)
            methods = self._fitting(source, schema)
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
        the same method and data set, else of the same method. Else by the table at the top of this module: for each
        training row and epoch by the kinds of the modalities and the cost that the method's card states, and for each
        test row and condition. Another machine, or other work on this one, easily makes it half or twice as much.

        Args:
            store: of earlier trials.
        """
        known = _recorded(store)
        return [_known(job, known) or _guess(job) for job in self._jobs]

    # what depends on the data --------------------------------------------------------------------------------------
    def _schema(self, place: int, source: Source) -> Schema:
        with self._places.at("datasets", place):
            try:
                return whole(source).schema
            except (TypeError, ValueError, OSError) as error:
                if isinstance(error, KintsugiError):
                    raise
                raise ConfigError(f"data set {source.name} cannot be read: {error}") from error

    def _fitting(self, source: Source, schema: Schema) -> list[Chosen]:
        """The methods for a data set; one that was named has to fit."""
        found = []
        for method in self.methods:
            why = _misfit(method.key, schema)
            if why and method.named:
                raise self._places.wrong(f"on data set {source.name}: {why}", "methods", method.place)
            if not why:
                found.append(method)
        if not found:
            raise self._places.wrong(
                f"no method of these fits data set {source.name} ({schema.task.key}, {len(schema)} modalities)",
                "methods",
            )
        return found

    def _check(self, source: Source, methods: Sequence[Chosen]) -> None:
        """Training, protocols, metrics and arguments, before any of them costs time."""
        from kintsugi.bench.work import imperfect
        from kintsugi.evaluation.protocols import get_protocol

        train, _, test = rows_of(source)
        for place, training in enumerate(self.training):
            with self._places.at("training", place):
                imperfect(train, training, self.seeds[0])
        names: dict[str, str] = {}
        for place, protocol in enumerate(self.protocols):
            with self._places.at("protocol", place):
                name = get_protocol(protocol, test).name
                if name in names:
                    raise ConfigError(f"{protocol} is the same as {names[name]}; leave one out")
                names[name] = protocol
        known = train.schema.task.metrics()
        for place, metric in enumerate(self.metrics):
            if metric not in known:
                unknown = UnknownName(f"metric of {train.schema.task.key} (data set {source.name})", metric, known)
                raise self._places.wrong(str(unknown), "metrics", place)
        for method in methods:
            self._try(source, train.schema, method)

    def _try(self, source: Source, schema: Schema, method: Chosen) -> None:
        """Build a method whose arguments are not the defaults, since only that says whether they make sense."""
        import torch

        from kintsugi.core.methods import create

        tried: list[Mapping[str, Any]] = []
        for training, protocol in product(self.training, self.protocols):
            _, params = self._values(source, method, training, protocol)
            if not params or params in tried:
                continue
            tried.append(params)
            with self._places.at("methods", method.place), torch.random.fork_rng(devices=[]):
                try:
                    create(method.key, schema, **params)
                except KintsugiError:
                    raise
                except Exception as error:  # whatever a method makes of a value that it cannot use
                    raise ConfigError(f"{method.label} cannot be made with {dict(params)}: {error}") from error

    def _values(
        self, source: Source, method: Chosen, training: str, protocol: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trainer and arguments of a job: of the suite, then of each override that matches, then as settings have them."""
        trainer, params = dict(self.trainer), dict(method.params)
        for other in self._overrides:
            if (
                (fnmatchcase(source.name, other.dataset) or fnmatchcase(source.key, other.dataset))
                and _goes_by(method, other.method)
                and fnmatchcase(training, other.training)
                and fnmatchcase(protocol, other.protocol)
            ):
                trainer |= other.trainer
                params |= other.params
        said = [key.partition(".")[2] for key in self.settings if key.startswith("trainer.")]
        if "trainer" in self.settings:
            said += list(self.settings["trainer"])
        return trainer | {name: self.trainer[name] for name in said}, params


# reading one ---------------------------------------------------------------------------------------------------------
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
    node, values = document(content, str(path), aliases=False)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys such as datasets: and methods:, found {type(values).__name__}")
    settings = dict(settings or {})
    values, given = _apply(values, settings)
    places = _Places(str(path), node, given)
    try:
        read = _File.model_validate(values)
    except ValidationError as error:
        raise _Located(
            "\n".join(dict.fromkeys(_explain(problem, values, places) for problem in error.errors()))
        ) from error
    methods = _methods(read, places)
    labels = [method.label for method in methods]
    reference = read.reference
    if reference is not None and reference not in labels:
        if "methods" not in settings or "reference" in settings:
            raise places.wrong(str(UnknownName("method of this suite", reference, labels)), "reference")
        reference = None
    sources = _sources(read, path.parent, places, check)
    return Suite(
        name=path.stem, about=read.about, budget=read.budget, reference=reference,
        limits=Limits(read.limits.seconds, read.limits.memory),
        datasets=sources, training=_training(read, places), methods=methods, seeds=_seeds(read, places),
        protocols=_protocols(read, places), trainer=_trainer(read.trainer, places, "trainer"),
        metrics=tuple(_once(read.metrics, "metric", places, "metrics")), resamples=read.resamples, costs=read.costs,
        models=read.models, settings=settings, _text=content,
        _overrides=_overrides(read, sources, methods, places), _places=places,
    )  # fmt: skip


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    if not isinstance(name_or_path, str):
        return Path(name_or_path)
    if name_or_path in list_suites():
        return SHIPPED / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix.lower() in (".yaml", ".yml") or len(path.parts) > 1 or path.is_file():
        return path
    raise UnknownName("suite", name_or_path, list_suites())


# settings
def _apply(values: Mapping[Any, Any], settings: Mapping[str, Any]) -> tuple[dict[Any, Any], dict[str, tuple[Any, ...]]]:
    """The values with the settings in them, and the location that each setting set."""
    changed = deepcopy(dict(values))
    given: dict[str, tuple[Any, ...]] = {}
    for name, value in sorted(settings.items(), key=lambda item: "." in item[0]):  # whole keys first
        if name in _File.model_fields:
            changed[name], given[name] = value, (name,)
            continue
        head, _, rest = name.partition(".")
        if (head, rest) in ((h, f) for h, known in _inner().items() for f in known):
            inside = changed.setdefault(head, {})
            if not isinstance(inside, dict):
                raise ConfigError(f"--set {name}: {head} is {inside!r} and has no parts")
            inside[rest], given[name] = value, (head, rest)
            continue
        place, option = _dataset_option(changed, name)
        _set_option(changed["datasets"], place, option, value)
        given[name] = ("datasets", place, *((option,) if option in ("file", "columns") else ("options", option)))
    return changed, given


def _inner() -> dict[str, list[str]]:
    return {"trainer": list(_trainer_fields()), "limits": list(_Limits.model_fields)}


def _dataset_option(values: dict[Any, Any], name: str) -> tuple[int, str]:
    """Which data set, and which option of it, a setting means."""
    listed = _listed(values.get("datasets")) or []
    values["datasets"] = listed
    found: dict[str, tuple[int, str]] = {}
    for place, entry in enumerate(listed):
        entry = _keyed(entry)
        if isinstance(entry, dict):
            label, options = _label(entry), _options(str(entry.get("key", "")))
            for option in options if entry.get("key") else ("file", "columns"):
                found[f"{label}.{option}"] = (place, option)
    if name not in found:
        inner = [f"{head}.{one}" for head, known in _inner().items() for one in known]
        raise UnknownName("setting", name, [*_File.model_fields, *inner, *found])
    return found[name]


def _set_option(listed: list[Any], place: int, option: str, value: Any) -> None:
    entry = dict(_keyed(listed[place]))
    if entry.get("key"):
        if _is_path(entry["key"], option) and isinstance(value, str):
            value = _resolved(Path(), value)
        options = entry.get("options")
        entry["options"] = {**(options if isinstance(options, dict) else {}), option: value}
    else:
        entry[option] = _resolved(Path(), str(value))
    listed[place] = entry


def _label(entry: Mapping[str, Any]) -> str:
    """How a data set is called in tables and settings."""
    return str(entry.get("name") or entry.get("key") or Path(str(entry.get("file", ""))).stem)


def _resolved(folder: Path, path: str) -> str:
    """Absolute, since a worker may be started elsewhere."""
    return str((folder / Path(path).expanduser()).resolve())


# data sets
def _options(key: str) -> Mapping[str, inspect.Parameter]:
    from kintsugi.data.datasets import DATASETS

    return inspect.signature(DATASETS[key]).parameters if key in DATASETS else {}


def _is_path(key: str, option: str) -> bool:
    parameter = _options(key).get(option)
    return parameter is not None and "Path" in str(parameter.annotation)


def _sources(read: _File, folder: Path, places: _Places, check: bool) -> tuple[Source, ...]:
    found: list[Source] = []
    for place, entry in enumerate(read.datasets):
        with places.at("datasets", place):
            if bool(entry.key) == bool(entry.file):
                raise ConfigError("a data set has either a key, of a registered one, or a file with its columns")
            name = _label(entry.model_dump())
            if name in {source.name for source in found}:
                raise ConfigError(f"two data sets are called {name}; give one of them another name:")
            if name in _inner():
                raise ConfigError(f"a data set cannot be called {name}, which settings use; give it another name:")
        made = _registered if entry.key else _from_file
        found.append(made(entry, name, folder, places, place, check))
    return tuple(found)


def _registered(entry: _Dataset, name: str, folder: Path, places: _Places, place: int, check: bool) -> Source:
    from kintsugi.data.datasets import DATASETS

    here = ("datasets", place)
    if entry.columns:
        raise places.wrong("columns say how a file is read, and this data set has a key", *here, "columns")
    with places.at(*here, "key"):
        DATASETS[entry.key]
    known = _options(entry.key)
    options = dict(entry.options)
    for option, value in options.items():
        with places.at(*here, "options", option):
            if option not in known:
                raise UnknownName(f"option of data set {entry.key}", option, known)
            _check_plain(value)
            if isinstance(value, str) and _is_path(entry.key, option):
                options[option] = _resolved(folder, value)  # what a setting gave is absolute already
    lacking = [n for n, p in known.items() if p.default is p.empty and n not in options and p.kind is not p.VAR_KEYWORD]
    if lacking and check:
        sort = "PATH" if _is_path(entry.key, lacking[0]) else "VALUE"
        raise places.wrong(f"data set {name} needs {lacking[0]}; give it with --set {name}.{lacking[0]}={sort}", *here)
    return Source(entry.key, options, name)


def _check_plain(value: Any) -> None:
    for one in value if isinstance(value, list) else [value]:
        if not (one is None or isinstance(one, str | int | float)):
            raise ConfigError(f"an option is a number, text, true, false, or a list of these, not {one!r}")


def _from_file(entry: _Dataset, name: str, folder: Path, places: _Places, place: int, check: bool) -> Source:
    from kintsugi.data.columns import read_columns

    here = ("datasets", place)
    if entry.options:
        raise places.wrong("a file takes no options; its columns say how it is read", *here, "options")
    if not entry.columns:
        raise places.wrong(f"data set {name} needs columns, a YAML file that says how to read {entry.file}", *here)
    file, columns = _resolved(folder, entry.file), _resolved(folder, entry.columns)
    if not Path(file).is_file():
        raise places.wrong(f"{file} does not exist", *here, "file")
    with places.at(*here, "columns"):
        read_columns(columns)
    return Source("", {"file": file, "columns": columns}, name)


# methods
def _methods(read: _File, places: _Places) -> tuple[Chosen, ...]:
    """In the order of the file; what is there by its key goes before what a pattern finds under the same label."""
    from kintsugi.core.methods import METHODS, list_methods

    labels: set[str] = set()
    for place, entry in enumerate(read.methods):
        if entry.key in METHODS:
            label = entry.name or entry.key
            if label in labels:
                raise places.wrong(f"two methods are called {label}; give one of them another name:", "methods", place)
            labels.add(label)
    found: list[Chosen] = []
    for place, entry in enumerate(read.methods):
        if entry.key in METHODS:
            _check_params(entry.key, entry.params, places, "methods", place, "params")
            found.append(Chosen(entry.key, entry.name or entry.key, entry.params, place, True))
            continue
        keys = list_methods(entry.key)
        if not keys:
            raise places.wrong(_no_method(entry.key), "methods", place)
        if entry.name or entry.params:
            raise places.wrong(
                f"{entry.key} is a pattern of several methods, so it takes no name and no params; use overrides",
                "methods",
                place,
            )
        for key in keys:
            if key not in labels:
                labels.add(key)
                found.append(Chosen(key, key, {}, place, False))
    return tuple(found)


def _no_method(pattern: str) -> str:
    from kintsugi.core.methods import METHODS, card

    leaves = {card(key).leaf for key in METHODS}
    return str(UnknownName("method", pattern, [*METHODS, *(f"{leaf}/*" for leaf in leaves)]))


def _check_params(key: str, params: Mapping[str, Any], places: _Places, *location: Any) -> None:
    from kintsugi.core.methods import METHODS, arguments

    known = arguments(METHODS[key])
    for name, value in params.items():
        with places.at(*location, name):
            if name not in known:
                raise UnknownName(f"argument of {key}", name, known)
            _check_sort(key, name, known[name], value)


def _check_sort(key: str, name: str, default: Any, value: Any) -> None:
    """Text in place of a number would be found out in the middle of training only."""
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ConfigError(f"{name} of {key} is true or false, not {value!r}")
    if isinstance(default, int | float) and isinstance(value, str):
        raise ConfigError(f"{name} of {key} is a number such as {default}, not the text {value!r}{_exponent(value)}")


def _exponent(text: str) -> str:
    """YAML takes ``1e-3`` for text and ``1.0e-3`` for a number."""
    try:
        return f"; write {float(text)!r}"
    except ValueError:
        return ""


def _misfit(key: str, schema: Schema) -> str:
    """Why a method cannot be used; "": it can."""
    from kintsugi.core.methods import card

    found = card(key)
    least, most = found.modalities
    if schema.task.key not in found.tasks:
        return f"{key} does not solve {schema.task.key}; it solves {', '.join(sorted(found.tasks))}"
    if len(schema) < least or (most is not None and len(schema) > most):
        return f"{key} takes {least} to {most or 'any number of'} modalities, and it has {len(schema)}"
    return ""


# everything else
def _training(read: _File, places: _Places) -> tuple[str, ...]:
    found = []
    for place, text in enumerate(read.training):
        with places.at("training", place):
            _check_brackets(text)
            found.append(_one_spelling(text.strip()))
    return tuple(_once(found, "training condition", places, "training"))


def _one_spelling(text: str) -> str:
    """``mcar(0.30)`` as ``mcar(0.3)``, so that equal conditions are equal trials."""
    from kintsugi.imperfect import MECHANISMS, OPERATORS, parse_mechanism
    from kintsugi.imperfect.corruption import parse_corruption
    from kintsugi.imperfect.published import SETTINGS, published

    if text == COMPLETE:
        return text
    name = text.partition("(")[0].strip()
    if name in OPERATORS:
        parse: Callable[[str], Any] = parse_corruption
    elif name in MECHANISMS or published(text) is not None:
        parse = parse_mechanism
    else:
        raise UnknownName("training condition", name, [COMPLETE, *MECHANISMS, *OPERATORS, *SETTINGS])
    read = parse(text)
    same = str(read)
    return same if parse(same) == read else text


def _check_brackets(text: str) -> None:
    if text.count("(") != text.count(")"):
        raise ConfigError(
            f"{text!r} is cut off: a comma inside [ ] or {{ }} ends a word, so quote it there: 'gaussian_noise(image, 3)'"
        )


def _protocols(read: _File, places: _Places) -> tuple[str, ...]:
    from kintsugi.evaluation.protocols import PROTOCOLS
    from kintsugi.imperfect.published import SETTINGS, published

    found = []
    for place, text in enumerate(read.protocol):
        with places.at("protocol", place):
            _check_brackets(text)
            name = text.partition("(")[0].strip()
            if name not in PROTOCOLS and published(text) is None:
                raise UnknownName("protocol", name, [*PROTOCOLS, *SETTINGS])
            found.append(text.strip())
    return tuple(_once(found, "protocol", places, "protocol"))


def _seeds(read: _File, places: _Places) -> tuple[int, ...]:
    return tuple(_once(read.seeds, "seed", places, "seeds"))


def _once(values: Sequence[Any], what: str, places: _Places, *location: Any) -> Sequence[Any]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise places.wrong(f"{what} {value} is there twice", *location, place)
    return values


def _trainer_fields() -> dict[str, Any]:
    from kintsugi.training.trainer import Trainer

    return {f.name: f.type for f in fields(Trainer) if f.name not in OWN}


def _trainer(values: Mapping[str, Any], places: _Places, *location: Any) -> dict[str, Any]:
    """As the trainer takes them: ``3e-3``, which is text to YAML, as a number."""
    known = _trainer_fields()
    for name in values:
        with places.at(*location, name):
            if name in OWN:
                raise ConfigError(f"the bench sets {name} of the trainer itself; leave it out")
            if name not in known:
                raise UnknownName("argument of the trainer", name, known)
    return {name: _field(name, value, places, *location, name) for name, value in values.items()}


def _field(name: str, value: Any, places: _Places, *location: Any) -> Any:
    """One value by itself, so that an error names it."""
    from kintsugi.training.trainer import Trainer

    try:
        return getattr(TypeAdapter(Trainer).validate_python({name: value}), name)
    except ValidationError as error:
        raise places.wrong(_message(error.errors()[0]), *location) from error


def _overrides(
    read: _File, sources: Sequence[Source], methods: Sequence[Chosen], places: _Places
) -> tuple[_Override, ...]:
    found = []
    for place, other in enumerate(read.overrides):
        here = ("overrides", place)
        if not other.trainer and not other.params:
            raise places.wrong("an override has trainer: or params:, with the values that are other", *here)
        _check_matches(other, sources, methods, places, here)
        for method in methods:
            if _goes_by(method, other.method):
                _check_params(method.key, other.params, places, *here, "params")
        found.append(other.model_copy(update={"trainer": _trainer(other.trainer, places, *here, "trainer")}))
    return tuple(found)


def _check_matches(
    other: _Override, sources: Sequence[Source], methods: Sequence[Chosen], places: _Places, here: tuple[Any, ...]
) -> None:
    """A word that could match nothing is a mistake; what exists may be absent here, since settings can narrow a suite."""
    from kintsugi.core.methods import METHODS, list_methods
    from kintsugi.data.datasets import DATASETS

    names = {source.name for source in sources} | set(DATASETS)
    if not any(fnmatchcase(name, other.dataset) for name in names):
        raise places.wrong(str(UnknownName("data set", other.dataset, names)), *here, "dataset")
    if not list_methods(other.method) and not any(_goes_by(method, other.method) for method in methods):
        labels = {method.label for method in methods} | set(METHODS)
        raise places.wrong(str(UnknownName("method", other.method, labels)), *here, "method")


def _goes_by(method: Chosen, pattern: str) -> bool:
    from kintsugi.core.methods import list_methods

    return fnmatchcase(method.label, pattern) or method.key in list_methods(pattern)


# what pydantic says, in the words of the other errors
def _explain(problem: Any, values: Any, places: _Places) -> str:
    location, what = list(problem["loc"]), _message(problem)
    if problem["type"] == "missing":
        return f"{places.said(*location)}: is lacking"
    if problem["type"] == "extra_forbidden":
        kind = _PARTS[str(location[0])] if len(location) > 1 else _File
        what = f"unknown key{nearest(str(location[-1]), kind.model_fields)}"
    return f"{places.said(*_real(values, location))}: {what}"


def _message(problem: Any) -> str:
    found, what = problem["input"], problem["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    if isinstance(found, dict | list):
        return what if problem["type"] == "value_error" else f"a {type(found).__name__}: {what}"
    return f"{'nothing' if found is None else repr(found)}: {what}"


def _real(values: Any, location: Sequence[Any]) -> list[Any]:
    """The part of a location that is in the file."""
    real = []
    for part in location:
        inside = part in values if isinstance(values, dict) else isinstance(values, list) and isinstance(part, int)
        if not inside:
            break
        values = values[part]
        real.append(part)
    return real


# how long it takes ---------------------------------------------------------------------------------------------------
def _recorded(store: Store | None) -> dict[tuple[str, ...], float]:
    """Median seconds of done trials, by method, data set and protocol, by the first two, and by the first."""
    found: dict[tuple[str, ...], list[float]] = {}
    for record in store.records("done") if store is not None else ():
        names = (record.trial.method, record.trial.dataset, record.trial.protocol.name)
        for count in (1, 2, 3) if record.seconds is not None else ():
            found.setdefault(names[:count], []).append(float(record.seconds or 0))
    return {names: statistics.median(values) for names, values in found.items()}


def _known(job: Job, known: Mapping[tuple[str, ...], float]) -> float | None:
    if not known:
        return None
    from kintsugi.evaluation.protocols import get_protocol

    names = (job.label, job.source.name, get_protocol(job.protocol, rows_of(job.source)[2]).name)
    return next((known[names[:count]] for count in (3, 2, 1) if names[:count] in known), None)


def _guess(job: Job) -> float:
    from kintsugi.core.methods import card
    from kintsugi.evaluation.protocols import get_protocol
    from kintsugi.training.trainer import Trainer

    train, _, test = rows_of(job.source)
    epochs = int(job.trainer.get("epochs", Trainer.epochs))
    row = sum(SECONDS_A_ROW_EPOCH.get(m.kind, SECONDS_A_ROW_EPOCH_ELSE) for m in train.schema.modalities)
    training = len(train) * epochs * row * FACTOR[card(job.method).cost]
    answers = len(test) * len(get_protocol(job.protocol, test)) * SECONDS_A_ROW_CONDITION
    return SECONDS_A_TRIAL + training + answers + SECONDS_OF_COSTS * job.costs
