"""A pipeline from training to use: what is damaged, restored and asked when, and what is kept, saved, and built again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from kintsugi.components.teachers import UnimodalTeacher
from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.features import Features, Fused, Stream
from kintsugi.core.methods import METHODS, create
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.stage import Stage
from kintsugi.core.wrappers import Answer, Inner, Monitor, Restorer, Runner, Strategy
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect import mcar
from kintsugi.io import saved_models as store
from kintsugi.testing.fixture import Fixture, toy
from kintsugi.training import stage_run
from kintsugi.training.trainer import Trainer

DIM = 4
NINE = (
    "ccm", "corruption_augmentation", "early_fusion", "kd_mm", "late_fusion", "mean_fusion", "missing_aware_prompts", "mmin",
    "smil",
)  # fmt: skip
CARD = Card(
    key="tried", name="Tried", leaf="general", faithful=("all",), claims=("none",), imperfection=("missing at test",),
    premise="none", confidence="high", tasks=("classification",),
)  # fmt: skip


def splits(rows: int = 96) -> Splits:
    """64 training rows of 96."""
    return Splits(*toy(rows=rows, dim=5).split())


SCHEMA = toy(rows=24, dim=5).schema


def rows_of(data: Any, count: int = 8) -> Batch:
    batch: Batch = data.batch(torch.arange(count))
    return batch


def fit(pipeline: Pipeline, data: Splits, **options: Any) -> Trainer:
    strip = options.pop("strip", True)
    trainer = Trainer(**{"epochs": 1, "batch_size": 32, "progress": False, **options})
    trainer.fit(pipeline, data, strip=strip)
    return trainer


def build(key: str, schema: Schema = SCHEMA, **hyper: Any) -> Pipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        width = {} if key == "corruption_augmentation" else {"hidden" if key == "early_fusion" else "dim": DIM}
        return create(key, schema, **width, **hyper)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


# the order of a training step ---------------------------------------------------------------------------------------
class Seen:
    """What each place of a training step was given, in order: value of the first modality in the first row."""

    def __init__(self) -> None:
        self.log: list[tuple[str, float]] = []
        self.batches: dict[str, Batch] = {}

    def note(self, place: str, batch: Batch) -> None:
        self.log.append((place, round(float(batch.inputs["m0"][0, 0]), 4)))
        self.batches[place] = batch


class AddTen(Strategy):
    """Damages each row, by 10, and leaves the clean batch in truth."""

    def __init__(self, schema: Schema, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def augment(self, batch: Batch) -> Batch:
        self.seen.note("augment", batch)
        damaged = {**batch.inputs, "m0": batch.inputs["m0"] + 10}
        return replace(batch, inputs=damaged, truth=batch if batch.truth is None else batch.truth)

    def step(self, batch: Batch, inner: Inner) -> Step:
        self.seen.note("strategy", batch)
        return inner(batch)


class Double(Restorer):
    """Restores by doubling, and fills m1 wherever it is absent."""

    def __init__(self, schema: Schema, seen: Seen) -> None:
        super().__init__()
        self.seen, self.by = seen, nn.Parameter(torch.tensor(2.0))

    def stages(self) -> list[Stage]:
        return [Stage("restore", view=_without_m2)]

    def restore(self, batch: Batch) -> Batch:
        self.seen.note("restore", batch)
        inputs = {**batch.inputs, "m0": batch.inputs["m0"] * self.by, "m1": batch.inputs["m1"].nan_to_num(0.0)}
        present = batch.present.clone()
        present[:, 1] = True
        return replace(batch, inputs=inputs, present=present)

    def step(self, batch: Batch) -> Step:
        self.seen.note("restorer's step", batch)
        return Step({"restore": self.by.square()})


class Noted(Model):
    def __init__(self, schema: Schema, seen: Seen, stage: Stage) -> None:
        super().__init__(schema, DIM)
        self.seen, self.stage = seen, stage

    def stages(self) -> list[Stage]:
        return [self.stage]

    def step(self, batch: Batch) -> Step:
        self.seen.note("model", batch)
        return super().step(batch)


def _without_m2(batch: Batch, source: torch.Generator) -> Tensor:
    return torch.tensor([True, True, False]).expand(batch.present.shape)


def noted(stage: Stage) -> tuple[Pipeline, Seen]:
    seen = Seen()
    return Pipeline(Noted(SCHEMA, seen, stage), Double(SCHEMA, seen), [AddTen(SCHEMA, seen)]), seen


def test_view_augmentation_restoring_and_step_come_in_this_order_and_truth_is_clean() -> None:
    data = splits()
    pipeline, seen = noted(Stage("train", view=_without_m2))
    fit(pipeline, data, batch_size=64, select=False)
    by = float(pipeline.restore.by.detach())  # type: ignore[union-attr,arg-type]
    assert [place for place, _ in seen.log] == [
        "augment", "restorer's step", "augment", "restore", "strategy", "model",
    ]  # fmt: skip
    for place, step in (("restorer's step", 1.0), ("model", by)):
        batch = seen.batches[place]
        clean = data.train.batch(torch.tensor([data.train.index.tolist().index(int(i)) for i in batch.index]))
        assert torch.allclose(batch.inputs["m0"], (clean.inputs["m0"] + 10) * step), place
        assert not bool(batch.present[:, 2].any()), "the view comes first"
        assert batch.truth is not None
        assert torch.equal(batch.truth.inputs["m0"], clean.inputs["m0"]), f"truth of the {place} is not clean"
        assert bool(batch.truth.present.all())
    assert not bool(seen.batches["augment"].present[:, 2].any())


def test_the_auxiliary_batch_is_augmented_and_restored_too() -> None:
    data = splits()
    pipeline, seen = noted(Stage("train", auxiliary="val"))
    fit(pipeline, data, batch_size=64, select=False)
    by = float(pipeline.restore.by.detach())  # type: ignore[union-attr,arg-type]
    auxiliary = seen.batches["model"].auxiliary
    assert auxiliary is not None
    clean = data.val.batch(torch.tensor([data.val.index.tolist().index(int(i)) for i in auxiliary.index]))
    assert torch.allclose(auxiliary.inputs["m0"], (clean.inputs["m0"] + 10) * by)
    assert auxiliary.truth is not None
    assert torch.equal(auxiliary.truth.inputs["m0"], clean.inputs["m0"])
    assert seen.batches["strategy"].auxiliary is auxiliary


def test_no_gradient_of_the_model_s_step_reaches_the_restorer() -> None:
    pipeline, _ = noted(Stage("train"))
    pipeline.training_step(rows_of(splits().train)).total.backward()
    assert pipeline.restore is not None
    assert all(p.grad is None for p in pipeline.restore.parameters())
    assert any(p.grad is not None for p in pipeline.model.parameters())


def test_what_came_with_nothing_stays_so_and_used_is_what_came_in() -> None:
    pipeline, _ = noted(Stage("train"))
    batch = rows_of(splits().train, 3).where(torch.tensor([[True, False, True], [False] * 3, [True, True, False]]))
    restored = pipeline.restored(batch)
    assert restored.present.tolist() == [[True, True, True], [False] * 3, [True, True, False]]
    answer = pipeline.eval()(batch)
    assert answer.used.tolist() == batch.present.tolist()
    assert torch.equal(answer.output[1], pipeline.model.prior)
    assert answer.embedding is not None
    assert answer.embedding.isnan().any(1).tolist() == [False, True, False]


def test_what_was_filled_is_answered_from() -> None:
    pipeline, _ = noted(Stage("train"))
    only = rows_of(splits().train, 3).only("m1")
    assert not torch.equal(pipeline.eval()(only).output, pipeline(only.where(torch.tensor([True, False, True]))).output)
    alone = rows_of(splits().train, 3).only("m0")
    without = Pipeline(pipeline.model).eval()
    assert not torch.allclose(without(alone).output, pipeline(alone).output)


# who stands where ---------------------------------------------------------------------------------------------------
class Looks(Monitor):
    """Notes, when it calibrates, which pipeline it stands in."""

    uses = ("helper",)

    def __init__(self, schema: Schema) -> None:
        super().__init__()

    def calibrate(self, data: Splits) -> None:
        self.__dict__["calibrated_in"] = self.pipeline_in_use


class Reads(Strategy):
    def __init__(self, schema: Schema) -> None:
        super().__init__()


def test_every_component_knows_the_whole_pipeline() -> None:
    model, strategy, monitor, restorer = Model(SCHEMA, DIM), Reads(SCHEMA), Looks(SCHEMA), Restorer()
    with pytest.raises(ConfigError, match=r"Reads is in no pipeline yet: Pipeline\(...\) attaches"):
        _ = strategy.pipeline_in_use
    helper = UnimodalTeacher(SCHEMA, "m1", DIM)
    pipeline = Pipeline(model, restorer, [strategy], [monitor], {"helper": helper})
    for component in (model, strategy, monitor, restorer, helper):
        assert component.pipeline_in_use is pipeline
    assert strategy.host is monitor.host is model
    assert strategy.pipeline_in_use.restore is restorer
    assert strategy.pipeline_in_use.shared["helper"] is helper
    owners = [
        n for n, _ in pipeline.named_parameters(remove_duplicate=False) if n.split(".")[0] not in ("model", "shared")
    ]
    assert owners == [], "a parameter has two owners"


def test_a_model_that_was_trained_in_another_pipeline_is_this_one_s_again() -> None:
    class Alone(Strategy):
        def __init__(self, schema: Schema) -> None:
            super().__init__()

        def fit(self, trainer: Runner, pipeline: Pipeline, data: Splits) -> None:
            trainer.run_all(Pipeline(pipeline.shared["helper"]), data)  # type: ignore[arg-type]
            trainer.run_all(pipeline, data)

    helper, monitor = UnimodalTeacher(SCHEMA, "m1", DIM), Looks(SCHEMA)
    pipeline = Pipeline(Model(SCHEMA, DIM), None, [Alone(SCHEMA)], [monitor], {"helper": helper})
    trainer = fit(pipeline, splits())
    assert [r["stage"] for r in trainer.history] == ["teacher of m1", "train"]
    assert helper.pipeline_in_use is pipeline
    assert monitor.__dict__["calibrated_in"] is pipeline


# what is served, and training again ---------------------------------------------------------------------------------
class Warms(Model):
    """Has a head for training only."""

    training_only = ("warm_head",)

    def __init__(self, schema: Schema, dim: int = DIM) -> None:
        super().__init__(schema, dim)
        self.warm_head = nn.Linear(3, 3)

    def prepare(self, data: Splits, stage: Stage) -> None:
        self.keep_frozen("teacher", self.encoders)

    def step(self, batch: Batch) -> Step:
        self.get_submodule("teacher")
        return super().step(batch).plus(warm=self.warm_head.weight.square().mean())


def test_what_no_answer_needs_is_let_go_and_its_recipe_kept() -> None:
    shared = {"helper": UnimodalTeacher(SCHEMA, "m1", DIM), "teacher": UnimodalTeacher(SCHEMA, "m0", DIM)}
    pipeline = Pipeline(Warms(SCHEMA), None, [Reads(SCHEMA)], [Looks(SCHEMA)], shared)
    assert set(pipeline.served()) == {"model", "monitors.0", "shared.helper"}
    fit(pipeline, splits())
    assert [path for path, _ in pipeline.named_components()] == ["model", "shared.helper", "monitors.0"]
    assert {path: recipe.kind for path, recipe in pipeline.recipes.items()} == {
        "shared.teacher": UnimodalTeacher, "strategies.0": Reads,
    }  # fmt: skip
    assert pipeline.recipes["shared.teacher"].hyper == {"modality": "m0", "dim": DIM}
    assert not hasattr(pipeline.model, "warm_head")
    assert not hasattr(pipeline.model, "teacher")


def test_what_a_served_component_uses_through_another_is_served() -> None:
    class Through(UnimodalTeacher):
        uses = ("deep",)

    shared = {"deep": UnimodalTeacher(SCHEMA, "m0", DIM), "helper": Through(SCHEMA, "m1", DIM)}
    pipeline = Pipeline(Model(SCHEMA, DIM), monitors=[Looks(SCHEMA)], shared=shared)
    assert set(pipeline.served()) == {"model", "shared.deep", "shared.helper", "monitors.0"}


def test_a_training_that_is_to_be_looked_at_keeps_everything() -> None:
    pipeline = build("kd_mm", fallback=False)
    fit(pipeline, splits(), strip=False)
    assert {path for path, _ in pipeline.named_components()} >= {"shared.teacher_m0", "strategies.0"}
    assert pipeline.recipes == {}
    pipeline.strip()
    assert [path for path, _ in pipeline.named_components()] == ["model"]


@pytest.mark.parametrize("key", ["kd_mm", "mmin", "corruption_augmentation"])
@pytest.mark.parametrize("loaded", [False, True], ids=["trained", "loaded"])
def test_a_model_can_be_trained_again_from_the_weights_that_it_is_served_with(
    key: str, loaded: bool, tmp_path: Path
) -> None:
    data = splits()
    pipeline = build(key, **({"fallback": False} if key == "kd_mm" else {}))
    first = fit(pipeline, data)
    before = weights(pipeline)
    if loaded:
        pipeline, _ = store.load(store.save(pipeline, tmp_path / "model"))
    recipes = dict(pipeline.recipes)
    starts: list[dict[str, Tensor]] = []
    components: list[list[str]] = []

    def look(losses: stage_run.Losses) -> None:
        if losses.stage.name not in {f"teacher of {m}" for m in SCHEMA.names}:
            starts.append(weights(pipeline))
            components.append([path for path, _ in pipeline.named_components()])

    trainer = Trainer(epochs=1, batch_size=32, progress=False)
    trainer.observers.append(look)
    trainer.fit(pipeline, data)
    assert [r["stage"] for r in trainer.history] == [r["stage"] for r in first.history]
    assert set(recipes) <= set(components[0]), "something that training needs was not built again"
    assert differing({n: starts[0][n] for n in before}, before) == [], "it does not start from the served weights"
    assert differing(before, weights(pipeline)) != []
    assert pipeline.recipes == recipes


def test_teachers_that_are_built_again_are_new_and_in_their_old_order() -> None:
    names = ("zebra", "ant", "mole")  # not in the order of the alphabet
    source = toy(rows=96, dim=5).source
    assert isinstance(source, TensorSource)
    schema = Schema(tuple(Modality(name, "vector", (5,)) for name in names), source.schema.task)
    inputs = dict(zip(names, source._all.inputs.values(), strict=True))
    renamed = TensorSource(schema, replace(source._all, names=names, inputs=inputs))
    renamed.split = source.split
    data = Splits(*Dataset(renamed).split())
    pipeline = build("kd_mm", schema, fallback=False)
    fit(pipeline, data)
    pipeline.begin_training()
    assert list(pipeline.shared) == [f"teacher_{name}" for name in names]
    assert all(component.pipeline_in_use is pipeline for _, component in pipeline.named_components())


@pytest.mark.parametrize("key", NINE)
def test_as_many_parameters_are_saved_as_are_loaded_and_counted(key: str, tmp_path: Path) -> None:
    pipeline = build(key)
    fit(pipeline, splits())
    before = weights(pipeline)
    loaded, _ = store.load(store.save(pipeline, tmp_path / "model"))
    assert differing(before, weights(loaded)) == []
    assert [n for n, _ in loaded.named_parameters()] == [n for n, _ in pipeline.named_parameters()]
    assert loaded.recipes == pipeline.recipes
    again, _ = store.load(store.save(loaded, tmp_path / "again"))
    assert differing(before, weights(again)) == []


# settling and choosing ----------------------------------------------------------------------------------------------
class Settles(Model):
    """Notes what happens around it, and whether gradient and training mode are on."""

    def __init__(self, schema: Schema, *stages: Stage) -> None:
        super().__init__(schema, DIM)
        self.phases, self.log = stages or (Stage("train"),), []
        self.register_buffer("bank", None)

    phases: tuple[Stage, ...]
    log: list[str]

    def stages(self) -> list[Stage]:
        return list(self.phases)

    def on_epoch(self, data: Splits) -> None:
        assert not torch.is_grad_enabled()
        self.log.append("epoch")

    def settle(self, data: Splits) -> None:
        assert not torch.is_grad_enabled()
        assert not self.training
        self.bank = self.task_head.linear.weight.clone()  # type: ignore[union-attr,operator]
        self.log.append("settle")

    def solve(self, features: Features, batch: Batch) -> None:
        self.log.append("solve")


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    values = iter(scores)

    def validate(pipeline: Pipeline, data: Any, device: Any) -> tuple[float, int, str]:
        pipeline.model.log.append("validate")  # type: ignore[union-attr,operator]
        return next(values), 1, "score"

    monkeypatch.setattr(stage_run, "validate", validate)


def test_settle_comes_before_each_validation_and_after_the_best_weights_are_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored(monkeypatch, [0.9, 0.1])
    model = Settles(SCHEMA)
    trainer = fit(Pipeline(model), splits(), epochs=2)
    assert model.log == ["epoch", "settle", "validate", "epoch", "settle", "validate", "settle"]
    assert [r["val/score"] for r in trainer.history] == [0.9, 0.1]
    assert torch.equal(model.get_buffer("bank"), model.task_head.linear.weight)  # type: ignore[union-attr,arg-type]


def test_without_validation_it_settles_once_at_the_end() -> None:
    model = Settles(SCHEMA)
    fit(Pipeline(model), splits(), epochs=2, select=False)
    assert model.log == ["epoch", "epoch", "settle"]


def test_a_last_closed_form_does_not_switch_off_the_choice_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [0.9, 0.1])
    model = Settles(SCHEMA, Stage("train"), Stage("closed", solve=True))
    seen: list[dict[str, Tensor]] = []
    monkeypatch.setattr(model, "on_update", lambda: seen.append(weights(model)))
    trainer = fit(Pipeline(model), splits(), epochs=4, batch_size=64)
    assert [r.get("val/score") for r in trainer.history] == [0.9, 0.1]
    assert model.log[-2:] == ["solve", "settle"]
    assert len(seen) == 2
    linear = "task_head.linear.weight"
    assert torch.equal(model.state_dict()[linear], seen[0][linear]), "the first epoch was the better one"
    assert not torch.equal(seen[0][linear], seen[1][linear])


class Grows(Settles):
    """Buffers of another size in each epoch, and one that is there from the second on."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema)
        self.register_buffer("late", None)

    def on_epoch(self, data: Splits) -> None:
        if self.clock.epoch:
            self.late = torch.ones(2)

    def settle(self, data: Splits) -> None:
        self.bank = torch.full((self.clock.epoch + 1,), float(self.clock.epoch))


