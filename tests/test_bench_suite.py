"""Suites: what a file says becomes trials, and what is wrong in it is said with its line before anything runs."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kintsugi.bench.job import Job, Source
from kintsugi.bench.running import Limits
from kintsugi.bench.store import Record
from kintsugi.bench.suite import Suite, list_suites, load_suite
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.methods import METHODS, list_methods
from kintsugi.data.datasets import load

SMALL = "{key: factors, options: {rows: 60}}"
LEAST = f"datasets: [{SMALL}]\nmethods: [mean_fusion]\n"


@pytest.fixture
def suite(tmp_path: Path) -> Any:
    """Write a file and read it."""

    def made(text: str, settings: dict[str, Any] | None = None, name: str = "mine.yaml", check: bool = True) -> Suite:
        file = tmp_path / name
        file.write_text(text)
        return load_suite(file, settings, check)

    return made


def labels(suite: Suite) -> list[str]:
    return [method.label for method in suite.methods]


# what it says --------------------------------------------------------------------------------------------------------
def test_every_key_reaches_the_jobs(suite: Any) -> None:
    made = suite(
        """\
about: all of it
budget: 1.5
datasets: [{name: small, key: factors, options: {rows: 60, synergy: 1}}]
training: ["feature_noise(m1, 3)"]
methods: [{key: mmin, name: "mmin, low", params: {w_forward: 0.5}}]
seeds: [7]
protocol: rates(0.1)
trainer: {epochs: 3, lr: 3e-3, select: false}
metrics: accuracy
resamples: 20
costs: true
models: true
reference: mmin, low
limits: {seconds: 60, memory: 1.5 GB}
"""
    )
    assert (made.name, made.about, made.budget, made.reference) == ("mine", "all of it", 1.5, "mmin, low")
    assert made.limits == Limits(60.0, 1_500_000_000)
    (job,) = made.jobs()
    assert job == Job(
        Source("factors", {"rows": 60, "synergy": 1}, "small"), "mmin", 7, "feature_noise(m1, 3)", "rates(0.1)",
        "mmin, low", {"w_forward": 0.5}, {"epochs": 3, "lr": 0.003, "select": False}, ("accuracy",), 20, True, True,
    )  # fmt: skip


def test_what_is_not_said_is_that_of_a_job(suite: Any) -> None:
    (job,) = suite(LEAST).jobs()
    assert job == Job(Source("factors", {"rows": 60}, "factors"), "mean_fusion", name="mean_fusion")


def test_a_number_of_seeds_counts_from_zero_and_a_list_is_taken_as_it_is(suite: Any) -> None:
    assert suite(LEAST + "seeds: 3").seeds == (0, 1, 2)
    assert suite(LEAST + "seeds: [5, 1]").seeds == (5, 1)


@pytest.mark.parametrize(("said", "bytes_"), [("4 GB", 4 * 10**9), ("512MiB", 2**29), ("1000", 1000), (77, 77)])
def test_memory_is_a_number_with_or_without_a_unit(suite: Any, said: str | int, bytes_: int) -> None:
    assert suite(LEAST + f"limits: {{memory: {said}}}").limits.memory == bytes_


def test_the_text_is_the_file_as_it_was(suite: Any) -> None:
    text = "# a comment\n" + LEAST
    assert suite(text, {"seeds": 2}).text() == text


# which jobs, in which order ------------------------------------------------------------------------------------------
def test_jobs_go_through_one_data_set_after_another_protocols_outside_seeds_inside(suite: Any) -> None:
    made = suite(
        f"datasets: [{SMALL}, {{key: factors, name: other, options: {{rows: 70}}}}]\n"
        "methods: [mean_fusion, late_fusion]\ntraining: [complete, mcar(0.3)]\nprotocol: [clean, subsets]\nseeds: 2\n"
    )
    keys = [(j.source.name, j.protocol, j.label, j.training, j.seed) for j in made.jobs()]
    assert keys == [
        (data, protocol, method, training, seed)
        for data in ("factors", "other")
        for protocol in ("clean", "subsets")
        for method in ("mean_fusion", "late_fusion")
        for training in ("complete", "mcar(0.3)")
        for seed in (0, 1)
    ]


def test_costs_are_measured_once_a_method_and_data_set(suite: Any) -> None:
    made = suite(
        f"datasets: [{SMALL}, {{key: factors, name: other, options: {{rows: 70}}}}]\ncosts: true\nseeds: [3, 4]\n"
        "methods: [mean_fusion, late_fusion]\ntraining: [mcar(0.3), complete]\nprotocol: [clean, subsets]\n"
    )
    costly = [(j.source.name, j.label, j.training, j.protocol, j.seed) for j in made.jobs() if j.costs]
    assert costly == [
        (data, method, "mcar(0.3)", "clean", 3)
        for data in ("factors", "other")
        for method in ("mean_fusion", "late_fusion")
    ]


def test_patterns_are_those_of_the_list_of_methods_and_find_each_once(suite: Any) -> None:
    made = suite(f'datasets: [{SMALL}]\nmethods: ["missing/*", mean_fusion, "*"]')
    assert labels(made)[: len(list_methods("missing/*")) + 1] == [*list_methods("missing/*"), "mean_fusion"]
    assert sorted(labels(made)) == sorted(METHODS)


def test_what_is_named_goes_before_what_a_pattern_finds(suite: Any) -> None:
    made = suite(f'datasets: [{SMALL}]\nmethods: ["*", {{key: mmin, params: {{dim: 16}}}}]')
    assert sorted(labels(made)) == sorted(METHODS)
    (job,) = [j for j in made.jobs() if j.method == "mmin"]
    assert job.params == {"dim": 16}


@pytest.fixture
def only_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    card = METHODS["mmin"].card
    monkeypatch.setattr(METHODS["mmin"], "card", replace(card, tasks=("regression",)))


@pytest.mark.usefixtures("only_regression")
def test_a_method_for_another_task_is_left_out_of_a_pattern_and_an_error_by_name(suite: Any) -> None:
    both = f"datasets: [{SMALL}, {{key: factors, name: numbers, options: {{rows: 60, task: regression}}}}]\n"
    jobs = suite(both + 'methods: ["mm*", mean_fusion]').jobs()
    assert [(j.source.name, j.label) for j in jobs] == [
        ("factors", "mean_fusion"),
        ("numbers", "mmin"),
        ("numbers", "mean_fusion"),
    ]
    with pytest.raises(
        ConfigError, match=r"line 2: methods.1: on data set factors: mmin does not solve classification"
    ):
        suite(both + "methods: [mean_fusion, mmin]").jobs()
    with pytest.raises(ConfigError, match=r"line 2: methods: no method of these fits data set factors"):
        suite(both + 'methods: ["mm*"]').jobs()


def test_a_method_for_fewer_modalities_is_left_out_of_a_pattern_and_an_error_by_name(
    suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["mmin"], "card", replace(METHODS["mmin"].card, modalities=(2, 2)))
    three = f"datasets: [{SMALL}]\n"
    assert [j.label for j in suite(three + 'methods: ["mm*", mean_fusion]').jobs()] == ["mean_fusion"]
    with pytest.raises(ConfigError, match=r"methods\.0: on data set factors: mmin takes 2 to 2 modalities"):
        suite(three + "methods: [mmin]").jobs()


# overrides and settings ----------------------------------------------------------------------------------------------
OVERRIDES = (
    LEAST.replace("[mean_fusion]", "[mean_fusion, late_fusion]")
    + """\
