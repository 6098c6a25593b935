"""Cycle-consistent question answering: numbers of the paper's code, and which loss moves what."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kintsugi.core import Batch, Modality, Prediction, Schema, Splits
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.methods import build_ablation, build_pipeline
from kintsugi.methods.corrupted.augmentation.vqa_cycle import Parrot, VQACycle, consensus_score
from kintsugi.tasks import Classification, Multilabel, Regression
from kintsugi.testing.fixture import toy
from kintsugi.training.trainer import Trainer

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
SCORES = torch.tensor([[1.0, 0.0, 0.3], [0.0, 0.6, 0.0]])


def schema_of(task: Any, count: int = 3) -> Schema:
    return Schema(tuple(Modality(f"m{i}", "vector", (4,)) for i in range(count)), task)


def rows_of(schema: Schema, target: Tensor) -> Batch:
    rng = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(len(target), 4, generator=rng) for name in schema.names}
    present = torch.ones(len(target), len(schema), dtype=torch.bool)
    return Batch(schema.names, inputs, present, torch.arange(len(target)), target)


def model_of(schema: Schema, stage: str = "cycle", **hyper: Any) -> Any:
    torch.manual_seed(0)
    model: Any = build_pipeline(VQACycle, schema, **hyper).model
    model.clock.stage = stage
    return model


# the paper's numbers --------------------------------------------------------------------------------------------------
def test_losses_of_labels_have_the_published_numbers_but_for_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(schema_of(Multilabel(["a", "b", "c"])), gate="cosine")
    batch = rows_of(model.schema, SCORES)
    plain = model.predict

    def answered(features: Any) -> Prediction:
        prediction: Prediction = plain(features)
        prediction.output = LOGITS + 0 * prediction.output
        return prediction

    monkeypatch.setattr(model, "predict", answered)
    monkeypatch.setattr(model, "passed", lambda *_: torch.tensor([True, False]))
    losses = {name: float(loss.detach()) for name, loss in model.step(batch).losses.items()}
    assert 3 * losses["task"] == pytest.approx(1.398801781)
    assert 3 * losses["cycle"] == pytest.approx(0.5 * 1.264266683)
    assert 3 * losses["task"] + 1.7 + 3 * losses["cycle"] == pytest.approx(3.730935122)


def test_the_gate_by_cosine_has_the_published_numbers() -> None:
    words = torch.tensor([[0, 0, 0], [1, 0, 0.5], [0, 1, 0], [0.2, 0.9, 0], [0.5, 0.5, 1]])
    asked, near, far = (words[list(ids)].sum(0, keepdim=True) for ids in ((1, 2, 4), (1, 3, 4), (3, 3, 0)))
    cosines = [float(torch.cosine_similarity(asked, made)) for made in (near, far)]
    assert cosines == pytest.approx([0.996708197, 0.688846720])
    model = model_of(schema_of(Regression(["y"])))
    assert model.gate == "cosine"
    batch = rows_of(model.schema, torch.zeros(1))
    assert [bool(model.passed(made, asked, torch.zeros(1, 1), batch)) for made in (near, far)] == [True, False]


@pytest.mark.parametrize(("k", "expected"), [(1, 0.75), (2, 0.5), (3, 0.25), (4, 0.0)])
def test_the_consensus_score_has_the_published_numbers(k: int, expected: float) -> None:
    assert consensus_score([1.0, 0.6, 0.0, 0.3], k) == expected
    assert consensus_score(torch.tensor([1.0, 0.6, 0.0, 0.3]), k) == expected


def test_consensus_never_grows_with_the_size_of_subsets() -> None:
    scores = torch.rand(6, generator=torch.Generator().manual_seed(0)) - 0.3
    values = [consensus_score(scores, k) for k in range(1, 7)]
    assert values[0] == float((scores > 0).double().mean())
    assert all(a >= b for a, b in pairwise(values))
    assert consensus_score([0.2, 1.0], 2) == 1
    for k in (0, 7):
        with pytest.raises(ConfigError, match=str(k)):
            consensus_score(scores, k)


# gradients ------------------------------------------------------------------------------------------------------------
def moved(model: Any, loss: Tensor) -> set[str]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return {
        name.split(".")[0] for name, slope in zip(names, slopes, strict=True) if slope is not None and bool(slope.any())
    }


GENERATOR = {"of_image", "of_answer", "make"}


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "ordinal"])
def test_each_loss_moves_its_own_half(task: str) -> None:
    data = toy(task)
    model = model_of(data.schema, gate="none")
    losses = model.step(data.batch(torch.arange(32))).losses
    assert moved(model, losses["question"]) == GENERATOR
    answerer = moved(model, losses["cycle"])
    assert {"task_head", "join_image", "join_question", "see", "read", "attend", "encoders"} == answerer
    assert not moved(model, losses["task"]) & GENERATOR


def test_the_cycle_is_held_to_the_true_answer_whatever_the_first_one_was() -> None:
    schema = schema_of(Classification(["a", "b"]))
    model = model_of(schema, gate="none")
    batch = rows_of(schema, torch.tensor([0, 1, 1, 0]))
    seen: list[Tensor] = []
    plain = model.predict

    def noted(features: Any) -> Prediction:
        prediction: Prediction = plain(features)
        prediction.output.retain_grad()
        seen.append(prediction.output)
        return prediction

    model.predict = noted
    model.step(batch).losses["cycle"].backward()
    first, second = seen
    assert first.grad is None
    assert second.grad is not None
    assert batch.target is not None
    wrong = second.softmax(1) - torch.nn.functional.one_hot(batch.target, 2)
    np.testing.assert_allclose(second.grad, 0.5 * wrong.detach() / 4, atol=1e-6)


# when the cycle counts ------------------------------------------------------------------------------------------------
def test_before_its_stage_and_where_nothing_passes_the_step_is_one_without_the_cycle() -> None:
    data = toy("classification")
    batch = data.batch(torch.arange(32))
    early, shut = (model_of(data.schema, stage, gate="cosine", threshold=1.5) for stage in ("answer", "cycle"))
    assert early.step(batch).losses.keys() == shut.step(batch).losses.keys() == {"task", "question"}
    assert torch.equal(early.step(batch).total, shut.step(batch).total)
    assert [(s.name, s.fraction) for s in early.stages()] == [("answer", 0.06), ("cycle", 0.94)]
    assert [s.name for s in model_of(data.schema, after=0.0).stages()] == ["cycle"]


def test_rows_without_question_or_image_have_no_cycle_and_an_answer() -> None:
    data = toy("classification")
    batch = data.batch(torch.arange(32))
    model = model_of(data.schema, gate="none")
    for kept in ((0, 1), (2,)):
        part = batch.where(torch.tensor([m in kept for m in range(3)]))
        losses = model.step(part).losses
        assert losses.keys() == {"task", "question"}
        assert losses["question"].item() == 0
        # none of the generator's weights is left out, which processes would wait for each other over
        slopes = torch.autograd.grad(losses["question"], [*model.make.parameters(), *model.of_answer.parameters()])
        assert not any(slope.any() for slope in slopes)
        assert model(part).output.isfinite().all()


def test_any_modality_may_be_the_question() -> None:
    data = toy("classification")
    assert [model_of(data.schema, question=name).question for name in (None, "m0", "m2")] == ["m2", "m0", "m2"]
    batch, model = data.batch(torch.arange(8)), model_of(data.schema, question="m0")
    other = replace(batch, inputs={**batch.inputs, "m2": batch.inputs["m2"].flip(0)})  # the last one is an image then
    assert bool((model(batch).output != model(other).output).any(1).all())
    with pytest.raises(UnknownName, match="text"):
        model_of(data.schema, question="text")


@pytest.mark.parametrize(
    ("kinds", "question"),
    [("text image", "a"), ("image text vector", "b"), ("text text vector", "c"), ("vector image", "b")],
)
def test_the_only_text_is_the_question_by_default(kinds: str, question: str) -> None:
    shapes: dict[str, tuple[int | None, ...]] = {"text": (16,), "image": (1, 8, 8), "vector": (4,)}
    modalities = [
        Modality(name, kind, shapes[kind], vocab=257 if kind == "text" else None)
        for name, kind in zip("abc", kinds.split(), strict=False)
    ]
    schema = Schema(tuple(modalities), Classification(["a", "b"]))
    assert model_of(schema).question == question
    assert model_of(schema, question="b").question == "b"


@pytest.fixture(name="trained")
def fixture_trained() -> Any:
    train, val, _ = toy("classification", holes=0.2).split()
    torch.manual_seed(0)
    trainer = Trainer(epochs=4, lr=3e-3, progress=False)
    pipeline = trainer.fit(build_pipeline(VQACycle, train.schema, after=0.25), Splits(train, val))
    return pipeline, trainer.history


def test_the_generator_is_for_training_alone(trained: Any) -> None:
    pipeline, history = trained
    assert not GENERATOR & {name.split(".")[1] for name in pipeline.state_dict()}
    assert [record["stage"] for record in history] == ["answer", "cycle", "cycle", "cycle"]
    assert ["loss/cycle" in record for record in history] == [False, True, True, True]


# arguments and ablations ----------------------------------------------------------------------------------------------
def test_what_it_does_not_know_is_refused() -> None:
    for task, wrong in (
        (Classification(["a", "b"]), {"gate": "entropy"}),
        (Regression(["y"]), {"gate": "answer"}),
        (Regression(["y"]), {"after": 1.0}),
        (Regression(["y"]), {"lambda_c": -1.0}),
        (Regression(["y"]), {"lambda_g": -1.0}),
        (Regression(["y"]), {"hidden": 0}),
    ):
        with pytest.raises(ConfigError):
            model_of(schema_of(task), **wrong)


def test_ablations_differ_in_nothing_but_the_mechanism() -> None:
    data = toy("classification")
    whole = model_of(data.schema)
    for part in ("", "made question", "gate"):
        torch.manual_seed(0)
        off: Any = build_ablation(VQACycle, data.schema, part).model
        off.clock.stage = "cycle"
        assert off.stages() == whole.stages()
        assert {n: p.shape for n, p in off.named_parameters()} == {n: p.shape for n, p in whole.named_parameters()}
        batch = data.batch(torch.arange(64))
        ours, theirs = whole.step(batch).losses, off.step(batch).losses
        assert torch.equal(ours["question"], theirs["question"])
        assert not torch.equal(ours["cycle"], theirs["cycle"])
    assert not isinstance(off, Parrot)
