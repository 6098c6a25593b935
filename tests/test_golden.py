"""Golden numbers: nothing registered gives other numbers than when its version was last raised."""

from __future__ import annotations

import inspect
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from kintsugi.bench import work
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.inventory import versions_held
from kintsugi.core.methods import METHODS
from kintsugi.imperfect.operator import OPERATORS
from kintsugi.testing import build, golden, golden_methods
from kintsugi.testing.golden import Subject, chosen, compare, own, renew, stale
from kintsugi.testing.golden_files import read_entries
from kintsugi.testing.golden_methods import OTHER_ARGUMENTS, toys
from kintsugi.testing.golden_numbers import ANSWERS, Numbers, alone, differences
from kintsugi.testing.golden_operators import other_options

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
    uneven = ["uneven", "uneven, weights=(0.6, 0.3, 0.1)"]
    assert len(numbers) == 2 * len(METHODS["kd_mm"].card.tasks) + len(uneven)
    for name, toy in numbers.items():
        first = "m0" if name.endswith("vectors") or name in uneven else "image"
        assert {f"stage teacher of {first}", "stage train", "answers", "answers to damage", "untrained"} <= toy.keys()
        assert "loss kd" in toy["stage train"]
        assert len(toy["answers"]) == (8 if name in uneven else 20)


def test_every_argument_that_is_text_or_may_be_none_is_tried_with_another_value() -> None:
    for key in METHODS:
        arguments = {
            **inspect.signature(METHODS[key]).parameters,
            **(inspect.signature(METHODS[key].pipeline).parameters if hasattr(METHODS[key], "pipeline") else {}),
        }
        wanted = {
            name
            for name, parameter in arguments.items()
            if (isinstance(parameter.default, str) or parameter.default is None) and name not in ("host", "self")
        }
        tried = {name for other in OTHER_ARGUMENTS.get(key, ()) for name in other}
        assert wanted <= tried, f"{key}: numbers of other values of {wanted - tried} are lacking; see OTHER_ARGUMENTS"


def test_every_option_of_an_operator_is_tried_with_another_value() -> None:
    for key in OPERATORS:
        operator = OPERATORS[key]
        wanted = {name for name, usual in operator.options.items() if usual is not None}
        tried = {name for other in other_options(operator) for name in other}
        assert wanted <= tried, f"{key}: numbers of other values of {wanted - tried} are lacking; see OTHER_OPTIONS"


def test_answers_of_every_method_depend_on_the_row() -> None:
    for path in FOLDER.glob("methods/**/*.json"):
        for name, entry in read_entries(path).items():
            for toy, numbers in dict(entry.numbers).items():  # type: ignore[call-overload]
                if toy.startswith("uneven"):  # trained for one epoch; losses and untrained outputs tell
                    continue
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
    assert all("stage imagine, loss forward" in sentence for sentence in moved if ", loss " in sentence), moved
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


def test_a_monitor_that_never_rejects_shows_in_answers_to_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = METHODS["ccm"].pipeline(toys(METHODS["ccm"].card)["classification on vectors"].schema).monitors[0]
    monkeypatch.setattr(type(monitor), "answer", lambda self, batch, inner: inner(batch))
    moved = golden.check(SUBJECTS["method ccm"], FOLDER)
    assert any("answers to damage" in sentence for sentence in moved)
    assert any("reliability" in sentence for sentence in moved)
    assert not any(", answers, " in sentence and "uneven" in sentence for sentence in moved), "clean rows move too"


def test_a_pipeline_that_answers_nothing_untrained_has_no_such_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = METHODS["mean_fusion"]
    data = toys(cls.card)["regression on vectors"]
    assert len(golden_methods.outputs(cls, data)) == 8
    true = golden_methods.ask
    monkeypatch.setattr(golden_methods, "ask", lambda *asked: replace(true(*asked), output=torch.tensor([torch.nan])))
    assert golden_methods.outputs(cls, data) == "none: not finite"

    def unprepared(*asked: object) -> None:
        raise ConfigError("train it first")

    monkeypatch.setattr(golden_methods, "ask", unprepared)
    assert golden_methods.outputs(cls, data) == "none: ConfigError"


