"""What a method may learn from, and what it may keep of it: nothing that is absent or hidden, and no unsaid bank of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.component import Component
from kintsugi.core.data import Data
from kintsugi.core.pipeline import Pipeline
from kintsugi.evaluation import predict_conditions
from kintsugi.evaluation.protocols import CLEAN, Condition, get_protocol
from kintsugi.testing.holding import hold, on_every_task
from kintsugi.testing.trials import FEWER, Run, Variant, ask, everything, run_of, same

FEW = 8  # rows that a pipeline which adapts is asked, one after the other
DEPTH = 6  # how far into lists, dictionaries and objects a kept tensor is looked for


# hidden and absent ------------------------------------------------------------------------------------------------------
def no_leak(cls: type[Component]) -> None:
    """What stands in absent slots and unseen cells changes nothing: weights, losses and answers, bit for bit."""
    on_every_task(cls, lambda task: _reads_nothing(cls, task, "poison", "what is absent"))


def hidden_is_gone(cls: type[Component]) -> None:
    """Nor does what ``with_missing`` hides (slots, steps, labels): it is gone for training, answers and evaluation."""
    on_every_task(cls, lambda task: _reads_nothing(cls, task, "hidden", "what with_missing hid"))


def seeded(cls: type[Component]) -> None:
    """The same seed gives the same weights, bit for bit."""

    def promise(task: str) -> None:
        if _first_difference(cls, task, "both") is None:
            return  # two runs of one seed, on tables that look the same to it
        name = _other_weights(cls, task, "again")
        hold(name is None, f"{name} differs between two runs of one seed")

    on_every_task(cls, promise)


def _reads_nothing(cls: type[Component], task: str, variant: Variant, what: str) -> None:
    """One run on a table in which all of what may not be read is another; only if it differs, one for each kind of it."""
    if _first_difference(cls, task, "both") is None:
        return
    unseeded = _other_weights(cls, task, "again")
    hold(
        unseeded is None,
        f"two runs of one seed differ ({unseeded}), so that nobody can tell whether {what} is read; see the promise seeded",
    )
    difference = _first_difference(cls, task, variant)
    hold(difference is None, f"{difference} {what}")


def _other_weights(cls: type[Component], task: str, variant: Variant) -> str | None:
    """The first tensor in which a run differs from the plain one."""
    weights = _weights(run_of(cls, task))
    others = _weights(run_of(cls, task, variant=variant))
    if weights.keys() != others.keys():
        return sorted(weights.keys() ^ others.keys())[0]
    return next((name for name, tensor in weights.items() if not same(tensor, others[name])), None)


def _weights(run: Run) -> dict[str, Tensor]:
    state: dict[str, Tensor] = run.pipeline.state_dict()
    return state


def _first_difference(cls: type[Component], task: str, variant: Variant) -> str | None:
    """Where a run first differs from the plain one, in words that go before what was read."""
    plain, other = run_of(cls, task), run_of(cls, task, variant=variant)
    result: str | None = other.note("difference", lambda: _compare(cls, task, variant, plain, other))
    return result


def _compare(cls: type[Component], task: str, variant: Variant, plain: Run, other: Run) -> str | None:
    name = _other_weights(cls, task, variant)
    if name is not None:
        return f"{name} was trained on"
    if repr(plain.history) != repr(other.history):
        return "a loss, or the choice of the epoch, reads"
    for (which, one), (_, two) in zip(_answers(plain), _answers(other), strict=True):
        if not same(one, two):
            return f"an answer{which} reads"
    return None


def _answers(run: Run) -> list[tuple[str, Tensor]]:
    """To all rows as they are, and to test rows under conditions."""
    answers: list[tuple[str, Tensor]] = run.note(
        "answers",
        lambda: [
            ("", ask(run.pipeline, some_rows(run.pipeline, run.data)).output),
            *((f" under {o.condition.name}", o.output) for o in cached(run)),
        ],
    )
    return answers


def cached(run: Run) -> list[Any]:
    """Answers under conditions by way of the evaluator's cache, worked out once for a run."""
    outcomes: list[Any] = run.note("cached", lambda: conditioned(run, cache=True, chunk=13))
    return outcomes


