"""Training on corrupted rows: what the model sees, what the losses may see, and that a run can be taken up again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corruption_data import make as every_kind
from kintsugi.core.batch import Batch
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.methods import create
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import KINDS, Modality, Schema
from kintsugi.data.dataset import Dataset
from kintsugi.imperfect import mcar, parse_corruption
from kintsugi.imperfect.corruption import Compose, Correlated, OneOf, Sometimes, corrupt
from kintsugi.imperfect.operator import OPERATORS
from kintsugi.io.saved_models import load, save
from kintsugi.methods.corrupted.augmentation.corruption_augmentation import NOISE, CorruptionAugmentation, up_to
from kintsugi.tasks import Classification
from kintsugi.testing.fixture import toy
from kintsugi.training import checkpoint as saved
from kintsugi.training.trainer import Trainer

KEY = "corruption_augmentation"


def build(schema: Schema, key: str = KEY, **hyper: Any) -> Pipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create(key, schema, **hyper)


def splits(rows: int = 480, rate: float = 0.0) -> Splits:
    train, val, test = toy(rows=rows).split()
    return Splits(train.with_missing(mcar(rate), seed=1) if rate else train, val, test)


def strategy(pipeline: Pipeline) -> CorruptionAugmentation:
    found = pipeline.strategies[0]
    assert isinstance(found, CorruptionAugmentation)
    return found


def prepared(data: Splits, **hyper: Any) -> CorruptionAugmentation:
    part = strategy(build(data.train.schema, **hyper))
    part.prepare(data, part.host.stages()[0])
    return part


def everything(data: Any) -> Batch:
    batch: Batch = data.batch(torch.arange(len(data)))
    return batch


# what is seen -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_a_share_of_each_modality_is_damaged_at_all_levels(share: float) -> None:
    data = splits(3000)
    part, batch = prepared(data, share=share, severity=4), everything(data.train)
    before = batch.map(torch.clone)
    after = part.augment(batch)
    assert after.severity is None
    assert after.truth is not None
    level = after.truth.severity
    assert level is not None
    hit = level > 0
    assert ((hit.float().mean(0) - share).abs() < 4 * (0.25 / len(batch)) ** 0.5).all()
    counts = torch.bincount(level[hit].long(), minlength=5)[1:]
    assert (counts - counts.sum() / 4).abs().max() < 5 * (float(counts.sum()) * 3 / 16) ** 0.5
    if share == 0.5:  # independent of each other
        assert abs(float((hit[:, 0] & hit[:, 1]).float().mean()) - 0.25) < 4 * (0.1875 / len(batch)) ** 0.5
    for column, name in enumerate(batch.names):
        assert torch.equal((after.inputs[name] != batch.inputs[name]).any(1), hit[:, column])
        assert torch.equal(after.truth.inputs[name], before.inputs[name])
        assert torch.equal(batch.inputs[name], before.inputs[name]), "the batch itself was changed"
        distance = (after.inputs[name] - batch.inputs[name]).square().mean(1).sqrt()
        means = [float(distance[level[:, column] == severity].mean()) for severity in (1, 2, 3, 4)]
        assert means == sorted(means)
        assert len(set(means)) == 4


def test_draws_belong_to_a_row_and_an_epoch() -> None:
    data = splits()
    part, batch = prepared(data), everything(data.train)
    first = part.augment(batch)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    parts = [part.augment(batch.rows(rows)) for rows in order.split(33)]
    assert torch.equal(torch.cat([p.inputs["m1"] for p in parts]), first.inputs["m1"][order])
    part.clock.passes = 1
    second = part.augment(batch)
    assert first.truth is not None
    assert second.truth is not None
    assert torch.equal(second.truth.inputs["m1"], first.truth.inputs["m1"])
    assert not torch.equal(second.truth.severity, first.truth.severity)  # type: ignore[arg-type]
    part.clock.stage = "another"
    assert not torch.equal(part.augment(batch).truth.severity, second.truth.severity)  # type: ignore[arg-type, union-attr]
    part.clock.stage, part.clock.passes = "", 0
    assert torch.equal(part.augment(batch).inputs["m1"], first.inputs["m1"])
    other = prepared(data, draws=1).augment(batch)
    assert not torch.equal(other.inputs["m1"], first.inputs["m1"])


def test_truth_keeps_what_a_view_dropped_and_dropped_slots_are_not_damaged() -> None:
    data = splits(rate=0.2)
    part, batch = prepared(data, share=1.0), everything(data.train)
    keep = torch.tensor([True, False, True])
    after = part.augment(batch.view(keep))
    assert after.truth is not None
    assert torch.equal(after.truth.present, batch.present)
    assert torch.equal(after.present, batch.present & keep)
    assert after.truth.severity is not None
    assert torch.equal(after.truth.severity > 0, after.present)
    assert torch.equal(after.inputs["m1"], batch.inputs["m1"])
    assert torch.equal(after.dropped().inputs["m0"], batch.inputs["m0"]), "what was dropped is remembered clean"


def test_the_model_is_trained_on_the_damaged_rows() -> None:
    data = splits()
    pipeline = build(data.train.schema)
    part, batch = strategy(pipeline), everything(data.train)
    part.prepare(data, pipeline.model.stages()[0])
    trained_on: list[Batch] = []
    hook = pipeline.model.register_forward_pre_hook(lambda module, args: trained_on.append(args[0]))
    assert pipeline.training_step(batch).losses.keys() == {"task"}
    hook.remove()
    assert torch.equal(trained_on[0].inputs["m0"], part.augment(batch).inputs["m0"])
    off = prepared(data, share=0.0)
    same = off.augment(batch)
    assert all(same.inputs[name] is batch.inputs[name] for name in batch.names)


def test_every_kind_of_modality_has_its_noise() -> None:
    data = every_kind()
    part = prepared(Splits(data, data, data), share=1.0, severity=5)
    assert set(NOISE) <= set(KINDS)
    assert all(OPERATORS[operator].kind == kind for kind, operator in NOISE.items())
    batch = everything(data)
    after = part.augment(batch)
    assert after.truth is not None
    changed = torch.stack([_differs(after, batch, name) for name in batch.names], 1)
    assert after.truth.severity is not None
    assert torch.equal(after.truth.severity > 0, batch.present)
    assert (changed <= batch.present).all()
    assert (changed.float().sum(0) > 0.3 * batch.present.float().sum(0)).all()


def _differs(after: Batch, before: Batch, name: str) -> Tensor:
    x, y = after.inputs[name], before.inputs[name]
    return (x.nan_to_num(7) != y.nan_to_num(7) if x.is_floating_point() else x != y).flatten(1).any(1)


# what is asked for --------------------------------------------------------------------------------------------------
def test_a_corruption_of_ones_own_is_used_at_all_levels_below_its_own() -> None:
    data = splits(3000)
    part = prepared(data, corruption="feature_noise(m0, 2) + feature_noise(m2, 5)", share=1.0, severity=3)
    level = part.augment(everything(data.train)).truth.severity  # type: ignore[union-attr]
    assert level is not None
    assert [sorted(set(level[:, column].tolist())) for column in range(3)] == [[1, 2], [0], [1, 2, 3]]


def test_levels_are_drawn_inside_of_combinations() -> None:
    one = corrupt("feature_noise", "m0", 3)
    ladder = OneOf(tuple(replace(one, severity=s) for s in (1, 2)))
    assert up_to(one, 2) == ladder
    assert up_to(replace(one, severity=1), 5) == replace(one, severity=1)
    assert up_to(Sometimes(one, 0.3), 2) == Sometimes(ladder, 0.3)
    assert up_to(OneOf((one, one), (1, 2)), 2) == OneOf((ladder, ladder), (1, 2))
    assert up_to(Correlated((one, one), 0.2, 0.5), 2) == Correlated((ladder, ladder), 0.2, 0.5)
    assert up_to(Compose((one, one)), 2) == Compose((ladder, ladder))


def test_arguments_that_make_no_sense() -> None:
    schema = splits().train.schema
    with pytest.raises(UnknownName, match="unknown corruption 'feature_nois'"):
        build(schema, corruption="feature_nois(m0, 3)")
    with pytest.raises(UnknownName, match="unknown modality 'm7'"):
        build(schema, corruption="feature_noise(m7, 3)")
    with pytest.raises(ConfigError, match=r"changes labels; train on data.with_corruption"):
        build(schema, corruption="label_noise_symmetric(severity=3)")
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        build(schema, share=1.5)
    for severity, match in ((6, "whole number from 1 to 5"), (0, "1 or more")):
        with pytest.raises(ConfigError, match=match):
            build(schema, severity=severity)
    part = strategy(build(schema))
    with pytest.raises(ConfigError, match=r"there is no plan; it is made by Trainer.fit"):
        part.augment(everything(splits().train))
    film = Schema((Modality("film", "video", (4, 1, 8, 8)),), Classification(["x", "y"]))
    with pytest.raises(ConfigError, match="there is no noise for video"):
        CorruptionAugmentation(film)


# training -----------------------------------------------------------------------------------------------------------
def fit(pipeline: Pipeline, data: Splits, epochs: int = 4, **options: Any) -> Trainer:
    trainer = Trainer(epochs=epochs, batch_size=64, progress=False, **options)
    trainer.fit(pipeline, data)
    return trainer


def test_epochs_of_a_fit_differ_and_the_plan_is_let_go() -> None:
    data = splits()
    pipeline = build(data.train.schema)
    seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def note(module: Any, args: tuple[Batch]) -> None:
        if module.training:
            assert args[0].severity is None
            seen.setdefault(pipeline.model.clock.epoch, []).append((args[0].index, args[0].inputs["m0"]))

    hook = pipeline.model.register_forward_pre_hook(note)
    trained = strategy(pipeline)
    fit(pipeline, data, 3)
    hook.remove()
    made = [torch.cat([x for _, x in one])[torch.cat([i for i, _ in one]).argsort()] for one in seen.values()]
    assert len(made) == 3
    assert all(float(torch.ne(a, b).double().mean()) > 0.5 for a, b in ((made[0], made[1]), (made[1], made[2])))
    assert trained.__dict__["planned"] is None
    assert len(pipeline.strategies) == 0, "it is served too"


def accuracy(pipeline: Pipeline, data: Any, spec: str | None = None) -> float:
    batch = everything(data if spec is None else data.with_corruption(parse_corruption(spec), seed=11))
    with torch.no_grad():
        assert batch.target is not None
        return float((pipeline.eval()(batch).output.argmax(1) == batch.target).float().mean())


def test_what_was_trained_under_damage_answers_better_under_damage() -> None:
    data, noise = splits(900), "feature_noise(m0, 1, k=6)"
    plain, trained = build(data.train.schema, "mean_fusion"), build(data.train.schema, corruption=noise)
    for pipeline in (plain, trained):
        fit(pipeline, data, 30, lr=3e-3)
    assert accuracy(trained, data.test, noise) > accuracy(plain, data.test, noise) + 0.03
    assert accuracy(trained, data.test) > accuracy(plain, data.test) - 0.03


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = splits()
    whole = build(data.train.schema)
    history = fit(whole, data).history
    write, count = saved.write_checkpoint, iter(range(1, 100))

    def stop(*args: Any) -> None:
        write(*args)
        if next(count) == stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saved, "write_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(build(data.train.schema), data, checkpoint=tmp_path)
    again = build(data.train.schema)
    assert fit(again, data, checkpoint=tmp_path).history == history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_it_is_saved_with_its_arguments(tmp_path: Path) -> None:
    data = splits()
    pipeline = build(data.train.schema, corruption="sometimes(feature_noise(m0, 4), share=0.5)", share=0.8, draws=3)
    trained = strategy(pipeline)
    fit(pipeline, data, 1)
    save(pipeline, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "model.json").read_text())
    assert set(config["parts"]) == {"model"}
    assert config["training"]["strategies.0"]["hyper"]["share"] == 0.8
    again, _ = load(tmp_path / "model")
    again.begin_training()
    assert strategy(again).hyper == trained.hyper
    assert strategy(again).distortion == trained.distortion
    batch = everything(data.test)
    with torch.no_grad():
        assert torch.equal(again(batch).output, pipeline(batch).output)


def test_another_host_and_rows_with_holes() -> None:
    data = splits(rate=0.3)
    host = build(data.train.schema, "early_fusion").model
    pipeline = create(KEY, data.train.schema, host=host)
    assert pipeline.model is host
    history = fit(pipeline, data, 2).history
    assert all(torch.isfinite(torch.tensor(one["loss/task"])) for one in history)
    assert isinstance(data.train, Dataset)
