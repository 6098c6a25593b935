"""What an answer may depend on, and what it may say of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.component import Component
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Task
from kintsugi.testing.holding import hold, on_every_task
from kintsugi.testing.promises_of_data import FEW, cached, conditioned
from kintsugi.testing.trials import ask, data_for, everything, fitted, run_of, same, subsets

MANY = 50  # rows that are asked at once; no batch of training has as many
ALONE = 8  # rows that are asked one by one


# every subset -----------------------------------------------------------------------------------------------------------
def every_subset(cls: type[Component], ablated: bool | str = False) -> None:
    """Finite, task-shaped answers for every subset; the prior, and nothing used, for a row with nothing."""
    on_every_task(cls, lambda task: _every_subset(cls, task, ablated))


def _every_subset(cls: type[Component], key: str, ablated: bool | str) -> None:
    data = data_for(cls, key)
    pipeline = fitted(cls, ablated, key)
    batch = data.batch(torch.arange(FEW if pipeline.adapts else MANY))
    task = data.schema.task
    shape = (len(batch), *task.output_shape)
    for kept in subsets(data.schema.names):
        answer, seen = ask(pipeline, batch.only(*kept)), f"with {' and '.join(kept)} present"
        hold(
            answer.output.shape == shape, f"{seen} the answer's shape is {list(answer.output.shape)}, not {list(shape)}"
        )
        hold(bool(torch.isfinite(answer.output).all()), f"{seen} some answer is not finite")
        hold(not bool((answer.used & ~batch.only(*kept).present).any()), f"{seen} it says that it used what is absent")
    empty = ask(pipeline, batch.only())
    hold(not bool(empty.used.any()), "of a row with nothing it says that it used something")
    prior = pipeline.model.prior
    same_as_prior = torch.allclose(empty.output, prior.expand_as(empty.output), atol=1e-5)
    hold(same_as_prior, "a row with nothing does not get the prior")
    of_training = task.prior(run_of(cls, key, ablated).data.split()[0])
    hold(
        torch.allclose(prior, of_training.reshape(prior.shape), atol=1e-5),
        "the prior is not that of the training rows",
    )


# rows alone and together ------------------------------------------------------------------------------------------------
def alone_or_together(cls: type[Component]) -> None:
    """A row's answer depends neither on its batch nor on the order of rows or of dictionaries.

    Where a pipeline adapts in use, an answer depends on the rows before it, and on nothing else: not on the batches in which
    they came.
    """
    on_every_task(cls, lambda task: _alone_or_together(cls, task))


def _alone_or_together(cls: type[Component], task: str) -> None:
    pipeline = fitted(cls, task=task)
    batch = data_for(cls, task, absent=0.3).batch(torch.arange(MANY))
    shuffled = replace(batch, inputs=dict(reversed(batch.inputs.items())), mask=dict(reversed(batch.mask.items())))
    if pipeline.adapts:
        _same_stream(pipeline, batch.rows(torch.arange(9)))
        few = batch.rows(torch.arange(ALONE))
        turned = shuffled.rows(torch.arange(ALONE))
        _close("the order of dictionaries", ask(pipeline, turned).output, ask(pipeline, few).output)
        return
    together = ask(pipeline, batch).output
    backwards = ask(pipeline, batch.rows(torch.arange(len(batch)).flip(0))).output.flip(0)
    single = torch.cat([ask(pipeline, batch.rows(torch.tensor([i]))).output for i in range(ALONE)])
    _close("the order of rows", backwards, together)
    _close("the order of dictionaries", ask(pipeline, shuffled).output, together)
    _close("the batch", single, together[:ALONE])


def _near(one: Tensor, other: Tensor) -> bool:
    """Equal but for sums of float32 in another order; NaN equals NaN."""
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)


def _close(what: str, other: Tensor, reference: Tensor) -> None:
    gap = float((other - reference).abs().max())
    hold(_near(other, reference), f"an answer depends on {what}: it moves by up to {gap:.2g}")


# pipelines that adapt ---------------------------------------------------------------------------------------------------
def _same_stream(pipeline: Pipeline, batch: Batch) -> None:
    answers, states = zip(*(_stream(pipeline, batch, size) for size in (len(batch), 7, 1)), strict=True)
    for size, other in zip((7, 1), answers[1:], strict=True):
        gap = float((other - answers[0]).abs().max())
        hold(
            _near(other, answers[0]),
            f"answers of a stream depend on its batches: in batches of {size} they move by up to {gap:.2g}",
        )
    for size, state in zip((7, 1), states[1:], strict=True):
        for name, tensor in state.items():
            near = _near(tensor.double(), states[0][name].double())
            hold(near, f"after a stream in batches of {size} the state is another: {name}")


@torch.no_grad()
def _stream(pipeline: Pipeline, batch: Batch, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Answers to rows in batches of this size from the calibrated state on, and the state after them."""
    pipeline.eval()
    pipeline.reset()
    output = torch.cat([pipeline(batch.rows(rows)).output for rows in torch.arange(len(batch)).split(size)])
    state = _state(pipeline)
    pipeline.reset()
    return output, state


