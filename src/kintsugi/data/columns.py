"""The YAML file that says how to read a table: validated, with the line that is wrong and the nearest right word."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kintsugi.core.errors import ConfigError, nearest
from kintsugi.data.cells import Reader
from kintsugi.data.readers import audio, image, series, tabular, text, vector


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
    """``kind: tabular``; columns of numbers and categories; categories: numbers that are categories all the same."""

    kind: Literal["tabular"]
    columns: Annotated[list[str], Field(min_length=1)]
    categories: list[str] = []

    def reader(self) -> Reader:
        """The reader that this describes."""
        return tabular(self.columns, categories=self.categories)


class SeriesColumn(_Strict):
    """``kind: series``; length in steps, channels."""

    kind: Literal["series"]
    column: str
    length: Annotated[int, Field(gt=0)] | None = None
    channels: Annotated[int, Field(gt=0)] | None = None

    def reader(self) -> Reader:
        """The reader that this describes."""
        return series(self.column, length=self.length, channels=self.channels)


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
    task: Literal["classification", "multilabel", "regression"] | None = None
    group: str | None = None
    split: str | None = None
    weight: str | None = None
    class_weights: Literal["balanced"] | list[float] | None = None
    on_error: Literal["raise", "missing"] = "raise"

    def options(self) -> dict[str, Any]:
        """Keywords of the constructors of :class:`kintsugi.Table`."""
        said = self.model_dump(exclude={"modalities"}, exclude_none=True)
        return {"modalities": {name: column.reader() for name, column in self.modalities.items()}, **said}


def read_columns(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The file as keywords of the constructors of :class:`kintsugi.Table`.

    Raises:
        ConfigError: with file, line, and the nearest key that exists.
    """
    place = Path(path)
    try:
        content = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{place} does not exist") from None
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        values = yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{place}{where}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{place}: expected keys such as modalities: and target:, found {type(values).__name__}")
    try:
        return Columns.model_validate(values).options()
    except ValidationError as error:
        raise ConfigError(_explain(place, node, error)) from error


def _explain(place: Path, node: Any, error: ValidationError) -> str:
    said = []
    for problem in error.errors():
        location = [part for part in problem["loc"] if part not in _KINDS or part in _keys_at(node, problem["loc"])]
        line = _line(node, location)
        what, hint = problem["msg"], ""
        if problem["type"] == "extra_forbidden":
            what, hint = "unknown key", nearest(str(location[-1]), _known(problem["loc"]))
        elif problem["type"] == "union_tag_invalid":
            what, hint = (
                f"unknown kind {problem['input'].get('kind')!r}",
                nearest(str(problem["input"].get("kind")), _KINDS),
            )
        elif problem["type"] == "union_tag_not_found":
            what = f"kind is lacking; known: {', '.join(sorted(_KINDS))}"
        elif problem["type"] == "missing":
            what = "is lacking"
        said.append(f"{place}, line {line}: {'.'.join(map(str, location))}: {what}{hint}")
    return "\n".join(said)


_KINDS: dict[str, type[_Strict]] = {
    "image": ImageColumn, "audio": AudioColumn, "text": TextColumn, "tabular": TabularColumns,
    "series": SeriesColumn, "vector": VectorColumn,
}  # fmt: skip


def _known(location: tuple[Any, ...]) -> list[str]:
    if len(location) >= 3 and location[0] == "modalities":
        return list(_KINDS[str(location[2])].model_fields) if location[2] in _KINDS else []
    return list(Columns.model_fields)


def _keys_at(node: Any, location: tuple[Any, ...]) -> set[str]:
    """Names of modalities, which may be called like a kind."""
    found = _child(node, "modalities") if location and location[0] == "modalities" else None
    return set() if found is None else {key.value for key, _ in getattr(found[1], "value", [])}


def _child(node: Any, name: object) -> tuple[Any, Any] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(name)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(name, int) and name < len(node.value):
        return node.value[name], node.value[name]
    return None


def _line(node: Any, location: list[Any]) -> int:
    mark = node.start_mark
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        mark, node = found[0].start_mark, found[1]
    return int(mark.line) + 1
