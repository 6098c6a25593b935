"""What the operators on audio have in common: the content of a clip, its power, and the walk over rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.imperfect.operator import Operator
from kintsugi.imperfect.plan import Plan

if TYPE_CHECKING:
    from kintsugi.core.data import Data

SPEECH_ROBUST_BENCH = "Speech Robust Bench, arXiv 2403.07937 (corruptions.py)"
_CHUNK = 8192  # BLAS splits a dot product of more than 10,000 among threads, and its last bits depend on their number


def sounding(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Bool ``[R, samples]``: from the first to the last sample of a clip that is not zero (and exists).

    Zeros around a clip are padding, not content; pauses within it are content.
    """
    at = torch.arange(x.shape[-1], device=x.device)
    spans = torch.tensor(contents(x, mask), device=x.device).reshape(len(x), 2)
    return (at >= spans[:, :1]) & (at < spans[:, 1:])


def contents(x: Tensor, mask: Tensor | None = None) -> list[tuple[int, int]]:
    """First sample and the one after the last of the content of each row; ``(0, 0)`` where nothing sounds."""
    values = x.detach().cpu().numpy()
    seen = None if mask is None else mask.cpu().numpy()
    return [_content(row, None if seen is None else seen[i]) for i, row in enumerate(values)]


def _content(row: np.ndarray[Any, Any], seen: np.ndarray[Any, Any] | None) -> tuple[int, int]:
    if len(row) == 0:
        return 0, 0
    if seen is None and row[0] != 0 and row[-1] != 0:  # most recordings: no need to look at every sample
        return 0, len(row)
    heard = row != 0
    if seen is not None:
        heard &= seen
    first = int(heard.argmax())
    return (first, len(row) - int(heard[::-1].argmax())) if heard[first] else (0, 0)


def power(sound: Tensor) -> float:
    """Mean square of ``[n]``, in an order of summing that neither threads nor a batch change."""
    if sound.device.type != "cpu":
        return float(sound.detach().double().square().mean())
    values, total = sound.detach().numpy(), 0.0
    size = values.shape[0]
    for start in range(0, size, _CHUNK):
        part = values[start : start + _CHUNK]
        total += float(part.dot(part))
    return total / max(1, size)


def peak(sound: Tensor) -> float:
    """Largest absolute value of at least one; NaN where there is one."""
    low, high = torch.aminmax(sound.detach())
    return max(float(high), -float(low))


def normals(index: Tensor, plan: Plan, most: int) -> Iterator[Callable[[int], Tensor]]:
    """For each row a function of a count up to ``most``: so many standard normal numbers, the first of those of the row.

    They are float32 on the CPU, and may be overwritten. Drawn for all rows at once: calls for a single row cost more.
    """
    for row in plan.normal(index, most):
        yield lambda count, row=row: row[:count]  # type: ignore[misc]


def within(key: str, name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"{name} of {key} lies between {low:g} and {high:g}; {value!r} does not")


class AudioOperator(Operator):
    """Changes the content of one clip after the other (``sounding``); padding and masked samples stay as they are.

    needs_rate: it is defined in seconds or hertz; its plan's parameters then hold ``rate``. louder: it may push samples
    beyond [-1, 1]; they are clipped there, or at the clip's own peak where that is larger. grows: it may make content
    longer, which then runs on over the zeros after it, to the end of the array or of the mask.
    """

    kind = "audio"
    needs_rate: ClassVar[bool] = False
    louder: ClassVar[bool] = True
    grows: ClassVar[bool] = False

    @abstractmethod
    def change(self, sound: Tensor, draw: Any, plan: Plan) -> Tensor:
        """Damage the content ``[n]`` of one clip, n at least 1, in place or not; ``draw`` is that of ``draws``."""

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        """For each row what it draws; ``samples``: the length of the array, an upper bound of the content's."""
        return repeat(None, len(index))

    def settle(self, values: dict[str, Any]) -> None:
        """Raise ConfigError for values that make no sense."""

    def check(self, modality: Modality) -> None:
        super().check(modality)
        if self.needs_rate and not modality.rate:
            raise ConfigError(
                f"{self.key} is defined in seconds or hertz, and the rate of modality {modality.name!r} is not known; "
                f"say how many samples a second it has: Modality({modality.name!r}, 'audio', …, rate=16000)"
            )

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        if modality.rate:
            values["rate"] = float(modality.rate)
        self.settle(values)
        return {}

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        draws = self.draws(index, plan, x.shape[-1])
        loud = self.louder and x.numel() > 0 and not peak(x) <= 1  # seldom; one pass over all rows instead of one each
        simple = mask is None and not (self.grows or loud or x.requires_grad)
        rows = x.unbind() if simple else [x[row] for row in range(len(x))]
        for number, ((first, last), draw) in enumerate(zip(contents(x, mask), draws, strict=True)):
            row, seen = rows[number], None if mask is None else mask[number]
            if last > first and simple:
                self._simply(row, first, last, draw, plan)
            elif last > first:
                self._change_row(row, seen, first, last, draw, plan, loud)
        return x, mask

    def _simply(self, row: Tensor, first: int, last: int, draw: Any, plan: Plan) -> None:
        """What :meth:`_change_row` does to most clips, where the calls cost as much as what they do."""
        sound = row if last - first == row.shape[0] else row[first:last]
        out = self.change(sound, draw, plan)
        if self.louder:
            out = out.clamp_(-1, 1)
        if out is not sound:
            length = min(out.shape[0], last - first)
            row[first : first + length] = out[:length]
            row[first + length : last] = 0

    def _change_row(
        self, row: Tensor, seen: Tensor | None, first: int, last: int, draw: Any, plan: Plan, loud: bool
    ) -> None:
        end = last
        if self.grows:
            end = len(row) if seen is None else int(seen.nonzero()[-1]) + 1
        hidden = kept = None
        if seen is not None and not bool(seen[first:end].all()):
            hidden = ~seen[first:end]
            kept = row[first:end][hidden].clone()
            row[first:end].masked_fill_(hidden, 0)
        sound = row if last - first == len(row) else row[first:last]
        if sound.requires_grad:  # what autograd keeps must not be overwritten below
            sound = sound.clone()
        limit = max(1.0, peak(sound)) if loud else 1.0
        out = self.change(sound, draw, plan)
        if self.louder:
            out = out.clamp_(-limit, limit)
        if out is not sound or sound.requires_grad:
            length = min(len(out), end - first)
            row[first : first + length] = out[:length]
            row[first + length : last] = 0
        if hidden is not None and kept is not None:
            row[first:end][hidden] = kept
