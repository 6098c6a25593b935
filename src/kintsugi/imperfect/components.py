"""Which registered operators, mechanisms and published settings an imperfection is made of."""

from __future__ import annotations

from typing import Any

from kintsugi.imperfect.distortion import Corruption, Distortion
from kintsugi.imperfect.mechanism import MECHANISMS, Mechanism
from kintsugi.imperfect.published import SETTINGS, Published


def components_of(imperfection: Mechanism | Distortion | Any) -> tuple[str, ...]:
    """Their names as ``operator fog``, ``mechanism mcar`` or ``setting smil-ETA``; nothing for what is neither kind."""
    if isinstance(imperfection, Corruption):
        return (f"operator {imperfection.operator}",)
    if isinstance(imperfection, Distortion):
        return tuple(name for part in getattr(imperfection, "parts", ()) for name in components_of(part))
    if isinstance(imperfection, Published):
        uses = tuple(f"mechanism {name}" for name in SETTINGS[imperfection.form].uses)
        return (f"setting {imperfection.form}", *uses, *components_of(imperfection.inner))
    name = str(imperfection).partition("(")[0] if isinstance(imperfection, Mechanism) else ""
    return (f"mechanism {name}",) if name in MECHANISMS else ()
