"""What each corruption of text does, and what it leaves alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from corruption_data import ids, make, words
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Schema
from kintsugi.data.dataset import Dataset
from kintsugi.imperfect.corrupt.text import corrupt_texts, rewritten
from kintsugi.imperfect.corrupt.text._common import CHARACTERS, WORDS, units
from kintsugi.imperfect.corrupt.text._sentence import Sentence
from kintsugi.imperfect.corrupt.text.speech import normalised, spoken
from kintsugi.imperfect.corrupt.text.tables import HOMOGLYPHS, LEET, OCR, homophone_groups, homophones, misspellings
from kintsugi.imperfect.corruption import Compose, corrupt, parse_corruption
from kintsugi.imperfect.operator import OPERATORS, list_corruptions
from kintsugi.imperfect.plan import Plan

EVERY = list_corruptions("text")
REPLACE = ["keyboard_typos", "ocr_errors", "homoglyphs", "leet"]
MARKED = [
    "char_insert",
    "char_delete",
    "char_swap",
    "char_repeat",
    "word_drop",
    "word_swap",
    "word_split",
    "word_merge",
]
ENGLISH = "The patient reports two or three days of chest pain, worse at night, and there is no fever today."
TEXTS = {
    "Latin": ENGLISH,
    "Cyrillic": "Врач сказал, что боль пройдёт через несколько дней.",
    "Greek": "Η γάτα κάθεται στο χαλί και κοιτάζει έξω.",
    "Arabic": "المَريض يشعر بألم في الصدر منذ يومين.",
    "Devanagari": "रोगी को अस्पताल में दो दिन से सीने में ज़्यादा दर्द है।",
    "Han": "患者报告胸痛两天，夜间更严重。",
    "emoji": "👩‍👩‍👧 👍🏽 🇫🇷 🇩🇪 ❤️",
}
NO_CASE = {"random_case", "ocr_errors", "homoglyphs"}  # nothing to do for scripts without them
ONLY_LATIN = {"keyboard_typos", "leet", "misspellings", "homophones"}
STAY: dict[str, set[str]] = {
    "Latin": set(),
    "Cyrillic": ONLY_LATIN,
    "Greek": ONLY_LATIN,
    "Arabic": ONLY_LATIN | NO_CASE,
    "Devanagari": ONLY_LATIN | NO_CASE,
    "Han": ONLY_LATIN | NO_CASE | {"word_merge", "word_split"},
    "emoji": ONLY_LATIN | NO_CASE | {"char_insert", "char_delete", "char_swap", "char_repeat", "word_split"},
}


def at_all(text: str, key: str, seed: int = 0) -> list[str]:
    """The text at severities 1 to 5."""
    return [corrupt_texts([text], key, severity, seed)[0] for severity in range(1, 6)]


def whole(share: float, size: int, most: int) -> int:
    return min(max(1, round(share * size)), most)


def within(short: Sequence[str], long: Sequence[str]) -> bool:
    """Is one a subsequence of the other?"""
    rest = iter(long)
    return all(each in rest for each in short)


def apply(key: str, x: Tensor, mask: Tensor | None = None, severity: int = 5) -> tuple[Tensor, Tensor | None]:
    operator = OPERATORS[key]()
    plan = operator.plan(make(), "note", severity, 0)  # type: ignore[arg-type]
    return operator.apply(x, torch.arange(len(x)), plan, mask)  # type: ignore[union-attr]


# scripts ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("script", TEXTS)
@pytest.mark.parametrize("key", EVERY)
def test_scripts(key: str, script: str) -> None:
    changed = [corrupt_texts([TEXTS[script]] * 20, key, 5, seed) for seed in range(3)]
    some = any(text != TEXTS[script] for texts in changed for text in texts)
    assert some == (key not in STAY[script]) or (script, key) == ("emoji", "asr_like")
    if key not in ("asr_like", "homoglyphs", "misspellings", "homophones", "truncation") and some:
        assert all(text != TEXTS[script] for texts in changed for text in texts), "at least one hit in each row"


@pytest.mark.parametrize("script", TEXTS)
@pytest.mark.parametrize("key", MARKED)
def test_characters_are_not_torn(key: str, script: str) -> None:
    known = set(units(TEXTS[script]))
    for seed in range(10):
        new = units(corrupt_texts([TEXTS[script]], key, 5, seed)[0])
        if key == "char_insert" and script == "Latin":
            new = [unit for unit in new if not unit.isascii()]
        assert set(new) <= known | {" "}


def test_units() -> None:
    assert units("ae\u0301x") == ["a", "e\u0301", "x"]
    assert units("दर्द") == ["द", "र्", "द"]
    assert units("👩‍👩‍👧👍🏽🇫🇷🇩🇪❤️") == ["👩‍👩‍👧", "👍🏽", "🇫🇷", "🇩🇪", "❤️"]
    assert units("a\r\nb") == ["a", "\r\n", "b"]
    assert units("\u0301a") == ["\u0301", "a"]
    for text in TEXTS.values():
        assert "".join(units(text)) == text


def test_inserted_characters_are_of_the_script() -> None:
    for script, pattern in {"Cyrillic": "[^а-яё]", "Greek": "[^α-ωάέήίόύώ]", "Latin": "[^a-z]"}.items():
        clean = TEXTS[script]
        for seed in range(20):
            new = Counter(corrupt_texts([clean], "char_insert", 5, seed)[0].lower())
            new.subtract(Counter(clean.lower()))
            added = "".join(new.elements())
            assert not re.search(pattern, added), added
            assert min(new.values()) == 0
    assert not re.search("[^0-9]", corrupt_texts(["1234567"], "char_insert", 5)[0])
    found = {corrupt_texts(["Our CT"], "char_insert", 5, seed)[0] for seed in range(200)}
    assert all(re.fullmatch("[a-z]*O[a-z]+ [A-Z]+", text) for text in found), found


# how much -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("script", ["Latin", "Cyrillic", "Devanagari"])
def test_shares_of_characters(script: str, severity: int) -> None:
    text, share = TEXTS[script], CHARACTERS[severity - 1]
    size = len(units(text))
    hits = whole(share, size, 999)
    sizes = {key: len(units(corrupt_texts([text], key, severity)[0])) for key in MARKED[:4]}
    assert sizes["char_insert"] == size + hits
    assert sizes["char_delete"] == size - hits
    assert sizes["char_repeat"] == size + hits * (1, 1, 1, 2, 3)[severity - 1]
    assert sizes["char_swap"] == size
    swapped = units(corrupt_texts([text], "char_swap", severity)[0])
    moved = [at for at, (a, b) in enumerate(zip(units(text), swapped, strict=True)) if a != b]
    assert len(moved) == 2 * whole(share / 2, size, 999)
    assert Counter(swapped) == Counter(units(text))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("key", ["keyboard_typos", "homoglyphs", "leet", "random_case"])
def test_shares_of_replaced_characters(key: str, severity: int) -> None:
    text = "Zebras sat at the lake; 20 goats ate grass. ¡Ünïcode! oh"
    table = {"homoglyphs": HOMOGLYPHS, "leet": LEET}.get(key)
    new = corrupt_texts([text], key, severity)[0]
    where = [at for at, (a, b) in enumerate(zip(text, new, strict=True)) if a != b]
    if table is not None:
        assert len(where) == whole(CHARACTERS[severity - 1], len(text), sum(c in table for c in text))
        assert all(new[at] in table[text[at]] for at in where)
    elif key == "random_case":
        letters = sum(c.isalpha() for c in text)
        assert len(where) == round((0.05, 0.10, 0.25, 0.50, 0.90)[severity - 1] * letters)
        assert new.lower() == text.lower()
    else:
        assert len(where) == whole(CHARACTERS[severity - 1], len(text), 999)
        assert all(text[at].isascii() and text[at].isalpha() for at in where)


def test_marks_stay_where_they_are() -> None:
    text = "re\u0301sume\u0301 na\u0308mlich"
    for key in [*REPLACE, "random_case"]:
        for seed in range(5):
            new = corrupt_texts([text], key, 5, seed, share=1.0)[0]
            assert re.sub("[^\u0300-\u0310]", "", new) == "\u0301\u0301\u0308"
            assert new != text


def test_each_insertion_is_one_character() -> None:
    for text in (*TEXTS.values(), "Dès l’été, années après années"):
        letters = sum(unit[0].isalnum() for unit in units(text))
        for seed in range(10):
            new = corrupt_texts([text], "char_insert", 5, seed, share=1.0)[0]
            assert len(units(new)) == len(units(text)) + letters


def test_ocr_reads_pairs_as_one_and_one_as_pairs() -> None:
    found = {corrupt_texts(["rn"], "ocr_errors", 5, seed)[0] for seed in range(20)}
    assert found == {"m"}
    assert {corrupt_texts(["m"], "ocr_errors", 5, seed)[0] for seed in range(40)} == {"rn", "nn"}
    text = "the modern clinic burns 10 lamps"
    for seed in range(20):  # each hit is an entry of the table: walk along both
        new, at, here, hits = corrupt_texts([text], "ocr_errors", 3, seed)[0], 0, 0, 0
        while at < len(text):
            pair = text[at : at + 2]
            fits = [o for o in OCR.get(pair, ()) if new.startswith(o, here)] if new[here] != text[at] else []
            own = [o for o in sorted(OCR.get(text[at], ()), key=len) if new.startswith(o, here)]
            if fits:
                at, here, hits = at + 2, here + len(fits[0]), hits + 1
            elif new[here] == text[at]:
                at, here = at + 1, here + 1
            else:
                assert own, (text, new, text[at:])
                at, here, hits = at + 1, here + len(own[-1]), hits + 1
        assert hits == 3


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_shares_of_words(severity: int) -> None:
    share, clean = WORDS[severity - 1], ENGLISH.split()
    size = len(clean)
    hits = whole(share, size, 999)
    new = {key: corrupt_texts([ENGLISH], key, severity)[0] for key in EVERY}
    assert len(new["word_drop"].split()) == size - hits
    assert len(new["word_merge"].split()) == size - hits
    assert new["word_merge"].replace(" ", "") == ENGLISH.replace(" ", "")
    assert len(new["word_split"].split()) == size + min(hits, sum(len(word.strip(",.")) > 3 for word in clean))
    assert new["word_split"].replace(" ", "") == ENGLISH.replace(" ", "")
    for key, able in (("misspellings", None), ("homophones", homophones())):
        after = new[key].split()
        assert len(after) == size
        other = sum(a != b for a, b in zip(clean, after, strict=True))
        candidates = 999 if able is None else sum(word.strip(",.").lower() in able for word in clean)
        assert other == whole(share, size, candidates)
    swapped = [word.strip(",.") for word in new["word_swap"].split()]
    before = [word.strip(",.") for word in clean]
    assert Counter(swapped) == Counter(before)
    moved = sum(a != b for a, b in zip(before, swapped, strict=True))
    assert moved == 2 * hits or (severity == 5 and moved > 0.7 * size)  # no pair is left
    assert re.sub(r"\w", "", new["word_swap"]) == re.sub(r"\w", "", ENGLISH)


@pytest.mark.parametrize(("severity", "kept"), [(1, 0.9), (2, 0.75), (3, 0.5), (4, 0.3), (5, 0.15)])
def test_truncation(severity: int, kept: float) -> None:
    for size in (2, 3, 10, 40):
        text = " ".join(f"word{n}" for n in range(size))
        new = corrupt_texts([text], "truncation", severity)[0]
        assert text.startswith(new)
        assert len(new.split()) == max(1, min(size - 1, round(kept * size)))
    assert corrupt_texts(["alone"], "truncation", severity) == ["alone"]
    assert len(corrupt_texts(["患者报告胸痛两天夜间"], "truncation", severity)[0]) == round(kept * 10)


def test_blanks_come_and_go() -> None:
    for severity, share in enumerate((0.01, 0.025, 0.05, 0.075, 0.125), 1):
        came = gone = 0
        for seed in range(30):
            new = corrupt_texts([ENGLISH], "whitespace_noise", severity, seed)[0]
            assert new.replace(" ", "") == ENGLISH.replace(" ", "")
            before, after = breaks(ENGLISH), breaks(new)
            assert len(before ^ after) == whole(share, len(ENGLISH), 999)
            came, gone = came + len(after - before), gone + len(before - after)
        assert came > 0.2 * gone
        assert gone > 0.2 * came


def breaks(text: str) -> set[int]:
    """Before which characters, blanks not counted, there are blanks."""
    return {sum(not c.isspace() for c in text[:at]) for at, c in enumerate(text) if c.isspace()}


# hits of a lower severity are among those of a higher one -----------------------------------------------------------
@pytest.mark.parametrize("seed", range(5))
def test_hits_of_a_lower_severity_stay(seed: int) -> None:
    for lower, higher in pairwise(at_all(ENGLISH, "char_delete", seed)):
        assert within(higher, lower)
    for lower, higher in pairwise([ENGLISH, *at_all(ENGLISH, "char_insert", seed)]):
        assert within(lower, higher)
    for lower, higher in pairwise([ENGLISH, *at_all(ENGLISH, "char_repeat", seed)]):
        assert within(lower, higher)
    for lower, higher in pairwise([ENGLISH, *at_all(ENGLISH, "word_drop", seed)]):
        assert within([w.strip(",.") for w in higher.split()], [w.strip(",.") for w in lower.split()])
    for few, more in pairwise(map(breaks, at_all(ENGLISH, "word_split", seed))):
        assert few <= more
    for many, fewer in pairwise(map(breaks, at_all(ENGLISH, "word_merge", seed))):
        assert fewer < many
    for key in ("keyboard_typos", "homoglyphs", "leet", "random_case", "char_swap", "misspellings", "homophones"):
        parts = [
            list(t) if key[0] not in "m" and key != "homophones" else t.split() for t in at_all(ENGLISH, key, seed)
        ]
        clean = list(ENGLISH) if len(parts[0]) == len(ENGLISH) else ENGLISH.split()
        for part, next_part in pairwise(parts):
            assert all(b in (a, c) for a, b, c in zip(clean, part, next_part, strict=True))


# where draws belong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", EVERY)
def test_draws_belong_to_a_row_and_a_place(key: str) -> None:
    texts = list(TEXTS.values())[:6]
    straight = corrupt_texts(texts, key, 4)
    assert corrupt_texts([*texts, "long " * 3000], key, 4)[:6] == straight
    assert [corrupt_texts(texts[: n + 1], key, 4)[n] for n in range(6)] == straight
    operator = OPERATORS[key]()
    plan = operator.plan(make(), "note", 4, 0)  # type: ignore[arg-type]
    for length in (300, 500):
        x = torch.stack([ids(text, length) for text in texts])
        out, _ = operator.apply(x, torch.arange(6), replace(plan, modality="text"))  # type: ignore[union-attr]
        assert [words(row) for row in out] == straight
        rows = torch.tensor([5, 0, 3])
        some, _ = operator.apply(x[rows], rows, replace(plan, modality="text"))  # type: ignore[union-attr]
        assert torch.equal(some, out[rows])


@pytest.mark.parametrize("key", EVERY)
def test_texts_that_stay(key: str) -> None:
    same = ["", "?!", "...", " ", "\n\n", "👍"]
    if key == "whitespace_noise":
        assert corrupt_texts(same, key, 5) == same
    if key != "asr_like":
        assert corrupt_texts(same, key, 5) == same
    for text in ("a", "Ü", "я", "क", "字", "7", "a b", "no", "one two"):
        for seed in range(5):
            assert corrupt_texts([text], key, 5, seed)[0].strip(), f"{text!r} became empty"
    broken = torch.tensor([[0xC4 + 1, 0x41 + 1, 0x42 + 1, 0, 0, 0], [*ids("there", 6).tolist()]])
    out, _ = apply(key, broken)
    assert torch.equal(out[0], broken[0])


@pytest.mark.parametrize("key", EVERY)
def test_tokens_are_refused(key: str) -> None:
    data = make()
    modalities = tuple(replace(m, vocab=30_000) if m.name == "note" else m for m in data.schema.modalities)
    data.source.schema = Schema(modalities, data.schema.task)
    with pytest.raises(ConfigError, match="30000 ids"):
        corrupt(key, "note").plan(data, 0)


@pytest.mark.parametrize("key", [*REPLACE, "char_insert", "char_delete", "char_repeat", "char_swap", "random_case",
                                 "misspellings", "homophones"])  # fmt: skip
def test_spacing_and_punctuation_stay(key: str) -> None:
    text = 'Weather:  (two times)...  there—"right" ; is it?  Tomorrow,\tdefinitely! I know [3] words/night'
    if key == "leet":  # writes signs for letters
        text = "Weather:  (two times)...  there ; is it?"
    for seed in range(10):
        new = corrupt_texts([text], key, 4, seed)[0]
        assert new != text
        kept = re.sub(r"[\w@$!+]" if key == "leet" else r"[\w']", "", new)
        assert kept == re.sub(r"\w", "", text)


def test_dropped_words_leave_sound_punctuation() -> None:
    def without(text: str, *at: int) -> str:
        sentence = Sentence(text)
        for each in at:
            sentence.drop(each)
        return sentence.text()

    assert without("of chest pain, worse at", 2) == "of chest, worse at"
    assert without("of chest pain, worse at", 2, 3) == "of chest, at"
    assert without("two (large) apples.", 1) == "two apples."
    assert without("two (large), red apples.", 1) == "two, red apples."
    assert without("(two times) ok?", 0) == "(times) ok?"
    assert without("(two times) ok?", 2) == "(two times)?"
    assert without("No, it  is.", 0) == "it  is."
    assert without("No it is.", 0, 1) == "is."
    assert without("患者报告，胸痛。", 0, 3) == "者报，胸痛。"
    assert without("  led by", 0) == "  by"
    assert without("for $35.50, or #3", 1, 3) == "for, or"


# masks and lengths --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", EVERY)
def test_the_mask_follows_the_text(key: str) -> None:
    texts = [*TEXTS.values(), "a", "", "their weather"]
    x = torch.stack([ids(text, 170) for text in texts])
    before = x.clone()
    out, mask = apply(key, x, x > 0)
    assert torch.equal(x, before)
    assert mask is not None
    assert torch.equal(mask, out > 0)
    assert torch.equal(mask.any(1), (x > 0).any(1)), "no row becomes empty"
    assert torch.equal(out, apply(key, x)[0])
    lengths = mask.sum(1)
    assert torch.equal(mask, torch.arange(170) < lengths[:, None]), "text without a hole"
    every = torch.ones_like(mask)
    out, mask = apply(key, x, every)
    assert mask is not None
    assert torch.equal(out, apply(key, x)[0])
    assert bool(mask[out > 0].all())


@pytest.mark.parametrize("key", EVERY)
def test_hidden_steps_are_neither_read_nor_changed(key: str) -> None:
    x = ids("The weather there is known to be worse tonight", 60)[None].repeat(8, 1)
    mask = x > 0
    mask[:, 12:19] = False  # a hole inside
    other = torch.where(mask | (x == 0), x, ord("x") + 1)
    out, seen = apply(key, x, mask)
    twin, too = apply(key, other, mask)
    assert seen is not None
    assert too is not None
    assert torch.equal(seen, too)
    assert torch.equal(out[:, 12:19], x[:, 12:19])
    assert torch.equal(twin[:, 12:19], other[:, 12:19])
    assert torch.equal(out[seen], twin[seen])
    assert bool((seen <= mask).all()), "a row with hidden bytes does not grow"
    assert bool((out[seen] > 0).all())
    assert bool(seen.any(1).all())
    plain = apply(key, ids("The weather s known to be worse tonight", 60)[None])[0]
    assert words(out[0][seen[0]]) == words(plain[0]).encode()[: int(mask[0].sum())].decode(errors="ignore")


@pytest.mark.parametrize("key", EVERY)
@pytest.mark.parametrize("script", ["Latin", "Cyrillic", "Devanagari", "emoji"])
def test_full_rows_are_cut_at_a_character(key: str, script: str) -> None:
    text = (TEXTS[script] + " ") * 3
    for length in (60, 61, 62, 63):
        clean = ""
        for unit in units(text):
            if len((clean + unit).encode()) > length:
                break
            clean += unit
        x = ids(clean, length)[None].repeat(5, 1)
        out, mask = apply(key, x, x > 0)
        assert mask is not None
        for row, here in zip(out, mask, strict=True):
            data = bytes(int(i) - 1 for i in row[here])
            new = units(data.decode())
            assert 0 < len(data) <= length
            if key in MARKED:
                assert set(new) <= set(units(text)) | set(" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


# speech -------------------------------------------------------------------------------------------------------------
def test_speech_without_errors() -> None:
    assert " ".join(normalised("It cost $35.50.")) == "it cost thirty five point five zero dollars"
    said = "At 10:30 the “new” MRI—3.14 s, 1,234 of 20% patients' data & B12: state-of-the-art, don't!"
    assert " ".join(normalised(said)) == (
        "at ten thirty the new mri three point one four s one thousand two hundred thirty four of twenty percent patients "
        "data and b12 state of the art don't"
    )
    assert " ".join(normalised("3 дня, 5 лет")) == "3 дня 5 лет"
    numbers = ["0", "7", "13", "20", "41", "100", "999", "1000", "20017", "007", "1234567"]
    assert [spoken(number) for number in numbers] == [
        "zero", "seven", "thirteen", "twenty", "forty one", "one hundred", "nine hundred ninety nine", "one thousand",
        "twenty thousand seventeen", "zero zero seven", "one two three four five six seven",
    ]  # fmt: skip


def test_speech_errors_grow() -> None:
    clean = normalised(ENGLISH)
    low = corrupt_texts([ENGLISH] * 50, "asr_like", 1)
    assert all(len(text.split()) == len(clean) for text in low), "severity 1 neither merges nor fills"
    assert all(sum(a != b for a, b in zip(clean, text.split(), strict=True)) == 1 for text in low)
    high = " ".join(corrupt_texts([ENGLISH] * 50, "asr_like", 5))
    assert re.fullmatch("[a-z' ]+", high)
    assert re.search(r"\b(uh|um|er|you know)\b", high)
    merged = corrupt_texts([ENGLISH], "asr_like", 5, share=0.0, fillers=0.0)[0]
    assert merged.replace(" ", "") == "".join(clean)
    assert len(merged.split()) == len(clean) - round(0.15 * len(clean))
    filled = corrupt_texts([ENGLISH], "asr_like", 5, share=0.0, merged=0.0)[0]
    assert within(clean, filled.split())
    assert len(filled.split()) >= len(clean) + round(0.12 * len(clean))


# tables -------------------------------------------------------------------------------------------------------------
def test_tables() -> None:
    listed = misspellings()
    assert sum(map(len, listed.values())) >= 300
    assert all(word == word.lower() and other != word for word, others in listed.items() for other in others)
    groups = homophone_groups()
    assert len(groups) >= 150
    assert all(len(set(group)) == len(group) > 1 for group in groups)
    alike = homophones()
    assert all(word in alike[other] for word, others in alike.items() for other in others)
    for table in (OCR, HOMOGLYPHS, LEET):
        assert all(key not in others and len(set(others)) == len(others) for key, others in table.items())
    assert all(len(key) == 1 or key[0] in OCR for key in OCR), "hits are found by the first letter"
    assert all(len(other) == 1 for others in HOMOGLYPHS.values() for other in others)
    assert all(not o.isascii() for key, others in HOMOGLYPHS.items() if key.isascii() for o in others)


def test_capitals_stay() -> None:
    for seed in range(10):
        new = corrupt_texts(["There THERE there"], "homophones", 5, seed, share=1.0)[0].split()
        assert new[0][0].isupper()
        assert new[0][1:].islower()
        assert new[1].isupper()
        assert new[2].islower()
    assert corrupt_texts(["Beleifs BELIEVER"], "misspellings", 5, share=1.0)[0].split()[1].isupper()


# strings ------------------------------------------------------------------------------------------------------------
def test_strings() -> None:
    long = ENGLISH * 300
    new = corrupt_texts([long, "short one"], "char_delete", 3)
    assert len(new[0]) == len(long) - round(0.1 * len(long))
    assert corrupt_texts([ENGLISH], "leet", 0) == [ENGLISH]
    assert corrupt_texts([], "leet") == []
    assert corrupt_texts([ENGLISH], "leet", 3, seed=1) != corrupt_texts([ENGLISH], "leet", 3, seed=2)
    assert corrupt_texts([ENGLISH], "leet", share=0.0) == [ENGLISH]
    assert len(corrupt_texts([ENGLISH], "char_delete", share=1.0)[0].strip(" ,.")) >= 1
    assert len(corrupt_texts(["one two, three"], "word_drop", share=1.0)[0].split()) == 1
    with pytest.raises(DataError, match="list of strings"):
        corrupt_texts(ENGLISH, "leet")
    with pytest.raises(DataError, match="list of strings"):
        corrupt_texts([None], "leet")  # type: ignore[list-item]
    with pytest.raises(UnknownName, match="leet"):
        corrupt_texts([ENGLISH], "leeet")
    with pytest.raises(ConfigError, match="not text"):
        corrupt_texts([ENGLISH], "gaussian_noise")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        corrupt_texts([ENGLISH], "leet", share=1.5)
    with pytest.raises(UnknownName, match="share"):
        corrupt_texts([ENGLISH], "leet", shares=0.5)
    with pytest.raises(ConfigError, match="whole number"):
        corrupt_texts([ENGLISH], "leet", 6)


# by a function ------------------------------------------------------------------------------------------------------
class Shout:
    """Upper case; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> list[str]:
        self.asked += texts
        return [text.upper() + "!" for text in texts]


