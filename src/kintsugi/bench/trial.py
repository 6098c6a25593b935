"""One trial: a method, with its parameters, on a data set; its hash covers everything that is meant to decide the result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError
from kintsugi.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Trial:
    """What is to be run.

    Args:
        method: its name in the results.
        parameters: plain values; 1 and 1.0 are different parameters.
        dataset: its name.
        fingerprint: of the content of the data set, as :attr:`kintsugi.core.data.Data.fingerprint` gives it.
        training: what is done to the training rows, such as ``mcar(0.5)``.
        seed: of the training, within 64 bits.
        protocol: what the trained model is put through.
        versions: of everything registered that it uses, such as ``method mmin`` -> 1; see
            :func:`kintsugi.bench.components.trial_versions`. Trials of version 0.1.0 have versions of packages and a digest
            of sources instead, as text; those that were run elsewhere have ``origin``, who ran them.
        about: facts of the data set (see :func:`facts`), with which a store says what changed; not in the hash, since
            the fingerprint is.

    Raises:
        ConfigError: a value that JSON does not have, or a seed beyond 64 bits.
    """

    method: str
    parameters: Mapping[str, Any]
    dataset: str
    fingerprint: str
    training: str
    seed: int
    protocol: Protocol
    versions: Mapping[str, str | int]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed {self.seed} of trial {self.method!r} does not fit 64 bits; take a smaller one")
        canonical(self.about, "about")
        hash(self)

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    @cached_property
    def hash(self) -> str:
        """64 hexadecimal digits; see :func:`trial_hash`."""
        return trial_hash(
            method=self.method,
            parameters=self.parameters,
            dataset=self.dataset,
            fingerprint=self.fingerprint,
            training=self.training,
            seed=self.seed,
            protocol=self.protocol,
            versions=self.versions,
        )

    @property
    def origin(self) -> str:
        """Who ran it elsewhere; "" for a trial of one's own."""
        return str(self.versions.get("origin", ""))

    @property
    def registered(self) -> dict[str, int]:
        """Versions of what is registered, by name; empty for trials of version 0.1.0 and for most of others."""
        return {name: version for name, version in self.versions.items() if isinstance(version, int)}

    def __str__(self) -> str:
        return f"{self.method} on {self.dataset}, training {self.training}, seed {self.seed} ({self.hash[:12]})"


def trial_hash(
    *,
    method: str,
    parameters: Mapping[str, Any],
    dataset: str,
    fingerprint: str,
    training: str,
    seed: int,
    protocol: Protocol,
    versions: Mapping[str, str | int],
) -> str:
    """SHA-256 of everything that decides a result, as JSON with sorted keys: 64 hexadecimal digits.

    The arguments are those of :class:`Trial`.

    Raises:
        ConfigError: a value that JSON does not have, such as NaN, a tensor or a key that is no text.
    """
    said = {
        "method": method,
        "parameters": parameters,
        "dataset": dataset,
        "fingerprint": fingerprint,
        "training": training,
        "seed": seed,
        "versions": versions,
    }
    texts = {key: canonical(value, f"trial.{key}") for key, value in said.items()}
    texts["protocol"] = protocol_text(protocol)
    inside = ",".join(f'"{key}":{texts[key]}' for key in sorted(texts))
    return hashlib.sha256(f"{{{inside}}}".encode()).hexdigest()


@lru_cache(maxsize=64)  # trials share few protocols, which may have thousands of conditions
def protocol_text(protocol: Protocol) -> str:
    """A protocol as JSON of one spelling."""
    return canonical(protocol.to_json(), "trial.protocol")


def canonical(value: Any, where: str) -> str:
    """JSON of one spelling: sorted keys, no blanks, ASCII only.

    Raises:
        ConfigError: a value that JSON does not have; names its place.
    """
    return json.dumps(_plain(value, where), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):  # JSON would turn 1 into "1", and two trials into one
                raise ConfigError(f"{where}: key {key!r} is no text; write it as {str(key)!r}")
        return {key: _plain(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}[{place}]") for place, each in enumerate(value)]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ConfigError(f"{where} is {value!r} ({type(value).__name__}); JSON has no such value, give a plain one")


def facts(data: Data) -> dict[str, Any]:
    """What a person can compare when the fingerprint of a data set changes.

    Returns:
        rows; labelled: rows with a label; task: its name; modalities: name -> ``kind, rows that have it``.
    """
    present = data.present.sum(0).tolist()
    return {
        "rows": len(data),
        "labelled": int(data.target_present.sum()),
        "task": data.schema.task.key,
        "modalities": {
            m.name: f"{m.kind}, {count} rows" for m, count in zip(data.schema.modalities, present, strict=True)
        },
    }
