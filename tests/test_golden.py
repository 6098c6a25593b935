"""Golden numbers: nothing registered gives other numbers than when its version was last raised."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.methods import METHODS
from kintsugi.testing import golden
from kintsugi.testing.golden import Subject, chosen, compare, own, renew, stale
from kintsugi.testing.golden_files import read_entries
from kintsugi.testing.golden_methods import toys
from kintsugi.testing.golden_numbers import ANSWERS, Numbers, alone, differences

FOLDER = Path(__file__).parent / "golden"
SUBJECTS = own()
MMIN = SUBJECTS["method mmin"]


@pytest.mark.parametrize("name", SUBJECTS)
def test_numbers_have_not_moved(name: str) -> None:
    moved = golden.check(SUBJECTS[name], FOLDER)
    assert not moved, f"{name} gives other numbers than its golden ones:\n" + "\n".join(moved[:20])


def test_everything_registered_has_numbers_and_no_entry_is_stale() -> None:
    entries = [name for path in sorted(FOLDER.rglob("*.json")) for name in read_entries(path)]
    assert len(entries) == len(set(entries))
    assert sorted(entries) == sorted(SUBJECTS)
    assert stale(FOLDER) == []


def test_every_task_and_toy_of_a_card_has_stages_and_twenty_answers() -> None:
    numbers = read_entries(FOLDER / "methods/missing/distillation.json")["method kd_mm"].numbers
    assert isinstance(numbers, dict)
    assert len(numbers) == 2 * len(METHODS["kd_mm"].card.tasks)
    for name, toy in numbers.items():
        first = "m0" if name.endswith("vectors") else "image"
        assert {f"stage teacher of {first}", "stage train", "answers"} <= toy.keys()
        assert "loss kd" in toy["stage train"]
        assert len(toy["answers"]) == 20


def test_answers_of_every_method_depend_on_the_row() -> None:
    for path in FOLDER.glob("methods/**/*.json"):
        for name, entry in read_entries(path).items():
            for toy, numbers in dict(entry.numbers).items():  # type: ignore[call-overload]
                first = torch.tensor([row[0] for row in numbers["answers"]])
                assert float(first.std()) > 2.5 * ANSWERS[1], f"{name}, {toy}: its answers would hide most mistakes"


# what moves them ----------------------------------------------------------------------------------------------------
def test_a_weight_of_mmin_raised_by_a_thousandth_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = METHODS["mmin"]
    build = cls.__init__
    at = [name for name, p in inspect.signature(build).parameters.items() if p.default is not p.empty]
    defaults = list(build.__defaults__)
    defaults[at.index("w_forward") - len(at)] = 4.001
    monkeypatch.setattr(build, "__defaults__", tuple(defaults))
    moved = golden.check(MMIN, FOLDER)
    assert moved
    assert all("stage imagine, loss forward" in sentence for sentence in moved), moved
    assert moved[0].startswith("classification on image, text and table, stage imagine, loss forward: ")
    assert moved[0].endswith(" (0.00025 of it; at most 0.0001)")


def test_a_teacher_of_mmin_that_learns_along_shows_in_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(self: object, data: object, stage: object) -> None:
        if stage.name == "imagine":  # type: ignore[attr-defined]
            self.__dict__["get_submodule"] = lambda name: self.encoders  # type: ignore[attr-defined]

    monkeypatch.setattr(METHODS["mmin"], "prepare", prepare)
    moved = golden.check(MMIN, FOLDER)
    assert moved
    assert all(", answers, " in sentence for sentence in moved), moved


def test_teachers_answers_of_other_rows_show(monkeypatch: pytest.MonkeyPatch) -> None:
    module = inspect.getmodule(METHODS["kd_mm"])
    true = module.soft_targets  # type: ignore[union-attr]
    monkeypatch.setattr(module, "soft_targets", lambda output, answer, *rest: true(output, answer.roll(1, 0), *rest))
    assert any("loss kd" in sentence for sentence in golden.check(SUBJECTS["method kd_mm"], FOLDER))


def test_numbers_do_not_depend_on_what_ran_before() -> None:
    torch.manual_seed(123)
    torch.randn(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    subject = SUBJECTS["method late_fusion"]
    once = subject.measure()
    with alone():
        torch.randn(3)
    torch.manual_seed(5)
    assert subject.measure() == once
    assert torch.get_num_threads() == threads
    torch.manual_seed(123)
    torch.randn(7)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        ({"loss a": 1.0}, {"loss a": 1.00009}, None),
        ({"loss a": 1.0}, {"loss a": 1.0002}, "loss a: 1 in the file, 1.0002 now (0.0002 of it; at most 0.0001)"),
        ({"answers": [[0.5]]}, {"answers": [[0.5019]]}, None),
        (
            {"answers": [[0.5]]},
            {"answers": [[0.51]]},
            "answers, 1, 1: 0.5 in the file, 0.51 now (0.01; at most 0.002)",
        ),
        ({"count": 3}, {"count": 4}, "count: 3 in the file, 4 now"),
        ({"text": "on"}, {"text": "no"}, "text: 'on' in the file, 'no' now"),
        ({"a": 1.0}, {}, "a: in the file, and no more measured"),
        ({}, {"a": 1.0}, "a: measured, and not in the file"),
        ({"a": [1.0, 2.0]}, {"a": [1.0]}, "a: 2 numbers in the file, 1 now"),
        ({"a": 1.0}, {"a": float("nan")}, "a: 1 in the file, nan now"),
        ({"a": float("nan")}, {"a": float("nan")}, None),
        ({"a": 1.0}, {"a": {"b": 1.0}}, "a: 1 in the file, {'b': 1.0} now"),
    ],
)
def test_what_moved_is_said(before: Numbers, now: Numbers, sentence: str | None) -> None:
    assert differences(before, now) == ([] if sentence is None else [sentence])


# renewing -----------------------------------------------------------------------------------------------------------
def subject(value: float, version: int = 1, encoder: int = 1, name: str = "method toy") -> Subject:
    return Subject(
        name, "methods/general.json", "the version of its card in toy", "toy",
        lambda: {"stage train": {"loss task": value}, "answers": [[0.1, 0.9]]},
        lambda: {name: version, "encoder image": encoder},
    )  # fmt: skip


def test_what_is_new_is_added_and_what_did_not_move_stays_byte_for_byte(tmp_path: Path) -> None:
    assert renew([subject(1.0)], tmp_path).done == ["method toy: new"]
    path = tmp_path / "methods/general.json"
    content = path.read_bytes()
    report = renew([subject(1.0 + 1e-6)], tmp_path)  # within the tolerance
    assert (report.unmoved, report.done, report.moved, report.refused) == (["method toy"], [], {}, {})
    assert path.read_bytes() == content
    renew([subject(2.0, name="method other")], tmp_path)
    assert read_entries(path)["method toy"].numbers["stage train"] == {"loss task": 1.0}  # type: ignore[index,call-overload]
    assert list(read_entries(path)) == ["method other", "method toy"]


def test_what_moved_under_the_same_version_is_refused(tmp_path: Path) -> None:
    renew([subject(1.0)], tmp_path)
    content = (tmp_path / "methods/general.json").read_bytes()
    report = renew([subject(1.5)], tmp_path)
    assert list(report.refused) == ["method toy"]
    said = report.text()
    assert "method toy, stage train, loss task: 1 in the file, 1.5 now (0.5 of it; at most 0.0001)" in said
    assert "first raise the version of its card in toy to 2" in said
    assert (tmp_path / "methods/general.json").read_bytes() == content


@pytest.mark.parametrize(("version", "encoder", "why"), [(2, 1, "method toy"), (1, 2, "encoder image")])
def test_what_moved_is_written_where_a_version_was_raised(version: int, encoder: int, why: str, tmp_path: Path) -> None:
    renew([subject(1.0)], tmp_path)
    report = renew([subject(1.5, version, encoder)], tmp_path)
    assert report.done == [f"method toy: written anew, since {why} was raised"]
    assert list(report.moved) == ["method toy"]
    assert not report.refused
    assert not compare([subject(1.5, version, encoder)], tmp_path).moved


def test_a_raised_version_has_to_be_noted_even_where_nothing_moved(tmp_path: Path) -> None:
    renew([subject(1.0)], tmp_path)
    assert compare([subject(1.0, 2)], tmp_path).moved["method toy"] == [
        "version of method toy: 1 in the file, 2 now; kintsugi golden --renew notes it"
    ]
    report = renew([subject(1.0 + 1e-6, 2)], tmp_path)
    assert report.done == ["method toy: as before; the file has the versions of today"]
    entry = read_entries(tmp_path / "methods/general.json")["method toy"]
    assert entry.versions["method toy"] == 2
    assert entry.numbers["stage train"]["loss task"] == 1.0  # type: ignore[index,call-overload]


def test_numbers_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    renew([subject(1.0, 3)], tmp_path)
    report = renew([subject(1.5, 2)], tmp_path)
    assert "newer version of method toy" in report.refused["method toy"]
    assert read_entries(tmp_path / "methods/general.json")["method toy"].versions["method toy"] == 3


def test_an_entry_of_what_is_no_more_there_is_stale_and_taken_out(tmp_path: Path) -> None:
    renew([subject(1.0), subject(2.0, name="method other")], tmp_path)
    assert stale(tmp_path) == ["method other", "method toy"]
    renew([], tmp_path, gone=["method toy"])
    assert list(read_entries(tmp_path / "methods/general.json")) == ["method other"]


# files --------------------------------------------------------------------------------------------------------------
GOOD = {"method toy": {"versions": {"method toy": 1}, "numbers": {"a": 1.0}}}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (json.dumps(GOOD)[:-9].encode(), "it is no JSON"),
        (b"", "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"[1, 2]", "does not hold names and entries"),
        (json.dumps({"method toy": {"numbers": {}}}).encode(), "not made of versions and numbers"),
        (json.dumps({"method toy": {"versions": {"method toy": "1"}, "numbers": {}}}).encode(), "whole numbers"),
        (json.dumps({"method toy": {"versions": {"x": 1}, "numbers": {}}}).encode(), "does not say its own version"),
        (json.dumps({"method toy": {"versions": {"method toy": 1}, "numbers": {"a": None}}}).encode(), "other than"),
        (b" " * (9 << 20), "8,388,608"),
    ],
)
def test_a_file_that_holds_no_golden_numbers_says_so(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "methods/general.json"
    path.parent.mkdir()
    path.write_bytes(content)
    for use in (compare, renew):
        with pytest.raises(ConfigError, match="git checkout") as error:
            use([subject(1.0)], tmp_path)
        assert str(path) in str(error.value)
        assert why in str(error.value)
    assert path.read_bytes() == content


def test_without_a_file_the_remedy_is_named(tmp_path: Path) -> None:
    (sentence,) = golden.check(subject(1.0), tmp_path)
    assert "kintsugi golden --renew" in sentence


# the command --------------------------------------------------------------------------------------------------------
def test_the_command_compares_refuses_and_renews(tmp_path: Path) -> None:
    import typer

    from kintsugi.commands.golden import golden as command

    app = typer.Typer()
    app.command()(command)
    shutil.copytree(FOLDER, tmp_path / "golden")
    ask = ["operator fog", "--folder", str(tmp_path / "golden")]
    result = CliRunner().invoke(app, ask)
    assert (result.exit_code, result.output) == (0, "1 with the numbers of their files\n")
    path = tmp_path / "golden/operators/image.json"
    entries = json.loads(path.read_text())
    entries["operator fog"]["numbers"]["usual preset, severity 1"]["photo"]["size"] = 0.5
    path.write_text(json.dumps(entries))
    result = CliRunner().invoke(app, ask)
    assert result.exit_code == 1
    assert "operator fog, usual preset, severity 1, photo, size: 0.5 in the file" in result.output
    result = CliRunner().invoke(app, [*ask, "--renew"])
    assert result.exit_code == 1
    assert "REFUSED" in result.output
    assert "OPERATORS.register('fog', version=" in result.output


def test_the_command_writes_nothing_where_no_folder_is(tmp_path: Path) -> None:
    from kintsugi.commands.golden import golden as command

    with pytest.raises(ConfigError, match="source checkout"):
        command(None, True, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_method_that_cannot_be_imported_keeps_no_other_from_being_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    take = type(METHODS).__getitem__

    def broken(self: object, key: str) -> object:
        if key == "smil":
            raise ConfigError("method 'smil' cannot be used")
        return take(METHODS, key)

    monkeypatch.setattr(type(METHODS), "__getitem__", broken)
    assert golden.check(own()["method early_fusion"], FOLDER) == []
    with pytest.raises(ConfigError, match="smil"):
        golden.check(own()["method smil"], FOLDER)


def test_a_method_of_a_task_without_toys_says_so() -> None:
    card = replace(METHODS["mmin"].card, key="mine", tasks=("segmentation",))
    with pytest.raises(ConfigError, match="there is no toy for mine, which solves segmentation"):
        toys(card)


def test_a_raised_version_of_an_encoder_shows_in_every_method_that_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS._versions, "image", 2)
    assert golden.check(SUBJECTS["encoder image"], FOLDER)[0].startswith(
        "version of encoder image: 1 in the file, 2 now"
    )
    assert golden.check(SUBJECTS["method late_fusion"], FOLDER)[0].startswith("version of encoder image: 1 in the file")
    assert golden.check(SUBJECTS["encoder text"], FOLDER) == []


def test_subjects_are_chosen_by_name_last_words_or_glob() -> None:
    assert list(chosen(["mmin"])) == ["method mmin"]
    assert list(chosen(["metric * of regression"])) == [f"metric {n} of regression" for n in ("mae", "rmse", "r2")]
    assert chosen([]).keys() == SUBJECTS.keys()
    with pytest.raises(UnknownName, match="did you mean 'mmin'"):
        chosen(["mmim"])


def test_what_a_method_is_made_of_is_named_with_its_numbers() -> None:
    entry = read_entries(FOLDER / "methods/corrupted/augmentation.json")["method corruption_augmentation"]
    assert {"encoder image", "operator gaussian_noise", "method mean_fusion", "training"} <= entry.versions.keys()