def test_holes_of_validation_rows_show_in_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    true = work.imperfect
    monkeypatch.setattr(work, "imperfect", lambda rows, training, seed: true(rows, training, 3))
    assert golden.check(SUBJECTS["bench"], FOLDER)


def test_numbers_do_not_depend_on_the_default_kind_of_numbers_or_on_gradients() -> None:
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            moved = golden.check(SUBJECTS["method mean_fusion"], FOLDER) + golden.check(SUBJECTS["bench"], FOLDER)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(kind)
    assert moved == []


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
        ({"a": float("inf")}, {"a": 1.0}, "a: inf in the file, 1 now"),
        ({"a": 1.0}, {"a": float("-inf")}, "a: 1 in the file, -inf now"),
        ({"a": float("inf")}, {"a": float("-inf")}, "a: inf in the file, -inf now"),
        ({"a": float("inf")}, {"a": float("inf")}, None),
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
    path = tmp_path / "methods/general.json"
    assert renew([subject(1.0)], tmp_path).done == [
        f"method toy: NEW, as version 1; {path} had no numbers of it, so nothing was compared"
    ]
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
        "version of method toy: 1 in the file, 2 now; kintsugi golden 'method toy' --renew notes it"
    ]
    report = renew([subject(1.0 + 1e-6, 2)], tmp_path)
    assert report.done == ["method toy: as before; the file has the versions of today"]
    entry = read_entries(tmp_path / "methods/general.json")["method toy"]
    assert entry.versions["method toy"] == 2
    assert entry.numbers["stage train"]["loss task"] == 1.0  # type: ignore[index,call-overload]


@pytest.mark.parametrize("value", [1.0, 1.5])
def test_numbers_of_a_newer_version_are_left_alone(value: float, tmp_path: Path) -> None:
    renew([subject(1.0, 3)], tmp_path)
    report = renew([subject(value, 2)], tmp_path)
    assert "newer version of method toy" in report.refused["method toy"]
    assert compare([subject(value, 2)], tmp_path).moved["method toy"][-1] == report.refused["method toy"]
    assert read_entries(tmp_path / "methods/general.json")["method toy"].versions["method toy"] == 3


def with_numbers(numbers: Numbers, **versions: int) -> Subject:
    held = {"method toy": 1, "encoder image": 1, "training": 1, "operator fog": 1} | {
        name.replace("_", " "): version for name, version in versions.items()
    }
    return Subject("method toy", "methods/general.json", "it", "toy", lambda: numbers, lambda: held)


def test_what_is_used_anew_does_not_count_as_raised(tmp_path: Path) -> None:
    renew([subject(1.0)], tmp_path)
    more = with_numbers({"stage train": {"loss task": 1.5}, "answers": [[0.1, 0.9]]})
    assert "its version still is 1" in renew([more], tmp_path).refused["method toy"]


def test_more_numbers_are_added_where_the_others_stay(tmp_path: Path) -> None:
    first, more = {"x": {"a": 1.0}}, {"x": {"a": 1.00001, "b": 2.0}, "y": [1.0]}
    renew([with_numbers(first)], tmp_path)
    assert compare([with_numbers(more)], tmp_path).moved
    assert renew([with_numbers(more)], tmp_path).done == ["method toy: as before; the file has more numbers of it"]
    entry = read_entries(tmp_path / "methods/general.json")["method toy"]
    assert entry.numbers == {"x": {"a": 1.0, "b": 2.0}, "y": [1.0]}
    assert renew([with_numbers({**more, "x": {"a": 1.5, "b": 2.0}, "z": 1})], tmp_path).refused
    assert renew([with_numbers({"x": {"a": 1.0}})], tmp_path).refused, "numbers that are no more measured"


def test_what_counts_as_carried_is_what_a_saved_model_carries() -> None:
    carried: set[str] = set()
    for key in ("kd_mm", "corruption_augmentation"):
        schema = toys(METHODS[key].card)["classification on image, text and table"].schema
        carried |= {name.split()[0] for name in versions_held(build(METHODS[key], schema))}
    assert carried == set(golden.CARRIED)


