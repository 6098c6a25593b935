"""Answers of one pipeline under many conditions, each distinct version of an input encoded once.

A condition drops modalities, damages inputs, or both. What an encoder makes of a modality depends on its damage alone,
so a chunk of rows is encoded once for each (modality, damage), and every condition is answered from what is stored.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.card import Card
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Features, Stream
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Schema
from kintsugi.data.dataset import Dataset
from kintsugi.data.refit import read_as
from kintsugi.evaluation.answer_table import answer_frame
from kintsugi.evaluation.protocols import Condition
from kintsugi.evaluation.shared import shared
from kintsugi.imperfect.mask import hide_steps

if TYPE_CHECKING:
    import pandas as pd

STREAM = 64


@dataclass
class Outcome:
    """What a pipeline answered under one condition.

    output ``[N, ...]``, as the task's loss wants it; probabilities ``[N, ...]``, as a user reads it;
    present: bool ``[N, M]``: what there was to use; used: bool ``[N, M]``: what was used;
    weights, reliability ``[N, M]``, uncertainty, unimodal, and where they were asked for embedding and restored: as in
    :class:`~kintsugi.core.prediction.Prediction`, on the CPU; None or empty where the method has none.
    seconds: spent on this condition, with the encodings that it was the first to need; mask_hash: of the mask and of the
    plans of the operators, "" where nothing was drawn.
    """

    condition: Condition
    output: Tensor
    probabilities: Tensor
    present: Tensor
    used: Tensor
    weights: Tensor | None
    reliability: Tensor | None
    seconds: float
    mask_hash: str
    uncertainty: Tensor | None = None
    unimodal: dict[str, Tensor] = field(default_factory=dict)
    embedding: Tensor | None = None
    restored: dict[str, Tensor] = field(default_factory=dict)

    def frame(self, schema: Schema, details: bool = False) -> pd.DataFrame:
        """One line for each row, as :func:`~kintsugi.evaluation.answer_table.answer_frame` has it."""
        answer = Prediction(
            self.output, self.used, self.embedding, self.unimodal, self.restored, self.weights, self.reliability,
            self.uncertainty,
        )  # fmt: skip
        return answer_frame(answer, schema.task, schema.names, details)


def predict_conditions(
    pipeline: Pipeline,
    data: Dataset,
    conditions: Sequence[Condition],
    *,
    chunk: int = 1024,
    cache: bool = True,
    stream: int = STREAM,
    progress: Callable[[int, int], None] | None = None,
    large: Sequence[Literal["embedding", "restored"]] = (),
) -> list[Outcome]:
    """Answers under each condition, in the order given, on the rows in their order.

    Labels, ``truth`` and ``severity`` do not travel along, so nothing can read them. A restorer, or a model of encoding
    ``joint``, is asked anew for each condition. A monitor that adapts gets a fresh copy for each condition and the rows
    as a seeded stream of small batches.

    Args:
        pipeline: what is asked; its mode and its state are left as they were.
        data: the test rows.
        conditions: what is done to them.
        chunk: rows held in memory at a time.
        cache: False asks the whole pipeline anew for each condition: slower, the same answers to 1e-5.
        stream: rows a batch of a monitor that adapts.
        progress: called with ``(steps done, steps in all)``.
        large: which of the large things that a method may give are kept for every row and condition.
    """
    if pipeline.reading is not None:
        data = read_as(data, pipeline.reading, labels=False)
    if any(card.reference for card in _cards(pipeline)):
        data = data.identified()
    plans = _plan_all(data, conditions)
    collected = [_Collected(tuple(large)) for _ in plans]
    with _calm(pipeline):
        if pipeline.adapts:
            _adapting(pipeline, data, plans, collected, stream, progress)
        else:
            stored = cache and pipeline.restore is None and pipeline.model.encoding == "separate"
            _in_chunks(pipeline, data, plans, collected, chunk, stored, progress)
    return [one.outcome(plan, pipeline) for one, plan in zip(collected, plans, strict=True)]


# what is done to the rows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Damage:
    """One operator with its plan; equal where it does the same."""

    spec: str
    hash: str
    operator: Any = field(compare=False, repr=False)
    plan: Any = field(compare=False, repr=False)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those whose input it may change."""
        return tuple(self.operator.modalities)

    def apply(self, batch: Batch, rows: Tensor) -> Batch:
        """The batch of the rows at these positions, damaged."""
        after: Batch = self.operator.apply(batch, self.plan)
        return after


