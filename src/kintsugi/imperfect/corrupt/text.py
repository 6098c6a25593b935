"""Corruptions of text: ids of UTF-8 bytes, int64 ``[R, L]``: 0 is padding, ``b + 1`` is byte ``b``."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.imperfect.operator import OPERATORS, Operator, levels
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.seeds import stable_key, uniforms

# The letters of a QWERTY keyboard; each row's shift to the right, in widths of a key, is that of an ANSI keyboard.
_KEYBOARD = ((0.0, "qwertyuiop"), (0.25, "asdfghjkl"), (0.75, "zxcvbnm"))
_REACH = 1.3  # widths of a key between centres: the keys that touch


def neighbours() -> dict[str, str]:
    """Letter -> letters on the keys that touch its key."""
    at = {key: (column + shift, row) for row, (shift, keys) in enumerate(_KEYBOARD) for column, key in enumerate(keys)}
    return {
        key: "".join(o for o, (u, v) in at.items() if o != key and np.hypot(u - x, v - y) < _REACH)
        for key, (x, y) in at.items()
    }


def _table() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each id: the ids of its neighbours ``[257, 6]``, and how many it has; none: no letter."""
    beside, count = np.zeros((257, 6), dtype=np.int64), np.zeros(257, dtype=np.int64)
    for key, others in neighbours().items():
        for change in (str.lower, str.upper):  # a typo keeps the case
            own = ord(change(key)) + 1
            count[own] = len(others)
            beside[own, : len(others)] = [ord(change(other)) + 1 for other in others]
    return beside, count


_BESIDE, _COUNT = _table()


@OPERATORS.register("keyboard_typos")
class KeyboardTypos(Operator):
    """A share of the characters is replaced by a letter on a key that touches theirs.

    Only ASCII letters are candidates; case and length stay. The share is that of all characters (UTF-8 characters, not
    bytes) that exist, so it is the character error rate, rounded to whole typos: at least one in a row that has a
    letter, and at most one a letter. Draws belong to a position, so they do not depend on how far a batch is padded.
    """

    key, kind = "keyboard_typos", "text"
    title = "typing errors: a neighbouring key"
    source = "shares: proposed here, below the defaults of nlpaug (30 % of the characters in 30 % of the words)"
    parameters = {"default": levels(share=(0.02, 0.05, 0.10, 0.15, 0.25))}  # noqa: RUF012

    def check(self, modality: Modality) -> None:
        super().check(modality)
        if modality.vocab not in (None, 257):
            raise ConfigError(
                f"{self.key} reads bytes (257 ids: padding and 256 bytes), and modality {modality.name!r} has "
                f"{modality.vocab} ids; give it as text instead of tokens"
            )

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        ids = x.cpu().numpy()
        seen = ids > 0 if mask is None else (ids > 0) & mask.cpu().numpy()
        ids = np.where(seen, ids, 0)
        letters = _COUNT[ids] > 0
        typos = np.rint(plan.parameters["share"] * _characters(ids)).astype(np.int64)
        typos = np.minimum(np.maximum(typos, 1), letters.sum(1))
        where = np.where(letters, uniforms(stable_key(plan.key, "where"), index, ids.shape[1]), 2.0)
        which = uniforms(stable_key(plan.key, "which"), index, ids.shape[1])
        hit = where.argsort(1, kind="stable").argsort(1, kind="stable") < typos[:, None]
        other = _BESIDE[ids, (which * _COUNT[ids]).astype(np.int64)]
        changed = torch.from_numpy(np.where(hit, other, 0)).to(x)
        return torch.where(changed > 0, changed, x), mask


def _characters(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Characters of each row: bytes that do not continue a UTF-8 character (those are 0x80 to 0xBF)."""
    counts: NDArray[np.int64] = ((ids > 0) & ((ids <= 0x80) | (ids > 0xC0))).sum(1)
    return counts
