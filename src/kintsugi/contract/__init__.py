"""The place of before; what was here is in :mod:`kintsugi.testing`."""

from __future__ import annotations

import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    import kintsugi.testing

    warnings.warn("kintsugi.contract is called kintsugi.testing now", DeprecationWarning, stacklevel=2)
    return getattr(kintsugi.testing, name)
