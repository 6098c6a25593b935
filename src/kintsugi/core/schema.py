"""What the data is: its modalities, and the task that every method is asked to solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.registry import Registry

if TYPE_CHECKING:
    from kintsugi.core.batch import Batch
    from kintsugi.core.data import Data

KINDS = ("image", "video", "audio", "text", "tabular", "series", "points", "volume", "vector")


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


@dataclass(frozen=True)
class StreamSpec:
    """What a head gets: width of a token, the grid if the tokens are a map, and finer maps as ``(width, grid)``."""

    dim: int
    grid: tuple[int, ...] | None = None
    finer: tuple[tuple[int, tuple[int, ...]], ...] = ()


class Task(ABC):
    """One head, one loss and one set of metrics, the same for every method."""

    key: ClassVar[str]
    metric_versions: ClassVar[Mapping[str, int]] = MappingProxyType({})  # of metrics whose numbers changed; others: 1

    @abstractmethod
    def head(self, spec: StreamSpec) -> nn.Module:
        """A module from :class:`~kintsugi.core.features.Stream` to the output ``[B, ...]``."""

    @abstractmethod
    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        """Mean loss over ``rows`` (bool ``[B]``; default: all) whose label is there; ``0 * output.sum()`` where none is left."""

    @abstractmethod
    def probabilities(self, output: Tensor) -> Tensor:
        """The output as a user reads it: probabilities of classification, values of regression."""

    @abstractmethod
    def classes(self, batch: Batch) -> Tensor:
        """Int ``[B]``: labels, or quantile bins of a regression."""

    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """Name -> ``torchmetrics.Metric`` of ``(probabilities, target)``, with its direction; the first chooses epochs."""

    @abstractmethod
    def prior(self, train: Data) -> Tensor:
        """The output, without a batch axis, when nothing is present."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Width of the output of one row."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Constructor values; :func:`task_from_json` is the way back."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and (self.key, self.to_json()) == (other.key, other.to_json())

    def __hash__(self) -> int:
        return hash((self.key, repr(self.to_json())))

    def sampler(self, data: Data) -> Any | None:
        """Own order of rows, or None for plain shuffling."""
        return None


TASKS: Registry[type[Task]] = Registry("task", "kintsugi.tasks")


def task_from_json(saved: Mapping[str, Any]) -> Task:
    """The task that ``to_json`` wrote, by its registered key."""
    values = dict(saved)
    return TASKS[values.pop("key")](**values)


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

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Schema:
        modalities = tuple(
            Modality(**{**m, "shape": tuple(m["shape"]), "categories": tuple(m.get("categories", ()))})
            for m in saved["modalities"]
        )
        return cls(modalities, task_from_json(saved["task"]))