def note(data: Dataset, rows: Sequence[int]) -> list[str]:
    return [words(row) for row in data.batch(torch.tensor(rows)).inputs["note"]]


def test_rewritten() -> None:
    clean, shout = make(), Shout()
    it = rewritten("note", shout, name="back_translation")
    assert str(it) == "rewritten(note, back_translation)"
    assert str(rewritten("note", shout, name="a b", severity=5)) == "rewritten(note, 'a b', severity=5)"
    data = clean.with_corruption(it, seed=3)
    batch = data.batch(torch.arange(24))
    before = clean.batch(torch.arange(24))
    here = before.present[:, 2]
    assert not bool(here.all())
    assert torch.equal(batch.inputs["note"][~here], before.inputs["note"][~here])
    for row in here.nonzero().flatten().tolist():
        assert words(batch.inputs["note"][row]) == words(before.inputs["note"][row]).upper() + "!"
    assert torch.equal(batch.present, before.present)
    assert torch.equal(batch.mask["note"][here], batch.inputs["note"][here] > 0)
    asked = len(shout.asked)
    assert asked == len(set(shout.asked)) == 4
    assert note(data, [7, 3]) == note(data, [3, 7])[::-1]
    assert len(shout.asked) == asked, "each text once"
    after = it.apply(before, it.plan(clean, 0))
    assert after.severity is not None
    assert after.severity[:, 2].tolist() == (3.0 * here).tolist()
    other = rewritten("note", shout, name="paraphrase")
    assert it.plan(clean, 0).hash == rewritten("note", Shout(), name="back_translation").plan(clean, 0).hash
    assert it.plan(clean, 0).hash != other.plan(clean, 0).hash
    assert isinstance(it.plan(clean, 0), Plan)
    both = clean.with_corruption(Compose((it, corrupt("word_drop", "note", 3))))
    assert len(note(both, [0])[0].split()) < len(note(clean, [0])[0].split())


def test_rewritten_says_what_is_wrong() -> None:
    clean = make()
    with pytest.raises(ConfigError, match="write rewritten"):
        parse_corruption("rewritten(note, back_translation)")
    for wrong in (lambda texts: "one text", lambda texts: texts[1:], lambda texts: [None] * len(texts)):
        data = clean.with_corruption(rewritten("note", wrong, name="wrong"))  # type: ignore[arg-type]
        with pytest.raises(DataError, match="wrong must return a list"):
            data.batch(torch.arange(4))
    blank = clean.with_corruption(rewritten("note", lambda texts: [" "] * len(texts), name="blank"))
    assert note(blank, [0, 1, 3]) == note(clean, [0, 1, 3])
    with pytest.raises(ConfigError, match="damages text"):
        rewritten("photo", Shout(), name="x").plan(clean, 0)
    with pytest.raises(ConfigError, match="needs a name"):
        rewritten("note", Shout(), name="")
    with pytest.raises(ConfigError, match="needs a function"):
        rewritten("note", "model", name="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="whole number"):
        rewritten("note", Shout(), name="x", severity=9)
