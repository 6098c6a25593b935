"""Which registered things a trial uses, with their versions, and which of a store are newer than those here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.bench.schema_sql import StoreError
from kintsugi.bench.spelling import quoted, without_folders
from kintsugi.bench.trial import canonical
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.metrics import metric_names
from kintsugi.core.schema import TASKS, Schema, Task
from kintsugi.data.content import content_digest, file_digest
from kintsugi.evaluation.protocols import Protocol

if TYPE_CHECKING:
    from kintsugi.bench.store import Record, Store
    from kintsugi.imperfect.distortion import Distortion
    from kintsugi.imperfect.mechanism import Mechanism

_pipelines: dict[tuple[type[Any], str, str], tuple[list[str], tuple[str, ...]]] = {}


def trial_versions(
    method: str,
    params: Mapping[str, Any],
    schema: Schema,
    training: str,
    protocol: Protocol,
    metrics: Sequence[str],
    chosen: bool | str,
    table: bool = False,
) -> dict[str, int]:
    """Versions of everything registered that a trial uses: ``{"method mmin": 1, "encoder vector": 1, "training": 1, …}``.

    Methods, encoders, operators and mechanisms of the pipeline (see :func:`kintsugi.training.components.names_in`), operators,
    mechanisms and published settings of the training condition and of each condition of the protocol, the task, the
    metrics, and training, reading and evaluation (:mod:`kintsugi.core.versions`).

    Args:
        method: key. params: arguments as given. schema: of the data.
        training: condition, as in :class:`~kintsugi.bench.job.Job`.
        protocol: of the trial.
        metrics: names of those that are reported.
        chosen: epochs are chosen by the first metric of the task, or by that of this name.
        table: the rows are those of a table, whose readers learn anew where training hides something of it.

    Raises:
        UnknownName, ConfigError: of the method, its arguments or a condition.
    """
    from kintsugi.training.components import WHOLE, versions_of

    names = {*WHOLE, f"task {schema.task.key}", *_of_pipeline(method, params, schema)[0]}
    names.update(name for spec in _specs(training, protocol) for name in _names_of(*spec))
    names.update(f"metric {metric}" for metric in metrics)
    if table and _hides(training):
        names.add("refit")
    if chosen:
        names.add(f"metric {chosen if isinstance(chosen, str) else next(iter(schema.task.metrics()))}")
    return versions_of(names, schema.task)


def _hides(training: str) -> bool:
    from kintsugi.imperfect.mechanism import Mechanism

    return isinstance(_parsed("training", training), Mechanism)


def given_masks(training: str, protocol: Protocol) -> dict[str, str]:
    """Conditions that name the file of a mask -> the mask by its content: the file may hold another one tomorrow."""
    specs = {(kind, text) for kind, text in _specs(training, protocol) if "mechanism given" in _names_of(kind, text)}
    return {without_folders(text): str(_parsed(kind, text)) for kind, text in sorted(specs)}


def files_named(
    method: str, params: Mapping[str, Any], schema: Schema, training: str, protocol: Protocol
) -> dict[str, list[str]]:
    """Conditions and ``method`` -> digests of the files that they name, in their order: their content may change.

    Files are what operators were given for their options, of the pipeline too, and the quoted words of mechanisms, but for
    masks (see :func:`given_masks`). A folder counts by its files and their names in it.

    Args:
        method, params, schema, training, protocol: as for :func:`trial_versions`.
    """
    digests: dict[str, list[str]] = {}
    for text, paths in (
        *((text, _paths_of(kind, text)) for kind, text in sorted(_specs(training, protocol))),
        ("method", _of_pipeline(method, params, schema)[1]),
    ):
        for path in paths:
            if (digest := _digest_of(path)) is not None:
                digests.setdefault(without_folders(text), []).append(digest)
    return digests


def _digest_of(named: str) -> str | None:
    """Of the file or folder of this name; None: there is none."""
    path = Path(named)
    try:
        if path.is_file():
            return file_digest(path).hex()
        if not path.is_dir():
            return None
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return content_digest([[str(file.relative_to(path)), file_digest(file)] for file in files]).hex()
    except (OSError, ValueError):  # a word that is no path, or a file that may not be read: the run says so
        return None


def _specs(training: str, protocol: Protocol) -> set[tuple[str, str]]:
    """Every imperfection as text, after ``training``, ``missing`` or ``corruption``."""
    texts = {("training", training)}
    for condition in protocol.conditions:
        texts.update(("corruption", text) for text in condition.corruptions)
        if condition.missing is not None:
            texts.add(("missing", condition.missing))
    return texts


def _parsed(kind: str, text: str) -> Mechanism | Distortion | None:
    from kintsugi.bench.work import parse_training
    from kintsugi.imperfect import parse_mechanism
    from kintsugi.imperfect.corruption import parse_corruption

    parse: Callable[[str], Mechanism | Distortion | None]
    parse = {"training": parse_training, "missing": parse_mechanism, "corruption": parse_corruption}[kind]
    return parse(text)


@lru_cache(maxsize=4096)  # a protocol has hundreds of conditions, and all trials of a suite share them
def _names_of(kind: str, text: str) -> tuple[str, ...]:
    from kintsugi.imperfect.components import components_of
    from kintsugi.imperfect.mechanism import MECHANISMS, Mechanism

    value = _parsed(kind, text)
    name = text.partition("(")[0].strip()
    asked = (f"mechanism {name}",) if isinstance(value, Mechanism) and name in MECHANISMS else ()
    return tuple(dict.fromkeys((*asked, *components_of(value))))


@lru_cache(maxsize=4096)
def _paths_of(kind: str, text: str) -> tuple[str, ...]:
    from kintsugi.imperfect.components import like_path, paths_given
    from kintsugi.imperfect.mechanism import Mechanism

    value = _parsed(kind, text)
    if isinstance(value, Mechanism) and "mechanism given" not in _names_of(kind, text):
        return tuple(word for word in quoted(text) if like_path(word))
    return paths_given(value)


def _of_pipeline(method: str, params: Mapping[str, Any], schema: Schema) -> tuple[list[str], tuple[str, ...]]:
    """What the pipeline of a method is made of, and the paths that its operators were given."""
    from kintsugi.core.methods import METHODS, create
    from kintsugi.core.randomness import fork_rng_in_turn
    from kintsugi.imperfect.components import paths_given
    from kintsugi.training.components import names_in

    key = (METHODS[method], canonical(params, "params"), canonical(schema.meaning(), "schema"))
    if key not in _pipelines:
        with fork_rng_in_turn():
            pipeline = create(method, schema, **params)
        paths = dict.fromkeys(path for module in pipeline.modules() for path in paths_given(vars(module)))
        _pipelines[key] = sorted({f"method {method}", *names_in(pipeline)}), tuple(paths)
    return _pipelines[key]


def raised(records: Iterable[Record]) -> list[str]:
    """What these trials name with a version above the first, which is that of whatever never changed its numbers."""
    pairs = {pair for record in records for pair in record.trial.registered.items() if pair[1] > 1}
    return [f"{name} {version}" for name, version in sorted(pairs)]


# what is newer elsewhere --------------------------------------------------------------------------------------------
def newer(versions: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is named there and newer than here, or not here at all: ``operator fog 3 (here 2)``, ``method mine (not here)``.

    A version that is no whole number from 1 up is said too, as ``method mmin "2" (no version; damaged)``.

    Args:
        versions: of trials. Results that somebody else ran, and trials of version 0.1.0, ask for nothing.
    """
    highest: dict[str, int] = {}
    own: dict[str, int | None] = {}
    damaged: set[str] = set()
    for named in versions:
        if "origin" in named:
            continue
        for name, version in named.items():
            if type(version) is not int or version < 1:
                if not isinstance(version, str) or _is_registered(name):  # 0.1.0 wrote packages, as text
                    damaged.add(f"{name} {json.dumps(version)[:40]} (no version; damaged)")
            else:
                current = _current(name, named)
                if current is None or version > current:
                    highest[name], own[name] = max(version, highest.get(name, 0)), current
    return [
        f"{name} (not here)" if own[name] is None else f"{name} {version} (here {own[name]})"
        for name, version in sorted(highest.items())
    ] + sorted(damaged)


