"""The data sets of a suite: registered ones with their options, and files with their columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kintsugi.bench.job import Source
from kintsugi.bench.suite_file import DatasetEntry, SuiteFile
from kintsugi.bench.suite_options import is_path, label_of, options_of, resolved
from kintsugi.bench.suite_places import Places
from kintsugi.bench.suite_settings import inner_settings
from kintsugi.core.errors import ConfigError, UnknownName


def read_sources(read: SuiteFile, folder: Path, places: Places, check: bool) -> tuple[Source, ...]:
    """The data sets, in the order of the file.

    Args:
        read: the file. folder: that paths in it are relative to. places: for errors.
        check: False also takes a data set that lacks options that it needs.

    Raises:
        Located: a data set or an option that does not exist, a file that cannot be read, a name that is there twice.
    """
    found: list[Source] = []
    for place, entry in enumerate(read.datasets):
        with places.at("datasets", place):
            if bool(entry.key) == bool(entry.file):
                raise ConfigError("a data set has either a key, of a registered one, or a file with its columns")
            name = label_of(entry.model_dump())
            if name in {source.name for source in found}:
                raise ConfigError(f"two data sets are called {name}; give one of them another name:")
            if name in inner_settings():
                raise ConfigError(f"a data set cannot be called {name}, which settings use; give it another name:")
        made = _registered if entry.key else _from_file
        found.append(made(entry, name, folder, places, place, check))
    return tuple(found)


def _registered(entry: DatasetEntry, name: str, folder: Path, places: Places, place: int, check: bool) -> Source:
    from kintsugi.data.datasets import DATASETS

    here = ("datasets", place)
    if entry.columns:
        raise places.wrong("columns say how a file is read, and this data set has a key", *here, "columns")
    with places.at(*here, "key"):
        DATASETS[entry.key]
    known = options_of(entry.key)
    options = dict(entry.options)
    for option, value in options.items():
        with places.at(*here, "options", option):
            if option not in known:
                raise UnknownName(f"option of data set {entry.key}", option, known)
            _check_plain(value)
            if isinstance(value, str) and is_path(entry.key, option):
                options[option] = resolved(folder, value)  # what a setting gave is absolute already
    lacking = [n for n, p in known.items() if p.default is p.empty and n not in options and p.kind is not p.VAR_KEYWORD]
    if lacking and check:
        sort = "PATH" if is_path(entry.key, lacking[0]) else "VALUE"
        raise places.wrong(f"data set {name} needs {lacking[0]}; give it with --set {name}.{lacking[0]}={sort}", *here)
    return Source(entry.key, options, name)


def _check_plain(value: Any) -> None:
    for one in value if isinstance(value, list) else [value]:
        if not (one is None or isinstance(one, str | int | float)):
            raise ConfigError(f"an option is a number, text, true, false, or a list of these, not {one!r}")


def _from_file(entry: DatasetEntry, name: str, folder: Path, places: Places, place: int, check: bool) -> Source:
    from kintsugi.data.columns import read_columns

    here = ("datasets", place)
    if entry.options:
        raise places.wrong("a file takes no options; its columns say how it is read", *here, "options")
    if not entry.columns:
        raise places.wrong(f"data set {name} needs columns, a YAML file that says how to read {entry.file}", *here)
    file, columns = resolved(folder, entry.file), resolved(folder, entry.columns)
    if not Path(file).is_file():
        raise places.wrong(f"{file} does not exist", *here, "file")
    with places.at(*here, "columns"):
        read_columns(columns)
    return Source("", {"file": file, "columns": columns}, name)
