"""A budget in updates: how many steps of the optimiser each stage gets, in which rounds, on which rows, and after a stop."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

import kintsugi as kg
from kintsugi.bench.job import Job, Source
from kintsugi.bench.parameters import resolved_trainer
from kintsugi.bench.suite import load_suite
from kintsugi.cli import app
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import create
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Step
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Stage
from kintsugi.core.wrappers import Restorer, Runner, Strategy
from kintsugi.imperfect import mcar
from kintsugi.testing.fixture import toy
from kintsugi.training import stage_run
from kintsugi.training.sampling import cut
from kintsugi.training.stage_run import Losses
from kintsugi.training.trainer import Trainer

DIM, ROWS, BATCH = 8, 64, 16  # so that a pass has four batches
PASS = ROWS // BATCH


def splits(rate: float = 0.0) -> Splits:
    """64 training rows."""
    train, val, test = toy(rows=96, dim=5).split()
    return Splits(train.with_missing(mcar(rate), seed=1) if rate else train, val, test)


class Counting(Trainer):
    """Notes every batch, and stops in the n-th."""

    stop_in: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.seen: list[Losses] = []
        self.observers.append(self._note)

    def _note(self, losses: Losses) -> None:
        self.seen.append(losses)
        if len(self.seen) == self.stop_in:
            raise KeyboardInterrupt

    def stages(self) -> list[tuple[int, str]]:
        """Run and stage of each batch."""
        return [(losses.run, losses.stage.name) for losses in self.seen]

    def rows(self, run: int = 0) -> list[int]:
        return [i for losses in self.seen if losses.run == run for i in losses.batch.index.tolist()]


class Spy(Model):
    """Stages as they are given; notes its clock before every batch, and counts steps of the optimiser."""

    def __init__(self, schema: Schema, *stages: Stage) -> None:
        super().__init__(schema, DIM)
        self.phases, self.clocks, self.steps = list(stages) or [Stage("train")], [], Counter()

    phases: list[Stage]
    clocks: list[tuple[str, int, int, float]]
    steps: Counter[str]

    def stages(self) -> list[Stage]:
        return self.phases

    def step(self, batch: Any) -> Step:
        clock = self.clock
        self.clocks.append((clock.stage, clock.epoch, clock.passes, clock.progress))
        return super().step(batch)

    def on_update(self) -> None:
        self.steps[self.clock.stage] += 1

    def solve(self, features: Any, batch: Any) -> None:
        self.steps["solved"] += 1


def trainer(**options: Any) -> Counting:
    return Counting(**{"epochs": 4, "batch_size": BATCH, "progress": False, **options})


def fit(model: Model | Pipeline, data: Splits | None = None, **options: Any) -> Counting:
    made = trainer(**options)
    made.fit(model if isinstance(model, Pipeline) else Pipeline(model), splits() if data is None else data)
    return made


def spy(*stages: Stage) -> Spy:
    return Spy(splits().train.schema, *stages)


def build(key: str, **hyper: Any) -> Pipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create(key, splits().train.schema, dim=DIM, **hyper)


def weights(pipeline: Pipeline) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in pipeline.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# how a budget is cut --------------------------------------------------------------------------------------------------
@settings(deadline=None)
@forall(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(st.integers(n, 5000), st.lists(st.floats(0.01, 9), min_size=n, max_size=n))
    )
)
def test_a_whole_is_cut_exactly_and_each_piece_gets_one_at_least(drawn: tuple[int, list[float]]) -> None:
    total, parts = drawn
    shares = [sum(parts[: i + 1]) / sum(parts) for i in range(len(parts))]
    sizes = [end - start for start, end in itertools.pairwise([0, *cut(total, shares)])]
    assert sum(sizes) == total
    assert min(sizes) >= 1


@pytest.mark.parametrize(
    ("total", "shares", "ends"),
    [
        (100, [0.25, 0.5, 1.0], [25, 50, 100]),
        (10, [0.001, 0.002, 1.0], [1, 2, 10]),
        (10, [0.998, 0.999, 1.0], [8, 9, 10]),
        (3, [0.9, 0.95, 1.0], [1, 2, 3]),
        (1, [1.0], [1]),
    ],
)
def test_pieces_end_nearest_to_their_share(total: int, shares: list[float], ends: list[int]) -> None:
    assert cut(total, shares) == ends


@pytest.mark.parametrize("updates", [4, 5, 37, 100])
def test_the_stages_of_a_model_share_the_updates_by_their_fractions_to_the_last_one(updates: int) -> None:
    model = spy(
        Stage("long", 3), Stage("short", 0.001), Stage("form", 5, solve=True), Stage("half", 2), Stage("last", 1)
    )
    found = fit(model, updates=updates)
    solved = model.steps.pop("solved")
    assert solved == 1, "a closed form takes no update"
    assert sum(model.steps.values()) == updates == len(found.seen)
    assert min(model.steps.values()) >= 1
    if updates == 100:
        assert model.steps == {"long": 50, "short": 1, "half": 32, "last": 17}
    last = {record["stage"]: record["updates"] for record in found.history}
    assert last == dict(model.steps), "the history counts them"


def test_restorer_and_model_have_a_budget_each_and_so_have_the_teachers_of_kd_mm() -> None:
    found = fit(build("kd_mm"), splits(0.3), updates=11)
    assert Counter(run for run, _ in found.stages()) == {0: 11, 1: 11, 2: 11, 3: 11}
    assert Counter(fit(Pipeline(spy(), restore=Mended()), updates=9).stages()) == {(0, "mend"): 9, (1, "train"): 9}


class Mended(Restorer):
    """Has a stage of its own, and mends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.ones(1))

    def restore(self, batch: Any) -> Any:
        return batch

    def stages(self) -> list[Stage]:
        return [Stage("mend")]

    def step(self, batch: Any) -> Step:
        return Step({"mend": self.shift.square().sum()})


