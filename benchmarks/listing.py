"""What it costs to list hundreds of methods: CPU seconds of ``kintsugi methods`` beside ``kintsugi --version``.

    python benchmarks/listing.py --methods 250

The library is copied to a temporary folder, where so many generated files are added to its methods. Each command runs in
fresh processes, of which the median counts; the first run after a change compiles the files, as Python does, and is shown by
itself.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import kintsugi
from kintsugi.core.card import LEAVES

FILE = '''"""A generated method: a weighted mean of what is there, number {number}."""

from __future__ import annotations

from kintsugi.core import Card, Features, Fused, Lab, Model, Schema, ablation_of, claims_of, register


@register(
    Card(
        key="generated_{number}",
        name="Generated method {number}",
        leaf="{leaf}",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "one encoder a modality, as the plain host has it, so that only the fusion differs",
            "the mean over present modalities (those that are absent do not count), times a gain",
        ),
        simplified=("there is no paper that this could be compared with: it is number {number} of a list",),
        check="with one modality present the fused vector is the gain times that modality's pooled feature",
        premise="each present modality tells something of the target by itself",
        confidence="high",
        cite="mean_fusion",
    )
)
class Generated{number}(Model):
    """The mean, with a gain.

    Args:
        gain: factor of the mean.
    """

    def __init__(self, schema: Schema, dim: int = 32, gain: float = 1.{number:03d}) -> None:
        super().__init__(schema, dim)
        self.gain = gain

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(self.gain * super().fuse(features).pooled())

{filler}

@ablation_of(Generated{number})
class Zero{number}(Generated{number}):
    """Off: nothing is joined."""

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(0 * super().fuse(features).pooled())


@claims_of(Generated{number})
def has_its_gain(lab: Lab) -> None:
    """See the card's ``check``."""
    model = lab.pipeline().model
    assert bool(model.fuse(model.encode(lab.batch())).pooled().any()), "nothing is joined"
'''
HOOK = '''
    def hook_{i}(self, features: Features) -> Features:
        """What a longer method would do at place {i}: a text with (brackets), "quotes" and a # sign."""
        values = [len(features.streams) + {i}, {i}]
        return features if values else self.complete(features)
'''
LIST = "import kintsugi as kg; kg.methods.list()"


def generate(package: Path, count: int) -> None:
    """Methods 1 to ``count``, each of about 160 lines, over all leaves."""
    filler = "".join(HOOK.format(i=i) for i in range(16))
    for number in range(1, count + 1):
        leaf = LEAVES[number % len(LEAVES)]
        text = FILE.format(number=number, leaf=leaf, filler=filler)
        (package / "methods" / leaf / f"generated_{number}.py").write_text(text)


def cpu_seconds(arguments: list[str], folder: Path) -> float:
    """User and system time of one process."""
    env = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # as a user has it: Python keeps what it compiled
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], env=env, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=int, default=250, help="generated files")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "kintsugi"
        shutil.copytree(Path(kintsugi.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        generate(package, options.methods)
        lines = sum(len(file.read_text().splitlines()) for file in package.glob("methods/**/generated_*.py"))
        print(f"{options.methods} generated files, {lines / options.methods:.0f} lines each")
        commands = {
            "kintsugi --version": ["-m", "kintsugi.cli", "--version"],
            "kintsugi methods": ["-m", "kintsugi.cli", "methods"],
            "python -c 'kg.methods.list()'": ["-c", LIST],
        }
        cpu_seconds(commands["kintsugi --version"], Path(folder))  # compiles what every command imports
        first = cpu_seconds(commands["kintsugi methods"], Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.runs):  # in turn, so that whatever else the machine does falls on all alike
            for name, command in commands.items():
                seconds[name].append(cpu_seconds(command, Path(folder)))
        base = seconds["kintsugi --version"]
        for name, runs in seconds.items():
            more = [run - version for run, version in zip(runs, base, strict=True)]
            print(
                f"{name:32} {statistics.median(runs):.3f} CPU s, {statistics.median(more):+.3f} against --version "
                f"({min(more):+.3f} to {max(more):+.3f})"
            )
        print(f"{'kintsugi methods, first time':32} {first:.3f} CPU s (compiles the files)")


if __name__ == "__main__":
    main()
