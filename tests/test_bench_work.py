"""One job done, and a ledger of many: the same results each time, failures kept, nothing run twice."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kintsugi.bench import Store, work
from kintsugi.bench.beside import Beside
from kintsugi.bench.job import Done, Job, Planned, Source, rows_of, whole
from kintsugi.bench.running import InProcess, Ledger, run
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.data.datasets import DATASETS
from kintsugi.evaluation import calibration, detection
from kintsugi.evaluation.evaluator import predict_conditions
from kintsugi.evaluation.protocols import get_protocol

JOB = Job(Source("factors"), "mean_fusion", protocol="subsets", trainer={"epochs": 1}, resamples=20)


def planned(*jobs: Job) -> list[Planned]:
    return [Planned(job, job.trial()) for job in jobs]


# a job --------------------------------------------------------------------------------------------------------------
def test_a_job_gives_the_same_results_twice_and_has_the_conditions_of_its_protocol() -> None:
    one, other = work.perform(JOB), work.perform(JOB)
    timeless = [c for c in one.results.columns if c != "seconds"]
    assert one.results[timeless].equals(other.results[timeless])
    assert list(one.results["condition"].unique()) == [c.name for c in JOB.trial().protocol.conditions]
    for name, classes in one.outcomes.items():
        assert np.array_equal(classes, other.outcomes[name])
    another_seed = work.perform(replace(JOB, seed=1)).results
    assert not another_seed["value"].equals(one.results["value"])


def test_the_trial_hash_says_what_decides_the_result() -> None:
    assert JOB.trial().hash == replace(JOB).trial().hash
    for change in (
        {"seed": 1}, {"training": "mcar(0.3)"}, {"protocol": "clean"}, {"params": {"dim": 8}}, {"resamples": 21},
        {"trainer": {"epochs": 2}}, {"metrics": ("accuracy",)}, {"name": "other"}, {"method": "late_fusion"},
        {"source": Source("factors", {"synergy": 0.5})},
    ):  # fmt: skip
        assert replace(JOB, **change).trial().hash != JOB.trial().hash, change
    for change in ({"costs": True}, {"models": True}):  # what is measured besides decides nothing
        assert replace(JOB, **change).trial().hash == JOB.trial().hash, change


def test_accuracy_in_the_table_is_that_of_the_stored_classes() -> None:
    done, (_, _, test) = work.perform(JOB), rows_of(JOB.source)
    table = done.results[done.results["metric"] == "accuracy"].set_index("condition")["value"]
    for condition, classes in done.outcomes.items():
        assert float((classes == test.target.numpy()).mean()) == pytest.approx(table[condition], abs=1e-6)


def test_training_conditions_are_mechanisms_or_corruptions() -> None:
    train = rows_of(JOB.source)[0]
    holes = work.imperfect(train, "mcar(0.3)", 0)
    assert 0.2 < 1 - float(holes.present.float().mean()) < 0.4
    noisy = work.imperfect(train, "feature_noise(m1, 5)", 0)
    rows = torch.arange(4)
    assert not torch.equal(noisy.batch(rows).inputs["m1"], train.batch(rows).inputs["m1"])
    assert torch.equal(noisy.batch(rows).inputs["m2"], train.batch(rows).inputs["m2"])
    with pytest.raises(UnknownName, match="mcar"):
        work.imperfect(train, "mcarr(0.3)", 0)


def test_files_are_read_as_their_yaml_says(tmp_path: Path) -> None:
    import pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 4)), columns=list("abcd"))
    frame["y"] = np.where(frame["a"] + frame["c"] > 0, "yes", "no")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "columns.yaml").write_text(
        "modalities:\n  left: {kind: tabular, columns: [a, b]}\n  right: {kind: tabular, columns: [c, d]}\ntarget: y\n"
    )
    options = {"file": str(tmp_path / "rows.csv"), "columns": str(tmp_path / "columns.yaml")}
    job = replace(JOB, source=Source("", options, "mine"), protocol="clean")
    done = work.perform(job)
    assert set(done.results["dataset"]) == {"mine"}
    assert job.trial().dataset == "mine"
    assert job.trial().about["rows"] == 120


def test_the_same_rows_divided_otherwise_are_another_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def divided(first: int) -> Any:
        data = copy(whole(JOB.source))
        data.source = copy(data.source)
        data.source.split = dict(
            zip(("train", "val", "test"), torch.arange(2000).split([first, 300, 1700 - first]), strict=True)
        )
        return data

    monkeypatch.setitem(DATASETS._things, "divided", divided)
    one, other = (replace(JOB, source=Source("divided", {"first": n}), protocol="clean").trial() for n in (1200, 1300))
    assert one.fingerprint == other.fingerprint
    assert one.hash != other.hash


def test_where_a_file_lies_decides_nothing(tmp_path: Path) -> None:
    hashes = set()
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        lines = [f"{n},{n},{'yes' if n % 2 else 'no'}" for n in range(60)]
        (tmp_path / folder / "rows.csv").write_text("\n".join(["a,b,y", *lines]))
        (tmp_path / folder / "c.yaml").write_text(
            "modalities:\n  one: {kind: tabular, columns: [a]}\n  two: {kind: tabular, columns: [b]}\ntarget: y\n"
        )
        options = {"file": str(tmp_path / folder / "rows.csv"), "columns": str(tmp_path / folder / "c.yaml")}
        hashes.add(replace(JOB, source=Source("", options, "mine"), protocol="clean").trial().hash)
    assert len(hashes) == 1


def test_costs_and_the_model_come_back_only_where_asked(tmp_path: Path) -> None:
    import kintsugi as kg

    plain = work.perform(JOB)
    assert plain.files == {}
    assert "costs" not in plain.facts
    full = work.perform(replace(JOB, costs=True, models=True, protocol="clean"))
    assert full.facts["costs"]["parameters"] > 0
    for name, content in full.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    model, (_, _, test) = kg.load(tmp_path / "model"), rows_of(JOB.source)
    assert np.array_equal(model.predict_proba(test).argmax(1), full.outcomes["clean"])


# beside the task's metrics ------------------------------------------------------------------------------------------
def test_calibration_is_that_of_the_answers() -> None:
    model, _ = work._trained(JOB)
    _, _, test = rows_of(JOB.source)
    outcomes = predict_conditions(model.pipeline_, test, get_protocol("subsets", test).conditions)
    beside = Beside()
    beside.look(outcomes, test)
    first, p = beside.values["clean"], outcomes[0].probabilities.double().numpy()
    right = p.argmax(1) == test.target.numpy()
    assert first["ece"] == calibration.expected_calibration_error(p.max(1), right)
    assert first["brier"] == pytest.approx(((p - np.eye(p.shape[1])[test.target.numpy()]) ** 2).sum(1).mean())
    pooled = beside.facts["reliability"]["degraded"]
    assert sum(n for _, _, n in pooled) == len(test) * (len(outcomes) - 1)
    curve = beside.facts["risk_coverage"]["clean"]
    assert curve[-1] == [1.0, pytest.approx(1 - right.mean(), abs=1e-4)]
    assert len(curve) == 25


def test_detection_compares_clean_rows_with_corrupted_ones() -> None:
    job = replace(JOB, method="ccm", protocol="corruptions(5, feature_noise)")
    model, _ = work._trained(job)
    _, _, test = rows_of(job.source)
    outcomes = predict_conditions(model.pipeline_, test, get_protocol(job.protocol, test).conditions)
    beside = Beside()
    beside.look(outcomes, test)
    assert "detection_auroc" not in beside.values["clean"]
    noisy = next(o for o in outcomes if o.condition.name == "feature_noise(m2, 5)")
    suspects = torch.cat([outcomes[0].reliability[:, 1], noisy.reliability[:, 1]]).numpy()
    expected = detection.detection_auroc(suspects, np.repeat([False, True], len(test)))
    assert beside.values[noisy.condition.name]["detection_auroc"] == expected
    least = noisy.reliability == noisy.reliability.min(1, keepdim=True).values
    share = float((least[:, 1] / least.sum(1)).mean())  # modalities that are equally suspect share the row
    assert beside.values[noisy.condition.name]["localisation"] == pytest.approx(share, abs=1e-6)
    table = work.perform(job).results
    found = table[(table["condition"] == noisy.condition.name) & (table["metric"] == "detection_auroc")]
    assert found["value"].tolist() == [expected]
    assert found["low"].isna().all()


# a ledger -----------------------------------------------------------------------------------------------------------
def test_what_a_store_has_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [replace(JOB, seed=seed, protocol="clean") for seed in range(3)]
    with Store.open(tmp_path) as store:
        assert run(Ledger(store, planned(*jobs[:2])), InProcess()).done == 2
        calls: list[Job] = []
        perform = work.perform
        monkeypatch.setattr(work, "perform", lambda job: calls.append(job) or perform(job))
        tally = run(Ledger(store, planned(*jobs)), InProcess())
        assert (tally.before, tally.done, calls) == (2, 1, [jobs[2]])
        assert len(store.table()["trial"].unique()) == 3


def test_trials_in_this_process_compute_on_one_thread_as_those_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    perform = work.perform
    monkeypatch.setattr(work, "perform", lambda job: seen.append(torch.get_num_threads()) or perform(job))
    torch.set_num_threads(2)
    try:
        with Store.open(tmp_path) as store:
            run(Ledger(store, planned(replace(JOB, protocol="clean"))), InProcess())
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("error", [DataError("row 3"), ValueError("stage 2")])
def test_a_failure_is_kept_with_its_traceback_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    jobs = [replace(JOB, seed=seed, protocol="clean") for seed in range(3)]
    perform = work.perform

    def broken(job: Job) -> Done:
        if job.seed == 1:
            raise error
        return perform(job)

    events: list[tuple[str, int, str]] = []
    with Store.open(tmp_path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(work, "perform", broken)
            ledger = Ledger(store, planned(*jobs), lambda event, p, text: events.append((event, p.job.seed, text)))
            tally = run(ledger, InProcess())
        assert (tally.done, len(tally.failed)) == (2, 1)
        assert next(text for event, seed, text in events if event == "failed").endswith(str(error))
        (record,) = store.records("failed")
        assert (record.trial.seed, "in broken" in record.traceback) == (1, True)
        again = run(Ledger(store, planned(*jobs)), InProcess())
        assert (again.failed.keys(), again.elsewhere) == ({record.trial.hash}, 0)  # said again, not tried again
        assert run(Ledger(store, planned(*jobs), retry=True), InProcess()).done == 1
        assert store.counts() == {"done": 3}


def test_what_has_a_result_does_not_fail_afterwards(tmp_path: Path) -> None:
    (one,) = planned(replace(JOB, protocol="clean"))
    events: list[str] = []
    with Store.open(tmp_path) as store, Ledger(store, [one], lambda event, *_: events.append(event)) as ledger:
        assert ledger.next() is one
        ledger.done(one, work.perform(one.job))
        ledger.failed(one, "something after it")
        assert (ledger.tally.done, ledger.tally.failed, events) == (1, {}, ["start", "done"])
        assert store.counts() == {"done": 1}


def test_an_interruption_gives_back_what_was_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [replace(JOB, seed=seed, protocol="clean") for seed in range(2)]

    def stop(job: Job) -> Done:
        raise KeyboardInterrupt

    with Store.open(tmp_path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(work, "perform", stop)
            with pytest.raises(KeyboardInterrupt):
                run(Ledger(store, planned(*jobs)), InProcess())
        assert store.counts() == {"pending": 2}
        assert run(Ledger(store, planned(*jobs)), InProcess()).done == 2


def test_a_trial_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    jobs = [replace(JOB, seed=seed, protocol="clean") for seed in range(2)]
    with Store.open(tmp_path) as store, Store.open(tmp_path) as other:
        assert other.claim(jobs[0].trial())
        tally = run(Ledger(store, planned(*jobs)), InProcess())
        assert (tally.done, tally.elsewhere) == (1, 1)


def test_facts_and_the_model_lie_in_the_store(tmp_path: Path) -> None:
    job = replace(JOB, models=True, protocol="clean")
    with Store.open(tmp_path) as store:
        run(Ledger(store, planned(job)), InProcess())
        (record,) = store.records()
        assert record.facts["training"]["epochs"] == 1
        assert record.facts["machine"]["torch"] == torch.__version__
        assert (store.trial_folder(record.trial) / "model" / "model.json").is_file()
        assert store.check() == []


def test_a_data_set_that_changed_is_refused(tmp_path: Path) -> None:
    other = replace(JOB, source=Source("factors", {"rows": 1000}), protocol="clean")
    with Store.open(tmp_path) as store:
        run(Ledger(store, planned(replace(JOB, protocol="clean"))), InProcess())
        from kintsugi.bench import StoreError

        with pytest.raises(StoreError, match="rows 2000 → 1000"):
            Ledger(store, planned(other))


def test_an_option_that_a_data_set_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="synergy"):
        whole(Source("factors", {"synergie": 1}))
    with pytest.raises(ConfigError, match="protocol"):
        replace(JOB, protocol="subsets(1, 2, 3)").trial()
