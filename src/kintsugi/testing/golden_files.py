"""Files of golden numbers: one a leaf of the taxonomy, one a kind of operator, in JSON that a person can compare."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kintsugi.core.errors import ConfigError
from kintsugi.io.files import replace_file
from kintsugi.testing.golden_numbers import Numbers

MOST_BYTES, DEEPEST = 8 << 20, 12
DIGITS = 9


@dataclass(frozen=True)
class Entry:
    """What a file holds of one subject: its numbers, and under which versions of what it uses they were measured."""

    versions: Mapping[str, int]
    numbers: Numbers


def read_entries(path: Path) -> dict[str, Entry]:
    """Name of the subject -> entry; empty where there is no file.

    Raises:
        ConfigError: the file is truncated, altered to something else, too large to be one, or a folder.
    """
    if not path.exists():
        return {}
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, and golden numbers are a file; move it away, or give another --folder")
    if path.stat().st_size > MOST_BYTES:
        raise _strange(path, f"it has {path.stat().st_size:,} bytes, and golden numbers have at most {MOST_BYTES:,}")
    try:
        content = json.loads(path.read_bytes().decode(), object_pairs_hook=_each_once)
    except _Twice as error:
        raise _strange(path, f"it has {error.args[0]!r} twice in one place") from error
    except (ValueError, RecursionError) as error:
        raise _strange(path, f"it is no JSON ({error}); was it cut off?") from error
    if not isinstance(content, dict):
        raise _strange(path, "it does not hold names and entries")
    return {name: _entry(path, name, saved) for name, saved in content.items()}


class _Twice(Exception):
    """A name that stands twice in one object of JSON."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return content


def _entry(path: Path, name: str, saved: Any) -> Entry:
    if not isinstance(saved, dict) or saved.keys() != {"versions", "numbers"}:
        raise _strange(path, f"the entry of {name} is not made of versions and numbers")
    versions = saved["versions"]
    if not isinstance(versions, dict) or not all(type(v) is int and v >= 1 for v in versions.values()):
        raise _strange(path, f"the versions of {name} are not whole numbers from 1 up")
    if name not in versions:
        raise _strange(path, f"the entry of {name} does not say its own version")
    if not isinstance(saved["numbers"], dict) or not _are_numbers(saved["numbers"]):
        raise _strange(path, f"the entry of {name} holds something other than numbers, text, lists and names")
    return Entry(versions, saved["numbers"])


def _are_numbers(value: Any, depth: int = 0) -> bool:
    if depth > DEEPEST:
        return False
    if isinstance(value, dict):
        return all(_are_numbers(each, depth + 1) for each in value.values())
    if isinstance(value, list):
        return all(_are_numbers(each, depth + 1) for each in value)
    return isinstance(value, float | str) or type(value) is int


def _strange(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path} is not a file of golden numbers: {why}. Take it back from version control (git checkout {path}), or "
        "delete it and measure anew: kintsugi golden --renew"
    )


def write_entries(path: Path, entries: Mapping[str, Entry]) -> None:
    """Sorted by name, floats with nine significant digits; the old file or the new one is there at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: {"versions": dict(e.versions), "numbers": e.numbers} for name, e in entries.items()}
    replace_file(path, (_text(content) + "\n").encode())


def rounded(value: Numbers) -> Numbers:
    """The numbers as a file gives them back."""
    found: Numbers = json.loads(_text(value))
    return found


def _text(value: Any, indent: str = "") -> str:
    """JSON; names sorted, one a line, lists of plain values on one line."""
    deeper = indent + " "
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        lines = [f"{deeper}{json.dumps(name)}: {_text(value[name], deeper)}" for name in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple):
        if any(isinstance(each, Mapping | list | tuple) for each in value):
            return "[\n" + ",\n".join(deeper + _text(each, deeper) for each in value) + f"\n{indent}]"
        return "[" + ", ".join(_text(each) for each in value) + "]"
    if isinstance(value, float) and math.isfinite(value):
        short = float(f"{value:.{DIGITS}g}")
        return json.dumps(short + 0.0)  # no negative zero
    return json.dumps(value, ensure_ascii=False)