@pytest.mark.parametrize(("scores", "best"), [([0.9, 0.1, 0.2], 0), ([0.1, 0.9, 0.2], 1), ([0.1, 0.2, 0.9], 2)])
def test_buffers_of_the_best_epoch_come_back_with_the_size_that_they_had(
    scores: list[float], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, scores)
    model = Grows(SCHEMA)
    pipeline = Pipeline(model)
    monkeypatch.setattr(pipeline, "settle", _settles_in_training(pipeline))
    fit(pipeline, splits(), epochs=3)
    assert model.get_buffer("bank").tolist() == [float(best)] * (best + 1)
    assert (model.late is None) == (best == 0)


def _settles_in_training(pipeline: Pipeline) -> Callable[[Splits], None]:
    """Only before validations, so that what came back can be seen."""

    def settle(data: Splits) -> None:
        if pipeline.model.clock.progress < 1.0:
            pipeline.model.settle(data)

    return settle


# tables ------------------------------------------------------------------------------------------------------------
class Reading(Model):
    """Notes the rows of its batches and of their auxiliary ones, and their identity."""

    card = CARD

    def __init__(self, schema: Schema, *stages: Stage) -> None:
        super().__init__(schema, DIM)
        self.phases, self.log = stages, []

    phases: tuple[Stage, ...]
    log: list[Batch]

    def stages(self) -> list[Stage]:
        return list(self.phases)

    def step(self, batch: Batch) -> Step:
        self.log.append(batch)
        return super().step(batch)


