"""Words of text that go, change places, are split, joined or misspelt, and texts that end too early."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import numpy as np
from torch import Tensor

from kintsugi.imperfect.corrupt.text._common import (
    WORD_SHARES,
    WORDS,
    TextOperator,
    apart,
    counts,
    hits,
    lowest,
    padded,
    units,
)
from kintsugi.imperfect.corrupt.text._sentence import Sentence, like
from kintsugi.imperfect.corrupt.text.tables import homophones, misspellings
from kintsugi.imperfect.operator import OPERATORS, levels
from kintsugi.imperfect.plan import Plan


class WordOperator(TextOperator):
    """A share of the words is hit, rounded to whole words, at least one in a row that has a candidate.

    A word stands between blanks, without the punctuation around it, which stays; of Chinese and Japanese each character
    is one. Draws belong to its position in the text, so the hits of a severity are among those of a higher one.
    """

    keep: ClassVar[int] = 0  # so many candidates stay as they are

    def edit(self, texts: Sequence[str], index: Tensor, plan: Plan) -> list[str]:
        sentences = [Sentence(text) for text in texts]
        sizes = [len(sentence.words) for sentence in sentences]
        flat = [can for sentence in sentences for can in self.able(sentence)]
        able = padded(np.array(flat, dtype=bool), sizes)
        if not able.any():
            return list(texts)
        count = counts(plan.parameters["share"], sizes, able.sum(1) - self.keep)
        hit = lowest(plan.uniforms(index, able.shape[1], "where").numpy(), able, count)
        which = plan.uniforms(index, able.shape[1], "which").numpy()
        out = []
        for text, sentence, found in zip(texts, sentences, hits(hit, which), strict=True):
            if found:
                self.change(sentence, found)
                out.append(sentence.text())
            else:
                out.append(text)
        return out

    @abstractmethod
    def able(self, sentence: Sentence) -> list[bool]:
        """For each word: is it a candidate?"""

    @abstractmethod
    def change(self, sentence: Sentence, found: list[tuple[int, float]]) -> None:
        """Change the words at the positions found, each with a draw in [0, 1), in place."""


@OPERATORS.register("word_drop")
class WordDrop(WordOperator):
    """A share of the words is left out, each with a blank beside it; one word stays at least.

    Punctuation after a word moves to the one before it; brackets and quotes around a single word go with it.
    """

    key = "word_drop"
    title = "words left out"
    source = f"definition: random deletion of words in nlpaug and MMCBench (arXiv 2401.11943); {WORD_SHARES}"
    parameters = {"default": levels(share=WORDS)}  # noqa: RUF012
    keep = 1

    def able(self, sentence: Sentence) -> list[bool]:
        return [True] * len(sentence.words)

    def change(self, sentence: Sentence, found: list[tuple[int, float]]) -> None:
        for at, _ in found:
            sentence.drop(at)


@OPERATORS.register("word_swap")
class WordSwap(TextOperator):
    """Neighbouring words that differ change places, each word at most once; punctuation and blanks stay where they are.

    The share is that of swaps to words, as in nlpaug and EDA (Wei and Zou, EMNLP 2019), rounded to whole swaps; at least
    one in a row that has such neighbours, and fewer only where no pair is left.
    """

    key = "word_swap"
    title = "neighbouring words change places"
    source = f"definition: random swap of words in nlpaug and MMCBench (arXiv 2401.11943); {WORD_SHARES}"
    parameters = {"default": levels(share=WORDS)}  # noqa: RUF012

    def edit(self, texts: Sequence[str], index: Tensor, plan: Plan) -> list[str]:
        sentences = [Sentence(text) for text in texts]
        sizes = [len(sentence.words) for sentence in sentences]
        flat: list[bool] = []
        for sentence in sentences:
            words = sentence.words
            flat += [a != b for a, b in pairwise(words)]
            flat += [False] * bool(words)
        able = padded(np.array(flat, dtype=bool), sizes)
        if not able.any():
            return list(texts)
        count = counts(plan.parameters["share"], sizes, able.sum(1))
        places = apart(plan.uniforms(index, able.shape[1], "where").numpy(), able, count)
        for sentence, taken in zip(sentences, places, strict=True):
            for at in taken:
                first, second = sentence.words[at : at + 2]
                sentence.put(at, second)
                sentence.put(at + 1, first)
        return [sentence.text() for sentence in sentences]


@OPERATORS.register("word_split")
class WordSplit(WordOperator):
    """A share of the words gets a blank inside: of those with four characters or more, the least that nlpaug splits."""

    key = "word_split"
    title = "words split by a blank"
    source = f"definition: random split of words in nlpaug; {WORD_SHARES}"
    parameters = {"default": levels(share=WORDS)}  # noqa: RUF012
    least: ClassVar[int] = 4

    def able(self, sentence: Sentence) -> list[bool]:
        return [len(word) >= self.least and len(units(word)) >= self.least for word in sentence.words]

    def change(self, sentence: Sentence, found: list[tuple[int, float]]) -> None:
        for at, draw in found:
            parts = units(sentence.words[at])
            cut = 1 + int(draw * (len(parts) - 1))
            sentence.put(at, "".join(parts[:cut]) + " " + "".join(parts[cut:]))


@OPERATORS.register("word_merge")
class WordMerge(WordOperator):
    """The blank after a share of the words is left out: between two words, whatever punctuation is beside it."""

    key = "word_merge"
    title = "words without a blank between them"
    source = (
        f"definition: blanks removed, as in the whitespace perturbation of MMCBench (arXiv 2401.11943); {WORD_SHARES}"
    )
    parameters = {"default": levels(share=WORDS)}  # noqa: RUF012

    def able(self, sentence: Sentence) -> list[bool]:
        pieces, last = sentence.pieces, len(sentence.words) - 1
        return [at < last and pieces[place + 1] != "" for at, place in enumerate(sentence.places)]

    def change(self, sentence: Sentence, found: list[tuple[int, float]]) -> None:
        for at, _ in found:
            sentence.pieces[sentence.places[at] + 1] = ""


class ListOperator(WordOperator):
    """Words of a list become others; a subclass defines ``choices``. Capital letters stay capital."""

    scripts = "Latin: English words"

    @staticmethod
    @abstractmethod
    def choices(word: str) -> tuple[str, ...]:
        """What a word, as it stands in the text, may become; empty: it is no candidate."""

    def able(self, sentence: Sentence) -> list[bool]:
        return [bool(self.choices(word)) for word in sentence.words]

    def change(self, sentence: Sentence, found: list[tuple[int, float]]) -> None:
        for at, draw in found:
            options = self.choices(sentence.words[at])
            sentence.put(at, options[int(draw * len(options))])


# How writers of English err where no list has the word: i before e, doubled consonants, endings that sound alike.
_RULES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"ie(?=[a-z])", "ei"),
        (r"(?<=[a-z])ei", "ie"),
        (r"([b-df-hj-np-tv-z])\1", r"\1"),
        (r"ance$", "ence"),
        (r"ence$", "ance"),
        (r"ant$", "ent"),
        (r"(?<!m)ent$", "ant"),
        (r"able$", "ible"),
        (r"ible$", "able"),
        (r"(?<=[a-z])ary$", "ery"),
        (r"eful$|ful$", "full"),
        (r"(?<=[aeiou])([lmnst])(?=[aeiou])", r"\1\1"),
        (r"ph", "f"),
        (r"(?<=[aeiou])tion$", "sion"),
    )
)


@lru_cache(1 << 16)
def misspelt(word: str) -> tuple[str, ...]:
    """Misspellings of a word of English, with its capitals: those of the list, else by rules from five letters on."""
    low = word.lower()
    found = misspellings().get(low, ())
    if not found and len(low) > 4 and low.isascii() and low.isalpha():
        by_rule = (pattern.sub(new, low, count=1) for pattern, new in _RULES)
        found = tuple(dict.fromkeys(other for other in by_rule if other != low))
    return tuple(like(other, word) for other in found)


@lru_cache(1 << 16)
def sounding_like(word: str) -> tuple[str, ...]:
    """Words of English that sound like this one, with its capitals."""
    return tuple(like(other, word) for other in homophones().get(word.lower(), ()))


@OPERATORS.register("misspellings")
class Misspellings(ListOperator):
    """A share of the words is misspelt as writers of English do: from a list, or by rules such as ``ei`` for ``ie``."""

    key = "misspellings"
    title = "common misspellings"
    source = (
        f"definition: misspelling of words in nlpaug and MMCBench (arXiv 2401.11943), own list and rules; {WORD_SHARES}"
    )
    parameters = {"default": levels(share=WORDS)}  # noqa: RUF012
    choices = staticmethod(misspelt)


@OPERATORS.register("homophones")
class Homophones(ListOperator):
    """A share of the words becomes others that sound alike, such as ``their`` for ``there``."""

    key = "homophones"
    title = "words that sound alike"
    source = f"definition: close homophones of MMCBench (arXiv 2401.11943), own list; {WORD_SHARES}"
    parameters = {"default": levels(share=WORDS)}  # noqa: RUF012
    choices = staticmethod(sounding_like)


@OPERATORS.register("truncation")
class Truncation(TextOperator):
    """Only a share of the words at the beginning is kept, rounded to whole words: at least one, and one fewer than all.

    Punctuation right after the last word that is kept stays, as in a text that was cut at a blank.
    """

    key = "truncation"
    title = "the end is cut off"
    source = "shares kept: proposed here, from a lost last word to a sixth that is left"
    parameters = {"default": levels(kept=(0.9, 0.75, 0.5, 0.3, 0.15))}  # noqa: RUF012
    random = False

    def edit(self, texts: Sequence[str], index: Tensor, plan: Plan) -> list[str]:
        return [self._one(text, plan.parameters["kept"]) for text in texts]

    def _one(self, text: str, kept: float) -> str:
        sentence = Sentence(text)
        size = len(sentence.words)
        if size < 2:
            return text
        last = min(size - 1, max(1, int(np.rint(kept * size)))) - 1
        return "".join(sentence.pieces[: sentence.places[last] + 1])
