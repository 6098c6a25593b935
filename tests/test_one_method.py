"""One command makes a method that works; one command checks a method, and says of each step how it went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from typer.testing import CliRunner

import kintsugi.testing
from kintsugi.commands.check import check
from kintsugi.commands.new_method import new_method
from kintsugi.core.card import LEAVES
from kintsugi.core.citations import read_bibliography
from kintsugi.core.component import Component
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.methods import METHODS
from kintsugi.testing import golden, round_trip, style_tools
from kintsugi.testing import new_method as templates
from kintsugi.testing.new_method import KINDS, next_steps, placeholders, write_method
from kintsugi.testing.one_method import PROMISES, STEPS, Result, check_one
from kintsugi.testing.style_tools import checkout, style_faults, type_faults

app = typer.Typer()
app.command("new-method")(new_method)
app.command("check")(check)

WRITTEN = {
    '"""say: in one sentence, what this method does."""': '"""The strongest present modality decides."""',
    "say: the name as published": "Strongest",
    "say: what of the paper's essence is here, one text each": "the element-wise maximum",
    "say: what is not, and why; leave the field out if there is nothing": "the paper has two heads",
    "say: what the data must be like for the method to help": "each modality shows some sign strongly",
    "say: what the class does. As it stands, the": "The",
}


@pytest.fixture(autouse=True)
def _no_plugin_stays() -> Iterator[None]:
    before = set(METHODS.plugins)
    yield
    for file in set(METHODS.plugins) - before:
        METHODS.forget_plugin(file)


def plugin(folder: Path, key: str = "strongest", **changes: str) -> Path:
    """A finished method outside of the library, loaded; ``changes`` by their old and new text."""
    file = write_method(key, "general", "model", folder / f"{key}.py")
    text = file.read_text(encoding="utf-8")
    for old, new in WRITTEN.items():
        assert old in text
        text = text.replace(old, new)
    if changes:
        assert changes["old"] in text
        text = text.replace(changes["old"], changes["new"])
    file.write_text(text, encoding="utf-8")
    METHODS.load_plugin(file)
    return file


def states(results: list[Result]) -> dict[str, str]:
    return {result.step: result.state for result in results}


def message(results: list[Result], step: str) -> str:
    return next(result.message for result in results if result.step == step)


# a new method ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_method_keeps_every_promise(kind: str, tmp_path: Path) -> None:
    METHODS.load_plugin(write_method(f"new_{kind}", "corrupted/denoising", kind, tmp_path / f"new_{kind}.py"))
    results = check_one(f"new_{kind}", ["ruff", "architecture", "contract"])
    assert [(result.step, result.message) for result in results if result.state != "ok"] == []
    assert len(results) == 2 + len(PROMISES)
    assert METHODS.card(f"new_{kind}").imperfection == ("corrupted at test",)


def test_the_types_of_new_methods_are_right(tmp_path: Path) -> None:
    files = [write_method(f"new_{kind}", "general", kind, tmp_path / f"new_{kind}.py") for kind in KINDS]
    folder = checkout()
    assert folder is not None
    command = [sys.executable, "-m", "mypy", *map(str, files)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if str(tmp_path) in line] == []
    assert "error" not in done.stderr


@pytest.mark.parametrize("key", ["ab", "a_key_of_forty_letters_and_underscores_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_template_has_the_style_of_the_library_without_help(
    kind: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "tidy", lambda file: None)
    file = write_method(key, "missing/selective_fusion", kind, tmp_path / f"{key}.py")
    assert style_faults(file) == []


def test_a_new_method_has_the_style_of_the_project_that_it_goes_to(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ruff]\nline-length = 60\nlint.select = ["E", "I"]\n')
    file = write_method("narrow", "general", "monitor", tmp_path / "src" / "narrow.py")
    faults = [fault for fault in style_faults(file) if "E501" not in fault]  # texts are not broken
    assert faults == []
    assert "from kintsugi.core import (\n    Answer,\n" in file.read_text(encoding="utf-8")


def test_a_new_method_of_the_library_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "checkout", lambda: tmp_path)
    file = write_method("abcd", "missing/co_learning")
    assert file == tmp_path / "src" / "kintsugi" / "methods" / "missing" / "co_learning" / "abcd.py"
    assert 'leaf="missing/co_learning"' in file.read_text(encoding="utf-8")


def test_where_there_is_no_checkout_the_file_has_to_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "checkout", lambda: None)
    with pytest.raises(ConfigError, match=r"by --out FILE\.py"):
        write_method("abcd", "general")


@pytest.mark.parametrize("key", ["Abc", "a", "1abc", "a-b", "a b", "../abcd", "a" * 41, "", "ä_b", "abcd\n"])
def test_a_key_that_is_no_slug_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no key"):
        write_method(key, "general", out=tmp_path / "new.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("import", "'import' is a keyword of Python"),
        ("json", "'json' is the name of the standard library's json, which would be imported"),
        ("torch", "'torch' is the name of the package torch"),
        ("kintsugi", "'kintsugi' is the name of the package kintsugi"),
    ],
)
def test_a_key_that_names_something_of_python_is_refused(key: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        write_method(key, "general", out=tmp_path / "new.py")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_exists_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is a method 'mmin': .*mmin\.py; choose another key"):
        write_method("mmin", "general", out=tmp_path / "new.py")
    METHODS.load_plugin(write_method("late", "general", out=tmp_path / "late.py"))
    with pytest.raises(ConfigError, match=r"there is a method 'late': .*late\.py"):
        write_method("late", "general", out=tmp_path / "new.py")


def test_a_key_that_a_method_had_before_is_refused(tmp_path: Path) -> None:
    plugin(
        tmp_path, old='    confidence="low",', new='    confidence="low",\n        formerly=("weakest",),'.lstrip(" ")
    )
    with pytest.raises(ConfigError, match="there is a method 'strongest', which was called weakest before"):
        write_method("weakest", "general", out=tmp_path / "new.py")


def test_a_leaf_and_a_kind_that_are_not_known_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'missing/alignment'"):
        write_method("abcd", "missing/alignmnt", out=tmp_path / "abcd.py")
    with pytest.raises(UnknownName, match="did you mean 'restorer'"):
        write_method("abcd", "general", "restore", tmp_path / "abcd.py")


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "abcd.py"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="exists; choose another key or another --out"):
        write_method("abcd", "general", out=file)
    assert file.read_text() == "mine"
    with pytest.raises(ConfigError, match="let its name end in"):
        write_method("abcd", "general", out=tmp_path / "abcd.txt")


def test_the_command_says_what_comes_next(tmp_path: Path) -> None:
    file = tmp_path / "abcd.py"
    done = CliRunner().invoke(app, ["new-method", "abcd", "--leaf", LEAVES[1], "--kind", "strategy", "-o", str(file)])
    assert done.exit_code == 0, done.output
    assert f"kintsugi check abcd --plugin {file}" in done.output
    assert f"kintsugi check abcd --plugin {file} --seeds 5 --record" in done.output
    assert f"kintsugi golden abcd --plugin {file} --renew" in done.output
    assert "(Strategy)" in file.read_text(encoding="utf-8")


def test_commands_to_type_quote_a_path_with_blanks(tmp_path: Path) -> None:
    file = tmp_path / "a b" / "spaced.py"
    assert f"kintsugi check spaced --plugin '{file}'" in next_steps("spaced", file)
    file.parent.mkdir()
    plugin(file.parent, "spaced")
    assert (
        message(check_one("spaced", ["golden"]), "golden")
        == f"none yet: kintsugi golden spaced --plugin '{file}' --renew"
    )


def test_the_entry_to_paste_is_one_that_can_be_read(tmp_path: Path) -> None:
    lines = next_steps("abcd", METHODS.home / "general" / "abcd.py").splitlines()
    start, end = lines.index("@inproceedings{abcd,"), lines.index("}")
    (tmp_path / "references.bib").write_text("\n".join(lines[start : end + 1]) + "\n")
    assert list(read_bibliography(tmp_path / "references.bib")) == ["abcd"]
    place = f"into {METHODS.home / 'references.bib'}, where its key stands in order:"
    assert any(line.endswith(place) for line in lines)
    assert any(line.endswith("  kintsugi check abcd") for line in lines)


# checking one ---------------------------------------------------------------------------------------------------------
def test_a_method_of_the_library_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    seen: list[tuple[str, str]] = []

    def watch(step: str, result: Result | None) -> None:
        seen.append((step, "begins" if result is None else result.state))

    wanted = ["no_leak", "card", "architecture"]
    results = check_one("mmin", wanted, watch)
    assert [(result.step, result.state, result.message) for result in results] == [
        (step, "ok", "") for step in ("card", "architecture", "no_leak")
    ]
    assert [step for step, _ in seen] == ["card", "card", "architecture", "architecture", "no_leak", "no_leak"]
    assert [state for _, state in seen] == ["begins", "ok"] * 3
    assert all(result.seconds >= 0 for result in results)
    assert torch.get_num_threads() == threads


def test_the_steps_stand_in_order_and_hold_every_promise() -> None:
    names = list(STEPS)
    assert names[:4] == ["card", "ruff", "mypy", "architecture"]
    assert names[-2:] == ["fresh_process", "golden"]
    assert {"no_leak", "learns", "claims_hold", "cached_is_naive"} <= set(names[4:-2])


def test_the_command_shows_each_step_and_ends_with_0() -> None:
    done = CliRunner().invoke(app, ["check", "mmin", "--only", "card", "--only", "ruff"])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert [(line[0], line[3]) for line in lines[:2]] == [("card", "ok"), ("ruff", "ok")]
    assert done.output.splitlines()[-1].endswith("nothing failed")


def test_a_broken_promise_is_shown_and_the_next_steps_still_run(tmp_path: Path) -> None:
    file = plugin(tmp_path, old="return pooled.masked_fill(~present[..., None], -torch.inf)", new="return pooled")
    options = ["--plugin", str(file), "--only", "claims_hold", "--only", "no_argument_ignored"]
    done = CliRunner().invoke(app, ["check", "strongest", *options])
    assert done.exit_code == 1, done.output
    first, second, last = done.output.splitlines()
    assert first.startswith("claims_hold")
    assert "failed   claim fails: share of numbers of the joint feature that absent modalities decide: 0." in first
    assert second.endswith("ok")
    assert last.endswith("failed: claims_hold")


def test_an_error_in_a_method_is_named_with_its_place_in_the_file(tmp_path: Path) -> None:
    file = plugin(tmp_path, old="return pooled.masked_fill(", new="pooled = pooled.masket()\n        return pooled(")
    line = 1 + file.read_text(encoding="utf-8").splitlines().index("        pooled = pooled.masket()")
    results = check_one("strongest", ["every_subset", "architecture"])
    assert states(results) == {"architecture": "ok", "every_subset": "failed"}
    words = message(results, "every_subset")
    assert words.startswith(f"AttributeError in line {line} of strongest.py: pooled = pooled.masket(): ")


def test_a_card_with_what_the_template_says_is_not_finished(tmp_path: Path) -> None:
    METHODS.load_plugin(write_method("abcd", "general", out=tmp_path / "abcd.py"))
    results = check_one("abcd", ["card"])
    fields = "name, faithful, premise, simplified, docstring"
    assert message(results, "card") == f"still to be written, since it begins with 'say: ': {fields}"


def test_a_finished_card_of_a_plugin_passes_without_a_reference(tmp_path: Path) -> None:
    plugin(tmp_path)
    assert states(check_one("strongest", ["card", "ruff", "architecture"])) == dict.fromkeys(
        ("card", "ruff", "architecture"), "ok"
    )
    assert placeholders(METHODS.card("strongest"), "Says: something.", None) == []
    place = tmp_path / "references.bib"
    assert (
        message(check_one("strongest", ["card"]), "card") == f"no reference is given: {place} has no entry 'strongest'"
    )
    place.write_text(templates.BIBTEX % "strongest" + "\n")
    assert message(check_one("strongest", ["card"]), "card") == ""


def test_entries_of_the_library_stand_in_the_order_of_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.testing import one_method

    entries = read_bibliography(METHODS.home / "references.bib")
    assert list(entries) == sorted(entries)
    turned = dict(reversed(entries.items()))
    monkeypatch.setattr(one_method, "read_bibliography", lambda file: turned)
    before = max(key for key in entries if key < "mmin")
    assert message(check_one("mmin", ["card"]), "card").endswith(
        f"in the order of their keys; put 'mmin' after {before!r}"
    )


def test_a_method_of_the_library_needs_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.core import citations

    monkeypatch.setattr(citations, "read_bibliography", lambda file: {"mmim": None})
    words = message(check_one("mmin", ["card"]), "card")
    assert "did you mean 'mmim'" in words
    assert "@inproceedings{mmin," in words


def test_style_types_and_shape_of_a_plugin_are_looked_at(tmp_path: Path) -> None:
    wrong = "import pickle\nX: int  =  'a'\n\n\n@ablation_of(Strongest)"
    file = plugin(tmp_path, old="@ablation_of(Strongest)", new=wrong)
    results = check_one("strongest", ["ruff", "architecture", "mypy"])
    assert states(results) == dict.fromkeys(("ruff", "mypy", "architecture"), "failed")
    assert "F401" in message(results, "ruff")
    assert "it is not formatted; run: ruff format --config" in message(results, "ruff")
    assert message(results, "architecture") == "imports pickle"
    line = 1 + file.read_text(encoding="utf-8").splitlines().index("X: int  =  'a'")
    assert message(results, "mypy").startswith(
        f"{file}:{line}: error: Incompatible types in assignment (expression has"
    )


@pytest.mark.parametrize(("step", "tool"), [("ruff", "ruff"), ("mypy", "mypy")])
def test_a_tool_that_is_not_installed_is_skipped_with_the_reason(
    step: str, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style_tools.importlib.util, "find_spec", lambda name: None)
    (result,) = check_one("mmin", [step])
    assert (result.state, result.message) == ("skipped", f"{tool} is not installed; pip install {tool}")


def test_no_tool_and_no_other_process_runs_a_file_of_the_folder_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 120\n[tool.mypy]\n")  # the folder tools run in
    file = plugin(tmp_path)
    for name in ("ruff", "mypy", "json", "mypy_extensions", "safetensors"):
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\nraise SystemExit(3)\n"
        )
    monkeypatch.chdir(tmp_path)
    steps = check_one("strongest", ["ruff", "fresh_process"])
    assert states(steps) == {"ruff": "ok", "fresh_process": "ok"}
    style_tools.type_faults(file)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_mypy_takes_for_a_package_is_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "torch.py"
    internal = "torch/registry.py:85: error: INTERNAL ERROR -- Please try using mypy master on GitHub:"
    broken = subprocess.CompletedProcess(["mypy"], 2, "", internal)
    monkeypatch.setattr(style_tools, "_run", lambda *_: broken)
    assert type_faults(file) == [
        f"mypy cannot look at {file}: it takes torch.py for the package torch; give the file another name"
    ]
    assert type_faults(tmp_path / "mine.py") == [internal]


def test_errors_of_other_files_are_not_those_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "other.py").write_text("x: int = 'a'\n")
    (tmp_path / "other.py").write_text("x: int = 'a'\n")
    (tmp_path / "this.py").write_text("import other\n\ny: int = other.x\n")
    assert type_faults(tmp_path / "this.py") == []
    for file in (tmp_path / "other.py", tmp_path / "copy" / "other.py"):
        assert [fault.partition(" error: ")[0] for fault in type_faults(file)] == [f"{file}:1:"]


def test_a_saved_plugin_answers_the_same_in_another_process(tmp_path: Path) -> None:
    plugin(tmp_path)
    assert [result.message for result in check_one("strongest", ["fresh_process"])] == [""]


def test_a_saved_model_that_answers_otherwise_is_seen(tmp_path: Path) -> None:
    forgets = "self.gain = gain if __import__('sys').argv[0].count('fresh_process') == 0 else 2.0"
    plugin(tmp_path, old="self.gain = gain", new=forgets)
    words = message(check_one("strongest", ["fresh_process"]), "fresh_process")
    assert words.startswith("the loaded model answers otherwise, by up to ")


def test_a_model_that_cannot_be_loaded_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(cls: type[Component], folder: Path) -> torch.Tensor:
        answers = round_trip(cls, folder)
        for file in folder.glob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:100])
        return answers

    monkeypatch.setattr(kintsugi.testing, "round_trip", cut_off)
    words = message(check_one("mean_fusion", ["fresh_process"]), "fresh_process")
    assert words.startswith("the saved model cannot be used: ")


def test_a_method_that_imports_what_is_heavy_is_seen(tmp_path: Path) -> None:
    plugin(tmp_path, old="import torch\n", new="import torch\nimport torchmetrics\n")
    words = message(check_one("strongest", ["fresh_process"]), "fresh_process")
    assert words == "predicting imports torchmetrics; import it in the function that needs it"


def test_a_method_of_an_installed_package_is_checked(tmp_path: Path) -> None:
    METHODS.forget_plugin(plugin(tmp_path, "theirs"))
    (tmp_path / "theirs-1.0.dist-info").mkdir()
    (tmp_path / "theirs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    entry = "[kintsugi.methods]\ntheirs = theirs:Theirs\n"
    (tmp_path / "theirs-1.0.dist-info" / "entry_points.txt").write_text(entry)
    source = (
        "from kintsugi.testing.one_method import check_one\n"
        "for result in check_one('theirs', ['card', 'architecture', 'every_subset', 'fresh_process', 'golden']):\n"
        "    print(result.step, result.state, result.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    nothing = f"no reference is given: {tmp_path / 'references.bib'} has no entry 'theirs'"
    assert [line.strip() for line in done.stdout.splitlines()] == [
        f"card ok {nothing}", "architecture ok", "every_subset ok", "fresh_process ok",
        "golden skipped none yet: kintsugi golden theirs --renew",
    ]  # fmt: skip


def test_a_method_without_a_file_is_checked_as_far_as_that_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = write_method("cell", "general", out=tmp_path / "cell.py").read_text(encoding="utf-8")
    module = ModuleType("notebook_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    classes = dict(METHODS._classes)
    try:
        exec(compile(text, "<cell>", "exec", dont_inherit=True), vars(module))
        results = check_one("cell", ["ruff", "architecture", "fresh_process", "golden", "every_subset"])
    finally:
        METHODS._classes.clear()
        METHODS._classes.update(classes)
    skipped = [result.step for result in results if result.state == "skipped"]
    assert skipped == ["ruff", "architecture", "fresh_process", "golden"]
    assert {message(results, step) for step in skipped} == {"it stands in no file that could be looked at"}
    assert states(results)["every_subset"] == "ok"


def test_golden_numbers_of_a_plugin_are_beside_its_file(tmp_path: Path) -> None:
    file = plugin(tmp_path)
    (result,) = check_one("strongest", ["golden"])
    assert (result.state, result.message) == (
        "skipped", f"none yet: kintsugi golden strongest --plugin {file} --renew",
    )  # fmt: skip
    golden.renew([golden.method_subject("strongest")])
    numbers = tmp_path / "strongest.golden.json"
    assert states(check_one("strongest", ["golden"])) == {"golden": "ok"}
    text = json.loads(numbers.read_text())
    first = text["method strongest"]["numbers"]["classification on vectors"]["stage train"]
    first["loss task"] *= 1.001
    numbers.write_text(json.dumps(text))
    words = message(check_one("strongest", ["golden"]), "golden")
    assert words.startswith("classification on vectors, stage train, loss task: ")


def test_a_method_or_a_step_that_is_not_known_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mmin'"):
        check_one("mmim")
    with pytest.raises(UnknownName, match="did you mean 'no_leak'"):
        check_one("mmin", ["no_leek"])
