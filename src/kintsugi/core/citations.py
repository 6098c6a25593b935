"""Who published a method: BibTeX entries of one file. What is read of them is author, title, venue and year."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kintsugi.core.card_text import source_of
from kintsugi.core.catalogue import HOME, METHODS
from kintsugi.core.errors import ConfigError, UnknownName

NAME = "references.bib"
START = re.compile(r"^[ \t]*@(\w+)\s*\{\s*([^\s,{}]+)\s*,", re.MULTILINE)
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
FIELD = re.compile(r'(\w+)\s*=\s*(?:\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}|"([^"]*)"|(\d+))')


@dataclass(frozen=True)
class Citation:
    """One entry. ``bibtex`` is its text; venue and year are "" where the entry has none."""

    bibtex: str
    authors: tuple[str, ...]
    title: str
    venue: str
    year: str

    @property
    def short(self) -> str:
        """Venue and year, ``ACL 2021``."""
        return f"{self.venue} {self.year}".strip()

    @property
    def text(self) -> str:
        """In one line: authors by family name, title, venue."""
        families = [author.partition(",")[0] for author in self.authors]
        who = families[0] if len(families) == 1 else f"{', '.join(families[:-1])} and {families[-1]}"
        if families[-1] == "others":
            who = f"{', '.join(families[:-1])} et al."
        return f"{who}: {self.title}, {self.short}"


def citation(key: str) -> Citation:
    """The paper of a method.

    The file is ``references.bib`` beside the file of a method from outside, then that of this library's methods.

    Raises:
        UnknownName: no such method, or no entry for it. ConfigError: its entry cannot be read.
    """
    card = METHODS.card(key)
    text = METHODS.entries.get(card.key)
    own = () if text is None or text.file.is_relative_to(HOME) else (text.file.with_name(NAME),)
    entries: dict[str, Citation | str] = {}
    for file in (HOME / NAME, *own):
        if file.is_file():
            entries |= read_bibliography(file)
    found = entries.get(card.citation_key)
    if found is None:
        places = " and ".join(map(str, own or (HOME / NAME,)))
        raise UnknownName(f"entry of {places}", card.citation_key, entries)
    if isinstance(found, str):
        raise ConfigError(found)
    return found


@cache
def read_bibliography(file: Path) -> dict[str, Citation | str]:
    """Key -> entry, or why it cannot be read: one that is odd harms no other."""
    text = source_of(file)
    entries: dict[str, Citation | str] = {}
    for start in START.finditer(text):
        kind, key = start[1].lower(), start[2]
        if kind in ("comment", "string", "preamble"):
            continue
        where = f"{file}, line {text.count(chr(10), 0, start.start()) + 1}: entry {key!r}"
        entry = _whole(text, start)
        if key in entries:
            entries[key] = f"{where} is there twice; remove one"
        elif entry is None:
            entries[key] = f"{where} is not closed; end it with a brace"
        else:
            entries[key] = _read(entry, where)
    return entries


def _whole(text: str, start: re.Match[str]) -> str | None:
    """The text of an entry, from its @ to the brace that closes it."""
    depth = 0
    for brace in BRACE.finditer(text, start.start()):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if brace[0] == "}" and not depth:
            return text[start.start() : brace.end()].strip()
    return None


def _read(entry: str, where: str) -> Citation | str:
    fields = {
        name.lower(): " ".join((braced or quoted or number).split())
        for name, braced, quoted, number in FIELD.findall(entry.partition(",")[2])
    }
    if not fields.get("author") or not fields.get("title"):
        return f"{where} needs author and title"
    venue = fields.get("booktitle") or fields.get("journal") or fields.get("howpublished", "")
    return Citation(entry, tuple(fields["author"].split(" and ")), fields["title"], venue, fields.get("year", ""))