def with_auxiliary(change: Callable[[Dataset], Any] = lambda data: None) -> Splits:
    """An auxiliary table of 30 rows, of which the first ten have no label and the first five lack m2."""
    whole = toy(rows=30, dim=5, seed=7)
    source = whole.source
    assert isinstance(source, TensorSource)
    source._all.target_present = torch.arange(30) >= 10
    source.target_present = source._all.target_present
    source.present[:5, 2] = False
    source._all.present[:5, 2] = False
    change(whole)
    return replace(splits(), auxiliary=whole)


def test_a_stage_reads_rows_of_the_table_that_it_names() -> None:
    data = with_auxiliary()
    hidden = data.val.with_missing(mcar(0.4), seed=3)  # type: ignore[attr-defined]
    data = replace(data, val=hidden)
    stages = (
        Stage("own", rows="auxiliary/unlabelled"), Stage("pairs", rows="val/complete", auxiliary="auxiliary/incomplete"),
    )  # fmt: skip
    model = Reading(SCHEMA, *stages)
    fit(Pipeline(model), data, epochs=2, batch_size=64)
    assert data.auxiliary is not None
    own, pairs = model.log
    assert sorted(own.index.tolist()) == data.auxiliary.index[:10].tolist()
    assert sorted(pairs.index.tolist()) == sorted(hidden.index[hidden.positions("complete")].tolist())
    assert pairs.auxiliary is not None
    assert set(pairs.auxiliary.index.tolist()) <= set(data.auxiliary.index[:5].tolist())
    assert len(pairs.auxiliary) == len(pairs)