@pytest.mark.parametrize("raised", ["training", "operator fog"])
def test_what_saved_models_answer_moves_only_with_a_version_that_they_carry(raised: str, tmp_path: Path) -> None:
    before, now = ({"toy": {"answers": [[value]], "untrained": [[value]]}} for value in (0.1, 0.2))
    versions = {raised.replace(" ", "_"): 2}
    renew([with_numbers(before)], tmp_path)
    refused = renew([with_numbers(now, **versions)], tmp_path).refused["method toy"]
    assert f"{raised}, which was raised, is no part of a saved model" in refused
    trained = {"toy": {"answers": [[0.2]], "untrained": [[0.1]]}}
    assert not renew([with_numbers(trained, **versions)], tmp_path).refused
    assert not renew([with_numbers(now, **versions, encoder_image=2)], tmp_path).refused


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_written(value: float, tmp_path: Path) -> None:
    report = renew([subject(value)], tmp_path)
    assert "not finite (stage train, loss task)" in report.refused["method toy"]
    assert not (tmp_path / "methods/general.json").exists()
    renew([subject(1.0)], tmp_path)
    assert renew([subject(value, 2)], tmp_path).refused
    assert read_entries(tmp_path / "methods/general.json")["method toy"].versions["method toy"] == 1


def test_renewals_at_once_keep_the_entries_of_each_other(tmp_path: Path) -> None:
    measured = threading.Barrier(4)

    def numbers() -> Numbers:
        measured.wait()
        return {"a": 1.0}

    those = [Subject(f"x {i}", "x.json", "it", "x", numbers, lambda i=i: {f"x {i}": 1}) for i in range(4)]
    threads = [threading.Thread(target=renew, args=([each], tmp_path)) for each in those]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_entries(tmp_path / "x.json")) == ["x 0", "x 1", "x 2", "x 3"]


def test_comparing_writes_nothing_and_runs_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise AssertionError("a read-only checkout")

    for name in ("taking_turns", "write_entries"):
        monkeypatch.setattr(golden, name, refused)
    monkeypatch.chdir(tmp_path)
    assert golden.check(SUBJECTS["reading"], FOLDER) == []
    assert list(tmp_path.iterdir()) == []


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
        (json.dumps(GOOD)[:-1].encode() + b"," + json.dumps(GOOD)[1:].encode(), "'method toy' twice"),
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


def test_a_folder_in_place_of_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "methods/general.json").mkdir(parents=True)
    for use in (compare, renew):
        with pytest.raises(ConfigError, match=r"general.json is a folder, and golden numbers are a file"):
            use([subject(1.0)], tmp_path)


def test_without_a_file_the_remedy_is_named(tmp_path: Path) -> None:
    thing = subject(1.0)
    (sentence,) = golden.check(thing, tmp_path)
    assert sentence.endswith(f"measure them: kintsugi golden '{thing.name}' --renew")


# the command --------------------------------------------------------------------------------------------------------
def test_the_command_compares_refuses_and_renews(tmp_path: Path) -> None:
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


def test_the_command_uses_the_files_of_the_checkout_wherever_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kintsugi.commands.golden import golden as command
    from kintsugi.testing import style_tools

    (tmp_path / "tests" / "golden").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.Exit) as end:
        command(["encoder vector"])
    assert end.value.exit_code == 0
    monkeypatch.setattr(style_tools, "checkout", lambda: None)
    with pytest.raises(ConfigError, match=r"\(encoder vector\) are in its source checkout"):
        command(["encoder vector"], renew=True)
    assert list((tmp_path / "tests" / "golden").iterdir()) == []


def test_a_key_of_before_and_a_broken_file_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = METHODS.current
    monkeypatch.setattr(METHODS, "current", lambda key: "mmin" if key == "imagination" else now(key))
    assert list(golden.chosen(["imagination"])) == list(golden.chosen(["method imagination"])) == ["method mmin"]
    problems = {"/somewhere/torn.py": "line 3: a card with a typo"}
    monkeypatch.setattr(type(METHODS), "problems", property(lambda self: problems))
    with pytest.raises(ConfigError, match=r"'torn' cannot be used: /somewhere/torn\.py: line 3"):
        golden.chosen(["torn"])
    with pytest.raises(UnknownName, match="subject of golden numbers 'operator torn'"):
        golden.chosen(["operator torn"])


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
