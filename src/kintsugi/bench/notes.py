"""What was asked of a store: the commands and suites, kept beside it so that a report can say how to run it again."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

FILE = "commands.jsonl"


@dataclass(frozen=True)
class Note:
    """One call of a suite on a store.

    command: as a shell reads it; suite: its name; text: its YAML; reference: label of the method that relative figures
    refer to, or several; commit: of the working tree where the command ran, "" outside one, with ``+`` where it had changes;
    date: UTC, ISO 8601; budget: minutes on two cores that the suite declares; workers: as the command had it.
    """

    command: str
    suite: str
    text: str = ""
    reference: str | list[str] | None = None
    commit: str = ""
    date: str = ""
    budget: float | None = None
    workers: int = 1


def remember(folder: Path, note: Note) -> None:
    """Append a note to the notes of a store, unless it is the last one again."""
    known = notes_of(folder)
    if known and (known[-1].command, known[-1].text, known[-1].commit) == (note.command, note.text, note.commit):
        return
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(note)) + "\n")


def notes_of(folder: str | os.PathLike[str]) -> list[Note]:
    """The notes of a store, oldest first; a line that a kill cut off, or that is no note, is left out."""
    path = Path(folder) / FILE
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            said = json.loads(line)
            found.append(Note(**{key: said[key] for key in Note.__dataclass_fields__ if key in said}))
        except (ValueError, TypeError, RecursionError):
            continue
    return found


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit() -> str:
    """Of the source of this library, where it runs from a working tree of its own; else ""."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        called = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        return called.stdout.strip() if called.returncode == 0 else ""

    found = git("rev-parse", "--short=12", "HEAD")
    return found + ("+" if found and git("status", "--porcelain", "--untracked-files=no", "--", "src") else "")
