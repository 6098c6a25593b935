"""What the file of a suite may say, as pydantic models, and what is wrong with one, in the words of the other errors."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError

from kintsugi.bench.job import COMPLETE
from kintsugi.bench.suite_places import Located, Places
from kintsugi.core.errors import nearest
from kintsugi.io.yaml_lines import real

UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
MOST_SEEDS = 10_000  # each is a training of every method, and a number is written more quickly than they are run
LARGEST_SEED = 2**62  # validation rows take the next one, and both have to fit 64 bits


def listed(value: Any) -> Any:
    """One value as a list of it; a list and nothing stay as they are."""
    return value if isinstance(value, list) or value is None else [value]


def keyed(value: Any) -> Any:
    """A word in a list of entries as the entry that has it for a key; anything else stays as it is."""
    return {"key": value} if isinstance(value, str) else value


def _counted(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_SEEDS:
            raise ValueError(f"seeds is a list of seeds, or how many there are: 1 or more, up to {MOST_SEEDS:,}")
        return list(range(value))
    return value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]i?b)\s*", value.lower())
    try:
        return int(float(found[1]) * UNITS[found[2]]) if found else int(value)
    except (ValueError, OverflowError):
        raise ValueError("write memory as a number of bytes, or such as 4 GB or 512 MiB") from None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetEntry(_Strict):
    """A data set: a registered one by its key, or a file with its columns."""

    name: str = ""
    key: str = ""
    file: str = ""
    columns: str = ""
    options: dict[str, Any] = {}


class _MethodEntry(_Strict):
    key: Annotated[str, Field(min_length=1)]
    name: str = ""
    params: dict[str, Any] = {}


class LimitsEntry(_Strict):
    """Limits of each trial: seconds, and memory in bytes."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    memory: Annotated[int | None, BeforeValidator(_bytes), Field(gt=0, lt=2**63)] = None


class Override(_Strict):
    """Other values for the trials that all four patterns match."""

    dataset: str = "*"
    method: str = "*"
    training: str = "*"
    protocol: str = "*"
    trainer: dict[str, Any] = {}
    params: dict[str, Any] = {}


_Keyed = BeforeValidator(keyed)
_Names = Annotated[list[str], BeforeValidator(listed), Field(min_length=1)]


class SuiteFile(_Strict):
    """The whole file. Only its form is validated here, not whether the names in it exist."""

    about: str = ""
    budget: Annotated[float, Field(gt=0)] | None = None
    datasets: Annotated[list[Annotated[DatasetEntry, _Keyed]], BeforeValidator(listed), Field(min_length=1)]
    training: _Names = [COMPLETE]
    methods: Annotated[list[Annotated[_MethodEntry, _Keyed]], BeforeValidator(listed), Field(min_length=1)]
    seeds: Annotated[
        list[Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)]],
        BeforeValidator(_counted),
        Field(min_length=1, max_length=MOST_SEEDS),
    ] = [0]
    protocol: _Names = ["standard"]
    trainer: dict[str, Any] = {}
    metrics: Annotated[list[str], BeforeValidator(listed)] = []
    resamples: Annotated[int, Field(ge=2)] = 200
    costs: bool = False
    models: bool = False
    reference: str | Annotated[list[str], Field(min_length=1)] | None = None
    limits: LimitsEntry = LimitsEntry()
    overrides: list[Override] = []


_PARTS: dict[str, type[_Strict]] = {
    "datasets": DatasetEntry, "methods": _MethodEntry, "limits": LimitsEntry, "overrides": Override,
}  # fmt: skip  # fmt: skip


def read_file(values: Any, places: Places) -> SuiteFile:
    """The values of a file, validated.

    Raises:
        Located: everything that is wrong with them, a line each.
    """
    try:
        return SuiteFile.model_validate(values)
    except ValidationError as error:
        raise Located(
            "\n".join(dict.fromkeys(_explain(problem, values, places) for problem in error.errors()))
        ) from error


def _explain(problem: Any, values: Any, places: Places) -> str:
    location, what = list(problem["loc"]), message(problem)
    if problem["type"] == "missing":
        return f"{places.said(*location)}: is lacking"
    if problem["type"] == "extra_forbidden":
        kind = _PARTS[str(location[0])] if len(location) > 1 else SuiteFile
        what = f"unknown key{nearest(str(location[-1]), kind.model_fields)}"
    return f"{places.said(*real(values, location))}: {what}"


def message(problem: Any) -> str:
    """What pydantic found wrong, with the value; one element of ``ValidationError.errors()``."""
    found, what = problem["input"], problem["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    if isinstance(found, dict | list):
        return what if problem["type"] == "value_error" else f"a {type(found).__name__}: {what}"
    return f"{'nothing' if found is None else repr(found)}: {what}"