def _state(pipeline: Pipeline) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in pipeline.state_dict().items()}


def use_is_undone(cls: type[Component]) -> None:
    """Answering changes nothing; where a pipeline adapts, a reset undoes it bit for bit, and a saved model knows none of it.

    Of a pipeline that adapts besides: two streams from the calibrated state are equal bit for bit, and it can follow
    gradients in use.
    """
    on_every_task(cls, lambda task: _use_is_undone(cls, task))


def _use_is_undone(cls: type[Component], task: str) -> None:
    pipeline = fitted(cls, task=task).eval()
    rows = everything(data_for(cls, task, absent=0.3)).rows(torch.arange(ALONE))
    if pipeline.adapts:
        pipeline.reset()
    before = _state(pipeline)
    first, _ = _stream(pipeline, rows, ALONE) if pipeline.adapts else (ask(pipeline, rows).output, {})
    _is_as_before(pipeline, before, "after reset" if pipeline.adapts else "answers change the model")
    second = _stream(pipeline, rows, ALONE)[0] if pipeline.adapts else ask(pipeline, rows).output
    words = "two streams from the calibrated state differ" if pipeline.adapts else "two answers to the same rows differ"
    hold(same(first, second), f"{words}: by up to {float((first - second).abs().max()):.2g}")
    if pipeline.adapts:
        _saves_what_was_calibrated(pipeline, rows, before)


def _is_as_before(pipeline: Pipeline, before: dict[str, Tensor], when: str) -> None:
    now = _state(pipeline)
    for name in sorted(before.keys() | now.keys()):
        held = name in before and name in now and same(before[name], now[name])
        hold(held, f"{when}: {name} is not what it was")
    graded = [name for name, p in pipeline.named_parameters() if p.grad is not None]
    hold(not graded, f"{when}: gradients are left in {', '.join(graded)}")


@torch.no_grad()
def _saves_what_was_calibrated(pipeline: Pipeline, rows: Batch, calibrated: dict[str, Tensor]) -> None:
    import tempfile
    from pathlib import Path

    from kintsugi.io.saved_models import load, save

    pipeline.reset()
    pipeline(rows)
    with tempfile.TemporaryDirectory() as folder:
        save(pipeline, Path(folder) / "used")
        loaded, _ = load(Path(folder) / "used")
    pipeline.reset()
    for name, tensor in loaded.state_dict().items():
        hold(same(tensor, calibrated[name]), f"a model that is saved after use holds what it learned in use: {name}")


# restorers --------------------------------------------------------------------------------------------------------------
def restored_in_training_too(cls: type[Component]) -> None:
    """What a restorer mends in use it mends in training too, before the model sees it."""
    pipeline = fitted(cls)
    if pipeline.restore is None:
        return
    batch = _damaged(everything(data_for(cls, absent=0.3)).rows(torch.arange(48)))
    own = batch.map(torch.clone)
    pipeline.eval().restored(own)
    for name in sorted(batch.names):
        hold(
            same(own.inputs[name], batch.inputs[name]), f"restore() changes {name} in place; the caller still needs it"
        )
    in_use = _mended(batch, _shown(pipeline.eval(), batch, training=False))
    in_training = _mended(batch, _shown(pipeline.train(), batch, training=True))
    pipeline.eval()
    for name in sorted(in_use):
        hold(
            name in in_training,
            f"the model is trained on {name} as it came, damaged, and asked with {name} restored",
        )


