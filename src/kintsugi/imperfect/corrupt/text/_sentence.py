"""A text as words and what stands between them, so that words can change and all else stays."""

from __future__ import annotations

import re

from kintsugi.imperfect.corrupt.text._common import units

# Marks around words that are no part of them: of ASCII, typographic, and of other scripts. Signs such as $ and # are.
MARKS = "!\"'()*,-./:;?[\\]_`{}‘’‚“”„«»‹›–—…•·¡¿、。，．！？；：（）「」『』【】《》・।॥،؛؟۔"
_CLOSING = ".,;:!?…、。，！？；：।॥،؛؟۔"
_BLANKS = re.compile(r"(\s+)")
_HAN = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


class Sentence:
    """A text as ``pieces``: words with the marks around them, and blanks, in turn.

    words: without marks; places: in ``pieces``, always at even numbers. In Chinese and Japanese, which have no blanks,
    each character is a word, as in error rates of these languages.
    """

    __slots__ = ("pieces", "places", "words")

    def __init__(self, text: str) -> None:
        self.pieces = _BLANKS.split(text)
        if not text.isascii() and _HAN.search(text):
            self.pieces = _characters(self.pieces)
        self.words: list[str] = []
        self.places: list[int] = []
        for place in range(0, len(self.pieces), 2):
            word = self.pieces[place].strip(MARKS)
            if word:
                self.words.append(word)
                self.places.append(place)

    def text(self) -> str:
        """The text as it is now."""
        return "".join(self.pieces)

    def around(self, at: int) -> tuple[str, str]:
        """The marks before and after a word, as the text was."""
        piece = self.pieces[self.places[at]]
        word = self.words[at]
        before = len(piece) - len(piece.lstrip(MARKS))
        return piece[:before], piece[before + len(word) :]

    def put(self, at: int, word: str) -> None:
        """Another word in its place, between the same marks. Once for each word."""
        before, after = self.around(at)
        self.pieces[self.places[at]] = before + word + after

    def drop(self, at: int) -> None:
        """Without this word and a blank beside it. Once for each word, from left to right."""
        before, after = self.around(at)
        if before and after:  # brackets or quotes around one word
            before, after = "", "".join(mark for mark in after if mark in _CLOSING)
        place = self.places[at]
        if after and not any(self.pieces[:place]):
            after = ""
        self.pieces[place] = before + after
        first = not any(self.pieces[: max(place - 1, 0)])
        if before or (first and not after):
            if place + 1 < len(self.pieces):
                self.pieces[place + 1] = ""
        elif place:
            self.pieces[place - 1] = ""


def like(word: str, model: str) -> str:
    """A word in lower case with the capitals of another one: all, the first, or none."""
    if model.islower():
        return word
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


def _characters(pieces: list[str]) -> list[str]:
    """Pieces in which each Chinese or Japanese character is one of its own, with nothing for a blank between them."""
    out: list[str] = []
    for place, piece in enumerate(pieces):
        if place % 2 or not _HAN.search(piece):
            out.append(piece)
            continue
        runs: list[str] = []
        open_run = False
        for unit in units(piece):
            han = bool(_HAN.match(unit))
            if runs and (unit in MARKS or (open_run and not han)):
                runs[-1] += unit
            else:
                runs.append(unit)
                open_run = not han
        for number, run in enumerate(runs):
            out += ["", run] if number else [run]
    return out
