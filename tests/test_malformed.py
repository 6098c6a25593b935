"""A thousand harmed inputs, fifty at each of twenty places: the library's own error, or read; never anything else.

``benchmarks/malformed.py`` runs more than twenty thousand of the same, in processes that may crash.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # the harness is not part of the library

from malformed_inputs import harm_bytes, harm_json, harm_text  # noqa: E402
from malformed_targets import TARGETS, Case, NotFinite, TooLong, cases, digest_of, outcome_of  # noqa: E402

from kintsugi.core.errors import DataError  # noqa: E402

COUNT = 50
SECONDS = 60  # of one case; on a machine that does something else besides


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_harmed_input_ends_in_the_librarys_own_error_or_is_read(name: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("soundfile")

    def late(*_: Any) -> None:
        raise TooLong

    before, wrong, kinds = signal.signal(signal.SIGALRM, late), [], set()
    try:
        for number, case in cases(name, tmp_path / name, range(COUNT)):
            signal.alarm(SECONDS)
            outcome = outcome_of(case)
            signal.alarm(0)
            kinds.add(outcome.kind)
            if outcome.kind not in ("clear", "unnamed", "accepted"):
                wrong.append(f"{name}:{number} {outcome.kind}: {outcome.said}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert wrong == []
    assert kinds & {"clear", "unnamed"}, "nothing was harmed"


# the harness --------------------------------------------------------------------------------------------------------
def failing(error: BaseException) -> Callable[[], Any]:
    def run() -> Any:
        raise error

    return run


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (Case(failing(DataError("file a.csv, row 3")), ("a.csv",)), "clear"),
        (Case(failing(DataError("something is wrong")), ("a.csv",)), "unnamed"),
        (Case(failing(DataError("something is wrong"))), "clear"),
        (Case(failing(ValueError("x"))), "foreign"),
        (Case(failing(RecursionError())), "foreign"),
        (Case(failing(MemoryError())), "foreign"),
        (Case(failing(SystemExit(2))), "foreign"),
        (Case(failing(NotFinite())), "not finite"),
        (Case(lambda: [1, 2], unharmed=digest_of([1, 2])), "accepted"),
        (Case(lambda: [1, 3], unharmed=digest_of([1, 2])), "altered"),
        (Case(lambda: {"a": np.zeros(2)}, unharmed=digest_of({"a": np.zeros(2, np.float32)})), "altered"),
        (Case(lambda: [1, 3]), "accepted"),
    ],
)
def test_what_an_outcome_is(case: Case, kind: str) -> None:
    assert outcome_of(case).kind == kind


def test_a_foreign_exception_is_told_with_its_place_and_without_what_is_the_cases_own() -> None:
    def run() -> Any:
        return json.loads("[1, 2")

    said = outcome_of(Case(run)).said
    assert said.startswith("JSONDecodeError at harness (decoder.py:")
    assert said.endswith("line # column # (char #)")


@pytest.mark.parametrize("harm", [harm_bytes, harm_text, harm_json])
def test_a_seed_decides_the_harm_and_seeds_differ(harm: Callable[[Random, Any], Any]) -> None:
    whole: Any = {"a": [1, 2.5, "x"], "b": {"c": None}}
    content = {harm_bytes: json.dumps(whole).encode(), harm_text: json.dumps(whole), harm_json: whole}[harm]
    once = [harm(Random(f"t:{seed}"), content) for seed in range(60)]
    again = [harm(Random(f"t:{seed}"), content) for seed in range(60)]
    assert once == again
    assert len(set(once)) > 40
    assert whole == {"a": [1, 2.5, "x"], "b": {"c": None}}


def test_the_shares_come_to_more_than_twenty_thousand() -> None:
    assert len(TARGETS) == 20
    assert sum(count for count, _ in TARGETS.values()) == 21_304
    assert COUNT * len(TARGETS) == 1000


STAND_IN = """
import os, signal, sys, time
sys.argv[0] = {script!r}
sys.path.insert(0, {folder!r})
import malformed, malformed_targets
from malformed_targets import Case

def prepare(folder):
    def run(number):
        if number == 2: os.kill(os.getpid(), signal.SIGSEGV)
        if number == 4: time.sleep(600)
        if number == 5: raise KeyError("x")
        return number
    numbers = iter(range(first, 99))
    def make(random):
        number = next(numbers)
        return Case(lambda: run(number))
    return make

first = int(sys.argv[3]) if sys.argv[1] == "--child" else 0
malformed.SECONDS = 1
malformed.__file__ = {script!r}
malformed_targets.TARGETS.clear()
malformed_targets.TARGETS["toy"] = (8, prepare)
malformed.main()
"""


def test_a_crash_and_a_hang_cost_one_case_and_are_counted(tmp_path: Path) -> None:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.format(script=str(script), folder=str(BENCHMARKS)))
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(script), "--jobs", "1", "--json", str(figures)], capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    counts = json.loads(figures.read_text())["toy"]["counts"]
    assert counts == {"accepted": 5, "crash": 1, "hang": 1, "foreign": 1}
    assert "| toy | 8 | 0 (0) | 1 | 5 | 0 | 0 | 1 | 1 | 4 |" in done.stdout
