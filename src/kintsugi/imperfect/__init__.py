"""Imperfect data on purpose: how slots go missing, and how inputs are corrupted.

``corrupt(operator, modality, severity)`` is in :mod:`kintsugi.imperfect.corruption`; here, that name is the package of
operators.
"""

from kintsugi.imperfect.corruption import (
    OPERATORS,
    Compose,
    Corruption,
    Distortion,
    Operator,
    Plan,
    list_corruptions,
    parse_corruption,
)
from kintsugi.imperfect.missing import (
    MECHANISMS,
    Mask,
    Mechanism,
    given,
    mcar,
    parse_mechanism,
    pattern,
    per_modality,
    smil,
)

__all__ = [
    "MECHANISMS",
    "OPERATORS",
    "Compose",
    "Corruption",
    "Distortion",
    "Mask",
    "Mechanism",
    "Operator",
    "Plan",
    "given",
    "list_corruptions",
    "mcar",
    "parse_corruption",
    "parse_mechanism",
    "pattern",
    "per_modality",
    "smil",
]
