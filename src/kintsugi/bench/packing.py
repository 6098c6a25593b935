"""What a trial leaves: rows of results of one spelling, and predicted classes packed into a file."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kintsugi.bench.trial import Trial
from kintsugi.core.errors import DataError
from kintsugi.evaluation.results import COLUMNS, KEY
from kintsugi.io.files import open_bounded, replace_file

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 2 << 30  # of a file of outcomes, packed and unpacked: a million rows in 2,000 conditions, a byte each
Arrays = Mapping[str, np.ndarray[Any, Any]]


class Row(NamedTuple):
    """One line of results; NaN is None, as in the database."""

    condition: str
    group: str
    x: float | None
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    higher_is_better: bool
    mask_hash: str
    seconds: float | None

    @property
    def decided(self) -> tuple[Any, ...]:
        """Without timing."""
        return self[:-1]


def tidy(table: pd.DataFrame, trial: Trial) -> list[Row]:
    """The rows of a trial: conditions in the order of its protocol, metrics in the order of the table.

    Raises:
        DataError: the table is of another trial, lacks columns or conditions, or has two values for one thing.
    """
    absent = [column for column in COLUMNS if column not in table.columns]
    if absent:
        raise DataError(f"results of {trial} lack {', '.join(absent)}")
    for column in KEY:
        found = set(table[column].tolist()) - {getattr(trial, column)}
        if found:
            raise DataError(
                f"results of {trial} are of another trial: {column} is {min(map(repr, found))}, "
                f"not {getattr(trial, column)!r}"
            )
    place = {condition.name: i for i, condition in enumerate(trial.protocol.conditions)}
    given = table["condition"].tolist()
    for what, names in (
        ("lack", place.keys() - set(given)),
        ("have, unlike their protocol,", set(given) - place.keys()),
    ):
        if names:
            raise DataError(
                f"results of {trial} {what} condition {min(names)!r}; evaluate with protocol {trial.protocol.name}"
            )
    rows = [
        Row(
            str(r["condition"]), str(r["group"]), _number(r["x"]), str(r["metric"]), _number(r["value"]),
            _number(r["low"]), _number(r["high"]), int(r["n"]), bool(r["higher_is_better"]), str(r["mask_hash"]),
            _number(r["seconds"]),
        )
        for r in table[list(COLUMNS)].to_dict("records")
    ]  # fmt: skip
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if (row.condition, row.metric) in seen:
            raise DataError(f"results of {trial} have two values of {row.metric!r} in condition {row.condition!r}")
        seen.add((row.condition, row.metric))
    return sorted(rows, key=lambda row: place[row.condition])


def _number(value: Any) -> float | None:
    number = float(value) + 0.0  # the database has no -0.0
    return None if number != number else number


def rows_digest(rows: Sequence[Row]) -> str:
    """SHA-256 of rows without timing: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([row.decided for row in rows]).encode()).hexdigest()


def rows_differ(stored: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """What two runs of a trial disagree in, timing left out; a value must be the same to the last bit."""
    ours, theirs = ({(row.condition, row.metric): row for row in rows} for rows in (stored, now))
    found = [f"{m!r} in {c!r} is stored and was not measured now" for c, m in ours if (c, m) not in theirs]
    found += [f"{m!r} in {c!r} was measured now and is not stored" for c, m in theirs if (c, m) not in ours]
    for (condition, metric), row in ours.items():
        for name, a, b in zip(Row._fields, row.decided, theirs.get((condition, metric), row).decided, strict=False):
            if a != b:
                found.append(f"{name} of {metric!r} in {condition!r}: {a!r} stored, {b!r} now")
    return found or ([] if [r.decided for r in stored] == [r.decided for r in now] else ["the order of the metrics"])


# predicted classes -------------------------------------------------------------------------------------------------


def pack(outcomes: Mapping[str, Any], trial: Trial) -> dict[str, np.ndarray[Any, Any]]:
    """Predicted classes, each condition in the smallest unsigned type that holds it: 1 to 4 bytes a row before deflating.

    Args:
        outcomes: condition -> int or bool ``[N]`` or ``[N, K]``, an array or a tensor.
        trial: whose they are.

    Raises:
        DataError: a condition that the protocol lacks, or values that are no class.
    """
    known, packed = {condition.name for condition in trial.protocol.conditions}, {}
    for name, given in outcomes.items():
        if name not in known:
            raise DataError(f"outcomes of {trial} have condition {name!r}, which protocol {trial.protocol.name} lacks")
        array = np.asarray(given)
        low, high = (int(array.min()), int(array.max())) if array.size and array.dtype.kind in "biu" else (0, 0)
        if array.dtype.kind not in "biu" or low < 0 or high >= 2**32:
            raise DataError(
                f"outcomes of {trial} in {name!r} are no classes ({array.dtype}); give 0, 1, … for each row"
            )
        packed[name] = array.astype(np.min_scalar_type(high))
    return packed


def arrays_digest(arrays: Arrays) -> str:
    """SHA-256 of names, types, shapes and bytes: 64 hexadecimal digits; the same whatever deflates them."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_arrays(path: Path, arrays: Arrays) -> None:
    """A ``.npz`` with the same bytes at any time of day, there as a whole or not at all.

    Members are numbered, since a condition may be called what no file can be; ``names`` (JSON, UTF-8) says which is which.
    """
    names = sorted(arrays)
    members = {str(place): arrays[name] for place, name in enumerate(names)}
    members["names"] = np.frombuffer(json.dumps(names).encode(), np.uint8)
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, array in members.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{member}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)
    replace_file(path, memory.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What :func:`write_arrays` wrote.

    Raises:
        DataError: the file is gone, damaged, no regular file, or larger than outcomes are.
    """
    try:
        with open_bounded(path, MOST_BYTES, "file of outcomes") as file, np.load(file, allow_pickle=False) as archive:
            if sum(info.file_size for info in archive.zip.infolist()) > MOST_BYTES:
                raise ValueError(f"its members have more than {MOST_BYTES:,} bytes when they are unpacked")
            names = json.loads(archive["names"].tobytes())
            arrays = {name: archive[str(place)] for place, name in enumerate(names)}
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("a member is no array")
            return arrays
    except Exception as error:  # the parsers of ZIP, deflate and NPY raise anything on damaged bytes
        why = str(error)[:200] or type(error).__name__
        raise DataError(f"{path} cannot be read ({why}); the outcomes of this trial are lost") from error