@dataclass(frozen=True)
class _Gaps(_Damage):
    """Steps of one modality that go missing: ``operator`` is its name, ``plan`` bool ``[N, T]``, what stays."""

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.operator,)

    def apply(self, batch: Batch, rows: Tensor) -> Batch:
        return hide_steps(batch, self.operator, self.plan[rows])


Chain = tuple[_Damage, ...]


@dataclass(frozen=True)
class _Plan:
    """A condition, worked out for a data set: ``keep`` bool ``[N, M]`` or ``[M]`` over the columns of the data.

    chains: what happened to each modality that is kept anywhere, in order; the key of its versions.
    """

    condition: Condition
    keep: Tensor
    chains: dict[str, Chain]
    hash: str

    def rows(self, rows: Tensor) -> Tensor:
        return self.keep if self.keep.ndim == 1 else self.keep[rows]


def _plan_all(data: Dataset, conditions: Sequence[Condition]) -> list[_Plan]:
    @cache
    def drawn(spec: str, seed: int) -> Any:
        from kintsugi.imperfect import parse_mechanism

        mask = parse_mechanism(spec).plan(data, seed)
        if mask.unit == "label":
            raise ConfigError(f"{spec}: test rows without labels cannot be scored; hide labels of the training rows")
        return mask

    @cache
    def damage(specs: tuple[str, ...], seed: int) -> Chain:
        from kintsugi.imperfect import parse_corruption

        if not specs:
            return ()
        operator: Any = parse_corruption(list(specs))  # always a Compose, with its parts flat
        if operator.labels:
            raise ConfigError(
                f"{' + '.join(specs)} changes labels, and test labels must stay; train on data.with_corruption(...) instead"
            )
        parts = zip(operator.parts, operator.plan(data, seed).parts, strict=True)
        return tuple(_Damage(str(part), str(plan.hash), part, plan) for part, plan in parts)

    plans = []
    for c in conditions:
        for name in c.keep or ():
            data.schema.column(name)
        keep = torch.tensor([c.keep is None or name in c.keep for name in data.schema.names])
        done = damage(c.corruptions, c.seed)
        said = [d.hash for d in done]
        if c.missing is not None:
            mask = drawn(c.missing, c.seed)
            keep = keep & mask.keep
            said.insert(0, str(mask.hash))
            done = (*done, *(_Gaps(f"{c.missing} of {n}", mask.hash, n, left) for n, left in mask.steps.items()))
        plans.append(_Plan(c, keep, _chains(data.schema.names, keep, done), "+".join(said)))
    return plans


def _chains(names: Sequence[str], keep: Tensor, damage: Chain) -> dict[str, Chain]:
    # An operator across modalities may read what others left of each, so then everything counts for all of them.
    across = any(len(d.modalities) != 1 for d in damage)
    kept = [name for column, name in enumerate(names) if bool(keep[..., column].any())]
    return {name: tuple(d for d in damage if across or name in d.modalities) for name in kept}


# a chunk of rows ---------------------------------------------------------------------------------------------------


