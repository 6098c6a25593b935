"""A change of the code concerns the methods that it touches, by their file or by what they import."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from kintsugi.core.methods import METHODS
from kintsugi.testing import changed
from kintsugi.testing.architecture import ROOT
from kintsugi.testing.changed import changed_files, changed_methods, parts_of

OWN = sorted(key for key, text in METHODS.entries.items() if text.file.is_relative_to(METHODS.home))


def file_of(key: str) -> Path:
    return METHODS.entries[key].file


def test_the_file_of_a_method_concerns_that_method() -> None:
    assert changed_methods(files=[file_of("smil")]) == ["smil"]


def test_a_shared_part_concerns_those_that_import_it_directly_or_by_way_of_others() -> None:
    imagination = ROOT / "layers" / "imagination.py"
    assert imagination in parts_of(file_of("mmin"))
    assert "mmin" in changed_methods(files=[imagination])
    assert "late_fusion" not in changed_methods(files=[imagination])
    vote = ROOT / "layers" / "vote.py"
    assert "kintsugi.layers.vote" in (ROOT / "components" / "fallbacks.py").read_text()
    assert "kintsugi.layers.vote" not in file_of("kd_mm").read_text()
    assert {"kd_mm", "late_fusion"} <= set(changed_methods(files=[vote]))


@pytest.mark.parametrize("place", ["core/model.py", "training/trainer.py", "testing/promises.py", "tasks/common.py"])
def test_what_every_method_runs_through_concerns_all(place: str) -> None:
    assert changed_methods(files=[ROOT / place]) == OWN


@pytest.mark.parametrize("place", ["bench/store.py", "report/__init__.py", "cli.py"])
def test_what_no_method_runs_through_concerns_none(place: str) -> None:
    assert changed_methods(files=[ROOT / place, ROOT.parent.parent / "README.md"]) == []


class Git:
    """Answers of git to the two questions, or a failure."""

    def __init__(self, changed: str, new: str, code: int = 0) -> None:
        self.answers, self.code = [changed, new], code
        self.asked: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        return subprocess.CompletedProcess(command, self.code, self.answers[len(self.asked) - 1], "")


def test_git_names_what_differs_and_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = Git("src/a b.py\0docs/c.rst\0", "new.py\0")
    monkeypatch.setattr(subprocess, "run", git)
    assert changed_files("main", tmp_path) == {tmp_path / name for name in ("src/a b.py", "docs/c.rst", "new.py")}
    assert git.asked[0] == ["git", "-C", str(tmp_path), "diff", "--name-only", "-z", "main", "--"]


def test_where_git_cannot_tell_every_method_is_concerned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Git("", "", code=128))
    assert changed_files("main", tmp_path) is None
    assert changed_methods() == OWN

    def absent(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert changed_files("main", tmp_path) is None
    monkeypatch.setattr(changed, "checkout", lambda: None)
    assert changed_methods() == OWN
