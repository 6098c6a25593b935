"""Markdown, as far as our own notes use it, to reStructuredText.

Headings, paragraphs, bullet and numbered lists, fenced code, pipe tables, quotes; bold, italic, code and links. What it
does not know is kept as text. ``docs/reproductions/*.md`` and the changelog become pages of the site this way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rst import escape, remove_others, table, write_if_changed

UNDERLINES = "=-~^\"'"
ITEM = re.compile(r"(\s*)([-*+]|\d+[.)])\s+(.*)")
TOKEN = re.compile(
    r"(?P<tick>`+)(?P<code>.+?)(?P=tick)"
    r"|(?P<image>!)?\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)"
    r"|<(?P<auto>https?://[^>\s]+)>"
    r"|\*\*(?P<bold>.+?)\*\*"
    r"|(?<![\w*])\*(?P<star>[^*\s](?:[^*]*[^*\s])?)\*(?![\w*])"
    r"|(?<!\w)_(?P<under>[^_\s](?:[^_]*[^_\s])?)_(?!\w)"
)


def convert(markdown: str) -> str:
    """A whole document."""
    return "\n".join(_blocks(markdown.replace("\r\n", "\n").split("\n"))).strip("\n") + "\n"


# blocks -------------------------------------------------------------------------------------------------------------
def _blocks(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line = lines[at]
        fence = re.match(r"(```+|~~~+)\s*([\w+-]*)", line)
        title = re.match(r"(#{1,6})\s+(.*?)\s*#*$", line)
        if not line.strip():
            at += 1
        elif fence:
            at = yield from _fenced(lines, at, fence)
        elif title:
            text = inline(title[2])
            yield from (text, UNDERLINES[len(title[1]) - 1] * max(len(text), 4), "")
            at += 1
        elif re.fullmatch(r"\s*([-*_])(\s*\1){2,}\s*", line):
            yield from ("----", "")
            at += 1
        elif _is_table(lines, at):
            at = yield from _table(lines, at)
        elif ITEM.match(line):
            at = yield from _list(lines, at)
        elif line.startswith(">"):
            block, at = _take(lines, at, lambda text: text.startswith(">"))
            yield from _indented(_blocks([text.lstrip(">").removeprefix(" ") for text in block]), "   ")
            yield ""
        elif line.startswith("<!--"):
            while at < len(lines) and "-->" not in lines[at]:
                at += 1
            at += 1
        else:
            block, at = _take(lines, at, lambda text: bool(text.strip()) and not _starts(text))
            yield from (inline(" ".join(text.strip() for text in block)), "")


def _starts(line: str) -> bool:
    """The line cannot belong to the paragraph before it."""
    return bool(re.match(r"#{1,6}\s|```|~~~|>|\||\s*[-*+]\s|\s*\d+[.)]\s", line))


def _take(lines: list[str], at: int, more: Any) -> tuple[list[str], int]:
    block = [lines[at]]
    at += 1
    while at < len(lines) and more(lines[at]):
        block.append(lines[at])
        at += 1
    return block, at


def _indented(lines: Iterator[str], indent: str) -> Iterator[str]:
    for line in lines:
        for one in line.split("\n"):
            yield indent + one if one else one


def _fenced(lines: list[str], at: int, fence: re.Match[str]) -> Iterator[str]:
    block = []
    at += 1
    while at < len(lines) and not lines[at].startswith(fence[1]):
        block.append(lines[at])
        at += 1
    yield from (f".. code-block:: {fence[2] or 'text'}", "")
    yield from ("   " + text if text else text for text in block)
    yield ""
    return at + 1


def _is_table(lines: list[str], at: int) -> bool:
    return (
        "|" in lines[at] and at + 1 < len(lines) and bool(re.fullmatch(r"\s*\|?(\s*:?-+:?\s*\|?)+\s*", lines[at + 1]))
    )


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    held = re.sub(r"`[^`]*`", lambda m: m[0].replace("|", "\0"), inner.replace("\\|", "\0"))
    return [inline(cell.strip().replace("\0", "|")) for cell in held.split("|")]


def _table(lines: list[str], at: int) -> Iterator[str]:
    head = _cells(lines[at])
    at += 2
    rows = []
    while at < len(lines) and "|" in lines[at]:
        cells = _cells(lines[at])
        rows.append((cells + [""] * len(head))[: len(head)])
        at += 1
    yield from (table(head, rows), "")
    return at


def _list(lines: list[str], at: int) -> Iterator[str]:
    first = ITEM.match(lines[at])
    assert first is not None
    base = len(first[1])
    while at < len(lines):
        match = ITEM.match(lines[at])
        if match is None or len(match[1]) != base:
            break
        numbered = match[2][0].isdigit()
        width = len(lines[at]) - len(match[3])
        body = [match[3]]
        at += 1
        while at < len(lines):
            deeper = len(lines[at]) - len(lines[at].lstrip())
            again = ITEM.match(lines[at])
            if lines[at].strip() and (deeper > base or (again is None and body[-1] and not _starts(lines[at]))):
                body.append(lines[at][min(deeper, width) :])
            elif not lines[at].strip() and at + 1 < len(lines) and lines[at + 1].startswith(" " * (base + 1)):
                body.append("")
            else:
                break
            at += 1
        inner = list(_indented(_blocks(body), "  " if not numbered else "   "))
        while inner and not inner[-1].strip():
            inner.pop()
        yield ("#. " if numbered else "- ") + (inner[0].lstrip() if inner else "")
        yield from inner[1:]
        yield ""
        while at < len(lines) and not lines[at].strip():
            following = ITEM.match(lines[at + 1]) if at + 1 < len(lines) else None
            if following is None or len(following[1]) != base:
                break
            at += 1
    return at


# within a paragraph -------------------------------------------------------------------------------------------------
def inline(text: str) -> str:
    """Bold, italic, code and links; everything else is escaped."""
    out, at = [], 0
    for match in TOKEN.finditer(text):
        before, after = text[at : match.start()], text[match.end() : match.end() + 1]
        out.append(escape(before))
        glue = "\\ " if before[-1:].isalnum() else ""
        out.append(glue + _role(match) + ("\\ " if after.isalnum() else ""))
        at = match.end()
    return "".join([*out, escape(text[at:])])


def _role(match: re.Match[str]) -> str:
    if match["code"] is not None:
        return f"``{match['code'].strip()}``"
    if match["bold"] is not None:
        return f"**{escape(_plain(match['bold']))}**"
    if match["auto"] is not None:
        return f"`{match['auto']} <{match['auto']}>`__"
    if match["target"] is not None:
        label = escape(_plain(match["text"]))
        if re.match(r"https?:|mailto:", match["target"]):
            return f"`{label} <{match['target']}>`__"
        if re.fullmatch(r"methods/\w+", match["target"]):  # a page of this site
            return f":doc:`{label} </{match['target']}>`"
        return f"``{match['target']}``" if label == match["target"] else f"{label} (``{match['target']}``)"
    return f"*{escape(_plain(match['star'] or match['under']))}*"


def _plain(text: str) -> str:
    """Markup cannot be nested in reStructuredText: the inner marks go."""
    return re.sub(r"\*\*|`|(?<!\w)[*_]|[*_](?!\w)", "", text)


# pages --------------------------------------------------------------------------------------------------------------
def write_markdown_pages(source: Path, target: Path) -> list[Path]:
    """Each ``*.md`` of a folder as a page in another, and ``contents.txt``, a toctree of them to include."""
    found = sorted(source.glob("*.md"))
    written = [write_if_changed(target / f"{p.stem}.rst", convert(p.read_text(encoding="utf-8"))) for p in found]
    remove_others(target, written)
    listed = "".join(f"   {target.name}/{path.stem}\n" for path in written)
    contents = f".. toctree::\n   :maxdepth: 1\n\n{listed}" if written else "None is written yet.\n"
    write_if_changed(target / "contents.txt", contents)
    return written


def _write(app: Any) -> None:
    here = Path(app.srcdir)
    write_markdown_pages(here / "reproductions", here / "reproductions" / "generated")
    for page in (
        here / "leaderboard.md",
        here / "contract.md",
        here / "when_does_it_help.md",
        here.parent / "CHANGELOG.md",
    ):
        if page.exists():
            target = here / "api" / "generated" / f"{page.stem.lower()}.txt"
            write_if_changed(target, convert(page.read_text(encoding="utf-8")))


def setup(app: Any) -> dict[str, bool]:
    """Pages are written before Sphinx looks for documents."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}
