"""Cards read from the text of a file, so that a list of hundreds of methods imports none of them."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path

from kintsugi.core.card import Card
from kintsugi.core.errors import ConfigError, KintsugiError

LARGEST = 1 << 20  # bytes of a file: proposed here; the longest file of this library has a fiftieth of it

_CARD = r"\(\s*(?:#[^\n]*\n\s*)*(?:card\s*=\s*)?(?=(?:\w+\.)*Card\s*\()"
START = re.compile(
    rf"^(?:@\s*(?:\w+\.)*register\s*|(?:[A-Za-z_][^\n=()#]*=\s*)*(?:\w+\.)*variant\s*){_CARD}", re.MULTILINE
)
# What registers a method too, with a card that stands elsewhere or is made by code.
_OURS = r"(?:(?:kg|kintsugi|core|methods)\.)*"
OTHER = re.compile(rf"^(?:[ \t]*@\s*{_OURS}register|(?:[A-Za-z_][^\n=()#]*=\s*)*{_OURS}variant)\s*\(", re.MULTILINE)
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
        ConfigError: the file cannot be read, or a card is not made of literals; names the line and the nearest field.
    """
    return cards_of(source_of(file), file, module)


def cards_of(text: str, file: Path, module: str) -> list[CardText]:
    """:func:`read_cards` of a text that was read already."""
    lines = _lines_with(("register", "variant"), text)
    starts = {line: match.end() for line in lines if (match := START.match(text, line))}
    lines = _in_code([line for line in lines if line in starts or OTHER.match(text, line)], text)
    unread = next((line for line in lines if line not in starts), None)
    if unread is not None:
        raise ConfigError(
            f"line {_number(text, unread)}: no card can be read there; write it out at the top level of the file, as "
            "@register(Card(key=..., ...)) above a class, or variant(Card(key=..., ...), of=...)"
        )
    return [_card(text, starts[line], module, file) for line in lines]


def _number(text: str, place: int) -> int:
    """The line of a place, counted from 1."""
    return text.count("\n", 0, place) + 1


def _lines_with(words: Iterable[str], text: str) -> list[int]:
    """Where lines begin that hold one of the words; a search for words is quicker than a pattern tried at each line."""
    lines = set()
    for word in words:
        place = text.find(word)
        while place >= 0:
            lines.add(text.rfind("\n", 0, place) + 1)
            place = text.find(word, place + 1)
    return sorted(lines)


def _in_code(places: Iterable[int], text: str) -> list[int]:
    """Those of the places, in order, that are neither in a string nor in a comment."""
    code, tokens = [], iter(TOKEN.finditer(text))
    token = next(tokens, None)
    for place in places:
        while token is not None and token.end() <= place:
            token = next(tokens, None)
        if token is None or token.start() >= place:
            code.append(place)
    return code


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
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"it is no UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error})") from error


def _card(text: str, start: int, module: str, file: Path) -> CardText:
    line = _number(text, start)
    call = _call(text, start, line)
    if call.args:
        raise ConfigError(
            f"line {line + call.args[0].lineno - 1}: say the field's name: {ast.unparse(call.args[0])[:40]} is without one"
        )
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ConfigError(
                f"line {line + keyword.value.lineno - 1}: the card is no literal: write its fields out in place of "
                f"**{ast.unparse(keyword.value)}"
            )
    try:
        fields = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise _no_literal(call, line) from error
    try:
        return CardText(Card(**fields), module, file, line)
    except KintsugiError as error:
        raise ConfigError(f"line {line}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"line {line}: the card is empty; key, name and leaf are the least ({error})") from error


def _no_literal(call: ast.Call, line: int) -> ConfigError:
    """Which field it is."""
    for keyword in call.keywords:
        try:
            ast.literal_eval(keyword.value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            return ConfigError(
                f"line {line + keyword.value.lineno - 1}: the card's {keyword.arg} is no literal: write the value itself "
                f"in place of {ast.unparse(keyword.value)[:60]}"
            )
    return ConfigError(f"line {line}: the card is no literal")


def _call(text: str, start: int, line: int) -> ast.Call:
    """``Card(...)`` that begins at a place."""
    close = text.find("\n)", start)  # where a formatted file ends its decorator; what is written otherwise takes longer
    if close >= 0:
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            body = ast.parse(text[start:close], mode="eval").body
            if isinstance(body, ast.Call):
                return body
    depth = 0
    for token in TOKEN.finditer(text, start):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if token[0] == ")" and not depth:
            break
    else:
        raise ConfigError(f"line {line}: the card's brackets are not closed")
    try:
        body = ast.parse(text[start : token.end()], mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"line {line + (error.lineno or 1) - 1}: the card is no Python ({error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:  # what the parser makes of nesting and of odd characters
        raise ConfigError(f"line {line}: the card is too deeply nested, or no text ({error})") from error
    assert isinstance(body, ast.Call)
    return body


# can it be imported? --------------------------------------------------------------------------------------------------
def fault(file: Path, text: str) -> str:
    """Why importing a file with this text would fail, as far as can be told without doing it; "" where nothing is seen.

    Python's own cache of compiled files says that a file compiled; only one that has changed since is compiled again.
    """
    try:
        if not _compiled(file):
            SourceFileLoader(file.stem, str(file)).get_code(file.stem)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return f"line {line}: {getattr(error, 'msg', error)}" if line else f"it cannot be compiled ({error})"
    if all(map(_there, set(IMPORT.findall(text)))):
        return ""
    imports = {match.start(): match[1] for match in IMPORT.finditer(text)}
    absent = [imports[place] for place in _in_code(imports, text) if not _there(imports[place])]  # prose is no import
    return f"it needs {absent[0]!r}, which is not installed" if absent else ""


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
    if not module.startswith("kintsugi."):
        module = module.partition(".")[0]
    if module.startswith("kintsugi."):
        place = Path(__file__).parent.parent.joinpath(*module.split(".")[1:])
        return place.is_dir() or place.with_suffix(".py").is_file()
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
