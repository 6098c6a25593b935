"""What operators of text have in common: from ids to strings and back, units that are never torn, and hits."""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality
from kintsugi.imperfect.operator import Operator
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.spec import share as as_share

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHARACTERS = (0.02, 0.05, 0.10, 0.15, 0.25)  # shares of a text's characters, by severity
WORDS = (0.05, 0.10, 0.20, 0.30, 0.45)  # shares of a text's words
SHARES = "shares: proposed here, below the defaults of nlpaug (30 % of the characters in 30 % of the words)"
WORD_SHARES = "shares: proposed here, around the default of nlpaug (30 % of the words)"


class TextOperator(Operator):
    """A corruption of text: ids of UTF-8 bytes, int64 ``[R, L]``: 0 is padding, ``b + 1`` is byte ``b``.

    A subclass defines :meth:`edit`. The text of a row is what is seen of it: steps that hold a byte and that the mask, if
    there is one, shows. The edited text is written into these steps and, where it became longer, into the padding behind
    them; it is cut at the end of a character where it is longer than the room. Rows with hidden bytes do not grow, and
    what stands in hidden steps is neither read nor changed. The mask follows the text; no row becomes empty. Rows that
    are empty or no valid UTF-8 stay as they are.

    scripts: the scripts on which it acts; characters of others stay as they are.
    """

    kind = "text"
    scripts: ClassVar[str] = "any"

    @abstractmethod
    def edit(self, texts: Sequence[str], index: Tensor, plan: Plan) -> list[str]:
        """The texts after the corruption, none of them empty.

        Args:
            texts: of ``R`` rows, none empty. index: int64 ``[R]``, on the CPU: the rows. plan: from :meth:`plan`.
        """

    @classmethod
    def check_values(cls, preset: str | None, given: Mapping[str, Any]) -> None:
        super().check_values(preset, given)
        for name in ("share", "kept", "merged", "fillers"):
            if name in given:
                as_share(f"{name} of {cls.key}", given[name])

    def check(self, modality: Modality) -> None:
        super().check(modality)
        if modality.vocab not in (None, 257):
            raise ConfigError(
                f"{self.key} reads bytes (257 ids: padding and 256 bytes), and modality {modality.name!r} has "
                f"{modality.vocab} ids; give it as text instead of tokens"
            )

    def damage(self, x: Tensor, index: Tensor, plan: Plan, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return rewrite(x, mask, lambda texts, rows: self.edit(texts, index.cpu()[rows], plan))


def rewrite(
    x: Tensor, mask: Tensor | None, edit: Callable[[list[str], Tensor], list[str]]
) -> tuple[Tensor, Tensor | None]:
    """Rows of ids with their texts edited, as :class:`TextOperator` says it.

    Args:
        x: int64 ``[R, L]``; changed in place where it is on the CPU. mask: bool ``[R, L]`` or None; not changed.
        edit: from texts and their rows, int64 ``[K]``, to as many texts.

    Returns:
        The ids ``[R, L]``, and their mask: the one given where it stays as it is.
    """
    ids = x.cpu().numpy()
    seen = ids > 0 if mask is None else (ids > 0) & mask.cpu().numpy()
    rows, texts = _decoded(ids, seen)
    after = None if mask is None else mask.cpu().numpy().copy()
    changed = edit(texts, torch.tensor(rows, dtype=torch.int64)) if rows else []
    for row, old, new in zip(rows, texts, changed, strict=True):
        if new != old:
            _write(new, ids[row], seen[row], None if after is None else after[row])
    if mask is None or after is None:
        return torch.from_numpy(ids).to(x), None
    moved = torch.from_numpy(after).to(mask.device)
    return torch.from_numpy(ids).to(x), mask if torch.equal(moved, mask) else moved


def _decoded(ids: Ints, seen: Bools) -> tuple[list[int], list[str]]:
    """The rows that hold text, and their texts."""
    data = (ids - 1).astype(np.uint8)
    rows, texts = [], []
    for row, (codes, here) in enumerate(zip(data, seen, strict=True)):
        try:
            text = codes[here].tobytes().decode()
        except UnicodeDecodeError:
            continue
        if text:
            rows.append(row)
            texts.append(text)
    return rows, texts


def _write(text: str, ids: Ints, seen: Bools, mask: Bools | None) -> None:
    """Put a text into one row ``[L]`` of ids and of their mask."""
    steps = seen.nonzero()[0]
    room = steps
    if not ((ids > 0) & ~seen).any():
        room = np.concatenate([steps, np.arange(steps[-1] + 1, len(ids))])
    data = np.frombuffer(_cut(text, len(room)), dtype=np.uint8)
    if len(data) == 0:
        return
    used, freed = room[: len(data)], steps[len(data) :]
    ids[freed] = 0
    ids[used] = data.astype(np.int64) + 1
    if mask is not None:
        mask[freed] = False
        mask[used] = True


def _cut(text: str, room: int) -> bytes:
    """The UTF-8 bytes of as many whole units as there is room for."""
    data = text.encode()
    if len(data) <= room:
        return data
    kept, size = [], 0
    for unit in units(text):
        size += len(unit.encode())
        if size > room:
            break
        kept.append(unit)
    return "".join(kept).encode()


# units ---------------------------------------------------------------------------------------------------------------
@cache
def _unit() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What joins characters, and one character as a reader sees it.

    That is a base with its marks, a pair of flag letters, a sequence of joined emoji: close to the grapheme clusters of
    Unicode Standard Annex 29. Hangul is expected to be composed (NFC).
    """
    planes = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))  # no marks elsewhere as of Unicode 16
    marks = [c for plane in planes for c in plane if unicodedata.category(chr(c))[0] == "M"]
    ranges, start = [], 0
    for at, code in enumerate(marks):
        if at + 1 == len(marks) or marks[at + 1] != code + 1:
            ranges.append(f"{chr(marks[start])}-{chr(code)}")
            start = at + 1
    more = "".join(ranges) + "\u200c\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # non-joiner, skin tones, tags of flags
    flags = "\U0001f1e6-\U0001f1ff"
    unit = f"\r\n|[{flags}][{flags}]|.(?:[{more}]|\u200d.?)*"
    return re.compile(f"[{more}{flags}\u200d\r]"), re.compile(unit, re.DOTALL)


def units(text: str) -> list[str]:
    """The characters of a text, each with its combining marks; joined they are the text."""
    if text.isascii() and "\r" not in text:
        return list(text)
    joining, unit = _unit()
    return unit.findall(text) if joining.search(text) else list(text)


class Kinds:
    """Which characters pass a test, for many at once. Each code point is tested once."""

    def __init__(self, test: Callable[[str], bool]) -> None:
        self.test = test
        self._known: NDArray[np.uint8] | None = None  # 0 no, 1 yes, 2 not yet asked

    def __call__(self, codes: NDArray[np.uint32]) -> Bools:
        """Bool, of the shape of the code points."""
        if self._known is None:
            known = np.full(0x110000, 2, dtype=np.uint8)
            known[:128] = [self.test(chr(c)) for c in range(128)]
            self._known = known
        found = self._known[codes]
        new = codes[found == 2]
        if len(new):
            for code in set(new.tolist()):
                self._known[code] = self.test(chr(code))
            found = self._known[codes]
        return found == 1


# hits ----------------------------------------------------------------------------------------------------------------
def padded(flat: NDArray[Any], sizes: Sequence[int]) -> NDArray[Any]:
    """``[R, N]`` from rows of different sizes, one after the other; 0 after the end of a row."""
    if len(sizes) == 1:
        return flat[None]
    n = np.asarray(sizes)
    out = np.zeros((len(n), int(n.max(initial=1))), dtype=flat.dtype)
    out[np.arange(out.shape[1]) < n[:, None]] = flat
    return out


def counts(share: float, sizes: Sequence[int], most: Ints) -> Ints:
    """How many are hit in each row: the share of its size to the nearest whole, at least one, at most ``most`` ``[R]``."""
    wanted = np.rint(share * np.asarray(sizes)).astype(np.int64)
    wanted = np.maximum(wanted, 1) if share > 0 else wanted
    return np.clip(wanted, 0, np.maximum(most, 0))


def lowest(draws: Floats, candidates: Bools, count: Ints) -> Bools:
    """The ``count`` candidates of each row with the lowest draws, bool ``[R, N]``: a larger count adds to them."""
    drawn = np.where(candidates, draws, 2.0)
    edge = np.take_along_axis(np.sort(drawn, 1), np.maximum(count - 1, 0)[:, None], 1)
    return candidates & (drawn <= edge) & (count > 0)[:, None]


def apart(draws: Floats, candidates: Bools, count: Ints) -> list[list[int]]:
    """As :func:`lowest`, but passing over neighbours of what was taken already: pairs that share nothing."""
    order = np.where(candidates, draws, 2.0).argsort(1, kind="stable")
    found = []
    for row, some, wanted in zip(order, candidates.sum(1).tolist(), count.tolist(), strict=True):
        taken: set[int] = set()
        for at in row[:some].tolist() if wanted else ():
            if at - 1 not in taken and at + 1 not in taken:
                taken.add(at)
                if len(taken) == wanted:
                    break
        found.append(sorted(taken))
    return found


def hits(hit: Bools, which: Floats) -> Iterator[list[tuple[int, float]]]:
    """For each row the positions that are hit, in order, each with its draw."""
    rows, columns = hit.nonzero()
    pairs = list(zip(columns.tolist(), which[rows, columns].tolist(), strict=True))
    ends = hit.sum(1).cumsum().tolist()
    start = 0
    for end in ends:
        yield pairs[start:end]
        start = end