def _is_registered(name: str) -> bool:
    from kintsugi.training.components import REGISTRIES, SOMETIMES, WHOLE

    return name in (*WHOLE, *SOMETIMES) or name.partition(" ")[0] in (*REGISTRIES, "method", "metric", "setting")


def _current(name: str, versions: Mapping[str, Any]) -> int | None:
    from kintsugi.training.components import versions_of

    task = next((key.removeprefix("task ") for key in versions if key.startswith("task ")), "")
    if name.startswith("metric ") and task in TASKS and not _has_metric(TASKS[task], name.removeprefix("metric ")):
        return None
    if task not in TASKS:
        return None if name == f"task {task}" else _current(name, {f"task {next(iter(TASKS))}": 1})
    try:
        return versions_of([name], TASKS[task])[name]
    except UnknownName:
        return None


@lru_cache(maxsize=256)
def _has_metric(task: type[Task], name: str) -> bool:
    try:
        return name in metric_names(task(("a", "b")))  # type: ignore[call-arg]
    except (TypeError, ValueError, ConfigError):  # a task of a plugin that is made from something else than names
        return True


def refuse_newer(store: Store) -> None:
    """Raise where trials of a store name versions that are newer than here, or things that are not here.

    Raises:
        StoreError: names the things, both versions and the remedy.
    """
    ahead = newer(store.versions())
    if ahead:
        raise StoreError(
            f"{store.folder} holds trials of {_few(ahead)}; nothing is run into it, since results of both would lie side by "
            "side. Update kintsugi, install or name the plugin, or give another folder; `kintsugi bench check` looks for damage"
        )


def said_newer(store: Store) -> str:
    """One line about what is newer in a store than here; "": nothing."""
    ahead = newer(store.versions())
    return f"{store.folder} holds trials of {_few(ahead)}; they are shown as they are" if ahead else ""


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
