"""ruff and mypy on one file, with the settings of the project that it stands in."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kintsugi.testing.new_method import checkout

# Files that may hold settings of a tool -> the text that shows they do, "" where the name says it.
RUFF = {"ruff.toml": "", ".ruff.toml": "", "pyproject.toml": "[tool.ruff"}
MYPY = {"mypy.ini": "", ".mypy.ini": "", "pyproject.toml": "[tool.mypy", "setup.cfg": "[mypy"}


class NotInstalled(Exception):
    """A tool that is not there; says how to get it."""


def style_faults(file: Path) -> list[str]:
    """What ``ruff check`` and ``ruff format --check`` say of a file.

    The settings are those of the project around it, else this library's where its source checkout is at hand, else a line
    length of 120 and ruff's usual rules.

    Raises:
        NotInstalled: there is no ruff.
    """
    folder = _project(file, RUFF)
    library = checkout()
    if folder is not None:
        settings = []
    elif library is not None:
        settings = ["--config", str(library / "pyproject.toml")]
    else:
        settings = ["--isolated", "--config", "line-length = 120"]
    where = folder or file.parent
    done = _run("ruff", ["check", "--no-cache", "--quiet", "--output-format", "concise", *settings, str(file)], where)
    faults = _lines(done)
    done = _run("ruff", ["format", "--no-cache", "--quiet", "--check", *settings, str(file)], where)
    if done.returncode == 1:
        faults.append(f"it is not formatted; run: ruff format {' '.join([*settings, str(file)])}")
    elif done.returncode:
        faults += [line for line in _lines(done) if line not in faults]
    return faults


def type_faults(file: Path) -> list[str]:
    """What mypy says of a file, and of no other.

    The settings are those of the project around it, else this library's where its source checkout is at hand, else mypy's
    own.

    Raises:
        NotInstalled: there is no mypy.
    """
    library = checkout()
    folder = _project(file, MYPY) or library
    arguments = [] if folder else ["--config-file=", "--ignore-missing-imports"]
    where = folder or file.parent
    if folder == library and library is not None:
        arguments = ["--config-file", str(library / "pyproject.toml")]
    done = _run("mypy", [*arguments, "--no-error-summary", "--no-pretty", "--show-absolute-path", str(file)], where)
    own = [line for line in done.stdout.splitlines() if line.startswith(f"{file}:") and ": note: " not in line]
    if own or done.returncode in (0, 1):  # 1 without a line of its own: another file's
        return own
    return _lines(done)[-5:] or [f"mypy ended with status {done.returncode} and said nothing"]


def _run(tool: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(tool) is None:
        raise NotInstalled(f"{tool} is not installed; pip install {tool}")
    return subprocess.run(
        [sys.executable, "-m", tool, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def _lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] if done.returncode else []


def _project(file: Path, names: dict[str, str]) -> Path | None:
    """The nearest folder above a file with settings of a tool."""
    for folder in file.parents:
        for name, mark in names.items():
            settings = folder / name
            if settings.is_file() and mark in settings.read_text(encoding="utf-8", errors="replace"):
                return folder
    return None