def _damaged(batch: Batch) -> Batch:
    """Values ten times as large, in every present slot of numbers."""
    inputs = {n: x * 10 if x.is_floating_point() else x for n, x in batch.inputs.items()}
    return replace(batch, inputs=inputs)


def _mended(before: Batch, after: Batch) -> set[str]:
    """Modalities in which something is another, or is there that was not."""
    changed = {name for name in before.names if not same(before.inputs[name], after.inputs[name])}
    filled = (after.present & ~before.present).any(0)
    return changed | {name for column, name in enumerate(before.names) if bool(filled[column])}


def _shown(pipeline: Pipeline, batch: Batch, training: bool) -> Batch:
    """The batch as the model is given it."""
    seen: list[Batch] = []
    model = pipeline.model
    if not training:
        hook = model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        ask(pipeline, batch)
        hook.remove()
        return seen[0]
    plain = model.step

    def noted(given: Batch) -> Any:
        seen.append(given)
        return plain(given)

    model.__dict__["step"] = noted
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipeline.training_step(batch)
    finally:
        del model.__dict__["step"]
    return seen[0]


# what is said besides ---------------------------------------------------------------------------------------------------
def says_what_it_knows(cls: type[Component]) -> None:
    """Uncertainty, unimodal answers, embedding, reliability, weights, restored inputs: right in shape, range and NaN.

    NaN stands exactly where nobody can know, and what is said of a row does not depend on its batch.
    """
    on_every_task(cls, lambda task: _says_what_it_knows(cls, task))


def _says_what_it_knows(cls: type[Component], key: str) -> None:
    pipeline = fitted(cls, task=key)
    data = data_for(cls, key, absent=0.3)
    batch = data.batch(torch.arange(MANY))
    nothing = torch.arange(MANY) % 9 == 8
    batch = batch.where(~nothing[:, None].expand_as(batch.present))
    rows = batch.rows(torch.arange(27)) if pipeline.adapts else batch
    answer = ask(pipeline, rows)
    for broken in wrong_with(answer, rows, data.schema.task, cls.card.evidence):
        hold(False, broken)
    if not pipeline.adapts:  # whose rows depend on each other in order; see alone_or_together
        _independent(pipeline, batch, answer)


def wrong_with(answer: Prediction, batch: Batch, task: Task, evidence: str = "") -> Iterator[str]:
    """What an answer says of itself that cannot be so."""
    rows, known = len(batch), answer.used.any(1)
    if answer.uncertainty is not None:
        yield from _wrong_uncertainty(answer, known, task, evidence)
    if answer.embedding is not None:
        shape = list(answer.embedding.shape)
        if len(shape) != 2 or shape[0] != rows:
            yield f"the embedding has the shape {shape}, not [{rows}, D]"
        else:
            yield from _wrong_embedding(torch.isnan(answer.embedding), known)
    for name, alone in answer.unimodal.items():
        yield from _wrong_unimodal(name, alone, answer, batch, task)
    for what, values in (("reliability", answer.reliability), ("weights", answer.weights)):
        if values is not None and values.shape != batch.present.shape:
            yield f"{what} have the shape {list(values.shape)}, not {list(batch.present.shape)}"
            return
    if answer.reliability is not None:
        yield from _outside("reliability", answer.reliability, 0, 1)
        unsaid = torch.isnan(answer.reliability)
        if not torch.equal(unsaid, ~batch.present):
            yield "reliability is not NaN exactly where a modality is absent; see Prediction.where_present"
    if answer.weights is not None:
        if not bool(torch.isfinite(answer.weights).all()) or bool((answer.weights < 0).any()):
            yield "some weight of a modality is below 0 or not finite"
        elif bool((answer.weights * ~answer.used).any()):
            yield "a modality that was not used has a weight above 0"
    for name, restored in answer.restored.items():
        if name not in batch.names or restored.shape != batch.inputs[name].shape:
            yield f"restored {name!r} has not the shape of an input of that name"


def _wrong_embedding(unsaid: Tensor, known: Tensor) -> Iterator[str]:
    """A fall-back may answer a row of which the head was given nothing: the whole row is NaN then."""
    if not bool(unsaid[~known].all()):
        yield "the embedding is a number where the prior spoke, which it is NaN for"
    elif bool((unsaid.any(1) & ~unsaid.all(1)).any()):
        yield "the embedding of some row is NaN in part"