# rounds ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("updates", "epochs", "ends"),
    [
        (100, 10, [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]),
        (1000, 4, [62, 250, 562, 1000]),
        (5, 20, [1, 2, 3, 4, 5]),
        (12, 10, [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]),
        (7, 1, [7]),
    ],
)
def test_rounds_are_short_at_the_start_and_each_has_an_update(updates: int, epochs: int, ends: list[int]) -> None:
    made = stage_run.StageRun.__new__(stage_run.StageRun)
    made.updates, made.epochs, made.trainer = updates, epochs, Trainer(accumulate=3)
    assert made._round_ends() == [3 * end for end in ends]


def test_the_stage_that_chooses_is_validated_after_each_round_and_patience_counts_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = fit(spy(Stage("first"), Stage("last")), updates=50, epochs=5)
    assert [r["updates"] for r in found.history] == [1, 4, 9, 16, 25] * 2
    assert [r["epoch"] for r in found.history] == [0, 1, 2, 3, 4] * 2
    assert ["val/accuracy" in r for r in found.history] == [False] * 5 + [True] * 5
    scores = iter([0.5, 0.9, 0.4, 0.3, 1.0])
    monkeypatch.setattr(stage_run, "validate", lambda *args: (next(scores), 1, "score"))
    model = spy()
    found = fit(model, updates=25, epochs=5, patience=2)
    assert [r["updates"] for r in found.history] == [1, 4, 9, 16]
    assert model.steps["train"] == 16


def test_the_clock_counts_rounds_and_passes_and_its_progress_runs_over_updates() -> None:
    model = spy(Stage("first"), Stage("last"))
    fit(model, updates=40, epochs=2)
    for stage in ("first", "last"):
        clocks = [rest for name, *rest in model.clocks if name == stage]
        assert [epoch for epoch, _, _ in clocks] == [0] * 5 + [1] * 15
        assert [passes for _, passes, _ in clocks] == [i // PASS for i in range(20)]
        assert [progress for _, _, progress in clocks] == pytest.approx([i / 20 for i in range(20)])
    assert model.clock.progress == 1.0
    model = spy()
    fit(model, epochs=3)
    assert all(epoch == passes for _, epoch, passes, _ in model.clocks), "without updates an epoch is a pass"


def test_the_rate_falls_along_a_cosine_over_the_updates_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def note(self: Any, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    fit(spy(), updates=10, lr=0.1, accumulate=2)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 10)) for i in range(10)])


# rows -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("updates", [1, 3, 4, 7, 30])
def test_rows_come_in_shuffled_passes_without_end(updates: int) -> None:
    found = fit(spy(Stage("train", view="subsets")), updates=updates, select=False)
    rows = found.rows()
    assert len(rows) == updates * BATCH
    passes = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
    for each in passes:
        assert len(set(each)) == len(each), "a row came twice before another came once"
    whole = [each for each in passes if len(each) == ROWS]
    assert all(set(each) == set(splits().train.index.tolist()) for each in whole)
    assert len({tuple(each) for each in whole}) == len(whole), "each pass has an order of its own"
    before = fit(spy(Stage("train", view="subsets")), epochs=8)
    for now, then in zip(found.seen, before.seen, strict=False):
        assert torch.equal(now.batch.index, then.batch.index), "passes are those of epochs"
        assert torch.equal(now.batch.present, then.batch.present)