class _Chunk:
    """The versions of a chunk's inputs and streams, let go after the last condition that needs them.

    Operators work on the CPU, so that the damage is the same whatever the device of the model.
    """

    def __init__(self, model: Model, data: Dataset, rows: Tensor, plans: Sequence[_Plan], device: torch.device) -> None:
        self.model, self.device, self.rows = model, device, rows
        self.shared, self.place = shared(data), (int(rows[0]), len(rows), hash(tuple(rows.tolist())))
        batch = data.batch(rows).unlabelled()
        self.left = Counter(chain for plan in plans for chain in plan.chains.values())
        plain = {name for plan in plans for name, chain in plan.chains.items() if not chain}
        self.undamaged = [name for name in model.schema.names if name in plain]
        self.read: dict[Chain, Batch] = {(): batch}
        self.moved: dict[Chain, Batch] = {(): batch.to(device)}
        self.streams: dict[tuple[str, Chain], Stream] = {}
        self.zeros: dict[str, Stream] = {}

    def damaged(self, chain: Chain) -> Batch:
        """The chunk, on the device, with this done to it and nothing dropped."""
        if chain not in self.moved:
            before, after = self._as_read(chain[:-1]), self._as_read(chain)
            moved = dict(self.damaged(chain[:-1]).inputs)
            moved.update({n: x.to(self.device) for n, x in after.inputs.items() if x is not before.inputs[n]})
            self.moved[chain] = replace(
                self.moved[()],
                inputs=moved,
                present=after.present.to(self.device),
                mask={name: m.to(self.device) for name, m in after.mask.items()},
            )
        return self.moved[chain]

    def _as_read(self, chain: Chain) -> Batch:
        if chain not in self.read:
            before, key = self._as_read(chain[:-1]), (self.place, chain)
            after = self.shared.get(key, before)
            if after is None:
                after = _damage(before, chain[-1], self.rows)
                self.shared.put(key, before, after)
            self.read[chain] = after
        return self.read[chain]

    def batch(self, plan: _Plan, keep: Tensor) -> Batch:
        """The chunk under a condition."""
        whole = self.damaged(())
        inputs, mask, present = dict(whole.inputs), dict(whole.mask), whole.present.clone()
        for name, chain in plan.chains.items():
            version = self.damaged(chain)
            column = whole.names.index(name)
            inputs[name], present[:, column] = version.inputs[name], version.present[:, column]
            if name in version.mask:
                mask[name] = version.mask[name]
        return replace(whole, inputs=inputs, mask=mask, present=present).where(keep.to(self.device))

    def stream(self, name: str, chain: Chain) -> Stream:
        """One version of a modality, encoded once in all rows where it is present."""
        if (name, chain) not in self.streams:
            names = self.undamaged if not chain else [name]  # in one call, for models with their own encode
            for each, stream in self.model.encode_only(names, self.damaged(chain)).items():
                self.streams[each, chain] = stream
        return self.streams[name, chain]

    def zero(self, name: str) -> Stream:
        """The stream of a modality that no row has."""
        if name not in self.zeros:
            known = next((s for (n, _), s in self.streams.items() if n == name), None)
            if known is None and name in self.undamaged:
                known = self.stream(name, ())
            whole = self.damaged(())
            nobody = torch.zeros(len(whole), dtype=torch.bool, device=self.device)
            if known is None:
                known = self.model.encode_only([name], whole.where(torch.zeros_like(whole.present[0])))[name]
            self.zeros[name] = known.where(nobody)
        return self.zeros[name]

    def answer(self, plan: _Plan, keep: Tensor) -> Prediction:
        """The model's own answer under a condition."""
        keep = keep.to(self.device)
        names = self.damaged(()).names
        streams, columns = {}, []
        for name in self.model.schema.names:
            chain = plan.chains.get(name)
            there = self.damaged(chain or ()).present[:, names.index(name)]
            here = there & keep[..., names.index(name)]
            streams[name] = self.zero(name) if chain is None else self._some(name, chain, here)
            columns.append(here)
        return self.model.predict(Features(streams, torch.stack(columns, 1), self.damaged(()).identity))

    def _some(self, name: str, chain: Chain, here: Tensor) -> Stream:
        whole, there = self.stream(name, chain), self.damaged(chain).present[:, self.damaged(()).names.index(name)]
        if torch.equal(here, there):  # nothing dropped: no copy
            return whole
        return whole.where(here) if bool(here.any()) else self.zero(name)

    def watched(self, plan: _Plan, given: Batch) -> Callable[[Batch], Prediction]:
        """The model for monitors: what they left alone comes from the store, what they replaced is encoded anew."""

        def inner(batch: Batch) -> Prediction:
            if torch.is_grad_enabled():  # the monitor wants a gradient with respect to its inputs
                answer: Prediction = self.model(batch)
                return answer
            streams: dict[str, Stream] = {}
            for name in self.model.schema.names:
                if self._untouched(name, given, batch):
                    here, chain = batch.present[:, batch.names.index(name)], plan.chains.get(name)
                    streams[name] = self.zero(name) if chain is None else self._some(name, chain, here)
            anew = [name for name in self.model.schema.names if name not in streams]
            if anew:
                streams.update(self.model.encode_only(anew, batch))
            return self.model.predict(
                Features(
                    {name: streams[name] for name in self.model.schema.names}, self.model.columns(batch), batch.identity
                )
            )

        return inner

    def _untouched(self, name: str, given: Batch, batch: Batch) -> bool:
        """Is this modality of ``batch`` that of ``given``, with fewer rows present at most?"""
        column = given.names.index(name)
        here = batch.present[:, column]
        if batch.inputs[name] is not given.inputs[name] or bool((here & ~given.present[:, column]).any()):
            return False
        was, now = given.mask.get(name), batch.mask.get(name)
        if was is None or now is None:
            return was is now
        return torch.equal(now, was & here[:, None])

    def release(self, plan: _Plan) -> None:
        """This condition is answered."""
        self.left.subtract(plan.chains.values())
        over = {chain for chain in (*self.read, *self.moved) if chain and self.left[chain] <= 0}
        for chain in over:
            self.read.pop(chain, None)
            self.moved.pop(chain, None)
        if over:
            self.streams = {key: stream for key, stream in self.streams.items() if key[1] not in over}


