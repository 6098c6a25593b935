"""Ways to harm bytes, text and JSON, each decided by a random generator that the caller seeds."""

from __future__ import annotations

import copy
import datetime
import decimal
import fractions
import io
import json
import re
import string
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import torch

INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
NUMBERS = (
    "0", "-1", "1e309", "-1e309", "nan", "NaN", "inf", "Infinity", "1e-320", "0x10", "1_000", "10" * 200, "1" * 5000, "007",
    "1,5", "1.2.3", "+-3", "9" * 20, "3.4e38", "1e39", "-0.0", "true", "null", "None", "١٢", "½", "2024-01-01", "12:30:45",
)  # fmt: skip
PIECES = (
    "\0", "\ufeff", "\t", "\r", "\n", "\r\n", '"', "'", "`", "\\", "{", "}", "[", "]", "(", ")", ":", ": ", "- ",
    ",", ";", "#",
    "|", ">", "!", "&a ", "*a", "<<: *a", "!!int x", "!!python/object/apply:os.system [ls]", "!!binary x",
    "!!timestamp 2024-99-99",
    "!!float x", "? ", "---\n", "...\n", "%YAML 9.9\n", "../../etc", "\u202e", "\u0301" * 50, "💣", "\x1b[31m",
    "\x85", "\u2028",
    "=1+1", "data:,x", "http://x/y", "a" * 400, "[" * 300, "(" * 300, "{a: " * 80, "__class__", "%s%n", "${HOME}", "~",
)  # fmt: skip


def harm_bytes(random: Random, content: bytes) -> bytes:
    """One to four changes: bits, bytes, lengths, pieces gone, doubled, swapped or made up."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        if not data:
            return bytes(random.randbytes(random.randint(0, 64)))
        at = random.choice((random.randrange(len(data)), random.randrange(min(len(data), 64))))
        many = random.choice((1, 2, 4, 8, random.randint(1, len(data))))
        match random.randrange(11):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                data[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
            case 2:
                del data[at : at + many]
            case 3:
                data[at:at] = data[at : at + min(many, 4096)]
            case 4:
                data[at:at] = random.randbytes(random.randint(1, 32))
            case 5:
                del data[at:]
            case 6:
                end = min(len(data), at + many)
                data[at:end] = bytes([random.choice((0, 0xFF))]) * (end - at)
            case 7 | 8:
                width = random.choice((2, 4, 8))
                value = random.choice((*INTEGERS, len(data), random.getrandbits(64))) % (1 << 8 * width)
                data[at : at + width] = value.to_bytes(width, random.choice(("little", "big")))
            case 9:
                other = random.randrange(len(data))
                part = data[other : other + min(many, 256)]
                data[at : at + len(part)] = part
            case _:
                data += random.randbytes(random.choice((1, 16, 1000)))
    return bytes(data)


def harm_text(random: Random, text: str) -> str:
    """One to three changes: numbers, words, lines and signs."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        lines = text.splitlines(keepends=True) or [""]
        at = random.randrange(len(lines))
        match random.randrange(10):
            case 0 | 1:
                text = _replace_one(random, r"\d+(\.\d+)?", text, random.choice(NUMBERS))
            case 2:
                words = re.findall(r"\w+", text) or ["x"]
                text = _replace_one(random, r"\w+", text, random.choice((*words, *PIECES, *NUMBERS)))
            case 3:
                lines[at : at + 1] = []
                text = "".join(lines)
            case 4:
                lines[at:at] = [lines[random.randrange(len(lines))]] * random.choice((1, 1, 2, 50))
                text = "".join(lines)
            case 5 | 6:
                place = random.randint(0, len(text))
                text = text[:place] + random.choice(PIECES) + text[place:]
            case 7:
                place = random.randint(0, len(text))
                text = text[:place] + text[place + random.choice((1, 1, 2, 8)) :]
            case 8:
                text = text[: random.randint(0, len(text))]
            case _:
                place = random.randint(0, len(text))
                text = text[:place] + random.choice(string.punctuation + " \t\n") + text[place + 1 :]
    return text


