"""What the data is: its modalities, and the task that every method is asked to solve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.kind import KINDS, Kind
from kintsugi.core.task import TASKS, StreamSpec, Task, task_from_json

__all__ = ["KINDS", "TASKS", "Kind", "Modality", "Schema", "StreamSpec", "Task", "task_from_json"]

# Encoders and heads stand in a ModuleDict by the names of their modalities, which takes no name of its own attributes.
TAKEN = frozenset(dir(nn.ModuleDict()))


@dataclass(frozen=True)
class Modality:
    """One modality as the model gets it.

    ``shape`` is that of one row without the batch: image ``(C, H, W)`` in [0, 1]; audio ``(samples,)`` in [-1, 1];
    text ``(length,)`` of token ids below ``vocab``; tabular ``(cells,)``; series ``(T, channels)``; vector ``(D,)``.
    ``rate``: samples a second of audio and series. ``categories``: for tabular, the number of categories of each cell,
    0 for a number; code 0 of a category stands for "never seen in training".
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    vocab: int | None = None
    rate: float | None = None
    categories: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("kind of modality", self.kind, KINDS)
        if not self.name or "." in self.name:
            raise ConfigError(f"a modality's name must not be empty or hold a dot: {self.name!r}")
        if self.name in TAKEN:
            raise ConfigError(
                f"no modality can be called {self.name!r}, since PyTorch's modules have an attribute of that name; call it "
                f"otherwise, such as {self.name + '_1'!r}"
            )


@dataclass(frozen=True)
class Schema:
    """The modalities, in a fixed order that names the columns of ``present``, and the task."""

    modalities: tuple[Modality, ...]
    task: Task
    _columns: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        names = [m.name for m in self.modalities]
        if len(set(names)) != len(names):
            raise ConfigError(f"two modalities have the same name: {names}")
        if not names:
            raise ConfigError("a schema needs at least one modality")
        self._columns.update({name: i for i, name in enumerate(names)})

    def __len__(self) -> int:
        return len(self.modalities)

    def __getitem__(self, name: str) -> Modality:
        return self.modalities[self.column(name)]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._columns)

    def column(self, name: str) -> int:
        """Column of ``present`` that belongs to this modality."""
        if name not in self._columns:
            raise UnknownName("modality", name, self._columns)
        return self._columns[name]

    def to_json(self) -> dict[str, Any]:
        return {
            "modalities": [asdict(m) for m in self.modalities],
            "task": {"key": self.task.key, **self.task.to_json()},
        }

    def meaning(self) -> dict[str, Any]:
        """``to_json`` without what says only how answers are spelt; for fingerprints."""
        return {**self.to_json(), "task": {"key": self.task.key, **self.task.meaning()}}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Schema:
        modalities = tuple(
            Modality(**{**m, "shape": tuple(m["shape"]), "categories": tuple(m.get("categories", ()))})
            for m in saved["modalities"]
        )
        return cls(modalities, task_from_json(saved["task"]))
