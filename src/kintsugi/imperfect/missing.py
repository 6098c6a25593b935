"""How slots, steps and labels go missing. A mechanism plans a :class:`Mask` for a data set, a value that is stored with results.

A *slot* is one modality of one row, a *step* one table cell, token, time step or sample of a slot; a *rate* is a share of the
units that the data has (*observed*). Rates are exact: what is asked comes out, to the nearest unit. With one seed, a
higher rate hides what a lower one hid, and more (but for ``per_modality`` with ``keep_one``, and what draws patterns).

    >>> mcar(0.3)
    >>> pattern("image", "clue")
    >>> steps(0.2, of="table")
    >>> parse_mechanism("smil(0.1, speech)")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.imperfect.mask import Asked, Gaps, Mask
from kintsugi.imperfect.mechanism import MECHANISMS, LabelMechanism, Mechanism, StepMechanism
from kintsugi.imperfect.mechanisms.dependent import Mar, Mnar, mar, mnar
from kintsugi.imperfect.mechanisms.drawn import MapMissing, map_missing
from kintsugi.imperfect.mechanisms.missing_labels import Labels, labels
from kintsugi.imperfect.mechanisms.slots import (
    Given,
    Mcar,
    Pattern,
    PerModality,
    Smil,
    given,
    mcar,
    pattern,
    per_modality,
    smil,
)
from kintsugi.imperfect.mechanisms.steps import Blocks, GilbertElliott, Steps, blocks, gilbert_elliott, steps
from kintsugi.imperfect.mechanisms.stretches import Bursts, Natural, bursts, natural
from kintsugi.imperfect.mechanisms.table_cells import Cells, cells
from kintsugi.imperfect.phases import Phases, parse_phases
from kintsugi.imperfect.published import SETTINGS, Published, Setting, published
from kintsugi.imperfect.spec import Call, calls

__all__ = [
    "MECHANISMS",
    "SETTINGS",
    "Asked",
    "Blocks",
    "Bursts",
    "Cells",
    "Gaps",
    "GilbertElliott",
    "Given",
    "LabelMechanism",
    "Labels",
    "MapMissing",
    "Mar",
    "Mask",
    "Mcar",
    "Mechanism",
    "Mnar",
    "Natural",
    "Pattern",
    "PerModality",
    "Phases",
    "Published",
    "Setting",
    "Smil",
    "StepMechanism",
    "Steps",
    "blocks",
    "bursts",
    "cells",
    "gilbert_elliott",
    "given",
    "labels",
    "map_missing",
    "mar",
    "mcar",
    "mnar",
    "natural",
    "parse_mechanism",
    "parse_phases",
    "pattern",
    "per_modality",
    "published",
    "smil",
    "steps",
]


def parse_mechanism(spec: Mechanism | str | Mapping[str, Any] | Call) -> Mechanism:
    """From ``"mcar(0.3)"``, ``"pattern(image, clue)"`` or ``{"mcar": {"rate": 0.3}}``; str() is the way back.

    Published settings have names of their own, such as ``"random-0.7-keep1"``: see :mod:`kintsugi.imperfect.published`.

    Raises:
        UnknownName: no such mechanism.
        ConfigError: the spec cannot be read, or its arguments do not fit.
    """
    if isinstance(spec, Mechanism):
        return spec
    if isinstance(spec, str) and (setting := published(spec)) is not None:
        return setting
    if isinstance(spec, str) and re.fullmatch(r"\s*[A-Za-z]\w*(-[\w.]+)+\s*", spec):
        raise UnknownName("published missingness", spec, SETTINGS)
    found = [spec] if isinstance(spec, Call) else calls(spec)
    if len(found) != 1:
        raise ConfigError(f"{spec!r} names {len(found)} mechanisms; missingness takes one")
    return found[0].apply(MECHANISMS[found[0].name])
