"""The form of what reports read of a trial's facts, so that damage is found when a store is read, and not in a figure."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Number = float | None
Pair = tuple[float, float]
Bin = tuple[float, float, int]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Cell(_Part):
    batch_size: int
    subset: list[str]
    flops: Number = None
    p50: Number = None
    p95: Number = None
    memory: Number = None


class _Costs(_Part):
    parameters: Number = None
    cells: list[_Cell] | None = None


class _Seconds(_Part):
    seconds: Number = None


class _Facts(_Part):
    """See :class:`kintsugi.bench.job.Done`; others may be added, and each of these may be absent."""

    training: _Seconds | None = None
    evaluation: _Seconds | None = None
    costs: _Costs | None = None
    machine: dict[str, str | float | None] | None = None
    made_with: dict[str, str] | None = None
    rows: int | None = None
    means: dict[str, dict[str, list[Number]]] = Field(default_factory=dict)
    guess: dict[str, Number] = Field(default_factory=dict)
    reliability: dict[str, list[Bin] | None] = Field(default_factory=dict)
    risk_coverage: dict[str, list[Pair] | None] = Field(default_factory=dict)


def read_facts(text: str) -> dict[str, Any]:
    """The facts of a trial.

    Raises:
        ValueError: they are not of the form that reports read.
    """
    _adapter().validate_json(text)
    facts: dict[str, Any] = json.loads(text)
    for metric, means in facts.get("means", {}).items():
        if short := [kind for kind, ends in means.items() if len(ends) < 3]:
            raise ValueError(f"means.{metric}.{short[0]} has no value, low and high")
    return facts


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[_Facts]:
    return TypeAdapter(_Facts)