training: [complete, mcar(0.3)]
protocol: clean
trainer: {epochs: 5, lr: 0.1}
overrides:
  - {method: late_fusion, trainer: {epochs: 6}}
  - {dataset: fac*, training: mcar*, trainer: {epochs: 7, batch_size: 8}}
  - {dataset: handwritten, trainer: {epochs: 99}}
"""
)


def trainers(made: Suite) -> dict[tuple[str, str], dict[str, Any]]:
    return {(j.label, j.training): dict(j.trainer) for j in made.jobs()}


def test_overrides_change_what_they_match_and_the_last_one_counts(suite: Any) -> None:
    assert trainers(suite(OVERRIDES)) == {
        ("mean_fusion", "complete"): {"epochs": 5, "lr": 0.1},
        ("late_fusion", "complete"): {"epochs": 6, "lr": 0.1},
        ("mean_fusion", "mcar(0.3)"): {"epochs": 7, "lr": 0.1, "batch_size": 8},
        ("late_fusion", "mcar(0.3)"): {"epochs": 7, "lr": 0.1, "batch_size": 8},
    }


def test_a_setting_of_the_trainer_goes_before_overrides(suite: Any) -> None:
    assert {t["epochs"] for t in trainers(suite(OVERRIDES, {"trainer.epochs": 1})).values()} == {1}
    assert {t["epochs"] for t in trainers(suite(OVERRIDES, {"trainer": {"epochs": 2}})).values()} == {2}


def test_settings_change_the_file_and_are_remembered(suite: Any) -> None:
    asked = {"seeds": 2, "methods": ["late_fusion"], "factors.rows": 90, "limits.seconds": 5, "trainer.epochs": 1}
    made = suite(LEAST, asked)
    assert made.settings == asked
    assert (made.seeds, labels(made), made.limits.seconds) == ((0, 1), ["late_fusion"], 5.0)
    assert made.datasets == (Source("factors", {"rows": 90}, "factors"),)
    assert made.trainer == {"epochs": 1}


def test_an_option_can_be_set_of_a_data_set_that_was_set_too(suite: Any) -> None:
    made = suite("datasets: [handwritten]\nmethods: [mean_fusion]", {"factors.rows": 90, "datasets": "factors"})
    assert made.datasets == (Source("factors", {"rows": 90}, "factors"),)


def test_settings_name_a_data_set_as_tables_do(suite: Any) -> None:
    text = LEAST.replace("{key", "{name: a.b, key")
    assert suite(text, {"a.b.rows": 90}).datasets[0].options == {"rows": 90}
    with pytest.raises(UnknownName, match=r"unknown setting 'factors\.rows'"):
        suite(text, {"factors.rows": 90})


@pytest.mark.parametrize(
    ("name", "near"),
    [("sedes", "seeds"), ("trainer.epocs", "trainer.epochs"), ("factors.row", "factors.rows"), ("trainer.seed", "")],
)
def test_an_unknown_setting_names_the_nearest(suite: Any, name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown setting '{name}'.*{near}"):
        suite(LEAST, {name: 1})


def test_an_error_of_a_setting_names_the_setting_and_no_line(suite: Any) -> None:
    with pytest.raises(ConfigError, match=r"^--set seeds: .*1 or more"):
        suite(LEAST, {"seeds": 0})
    with pytest.raises(ConfigError, match=r"^--set methods: 1: unknown method 'mmim'; did you mean 'mmin'"):
        suite(LEAST, {"methods": ["mmin", "mmim"]})
    with pytest.raises(ConfigError, match=r"^--set trainer.epochs: epochs must be at least 1"):
        suite(LEAST, {"trainer.epochs": 0}).jobs()


def test_several_references(suite: Any) -> None:
    text = LEAST.replace("[mean_fusion]", "[mean_fusion, mmin]")
    assert suite(text + "reference: [mmin, mean_fusion]\n").reference == ["mmin", "mean_fusion"]
    with pytest.raises(ConfigError, match=r"reference: unknown method of this suite 'late_fusion'"):
        suite(text + "reference: [mmin, late_fusion]\n")


def test_where_settings_narrow_the_methods_the_files_reference_may_be_none_of_them(suite: Any) -> None:
    text = LEAST.replace("[mean_fusion]", "[mean_fusion, mmin]") + "reference: mean_fusion\n"
    assert suite(text, {"methods": ["mmin"]}).reference is None
    assert suite(text, {"seeds": 2}).reference == "mean_fusion"
    with pytest.raises(ConfigError, match="--set reference: unknown method of this suite"):
        suite(text, {"methods": ["mmin"], "reference": "late_fusion"})


def test_a_data_set_that_needs_an_option_says_how_to_give_it(suite: Any, tmp_path: Path) -> None:
    text = "datasets: [avmnist]\nmethods: [mean_fusion]"
    with pytest.raises(ConfigError, match=r"line 1: .*needs fsdd; give it with --set avmnist\.fsdd=PATH"):
        suite(text)
    assert suite(text, check=False).datasets[0].options == {}
    assert suite(text, {"avmnist.fsdd": "there"}).datasets[0].options == {"fsdd": str(Path.cwd() / "there")}
    inside = "datasets: [{key: avmnist, options: {fsdd: sounds}}]\nmethods: [mean_fusion]"
    assert suite(inside).datasets[0].options == {"fsdd": str(tmp_path / "sounds")}


# what is wrong, before anything is read ------------------------------------------------------------------------------
WRONG: list[tuple[str, str]] = [
    ("epocs: 3", r"line 3: epocs: unknown key; "),
    ("sedes: 3", r"line 3: sedes: unknown key; did you mean 'seeds'"),
    ("seeds: [0, 1, 0]", r"line 3: seeds.2: seed 0 is there twice"),
    ("seeds: [0.5]", r"line 3: seeds.0: 0.5: "),
    ("seeds: 0", r"line 3: seeds: 0: .*1 or more"),
    ("seeds: true", r"line 3: seeds: "),
    ("seeds: [-1]", r"line 3: seeds.0: -1: "),
    ("trainer: {epocs: 3}", r"line 3: trainer.epocs: unknown argument of the trainer 'epocs'; did you mean 'epochs'"),
    ("trainer: {seed: 3}", r"line 3: trainer.seed: the bench sets seed of the trainer itself"),
    ("trainer:\n  lr: 0.1\n  epochs: many", r"line 5: trainer.epochs: 'many': "),
    ("trainer: {epochs: 0}", r"line 3: trainer.epochs: epochs must be at least 1"),
    ("training: [mcra(0.3)]", r"line 3: training.0: unknown training condition 'mcra'; did you mean 'mcar'"),
    ("training: [mcar(2)]", r"line 3: training.0: .*between 0 and 1"),
    ("training: [mcar(0.3), mcar(0.30)]", r"line 3: training.1: training condition mcar\(0.3\) is there twice"),
    ("training: [gaussian_noise(image, 3)]", r"line 3: training.0: 'gaussian_noise\(image' is cut off"),
    ("protocol: subsetz", r"line 3: protocol.0: unknown protocol 'subsetz'; did you mean 'subsets'"),
    ("protocol: [clean, clean]", r"line 3: protocol.1: protocol clean is there twice"),
    (
        "reference: late_fusion",
        r"line 3: reference: unknown method of this suite 'late_fusion'; did you mean 'mean_fusion'",
    ),
    ("limits: {memory: 4 GBs}", r"line 3: limits.memory: '4 GBs': write memory as "),
    ("limits: {second: 4}", r"line 3: limits.second: unknown key; did you mean 'seconds'"),
    ("overrides: [{method: mean_fusion}]", r"line 3: overrides.0: an override has trainer: or params:"),
    ("overrides: [{methd: a, trainer: {lr: 1}}]", r"line 3: overrides.0.methd: unknown key; did you mean 'method'"),
    ("overrides: [{method: meen_fusion, trainer: {lr: 1}}]", r"line 3: overrides.0.method: .*'mean_fusion'"),
    ("overrides: [{dataset: factor, trainer: {lr: 1}}]", r"line 3: overrides.0.dataset: .*'factors'"),
    ("overrides: [{params: {with: 1}}]", r"line 3: overrides.0.params.with: unknown argument of mean_fusion 'with'"),
    ("overrides: [{trainer: {epocs: 1}}]", r"line 3: overrides.0.trainer.epocs: unknown argument of the trainer"),
    ("seeds: 1\nseeds: 2", r"line 4: seeds is there twice"),
    ("budget: [", r"line \d: not YAML"),
    ("resamples: no", r"line 3: resamples: "),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text.replace("\n", "; ") for text, _ in WRONG])
def test_what_is_wrong_is_said_with_its_line(suite: Any, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml, " + said):
        suite(LEAST + text)


WRONG_METHODS: list[tuple[str, str]] = [
    ("[mmim]", r"methods.0: unknown method 'mmim'; did you mean 'mmin'"),
    ('["mising/*"]', r"methods.0: unknown method 'mising/\*'; did you mean "),
    ("[mmin, mmin]", r"methods.1: two methods are called mmin"),
    ("[mmin, {key: smil, name: mmin}]", r"methods.1: two methods are called mmin"),
    ("[{key: mmin, params: {widht: 3}}]", r"methods.0.params.widht: unknown argument of mmin 'widht'"),
    ("[{key: mmin, parms: {}}]", r"methods.0.parms: unknown key; did you mean 'params'"),
    (
        "[{key: mmin, params: {dim: wide}}]",
        r"methods.0.params.dim: dim of mmin is a number such as 32, not the text 'wide'",
    ),
    ("[{key: smil, params: {kl: 1e-4}}]", r"methods.0.params.kl: .*not the text '1e-4'; write 0.0001"),
    ("[{key: kd_mm, params: {fallback: 2}}]", r"methods.0.params.fallback: fallback of kd_mm is true or false, not 2"),
    ("[{name: mmin}]", r"methods.0.key: is lacking"),
    ('[{key: "*", params: {a: 1}}]', r"methods.0: \* is a pattern of several methods"),
    ("[]", r"methods: "),
]


@pytest.mark.parametrize(("text", "said"), WRONG_METHODS, ids=[text for text, _ in WRONG_METHODS])
def test_what_is_wrong_with_methods(suite: Any, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml, line 2: " + said):
        suite(f"datasets: [factors]\nmethods: {text}")


WRONG_DATA: list[tuple[str, str]] = [
    ("[factor]", r"datasets.0.key: unknown data set 'factor'; did you mean 'factors'"),
    ("[{key: factors, options: {row: 3}}]", r"datasets.0.options.row: .*did you mean 'rows'"),
    ("[{key: factors, options: {rows: {a: 1}}}]", r"datasets.0.options.rows: an option is a number"),
    ("[factors, {key: factors, options: {rows: 60}}]", r"datasets.1: two data sets are called factors"),
    ("[{key: factors, name: trainer}]", r"datasets.0: a data set cannot be called trainer"),
    ("[{name: factors}]", r"datasets.0: a data set has either a key"),
    ("[{key: factors, file: a.csv}]", r"datasets.0: a data set has either a key"),
    ("[{key: factors, columns: c.yaml}]", r"datasets.0.columns: columns say how a file is read"),
    ("[{file: a.csv}]", r"datasets.0: data set a needs columns"),
    ("[{file: a.csv, columns: c.yaml}]", r"datasets.0.file: .*a\.csv does not exist"),
    ("[{file: mine.yaml, columns: c.yaml}]", r"datasets.0.columns: .*c\.yaml does not exist"),
    ("[{file: a.csv, columns: c.yaml, options: {a: 1}}]", r"datasets.0.options: a file takes no options"),
]


@pytest.mark.parametrize(("text", "said"), WRONG_DATA, ids=[text for text, _ in WRONG_DATA])
def test_what_is_wrong_with_data_sets(suite: Any, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml, line 2: " + said):
        suite(f"methods: [mean_fusion]\ndatasets: {text}")


def test_a_file_that_is_no_mapping_lacks_keys_or_does_not_exist(suite: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected keys such as datasets"):
        suite("- a")
    with pytest.raises(ConfigError, match=r"mine\.yaml, line 1: methods: is lacking"):
        suite("datasets: [factors]")
    with pytest.raises(ConfigError, match="does not exist"):
        load_suite(tmp_path / "nowhere.yaml")
    with pytest.raises(UnknownName, match=r"unknown suite 'quik'; did you mean 'quick'"):
        load_suite("quik")


# what only the data can say ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: [complete, 'feature_noise(m4, 3)']", r"training.1: .*unknown modality 'm4'"),
        ("training: ['smil(0.1, m0)']", r"training.0: .*unknown modality 'm0'"),
        ("training: ['fog(m1, 3)']", r"training.0: .*fog"),
        ("protocol: [clean, rates(0.9)]", r"protocol.1: rate 0.9 cannot be reached"),
        ("protocol: [brats15]", r"protocol.0: .*is about 4 modalities"),
        ("protocol: [rates(0.1), rates( 0.1 )]", r"protocol.1: rates\( 0.1 \) is the same as rates\(0.1\)"),
        ("metrics: [accuracy, acuracy]", r"metrics.1: unknown metric .*did you mean 'accuracy'"),
        ("metrics: [auroc, pearson]", r"metrics.1: metric 'pearson' is for tasks with numbers"),
        ("trainer: {select: auroq}", r"trainer.select: unknown metric .*did you mean 'auroc'"),
    ],
)
def test_what_does_not_fit_the_data_is_said_before_anything_runs(suite: Any, text: str, said: str) -> None:
    made = suite(LEAST + text)
    with pytest.raises(ConfigError, match=r"mine\.yaml, line 3: " + said):
        made.planned()


def test_an_option_that_the_data_set_refuses_has_its_line(suite: Any) -> None:
    with pytest.raises(ConfigError, match=r"line 1: datasets.0: .*synergy must be from 0 to 1"):
        suite("datasets: [{key: factors, options: {synergy: 3}}]\nmethods: [mean_fusion]").jobs()
    with pytest.raises(ConfigError, match=r"line 1: datasets.0: data set factors cannot be read"):
        suite("datasets: [{key: factors, options: {rows: many}}]\nmethods: [mean_fusion]").jobs()


def test_an_argument_that_the_method_refuses_has_its_line(suite: Any) -> None:
    made = suite(f"datasets: [{SMALL}]\nmethods: [mean_fusion, {{key: kd_mm, params: {{temperature: -1}}}}]")
    with pytest.raises(ConfigError, match=r"line 2: methods.1: kd_mm: temperature must be above 0"):
        made.jobs()
    made = suite(LEAST.replace("mean", "early") + "overrides: [{protocol: st*, params: {hidden: 0.5}}]")
    with pytest.raises(ConfigError, match=r"line 2: methods.0: early_fusion cannot be made with {'hidden': 0.5}: "):
        made.jobs()


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """late_fusion had the key ``vote`` and its argument ``merge`` was called ``how``."""
    cls = METHODS["late_fusion"]
    monkeypatch.setattr(cls, "card", replace(cls.card, formerly=("vote",)))
    monkeypatch.setattr(cls, "renamed", {"how": "merge"})


@pytest.mark.usefixtures("renamed")
def test_keys_and_arguments_of_before_are_those_of_today(suite: Any) -> None:
    text = f"datasets: [{SMALL}]\nmethods: [mean_fusion, {{key: vote, params: {{how: mean}}}}]\nreference: [mean_fusion, vote]\n"
    text += "overrides: [{method: vote, trainer: {epochs: 3}, params: {how: mean}}]\nprotocol: clean"
    with pytest.warns(UserWarning, match="late_fusion: the argument 'how' is called 'merge' now"):
        before = suite(text)
    now = suite(text.replace("vote", "late_fusion").replace("how", "merge"), name="now.yaml")
    assert before.reference == now.reference == ["mean_fusion", "late_fusion"]
    assert before.jobs() == now.jobs()
    assert [dict(job.params) for job in before.jobs()] == [{}, {"merge": "mean"}]
    assert [dict(job.trainer) for job in before.jobs()] == [{}, {"epochs": 3}]
    job = before.jobs()[1]
    with pytest.warns(UserWarning, match="is called 'merge' now"):
        assert replace(job, method="vote", name="", params={"how": "mean"}).trial().hash == job.trial().hash


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("methods: [{key: vote, params: {hwo: mean}}]", "unknown argument of late_fusion 'hwo'"),
        ("methods: [{key: vote, params: {how: mean, merge: mean}}]", "'how' is called 'merge' now, and both are given"),
        ("methods: [vote]\noverrides: [{method: vote, params: {how: mean, merge: mean}}]", "and both are given"),
        ("methods: [vote, late_fusion]", "methods.1: two methods are called late_fusion"),
    ],
)
def test_what_is_wrong_with_names_of_before(suite: Any, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"mine\.yaml, line [23]: .*{said}"):
        suite(f"datasets: [factors]\n{text}")


@pytest.mark.parametrize(
    "text", ["methods: [torn]", "methods: [mmin]\noverrides: [{method: torn, trainer: {epochs: 1}}]"]
)
def test_a_method_whose_file_is_broken_is_named_with_what_is_wrong(
    suite: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = {"/somewhere/torn.py": "line 3: unknown field"}
    monkeypatch.setattr(type(METHODS), "problems", property(lambda self: problems))
    with pytest.raises(ConfigError, match=r"line [23]: .*method 'torn' cannot be used: /somewhere/torn\.py: line 3"):
        suite(f"datasets: [factors]\n{text}")


def test_patterns_say_which_files_they_cannot_look_into(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = {"/somewhere/torn.py": "line 3: unknown field", "/somewhere/bare.py": "it registers no method"}
    monkeypatch.setattr(type(METHODS), "problems", property(lambda self: problems))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        suite('datasets: [factors]\nmethods: ["missing/*", "general*"]')
    (warning,) = told
    assert "/somewhere/torn.py: line 3: unknown field; /somewhere/bare.py: it registers no method" in str(
        warning.message
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suite("datasets: [factors]\nmethods: [mmin]")


# trials --------------------------------------------------------------------------------------------------------------
def test_planned_names_every_trial_once_and_tells_how_far_it_is(suite: Any) -> None:
    told: list[tuple[int, int]] = []
    made = suite(LEAST + "seeds: 2\nprotocol: [clean, subsets]")
    planned = made.planned(lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [p.job for p in planned] == made.jobs()
    assert len({p.trial.hash for p in planned}) == 4
    assert {(p.trial.dataset, p.trial.method) for p in planned} == {("factors", "mean_fusion")}


def test_equal_training_and_numbers_are_equal_trials_however_they_are_written(suite: Any) -> None:
    (one,) = suite(LEAST + "training: mcar(0.30)\nprotocol: clean\ntrainer: {lr: 1e-1}").planned()
    (two,) = suite(LEAST + "training: ' mcar( 0.3 )'\nprotocol: [clean]\ntrainer: {lr: 0.1}").planned()
    assert one.trial.hash == two.trial.hash


def test_a_table_of_ones_own_is_found_beside_the_suite(suite: Any, tmp_path: Path) -> None:
    rows = "\n".join(f"{i % 7},{i % 3},{'ab'[i % 2]}" for i in range(60))
    (tmp_path / "cases.csv").write_text("age,dose,outcome\n" + rows)
    (tmp_path / "columns.yaml").write_text(
        "modalities:\n  a: {kind: tabular, columns: [age]}\n  b: {kind: tabular, columns: [dose]}\ntarget: outcome\n"
    )
    made = suite("datasets: [{file: cases.csv, columns: columns.yaml}]\nmethods: [mean_fusion]\nprotocol: subsets")
    (planned,) = made.planned()
    assert (planned.trial.dataset, len(planned.trial.protocol)) == ("cases", 3)
    assert planned.job.source == Source(
        "", {"file": str(tmp_path / "cases.csv"), "columns": str(tmp_path / "columns.yaml")}, "cases"
    )
    with pytest.raises(ConfigError, match=r"--set cases.file: .*elsewhere\.csv does not exist"):
        suite(made.text(), {"cases.file": "elsewhere.csv"})


# how long it takes ---------------------------------------------------------------------------------------------------
class _Records:
    """A store, as far as an estimate asks it."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def records(self, where: str = "") -> list[Record]:
        return [record for record in self._records if record.state == where]