@pytest.mark.parametrize(
    "stage", [Stage("late", rows="auxiliary/all"), Stage("late", auxiliary="auxiliary/unlabelled")]
)
def test_a_table_that_was_not_given_is_missed_before_the_first_step(stage: Stage) -> None:
    model = Reading(SCHEMA, Stage("early"), stage)
    words = r"tried: stage 'late' reads an auxiliary table, and none was given: fit\(train, val, auxiliary=…\)"
    with pytest.raises(DataError, match=words):
        fit(Pipeline(model), splits())
    assert model.log == []


def test_a_table_without_such_rows_is_named() -> None:
    model = Reading(SCHEMA, Stage("late", rows="auxiliary/unlabelled"))
    data = replace(splits(), auxiliary=toy(rows=30, dim=5, seed=7))
    with pytest.raises(DataError, match=r"'auxiliary/unlabelled' rows, and .* has none \(30 rows"):
        fit(Pipeline(model), data)
    assert model.log == []


def test_the_auxiliary_table_belongs_to_the_key_of_a_run() -> None:
    trainer, pipeline = Trainer(progress=False), build("mean_fusion")
    data = with_auxiliary()
    other = replace(data, auxiliary=toy(rows=30, dim=5, seed=8))
    keys = [trainer._name_run(pipeline, each) for each in (splits(), data, with_auxiliary(), other)]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


