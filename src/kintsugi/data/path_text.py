"""Text in a column of files that leads nowhere: a path of a file that is not there, or no path at all."""

from __future__ import annotations

import binascii
import os
import re
from pathlib import Path
from typing import Any

LONGEST_NAME = 255  # bytes of one name of a path: NAME_MAX of Linux, and of macOS and Windows in characters
LONGEST_PATH = 4096  # bytes: PATH_MAX of Linux
SHOWN = 60  # characters of a text that a message quotes
LISTS = frozenset({"series", "vector"})  # kinds whose cells may be numbers; one number alone is no name there

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BETWEEN = re.compile(r"[\s,;|\[\](){}]+")
# How the files begin that people put into cells as base64: PNG, JPEG, GIF, BMP, TIFF, RIFF (WAV, WebP), FLAC, Ogg, MP3, NumPy.
_MAGIC = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb",
    b"\x93NUMPY",
)  # fmt: skip
_SHORTEST = 32  # characters of base64; a file has more, and shorter names may begin like one by chance


def no_path(path: str | os.PathLike[Any], root: Path | None, kind: str) -> str | None:
    """Why text that leads to no file is no path of one, with what to do; None: it may be the path of a missing file.

    No paths are: URLs, data and base64, numbers (several; for series and vectors one is enough), mappings and mark-up,
    text of several lines, with NUL, or longer than a path may be, and paths with backslashes or with blanks at their ends
    where the same without them is a file.

    Args:
        path: of the cell. Anything but text is a path whatever it says, so long as the system can have it.
        root: folder of relative paths.
        kind: of the reader.
    """
    try:
        text = os.fsdecode(path)
        raw = os.fsencode(text)
    except (UnicodeError, TypeError, ValueError) as error:
        return f"is text, not a path ({error})"
    if "\0" in text:
        return f"is text, not a path (it holds NUL): {_quoted(text)}"
    if len(raw) > LONGEST_PATH or max(map(len, re.split(rb"[/\\]", raw))) > LONGEST_NAME:
        beginning = _data(text) or "is text, not a path"
        return f"{beginning} ({len(raw):,} bytes, longer than a name may be): {_quoted(text)}"
    if not isinstance(path, str):
        return None
    return _data(text.strip()) or _written_otherwise(text, root) or _no_name(text.strip(), kind)


def _data(text: str) -> str | None:
    """Data that was put into text."""
    if text[:5].lower() == "data:":
        return "is a data: URL, not a path; give the bytes themselves: base64.b64decode(text.split(',', 1)[1])"
    if _URL.match(text):
        if text[:7].lower() == "file://":
            return f"is a URL, not a path; leave out 'file://': {_quoted(text)}"
        return f"is a URL, not a path; files are not fetched, save them first: {_quoted(text)}"
    if len(text) >= _SHORTEST and _starts_a_file(text):
        return "is base64, not a path; give the bytes themselves: base64.b64decode(text)"
    return None


def _starts_a_file(text: str) -> bool:
    try:
        first = binascii.a2b_base64(text[:_SHORTEST], strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return first.startswith(_MAGIC)


def _written_otherwise(text: str, root: Path | None) -> str | None:
    def there(other: str) -> bool:
        return other != text and bool(other) and (Path(other) if root is None else root / other).exists()

    if there(text.strip()):
        return f"has blanks at its ends, without which it is the path of a file: {_quoted(text)}"
    if os.sep == "/" and "\\" in text and there(text.strip().replace("\\", "/")):
        return f"has backslashes; with slashes it is the path of a file: {_quoted(text)}"
    return None


def _no_name(text: str, kind: str) -> str | None:
    count = _count_of_numbers(text)
    if count > 1 or (count == 1 and kind in LISTS):
        written = " or a JSON list, such as '[1, 2.5]'" if kind in LISTS else ""
        return f"is numbers in text, not a path; give an array{written}: {_quoted(text)}"
    if "\n" in text or "\r" in text:
        return f"is text of several lines, not a path: {_quoted(text)}"
    if text[:2] in ('{"', "{'") or text[:1] == "<":
        return f"is text, not a path: {_quoted(text)}"
    return None


def _count_of_numbers(text: str) -> int:
    """How many numbers the text is made of, as ``1 2 3``, ``(1, 2)`` or ``array([1., 2.])``; 0: of something else."""
    inner = re.sub(r"^(?:[A-Za-z_]\w*\.)?(?:array|tensor|list|tuple)\s*\(", "", text)
    inner = re.sub(r",\s*(?:dtype|device|requires_grad)\s*=[^\[\]]*$", "", inner)
    parts = [part for part in _BETWEEN.split(inner) if part not in ("", "...", "…")]  # as NumPy shortens
    try:
        for part in parts:
            float(part)
    except ValueError:
        return 0
    return len(parts)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
