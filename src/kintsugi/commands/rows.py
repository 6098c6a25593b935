"""What commands read: rows of a file or of a built-in data set, and settings of a method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset


def training_rows(data: str, columns: Path | None, val: str | None, seed: int) -> tuple[Dataset, Dataset]:
    """Training and validation rows: of the file ``val``, of the split of the data, or 15 % of the rows."""
    from kintsugi.core.errors import ConfigError
    from kintsugi.data.splits import split_rows
    from kintsugi.data.table import Table

    rows = read(data, columns)
    first, second = (rows, None) if rows.source.split is None else rows.split()[:2]
    if val is not None:
        if rows.reading is None:
            raise ConfigError(f"{data} is no table, so --val cannot be read as it is; leave --val out")
        return first, Table.from_reading(val, rows.reading, require_target=True)
    if second is None or not len(second):  # no split column, or it names no row val
        kept, held, _ = split_rows(first, 0.15, 0.0, seed=seed)
        first, second = first.pieces(kept, held)
    return first, second


def read(data: str, columns: Path | None) -> Dataset:
    """A built-in data set, or a file read as a YAML says."""
    from kintsugi.core.errors import ConfigError
    from kintsugi.data import datasets
    from kintsugi.data.columns import read_columns
    from kintsugi.data.table import Table

    if columns is None:
        if data in datasets.list_datasets() or not Path(data).exists():
            return built_in(data)
        raise ConfigError(f"{data}: say how to read its columns in a YAML file; see kintsugi train --help")
    options = read_columns(columns)
    return Table.from_rows(data, **options)


def built_in(name: str) -> Dataset:
    """A data set by its name.

    Raises:
        ConfigError: there is none, or it needs options.
    """
    import inspect

    from kintsugi.core.errors import ConfigError, nearest
    from kintsugi.data import datasets

    known = datasets.list_datasets()
    if name not in known:
        raise ConfigError(f"{name} is neither a file nor a built-in data set{nearest(name, known)}")
    options = inspect.signature(datasets.DATASETS[name]).parameters.values()
    needed = [option.name for option in options if option.default is option.empty]
    if needed:
        raise ConfigError(
            f"data set {name} needs {', '.join(needed)}; load it in Python: "
            f"kintsugi.datasets.load({name!r}, {needed[0]}=…); see kintsugi datasets {name}"
        )
    return datasets.load(name)


def settings(pairs: list[str], method: str) -> dict[str, Any]:
    """Arguments of a method from ``NAME=VALUE``.

    Raises:
        UnknownName: no such argument. ConfigError: no pair, a value of another kind, or an argument under two names.
    """
    from kintsugi.core.errors import ConfigError, UnknownName
    from kintsugi.core.methods import METHODS, arguments, current_names
    from kintsugi.io.yaml_lines import word_value

    cls = METHODS[method]
    known = arguments(cls)
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, word = (part.strip() for part in pair.partition("="))
        if not sign or not name:
            raise ConfigError(f"--set takes NAME=VALUE, not {pair!r}")
        today = cls.renamed.get(name, name)
        if today not in known:
            raise UnknownName(f"argument of {method}", name, known)
        value = word_value(word, f"--set {pair[:200]}")
        if isinstance(known[today], (bool, int, float)) and not isinstance(value, (bool, int, float)):
            raise ConfigError(f"--set {pair}: {name} is like {known[today]!r}, not {word!r}")
        found[name] = value
    return current_names(cls, found)