def test_an_estimate_takes_the_nearest_that_the_store_knows(suite: Any) -> None:
    text = (
        f"datasets: [{SMALL}, {{key: factors, name: other, options: {{rows: 70}}}}]\n"
        "methods: [mean_fusion, late_fusion]\nprotocol: [clean, subsets]\nseeds: 3\n"
    )
    made: Suite = suite(text)
    planned = {(p.job.label, p.job.source.name, p.job.protocol, p.job.seed): p.trial for p in made.planned()}

    def took(seconds: float, protocol: str, seed: int, state: str = "done") -> Record:
        return Record(planned["mean_fusion", "factors", protocol, seed], state, "", 0.0, seconds, "", {})

    some = [took(1, "clean", 0), took(2, "clean", 1), took(9, "clean", 2), took(20, "subsets", 0)]
    store: Any = _Records([*some, took(99, "subsets", 1, "failed")])  # what failed says nothing
    each = dict(zip(planned, made.seconds(store), strict=True))
    alone = dict(zip(planned, made.seconds(), strict=True))
    assert each["mean_fusion", "factors", "clean", 0] == 2  # the median of its own
    assert each["mean_fusion", "factors", "subsets", 0] == 20
    assert each["mean_fusion", "other", "clean", 0] == 5.5  # of the method
    assert each["late_fusion", "factors", "clean", 0] == alone["late_fusion", "factors", "clean", 0] > 0
    assert made.estimate(store) == pytest.approx(sum(each.values()))
    store = _Records([took(3, "subsets", 0)])
    assert dict(zip(planned, made.seconds(store), strict=True))["mean_fusion", "factors", "clean", 0] == 3


