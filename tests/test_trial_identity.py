"""What makes a trial another one, and what does not: versions, resolved parameters and content, but no sources."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from kintsugi.bench import Store, StoreError
from kintsugi.bench import job as reading
from kintsugi.bench import made_with as made
from kintsugi.bench.components import newer, trial_versions
from kintsugi.bench.job import Job, Planned, Source, rows_of
from kintsugi.bench.running import InProcess, Ledger, run
from kintsugi.bench.suite import load_suite
from kintsugi.bench.work import perform
from kintsugi.cli import app
from kintsugi.core import versions
from kintsugi.core.component import Component
from kintsugi.core.encoder import ENCODERS
from kintsugi.core.methods import COMPONENTS, METHODS, create
from kintsugi.core.schema import TASKS
from kintsugi.estimator import Classifier, _Estimator
from kintsugi.evaluation.protocols import Condition, Protocol
from kintsugi.imperfect import MECHANISMS, OPERATORS, mcar
from kintsugi.imperfect.corruption import Sometimes, corrupt
from kintsugi.imperfect.mechanism import Mechanism
from kintsugi.imperfect.published import SETTINGS
from kintsugi.tasks import Classification
from kintsugi.training.components import names_in
from kintsugi.training.trainer import Trainer

FACTORS = Source("factors")
JOBS: dict[str, Job] = {
    "plain": Job(FACTORS, "mean_fusion", protocol="clean"),
    "mmin": Job(FACTORS, "mmin", protocol="clean"),
    "joint": Job(FACTORS, "early_fusion", protocol="clean"),
    "strategy": Job(FACTORS, "corruption_augmentation", protocol="clean"),
    "distilled": Job(FACTORS, "kd_mm", protocol="clean"),
    "holes": Job(FACTORS, "mean_fusion", training="mcar(0.3)", protocol="clean"),
    "noise": Job(FACTORS, "mean_fusion", training="feature_noise(m1, 3)", protocol="clean"),
    "rates": Job(FACTORS, "mean_fusion", protocol="rates(0.5)"),
    "setting": Job(FACTORS, "mean_fusion", training="smil-0.5-m1", protocol="clean"),
    "brief": Job(FACTORS, "mean_fusion", protocol="clean", trainer={"epochs": 2, "weight_decay": 0.5, "patience": 3}),
    "accuracy": Job(FACTORS, "mean_fusion", protocol="clean", metrics=("accuracy",)),
    "digits": Job(Source("handwritten"), "mean_fusion", protocol="clean"),
    "digits with holes": Job(Source("handwritten"), "mean_fusion", training="mcar(0.3)", protocol="clean"),
    "pictures": Job(Source("avdigits"), "mean_fusion", protocol="clean"),
}  # fmt: skip
ALL = frozenset(JOBS)


def hashes() -> dict[str, str]:
    return {name: job.trial().hash for name, job in JOBS.items()}


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return hashes()


def moved(before: Mapping[str, str]) -> set[str]:
    return {name for name, value in hashes().items() if value != before[name]}


Patch = pytest.MonkeyPatch


def card(key: str, **changes: Any) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(METHODS[key], "card", replace(METHODS[key].card, **changes))


def raised(registry: Any, name: str) -> Callable[[Patch], None]:
    return lambda patch: patch.setitem(registry._versions, name, 2)


def default(of: Any, name: str, value: Any) -> Callable[[Patch], None]:
    """Another default of an argument, where it is written."""

    def change(patch: Patch) -> None:
        names = [p.name for p in inspect.signature(of).parameters.values() if p.default is not p.empty]
        if of.__kwdefaults__ and name in of.__kwdefaults__:
            patch.setitem(of.__kwdefaults__, name, value)
        else:
            values = list(of.__defaults__)
            values[names.index(name)] = value
            patch.setattr(of, "__defaults__", tuple(values))

    return change


SEPARATE = {"plain", "mmin", "strategy", "distilled", "holes", "noise", "rates", "setting", "brief", "accuracy"}
CASES: dict[str, tuple[Callable[[Patch], None], set[str] | frozenset[str]]] = {
    "the digest of sources": (lambda patch: patch.setattr(made, "sources_digest", lambda _: "other"), set()),
    "a package": (lambda patch: patch.setattr(made, "packages", lambda: {"torch": "99"}), set()),
    "the prose of a card": (card("mmin", faithful=("other words",), claims=("another word",)), set()),
    "the version of mmin": (card("mmin", version=7), {"mmin"}),
    "the version of a host": (card("mean_fusion", version=7), ALL - {"mmin", "joint", "distilled"}),
    "the version of a method with helper parts": (card("kd_mm", version=7), {"distilled"}),
    "a component that methods share": (raised(COMPONENTS, "unimodal_teacher"), {"distilled"}),
    "a component that is served": (raised(COMPONENTS, "concatenation_fusion"), {"distilled"}),
    "an encoder": (raised(ENCODERS, "vector"), SEPARATE | {"digits", "digits with holes"}),
    "an encoder of another kind": (raised(ENCODERS, "audio"), {"pictures"}),
    "an operator of training, of a strategy": (raised(OPERATORS, "feature_noise"), {"noise", "strategy"}),
    "an operator that nothing uses": (raised(OPERATORS, "fog"), set()),
    "a mechanism": (raised(MECHANISMS, "mcar"), {"holes", "rates", "digits with holes"}),
    "the mechanism of a setting": (raised(MECHANISMS, "smil"), {"setting"}),
    "a setting": (
        lambda patch: patch.setitem(SETTINGS, "smil-ETA", replace(SETTINGS["smil-ETA"], version=2)), {"setting"}
    ),
    "a task": (raised(TASKS, "classification"), ALL),
    "a task that nothing has": (raised(TASKS, "regression"), set()),
    "a metric that some report": (
        lambda patch: patch.setattr(Classification, "metric_versions", {"log_loss": 2}), ALL - {"accuracy"}
    ),
    "the metric that chooses epochs": (
        lambda patch: patch.setattr(Classification, "metric_versions", {"accuracy": 2}), ALL
    ),
    "training": (lambda patch: patch.setattr(versions, "TRAINING", 2), ALL),
    "what readers learn anew": (lambda patch: patch.setattr(versions, "REFIT", 2), {"digits with holes"}),
    "reading": (lambda patch: patch.setattr(versions, "READING", 2), ALL),
    "evaluation": (lambda patch: patch.setattr(versions, "EVALUATION", 2), ALL),
    "a default of the trainer": (default(Trainer.__init__, "weight_decay", 0.25), ALL - {"brief"}),
    "a default of the estimator": (default(_Estimator.__init__, "epochs", 21), ALL - {"brief"}),
    "a default of a method": (default(METHODS["mmin"].__init__, "w_forward", 4.001), {"mmin"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_exactly_the_trials_that_use_it_move(case: str, before: dict[str, str], monkeypatch: Patch) -> None:
    change, expected = CASES[case]
    change(monkeypatch)
    assert moved(before) == set(expected)


def test_components_are_those_that_a_trial_runs_through() -> None:
    trial = JOBS["strategy"].trial()
    assert set(trial.versions) == {
        "method corruption_augmentation", "method mean_fusion", "encoder vector", "operator feature_noise",
        "task classification", "metric accuracy", "metric macro_f1", "metric log_loss", "training", "reading", "evaluation",
    }  # fmt: skip
    assert trial.versions["method corruption_augmentation"] == METHODS.card("corruption_augmentation").version
    assert "encoder vector" not in JOBS["joint"].trial().versions
    corrupted = replace(JOBS["plain"], protocol="standard").trial()
    wanted = {text.partition("(")[0] for c in corrupted.protocol.conditions for text in c.corruptions}
    assert {f"operator {name}" for name in wanted} <= corrupted.versions.keys()
    assert wanted
    mixed = Protocol(
        "p", (Condition("a", "c", missing="random-0.5-keep1", corruptions=("sometimes(one_of(fog(i), frost(i)))",)),)
    )
    named = trial_versions("mmin", {}, rows_of(FACTORS)[0].schema, "complete", mixed, ["accuracy"], chosen=True)
    assert {"operator fog", "operator frost", "setting random-RATE-keep1"} <= named.keys()


# parameters ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "spelt",
    [
        {"params": {"w_forward": 4.0}}, {"params": {"w_forward": 4}}, {"params": {"dim": 32, "blocks": 5}},
        {"trainer": {"epochs": 20}}, {"trainer": {"lr": 1e-3, "device": "cpu", "optimizer": "adamw"}},
        {"trainer": {"clip": 1}}, {"trainer": {"patience": None}}, {"metrics": ("accuracy", "macro_f1", "log_loss")},
        {"resamples": 200}, {"params": {"dim": 32.0}}, {"trainer": {"epochs": 20.0}}, {"trainer": {"device": "cpu:0"}},
        {"trainer": {"precision": "32"}}, {"trainer": {"precision": "32-true"}}, {"protocol": " clean "},
    ],
    ids=str,
)  # fmt: skip
def test_a_default_that_is_spelt_out_is_the_same_trial(spelt: dict[str, Any], before: dict[str, str]) -> None:
    assert replace(JOBS["mmin"], **spelt).trial().hash == before["mmin"]


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"w_forward": 4.001}}, {"params": {"dim": 33}}, {"trainer": {"clip": 2}}, {"trainer": {"select": False}},
        {"trainer": {"patience": 5}}, {"metrics": ("macro_f1", "accuracy", "log_loss")},
    ],
    ids=str,
)  # fmt: skip
def test_another_value_is_another_trial(other: dict[str, Any], before: dict[str, str]) -> None:
    assert replace(JOBS["mmin"], **other).trial().hash != before["mmin"]


def test_every_setting_of_the_trainer_stands_in_the_trial() -> None:
    stored = JOBS["plain"].trial().parameters["trainer"]
    trainer = Classifier("mean_fusion")._trainer()
    assert stored == {
        name: getattr(trainer, name) for name in inspect.signature(Trainer).parameters
        if name not in ("seed", "checkpoint", "progress", "updates")
    }  # fmt: skip
    with_updates = replace(JOBS["plain"], trainer={"updates": 7}).trial().parameters["trainer"]
    assert with_updates == {**stored, "updates": 7}, (
        "and updates only where they are the budget, so that trials of before stand"
    )


def test_the_mask_of_a_file_counts_by_its_content(tmp_path: Path) -> None:
    train = rows_of(FACTORS)[0]
    job = replace(JOBS["plain"], training=f"given({str(tmp_path / 'mask.npz')!r})")
    found = []
    for rate in (0.2, 0.2, 0.4):
        train.with_missing(mcar(rate)).mask.save(tmp_path / "mask.npz")  # type: ignore[union-attr]
        found.append(job.trial().hash)
    assert found[0] == found[1] != found[2]


def test_a_table_of_files_is_the_same_trial_after_touch(tmp_path: Path) -> None:
    lines = ["x,n,y"]
    for place in range(40):
        Image.new("L", (4, 4), place).save(tmp_path / f"{place}.png")
        lines.append(f"{place}.png,{place},{'ab'[place % 2]}")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "c.yaml").write_text(
        "modalities:\n  one: {kind: image, column: x}\n  two: {kind: tabular, columns: [n]}\ntarget: y\n"
    )
    options = {"file": str(tmp_path / "rows.csv"), "columns": str(tmp_path / "c.yaml")}
    job = Job(Source("", options), "mean_fusion", protocol="clean")
    first = job.trial().hash
    os.utime(tmp_path / "0.png", (1, 1))
    reading._read.cache_clear()
    assert job.trial().hash == first
    Image.new("L", (4, 4), 99).save(tmp_path / "0.png")
    reading._read.cache_clear()
    assert job.trial().hash != first


# spellings ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"training": "mcar(0.3)"}, {"training": " mcar( .30, )"}),
        ({"training": "smil-0.5-m1"}, {"training": "smil-0.50-m1"}),
        ({"training": "random-0.5-keep1"}, {"training": "random-.5-keep1"}),
        ({"training": "feature_noise(m1, 3)"}, {"training": "feature_noise('m1', severity=3)"}),
        ({"protocol": "standard"}, {"protocol": "standard(1, 3, 5)"}),
        ({"protocol": "rates(0.5)"}, {"protocol": "rates( 0.50 )"}),
        ({"protocol": "random-0.5-keep1"}, {"protocol": "random-.50-keep1"}),
    ],
    ids=str,
)  # fmt: skip
def test_spellings_of_a_condition_are_one_trial(one: dict[str, Any], other: dict[str, Any]) -> None:
    trials = [replace(JOBS["plain"], **changed).trial() for changed in (one, other)]
    assert trials[0] == trials[1]
    assert trials[0].hash != JOBS["plain"].trial().hash


def test_what_is_spelt_otherwise_is_trained_and_stored_as_that_trial(tmp_path: Path) -> None:
    spelt = Job(
        FACTORS, "mmin", training="smil-0.50-m1", protocol="rates( 0.50 )", params={"dim": 8.0}, resamples=5,
        trainer={"epochs": 1.0, "device": "cpu:0", "precision": "32-true"},
    )  # fmt: skip
    plain = replace(spelt, training="smil-0.5-m1", protocol="rates(0.5)", params={"dim": 8}, trainer={"epochs": 1})
    with Store.open(tmp_path) as store:
        tally = run(Ledger(store, [Planned(spelt, spelt.trial())]), InProcess())
        assert (tally.done, tally.failed) == (1, {})
        before = store.table(timing=False)
        assert set(before["training"]) == {"smil-0.5-m1"}
        assert store.missing([plain.trial()]) == []
        done = perform(plain)
        assert not store.finish(plain.trial(), done.results, done.outcomes)  # the same numbers, to the last bit


# files and plugins --------------------------------------------------------------------------------------------------
SOUND = {
    "training": lambda files: {"training": f"file_noise(speech, 5, files={files!r})"},
    "among others": lambda files: {"training": f"white_noise(speech, 1) + file_noise(speech, 5, files={files!r})"},
    "a part": lambda files: {
        "method": "corruption_augmentation", "params": {"corruption": f"file_noise(speech, 5, files={files!r})"}
    },
}  # fmt: skip


@pytest.mark.parametrize("place", SOUND)
def test_files_of_noise_count_by_content_wherever_they_lie(place: str, tmp_path: Path, monkeypatch: Patch) -> None:
    def named(files: Path | str) -> str:
        return replace(JOBS["pictures"], **SOUND[place](str(files))).trial().hash

    for folder in ("a", "b"):
        (tmp_path / folder / "noise").mkdir(parents=True)
        (tmp_path / folder / "noise" / "hum.wav").write_bytes(b"hum")
    file, folder = tmp_path / "a" / "noise" / "hum.wav", tmp_path / "a" / "noise"
    monkeypatch.chdir(tmp_path / "a" / "noise")
    before = named(file), named(folder)
    assert before[0] == named(tmp_path / "b" / "noise" / "hum.wav") == named("hum.wav")
    assert before[1] == named(tmp_path / "b" / "noise") == named("../noise")
    file.write_bytes(b"him")
    assert (named(file) != before[0], named(folder) != before[1]) == (True, True)
    file.write_bytes(b"hum")
    file.rename(folder / "other.wav")  # rows draw among the files of a folder by the order of their names
    assert named(folder) != before[1]


def test_a_suite_trains_on_a_mask_of_a_file(tmp_path: Path, monkeypatch: Patch) -> None:
    mask = rows_of(FACTORS)[0].with_missing(mcar(0.3)).mask
    assert mask is not None
    mask.save(tmp_path / "mask.npz")
    monkeypatch.chdir(tmp_path)
    hashes_ = []
    for path in ("mask.npz", str(tmp_path / "mask.npz")):
        (tmp_path / "s.yaml").write_text(f"{SUITE}training: [\"given('{path}')\"]\n")
        (trial, _) = (planned.trial for planned in load_suite(tmp_path / "s.yaml").planned())
        assert trial.training == "given('mask.npz')"
        assert mask.hash in trial.parameters["masks"]["given('mask.npz')"]
        hashes_.append(trial.hash)
    assert hashes_[0] == hashes_[1]


class Odd(Mechanism):
    """A mechanism of a plugin, called otherwise than it is registered."""

    def __init__(self, inner: Mechanism) -> None:
        self.inner = inner

    def keep(self, data: Any, seed: int) -> Any:
        return self.inner.keep(data, seed)

    def asked(self, data: Any) -> None:
        return None

    def __str__(self) -> str:
        return "my-own"


def odd(rate: float) -> Mechanism:
    return Odd(mcar(rate))


def wrapped(rate: float) -> Mechanism:
    return mcar(rate)


def test_mechanisms_of_plugins_count_by_the_names_they_are_registered_under(monkeypatch: Patch) -> None:
    for name, make in (("odd", odd), ("wrapped", wrapped)):
        monkeypatch.setitem(MECHANISMS._things, name, make)
        monkeypatch.setitem(MECHANISMS._versions, name, 3)
    used = {
        name: {
            key: version
            for key, version in replace(JOBS["plain"], training=f"{name}(0.3)").trial().versions.items()
            if key.startswith("mechanism")
        }
        for name in ("odd", "wrapped", "mcar")
    }
    assert used["mcar"] == {"mechanism mcar": 1}
    assert used["wrapped"] == {"mechanism mcar": 1, "mechanism wrapped": 3}
    assert used["odd"].items() >= {"mechanism mcar": 1, "mechanism odd": 3}.items()
    pipeline = create("mean_fusion", rows_of(FACTORS)[0].schema)
    part = next(module for module in pipeline.modules() if isinstance(module, Component))
    part.held = Odd(mcar(0.3))  # type: ignore[assignment]
    assert {"mechanism mcar", "mechanism odd"} <= set(names_in(pipeline))


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: [x], lambda x: (x, None), lambda x: {"a": [x]}])
def test_operators_in_attributes_of_a_part_are_seen_at_any_depth(hold: Callable[[Any], Any]) -> None:
    pipeline = create("mean_fusion", rows_of(FACTORS)[0].schema)
    before = set(names_in(pipeline))
    part = next(module for module in pipeline.modules() if isinstance(module, Component))
    part.damages = hold(Sometimes(corrupt("feature_noise", "m1", 3)))  # type: ignore[assignment]
    assert set(names_in(pipeline)) == before | {"operator feature_noise"}


# a store ------------------------------------------------------------------------------------------------------------
SUITE = """\
datasets: [factors]
methods: [mean_fusion, mmin]
seeds: 1
protocol: clean
trainer: {epochs: 1}
resamples: 5
costs: false
"""


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A suite, and a store that it has filled."""
    folder = tmp_path_factory.mktemp("identity")
    (folder / "small.yaml").write_text(SUITE)
    result = call("bench", folder / "small.yaml", "-o", folder / "runs", "--workers", 0, "--no-report")
    assert result.exit_code == 0, result.output
    return folder / "small.yaml", folder / "runs"


