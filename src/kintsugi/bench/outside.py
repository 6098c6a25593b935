"""Results that somebody else ran, in a file: read into a store, and written for somebody else."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kintsugi.bench.made_with import FACT
from kintsugi.bench.schema_sql import not_written
from kintsugi.bench.store import Record, Store
from kintsugi.bench.trial import Trial
from kintsugi.core.errors import ConfigError, DataError, UnknownName, nearest
from kintsugi.evaluation.protocols import Protocol
from kintsugi.evaluation.results import COLUMNS
from kintsugi.io.files import read_bounded, replace_file
from kintsugi.io.json_text import cannot_be_kept, odd, read_json

if TYPE_CHECKING:
    import pandas as pd

FORMAT: Final = 2
FORMATS: Final = (1, FORMAT)  # 1: versions are those of packages, as text; there is no made_with
UNKNOWN = "unknown"
ORIGIN = "origin"  # the version that marks a trial, and the column of an export
MOST_BYTES = 64 << 20  # of a file: 10,000 conditions of 20 metrics have 40 MB
FEWEST = 8  # digits of a hash by which a trial can be asked for

Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Origin(_Strict):
    """Who ran it. by: a name that stays the same from file to file; date: such as 2026-01-31."""

    by: Text
    date: str
    note: str = ""
    url: str = ""

    @field_validator("date")
    @classmethod
    def _a_day(cls, given: str) -> str:
        try:
            day = datetime.date.fromisoformat(given)
        except ValueError:
            day = None
        if day is None or day.isoformat() != given:
            raise ValueError("should be a day such as 2026-01-31")
        return given


class OneCondition(_Strict):
    """A condition, as :meth:`kintsugi.evaluation.protocols.Condition.to_json` gives it."""

    name: Text
    group: Text
    keep: list[str] | None = None
    missing: str | None = None
    corruptions: list[str] = []
    seed: int = 0
    x: float | None = None


class OneProtocol(_Strict):
    """A protocol, as :meth:`kintsugi.evaluation.protocols.Protocol.to_json` gives it."""

    name: Text
    conditions: Annotated[list[OneCondition], Field(min_length=1)]


class OneResult(_Strict):
    """One metric in one condition. value: None where the metric is not defined; low, high: of its interval; n: rows."""

    condition: str
    metric: Text
    value: float | None
    low: float | None = None
    high: float | None = None
    n: Annotated[int, Field(ge=0)]
    higher_is_better: bool
    mask_hash: str = ""


class Outside(_Strict):
    """A file; every field is explained in the documentation, under "Results of others"."""

    format: Literal[1, 2]
    origin: Origin
    dataset: Text
    fingerprint: Text
    method: Text
    parameters: dict[str, Any]
    training: Text
    seed: int
    protocol: OneProtocol | list[OneCondition]
    results: Annotated[list[OneResult], Field(min_length=1)]
    versions: dict[str, str | int] = {}
    made_with: dict[str, str] = {}

    def trial(self) -> Trial:
        """What was run; ``versions`` say by whom."""
        given, unknown = self.protocol, self.fingerprint == UNKNOWN
        named = given if isinstance(given, OneProtocol) else OneProtocol(name="conditions", conditions=given)
        return Trial(
            self.method,
            self.parameters,
            f"{self.dataset} (as {self.origin.by} has it)" if unknown else self.dataset,
            self.fingerprint,
            self.training,
            self.seed,
            Protocol.from_json(named.model_dump()),
            {**self.versions, ORIGIN: self.origin.by},
        )


def add_outside(store: Store, file: Path) -> Trial:
    """Store a result that somebody else ran; the column ``origin`` of an export says who.

    The same file twice is stored once. Where the file does not know the fingerprint of its data, the data set is called
    ``NAME (as WHO has it)``: nobody can say that it is the one of this store.

    Args:
        store: where to.
        file: JSON; its format is in the documentation, under "Results of others".

    Returns:
        the trial that it is now.

    Raises:
        DataError: the file cannot be read, or is not what it should be; names each field that is wrong.
        StoreError: the store has another result of this trial, or another data set of this name.
    """
    file = Path(file)
    given = _read(file)
    wrong = _wrong(given)
    if wrong:
        raise DataError("\n".join(f"{file}: {problem}" for problem in wrong))
    try:
        trial = given.trial()
    except ConfigError as error:
        raise DataError(f"{file}: {str(error).removeprefix('trial.')}") from error
    facts: dict[str, Any] = {ORIGIN: given.origin.model_dump()}
    if given.made_with:
        facts[FACT] = given.made_with
    store.finish(trial, _table(given, trial), None, facts)
    return trial


def give_out(store: Store, hash: str, file: Path, by: str) -> Path:
    """Write the result of a trial of one's own for somebody else to :func:`add_outside`.

    Args:
        store: of the trial.
        hash: of the trial; its first 8 digits or more will do.
        file: to write, JSON.
        by: who ran it: you.

    Raises:
        UnknownName: no trial with a result has this hash.
        ConfigError: two trials begin so, somebody else ran it, or ``by`` is empty.
        StoreError: the disk is full.
    """
    file = Path(file)
    if not by.strip():
        raise ConfigError("a result needs the name of who ran it; give by='...'")
    record = _find(store, hash)
    trial = record.trial
    if trial.origin:
        raise ConfigError(f"{trial} was run by {trial.origin!r}; hand on the file that came from there")
    table = store.table(timing=False)
    made = Outside(
        format=FORMAT,
        origin=Origin(by=by.strip(), date=datetime.date.today().isoformat()),
        dataset=trial.dataset,
        fingerprint=trial.fingerprint,
        method=trial.method,
        parameters=dict(trial.parameters),
        training=trial.training,
        seed=trial.seed,
        protocol=OneProtocol.model_validate(_listed(trial.protocol.to_json())),
        results=[
            OneResult.model_validate(_line(row)) for row in table[table["trial"] == trial.hash].to_dict("records")
        ],
        versions=dict(trial.versions),
        made_with=dict(record.facts.get(FACT, {})),
    )
    content = json.dumps(made.model_dump(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        replace_file(file, content.encode())
    except OSError as error:
        raise not_written(error, file) from error
    return file


def _find(store: Store, hash: str) -> Record:
    records = list(store.records("done"))
    found = [r for r in records if r.trial.hash == hash or (len(hash) >= FEWEST and r.trial.hash.startswith(hash))]
    if not found:
        raise UnknownName("trial with a result", hash, [r.trial.hash for r in records])
    if len(found) > 1:
        raise ConfigError(f"{len(found)} trials begin with {hash!r}; give more digits, such as {found[0].trial.hash}")
    return found[0]


def _line(row: Mapping[Any, Any]) -> dict[str, Any]:
    line = {name: row[name] for name in ("condition", "metric", "n", "higher_is_better", "mask_hash")}
    numbers = {name: float(row[name]) for name in ("value", "low", "high")}
    return line | {name: None if math.isnan(number) else number for name, number in numbers.items()}


def _listed(value: Any) -> Any:
    """Tuples as lists, which they are in a file."""
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def _table(given: Outside, trial: Trial) -> pd.DataFrame:
    import pandas as pd

    conditions = {condition.name: condition for condition in trial.protocol.conditions}
    key = {"dataset": trial.dataset, "method": trial.method, "seed": trial.seed, "training": trial.training}
    lines = [
        {**key, **result.model_dump(), "group": condition.group, "x": condition.x, "seconds": None}
        for result in given.results
        for condition in (conditions[result.condition],)
    ]
    numbers = dict.fromkeys(("x", "value", "low", "high", "seconds"), "float64")
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(numbers)


# what is wrong with a file --------------------------------------------------------------------------------------------
def _read(file: Path) -> Outside:
    values = read_json(read_bounded(file, MOST_BYTES, "result"), str(file))
    unfit = [
        f"{_path(where) or 'a field'}: {_shown(value)}" for where, value in islice(odd(values, cannot_be_kept), 20)
    ]
    if unfit:
        raise DataError("\n".join(f"{file}: {one}" for one in unfit))
    if not isinstance(values, dict):
        raise DataError(f"{file}: expected an object with the fields {', '.join(Outside.model_fields)}")
    if values.get("format", FORMAT) not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise DataError(f"{file}: format is {values['format']!r}; this version of kintsugi reads {known}")
    try:
        return Outside.model_validate(values)
    except ValidationError as error:
        raise DataError("\n".join(f"{file}: {problem}" for problem in _explain(values, error))) from error


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:60]!r} has half of a surrogate pair, which no text file can hold; mend its spelling"
    return f"{str(value)[:60]} is a number beyond 64 bits; write it as a decimal, or as text"


def _explain(values: Mapping[str, Any], error: ValidationError) -> list[str]:
    """One line for each field that is wrong."""
    listed = isinstance(values.get("protocol"), list)
    said = []
    for problem in error.errors():
        where = list(problem["loc"])
        if (
            where[0] == "protocol" and len(where) > 1
        ):  # pydantic tried both ways to write it: only the one that is meant
            if (where[1] == OneProtocol.__name__) == listed:
                continue
            del where[1]
        what, found = problem["msg"], problem["input"]
        if problem["type"] == "missing":
            what = "is lacking"
        elif problem["type"] == "extra_forbidden":
            what = f"unknown field{nearest(str(where[-1]), _model_at(where[:-1]).model_fields)}"
        else:
            shown = repr(found) if isinstance(found, str | int | float | None) else f"a {type(found).__name__}"
            what = f"{shown}: {what.removeprefix('Value error, ')[:1].lower()}{what.removeprefix('Value error, ')[1:]}"
            if problem["type"] == "finite_number":
                what += "; where a metric is not defined write null"
        said.append(f"{_path(where)}: {what}")
    return said


def _model_at(where: Sequence[str | int]) -> type[BaseModel]:
    if not where:
        return Outside
    if where[0] == "protocol":
        return OneProtocol if len(where) == 1 else OneCondition
    return Origin if where[0] == "origin" else OneResult


def _path(where: Sequence[str | int]) -> str:
    """``["results", 3, "value"]`` -> ``results[3].value``."""
    said = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return said.removeprefix(".")


def _wrong(given: Outside) -> list[str]:
    """What no single field shows."""
    found = []
    listed = isinstance(given.protocol, list)
    conditions = given.protocol if isinstance(given.protocol, list) else given.protocol.conditions
    start = "protocol" if listed else "protocol.conditions"
    names = [condition.name for condition in conditions]
    for place, name in enumerate(names):
        if name in names[:place]:
            found.append(f"{start}[{place}].name: a second condition {name!r}")
        elif all(result.condition != name for result in given.results):
            found.append(f"{start}[{place}].name: no result has the condition {name!r}")
    if ORIGIN in given.versions:
        found.append(f"versions.{ORIGIN}: say it under {ORIGIN}.by")
    seen: set[tuple[str, str]] = set()
    better: dict[str, bool] = {}
    for place, result in enumerate(given.results):
        at, key = f"results[{place}]", (result.condition, result.metric)
        if result.condition not in names:
            found.append(
                f"{at}.condition: the protocol has no condition {result.condition!r}{nearest(result.condition, names)}"
            )
        if key in seen:
            found.append(f"{at}: a second value of {result.metric!r} in condition {result.condition!r}")
        seen.add(key)
        if (result.low is None) != (result.high is None):
            found.append(f"{at}: low and high belong together; give both or neither")
        elif result.low is not None and result.high is not None and result.low > result.high:
            found.append(f"{at}: low {result.low:g} is above high {result.high:g}")
        if better.setdefault(result.metric, result.higher_is_better) != result.higher_is_better:
            found.append(f"{at}.higher_is_better: {result.metric!r} has the other direction above")
    return found