def test_a_guess_grows_with_epochs_rows_and_conditions(suite: Any) -> None:
    least = suite(LEAST + "protocol: clean\ntrainer: {epochs: 1}").estimate()
    assert least < suite(LEAST + "protocol: clean\ntrainer: {epochs: 9}").estimate()
    assert least < suite(LEAST + "protocol: clean\ntrainer: {epochs: 1}", {"factors.rows": 600}).estimate()
    assert least < suite(LEAST + "protocol: subsets\ntrainer: {epochs: 1}").estimate()
    assert suite(LEAST + "seeds: 2").estimate() == pytest.approx(2 * suite(LEAST).estimate())


# those that ship -----------------------------------------------------------------------------------------------------
def test_which_suites_ship() -> None:
    assert list_suites() == [
        "avmnist-smil", "corrupted-standard", "full", "handwritten-subsets", "missing-standard", "quick",
    ]  # fmt: skip


@pytest.mark.parametrize("name", list_suites())
def test_a_shipped_suite_can_be_read(name: str) -> None:
    made = load_suite(name, {"avmnist.fsdd": "sounds"} if name == "avmnist-smil" else None)
    assert made.name == name
    assert made.reference == "late_fusion"
    assert made.about
    assert "\n" not in made.about
    assert len(made.seeds) >= (3 if name == "quick" else 5)


