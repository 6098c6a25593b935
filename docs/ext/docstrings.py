"""Docstrings of this library put several arguments on one line; here each gets a line of its own.

``clip: largest norm; 0: none. accumulate: batches to a step.`` is split before ``accumulate`` because the signature
has an argument of that name. Fields of a class that are explained in prose become a list.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

NAMES = r"[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*"


def names_of(obj: Any) -> set[str]:
    """Arguments and annotated fields of a class or function."""
    found: set[str] = set()
    with contextlib.suppress(TypeError, ValueError):
        found |= set(inspect.signature(obj).parameters)
    if inspect.isclass(obj):
        for cls in obj.__mro__:
            if cls.__module__.startswith("kintsugi"):
                found |= set(vars(cls).get("__annotations__", {})) | {n for n in vars(cls) if not n.startswith("_")}
    return found


def pieces(text: str, known: set[str]) -> list[tuple[str, str]] | None:
    """``a: x. b, c: y`` -> [("a", "x."), ("b, c", "y")]; None where the text does not start with a known name."""

    def ours(match: re.Match[str]) -> bool:
        return all(name in known for name in match[1].split(", "))

    starts = [m for m in re.finditer(rf"(?:(?<=^)|(?<=[.;)] ))({NAMES}): ", text) if ours(m)]
    if not starts or starts[0].start() != 0:
        return None
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return [(m[1], text[m.end() : end].strip()) for m, end in zip(starts, ends, strict=True)]


def arguments_section(lines: list[str]) -> tuple[int, int] | None:
    """First and last line (exclusive) of what stands under ``Args:``."""
    for at, line in enumerate(lines):
        if line.strip() == "Args:":
            end = at + 1
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith((" ", "\t"))):
                end += 1
            return at + 1, end
    return None


def entries(lines: list[str]) -> list[str]:
    """Indented entries, each joined to one line."""
    body = [line for line in lines if line.strip()]
    if not body:
        return []
    base = min(len(line) - len(line.lstrip()) for line in body)
    found: list[str] = []
    for line in body:
        if len(line) - len(line.lstrip()) == base or not found:
            found.append(line.strip())
        else:
            found[-1] += " " + line.strip()
    return found


def explained(obj: Any, more: Iterable[str] = ()) -> dict[str, str]:
    """Argument -> what its class says of it under ``Args:``; ``more``: names beyond its constructor's."""
    lines = (inspect.getdoc(obj) or "").splitlines()
    section = arguments_section(lines)
    meanings: dict[str, str] = {}
    if section is not None:
        known = names_of(obj) | set(more)
        for entry in entries(lines[slice(*section)]):
            for names, text in pieces(entry, known) or []:
                meanings |= dict.fromkeys(names.split(", "), text)
    return meanings


def tidy(lines: list[str], obj: Any) -> list[str]:
    """The docstring with one argument or field a line."""
    known = names_of(obj)
    section = arguments_section(lines)
    out = _paragraphs(lines[: section[0]] if section else lines, known if inspect.isclass(obj) else set())
    if section:
        for entry in entries(lines[slice(*section)]):
            for names, text in pieces(entry, known) or [("", entry)]:
                out.append(f"    {names}: {text}" if names else f"    {text}")
        out += ["", *lines[section[1] :]]
    return out


def _paragraphs(lines: list[str], fields: set[str]) -> list[str]:
    out: list[str] = []
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip() and not line.startswith(" "):
            block.append(line)
            continue
        out += [*_fields(block, fields), line]
        block = []
    return out[:-1] if not lines or lines[-1].strip() else out


def _fields(block: list[str], fields: set[str]) -> list[str]:
    found = pieces(" ".join(block), fields) if block else None
    if not found or not block[0].strip() or (len(found) == 1 and len(block) == 1):
        return block
    named = ((", ".join(f"``{n}``" for n in names.split(", ")), text.rstrip("; ")) for names, text in found)
    return [f"- {names}: {text}" + ("" if text.endswith((".", ":")) else ".") for names, text in named]


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what in ("class", "function", "method", "exception"):
        lines[:] = tidy(list(lines), obj)
        if inspect.isclass(obj) and parents(obj):
            lines += ["", f"Extends {', '.join(parents(obj))}."]
    elif what in ("property", "attribute", "data") and lines and ":" in lines[0]:
        lines[0] = ": " + lines[0]  # napoleon would take what stands before the colon for a type


def parents(cls: type) -> list[str]:
    """References to the public classes of this library that it extends; a private one stands for what it extends itself."""
    found: dict[str, None] = {}
    for base in cls.__bases__:
        if not base.__module__.startswith("kintsugi."):
            continue
        private = base.__name__.startswith("_") or "._" in base.__module__
        links = parents(base) if private else [f":py:class:`~{base.__module__}.{base.__qualname__}`"]
        found |= dict.fromkeys(links)
    return list(found)


def setup(app: Any) -> dict[str, bool]:
    """Before napoleon reads the docstrings."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True}