def conditioned(run: Run, cache: bool, chunk: int) -> list[Any]:
    """Answers of a run to its test rows under a few conditions of each sort."""
    conditions = run.note("conditions", lambda: few_conditions(run.data, run.first and not run.pipeline.adapts))
    test = run.data.split()[2]
    test = test.subset(torch.arange(FEW)) if run.pipeline.adapts else test
    outcomes: list[Any] = predict_conditions(run.pipeline, test, conditions, cache=cache, chunk=chunk, stream=4)
    return outcomes


def some_rows(pipeline: Pipeline, data: Any) -> Batch:
    """All rows of a table; of a pipeline that adapts, which answers them one after the other, a few."""
    batch: Batch = data.batch(torch.arange(FEW)) if pipeline.adapts else everything(data)
    return batch


def few_conditions(data: Any, damaged_too: bool) -> list[Condition]:
    """Clean, one modality dropped, one alone, slots drawn; and one damage of each modality's standard ones."""
    names = data.schema.names
    chosen = [CLEAN]
    if len(names) > 1:
        chosen += [
            Condition("without the first", "subset", keep=names[1:]),
            Condition("the last alone", "subset", keep=names[-1:]),
            Condition("mcar(0.3)", "rate/mcar", missing="mcar(0.3)", x=0.3),
        ]
    if not damaged_too:
        return chosen
    damaged: dict[str, Condition] = {}
    for condition in get_protocol("standard(3)", data.schema).conditions:
        if condition.corruptions:
            damaged.setdefault(condition.group.partition("(")[2], condition)
    return chosen + list(damaged.values())


# what is kept -----------------------------------------------------------------------------------------------------------
def bank_is_declared(cls: type[Component]) -> None:
    """What grows with the number of training rows is a bank of them, and the card says so: ``reference=True``."""
    if cls.card.reference:
        return
    pipeline, fewer = run_of(cls).pipeline, run_of(cls, variant="fewer").pipeline
    sizes, smaller = _sizes(pipeline), _sizes(fewer)
    rows = len(run_of(cls).data.split()[0])
    for name in sorted(sizes.keys() & smaller.keys()):
        hold(
            sizes[name] == smaller[name],
            f"{name} has the shape {smaller[name]} after {FEWER} training rows and {sizes[name]} after {rows}: it keeps rows; "
            "let the card say reference=True",
        )
    kept = [name for name, size in sizes.items() if size is None]
    hold(not kept, f"{', '.join(kept)} holds on to the training rows; let it go, or let the card say reference=True")


def _sizes(pipeline: nn.Module) -> dict[str, list[int] | None]:
    """Name -> shape of every tensor that is held; None for a whole table."""
    sizes: dict[str, list[int] | None] = {}
    seen: set[int] = set()
    for path, module in pipeline.named_modules():
        held = {k: v for k, v in vars(module).items() if k not in ("_modules", "attached_to", "own_encoders")}
        for name, value in _tensors(f"{path}." if path else "", held, seen, DEPTH):
            sizes[name] = None if isinstance(value, Data) else list(value.shape)
    return sizes


def _tensors(place: str, value: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if id(value) in seen or depth < 0 or isinstance(value, nn.Module | str | bytes | int | float | type(None)):
        return
    if isinstance(value, Tensor | Data):
        yield place.rstrip("."), value
        return
    seen.add(id(value))
    if hasattr(value, "shape") and hasattr(value, "dtype"):  # numpy
        yield place.rstrip("."), value
    elif isinstance(value, dict):
        for key, each in value.items():
            plain = "" if key in ("_parameters", "_buffers") else f"{key}."
            yield from _tensors(f"{place}{plain}", each, seen, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for i, each in enumerate(value):
            yield from _tensors(f"{place}{i}.", each, seen, depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        yield from _tensors(place, vars(value), seen, depth - 1)
