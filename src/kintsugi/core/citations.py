"""Who published a method: BibTeX entries of one file, read without a parser for all of BibTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kintsugi.core.card_text import source_of
from kintsugi.core.catalogue import HOME, METHODS
from kintsugi.core.errors import ConfigError, UnknownName

NAME = "references.bib"
# The layout that the file is kept in: an entry from ``@type{key,`` to ``}`` at the start of a line, one field a line.
ENTRY = re.compile(r"^@\w+\{(?P<key>[\w.:/-]+),\n(?P<fields>(?:  \w+ = \{.*\},\n)+)\}$", re.MULTILINE)
FIELD = re.compile(r"^  (\w+) = \{(.*)\},$", re.MULTILINE)


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

    The file is ``references.bib`` of this library's methods, or the one beside the file of a method from outside.

    Raises:
        UnknownName: no such method, or no entry for it. ConfigError: the file is not in the layout of its entries.
    """
    card = METHODS.card(key)
    text = METHODS.entries.get(card.key)
    file = HOME / NAME if text is None or text.file.is_relative_to(HOME) else text.file.with_name(NAME)
    entries = read_bibliography(file) if file.is_file() else {}
    if card.citation_key not in entries:
        raise UnknownName(f"entry of {file}", card.citation_key, entries)
    return entries[card.citation_key]


@cache
def read_bibliography(file: Path) -> dict[str, Citation]:
    """Key -> entry.

    Raises:
        ConfigError: a line belongs to no entry; names it.
    """
    text = source_of(file)
    rest = ENTRY.sub(lambda entry: "\n" * entry[0].count("\n"), text)
    odd = [number for number, line in enumerate(rest.split("\n"), 1) if line.strip() and not line.startswith("%")]
    if odd:
        raise ConfigError(
            f"{file}, line {odd[0]}: write entries as @type{{key, then one field a line as '  title = {{...}},', then }}"
        )
    entries: dict[str, Citation] = {}
    for entry in ENTRY.finditer(text):
        fields = dict(FIELD.findall(entry["fields"]))
        if entry["key"] in entries:
            raise ConfigError(f"{file}: two entries have the key {entry['key']!r}; remove one")
        if not fields.get("author") or not fields.get("title"):
            raise ConfigError(f"{file}: {entry['key']!r} needs author and title")
        venue = fields.get("booktitle") or fields.get("journal") or fields.get("howpublished", "")
        authors = tuple(fields["author"].split(" and "))
        entries[entry["key"]] = Citation(entry[0], authors, fields["title"], venue, fields.get("year", ""))
    return entries
