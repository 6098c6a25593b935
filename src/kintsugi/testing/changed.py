"""Which methods a change of the code concerns: those whose file, or whose parts, it touches."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kintsugi.core.methods import METHODS
from kintsugi.testing.architecture import ROOT, imports, module_of
from kintsugi.testing.style_tools import checkout

# What methods are made of, each of its own selection; a change there concerns those that import it.
SELECTED = ("methods", "components", "layers", "losses", "imperfect")
# What every method runs through, or is tried with.
COMMON = ("core", "encoders", "tasks", "data", "training", "evaluation", "testing")
BASE = "main"


def changed_methods(base: str = BASE, files: Iterable[Path] | None = None) -> list[str]:
    """Keys of the methods of this library that a change concerns, sorted.

    A method is concerned where its own file changed, or a component, layer, loss or imperfection that it imports, directly
    or by way of others. Where a change touches what every method runs through (core, tasks, training, promises …), or git
    does not tell what changed, all are.

    Args:
        base: commit or branch that is compared with.
        files: changed files; default: what git says.
    """
    own = sorted(key for key, text in METHODS.entries.items() if text.file.is_relative_to(METHODS.home))
    changed = changed_files(base) if files is None else {file.resolve() for file in files}
    if changed is None or any(_concerns_all(file) for file in changed):
        return own
    return [key for key in own if changed & parts_of(METHODS.entries[key].file)]


def changed_files(base: str = BASE, folder: Path | None = None) -> set[Path] | None:
    """Files of the checkout that differ from a commit, new ones too; None: git cannot tell."""
    folder = folder or checkout()
    if folder is None:
        return None
    commands = (["diff", "--name-only", "-z", base, "--"], ["ls-files", "--others", "--exclude-standard", "-z"])
    names: list[str] = []
    for command in commands:
        try:
            done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=False)
        except OSError:
            return None
        if done.returncode:
            return None
        names += done.stdout.split("\0")
    return {(folder / name).resolve() for name in names if name}


def _concerns_all(file: Path) -> bool:
    if not file.is_relative_to(ROOT):
        return file.name in ("pyproject.toml", "constraints.txt")
    first = file.relative_to(ROOT).parts[0]
    return first in COMMON and file.suffix in (".py", ".pyi")


def parts_of(file: Path) -> set[Path]:
    """A method's file with everything of ``SELECTED`` that it imports, directly or by way of others."""
    found: set[Path] = set()
    waiting = [file.resolve()]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported(file)
    return found


@cache
def _imported(file: Path) -> tuple[Path, ...]:
    source = file.read_text(encoding="utf-8")
    names = {name for _, name in imports(source, module_of(file), file.name == "__init__.py")}
    files = (_file_of(name) for name in sorted(names) if name.split(".")[1:2] and name.split(".")[1] in SELECTED)
    return tuple(file for file in files if file is not None)


def _file_of(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split(".")[1:])
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file.resolve()
    return None
