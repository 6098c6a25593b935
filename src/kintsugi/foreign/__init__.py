"""Models that were made elsewhere, under the same protocols, in the same tables as the methods of this library."""

from __future__ import annotations

from kintsugi.foreign.model import Foreign, ForeignModel, wrap

__all__ = ["Foreign", "ForeignModel", "wrap"]