def bench(filled: tuple[Path, Path], *more: object) -> Any:
    return call("bench", filled[0], "-o", filled[1], "--workers", 0, "--no-report", *more)


def test_what_results_were_made_with_is_kept_as_a_fact(filled: tuple[Path, Path]) -> None:
    with Store.open(filled[1]) as store:
        for record in store.records("done"):
            assert made.made_with_of(record) == made.made_with(record.trial.registered)
            assert {"torch", "numpy", "torchmetrics", "python", "kintsugi", "sources"} == made.made_with_of(
                record
            ).keys()


def test_after_other_sources_and_other_prose_nothing_runs_again(filled: tuple[Path, Path], monkeypatch: Patch) -> None:
    again = bench(filled)
    assert "0 trials run" in again.output
    assert "sources" not in again.output
    card("mmin", claims=("mended",))(monkeypatch)
    digest = made.sources_digest
    monkeypatch.setattr(
        made, "sources_digest", lambda roots: "0" * 16 if any("mmin" in r for r in roots) else digest(roots)
    )
    result = bench(filled)
    assert result.exit_code == 0
    assert "0 trials run" in result.output
    assert "2 had a result before" in result.output
    assert "1 result counts as done though sources that they ran through have changed (1 of mmin)" in result.output
    assert "(1 of mmin)" in bench(filled, "--dry-run").output


