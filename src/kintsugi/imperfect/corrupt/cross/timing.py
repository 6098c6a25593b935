"""Modalities that run early or late against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.schema import Modality
from kintsugi.imperfect.distortion import marked, put
from kintsugi.imperfect.operator import OPERATORS, CrossOperator, levels
from kintsugi.imperfect.plan import Plan

DIRECTIONS = ("both", "early", "late")
KINDS = ("audio", "series")


@OPERATORS.register("desynchronisation")
class Desynchronisation(CrossOperator):
    """Audio or a series is shifted against the other modalities; the row keeps its length.

    ``time``: shift in milliseconds, rounded to whole steps of the modality's ``rate``. ``steps``: shift in steps; what is
    taken where there is no rate, or one so low that the five levels are not five different shifts. What is pushed out of
    the recording is lost. What comes in is silence in audio, and in a series steps that were not seen: they leave the
    mask. A recording shorter than its row (padding before or after it) is shifted within its own length, and inner gaps
    move with what surrounds them. A shift is at most half of the row, so that short rows keep something; a series whose
    seen steps are pushed out all the same is absent.

    ``direction``: ``early`` (events come before those of the other modalities), ``late``, or ``both``, drawn by row. The
    direction of a row is the same at all levels.
    """

    key = "desynchronisation"
    title = "one modality runs early or late against the others"
    source = (
        "time: anchors are the limits of ITU-R BT.1359 and EBU R37 (sound early by 45 ms is detected, 90 ms early and 185 ms "
        "late is the end user's limit), 400 and 1000 ms: proposed here, beyond any tolerance; steps: the frames of "
        "3D_Corruptions_AD (Dong et al., CVPR 2023)"
    )
    parameters = {  # noqa: RUF012
        "time": levels(shift=(45, 90, 185, 400, 1000)),
        "steps": levels(shift=(2, 4, 6, 8, 10)),
    }
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"direction": "both"})
    gaps = True

    @classmethod
    def check_values(cls, preset: str | None, given: Mapping[str, Any]) -> None:
        super().check_values(preset, given)
        if given.get("direction", "both") not in DIRECTIONS:
            raise UnknownName(f"direction of {cls.key}", str(given["direction"]), DIRECTIONS)
        if not 0 <= given.get("shift", 0) < math.inf:
            raise ConfigError(f"shift of {cls.key} must be 0 or more, not {given['shift']!r}; use direction='early'")

    def check(self, modalities: tuple[Modality, ...]) -> None:
        modality = modalities[0]
        if modality.kind not in KINDS:
            raise ConfigError(
                f"{self.key} shifts {' or '.join(KINDS)}, and modality {modality.name!r} is {modality.kind}, "
                "which has no axis of time"
            )

    def plan(
        self,
        data: Data,
        modalities: tuple[str, ...],
        severity: int,
        seed: int,
        preset: str | None = None,
        **given: Any,
    ) -> Plan:
        self.check_count(modalities)
        modality = data.schema[modalities[0]]
        self.check((modality,))
        return super().plan(data, modalities, severity, seed, preset or _preset(modality), **given)

    def look(self, data: Data, modalities: tuple[str, ...], values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        modality, shift = data.schema[modalities[0]], values["shift"]
        if values["preset"] == "steps":
            values["steps"] = round(shift)
            return {}
        if modality.rate is None:
            raise ConfigError(
                f"{self.key}: modality {modality.name!r} has no rate, so {shift:g} ms are no number of steps; give it a rate, "
                "or use preset='steps'"
            )
        values["steps"] = _steps(shift, modality.rate)
        if shift and not values["steps"]:
            raise ConfigError(
                f"{self.key}: {shift:g} ms are less than half a step of modality {modality.name!r}, which has "
                f"{modality.rate:g} a second; use preset='steps'"
            )
        return {}

    def damage(self, batch: Batch, here: Tensor, plan: Plan) -> Batch:
        name, steps = plan.modality, int(plan.parameters["steps"])
        rows, column = here[:, 0].nonzero().flatten(), batch.names.index(plan.modality)
        if len(rows) == 0 or steps == 0:
            return batch
        x, index = batch.inputs[name][rows], batch.index[rows]
        steps = min(steps, -(-x.shape[1] // 2))
        seen = batch.mask[name][rows] if name in batch.mask else None
        direction = plan.parameters["direction"]
        early = plan.uniforms(index)[:, 0] < 0.5 if direction == "both" else torch.full((len(x),), direction == "early")
        early = early.to(x.device)
        if x.ndim == 2:  # audio
            moved = _moved(x if seen is None else torch.where(seen, x, 0), early, steps, 0.0)
            moved = moved if seen is None else torch.where(_extent(seen), moved, x)
            batch = replace(batch, inputs={**batch.inputs, name: put(batch.inputs[name], rows, moved)})
            return marked(batch, here[:, 0], column, plan.severity)
        before = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if seen is None else seen
        after = _moved(before, early, steps, False) & _extent(before)
        moved = torch.where(after[..., None], _moved(x, early, steps, torch.nan), torch.nan)
        whole = batch.present[:, column, None].expand(-1, x.shape[1]) if name not in batch.mask else batch.mask[name]
        present = batch.present.clone()
        present[rows, column] = after.any(1)
        batch = replace(
            batch,
            inputs={**batch.inputs, name: put(batch.inputs[name], rows, moved)},
            mask={**batch.mask, name: put(whole, rows, after)},
            present=present,
        )
        return marked(batch, here[:, 0], column, plan.severity)


def _preset(modality: Modality) -> str:
    """``time`` where the rate tells its five levels apart."""
    if modality.rate is None:
        return "steps"
    table = Desynchronisation.parameters["time"]
    shifts = {_steps(table[severity]["shift"], modality.rate) for severity in table}
    return "time" if len(shifts - {0}) == len(table) else "steps"


def _steps(shift: float, rate: float) -> int:
    return int(shift * rate / 1000 + 0.5)


def _moved(x: Tensor, early: Tensor, steps: int, fill: float | bool) -> Tensor:
    """``x`` ``[R, T, …]`` moved along T by so many steps, rows of ``early`` (bool ``[R]``) to the front, others to the back."""
    out = torch.full_like(x, fill)
    length = x.shape[1]
    if steps < length:
        first, last = early.nonzero().flatten(), (~early).nonzero().flatten()
        out[first, : length - steps] = x[first, steps:]
        out[last, steps:] = x[last, : length - steps]
    return out


def _extent(seen: Tensor) -> Tensor:
    """Bool ``[R, T]``: from the first to the last step that is seen."""
    return (seen.cumsum(1) > 0) & (seen.flip(1).cumsum(1).flip(1) > 0)
