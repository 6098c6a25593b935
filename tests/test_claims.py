"""What claims are made of: differences with gradients, rows with every subset, and the record of a training."""

from __future__ import annotations

from typing import Any

import torch

from kintsugi.core.claims import before_each_step, difference, every_subset, record_steps
from kintsugi.core.data import Splits
from kintsugi.core.methods import METHODS
from kintsugi.testing import build
from kintsugi.testing.fixture import toy
from kintsugi.training.trainer import Trainer


def test_gradients_differ_where_values_do_not() -> None:
    model = torch.nn.Linear(3, 2)
    x = torch.eye(3)
    assert difference(model(x), model(x).detach() + 0) == 0
    assert difference(model(x), model(x).detach() + 0, model) > 0.1
    swapped = model(x)[:, [1, 0]]
    assert difference(model(x), swapped) > 0


def test_every_subset_but_none() -> None:
    batch = toy("classification", rows=14).batch(torch.arange(14))
    present = every_subset(batch).present
    assert len({tuple(row) for row in present.tolist()}) == 7
    assert present.any(1).all()
    assert present[:7].equal(present[7:])


def test_the_record_of_a_training_tells_its_steps_and_keeps_modules_as_stages_found_them() -> None:
    data = toy("classification", rows=96)
    pipeline = build(METHODS["dmcca"], data.schema)
    model: Any = pipeline.model
    order: list[str] = []
    steps = record_steps(model, "encoders", "task_head")
    before_each_step(model, lambda _: order.append(model.clock.stage))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train, val, test = data.split()
    Trainer(epochs=4, batch_size=16, progress=False).fit(pipeline, Splits(train, val, test))
    assert order == [each.stage for each in steps.taken]
    assert set(steps.start) == {"correlate", "classify"}
    assert len(steps.batches("correlate")) + len(steps.batches("classify")) == len(steps.taken)
    assert all(each.modules == {"task_head"} for each in steps.taken if each.stage == "classify")
    assert {each.epoch for each in steps.taken if each.stage == "classify"} == set(
        range(1 + max(each.epoch for each in steps.taken if each.stage == "classify"))
    )

    def weights(stage: str, name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.{key}": value for key, value in steps.start[stage][name].named_parameters()}

    for key, value in weights("correlate", "encoders").items():
        assert value.equal(before[key])  # a copy: it did not move with the model
    now = dict(model.named_parameters())
    assert any(not value.equal(before[key]) for key, value in weights("classify", "encoders").items())
    assert all(value.equal(now[key]) for key, value in weights("classify", "encoders").items())
    assert any(not value.equal(now[key]) for key, value in weights("classify", "task_head").items())