def test_a_raised_version_runs_again_what_uses_it(
    filled: tuple[Path, Path], tmp_path: Path, monkeypatch: Patch
) -> None:
    shutil.copytree(filled[1], tmp_path / "runs")
    then = METHODS["mmin"].card.version
    card("mmin", version=7)(monkeypatch)
    result = call("bench", filled[0], "-o", tmp_path / "runs", "--workers", 0, "--no-report")
    assert "1 trials run" in result.output, result.output
    assert "1 had a result before" in result.output
    compared = call("compare", filled[1], tmp_path / "runs")
    assert f"versions differ: method mmin {then} → 7" in compared.output
    monkeypatch.undo()
    # the store now names a version that is newer than here
    refused = call("bench", filled[0], "-o", tmp_path / "runs", "--workers", 0, "--no-report")
    assert refused.exit_code == 2
    assert f"holds trials of method mmin 7 (here {then}); nothing is run into it" in refused.output
    assert "Update kintsugi" in refused.output
    for words in (
        ("bench", "status", tmp_path / "runs"), ("bench", "export", tmp_path / "runs", tmp_path / "t.csv"),
        ("report", tmp_path / "runs", "-o", tmp_path / "r.html"), ("compare", tmp_path / "runs", filled[1]),
        ("bench", filled[0], "-o", tmp_path / "runs", "--dry-run"),
    ):  # fmt: skip
        shown = call(*words)
        assert shown.exit_code == 0, shown.output
        assert shown.output.count(f"holds trials of method mmin 7 (here {then}); they are shown as they are") == 1