def _replace_one(random: Random, pattern: str, text: str, by: str) -> str:
    found = list(re.finditer(pattern, text))
    if not found:
        return text + by
    one = random.choice(found)
    return text[: one.start()] + by + text[one.end() :]


ODD_JSON: tuple[Any, ...] = (
    None, True, False, -1, 0, 2, 2.5, 1e308, -1e308, 1e39, 10**30, 2**63, 2**64, float("nan"), float("inf"), "", " ",
    "x", "\0",
    "\ud800", "nan", "1e5", "../x", "a" * 3000, "=1+1", "<script>", [], {}, [[]], [None], {"": None}, [1, [2]], ["x",
    1, None],
    {"a": {"b": {}}}, list(range(100)), "2024-02-30",
)  # fmt: skip
HUGE = "@huge@"  # in the text a number of 5,000 digits, and likewise a list in 100,000 lists
DEEP = "@deep@"


def harm_json(random: Random, values: Any) -> str:
    """One to three nodes of a tree are replaced, removed, doubled or renamed; as text."""
    values = copy.deepcopy(values)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        values = _harm_node(random, values)
    text = json.dumps(values, indent=random.choice((None, 1)))
    return text.replace(f'"{HUGE}"', "1" * 5000).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)


def _harm_node(random: Random, values: Any) -> Any:
    node, parent, key = values, None, None
    while isinstance(node, dict | list) and node and random.random() < 0.85:
        parent, key = node, random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
        node = parent[key]
    odd = copy.deepcopy(random.choice((*ODD_JSON, HUGE, DEEP)))
    if parent is None:
        return odd
    match random.randrange(8):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            name = random.choice(("", "x", f"{key} ", str(key).upper(), "__proto__", *parent))
            parent[name] = parent.pop(key)
        case 1:
            parent.insert(key, copy.deepcopy(node))
        case 2 if isinstance(parent, dict):
            parent["extra"] = odd
        case 3 if isinstance(node, int | float) and not isinstance(node, bool):
            parent[key] = random.choice((-node, node + 1, node * 10**6, str(node), [node], node + 0.5, bool(node)))
        case 4 if isinstance(node, str):
            parent[key] = harm_text(random, node)
        case _:
            parent[key] = odd
    return values


def odd_value(random: Random) -> Any:
    """A Python object that somebody may have in a cell."""
    return random.choice(_ODD)(random)


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _in_itself(_: Random) -> list[Any]:
    value: list[Any] = [1.0]
    value.append(value)
    return value


def _array(random: Random) -> Any:
    kind = random.choice(
        ("f2", "f4", "f8", "i1", "u1", "i8", "u8", "c8", "?", "O", "U3", "S3", "M8[ns]", "m8[s]",
        "f16" if hasattr(np, "float128") else "f8")
    )  # fmt: skip
    shape = random.choice(((), (0,), (3,), (2, 3), (3, 2, 2), (0, 4), (1, 1, 1, 1, 1), (4, 4), (8, 8, 3), (300,)))
    if kind == "O":
        return np.full(shape, random.choice((None, "x", 1.5, [1], 10**400)), dtype=object)
    values = np.random.default_rng(random.getrandbits(32)).integers(0, 100, shape)
    array = values.astype(kind)
    if kind[0] == "f" and array.size:
        array.flat[0] = random.choice((np.nan, np.inf, 1.0))
    return random.choice((array, array, array.T, array[..., ::-1] if array.ndim else array))


def _tensor(random: Random) -> Any:
    kind = random.choice(
        (
            torch.float32,
            torch.float64,
            torch.bfloat16,
            torch.float16,
            torch.int64,
            torch.uint8,
            torch.bool,
            torch.complex64,
        )
    )
    tensor = torch.ones(random.choice(((), (0,), (3,), (2, 3), (3, 4, 4), (1, 1, 1, 1))), dtype=kind)
    forms: list[Any] = [tensor, tensor, tensor.to("meta")]
    if kind.is_floating_point:
        forms.append(tensor.clone().requires_grad_())
    if tensor.ndim:
        forms.append(tensor.to_sparse())
    return random.choice(forms)