def test_an_auxiliary_table_of_other_modalities_is_refused() -> None:
    data = replace(splits(), auxiliary=toy(rows=30, dim=6))
    with pytest.raises(ConfigError, match=r"auxiliary table \(toy\): read otherwise.*same modalities"):
        fit(build("mean_fusion"), data)


def lacking_m1() -> Splits:
    whole = toy(rows=96, dim=5)
    assert isinstance(whole.source, TensorSource)
    whole.source._all.present[:64, 1] = False
    whole.source.present[:64, 1] = False
    return Splits(*whole.split())


@pytest.mark.parametrize(
    ("allowed", "auxiliary", "words"),
    [
        ((), False, "modality 'm1' is absent in all 64 training rows; leave it out of the schema"),
        ((), True, r"only the auxiliary table has modality 'm1', and tried cannot use that.*'auxiliary' in modality_only_in"),
        (("auxiliary",), False, "modality 'm1' is absent in all 64"),
        (("train",), False, "modality 'm1' is absent in all 64"),
        (("auxiliary",), True, None),
        (("use",), False, None),
        (("use",), True, None),
    ],
)  # fmt: skip
def test_a_modality_that_training_lacks_needs_a_card_that_can_do_with_it(
    allowed: tuple[str, ...], auxiliary: bool, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reading, "card", replace(CARD, modality_only_in=allowed))
    monkeypatch.setattr(Reading, "reads_auxiliary", True)
    data = lacking_m1()
    if auxiliary:
        data = replace(data, auxiliary=toy(rows=30, dim=5, seed=7))
    model = Reading(SCHEMA, Stage("train"))
    if words is None:
        fit(Pipeline(model), data)
        assert model.log
    else:
        with pytest.raises(DataError, match=words):
            fit(Pipeline(model), data)
        assert model.log == []


@pytest.mark.parametrize("reference", [False, True])
def test_rows_have_an_identity_only_for_a_method_that_reads_other_rows(
    reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reading, "card", replace(CARD, reference=reference))
    data = with_auxiliary()
    model = Reading(SCHEMA, Stage("train", auxiliary="auxiliary/all"))
    pipeline = Pipeline(model)
    fit(pipeline, data)
    for batch in model.log:
        assert batch.auxiliary is not None
        assert (batch.identity is not None) == (batch.auxiliary.identity is not None) == reference
    if reference:
        told = torch.cat([batch.identity for batch in model.log if batch.identity is not None])
        other = torch.cat(
            [b.auxiliary.identity for b in model.log if b.auxiliary is not None and b.auxiliary.identity is not None]
        )
        assert len(told.unique()) == 64
        assert not set(told.tolist()) & set(other.tolist()), "rows of two tables are taken for one"
        assert pipeline.model.encode(model.log[0]).identity is model.log[0].identity


# adapting in use ----------------------------------------------------------------------------------------------------
class Adapts(Monitor):
    """Moves the model's head by what it sees, counts its rows, and draws from its noise."""

    adapts: ClassVar[bool] = True

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.resets, self.sizes, self.momentum = 0, [], 0.0

    count: Tensor
    sizes: list[int]

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        assert torch.is_grad_enabled()
        prediction = inner(batch)
        self.sizes.append(len(batch))
        self.momentum += float(prediction.output.detach().square().sum())
        loss = prediction.output.square().sum() * (1 + torch.rand((), generator=self.noise))
        head = self.host.task_head.linear.weight  # type: ignore[union-attr]
        (slope,) = torch.autograd.grad(loss, head)  # type: ignore[arg-type]
        with torch.no_grad():
            head -= 0.1 * slope  # type: ignore[operator]
            self.count += len(batch)
        return inner(batch)

    def reset(self) -> None:
        self.resets += 1
        self.momentum = 0.0


