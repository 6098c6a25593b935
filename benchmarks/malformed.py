"""At least 20,000 harmed inputs in twenty places: does each end in the library's own error, or is it read?

OMP_NUM_THREADS=1 python benchmarks/malformed.py --json malformed.json
python benchmarks/malformed.py --target npy --count 200 --jobs 1

Each child process reads a run of cases under limits on memory and time; where one dies or hangs, the case is counted and
the next child goes on after it. Status 1: a crash, a hang, a foreign exception, a number that is not finite, or something
altered that was accepted where a digest stands.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CHUNK = 500  # cases of a child
SECONDS = 30  # of a case, after which it hangs; a child that says nothing for twice as long is ended
MEMORY = 6 << 30  # bytes that a child may ask for
WRONG = ("foreign", "altered", "not finite", "crash", "hang")


def child(name: str, first: int, last: int) -> None:
    """In a process of its own: a line for each case."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.setrecursionlimit(1000)
    from malformed_targets import TooLong, cases, outcome_of

    def late(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, late)
    folder = Path(tempfile.mkdtemp(prefix=f"kintsugi-{name}-"))
    try:
        print("ready", flush=True)
        for number, case in cases(name, folder, range(first, last)):
            began = time.monotonic()
            signal.alarm(SECONDS)
            try:
                outcome = outcome_of(case)
                kind, said = outcome.kind, outcome.said
            except TooLong:
                kind, said = "hang", f"over {SECONDS} s"
            finally:
                signal.alarm(0)
            print(json.dumps([number, kind, said, round(time.monotonic() - began, 3)]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lines_of(name: str, first: int, last: int) -> list[list[Any]]:
    """Outcomes of these cases, whatever becomes of the processes."""
    found: list[list[Any]] = []
    while first < last:
        command = [sys.executable, __file__, "--child", name, str(first), str(last)]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
            hung, began = _listen(process, found)
            code = process.wait()
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        first = max([number + 1 for number, *_ in found if number >= first], default=first)
        if first < last:
            if not began or (code == 1 and not hung):  # Python ended it, and not the input
                raise SystemExit(f"{name}: the harness failed at case {first}:\n{said}")
            found.append([first, "hang" if hung else "crash", f"status {code}", 0.0])
            first += 1
    return found


def _listen(process: subprocess.Popen[bytes], found: list[list[Any]]) -> tuple[bool, bool]:
    """Lines of a child as they come; was it ended because it said nothing, and had it begun?"""
    assert process.stdout is not None
    began = False
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        rest = b""
        while selector.select(2 * SECONDS if began else 120):
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                return False, began
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                if line == b"ready":
                    began = True
                elif line.startswith(b"["):
                    found.append(json.loads(line))
    os.killpg(process.pid, signal.SIGKILL)
    return True, began


def table(counts: dict[str, Counter[str]], kinds: dict[str, Counter[str]]) -> str:
    """As Markdown; in brackets how many clear errors name neither file nor column."""
    head = [
        "target",
        "cases",
        "clear",
        "other exception",
        "accepted",
        "altered",
        "not finite",
        "crash",
        "hang",
        "outcomes",
    ]
    rows = [head, ["---"] * len(head)]
    for name, count in [*counts.items(), ("**all**", sum(counts.values(), Counter()))]:
        distinct = len(kinds[name]) if name in kinds else sum(map(len, kinds.values()))
        rows.append([
            name, str(count.total()), f"{count['clear'] + count['unnamed']} ({count['unnamed']})",
            *(str(count[kind]) for kind in ("foreign", "accepted", "altered", "not finite", "crash", "hang")), str(distinct),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3, metavar=("TARGET", "FIRST", "LAST"), help=argparse.SUPPRESS)
    parser.add_argument("--target", action="append", help="one of the places; default: all")
    parser.add_argument("--count", type=int, help="cases of each place; default: its share of 21,304")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the figures and every distinct outcome to this file")
    parser.add_argument("--show", type=int, default=40, help="so many of what is wrong, most frequent first")
    args = parser.parse_args()
    if args.child:
        child(args.child[0], int(args.child[1]), int(args.child[2]))
        return
    from malformed_targets import TARGETS

    os.environ["OMP_NUM_THREADS"] = "1"
    names = args.target or sorted(TARGETS)
    wanted = {name: args.count or TARGETS[name][0] for name in names}
    chunks = [(n, at, min(at + CHUNK, wanted[n])) for n in names for at in range(0, wanted[n], CHUNK)]
    began = time.monotonic()
    with ThreadPoolExecutor(args.jobs) as pool:
        parts = list(pool.map(lambda chunk: (chunk[0], lines_of(*chunk)), chunks))
    lines = {name: sorted(line for n, found in parts if n == name for line in found) for name in names}
    counts = {name: Counter(line[1] for line in lines[name]) for name in names}
    kinds = {name: Counter(f"{line[1]}: {line[2]}" for line in lines[name]) for name in names}
    print(table(counts, kinds))
    slow = max((line[3], name, line[0]) for name in names for line in lines[name])
    print(f"\n{time.monotonic() - began:.0f} s; the slowest case took {slow[0]:.1f} s ({slow[1]}:{slow[2]})")
    wrong = Counter({
        (name, line[1], line[2]): 0 for name in names for line in lines[name] if line[1] in WRONG
    })  # fmt: skip
    first: dict[tuple[str, str, str], int] = {}
    for name in names:
        for number, kind, said, _ in lines[name]:
            if kind in WRONG:
                wrong[name, kind, said] += 1
                first.setdefault((name, kind, said), number)
    for key, count in wrong.most_common(args.show):
        print(f"  {count:4d} x {key[0]}: {key[1]}: {key[2]} (first: {key[0]}:{first[key]})")
    if args.json:
        figures = {name: {"counts": counts[name], "outcomes": kinds[name].most_common()} for name in names}
        args.json.write_text(json.dumps(figures, indent=1))
    sys.exit(int(bool(wrong)))


if __name__ == "__main__":
    main()
