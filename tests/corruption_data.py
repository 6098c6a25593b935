"""Small data of every kind for tests of operators; see :mod:`kintsugi.testing.inputs`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from kintsugi.imperfect.operator import CROSS, OPERATORS
from kintsugi.testing.inputs import LENGTH, RATE, TEXTS, clips, ids, pictures, sensors, words
from kintsugi.testing.inputs import every_kind as make
from kintsugi.testing.inputs import noise_file as write_noise

__all__ = [
    "CROSS_ON", "LENGTH", "NAME", "OPTIONS", "RATE", "ROWS", "TEXTS", "clips", "ids", "make", "noise_file", "pictures",
    "sensors", "target", "words",
]  # fmt: skip

ROWS = 24
NAME = {"image": "photo", "audio": "speech", "text": "note", "tabular": "table", "series": "sensor", "vector": "code"}
# What a cross-modal operator is tried on; one that is not listed here gets the first that it takes.
CROSS_ON: dict[str, tuple[str, ...]] = {"desynchronisation": ("sensor",)}


def noise_file(seconds: int = 1) -> str:
    """A WAV file of noise that lasts as long as this process."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_noise(Path(folder) / "noise.wav", seconds)


# What an operator needs that has no default.
OPTIONS: dict[str, dict[str, Any]] = {"file_noise": {"files": noise_file()}}


def target(key: str) -> tuple[str, ...]:
    """The modalities of :func:`make` that an operator is tried on."""
    operator = OPERATORS[key]
    if operator.kind != CROSS:
        return (NAME[operator.kind],)
    least = operator.least  # type: ignore[union-attr]
    return CROSS_ON.get(key, ("photo", "thermal")[:least])
