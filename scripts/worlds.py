"""Write docs/worlds_tables.txt: what the worlds are, and what oracles and Bayes' rule reach in them.

python scripts/worlds.py             # seeds 0 to 4, two minutes on one core
python scripts/worlds.py --seeds 10  # more of them
python scripts/worlds.py --print     # to the terminal, of premises named after it or of all
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from kintsugi.data.worlds import WORLDS, oracles, worlds

HOME = Path(__file__).resolve().parents[1]
STRENGTHS = {"classification": (0.0, 0.5, 1.0), "regression": (0.0, 1.0)}
TWINS: dict[str, dict[str, Any]] = {"redundant": {"labels": 1.0}}


def interval(values: np.ndarray) -> float:
    """Half of the 95 % t-interval of a mean."""
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def cells(*values: object) -> str:
    """A line of a csv-table."""
    return "   " + ", ".join('"' + str(value).replace('"', '""') + '"' for value in values) + "\n"


def described() -> str:
    """What each world is, from its own words."""
    text = ".. list-table::\n   :header-rows: 1\n   :widths: 20 50 30\n\n   * - World\n     - What makes it one\n     - Control\n"
    for name, world in WORLDS.items():
        text += f"   * - ``{name}``\n     - *{world.title}.* {world.what}\n\n       Made: {world.made}\n     - {world.control}\n"
    return text


def ruled() -> str:
    """What the two oracles of each world do."""
    return "".join(f"``{name}``\n   {world.rules}\n" for name, world in WORLDS.items())


def line(premise: str, strength: float, seeds: int, **options: Any) -> tuple[object, ...]:
    """World, strength, without, with, difference, optimum, optimum with nothing missing or corrupted; in percent."""
    notes = [worlds(premise, strength, seed, **options).note for seed in range(seeds)]
    scores = [oracles(premise, strength, seed, **options) for seed in range(seeds)]
    less, more = (100 * np.array([score[side] for score in scores]) for side in ("without", "with"))
    best, full = (100 * np.mean([note[name] for note in notes]) for name in ("optimum", "optimum_full"))
    difference = f"{(more - less).mean():+.1f} ± {interval(more - less):.1f}"
    return (
        premise,
        f"{strength:g}",
        f"{less.mean():.1f}",
        f"{more.mean():.1f}",
        difference,
        f"{best:.1f}",
        f"{full:.1f}",
    )


def said(options: dict[str, Any]) -> str:
    """Options as they are written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def figures(premises: list[str], seeds: int, task: str) -> str:
    """The lines of a table."""
    text = ""
    for premise in premises:
        if task in WORLDS[premise].tasks:
            for strength in STRENGTHS[task]:
                text += cells(*line(premise, strength, seeds, task=task))
                print(text.splitlines()[-1], flush=True)
            if premise in TWINS:
                text += cells(
                    f"{premise}, {said(TWINS[premise])}", *line(premise, 1.0, seeds, task=task, **TWINS[premise])[1:]
                )
    return text


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("premises", nargs="*", default=list(WORLDS), help="with --print: which worlds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--print", action="store_true", dest="only", help="write nothing")
    parser.add_argument("--out", type=Path, default=HOME / "docs" / "worlds_tables.txt")
    given = parser.parse_args()
    if not given.only and given.premises != list(WORLDS):
        parser.error("the page holds all worlds: name some with --print alone")
    torch.set_num_threads(1)
    head = '   :header: "world", "strength", "without", "with", "with - without", "optimum", "optimum_full"\n\n'
    text = described() + "\nThe oracles\n-----------\n\n" + ruled() + "\nFigures\n-------\n\n"
    for task, what in (("classification", "Accuracy"), ("regression", "R²")):
        lines = figures(given.premises, given.seeds, task)
        text += f".. csv-table:: {what}, %, means over seeds 0 to {given.seeds - 1}\n{head}{lines}\n"
    if not given.only:
        given.out.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
