"""What changes numbers besides data and parameters: versions of packages, and the sources that a trial runs through."""

from __future__ import annotations

from typing import Any


def versions_of(method: str, schema: Any, protocol: Any, training: str) -> dict[str, str]:
    """Package -> version, and ``sources``: a digest; a stand-in until the walk through imports is there."""
    from importlib.metadata import version

    import kintsugi

    return {"kintsugi": kintsugi.__version__, "torch": version("torch"), "numpy": version("numpy"), "sources": "none"}
