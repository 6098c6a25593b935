"""The place of before; what was here is in :mod:`kintsugi.testing`."""

from __future__ import annotations

from typing import Any

import kintsugi.testing
from kintsugi.core.retired import warn


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    value = getattr(kintsugi.testing, name)
    warn(f"kintsugi.contract.{name}", f"kintsugi.testing.{name}", 2)
    return value
