"""ruff and mypy on one file, with the settings of the project that it stands in."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

import kintsugi

# Files that may hold settings of a tool -> the text that shows they do, "" where the name says it.
RUFF = {"ruff.toml": "", ".ruff.toml": "", "pyproject.toml": "[tool.ruff"}
MYPY = {"mypy.ini": "", ".mypy.ini": "", "pyproject.toml": "[tool.mypy", "setup.cfg": "[mypy"}


class NotInstalled(Exception):
    """A tool that is not there; says how to get it."""


def checkout() -> Path | None:
    """The folder of the source checkout that this library runs from; None where it is an installed package."""
    folder = Path(kintsugi.__file__).parents[2]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "src" / "kintsugi").is_dir() else None


def style_faults(file: Path) -> list[str]:
    """What ``ruff check`` and ``ruff format --check`` say of a file.

    The settings are those of the project around it, else this library's where its source checkout is at hand, else a line
    length of 120 and ruff's usual rules.

    Raises:
        NotInstalled: there is no ruff.
    """
    faults = _lines(_ruff("check", file, "--output-format", "concise"))
    done = _ruff("format", file, "--check")
    if done.returncode == 1:
        words = [word for word in done.args[4:] if word not in ("--no-cache", "--quiet", "--check")]
        faults.append(f"it is not formatted; run: {shlex.join(['ruff', *words])}")
    elif done.returncode:
        faults += [line for line in _lines(done) if line not in faults]
    return faults


def tidy(file: Path) -> None:
    """Order a file's imports and format it, by the settings of :func:`style_faults`; without ruff it stays as it is."""
    with contextlib.suppress(NotInstalled):
        _ruff("check", file, "--fix", "--select", "I")
        _ruff("format", file)


def _ruff(command: str, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    where, settings = _project(file, RUFF) or checkout(), []
    if where is None:
        where, settings = file.parent, ["--isolated", "--config", "line-length = 120"]
    elif not file.is_relative_to(where):
        settings = ["--config", str(where / "pyproject.toml")]
    return _run("ruff", [command, "--no-cache", "--quiet", *options, *settings, str(file)], where)


def type_faults(file: Path) -> list[str]:
    """What mypy says of a file, and of no other.

    The settings are those of the project around it, else this library's where its source checkout is at hand, else mypy's
    own.

    Raises:
        NotInstalled: there is no mypy.
    """
    where, settings = _project(file, MYPY) or checkout(), []
    if where is None:
        where, settings = file.parent, ["--config-file=", "--ignore-missing-imports"]
    done = _run("mypy", [*settings, "--no-error-summary", "--no-pretty", "--show-absolute-path", str(file)], where)
    places = [line.partition(".py:") for line in done.stdout.splitlines() if ": error: " in line]
    own = [f"{file}:{message}" for start, _, message in places if _is(Path(f"{start}.py"), file)]
    if own or done.returncode in (0, 1):  # 1 without a line of its own: another file's
        return own
    owner = owner_of_name(file.stem)
    if owner:
        return [f"mypy cannot look at {file}: it takes {file.name} for {owner}; give the file another name"]
    return _lines(done)[-5:] or [f"mypy ended with status {done.returncode} and said nothing"]


def _is(named: Path, file: Path) -> bool:
    """Is this the file? mypy's cache, which goes by module, may name another of the same name and content."""
    return named == file or (
        named.name == file.name and (not named.is_file() or named.read_bytes() == file.read_bytes())
    )


def owner_of_name(name: str) -> str:
    """Whose a module's name is already: ``the standard library's json``, ``the package torch``; "": nobody's."""
    if name in sys.stdlib_module_names:
        return f"the standard library's {name}"
    return f"the package {name}" if name == "kintsugi" or name in packages_distributions() else ""


def _run(tool: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(tool) is None:
        raise NotInstalled(f"{tool} is not installed; pip install {tool}")
    return subprocess.run(
        [sys.executable, "-P", "-m", tool, *arguments],  # -P: a module of the folder is looked at, and never run
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
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
