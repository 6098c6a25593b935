"""Cards read from the text of a file, so that a list of hundreds of methods imports none of them."""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from kintsugi.core.card import Card
from kintsugi.core.errors import ConfigError, KintsugiError

LARGEST = 1 << 20  # bytes of a file: proposed here; the longest file of this library has a fiftieth of it

START = re.compile(r"^(?:@(?:\w+\.)*register|(?:\w+ *= *)?(?:\w+\.)*variant)\(\s*(?=(?:\w+\.)*Card\()", re.MULTILINE)
# What can stand between the brackets of a call and hold brackets of its own.
TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*|[()\[\]{}]', re.DOTALL
)  # fmt: skip
IMPORT = re.compile(r"^(?:from|import)[ \t]+([A-Za-z_][\w.]*)", re.MULTILINE)


@dataclass(frozen=True)
class CardText:
    """A card, and where it was read: module, file and line."""

    card: Card
    module: str
    file: Path
    line: int


def read_cards(file: Path, module: str) -> list[CardText]:
    """Every card that a file registers at its top level: ``@register(Card(...))`` or ``variant(Card(...), ...)``.

    Raises:
        ConfigError: the file cannot be read, or a card is not made of literals; UnknownName: of a field, with the nearest.
    """
    text = source_of(file)
    return [_card(text, match.end(), module, file) for match in START.finditer(text)]


def source_of(file: Path) -> str:
    """The text of a Python file of at most a megabyte.

    Raises:
        ConfigError: it is larger, or no UTF-8.
    """
    try:
        with open(file, "rb") as opened:
            content = opened.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ConfigError(f"it is larger than {LARGEST} bytes; a method is one short file")
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"it is no UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error})") from error


def _card(text: str, start: int, module: str, file: Path) -> CardText:
    line = text.count("\n", 0, start) + 1
    depth = 0
    for token in TOKEN.finditer(text, start):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if token[0] == ")" and not depth:
            break
    else:
        raise ConfigError(f"line {line}: the card's brackets are not closed")
    try:
        call = ast.parse(text[start : token.end()], mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"line {line + (error.lineno or 1) - 1}: the card is no Python ({error.msg})") from error
    assert isinstance(call, ast.Call)
    fields: dict[str, Any] = {}
    for place in call.args:
        raise ConfigError(
            f"line {line + place.lineno - 1}: say the field's name: {ast.unparse(place)[:40]} is without one"
        )
    for keyword in call.keywords:
        where = f"line {line + keyword.value.lineno - 1}: the card"
        if keyword.arg is None:
            raise ConfigError(f"{where} is no literal: write its fields out in place of **{ast.unparse(keyword.value)}")
        try:
            fields[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, MemoryError, RecursionError) as error:
            raise ConfigError(
                f"{where}'s {keyword.arg} is no literal: write the value itself in place of "
                f"{ast.unparse(keyword.value)[:60]}"
            ) from error
    try:
        return CardText(Card(**fields), module, file, line)
    except KintsugiError as error:
        raise ConfigError(f"line {line}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"line {line}: the card is empty; key, name and leaf are the least ({error})") from error


# can it be imported? --------------------------------------------------------------------------------------------------
def fault(file: Path) -> str:
    """Why importing a file would fail, as far as can be told without doing it; "" where nothing is seen.

    Python's own cache of compiled files says that a file compiled; only one that has changed since is compiled again.
    """
    try:
        if not _compiled(file):
            SourceFileLoader(file.stem, str(file)).get_code(file.stem)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"line {line}: {getattr(error, 'msg', error)}" if line else str(error)
    for name in IMPORT.findall(source_of(file)):
        if not _there(name if name.startswith("kintsugi.") else name.partition(".")[0]):
            return f"it needs {name!r}, which is not installed"
    return ""


def _compiled(file: Path) -> bool:
    """Does the cache of compiled files belong to the file as it is (PEP 552, files by time and size)?"""
    try:
        with open(importlib.util.cache_from_source(str(file)), "rb") as opened:
            head = opened.read(16)
        stat = file.stat()
    except (OSError, NotImplementedError):
        return False
    when, size = int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size & 0xFFFFFFFF
    return head == importlib.util.MAGIC_NUMBER + bytes(4) + when.to_bytes(4, "little") + size.to_bytes(4, "little")


@cache
def _there(module: str) -> bool:
    """Is there such a module? Of this library by its file, since looking into a package would import it."""
    if module.startswith("kintsugi."):
        place = Path(__file__).parent.parent.joinpath(*module.split(".")[1:])
        return place.is_dir() or place.with_suffix(".py").is_file()
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