def _damage(batch: Batch, damage: _Damage, rows: Tensor) -> Batch:
    after = damage.apply(batch, rows)
    for name in batch.names:
        same = after.inputs[name] is batch.inputs[name] or torch.equal(after.inputs[name], batch.inputs[name])
        if name not in damage.modalities and not same:
            raise ConfigError(f"{damage.spec} changed {name!r}; it says that it changes {', '.join(damage.modalities)}")
    return after


# the sweeps --------------------------------------------------------------------------------------------------------


def _in_chunks(
    pipeline: Pipeline,
    data: Dataset,
    plans: Sequence[_Plan],
    collected: Sequence[_Collected],
    size: int,
    stored: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    chunks = torch.split(torch.arange(len(data)), size)
    for number, rows in enumerate(chunks):
        chunk = _Chunk(pipeline.model, data, rows, plans, _device(pipeline))
        for done, (plan, into) in enumerate(zip(plans, collected, strict=True), start=1):
            start = time.perf_counter()
            keep = plan.rows(rows)
            if stored and not len(pipeline.monitors):
                prediction = chunk.answer(plan, keep)
                prediction = pipeline.described(prediction, prediction.used)
            else:
                batch = chunk.batch(plan, keep)
                prediction = pipeline(batch, chunk.watched(plan, batch) if stored else None)
            into.add(prediction, time.perf_counter() - start)
            into.present.append(_present(chunk, plan, keep, pipeline.model))
            chunk.release(plan)
            if progress is not None:
                progress(number * len(plans) + done, len(chunks) * len(plans))


def _adapting(
    pipeline: Pipeline,
    data: Dataset,
    plans: Sequence[_Plan],
    collected: Sequence[_Collected],
    size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    from kintsugi.io.saved_models import clone

    for done, (plan, into) in enumerate(zip(plans, collected, strict=True), start=1):
        twin = clone(pipeline)
        twin.reset()
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(plan.condition.seed))
        for rows in torch.split(order, size):
            chunk = _Chunk(twin.model, data, rows, [plan], _device(twin))
            start = time.perf_counter()
            keep = plan.rows(rows)
            into.add(twin(chunk.batch(plan, keep)), time.perf_counter() - start)
            into.present.append(_present(chunk, plan, keep, twin.model))
        into.order = order.argsort()
        if progress is not None:
            progress(done, len(plans))


def _present(chunk: _Chunk, plan: _Plan, keep: Tensor, model: Model) -> Tensor:
    names = chunk.damaged(()).names
    columns = [chunk.damaged(plan.chains.get(n, ())).present[:, names.index(n)].cpu() for n in model.schema.names]
    wanted = [names.index(n) for n in model.schema.names]
    return torch.stack(columns, 1) & keep[..., wanted]


@dataclass
class _Collected:
    """Predictions of one condition, chunk after chunk, without what nobody asked to keep."""

    large: tuple[str, ...] = ()
    parts: list[Prediction] = field(default_factory=list)
    present: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0
    order: Tensor | None = None

    def add(self, prediction: Prediction, seconds: float) -> None:
        kept = replace(
            prediction,
            embedding=prediction.embedding if "embedding" in self.large else None,
            restored=prediction.restored if "restored" in self.large else {},
            extras={},
        )
        self.parts.append(kept.map(lambda x: x.detach().cpu() if x.dtype == torch.bool else x.detach().float().cpu()))
        self.seconds += seconds

    def outcome(self, plan: _Plan, pipeline: Pipeline) -> Outcome:
        whole = Prediction.concatenate(self.parts)
        present = torch.cat(self.present)
        if self.order is not None:
            order = self.order
            whole, present = whole.map(lambda x: x[order]), present[order]
        return Outcome(
            plan.condition,
            whole.output,
            pipeline.model.task.probabilities(whole.output),
            present,
            whole.used,
            whole.weights,
            whole.reliability,
            self.seconds,
            plan.hash,
            whole.uncertainty,
            whole.unimodal,
            whole.embedding,
            whole.restored,
        )


def _cards(pipeline: Pipeline) -> list[Card]:
    return [component.card for _, component in pipeline.named_components() if hasattr(component, "card")]


def _device(pipeline: Pipeline) -> torch.device:
    return pipeline.model.prior.device


@contextmanager
def _calm(pipeline: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has the mode that it had."""
    modes = [(module, module.training) for module in pipeline.modules()]
    pipeline.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