def test_what_is_not_here_is_said_and_refused(tmp_path: Path) -> None:
    trial = JOBS["plain"].trial()
    for other in ("method of_a_plugin", "sense smell", "operator fogg"):
        store = Store.open(tmp_path / other)
        store.add([replace(trial, versions={**trial.versions, other: 1})])
        with pytest.raises(StoreError, match=rf"holds trials of {other} \(not here\); nothing is run into it"):
            Ledger(store, [Planned(JOBS["plain"], trial)])
    assert newer([{"metric accuracy": 2, "task classification": 1}]) == ["metric accuracy 2 (here 1)"]
    assert newer([{"task smelling": 1, "training": 1}]) == ["task smelling (not here)"]
    assert newer([{"metric bleu": 1, "task classification": 1}]) == ["metric bleu (not here)"]
    for version in (True, 2.0, "2", [1], None, 0):
        (said,) = newer([{"method mmin": version}])
        assert said == f"method mmin {json.dumps(version)} (no version; damaged)"
    # what others ran elsewhere, and what version 0.1.0 wrote, asks for nothing
    assert newer([{"origin": "them", "method x": 9}, {"torch": "9", "sources": "x"}, dict(trial.versions)]) == []


def test_a_result_of_version_0_1_0_counts_as_done_for_no_trial_and_is_kept(
    filled: tuple[Path, Path], tmp_path: Path
) -> None:
    own = Job(FACTORS, "mean_fusion", protocol="clean", trainer={"epochs": 1}, resamples=5)
    trial = own.trial()
    before = replace(
        trial,
        parameters={**trial.parameters, "params": {}, "trainer": {"epochs": 1}, "metrics": []},
        versions={"torch": "2.13.0", "torchmetrics": "1.9.0", "numpy": "2.4.6", "python": "3.11", "sources": "ab" * 8},
    )
    with Store.open(filled[1]) as store:
        table = store.table().query("method == 'mean_fusion'")
    with Store.open(tmp_path / "old") as old:
        old.finish(before, table)
        assert old.missing([trial]) == [trial]
        (record,) = old.records("done")
        assert record.trial.hash == before.hash
        assert made.made_with_of(record)["torch"] == "2.13.0"
        assert record.trial.registered == {}
    compared = call("compare", tmp_path / "old", filled[1])
    assert compared.exit_code == 0, compared.output
    assert "versions differ: A names no versions of methods and operators" in compared.output
    assert "parameters differ" not in compared.output
    assert "sources of mean_fusion differ" in compared.output
    strict = call("compare", tmp_path / "old", filled[1], "--strict")
    assert strict.exit_code == 1
    assert "not compared, being made with something else: mean_fusion on factors" in strict.output
    ran = call("bench", filled[0], "-o", tmp_path / "old", "--workers", 0, "--no-report")
    assert "2 trials run" in ran.output
    assert "3 done" in call("bench", "status", tmp_path / "old").output
