"""Corrupting sentences: strings in, strings out, against nlpaug.

pip install nlpaug
OMP_NUM_THREADS=1 python benchmarks/text.py

Both seeded, one thread. nlpaug gets one sentence after the other (a list is no faster with it) and its usual shares; ours
is run at severity 5, where it changes most. nlpaug's spelling errors need a dictionary that it brings.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from common import interleaved, machine, ratio

from kintsugi.imperfect.corrupt.text import corrupt_texts

RUNS, SENTENCES, LENGTH = 7, 1000, 20
WORDS = (
    "the patient reports two or three days of chest pain worse at night and there is no fever we would have received new "
    "equipment tomorrow morning but their weather station over here is larger than four other buildings you know because "
    "people believe that different things happen after a long journey through the beautiful country"
)


def sentences() -> list[str]:
    """Of 20 words, with a capital, a comma and a full stop."""
    draw = random.Random(0)
    words = WORDS.split()
    out = []
    for _ in range(SENTENCES):
        said = [draw.choice(words) for _ in range(LENGTH)]
        said[0], said[LENGTH // 2] = said[0].capitalize(), said[LENGTH // 2] + ","
        out.append(" ".join(said) + ".")
    return out


def others() -> dict[str, Any]:
    """Our operator -> nlpaug's augmenter."""
    import nlpaug.augmenter.char as char
    import nlpaug.augmenter.word as word

    return {
        "keyboard_typos": char.KeyboardAug(include_special_char=False, include_numeric=False),
        "ocr_errors": char.OcrAug(),
        "char_insert": char.RandomCharAug("insert"),
        "char_swap": char.RandomCharAug("swap"),
        "char_delete": char.RandomCharAug("delete"),
        "misspellings": word.SpellingAug(),
        "word_swap": word.RandomWordAug("swap"),
        "word_drop": word.RandomWordAug("delete"),
        "word_split": word.SplitAug(),
    }


def main() -> None:
    texts = sentences()
    print(machine())
    print(f"{SENTENCES} sentences of {LENGTH} words, medians of {RUNS}")
    for key, augmenter in others().items():

        def ours(key: str = key) -> list[str]:
            return corrupt_texts(texts, key, 5, seed=1)

        def nlpaug(augmenter: Any = augmenter) -> list[Any]:
            random.seed(1)
            return [augmenter.augment(text) for text in texts]

        jobs: dict[str, Callable[[], object]] = {"kintsugi": ours, "nlpaug": nlpaug}
        print(f"{key}: {ratio(interleaved(RUNS, **jobs), 'kintsugi', 'nlpaug')}")


if __name__ == "__main__":
    main()