def _wrong_uncertainty(answer: Prediction, known: Tensor, task: Task, evidence: str) -> Iterator[str]:
    values: Any = answer.uncertainty
    if task.link == "identity":
        if values.shape != answer.output.shape:
            yield f"the variance has the shape {list(values.shape)}, not {list(answer.output.shape)} as the numbers have"
            return
        yield from _outside("the variance", values, 0, torch.inf)
    else:
        if values.shape != (len(known),):
            yield f"the uncertainty has the shape {list(values.shape)}, not [{len(known)}]"
            return
        yield from _outside("the uncertainty", values, 0, 1)
    yield from _wrong_nan("the uncertainty", values, known, "the prior spoke")
    entropy = task.uncertainty(answer.output)
    if not evidence and entropy is not None and not torch.allclose(values[known], entropy[known], atol=1e-4):
        yield "the uncertainty is not the normalised entropy of the answer; if that is meant, the card's evidence says what it is"


def _wrong_unimodal(name: str, alone: Tensor, answer: Prediction, batch: Batch, task: Task) -> Iterator[str]:
    if name not in batch.names:
        yield f"there is a unimodal answer of {name!r}, and no such modality"
        return
    wanted = task.probabilities(answer.output).shape
    if alone.shape != wanted:
        yield f"the unimodal answer of {name} has the shape {list(alone.shape)}, not {list(wanted)}"
        return
    column = batch.names.index(name)
    unsaid = torch.isnan(alone).reshape(len(alone), -1)
    if not bool(unsaid[~batch.present[:, column]].all()):
        yield f"the unimodal answer of {name} is a number in rows without {name}, where it is NaN"
    elif bool(unsaid[answer.used[:, column]].any()):
        yield f"the unimodal answer of {name} is NaN in rows in which it was used"
    if task.link != "identity":
        yield from _outside(f"the unimodal answer of {name}", alone, 0, 1)
    if task.link == "softmax":
        total = alone[~unsaid.any(1)].sum(1)
        if not torch.allclose(total, torch.ones_like(total), atol=1e-3):
            yield f"the unimodal answer of {name} is no probabilities: they do not sum to 1"


def _wrong_nan(what: str, values: Tensor, known: Tensor, why: str) -> Iterator[str]:
    unsaid = torch.isnan(values).reshape(len(values), -1)
    if bool(unsaid[known].any()):
        yield f"{what} is NaN in rows that were answered"
    elif not bool(unsaid[~known].all()):
        yield f"{what} is a number where {why}, which it is NaN for"


def _outside(what: str, values: Tensor, low: float, high: float) -> Iterator[str]:
    slack = 1e-5
    if bool((values < low - slack).any()) or bool((values > high + slack).any()):
        yield f"{what} is not between {low:g} and {high:g} everywhere"


def _independent(pipeline: Pipeline, batch: Batch, together: Prediction) -> None:
    single = Prediction.concatenate([ask(pipeline, batch.rows(torch.tensor([i]))) for i in range(ALONE + 1)])
    for name, one, other in _pairs(single, together):
        near = _near(one, other[: len(one)])
        hold(near, f"{name} of a row depends on its batch")


def _pairs(one: Prediction, other: Prediction) -> Iterator[tuple[str, Tensor, Tensor]]:
    for each in fields(Prediction):
        mine, yours = getattr(one, each.name), getattr(other, each.name)
        if isinstance(mine, Tensor) and mine.is_floating_point():
            yield each.name, mine, yours
        elif isinstance(mine, dict) and each.name != "extras":
            for name, value in mine.items():
                yield f"{each.name} {name}", value, yours[name]


# the evaluator ----------------------------------------------------------------------------------------------------------
def cached_is_naive(cls: type[Component]) -> None:
    """The evaluator with its cache of features answers as the plain sweep does."""
    on_every_task(cls, lambda task: _cached_is_naive(cls, task))


def _cached_is_naive(cls: type[Component], task: str) -> None:
    run = run_of(cls, task)
    for fast, plain in zip(cached(run), conditioned(run, cache=False, chunk=24), strict=True):
        gap = float((fast.probabilities - plain.probabilities).abs().max())
        hold(gap < 1e-5, f"condition {fast.condition.name}: the cache is off by {gap:.2g}")
        hold(torch.equal(fast.used, plain.used), f"condition {fast.condition.name}: other modalities are used")