@pytest.fixture
def adapting(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Trained and calibrated."""
    monkeypatch.setitem(METHODS._classes, "tried", Adapts)
    monkeypatch.setattr(Adapts, "card", CARD, raising=False)
    pipeline = Pipeline(build("mean_fusion").model, monitors=[Adapts(SCHEMA)])
    fit(pipeline, splits())
    return pipeline


def monitor_of(pipeline: Pipeline) -> Adapts:
    monitor = pipeline.monitors[0]
    assert isinstance(monitor, Adapts)
    return monitor


def test_an_adapting_pipeline_answers_row_after_row_whatever_the_size_of_the_batch(adapting: Pipeline) -> None:
    batch = rows_of(splits().test, 6)
    with torch.no_grad():
        together = adapting(batch)
    assert monitor_of(adapting).sizes == [1] * 6
    assert not together.output.requires_grad
    adapting.reset()
    pieces = [adapting(batch.rows(rows)) for rows in torch.arange(6).split(4)]
    assert torch.equal(torch.cat([p.output for p in pieces]), together.output)
    adapting.reset()
    turned = adapting(batch.rows(torch.arange(6).flip(0)))
    assert not torch.equal(turned.output.flip(0), together.output), "what it learns counts for the next row"


def test_reset_leads_back_to_the_calibrated_state_bit_for_bit(adapting: Pipeline) -> None:
    calibrated, batch = weights(adapting), rows_of(splits().test, 5)
    first = adapting(batch)
    moved = differing(calibrated, weights(adapting))
    assert moved == ["model.task_head.linear.weight", "monitors.0.count"]
    before = adapting.answer_before(batch).output
    resets = monitor_of(adapting).resets
    adapting.reset()
    assert differing(calibrated, weights(adapting)) == []
    assert (monitor_of(adapting).resets, monitor_of(adapting).momentum) == (resets + 1, 0.0)
    assert torch.equal(adapting(batch).output, first.output), "its noise was not drawn anew"
    adapting.reset()
    assert torch.equal(before, adapting.model(batch).output), "that is not the answer of the calibrated model"


def test_inference_mode_and_no_rows_at_all(adapting: Pipeline) -> None:
    batch = rows_of(splits().test, 2)
    calibrated = weights(adapting)
    with torch.inference_mode(), pytest.raises(ConfigError, match=r"needs gradients; ask it under torch\.no_grad"):
        adapting(batch)
    assert differing(calibrated, weights(adapting)) == []
    with torch.inference_mode():
        assert Pipeline(adapting.model)(batch).output.shape == (2, 4)


def test_what_is_saved_is_the_calibrated_state(adapting: Pipeline, tmp_path: Path) -> None:
    calibrated, batch = weights(adapting), rows_of(splits().test, 4)
    first = adapting(batch).output
    loaded, _ = store.load(store.save(adapting, tmp_path / "model"))
    assert differing(weights(loaded), calibrated) == []
    assert torch.equal(loaded(batch).output, first)
    loaded.reset()
    assert differing(weights(loaded), calibrated) == []


def test_training_again_starts_from_the_calibrated_state_and_forgets_it(adapting: Pipeline, tmp_path: Path) -> None:
    calibrated = weights(adapting)
    adapting(rows_of(splits().test, 4))
    adapting.begin_training()
    assert differing(weights(adapting), calibrated) == []
    assert adapting.calibrated == {}
    with torch.no_grad():
        for p in adapting.model.parameters():
            p.add_(1.0)
    loaded, _ = store.load(store.save(adapting, tmp_path / "model"))
    assert differing(weights(loaded), weights(adapting)) == [], "weights of before the training were saved"


def test_a_clone_adapts_by_itself(adapting: Pipeline) -> None:
    calibrated, batch = weights(adapting), rows_of(splits().test, 4)
    twin = store.clone(adapting)
    first = twin(batch).output
    assert differing(weights(adapting), calibrated) == []
    assert monitor_of(twin).host is twin.model
    assert torch.equal(adapting(batch).output, first)
    twin.reset()
    assert differing(weights(twin), calibrated) == []
    assert differing(weights(adapting), calibrated) != []


def test_a_pipeline_that_does_not_adapt_remembers_nothing() -> None:
    pipeline = build("ccm")
    fit(pipeline, splits())
    assert not pipeline.adapts
    assert pipeline.calibrated == {}
    before, batch = weights(pipeline), rows_of(splits().test)
    pipeline.reset()
    assert differing(before, weights(pipeline)) == []
    assert torch.equal(pipeline.answer_before(batch).output, pipeline.model(batch).output)


# batches, features, predictions ---------------------------------------------------------------------------------------
def test_rows_of_a_batch_keep_the_whole_auxiliary_batch_also_in_truth() -> None:
    data = splits()
    batch = replace(rows_of(data.train, 6), auxiliary=rows_of(data.val, 9), identity=torch.arange(6))
    some = replace(batch, truth=batch).rows(torch.tensor([4, 1]))
    assert some.truth is not None
    for each in (some, some.truth):
        assert each.index.tolist() == batch.index[[4, 1]].tolist()
        assert each.auxiliary is not None
        assert len(each.auxiliary) == 9
        assert each.identity is not None
        assert each.identity.tolist() == [4, 1]


def features(identity: Tensor | None) -> Features:
    streams = {name: Stream.vector(torch.randn(4, DIM)) for name in ("a", "b")}
    return Features(streams, torch.ones(4, 2, dtype=torch.bool), identity)


@pytest.mark.parametrize("identity", [None, torch.tensor([7, 8, 9, 10])], ids=["nobody asked", "asked"])
def test_the_identity_of_rows_survives_whatever_is_done_to_features(identity: Tensor | None) -> None:
    whole = features(identity)
    other = {"b": Stream.vector(torch.zeros(4, DIM))}
    for same in (whole.where(torch.tensor([True, False])), whole.replace(other), whole.replace(present=whole.present)):
        assert same.identity is identity
    some = whole.rows(torch.tensor([2, 0])).identity
    assert (some is None) if identity is None else (some is not None and some.tolist() == [9, 7])


def test_weights_of_what_was_fused_are_cut_with_its_rows() -> None:
    fused = Fused.vector(torch.arange(6.0).view(3, 2), weights=torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]))
    some = fused.rows(torch.tensor([2, 0]))
    assert isinstance(some, Fused)
    assert some.weights is not None
    assert some.weights.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert some.tokens[:, 0].tolist() == [[4.0, 5.0], [0.0, 1.0]]
    seen = fused.where(torch.tensor([True, False, True]))
    assert seen.weights is not None
    assert seen.weights.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.25, 0.75]]
    assert seen.tokens[1].tolist() == [[0.0, 0.0]]
    assert Fused.vector(torch.ones(2, 2)).rows(torch.tensor([0])).weights is None


def prediction() -> Prediction:
    """Of three rows and two modalities, with everything that a prediction may say."""
    return Prediction(
        output=torch.arange(6.0).view(3, 2), used=torch.ones(3, 2, dtype=torch.bool), embedding=torch.ones(3, 4),
        unimodal={"a": torch.full((3, 2), 0.5), "b": torch.full((3, 2), 0.25)}, restored={"a": torch.ones(3, 5)},
        weights=torch.full((3, 2), 0.5), reliability=torch.full((3, 2), 0.75), uncertainty=torch.tensor([0.1, 0.2, 0.3]),
        extras={"mine": torch.ones(7)},
    )  # fmt: skip


def test_where_the_prior_speaks_nothing_else_is_known() -> None:
    whole = prediction()
    answer = whole.fall_back(torch.tensor([True, False, True]), torch.tensor([8.0, 9.0]))
    assert answer.output.tolist() == [[0, 1], [8, 9], [4, 5]]
    assert answer.used.tolist() == [[True, True], [False, False], [True, True]]
    assert answer.weights is not None
    assert answer.weights.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]
    for known in (answer.embedding, answer.uncertainty):
        assert known is not None
        assert known.isnan().view(3, -1).all(1).tolist() == [False, True, False]
        assert known.isnan().view(3, -1).any(1).tolist() == [False, True, False]
    assert whole.output.tolist() == [[0, 1], [2, 3], [4, 5]], "the original is changed"
    assert Prediction(whole.output, whole.used).fall_back(torch.tensor([True] * 3), torch.zeros(2)).embedding is None


def test_of_an_absent_modality_nothing_is_said() -> None:
    present = torch.tensor([[True, False], [False, True], [True, True]])
    answer = prediction().where_present(("a", "b"), present)
    assert answer.unimodal["a"].isnan().all(1).tolist() == [False, True, False]
    assert answer.unimodal["b"].isnan().all(1).tolist() == [True, False, False]
    assert answer.reliability is not None
    assert torch.equal(answer.reliability.isnan(), ~present)
    assert bool((answer.reliability[present] == 0.75).all())


def test_answers_are_put_together_row_after_row() -> None:
    whole = prediction()
    parts = [
        Prediction(
            whole.output[rows], whole.used[rows], None, {n: x[rows] for n, x in whole.unimodal.items()},
            weights=None if whole.weights is None else whole.weights[rows], extras={"mine": 1},
        )
        for rows in (slice(0, 1), slice(1, 3))
    ]  # fmt: skip
    joined = Prediction.concatenate(parts)
    assert torch.equal(joined.output, whole.output)
    assert torch.equal(joined.unimodal["b"], whole.unimodal["b"])
    assert joined.weights is not None
    assert joined.weights.shape == (3, 2)
    assert (joined.embedding, joined.reliability, joined.extras, joined.restored) == (None, None, {}, {})


def test_a_detached_answer_has_no_way_back() -> None:
    output = torch.ones(2, 2, requires_grad=True)
    answer = Prediction(output * 2, torch.ones(2, 1, dtype=torch.bool), unimodal={"a": output * 3}).detach()
    assert not answer.output.requires_grad
    assert not answer.unimodal["a"].requires_grad


# fixtures -------------------------------------------------------------------------------------------------------------
def test_a_fixture_keeps_what_only_training_needs() -> None:
    trained = Fixture(METHODS["kd_mm"], epochs=1).trained()
    assert len(trained.strategies) == 1
    assert trained.strategies[0].teachers.keys() == set(trained.schema.names)  # type: ignore[union-attr,operator]


def test_a_copy_of_a_pipeline_keeps_recipes_and_knows_itself() -> None:
    pipeline = build("corruption_augmentation")
    fit(pipeline, splits())
    twin = copy.deepcopy(pipeline)
    twin.begin_training()
    assert (len(twin.strategies), len(pipeline.strategies)) == (1, 0)
    assert isinstance(twin.strategies[0], Component)
    assert twin.strategies[0].pipeline_in_use is twin


def test_a_copy_of_one_component_does_not_copy_its_pipeline() -> None:
    schema = toy(rows=24).schema
    pipeline = create("ccm", schema)
    model = copy.deepcopy(pipeline.model)
    with pytest.raises(ConfigError, match="in no pipeline"):
        _ = model.pipeline_in_use
    twin = copy.deepcopy(pipeline)
    assert twin.monitors[0].host is twin.model  # type: ignore[union-attr]
    assert pipeline.monitors[0].host is pipeline.model  # type: ignore[union-attr]


# what others could spoil --------------------------------------------------------------------------------------------
def labelled(rows: int = 4) -> Batch:
    batch = rows_of(splits().train, rows)
    assert batch.target is not None
    return batch


def test_neither_labels_nor_truth_nor_weights_reach_an_answer() -> None:
    given: list[Batch] = []

    class Watching(Monitor):
        def answer(self, batch: Batch, inner: Answer) -> Prediction:
            given.append(batch)
            return inner(batch)

    batch = replace(labelled(), weight=torch.ones(4))
    batch = batch.view(torch.tensor([True, False, False]))
    Pipeline(Model(SCHEMA, DIM), monitors=[Watching()]).eval()(batch)
    (seen,) = given
    assert (seen.target, seen.target_present, seen.weight, seen.truth) == (None, None, None, None)
    assert batch.target is not None
    assert batch.truth is not None


class FillsAll(Restorer):
    """Works in place, and makes a batch of its own in which nothing but inputs is named."""

    def restore(self, batch: Batch) -> Batch:
        batch.present.fill_(True)
        batch.inputs["m0"] = batch.inputs["m0"] + 1
        return Batch(batch.names, batch.inputs, batch.present, batch.index)


def test_a_restorer_changes_nothing_but_inputs_masks_and_what_is_there() -> None:
    batch = replace(labelled(), identity=torch.arange(4), weight=torch.ones(4))
    batch = batch.view(torch.tensor([[True, False, True], [False, True, True], [False] * 3, [True] * 3]))
    before, inputs = batch.present.clone(), dict(batch.inputs)
    pipeline = Pipeline(Model(SCHEMA, DIM), restore=FillsAll()).eval()
    restored = pipeline.restored(batch)
    for name in ("target", "target_present", "weight", "truth", "identity", "index"):
        assert getattr(restored, name) is getattr(batch, name), name
    assert restored.observed.tolist() == before.tolist()
    assert restored.present.all(1).tolist() == [True, True, False, True]
    answer = pipeline(replace(batch, present=before.clone()))
    assert answer.used.tolist() == before.tolist()
    assert torch.equal(answer.output[2], pipeline.model.prior)
    assert all(batch.inputs[name] is x for name, x in inputs.items())


def test_the_observed_slots_follow_what_is_taken_away_and_the_rows() -> None:
    batch = replace(labelled(3), unrestored=torch.tensor([[True, False, True], [False, True, True], [True] * 3]))
    assert batch.only("m0", "m1").observed.tolist() == [[True, False, False], [False, True, False], [True, True, False]]
    assert batch.rows(torch.tensor([2, 0])).observed.tolist() == [[True] * 3, [True, False, True]]
    assert labelled(2).observed.all()


def test_an_answer_from_filled_slots_alone_rests_on_what_they_were_filled_from() -> None:
    class UsesM0(Monitor):
        def answer(self, batch: Batch, inner: Answer) -> Prediction:
            answer = inner(batch)
            return replace(answer, used=torch.tensor([[True, False, False]]).expand_as(answer.used))

    pipeline = Pipeline(Model(SCHEMA, DIM), restore=FillsAll(), monitors=[UsesM0()]).eval()
    batch = labelled(3).where(torch.tensor([[False, True, True], [True, True, False], [False] * 3]))
    answer = pipeline(batch)
    assert answer.used.tolist() == [[False, True, True], [True, False, False], [False] * 3]
    assert answer.uncertainty is not None
    assert answer.uncertainty.isnan().tolist() == [False, False, True]


def test_what_a_monitor_says_of_absent_modalities_and_of_rows_of_the_prior_is_nan() -> None:
    class Says(Monitor):
        def answer(self, batch: Batch, inner: Answer) -> Prediction:
            rows = len(batch)
            return replace(
                inner(batch), uncertainty=torch.ones(rows), embedding=torch.ones(rows, 2), reliability=torch.ones(rows, 3),
                unimodal={"m0": torch.ones(rows, 4)},
            )  # fmt: skip

    batch = labelled(2).where(torch.tensor([[False, True, True], [False] * 3]))
    answer = Pipeline(Model(SCHEMA, DIM), monitors=[Says()]).eval()(batch)
    assert answer.uncertainty is not None
    assert answer.embedding is not None
    assert answer.reliability is not None
    assert answer.uncertainty.isnan().tolist() == [False, True]
    assert answer.embedding.isnan().all(1).tolist() == [False, True]
    assert answer.reliability.isnan().tolist() == [[True, False, False], [True] * 3]
    assert answer.unimodal["m0"].isnan().all()


def test_answers_in_parts_that_say_different_things_are_joined_with_nan() -> None:
    one = Prediction(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), unimodal={"a": torch.ones(1, 2)})
    other = replace(one, unimodal={"b": torch.ones(1, 2)}, reliability=torch.ones(1, 2))
    joined = Prediction.concatenate([one, other])
    assert joined.unimodal["a"].isnan().any(1).tolist() == [False, True]
    assert joined.unimodal["b"].isnan().any(1).tolist() == [True, False]
    assert joined.reliability is not None
    assert joined.reliability.isnan().any(1).tolist() == [True, False]


class Learns(Monitor):
    """Adds to a buffer and draws a number with each row."""

    adapts = True
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        self.seen += 1
        answer = inner(batch)
        return replace(answer, output=answer.output + self.seen + torch.rand((), generator=self.noise))


def test_what_was_put_together_from_trained_components_can_be_led_back() -> None:
    pipeline, batch = Pipeline(Model(SCHEMA, DIM), monitors=[Learns()]).eval(), labelled(2)
    first = pipeline(batch).output
    assert not torch.equal(pipeline(batch).output, first)
    pipeline.reset()
    assert torch.equal(pipeline(batch).output, first)


def test_a_copy_that_is_taken_in_a_stream_goes_on_as_the_original_does() -> None:
    pipeline, batch = Pipeline(Model(SCHEMA, DIM), monitors=[Learns(), Learns()]).eval(), labelled(2)
    pipeline(batch)
    twin = copy.deepcopy(pipeline)
    assert torch.equal(twin(batch).output, pipeline(batch).output)
    pipeline.reset()
    numbers = [torch.rand(2, generator=monitor.noise) for monitor in pipeline.monitors]  # type: ignore[union-attr]
    assert not torch.equal(*numbers)


def test_asking_for_the_answer_of_before_does_not_write_into_the_calibrated_state() -> None:
    class Normalising(Model):
        def __init__(self, schema: Schema) -> None:
            super().__init__(schema, DIM)
            self.norm = nn.BatchNorm1d(DIM)

        def fuse(self, features: Features) -> Fused:
            self.norm.train()
            fused = super().fuse(features)
            self.norm(torch.randn(4, DIM))
            return fused

    pipeline = Pipeline(Normalising(SCHEMA), monitors=[Learns()]).eval()
    pipeline.remember()
    before = {name: tensor.clone() for name, tensor in pipeline.calibrated.items()}
    pipeline.answer_before(labelled(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipeline.calibrated.items())


def test_a_shared_component_of_another_schema_is_refused_and_one_that_is_gone_is_named() -> None:
    narrow = Schema(SCHEMA.modalities[:1], SCHEMA.task)
    with pytest.raises(ConfigError, match=r"shared\.aid .* was built for m0, the model for m0, m1, m2"):
        Pipeline(Model(SCHEMA, DIM), shared={"aid": Model(narrow, DIM)})
    with pytest.raises(UnknownName, match=r"shared component 'aid'.*name it in uses"):
        Pipeline(Model(SCHEMA, DIM)).shared["aid"]


@pytest.mark.parametrize("hook", ["plan", "off", "mechanism"])
def test_a_hook_of_before_that_nobody_would_call_is_refused(hook: str) -> None:
    with pytest.raises(ConfigError, match=f"Old.{hook} is never called"):
        type("Old", (Strategy,), {hook: lambda self: None})
    with pytest.raises(ConfigError, match="takes side="):
        type("Old", (Model,), {"step": lambda self, batch, side=None: None})


def test_attributes_of_before_are_read_with_a_warning() -> None:
    pipeline = Pipeline(Model(SCHEMA, DIM))
    with pytest.warns(DeprecationWarning, match=r"Pipeline\.plan is called Pipeline\.stages now"):
        assert len(pipeline.plan()) == len(pipeline.stages())  # type: ignore[operator]
    with pytest.warns(DeprecationWarning, match=r"Batch\.side"):
        assert labelled(2).side is None  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match=r"Stage\.share"):
        assert Stage("train", fraction=2.0).share == 2.0  # type: ignore[attr-defined]