def _arrow(random: Random) -> Any:
    import pyarrow as pa

    return random.choice(
        (pa.scalar(1.5), pa.scalar("x"), pa.scalar(None), pa.scalar([1.0, 2.0]), pa.scalar([[1], [2, 3]]), pa.scalar(b"abc"),
         pa.array([1, 2, None]), pa.scalar(decimal.Decimal("1.10")), pa.scalar({"a": 1}), pa.chunked_array([[1.0], [2.0]]))
    )  # fmt: skip


def _picture(random: Random) -> Any:
    from PIL import Image

    mode = random.choice(
        ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16")
    )
    return Image.new(mode, random.choice(((1, 1), (5, 3), (16, 16), (0, 0))))


_ODD: tuple[Any, ...] = (
    *((lambda _, v=value: v) for value in (
        None, float("nan"), pd.NA, pd.NaT, True, False, 0, -1, 10**400, 2**64, 1e39, 1e308, float("inf"), 1 + 2j, "",
        " ", "\0",
        "x\0y", "\ud800", "a" * 300, "a" * 5000, "/" * 300, "1 2 3", "1,2,3", "(1, 2)", "[1, 2", "[1, [2]]", "{}",
        "null", "NaN", "[NaN]",
        "[1e999]", "array([1., 2.])", "data:image/png;base64,xx", "file:///x.png", "C:\\x.png", "no/such.wav", ".",
        "..", "/dev/null",
        b"", b"\0" * 9, b"RIFF", bytearray(b"\x89PNG"), memoryview(b"abc"), ..., NotImplemented, object(), type, len,
        range(4),
        Path(), Path("no.npy"), slice(1), np.float64(2.5), np.int8(-3), np.bool_(True), np.str_("x"), np.bytes_(b"x"),
        np.datetime64("NaT"), np.datetime64("2024-01-01"), np.timedelta64(3, "D"), np.void(b"xy"), decimal.Decimal("NaN"),
        decimal.Decimal("1.10"), decimal.Decimal("1e400"), fractions.Fraction(1, 3), datetime.datetime(2024, 1, 1),
        datetime.date(2024, 1, 1), datetime.time(1), datetime.timedelta(1), pd.Timestamp("2024"), pd.Period("2024-01"),
        pd.Timedelta(1), pd.Interval(0, 1), (), [], {}, set(), frozenset({1}), [[]], [None], [1, None, 3], [1, "x"],
        ["1", "2"],
        [[1, 2], [3]], [[1, 2], [None, 4]], [[[1]]], {"bytes": None, "path": None}, {"bytes": b"x", "path": "p"},
        {"array": [0.0] * 8},
        {"array": [0.0, 1.0] * 40, "sampling_rate": 4000}, {"array": None, "sampling_rate": None},
        {"array": [0.0] * 8, "sampling_rate": 10**9}, {"array": [0.0] * 8, "sampling_rate": "x"}, {"a": [1]}, [1.0,
        10**400], [True, False],
        [float("nan")] * 3, [1e39, 0.0],
    )),
    lambda _: _nested(2000),
    _in_itself,
    lambda _: iter([1, 2]),
    lambda _: (n for n in range(3)),
    lambda _: io.BytesIO(b"abc"),
    lambda _: io.StringIO("abc"),
    lambda _: pd.Series([1.0, 2.0]),
    lambda _: pd.DataFrame({"a": [1.0]}),
    lambda _: pd.Categorical(["a", "b"]),
    lambda _: np.ma.masked_array([1.0, 2.0], [True, False]),
    lambda _: np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    *[_array] * 12, *[_tensor] * 6, *[_arrow] * 4, *[_picture] * 6,
    lambda random: random.randbytes(random.randint(1, 50)),
    lambda random: harm_text(random, random.choice(("[1.0, 2.0, 3.0]", "12.5", "a note", "pictures/1.png"))),
)  # fmt: skip