def test_shipped_suites_that_need_no_download_fit_their_data() -> None:
    jobs = {name: load_suite(name).jobs() for name in list_suites() if name != "avmnist-smil"}
    asked = [METHODS.card(key) for key in list_methods("*") if key != "midl"]  # which adapts row after row
    fit = {
        name: sum(not card.misfit(load(name).schema) for card in asked)
        for name in ("avdigits", "handwritten", "factors")
    }
    assert fit["avdigits"] < fit["handwritten"], "some need numbers"
    assert len(jobs["full"]) == 2 * sum(fit.values()) * 5
    assert len(jobs["missing-standard"]) == 2 * 3 * sum(fit.values()) * 5
    assert len(jobs["corrupted-standard"]) == sum(fit.values()) * 5
    assert len(jobs["handwritten-subsets"]) == fit["handwritten"] * 5
    assert len(jobs["handwritten-subsets"][0].trial().protocol) == 63


def test_smil_is_trained_longer_and_without_validation_rows() -> None:
    made = load_suite("avmnist-smil", {"avmnist.fsdd": "sounds"})
    assert made.training == ("smil(0.05, sound)", "smil(0.1, sound)", "smil(0.15, sound)", "smil(0.2, sound)")
    found = {m.label: made._values(made.datasets[0], m, made.training[0], "subsets")[0] for m in made.methods}
    assert found["smil"]["epochs"] == 50
    assert found["late_fusion"]["epochs"] == 40
    assert not any(trainer["select"] for trainer in found.values())
