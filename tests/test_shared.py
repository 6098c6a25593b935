"""Several models under the same conditions: inputs are damaged once."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from corruption_data import make
from kintsugi.core.methods import create
from kintsugi.evaluation import Condition, Protocol, predict_conditions
from kintsugi.evaluation.shared import Shared, _shared, shared
from kintsugi.imperfect import OPERATORS

SPECS = ("gaussian_noise(photo, 2)", "white_noise(speech, 4)", "keyboard_typos(note, 3)")
CONDITIONS = Protocol("some", tuple(Condition(s, "corruption", corruptions=(s,)) for s in SPECS)).conditions


def test_operators_work_once_whatever_the_number_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    operator: Any = OPERATORS["gaussian_noise"]
    plain = operator.damage

    def counted(self: Any, *args: Any) -> Any:
        calls.append(self.key)
        return plain(self, *args)

    monkeypatch.setattr(operator, "damage", counted)
    data = make()
    pipelines = [create("mean_fusion", data.schema), create("late_fusion", data.schema)]
    first = predict_conditions(pipelines[0], data, CONDITIONS, chunk=10)
    assert len(calls) == 3, "one call a chunk"
    again = predict_conditions(pipelines[0], data, CONDITIONS, chunk=10)
    other = predict_conditions(pipelines[1], data, CONDITIONS, chunk=10)
    assert len(calls) == 3
    fresh = predict_conditions(pipelines[1], make(), CONDITIONS, chunk=10)
    assert len(calls) == 6
    assert all(torch.equal(a.output, b.output) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a.output, b.output) for a, b in zip(other, fresh, strict=True))


def test_other_chunks_and_other_seeds_are_other_inputs() -> None:
    data = make()
    pipeline = create("mean_fusion", data.schema)
    one = predict_conditions(pipeline, data, CONDITIONS, chunk=10)
    two = predict_conditions(pipeline, data, CONDITIONS, chunk=7)
    other = [Condition(c.name, c.group, corruptions=c.corruptions, seed=1) for c in CONDITIONS]
    three = predict_conditions(pipeline, data, other, chunk=10)
    for a, b, c in zip(one, two, three, strict=True):
        assert torch.allclose(a.output, b.output, atol=1e-6)
        assert not torch.allclose(a.output, c.output, atol=1e-6)


def test_what_is_kept_has_a_limit_and_goes_with_the_data() -> None:
    data = make()
    batch = data.batch(torch.arange(4))
    after = batch.map(torch.clone)
    small = Shared(limit=3 * 4 * 3 * 32 * 32 * 4)
    for key in range(5):
        changed = {**batch.inputs, "photo": after.inputs["photo"]}
        small.put(key, batch, type(batch)(**{**batch.__dict__, "inputs": changed}))
    assert 1 <= len(small) < 5
    assert small.size <= small.limit
    assert small.get(0, batch) is None
    found = small.get(4, batch)
    assert found is not None
    assert found.inputs["photo"] is after.inputs["photo"]
    assert found.inputs["speech"] is batch.inputs["speech"]
    before = len(_shared)
    shared(data)
    assert len(_shared) == before + 1
    del data, batch, found, after, changed
    gc.collect()
    assert len(_shared) == before
