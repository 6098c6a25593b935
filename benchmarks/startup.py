"""Start-up: `import kintsugi` and `kintsugi --help`, medians over fresh processes, with an empty interpreter beside them.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from common import machine

RUNS = 11
JOBS = {
    "an empty interpreter": [sys.executable, "-c", "pass"],
    "import kintsugi": [sys.executable, "-c", "import kintsugi"],
    "kintsugi --help": [sys.executable, "-m", "kintsugi.cli", "--help"],
}


def main() -> None:
    print(machine())
    seconds: dict[str, list[float]] = {name: [] for name in JOBS}
    for _ in range(RUNS):
        for name, command in JOBS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    empty = statistics.median(seconds["an empty interpreter"])
    for name, found in seconds.items():
        middle = statistics.median(found)
        print(
            f"{name}: {middle:.3f} s ({min(found):.3f} – {max(found):.3f}), {middle - empty:.3f} s above the interpreter"
        )


if __name__ == "__main__":
    main()
