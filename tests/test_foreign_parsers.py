"""Parsers of others: whatever they raise, and whatever size a text claims, becomes one error that names the file."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kintsugi as kg
from kintsugi.bench import packing
from kintsugi.bench.packing import read_arrays, write_arrays
from kintsugi.bench.suite import load_suite
from kintsugi.bench.suite_file import MOST_SEEDS
from kintsugi.commands.bench_run import settings_of
from kintsugi.core.errors import ConfigError, DataError, KintsugiError, ModelFileError
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.columns import read_columns
from kintsugi.evaluation.protocols import get_protocol
from kintsugi.imperfect import mask_file, parse_corruption, parse_mechanism
from kintsugi.imperfect.file import load_corruption
from kintsugi.imperfect.mask import Mask
from kintsugi.imperfect.spec import DEEPEST, LONGEST, literal
from kintsugi.io import yaml_lines
from kintsugi.io.json_text import cannot_be_kept, odd, read_json
from kintsugi.io.yaml_lines import document, word_value
from kintsugi.tasks import Classification
from kintsugi.training.checkpoint import Checkpoint

# YAML ---------------------------------------------------------------------------------------------------------------
NO_VALUES = {
    "no such day": "2024-02-31", "no such minute": "2024-01-01 10:99:00", "no number": "!!int one", "no decimal": "!!float 1,5",
    "no truth": "!!bool perhaps", "no time": "!!timestamp noon", "many digits": "1" * 4301, "beyond 64 bits": "1" * 30,
    "base 60 without end": ":".join(["59"] * 40), "hexadecimal": "0x" + "f" * 17, "no base64": "!!binary ü",
}  # fmt: skip


@pytest.mark.parametrize("bad", NO_VALUES.values(), ids=NO_VALUES)
def test_a_value_that_is_none_is_said_with_file_and_line(bad: str, tmp_path: Path) -> None:
    file = tmp_path / "read.yaml"
    file.write_text(f"modalities:\n  note: {{kind: text, column: {bad}}}\ntarget: y\n")
    with pytest.raises(ConfigError, match=r"read\.yaml, line 2: "):
        read_columns(file)
    file.write_text(f"datasets: avdigits\nmethods: mean_fusion\n\nabout: {bad}\n")
    with pytest.raises(ConfigError, match=r"read\.yaml, line 4: "):
        load_suite(file)
    file.write_text(f"\n- white_noise: {{modality: speech, severity: {bad}}}\n")
    with pytest.raises(ConfigError, match=r"read\.yaml, line 2: "):
        load_corruption(file)


@pytest.mark.parametrize("key", ["2024-02-31", "!!int x"])
def test_a_key_that_is_no_value_is_said_with_its_line(key: str) -> None:
    with pytest.raises(ConfigError, match=r"f, line 2: not YAML"):
        document(f"a: 1\n{key}: 2\n", "f")


def test_a_number_of_64_bits_is_read_and_words_that_look_odd_in_quotes_too() -> None:
    assert document(f"[{2**63}, -{2**63}, '2024-02-31', \"{'1' * 5000}\", 2024-02-29]", "f")[1][:3] == [
        2**63, -(2**63), "2024-02-31",
    ]  # fmt: skip


def test_merged_keys_of_a_thousandfold_size_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["b0: &b0 {x: 1, y: 2, z: 3}"]
    lines += [f"b{i}: &b{i}\n  <<: [{', '.join([f'*b{i - 1}'] * 30)}]" for i in range(1, 12)]
    (tmp_path / "many.yaml").write_text("\n".join([*lines, "modalities: {}", "target: y"]))
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"many\.yaml, line 3: \*b0 refers to another part; write it out"):
        read_columns(tmp_path / "many.yaml")
    assert time.monotonic() - began < 2


def test_a_file_of_settings_is_a_regular_one_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "f.yaml")
    for read in (read_columns, load_suite, load_corruption):
        with pytest.raises(ConfigError, match=r"f\.yaml: Is a FIFO"):
            read(tmp_path / "f.yaml")
    text = "- gaussian_noise(image, 3)\n"
    (tmp_path / "g.yaml").write_text(text)
    monkeypatch.setattr(yaml_lines, "MOST_BYTES", len(text))
    assert str(load_corruption(tmp_path / "g.yaml")) == "gaussian_noise(image, 3)"
    monkeypatch.setattr(yaml_lines, "MOST_BYTES", len(text) - 1)
    with pytest.raises(ConfigError, match=r"g\.yaml has 27 bytes"):
        load_corruption(tmp_path / "g.yaml")


@pytest.mark.parametrize("word", ["2024-13-01", "!!int q", "9" * 4400, "[1", "&a [*a]", "[" * 60 + "]" * 60])
def test_a_word_of_the_command_line_that_is_no_value_names_its_setting(word: str) -> None:
    with pytest.raises(ConfigError, match=r"--set seeds=.* is not YAML"):
        settings_of([f"seeds={word}"])


def test_words_of_the_command_line_are_values() -> None:
    assert [word_value(word, "w") for word in ("1e-3", "3", "[1, 2]", "", "true", "a b")] == [
        0.001, 3, [1, 2], None, True, "a b",
    ]  # fmt: skip


def test_the_seeds_of_a_suite_are_counted_before_they_are_made(tmp_path: Path) -> None:
    def suite(line: str) -> Any:
        (tmp_path / "s.yaml").write_text(f"datasets: avdigits\nmethods: mean_fusion\nprotocol: clean\n{line}\n")
        return load_suite(tmp_path / "s.yaml")

    assert len(suite(f"seeds: {MOST_SEEDS}").seeds) == MOST_SEEDS
    for many in (MOST_SEEDS + 1, 4_000_000_000, 0, -(10**12)):
        with pytest.raises(ConfigError, match=rf"s\.yaml, line 4: seeds: {many}: seeds is a list of seeds"):
            suite(f"seeds: {many}")
    for memory in ("1" * 310 + " kB", "1" * 18 + " TB", "1.1.1 GB"):
        with pytest.raises(ConfigError, match=r"s\.yaml, line 4: limits\.memory"):
            suite(f"limits: {{memory: {memory}}}")


# JSON ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "f, line 1: not JSON"),
        (b'{"a": 1,\n"b" 2}', "f, line 2: not JSON"),
        (b"\xff{}", "f cannot be read: not UTF-8"),
        (b"[" * 50_000, "f: nested too deeply"),
        (b'{"a": ' * 101 + b"1" + b"}" * 101, "f: nested too deeply"),
        (b"7" * 4301, "f: not JSON as it is read here"),
        (b'{"a": 1, "a": 2}', "f: .*'a' stands twice"),
    ],
)
def test_what_is_no_json_is_one_error(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_json(content, "f")


def test_json_of_a_hundred_levels_is_read() -> None:
    assert read_json("[" * 100 + "1" + "]" * 100, "f") == json.loads("[" * 100 + "1" + "]" * 100)


def test_values_that_nothing_can_keep_are_found_with_their_place() -> None:
    values = json.loads(
        '{"a": [1, {"b": "\\udfff"}], "\\ud800": 1, "n": 9223372036854775808, "ok": [9223372036854775807, "é", true]}'
    )
    places = {(path, str(value)) for path, value in odd(values, cannot_be_kept)}
    assert places == {(("a", 1, "b"), "\udfff"), ((), "\ud800"), (("n",), str(2**63))}


# specs and protocols ------------------------------------------------------------------------------------------------
SCHEMA = Schema(
    (Modality("image", "image", (1, 8, 8)), Modality("speech", "audio", (4000,))), Classification(("a", "b"))
)
BOMBS = {
    "brackets": "mcar(" + "[" * 4000,
    "closed brackets": "mcar(" + "(" * 80 + "1" + ")" * 80 + ")",
    "signs": "mcar(" + "~" * 9000 + "1)",
    "length": "mcar(" + " " * LONGEST + "0.3)",
    "a sum": "+".join(["x"] * 4000),
    "a large number": "mcar(" + "8" * 4000 + ")",
    "a larger one": "mcar(" + "8" * 4400 + ")",
    "a complex one": "mcar(2j)",
    "bytes": "mcar(b'x')",
    "a key that is none": "mcar({[1]: 2})",
    "a set": "mcar({0.1})",
    "dots": "mcar(...)",
    "a NUL": "mcar('\0')",
    "code": "mcar(rate=(lambda: 1)())",
    "infinite": "mcar(1e999)",
    "a comparison": "mcar(1 < 2)",
    "a format": "mcar(f'{1}')",
    "a number for names": "pattern(3)",
    "a text for a number": "mcar('x')",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_text_that_is_no_spec_is_one_error_at_once(bomb: str) -> None:
    began = time.monotonic()
    for read in (parse_mechanism, parse_corruption, lambda text: get_protocol(text, SCHEMA)):
        with pytest.raises(KintsugiError):
            read(bomb)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rates(low)", "rates"),
        ("rates(0.1, seeds=1001)", "1 to 1,000 masks a rate, not seeds=1001"),
        ("rates(0.1, seeds=0)", "seeds=0"),
        ("rates(0.1, seeds=True)", "seeds=True"),
        ("rates(1e999)", "cannot be reached"),
        (f"rates({'9' * 400})", "rates"),
        ("corruptions(9)", "severity 9 does not exist"),
    ],
)
def test_arguments_that_a_protocol_cannot_take_are_named(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        get_protocol(spec, SCHEMA)


def test_the_depth_and_the_length_of_a_spec_are_read_up_to_their_bounds() -> None:
    inside = DEEPEST - 1  # the call has a bracket itself
    assert "at most" not in error_of(lambda: parse_mechanism("mcar(" + "[" * inside + "]" * inside + ")"))
    assert "brackets, one inside" in error_of(lambda: parse_mechanism("mcar(" + "[" * DEEPEST + "]" * DEEPEST + ")"))
    assert str(parse_mechanism("mcar(0.3" + " " * (LONGEST - 9) + ")")) == str(parse_mechanism("mcar(0.3)"))
    assert "10,001 letters" in error_of(lambda: parse_mechanism("mcar(0.3" + " " * (LONGEST - 8) + ")"))
    assert len(get_protocol("rates(0.1, seeds=1000)", SCHEMA)) == 1001


def error_of(work: Callable[[], object]) -> str:
    with pytest.raises(KintsugiError) as caught:
        work()
    return str(caught.value)


def test_a_literal_is_a_value_and_anything_else_a_word() -> None:
    assert [literal(text) for text in ("3", " 0.5", "'a'", "[1, (2,)]", "None", "-1")] == [
        3,
        0.5,
        "a",
        [1, (2,)],
        None,
        -1,
    ]
    words = ["noise", "1j", "{[]: 1}", "9" * 30, "(" * 99, "b'a'"]
    assert [literal(text) for text in words] == words


# archives -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def mask(tmp_path: Path) -> Path:
    rows = kg.Table.from_records(
        [{"a": f"word {i}", "b": [float(i), 1.0], "y": "no" if i % 2 else "yes"} for i in range(20)],
        modalities={"a": kg.text("a"), "b": kg.vector("b")}, target="y",
    )  # fmt: skip
    hidden = rows.with_missing(kg.missing.mcar(0.4), seed=2).mask
    assert hidden is not None
    return hidden.save(tmp_path / "m.mask")


def outcome(work: Callable[[], Any]) -> tuple[Any, str]:
    """What comes out, or what the library says; other exceptions go through."""
    try:
        return work(), ""
    except DataError as error:
        return None, str(error)


@pytest.mark.parametrize("seed", range(40))
def test_a_mask_with_damaged_bytes_is_refused_or_is_the_same(seed: int, mask: Path) -> None:
    draw, whole = np.random.default_rng(seed), Mask.load(mask)
    content = bytearray(mask.read_bytes())
    for place in draw.integers(0, len(content), 4):
        content[place] = draw.integers(256)
    mask.write_bytes(content)
    loaded, said = outcome(lambda: Mask.load(mask))
    assert loaded == whole or "m.mask" in said


def test_a_mask_that_is_far_larger_unpacked_is_not_unpacked(mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(mask) as archive:
        size = sum(info.file_size for info in archive.infolist())
    monkeypatch.setattr(mask_file, "MOST_UNPACKED", size)
    Mask.load(mask)
    monkeypatch.setattr(mask_file, "MOST_UNPACKED", size - 1)
    with pytest.raises(DataError, match=r"m\.mask is not a mask.*when they are unpacked"):
        Mask.load(mask)
    monkeypatch.setattr(mask_file, "MOST_BYTES", mask.stat().st_size - 1)
    with pytest.raises(DataError, match=r"m\.mask has .* bytes; as a mask at most"):
        Mask.load(mask)


def test_archives_are_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="fifo: Is a FIFO"):
        Mask.load(tmp_path / "fifo")
    with pytest.raises(DataError, match=r"fifo.*Is a FIFO"):
        read_arrays(tmp_path / "fifo")
    with pytest.raises(ModelFileError, match=r"fifo.*Is a FIFO"):
        Checkpoint(tmp_path / "fifo")


@pytest.mark.parametrize("seed", range(40))
def test_outcomes_with_damaged_bytes_are_one_error(seed: int, tmp_path: Path) -> None:
    draw, file = np.random.default_rng(seed), tmp_path / "outcomes.npz"
    write_arrays(file, {"clean": np.arange(50, dtype=np.uint8), "image": np.arange(50, dtype=np.uint16)})
    content = bytearray(file.read_bytes())
    for place in draw.integers(0, len(content), 6):
        content[place] = draw.integers(256)
    file.write_bytes(content[: len(content) - int(draw.integers(2)) * 30])
    arrays, said = outcome(lambda: read_arrays(file))
    assert "outcomes.npz cannot be read" in said or len(arrays) == 2  # what was altered is for the digest to find


def test_outcomes_that_are_far_larger_unpacked_are_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_arrays(tmp_path / "outcomes.npz", {"clean": np.zeros(100_000, np.uint8)})
    assert (tmp_path / "outcomes.npz").stat().st_size < 50_000
    monkeypatch.setattr(packing, "MOST_BYTES", 50_000)
    with pytest.raises(DataError, match=r"outcomes\.npz cannot be read .*when they are unpacked"):
        read_arrays(tmp_path / "outcomes.npz")
