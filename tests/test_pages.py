"""Measured pages: what is run for one, what its figures are, what it says, and that nothing is run twice."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import kintsugi as kg
from kintsugi.bench.job import Source, rows_of
from kintsugi.bench.pages import figures, plan
from kintsugi.bench.pages.figures import KEPT, Mean, joined, judge, mean_of, paired, read_results, results_of
from kintsugi.bench.pages.job import PLAIN, Judged
from kintsugi.bench.pages.page import measured, percent, points, said, when
from kintsugi.bench.pages.plain import candidates, columns
from kintsugi.bench.pages.plan import BESIDE, HOSTS, Budget, budget, entries, jobs_of, places, planned
from kintsugi.bench.pages.work import perform
from kintsugi.bench.running import InProcess, Ledger
from kintsugi.bench.store import Store
from kintsugi.commands.bench_pages import chosen, keep_table, run_pages
from kintsugi.commands.bench_run import plain_console
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.methods import METHODS, judged_ablations

SMALL = Budget(updates=4, longer=8, rounds=2, lr=2e-3, batch_size=64, own=2, other=1, again=2, first=0)


# what is run ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", list(METHODS))
def test_every_method_is_judged_in_the_world_of_its_premise(key: str) -> None:
    own, other, real = places(key)
    card = METHODS.card(key)
    assert own.title == (card.worlds[0] if card.worlds else "complementary")
    assert other.title not in (own.title, *card.worlds) or other.title == "complementary"
    assert own.strengths == (0.0, 0.5, 1.0)
    for place in (own, other, real):
        source = place.source(1.0, 0)
        schema = rows_of(source)[0].schema
        assert not card.misfit(schema), f"{place.title}: {card.misfit(schema)}"


def test_a_page_has_its_ablations_hosts_and_seeds() -> None:
    size = budget()
    assert (size.updates, size.longer, size.own, size.other, size.again) == (1000, 3000, 10, 5, 3)
    for key in ("mmin", "kd_mm"):
        found = list(entries(key, size))
        own = [e for e in found if e.place.role == "own" and e.updates == 1000]
        sides = {(e.method, e.without) for e in own}
        assert sides == {
            (key, None),
            *((key, p) for p in judged_ablations(METHODS[key])),
            *((n, None) for n in (*BESIDE, PLAIN)),
        }
        assert {(e.strength, e.seed) for e in own} == {(s, seed) for s in (0.0, 0.5, 1.0) for seed in range(10, 20)}
        assert {e.seed for e in found if e.place.role != "own"} == set(range(10, 15))
        longer = {(e.method, e.strength, e.seed) for e in found if e.updates == 3000}
        assert longer == {(name, 1.0, seed) for name in (key, *HOSTS) for seed in range(10, 13)}


def test_a_method_is_tried_on_real_rows_under_what_it_is_built_for() -> None:
    for key, protocol in (
        ("ccm", "corruptions"),
        ("vmloc", "corruptions"),
        ("random_subsets", "rates"),
        ("mctn", "rates"),
    ):
        assert places(key)[2].protocol.startswith(protocol)


def test_arguments_that_a_premise_asks_for_are_the_methods_own_and_another_trial() -> None:
    found = list(entries("transmodality", budget()))
    own = [e for e in found if e.place.role != "real"]
    assert {tuple(e.job.params.items()) for e in own if e.method == "transmodality"} == {(("anchor", "m2"),)}
    assert not any(e.job.params for e in own if e.method != "transmodality")
    assert not any(e.job.params for e in found if e.place.role == "real")
    job = next(e.job for e in own if e.method == "transmodality")
    assert job.trial().hash != replace(job, params={}).trial().hash


def test_methods_share_what_stands_beside_them() -> None:
    one, both = jobs_of(["mmin"], quick=True), jobs_of(["mmin", "mean_fusion"], quick=True)
    hosts = [job for job in both if job.method == "mean_fusion" and "redundant" in job.source.name]
    assert len({job.trial().hash for job in both}) == len(both)
    assert {job.trial().hash for job in hosts} >= {
        j.trial().hash for j in one if j.method == "mean_fusion" and j in hosts
    }


def test_a_trial_is_told_by_all_that_decides_it() -> None:
    source = Source("worlds", {"premise": "redundant", "strength": 1.0, "seed": 0}, "redundant")
    job = Judged(source, "mmin", 0, protocol="clean", trainer=SMALL.trainer(4))
    others = [
        replace(job, without=""), replace(job, seed=1), replace(job, method="mean_fusion"),
        replace(job, trainer=SMALL.trainer(5)),
        replace(job, source=replace(source, options={**source.options, "strength": 0.5})),
        replace(job, source=replace(source, options={**source.options, "seed": 1})), replace(job, method=PLAIN, trainer={}),
    ]  # fmt: skip
    assert len({each.trial().hash for each in (job, *others)}) == 8
    assert job.trial().versions["method mmin"] == METHODS.card("mmin").version


def test_unknown_methods_are_named() -> None:
    assert set(chosen("late_*, general/mean_fusion")) == {"late_fusion", "mean_fusion"}
    with pytest.raises(UnknownName, match="did you mean 'mmin'"):
        chosen("mminn")


# one training -----------------------------------------------------------------------------------------------------------
def job_of(method: str, without: str | None = None, **more: Any) -> Judged:
    source = Source("worlds", {"premise": "few_complete_rows", "strength": 1.0, "seed": 3}, "few")
    trainer = {} if method == PLAIN else SMALL.trainer(6)
    return Judged(source, method, 3, protocol="clean", trainer=trainer, resamples=5, without=without, **more)


def test_a_training_brings_what_a_page_shows() -> None:
    done = perform(job_of("mean_fusion"))
    facts = done.facts
    data = kg.datasets.load("worlds", premise="few_complete_rows", strength=1.0, seed=3)
    assert facts["optimum"] == data.note["optimum"]
    assert facts["optimum_parts"] == data.note["optimum_parts"]
    assert facts["value"] == facts["clean"] == done.results["value"].iloc[0]
    assert facts["updates"] == 6
    assert facts["parameters"] > 1000
    assert facts["seconds"] > 0
    sizes = {part: len(rows) for part, rows in data.note["parts"].items()}
    whole = sum(facts["parts"][part] * size for part, size in sizes.items()) / sum(sizes.values())
    assert whole == pytest.approx(facts["value"], abs=1e-6)  # parts are of the test rows, and cover them


def test_an_ablation_is_trained_in_place_of_the_method() -> None:
    whole, off = perform(job_of("mmin")), perform(job_of("mmin", ""))
    assert whole.facts["value"] != off.facts["value"]
    with pytest.raises(UnknownName, match="mechanism of mmin"):
        perform(job_of("mmin", "nothing of the kind"))


def test_the_same_job_gives_the_same() -> None:
    first, again = perform(job_of("mean_fusion")), perform(job_of("mean_fusion"))
    assert first.facts | {"seconds": 0} == again.facts | {"seconds": 0}


def test_the_plain_baseline_is_chosen_by_validation_rows() -> None:
    job = job_of(PLAIN)
    facts = perform(job).facts
    train, val, test = rows_of(job.source)
    found = {}
    for name, fill, learner in candidates("classification", len(train), 3):
        tables = [columns(rows) for rows in (train, val, test)]
        if fill is not None:
            fill.fit(tables[0])
            tables = [fill.transform(x) for x in tables]
        learner.fit(tables[0], labels(train))
        found[name] = learner.score(tables[1], labels(val)), learner.score(tables[2], labels(test))
    best = max(found, key=lambda name: found[name][0])
    assert facts["learner"] == best
    assert (facts["validation"], facts["value"]) == pytest.approx(found[best])


def labels(data: kg.Dataset) -> np.ndarray[Any, Any]:
    target = data.batch(range(len(data))).target  # type: ignore[arg-type]
    assert target is not None
    return target.numpy()


def test_columns_are_the_values_and_nan_where_nothing_is() -> None:
    train = rows_of(job_of(PLAIN).source)[0]
    x, batch = columns(train), train.batch(range(len(train)))  # type: ignore[arg-type]
    width = batch.inputs[batch.names[0]].shape[1]
    here = batch.present.numpy().repeat(width, 1)
    assert x.shape == here.shape
    assert (np.isnan(x) == ~here).all()
    assert np.array_equal(
        x[here], np.concatenate([batch.inputs[n].numpy() for n in batch.names], 1)[here].astype(float)
    )


# figures ----------------------------------------------------------------------------------------------------------------
def test_intervals_are_students() -> None:
    values = [0.1, 0.4, 0.35, 0.2]
    found = mean_of(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.value - found.half, found.value + found.half) == pytest.approx((low, high))
    assert math.isnan(mean_of([0.3]).half)
    assert mean_of([]).n == 0


def test_differences_are_paired_over_common_seeds() -> None:
    found = paired({0: 0.5, 1: 0.7, 2: 0.9}, {1: 0.6, 2: 0.7, 5: 0.0})
    assert found.n == 2
    assert found.value == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (Mean(0.02, 0.01, 5), "helps"), (Mean(0.01, 0.01, 5), "does not differ"), (Mean(-0.02, 0.01, 5), "harms"),
        (Mean(0.02, math.nan, 1), "not measured"),
    ],
)  # fmt: skip
def test_verdicts(mean: Mean, verdict: str) -> None:
    assert mean.verdict == verdict


def made(key: str, rule: Any, size: Budget) -> pd.DataFrame:
    """A table of trainings that came to ``rule(entry)``."""
    lines = [
        {
            "trial": e.job.trial().hash, "method": e.method, "without": e.without, "data": e.job.source.name, "seed": e.seed,
            "updates": e.updates, "value": rule(e), "clean": rule(e), "optimum": 0.9, "chance": 0.25,
            "validation": 0.5 + (0.1 if e.method == "random_subsets" and e.seed % 2 else 0), "seconds": 2.0, "parameters": 10,
            "learner": None, "parts": json.dumps({"holes": rule(e) / 2, "optimum holes": 0.8}),
        }
        for e in entries(key, size)
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=list(KEPT)).drop_duplicates("trial")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Budget:
    for module in (plan, figures):
        monkeypatch.setattr(module, "budget", lambda quick=False: SMALL)
    return SMALL


def noisy(entry: plan.Entry) -> float:
    """The method gains 0.2 by strength; random subsets are 0.05 better than natural views."""
    base = 0.5 + 0.01 * entry.seed + {"random_subsets": 0.05, PLAIN: -0.1}.get(entry.method, 0.0)
    gain = 0.2 * entry.strength if (entry.method, entry.without) == ("mmin", None) else 0.0
    return base + gain + (0.002 * entry.seed * (entry.without is None)) + (0.004 if entry.updates == 8 else 0)


def test_what_a_table_says_of_a_method(small: Budget) -> None:
    found = judge("mmin", made("mmin", noisy, small), True)
    assert found.lacking == 0
    assert found.verdict == "helps"
    assert [found.against("own", s, "").value for s in (0.0, 0.5, 1.0)] == pytest.approx([0.001, 0.101, 0.201])
    assert found.growth("").value == pytest.approx(0.2)
    # seed 0 has natural views, seed 1 random subsets, as validation prefers
    assert found.host("own", 1.0) == pytest.approx({0: 0.5, 1: 0.562})
    assert found.against_host("own", 1.0).value == pytest.approx((0.2 + 0.15) / 2)
    assert found.against_other("own", 1.0, PLAIN).value == pytest.approx(0.3)
    assert found.against("own", 1.0, "", "holes").value == pytest.approx(0.1005)
    assert found.settled
    assert [m.value for m in found.moves().values()] == pytest.approx([0.004] * 4)
    unsettled = judge("mmin", made("mmin", lambda e: noisy(e) + (0.02 if e.updates == 8 else 0), small), True)
    assert unsettled.settled is False


def test_an_old_version_does_not_count(small: Budget) -> None:
    table = made("mmin", noisy, small)
    lines = table[(table["method"] != "mmin") | (table["seed"] != 0)]
    found = judge("mmin", lines, True)
    assert found.lacking == len(table) - len(lines)
    assert found.verdict == "not measured"


def test_the_page_and_the_comparison(small: Budget) -> None:
    found = judge("mmin", made("mmin", noisy, small), True)
    text = measured(found, "A note on it.")
    assert "its mechanism *helps*: **+20.1 ± " in text
    assert "A note on it." in text
    rows = {line.split("|")[1].strip(): line for line in text.split("\n") if line.startswith("|")}
    values = next(line for line in text.split("\n") if line.startswith("| `mmin` |"))
    assert "| 50.6 ± 7.6 | 60.6 ± 7.6 | 70.6 ± 7.6 | 71.0 ± 7.6 | 2.0 | 10 |" in values
    assert rows["Optimum"].count("90.0") >= 1
    assert "settled: no side moves by more than a point" in text
    assert "Test rows apart" in text
    page = when({"mmin": found}, {"mmin": "MMIN"}, "Advice.")
    assert "0 of 1 methods help, with one mechanism of theirs at least; 1 of 1 beat an ablation of theirs." in page
    assert "plain hosts" not in page.lower()
    assert "| beats its ablation |" in page
    assert "[MMIN](methods/mmin)" in page
    assert "Advice." in page
    assert "## `redundant`" in page
    nothing = measured(judge("mmin", made("mmin", noisy, small).iloc[:0], True))
    assert "have not been run" in nothing
    assert "*was not measured*" in nothing
    first = made("mmin", noisy, small)
    first = judge("mmin", first[first["data"].str.contains("strength 1")], True)
    assert "with the premise" not in measured(first).split("**The world")[0]
    assert "Values are accuracy in percent" in text
    assert "Values are R² in percent" in measured(judge("discom", made("discom", noisy, small), True))


def test_of_several_mechanisms_each_has_a_verdict(small: Budget) -> None:
    def one_of_two(entry: plan.Entry) -> float:
        gain = {"distillation": -0.2, "fall-back": 0.0}.get(entry.without or "", 0.0) + 0.3 * (entry.method == "kd_mm")
        return 0.3 + 0.001 * entry.seed + gain + 0.0005 * entry.seed * (entry.without == "fall-back")

    found = judge("kd_mm", made("kd_mm", one_of_two, small), True)
    assert (found.verdict, found.helpful, found.verdict_host) == ("does not differ", ("distillation",), "helps")
    assert said(found) == "helps by distillation"
    host = judge("mean_fusion", made("mean_fusion", one_of_two, small), True)
    assert said(host) == "plain host"
    page = when({"kd_mm": found, "mean_fusion": host}, {"kd_mm": "KD-MM", "mean_fusion": "Mean fusion"})
    assert "1 of 1 methods help" in page
    assert "do not count: Mean fusion." in page
    assert "fall-back" in page.split("[KD-MM]")[1].split("|")[3]


def test_words() -> None:
    assert percent(Mean(0.5, 0.012, 3)) == "50.0 ± 1.2"
    assert percent(Mean(0.5, math.nan, 1)) == "50.0"
    assert points(Mean(0.05, 0.01, 3)) == "**+5.0 ± 1.0**"
    assert points(Mean(-0.004, 0.01, 3)) == "-0.4 ± 1.0"


# the whole of it --------------------------------------------------------------------------------------------------------
def test_a_store_becomes_a_table_and_nothing_is_run_twice(
    small: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = places("late_fusion")[0]
    monkeypatch.setattr(plan, "places", lambda key: (replace(one, strengths=(1.0,)),) if key == "late_fusion" else ())
    jobs = planned(jobs_of(["late_fusion"], quick=True))
    with Store.open(tmp_path / "runs") as store:
        with Ledger(store, jobs[:3]) as ledger:
            InProcess(perform).run(ledger)
        table = results_of(store)
    assert set(table["trial"]) == {each.trial.hash for each in jobs[:3]}
    keep_table(table, tmp_path / "t.parquet")
    first = (tmp_path / "t.parquet").read_bytes()
    keep_table(joined(table, read_results(tmp_path / "t.parquet")), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").read_bytes() == first
    left = run_pages(
        plain_console(), "late_fusion", tmp_path / "other", tmp_path / "t.parquet", tmp_path / "pages", None, 0, True, None, True,
        False,
    )  # fmt: skip
    assert left == 0
    assert f"{len(jobs) - 3} of them not in the table" in capsys.readouterr().out


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="is no table of pages"):
        read_results(tmp_path / "t.parquet")


def test_a_broken_or_wrong_table_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
        read_results(tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=r"takes a \.parquet file"):
        run_pages(plain_console(), "mmin", tmp_path, tmp_path / "t.csv", tmp_path, None, 0, True, None, True, False)


def test_notes_are_a_mapping_of_texts(tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").write_text("- a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="mapping of method"):
        run_pages(
            plain_console(), "mmin", tmp_path, None, tmp_path, tmp_path / "notes.yaml", 0, True, None, True, False
        )
