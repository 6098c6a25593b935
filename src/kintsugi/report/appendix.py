"""What failed and why, and everything that is needed to run a store again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from kintsugi.bench.components import raised
from kintsugi.bench.made_with import SOURCES, made_with_of
from kintsugi.bench.notes import Note, notes_of
from kintsugi.bench.store import Record
from kintsugi.report.data import Shown

MOST_FAILURES = 100  # entries; the rest is counted
MOST_TRACEBACK = 6000  # characters, the last ones


@dataclass
class Failure:
    """Trials that ended alike: same method, data set, training condition and last line."""

    method: str
    dataset: str
    training: str
    reason: str
    traceback: str
    seeds: list[int]


def failures(records: Iterable[Record]) -> list[Failure]:
    """Failed trials, those that differ only in their seed as one; with the end of the first traceback."""
    found: dict[tuple[str, ...], Failure] = {}
    for record in records:
        t, text = record.trial, record.traceback.strip()
        reason = text.splitlines()[-1].strip() if text else "no traceback was kept"
        key = (t.method, t.dataset, t.training, reason)
        cut = "…\n" + text[-MOST_TRACEBACK:] if len(text) > MOST_TRACEBACK else text
        found.setdefault(key, Failure(*key, cut, [])).seeds.append(t.seed)
    return list(found.values())


def commands(shown: Shown, command: str | None, suite_text: str) -> list[Note]:
    """How the store was filled: the notes that lie beside it, then what was handed in, unless they say it already.

    A suite that was run several times is printed once.
    """
    notes = notes_of(shown.folder)
    if (command or suite_text) and not any(n.command == command and n.text == suite_text for n in notes):
        notes.append(Note(command or "", "", suite_text))
    seen: set[str] = set()
    for place, note in enumerate(notes):
        notes[place] = replace(note, text="") if note.text in seen else note
        seen.add(note.text)
    return notes


def appendix(shown: Shown) -> dict[str, Any]:
    """Data sets, methods, versions and machines of the trials that are done or failed."""
    records = shown.records
    ran = [r for r in records if r.state in ("done", "failed")]
    done = [r for r in records if r.state == "done"]
    rows = shown.rows
    return {
        "trials": len(done),
        "results": shown.results,
        "seconds": sum(r.seconds or 0.0 for r in ran),
        "seeds": sorted({r.trial.seed for r in ran}),
        "masks": int(rows.loc[rows["mask_hash"] != "", "mask_hash"].nunique()) if len(rows) else 0,
        "versions": _once(f"{n} {v}" for r in ran for n, v in made_with_of(r).items() if n != SOURCES),
        "registered": raised(ran),
        "machines": _once(_machine(r.facts["machine"]) for r in done if r.facts.get("machine")),
        "datasets": _datasets(ran),
        "methods": _methods(ran),
        "resamples": _once(
            str(r.trial.parameters["resamples"]) for r in done if r.trial.parameters.get("resamples") is not None
        ),
    }


def _once(said: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(said))


def _machine(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, ""))


def _datasets(records: list[Record]) -> list[dict[str, Any]]:
    """One entry a data set and protocol."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        t = record.trial
        entry = found.setdefault(
            (t.dataset, t.fingerprint, t.protocol.name),
            {
                "name": t.dataset,
                "fingerprint": t.fingerprint,
                "about": _about(dict(t.about)),
                "protocol": t.protocol.name,
                "conditions": len(t.protocol),
                "seeds": sorted({c.seed for c in t.protocol.conditions}),
                "trainings": {},
                "scored": None,
            },
        )
        entry["trainings"][t.training] = None
        entry["scored"] = entry["scored"] or record.facts.get("rows")
    return list(found.values())


def _about(facts: dict[str, Any]) -> list[tuple[str, str]]:
    said = []
    for name, value in facts.items():
        parts = (f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else (str(value),)
        said.append((name, "; ".join(parts)))
    return said


def _methods(records: list[Record]) -> list[dict[str, Any]]:
    """One entry a method, with its parameters, who ran it, and the digests of its sources."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        t = record.trial
        said = json.dumps(t.parameters, sort_keys=True, ensure_ascii=False)
        origin = t.origin
        entry = found.setdefault(
            (t.method, said, origin),
            {
                "name": t.method,
                "parameters": said,
                "origin": origin,
                "seeds": {},
                "sources": {},
                "trials": 0,
                "seconds": 0.0,
            },
        )
        entry["seeds"][t.seed] = entry["sources"][made_with_of(record).get(SOURCES, "")] = None
        entry["trials"] += 1
        entry["seconds"] += record.seconds or 0.0
    for entry in found.values():
        entry["seeds"] = ", ".join(map(str, sorted(entry["seeds"])))
        entry["sources"] = [source for source in entry["sources"] if source]
    return list(found.values())
