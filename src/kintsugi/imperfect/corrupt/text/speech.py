"""Text as a speech recogniser writes it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from kintsugi.imperfect.corrupt.text._common import WORDS, Floats, TextOperator, counts, hits, lowest, padded
from kintsugi.imperfect.corrupt.text.tables import FILLERS, ONES, TENS
from kintsugi.imperfect.corrupt.text.words import sounding_like
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan

_LATIN = re.compile("[a-z]")
_THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_MONEY = re.compile(r"([$€£])\s?([0-9]+(?:[.,][0-9]+)*)")
_COINS = {"$": "dollars", "€": "euros", "£": "pounds"}
_DECIMAL = re.compile(r"([0-9]+)\.([0-9]+)")
_NUMBER = re.compile(r"(?<!\w)[0-9]+(?!\w)")  # not beside a letter: B12, 2nd


@lru_cache(1 << 12)
def spoken(digits: str) -> str:
    """A whole number as it is said, ``twenty five``; digit by digit from a million on and after a leading zero."""
    if len(digits) > 6 or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(ONES[int(digit)] for digit in digits)
    return _said(int(digits))


def _said(number: int) -> str:
    if number < 20:
        return ONES[number]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = number % size
            return f"{_said(number // size)} {name}" + (f" {_said(rest)}" if rest else "")
    return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")


class _Unmarked(dict[int, str]):
    """For ``str.translate``: a blank for all punctuation but apostrophes."""

    def __missing__(self, code: int) -> str:
        self[code] = " " if unicodedata.category(chr(code))[0] == "P" else chr(code)
        return self[code]


_UNMARKED = _Unmarked({ord("'"): "'", ord("’"): "'", ord("%"): " percent ", ord("&"): " and "})


def normalised(text: str) -> list[str]:
    """The words in lower case, without punctuation; digits as they are said, unless all letters are of other scripts."""
    text = text.lower()
    if any(digit in text for digit in "0123456789") and (_LATIN.search(text) or not any(map(str.isalpha, text))):
        text = _MONEY.sub(lambda found: f"{found[2]} {_COINS[found[1]]}", text)
        text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
        text = _DECIMAL.sub(lambda found: f"{found[1]} point {' '.join(found[2])}", text)
        text = _NUMBER.sub(lambda found: spoken(found[0]), text)
    words = (word.strip("'") for word in text.translate(_UNMARKED).split())
    return [word for word in words if word]


@OPERATORS.register("asr_like")
class ASRLike(TextOperator):
    """Text as a speech recogniser for English writes it: lower case, no punctuation, numbers as words, and errors.

    share: of the words, becomes others that sound alike, where there are such; merged: share of the words that are joined
    to the next; fillers: share of the words before which the speaker says something like ``um``. Shares are of the words
    in lower case, to the nearest whole word; at least one word becomes another where one can. Draws belong to a word's
    place. Text without any letter, digit or symbol stays as it is. There is no published severity scale; the order of the
    errors of real recognisers is not modelled.
    """

    key = "asr_like"
    title = "as a speech recogniser writes it"
    source = (
        "definition: effects of speech recognition, close to the ASR noise of nlpaug and the homophones of MMCBench (arXiv "
        "2401.11943); shares: proposed here, those of the other operators of words"
    )
    scripts = "any for case and punctuation; English for numbers, homophones and fillers"
    parameters = {  # noqa: RUF012
        "default": levels(share=WORDS, merged=(0.0, 0.02, 0.05, 0.10, 0.15), fillers=(0.0, 0.02, 0.05, 0.08, 0.12))
    }

    def edit(self, texts: Sequence[str], index: Tensor, plan: Plan) -> list[str]:
        rows = [normalised(text) for text in texts]
        sizes = [len(words) for words in rows]
        if not any(sizes):
            return list(texts)
        english = [[word[0].isascii() and word[0].isalpha() for word in words] for words in rows]
        sound = self._drawn("sound", [[bool(sounding_like(w)) for w in words] for words in rows], "share", index, plan)
        filler = self._drawn("filler", english, "fillers", index, plan)
        joined = [[at + 1 < len(words) for at in range(len(words))] for words in rows]
        merge = self._drawn("merge", joined, "merged", index, plan)
        out = []
        for text, words, other, before, glued in zip(texts, rows, sound, filler, merge, strict=True):
            for at, draw in other:
                options = sounding_like(words[at])
                words[at] = options[int(draw * len(options))]
            ends = [" "] * len(words)
            for at, _ in glued:
                ends[at] = ""
            for at, draw in before:
                words[at] = f"{FILLERS[int(draw * len(FILLERS))]} {words[at]}"
                if at:
                    ends[at - 1] = " "
            out.append("".join(map(str.__add__, words, ends)).rstrip() or text)
        return out

    @staticmethod
    def _drawn(
        stream: str, able: list[list[bool]], share: str, index: Tensor, plan: Plan
    ) -> list[list[tuple[int, float]]]:
        """For each row the words that are hit, with a draw."""
        if not plan.parameters[share]:
            return [[]] * len(able)
        can = padded(np.array([a for row in able for a in row], dtype=bool), [len(row) for row in able])
        draws: list[Floats] = [
            plan.uniforms(index, can.shape[1], f"{stream} {of}").numpy() for of in ("where", "which")
        ]
        wanted = counts(plan.parameters[share], [len(row) for row in able], can.sum(1))
        return list(hits(lowest(draws[0], can, wanted), draws[1]))
