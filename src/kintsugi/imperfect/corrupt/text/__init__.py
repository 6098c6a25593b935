"""Corruptions of text: ids of UTF-8 bytes, int64 ``[R, L]``: 0 is padding, ``b + 1`` is byte ``b``; or plain strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.imperfect.corrupt.text._common import TextOperator
from kintsugi.imperfect.corrupt.text.lookalikes import neighbours
from kintsugi.imperfect.corrupt.text.rewrite import rewritten
from kintsugi.imperfect.operator import OPERATORS, check_severity
from kintsugi.imperfect.plan import Plan

__all__ = ["corrupt_texts", "neighbours", "rewritten"]

_BLOCK = 1 << 16  # characters, with padding, whose draws are made at once: they stay in a CPU's cache


def corrupt_texts(texts: Sequence[str], operator: str, severity: int = 3, seed: int = 0, **given: Any) -> list[str]:
    """Strings with a corruption of text, without a data set and without a limit of length.

    They become what they become as rows 0, 1, 2, … of a modality that is called ``text``, under the same seed.

    Args:
        texts: empty ones stay. operator: its key, such as ``"keyboard_typos"``. severity: 1 (mild) to 5 (severe); 0 does
            nothing. seed: of the draws. given: values in place of those of the level, such as ``share=0.2``.

    Raises:
        UnknownName: no such operator or parameter.
        ConfigError: the operator is none of text, or the severity is out of range.
        DataError: ``texts`` is a single string, or holds something else than strings.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise DataError("corrupt_texts takes a list of strings")
    kind = OPERATORS[operator]
    if not issubclass(kind, TextOperator):
        raise ConfigError(f"{operator} damages {kind.kind}, not text")
    check_severity(operator, severity)
    if not severity:
        return list(texts)
    made = kind()
    preset = given.pop("preset", next(iter(kind.parameters)))
    plan = Plan(operator, "text", severity, int(seed), made._values(preset, severity, given))
    out = list(texts)
    for rows in _blocks(texts):
        changed = made.edit([texts[row] for row in rows], torch.tensor(rows, dtype=torch.int64), plan)
        for row, text in zip(rows, changed, strict=True):
            out[row] = text or texts[row]
    return out


def _blocks(texts: Sequence[str]) -> Iterator[list[int]]:
    """Rows that hold text, of about the same length, so that padding is little."""
    rows = sorted((row for row, text in enumerate(texts) if text), key=lambda row: len(texts[row]))
    block: list[int] = []
    for row in rows:
        if block and (len(block) + 1) * len(texts[row]) > _BLOCK:
            yield block
            block = []
        block.append(row)
    if block:
        yield block
