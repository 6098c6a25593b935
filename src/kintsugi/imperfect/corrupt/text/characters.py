"""Characters of text that come, go, change places or case; and blanks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kintsugi.imperfect.corrupt.text._common import (
    CHARACTERS,
    SHARES,
    Bools,
    Kinds,
    TextOperator,
    apart,
    counts,
    hits,
    lowest,
    padded,
    units,
)
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan


class CharacterOperator(TextOperator):
    """A share of the characters is hit, rounded to whole ones, at least one in a row that has a candidate.

    A character is a base with its combining marks. Draws belong to its position in the text, so the hits of a severity
    are among those of a higher one. A subclass defines :meth:`change` and which characters are candidates.
    """

    candidate: ClassVar[Kinds] = Kinds(str.isalnum)
    keep: ClassVar[int] = 0  # so many candidates stay as they are

    def edit(self, texts: Sequence[str], index: Tensor, plan: Plan) -> list[str]:
        parts = [self.split(text) for text in texts]
        sizes = [len(part) for part in parts]
        codes = heads(texts, parts)
        able = self.able(codes)
        drawn = self.drawn(plan.uniforms(index, able.shape[1], "where").numpy(), codes)
        hit = lowest(
            drawn, able, counts(plan.parameters["share"], self.sizes(texts, sizes, able), able.sum(1) - self.keep)
        )
        which = plan.uniforms(index, able.shape[1], "which").numpy()
        out = []
        for text, part, found in zip(texts, parts, hits(hit, which), strict=True):
            if found:
                self.change(part, found, plan)
                out.append("".join(part))
            else:
                out.append(text)
        return out

    def split(self, text: str) -> list[str]:
        """A text as its characters."""
        return units(text)

    def able(self, codes: NDArray[np.uint32]) -> Bools:
        """Bool ``[R, N]``: candidates; ``codes``: uint32 ``[R, N]``, of the first code point of each."""
        return self.candidate(codes)

    def drawn(self, draws: NDArray[np.float64], codes: NDArray[np.uint32]) -> NDArray[np.float64]:
        """``[R, N]``: the lowest are hit."""
        return draws

    def sizes(self, texts: Sequence[str], sizes: Sequence[int], able: Bools) -> Sequence[int]:
        """Of what the share is one, for each row: its characters."""
        return sizes

    @abstractmethod
    def change(self, part: list[str], found: list[tuple[int, float]], plan: Plan) -> None:
        """Change the characters of one text in place: those at the positions found, each with a draw in [0, 1)."""


def heads(texts: Sequence[str], parts: Sequence[list[str]]) -> NDArray[np.uint32]:
    """The first code point of each character, uint32 ``[R, N]``; 0 after the end."""
    flat = "".join(
        text if len(text) == len(part) else "".join([unit[0] for unit in part])
        for text, part in zip(texts, parts, strict=True)
    )
    codes = np.frombuffer(flat.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return padded(codes, [len(part) for part in parts])


@OPERATORS.register("char_insert")
class CharInsert(CharacterOperator):
    """A character too many before or after a letter or digit: of ``a`` to ``z`` or ``0`` to ``9`` beside such a one.

    It is a capital between capitals. Beside others it is a character of the same script (by Unicode block) that the text
    has, so any script stays what it is.
    """

    key = "char_insert"
    title = "spelling errors: inserted characters"
    source = f"definition: random insertion of nlpaug and MMCBench (arXiv 2401.11943); {SHARES}"
    parameters = {"default": levels(share=CHARACTERS)}  # noqa: RUF012

    def change(self, part: list[str], found: list[tuple[int, float]], plan: Plan) -> None:
        pools: dict[int, list[str]] = {}
        clean = part.copy()
        for at, draw in found:
            unit = part[at]
            draw *= 2
            after, draw = draw >= 1, draw % 1
            if len(unit) == 1 and unit.isascii():
                capital = unit.isupper() and any(near.isupper() for near in clean[at - 1 : at] + clean[at + 1 : at + 2])
                pool: Sequence[str] = _DIGITS if unit.isdigit() else _UPPER if capital else _LOWER
            else:
                block = _block(unit)
                if block not in pools:
                    pools[block] = [u for u in clean if u[0].isalnum() and _block(u) == block]
                pool = pools[block]
            new = pool[int(draw * len(pool))]
            part[at] = unit + new if after else new + unit


_LOWER, _UPPER, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"


def _block(unit: str) -> int:
    """The same for characters of one script, roughly: 256 code points; Latin with its accents, and Han, are one each."""
    code = ord(unit[0])
    if code < 0x250:
        return 0
    return 0x4E if 0x3400 <= code < 0xA000 or code >= 0x20000 else code >> 8


@OPERATORS.register("char_delete")
class CharDelete(CharacterOperator):
    """A share of the characters is left out: letters and digits with their marks, never the last one of a text."""

    key = "char_delete"
    title = "spelling errors: characters left out"
    source = f"definition: random deletion of nlpaug and MMCBench (arXiv 2401.11943); {SHARES}"
    parameters = {"default": levels(share=CHARACTERS)}  # noqa: RUF012
    keep = 1

    def change(self, part: list[str], found: list[tuple[int, float]], plan: Plan) -> None:
        for at, _ in found:
            part[at] = ""


@OPERATORS.register("char_repeat")
class CharRepeat(CharacterOperator):
    """A share of the characters, letters and digits, is repeated; ``times``: by how many copies."""

    key = "char_repeat"
    title = "spelling errors: repeated characters"
    source = f"definition: character repetition of MMCBench (arXiv 2401.11943), twice (light) to four times (heavy); {SHARES}"
    parameters = {"default": levels(share=CHARACTERS, times=(1, 1, 1, 2, 3))}  # noqa: RUF012

    def change(self, part: list[str], found: list[tuple[int, float]], plan: Plan) -> None:
        times = 1 + max(0, int(plan.parameters["times"]))
        for at, _ in found:
            part[at] *= times


@OPERATORS.register("char_swap")
class CharSwap(TextOperator):
    """Neighbouring characters change places: two letters or digits that differ, each at most once.

    The share is that of the characters that move, two a swap, rounded to whole swaps; at least one in a row that has such
    neighbours. Marks move with their base. Fewer are moved only where no pair is left.
    """

    key = "char_swap"
    title = "spelling errors: neighbouring characters change places"
    source = f"definition: random swap of nlpaug and MMCBench (arXiv 2401.11943); {SHARES}"
    parameters = {"default": levels(share=CHARACTERS)}  # noqa: RUF012

    def edit(self, texts: Sequence[str], index: Tensor, plan: Plan) -> list[str]:
        parts = [units(text) for text in texts]
        codes = heads(texts, parts)
        able = CharacterOperator.candidate(codes)
        able[:, :-1] &= able[:, 1:] & (codes[:, :-1] != codes[:, 1:])
        able[:, -1] = False
        count = counts(plan.parameters["share"] / 2, [len(part) for part in parts], able.sum(1))
        taken = apart(plan.uniforms(index, able.shape[1], "where").numpy(), able, count)
        for part, places in zip(parts, taken, strict=True):
            for at in places:
                part[at], part[at + 1] = part[at + 1], part[at]
        return ["".join(part) for part in parts]


@OPERATORS.register("random_case")
class RandomCase(CharacterOperator):
    """A share of the letters that have two cases gets the other one, up to nine in ten."""

    key = "random_case"
    title = "letters in the wrong case"
    source = "definition: random uppercase of MMCBench (arXiv 2401.11943), both ways; shares: proposed here"
    scripts = "those with two cases, such as Latin, Cyrillic, Greek and Armenian"
    parameters = {"default": levels(share=(0.05, 0.10, 0.25, 0.50, 0.90))}  # noqa: RUF012
    candidate = Kinds(lambda c: c.swapcase() != c and c.swapcase().swapcase() == c)

    def sizes(self, texts: Sequence[str], sizes: Sequence[int], able: Bools) -> Sequence[int]:
        found: list[int] = able.sum(1).tolist()
        return found

    def change(self, part: list[str], found: list[tuple[int, float]], plan: Plan) -> None:
        for at, _ in found:
            unit = part[at]
            part[at] = unit[0].swapcase() + unit[1:]


@OPERATORS.register("whitespace_noise")
class WhitespaceNoise(CharacterOperator):
    """Blanks go, and others come between letters or digits; the share is that of all characters.

    A blank is drawn three times as readily as a place inside a word, so that about as many go as come in English at the
    lower severities. A text without blanks only gets some.
    """

    key = "whitespace_noise"
    title = "blanks inserted and removed"
    source = (
        "definition: whitespace perturbation of MMCBench (arXiv 2401.11943); shares: proposed here, half of those of the other "
        "operators of characters, for only one character in six is a blank"
    )
    parameters = {"default": levels(share=tuple(share / 2 for share in CHARACTERS))}  # noqa: RUF012
    blank: ClassVar[Kinds] = Kinds(str.isspace)

    def able(self, codes: NDArray[np.uint32]) -> Bools:
        inside = self.candidate(codes)
        inside[:, :-1] &= inside[:, 1:]
        inside[:, -1] = False
        wordy = (codes > 0) & ~self.blank(codes)
        some = wordy.sum(1)[:, None] > 0  # a text of nothing but blanks must not become empty
        return inside | (self.blank(codes) & some)

    def drawn(self, draws: NDArray[np.float64], codes: NDArray[np.uint32]) -> NDArray[np.float64]:
        return np.where(self.blank(codes), draws / 3, draws)

    def change(self, part: list[str], found: list[tuple[int, float]], plan: Plan) -> None:
        for at, _ in found:
            part[at] = "" if part[at].isspace() else part[at] + " "
