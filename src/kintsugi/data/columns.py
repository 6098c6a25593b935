"""The YAML file that says how to read a table: validated, with the line that is wrong and the nearest right word."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kintsugi.core.errors import ConfigError, KintsugiError, nearest
from kintsugi.data.cells import Reader
from kintsugi.data.readers import audio, image, series, tabular, text, vector
from kintsugi.io.yaml_lines import document, line, read_text, real


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageColumn(_Strict):
    """``kind: image``; size: one number, or height and width; channels: 1 grey, 3 colour."""

    kind: Literal["image"]
    column: str
    size: int | tuple[int, int] | None = None
    channels: Literal[1, 3] | None = None

    def reader(self) -> Reader:
        """The reader that this describes."""
        return image(self.column, size=self.size, channels=self.channels)


class AudioColumn(_Strict):
    """``kind: audio``; rate in Hz, seconds a clip."""

    kind: Literal["audio"]
    column: str
    rate: Annotated[int, Field(gt=0)]
    seconds: Annotated[float, Field(gt=0)]

    def reader(self) -> Reader:
        """The reader that this describes."""
        return audio(self.column, rate=self.rate, seconds=self.seconds)


class TextColumn(_Strict):
    """``kind: text``; length in bytes."""

    kind: Literal["text"]
    column: str
    length: Annotated[int, Field(gt=0)] = 64

    def reader(self) -> Reader:
        """The reader that this describes."""
        return text(self.column, length=self.length)


class TabularColumns(_Strict):
    """``kind: tabular``; columns of numbers and categories; categories, numbers: columns that are so whatever they hold."""

    kind: Literal["tabular"]
    columns: Annotated[list[str], Field(min_length=1)]
    categories: list[str] = []
    numbers: list[str] = []

    def reader(self) -> Reader:
        """The reader that this describes."""
        return tabular(self.columns, categories=self.categories, numbers=self.numbers)


class SeriesColumn(_Strict):
    """``kind: series``; length in steps, channels; fill: what a channel reads that a step lacks."""

    kind: Literal["series"]
    column: str
    length: Annotated[int, Field(gt=0)] | None = None
    channels: Annotated[int, Field(gt=0)] | None = None
    fill: Literal["forward", "zero"] | None = None

    def reader(self) -> Reader:
        """The reader that this describes."""
        return series(self.column, length=self.length, channels=self.channels, fill=self.fill)


class VectorColumn(_Strict):
    """``kind: vector``."""

    kind: Literal["vector"]
    column: str
    standardise: bool = False

    def reader(self) -> Reader:
        """The reader that this describes."""
        return vector(self.column, standardise=self.standardise)


Column = Annotated[
    ImageColumn | AudioColumn | TextColumn | TabularColumns | SeriesColumn | VectorColumn, Field(discriminator="kind")
]


class Columns(_Strict):
    """The whole file."""

    modalities: Annotated[dict[str, Column], Field(min_length=1)]
    target: str | list[str]
    task: Literal["classification", "multilabel", "ordinal", "regression"] | None = None
    order: Annotated[list[str | int | float], Field(min_length=2)] | None = None
    group: str | None = None
    split: str | None = None
    weight: str | None = None
    class_weights: Literal["balanced"] | list[float] | None = None
    on_error: Literal["raise", "missing"] = "raise"


def read_columns(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The file as keywords of the constructors of :class:`kintsugi.Table`.

    Raises:
        ConfigError: with file, line, and the nearest key that exists.
    """
    place = Path(path)
    node, values = document(read_text(place), str(place))
    if not isinstance(values, dict):
        raise ConfigError(f"{place}: expected keys such as modalities: and target:, found {type(values).__name__}")
    try:
        columns = Columns.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(place, node, values, error)) from error
    readers = {}
    for name, column in columns.modalities.items():
        try:
            readers[name] = column.reader()
        except KintsugiError as error:
            where = line(node, ["modalities", name])
            raise ConfigError(f"{place}, line {where}: modalities.{name}: {error}") from error
    return {"modalities": readers, **columns.model_dump(exclude={"modalities"}, exclude_none=True)}


_KINDS: dict[str, type[_Strict]] = {
    "image": ImageColumn, "audio": AudioColumn, "text": TextColumn, "tabular": TabularColumns,
    "series": SeriesColumn, "vector": VectorColumn,
}  # fmt: skip


def _explain(place: Path, node: Any, values: Mapping[str, Any], error: ValidationError) -> str:
    """One line for each key that is wrong; what is wrong with each way to read it is on that line."""
    said: dict[str, list[str]] = {}
    for problem in error.errors():
        where, kind = list(problem["loc"]), None
        if len(where) > 2 and where[0] == "modalities" and where[2] in _KINDS:
            kind = str(where.pop(2))  # pydantic names the kind that it chose
        location = real(values, where)
        what, found = problem["msg"], problem["input"]
        if problem["type"] == "missing":
            location, what = where, "is lacking"
        elif problem["type"] == "extra_forbidden":
            known = _KINDS[kind].model_fields if kind is not None else Columns.model_fields
            what = f"unknown key{nearest(str(where[-1]), known)}"
        elif problem["type"] == "union_tag_invalid":
            what = f"unknown kind {found.get('kind')!r}{nearest(str(found.get('kind')), _KINDS)}"
        elif problem["type"] == "union_tag_not_found":
            what = f"kind is lacking; known: {', '.join(sorted(_KINDS))}"
        else:
            shown = repr(found) if isinstance(found, (str, int, float)) else f"a {type(found).__name__}"
            what = f"{shown}: {what[:1].lower()}{what[1:]}"
        key = f"{place}, line {line(node, location)}: {'.'.join(map(str, location))}: "
        said.setdefault(key, []).append(what)
    return "\n".join(key + ", or ".join(dict.fromkeys(whats)) for key, whats in said.items())
