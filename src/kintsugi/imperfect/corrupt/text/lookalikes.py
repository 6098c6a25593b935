"""Characters of text that become others which are near on the keyboard, look alike, or stand for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from kintsugi.imperfect.corrupt.text._common import CHARACTERS, SHARES, Bools, Kinds, units
from kintsugi.imperfect.corrupt.text.characters import CharacterOperator
from kintsugi.imperfect.corrupt.text.tables import HOMOGLYPHS, LEET, OCR
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

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


_BESIDE = neighbours()
_BESIDE |= {key.upper(): others.upper() for key, others in _BESIDE.items()}  # a typo keeps the case


class Replacement(CharacterOperator):
    """A share of the characters, rounded to whole ones, becomes others from a table; marks stay.

    At least one in a row that has a candidate; a subclass sets ``table`` and ``candidate``, the characters that it has.
    """

    table: ClassVar[Mapping[str, Sequence[str]]]

    def change(self, part: list[str], found: list[tuple[int, float]], plan: Plan) -> None:
        table = self.table
        for at, draw in found:
            unit = part[at]
            if unit in table:
                options = table[unit]
                part[at] = options[int(draw * len(options))]
            else:
                options = table[unit[0]]
                part[at] = options[int(draw * len(options))] + unit[1:]


@OPERATORS.register("keyboard_typos")
class KeyboardTypos(Replacement):
    """A share of the characters is replaced by a letter on a key that touches theirs.

    Only ASCII letters are candidates; case and length stay. The share is that of all characters (UTF-8 characters, not
    bytes) that exist, so it is the character error rate, rounded to whole typos: at least one in a row that has a
    letter, and at most one a letter. The keyboard is QWERTY.
    """

    key = "keyboard_typos"
    title = "typing errors: a neighbouring key"
    source = SHARES
    scripts = "Latin: a to z and A to Z"
    parameters = {"default": levels(share=CHARACTERS)}  # noqa: RUF012
    table = _BESIDE
    candidate = Kinds(_BESIDE.__contains__)


# Two letters that look like one are read as one character, so that a text has the same places at all severities.
_PAIRS = re.compile("|".join(sorted(key for key in OCR if len(key) == 2)) + "|.", re.DOTALL)


def _glyphs(text: str) -> list[str]:
    if text.isascii():
        return _PAIRS.findall(text)
    out: list[str] = []
    for unit in units(text):
        if out and len(unit) == 1 and out[-1] + unit in OCR:
            out[-1] += unit
        else:
            out.append(unit)
    return out


@OPERATORS.register("ocr_errors")
class OCRErrors(Replacement):
    """A share of the characters becomes what optical character recognition takes them for.

    Such as ``rn`` for ``m``, ``cl`` for ``d``, ``0`` for ``O``, ``l`` and ``1`` for ``I``, and the other way round; a
    pair that looks like one letter is one hit. Characters that the table does not have stay.
    """

    key = "ocr_errors"
    title = "reading errors: letters that look alike to OCR"
    source = f"definition: OCR errors of nlpaug and MMCBench (arXiv 2401.11943), own table; {SHARES}"
    scripts = "Latin and digits; some letters of Cyrillic and Greek"
    parameters = {"default": levels(share=CHARACTERS)}  # noqa: RUF012
    table = OCR
    candidate = Kinds(OCR.__contains__)

    def split(self, text: str) -> list[str]:
        return _glyphs(text)

    def sizes(self, texts: Sequence[str], sizes: Sequence[int], able: Bools) -> Sequence[int]:
        return [len(text) if text.isascii() else len(units(text)) for text in texts]


@OPERATORS.register("homoglyphs")
class Homoglyphs(Replacement):
    """A share of the characters becomes letters of another script that look the same, such as Cyrillic ``а`` for ``a``.

    They take two or three bytes where ASCII takes one, so a text at the limit of length loses its end.
    """

    key = "homoglyphs"
    title = "letters of another script that look the same"
    source = (
        "definition: homoglyphs of MMCBench (arXiv 2401.11943); own table of confusables in the sense of Unicode Technical "
        f"Standard 39; {SHARES}"
    )
    scripts = "Latin, Cyrillic and Greek"
    parameters = {"default": levels(share=CHARACTERS)}  # noqa: RUF012
    table = HOMOGLYPHS
    candidate = Kinds(HOMOGLYPHS.__contains__)


@OPERATORS.register("leet")
class Leet(Replacement):
    """A share of the characters becomes the digits and signs that stand for them in leetspeak: ``3`` for ``e``."""

    key = "leet"
    title = "digits and signs in place of letters"
    source = f"definition: leet letters of MMCBench (arXiv 2401.11943), own table; {SHARES}"
    scripts = "Latin"
    parameters = {"default": levels(share=CHARACTERS)}  # noqa: RUF012
    table = LEET
    candidate = Kinds(LEET.__contains__)