@pytest.mark.parametrize("key", ["mean_fusion", "mmin", "smil"])
def test_as_many_updates_as_epochs_have_lead_to_the_same_weights(key: str) -> None:
    ends = []
    epochs = {"epochs": 5 if key == "smil" else 4}  # so that the fractions of each come out whole
    for options in (epochs, {"epochs": 3, "updates": 4 * PASS}):
        pipeline = build(key)
        made = trainer(select=False, **options)
        made.fit(pipeline, splits())
        ends.append((weights(pipeline), Counter(made.stages())))
    if key == "smil":  # whose first stage has a fifth of the budget: 3.2 of 16 updates
        assert [count for _, count in sorted(ends[1][1].items())] == [3, 13]
        return
    assert ends[0][1] == ends[1][1]
    assert same(ends[0][0], ends[1][0])


def test_groups_of_batches_are_full_and_an_update_is_a_step_of_the_optimiser() -> None:
    model = spy()
    found = fit(model, updates=10, accumulate=3)
    assert (model.steps["train"], len(found.seen)) == (10, 30)
    assert [r["updates"] for r in found.history] == [1, 2, 6, 10]
    assert [progress for *_, progress in model.clocks] == pytest.approx([i // 3 / 10 for i in range(30)])
    assert all(p.grad is None for p in model.parameters()), "no gradient is left over"


def test_the_damage_of_an_augmentation_is_drawn_anew_in_every_pass_of_a_round() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = create("corruption_augmentation", splits().train.schema)
    levels: list[dict[int, float]] = []

    def note(module: Any, args: tuple[Any]) -> None:
        if module.training:
            (batch,) = args
            levels.append(dict(zip(batch.index.tolist(), batch.truth.severity.sum(1).tolist(), strict=True)))

    pipeline.model.register_forward_pre_hook(note)
    fit(pipeline, updates=8 * PASS, epochs=1)
    passes = [
        dict(sorted((levels[i] | levels[i + 1] | levels[i + 2] | levels[i + 3]).items()))
        for i in range(0, 8 * PASS, PASS)
    ]
    assert len({tuple(each.values()) for each in passes}) == 8


# going on after a stop ------------------------------------------------------------------------------------------------
OPTIONS: dict[str, Any] = {"epochs": 4, "updates": 26}


@pytest.mark.parametrize("stop", [3, 9, 17, 24, 35])
@pytest.mark.parametrize("key", ["mmin", "smil", "kd_mm", "ccm"])
def test_a_run_stopped_anywhere_goes_on_bit_for_bit(key: str, stop: int, tmp_path: Path) -> None:
    whole = build(key)
    undisturbed = trainer(**OPTIONS)
    undisturbed.fit(whole, splits(0.3))
    made = trainer(**OPTIONS, checkpoint=tmp_path / "run")
    made.stop_in = stop
    if len(undisturbed.seen) > stop:
        with pytest.raises(KeyboardInterrupt):
            made.fit(build(key), splits(0.3))
    pipeline, made = build(key), trainer(**OPTIONS, checkpoint=tmp_path / "run")
    made.fit(pipeline, splits(0.3))
    assert same(weights(whole), weights(pipeline))
    assert made.history == undisturbed.history
    assert not (tmp_path / "run").exists()
    if 9 < stop < len(undisturbed.seen):
        assert len(made.seen) < len(undisturbed.seen), "it started anew"
    resumed = [x.batch.index.tolist() for x in made.seen]
    assert resumed == [x.batch.index.tolist() for x in undisturbed.seen][-len(resumed) :]


def test_updates_are_part_of_what_a_checkpoint_belongs_to_and_none_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(**OPTIONS, checkpoint=tmp_path)
    made.stop_in = 9
    with pytest.raises(KeyboardInterrupt) as caught:
        made.fit(build("mean_fusion"), splits())
    assert "The same call goes on from there" in caught.value.__notes__[0]
    for other in ({"epochs": 4}, {"epochs": 4, "updates": 27}):
        with pytest.raises(ConfigError, match="other data, method or settings"):
            trainer(**other, checkpoint=tmp_path).fit(build("mean_fusion"), splits())
    decided: list[Any] = []
    digest = trainer_module().content_digest

    def note(value: Any) -> Any:
        decided.append(value)
        return digest(value)

    monkeypatch.setattr(trainer_module(), "content_digest", note)
    trainer()._name_run(build("mean_fusion"), splits())
    assert not any("updates" in part for value in decided if isinstance(value, list) for part in value)


def trainer_module() -> Any:
    from kintsugi.training import trainer as module

    return module


# settings -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("updates", [0, -1])
def test_less_than_one_update_is_refused(updates: int) -> None:
    with pytest.raises(
        ConfigError, match=f"updates must be at least 1, or None where epochs are the budget, not {updates}"
    ):
        Trainer(updates=updates)


def test_fewer_updates_than_stages_are_refused_before_any_of_them() -> None:
    model = spy(Stage("first"), Stage("second"), Stage("third"), Stage("form", solve=True))
    made = trainer(updates=2)
    with pytest.raises(
        ConfigError, match=r"2 updates are too few for 3 stages \(first, second, third\); give at least 3"
    ):
        made.fit(Pipeline(model), splits())
    assert made.seen == []
    fit(model, updates=3)


class Owner(Strategy):
    """Runs stages of the host as it is told."""

    def __init__(self, *calls: tuple[Stage, dict[str, int]]) -> None:
        super().__init__()
        self.calls = calls

    def fit(self, run: Runner, pipeline: Pipeline, data: Splits) -> None:
        for stage, said in self.calls:
            run.run(pipeline, stage, data, **said)


def test_a_strategy_runs_a_stage_by_its_fraction_or_for_so_many_epochs_or_updates() -> None:
    half = Stage("half", 0.5)

    def owned(*calls: tuple[Stage, dict[str, int]]) -> Pipeline:
        pipeline = Pipeline(spy())
        strategy = Owner(*calls)
        strategy.hyper = {}
        return Pipeline(pipeline.model, strategies=[strategy])

    calls = [(half, {}), (half, {"epochs": 3}), (half, {"updates": 7})]
    found = fit(owned(*calls), updates=21)
    assert Counter(run for run, _ in found.stages()) == {0: 10, 1: 3 * PASS, 2: 7}
    found = fit(owned(*calls), epochs=4)
    assert Counter(run for run, _ in found.stages()) == {0: 2 * PASS, 1: 3 * PASS, 2: 7}
    for said, words in (({"epochs": 1, "updates": 1}, "both given"), ({"updates": 0}, "updates must be at least 1")):
        with pytest.raises(ConfigError, match=words):
            fit(owned((half, said)))


def test_the_bar_is_full_at_the_end_of_each_stage_and_counts_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(stage_run.Progress, "expect", lambda self, steps, doing: told.append([steps]))
    monkeypatch.setattr(stage_run.Progress, "advance", lambda self, said="": told[-1].append(said))
    fit(spy(Stage("first"), Stage("last", 2)), updates=12, epochs=3, accumulate=2)
    assert [(said[0], len(said) - 1) for said in told] == [(8, 8), (16, 16)]
    assert [said[-1] for said in told] == ["round 3/3"] * 2


# where it is said -----------------------------------------------------------------------------------------------------
def test_an_estimator_takes_updates_as_its_own_argument() -> None:
    model = kg.Classifier("mean_fusion", updates=6, epochs=3, batch_size=BATCH, progress=False)
    assert model.get_params()["updates"] == 6
    assert "updates=6" in repr(model)
    train, val, _ = toy(rows=96, dim=5).split()
    model.fit(train, val)
    assert [record["updates"] for record in model.trainer_.history] == [1, 3, 6]
    with pytest.raises(ConfigError, match="updates is an argument of Classifier itself"):
        kg.Classifier("mean_fusion", trainer={"updates": 3}).fit(train, val)


SUITE = "datasets: [factors]\nmethods: [mean_fusion]\nprotocol: clean\n"


def test_a_suite_takes_updates_and_a_trial_without_them_is_the_one_of_before(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE + "trainer: {epochs: 5, updates: 400}")
    suite = load_suite(file)
    (job,) = suite.jobs()
    assert job.trainer == {"epochs": 5, "updates": 400}
    assert resolved_trainer(job)["updates"] == 400
    assert "updates" not in resolved_trainer(Job(Source("factors"), "mean_fusion", trainer={"updates": None}))
    plain = Job(Source("factors"), "mean_fusion", protocol="clean", trainer={"epochs": 5})
    assert plain.trial().hash != job.trial().hash
    file.write_text(SUITE + "trainer: {updates: 90000}")
    assert load_suite(file).estimate() > 3 * suite.estimate()
    with pytest.raises(ConfigError, match="updates must be at least 1"):
        load_suite(file, settings={"trainer.updates": 0})


def test_the_command_line_takes_updates(tmp_path: Path) -> None:
    def run(*more: str) -> Any:
        words = ["train", "factors", "--epochs", "2", "-o", str(tmp_path / "m"), *more]
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, words)

    done = run("--updates", "5")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "m" / "model.json").exists()
    assert run("--updates", "0").exit_code != 0
