"""The promises, one function each: of a method's class, raising ``AssertionError`` with what is broken in words."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.card import Card
from kintsugi.core.catalogue import HOME
from kintsugi.core.claims import Claim
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.errors import KintsugiError
from kintsugi.core.methods import METHODS, arguments
from kintsugi.core.schema import Schema
from kintsugi.data.dataset import Dataset
from kintsugi.testing.fixture import Fixture
from kintsugi.testing.trials import (
    ROWS,
    ask,
    build,
    data_for,
    everything,
    experienced,
    fitted,
    subsets,
    train,
)
from kintsugi.training.stage_run import Losses
from kintsugi.training.trainer import Trainer


def hold(condition: bool, broken: str) -> None:
    """Like ``assert``, but never without words, and under ``python -O`` too.

    Raises:
        AssertionError: the condition is not met; says what is broken.
    """
    if not condition:
        raise AssertionError(broken)


def no_leak(cls: type[Component]) -> None:
    """1. What stands in absent slots and unseen cells changes nothing: weights, losses and answers, bit for bit."""
    results = []
    for poison in (False, True):
        data = data_for(cls, absent=0.3, poison=poison)
        pipeline = build(cls, data.schema)
        trainer = train(pipeline, data)
        results.append((pipeline.state_dict(), trainer.history, ask(pipeline, everything(data)).output))
    (clean, losses, answers), (poisoned, poisoned_losses, poisoned_answers) = results
    for name, tensor in clean.items():
        hold(torch.equal(tensor, poisoned[name]), f"{name} was trained on what is absent")
    hold(losses == poisoned_losses, "a loss reads what is absent")
    hold(torch.equal(answers, poisoned_answers), "an answer reads what is absent")


def every_subset(cls: type[Component], ablated: bool = False) -> None:
    """2. Finite, task-shaped answers for every subset; the prior, and nothing used, for a row with nothing."""
    data = data_for(cls)
    pipeline = fitted(cls, ablated)
    batch = everything(data)
    task = data.schema.task
    shape = (len(batch), task.outputs)
    for kept in subsets(data.schema.names):
        answer, seen = ask(pipeline, batch.only(*kept)), f"with {' and '.join(kept)} present"
        hold(
            answer.output.shape == shape, f"{seen} the answer's shape is {list(answer.output.shape)}, not {list(shape)}"
        )
        hold(bool(torch.isfinite(answer.output).all()), f"{seen} some answer is not finite")
        hold(not bool((answer.used & ~batch.only(*kept).present).any()), f"{seen} it says that it used what is absent")
    empty = ask(pipeline, batch.only())
    hold(not bool(empty.used.any()), "of a row with nothing it says that it used something")
    prior = task.prior(data.split()[0])
    same = torch.allclose(empty.output, prior.expand_as(empty.output), atol=1e-5)
    hold(same, "a row with nothing does not get the prior")


def alone_or_together(cls: type[Component]) -> None:
    """3. A row's answer depends neither on its batch nor on the order of rows or of dictionaries."""
    pipeline = fitted(cls)
    batch = everything(data_for(cls, absent=0.3))
    together = ask(pipeline, batch).output
    turned = ask(pipeline, batch.rows(torch.arange(len(batch)).flip(0))).output.flip(0)
    shuffled = replace(batch, inputs=dict(reversed(batch.inputs.items())), mask=dict(reversed(batch.mask.items())))
    single = torch.cat([ask(pipeline, batch.rows(torch.tensor([i]))).output for i in range(24)])
    for name, other, reference in (
        ("the order of rows", turned, together),
        ("the order of dictionaries", ask(pipeline, shuffled).output, together),
        ("the batch", single, together[:24]),
    ):
        gap = float((other - reference).abs().max())
        same = torch.allclose(other, reference, rtol=1e-4, atol=1e-5)
        hold(same, f"an answer depends on {name}: it moves by up to {gap:.2g}")


class _Reach:
    """Notes which losses reach parameters, and which parameters are reached."""

    def __init__(self) -> None:
        self.reached: dict[tuple[str, str], bool] = {}
        self.touched: set[int] = set()

    def __call__(self, seen: Losses) -> None:
        for name, loss in seen.losses.items():
            grads = (
                torch.autograd.grad(loss, seen.moving, retain_graph=True, allow_unused=True)
                if loss.requires_grad
                else []
            )
            hit = {id(p) for p, g in zip(seen.moving, grads, strict=False) if g is not None and bool(g.any())}
            self.reached[seen.stage.name, name] = self.reached.get((seen.stage.name, name), False) or bool(hit)
            self.touched |= hit


def every_loss_trains(cls: type[Component], ablated: bool = False) -> None:
    """4. Over all stages each named loss reaches a parameter, and no trainable parameter is left without gradient."""
    if not cls.card.gradient:
        return
    data = data_for(cls, absent=0.3)
    pipeline = build(cls, data.schema, ablated)
    names = {id(p): n for n, p in pipeline.named_parameters() if p.requires_grad}
    reach = _Reach()
    trainer = Trainer(epochs=2, batch_size=48, progress=False)
    trainer.observers.append(reach)
    trainer.fit(pipeline, Splits(*data.split()))
    idle = [f"{name} of stage {stage}" for (stage, name), hit in reach.reached.items() if not hit]
    hold(
        not idle,
        f"losses that reach no parameter: {', '.join(idle)}; where the weight of a loss is 0, leave the loss out of the step",
    )
    still = [name for key, name in names.items() if key not in reach.touched]
    hold(not still, f"trainable parameters without gradient: {', '.join(still)}")


def seeded(cls: type[Component]) -> None:
    """5. The same seed gives the same weights, bit for bit."""
    data = data_for(cls, absent=0.3)
    again = build(cls, data.schema)
    train(again, data)
    for name, tensor in fitted(cls).state_dict().items():
        hold(torch.equal(tensor, again.state_dict()[name]), f"{name} differs between two runs of one seed")


def round_trip(cls: type[Component], folder: Path) -> Tensor:
    """6, first half: saved, with the answers on rows with holes that the loaded model must give in another process."""
    from kintsugi.core.store import save

    pipeline = fitted(cls)
    save(pipeline, folder)
    return ask(pipeline, everything(data_for(cls, absent=0.3))).output


def learns(cls: type[Component], ablated: bool = False) -> None:
    """7. On a small task it beats the prior's guess by a margin, within seconds."""
    fixture = Fixture(cls, ablated)
    pipeline = experienced(cls, ablated)
    test: Any = fixture.splits.test
    batch = everything(test)
    task = fixture.schema.task
    answer = task.probabilities(ask(pipeline, batch).output)
    truth: Any = batch.target
    if task.key == "classification":
        measure, score, guess, margin = "accuracy", float((answer.argmax(1) == truth).float().mean()), 0.25, 0.3
    elif task.key == "multilabel":
        measure, score, guess, margin = "accuracy", float(((answer > 0.5) == truth.bool()).float().mean()), 0.5, 0.2
    else:
        measure, score, guess, margin = "explained variance", 1 - float((answer - truth).var() / truth.var()), 0.0, 0.3
    hold(
        score > guess + margin,
        f"it does not learn the toy: {measure} {score:.3f}; guessing has {guess}, and {guess + margin:.2f} is wanted",
    )


def claims_hold(cls: type[Component]) -> None:
    """8. Every claim holds, and each that the card names fails on the ablation, by its own figure."""
    hold(hasattr(cls, "claims"), f"it states no claim: write a generator of claims under @claims_of({cls.__name__})")
    hold(hasattr(cls, "ablation"), f"it has no ablation: write it under @ablation_of({cls.__name__})")
    claims = stated(cls)
    for claim in claims.values():
        hold(claim.holds, f"claim fails: {claim}")
    ablated = stated(cls, ablated=True)
    for name in cls.card.claims:
        hold(name in claims, f"the card names the claim {name!r}, and the check states {', '.join(claims)}")
        hold(
            name in ablated, f"on the ablation nothing is said of {name!r}: state the claim there too, with its figure"
        )
        hold(not ablated[name].holds, f"the ablation keeps the claim {ablated[name]}, so it tests nothing")


def stated(cls: type[Component], ablated: bool = False, seed: int = 0) -> dict[str, Claim]:
    """The claims of a method, or what is left of them on its ablation, by name.

    Raises:
        AssertionError: two claims of one name, or none.
    """
    claims: dict[str, Claim] = {}
    for claim in cls.claims(Fixture(cls, ablated, seed=seed)):
        hold(claim.name not in claims, f"two claims are called {claim.name!r}")
        claims[claim.name] = claim
    hold(bool(claims), "its check states no claim")
    return claims


def place_of(error: BaseException, file: str = "") -> str:
    """Where an error was raised: line, file and source. With ``file``: the innermost place there, if it is on the way."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    return f"line {place.lineno} of {Path(place.filename).name}" + (f": {place.line}" if place.line else "")


def ablation_is_sound(cls: type[Component]) -> None:
    """8, second half: what is left without the mechanism is still a model: promises 2, 4 and 7."""
    hold(hasattr(cls, "ablation"), f"it has no ablation: write it under @ablation_of({cls.__name__})")
    for promise in (every_subset, every_loss_trains, learns):
        try:
            promise(cls, ablated=True)
        except AssertionError as error:
            raise AssertionError(f"with the mechanism off: {error}") from error


def _look(cls: type[Component], schema: Schema, data: Dataset, hyper: dict[str, Any]) -> tuple[Any, ...]:
    """What an argument can change: shapes, stages, losses of first steps, limits that monitors calibrate."""
    pipeline = build(cls, schema, **hyper)
    shapes = tuple((n, tuple(t.shape)) for n, t in pipeline.state_dict().items())
    stages = tuple(map(repr, pipeline.stages()))
    first: list[tuple[str, str, float]] = []
    trainer = Trainer(epochs=1, batch_size=ROWS, progress=False)
    trainer.observers.append(
        lambda seen: first.extend((seen.stage.name, name, float(x.detach())) for name, x in seen.losses.items())
    )
    trainer.fit(pipeline, Splits(*data.split()))
    limits = tuple(float(b.double().nan_to_num().sum()) for m in pipeline.monitors for b in m.buffers())
    answers = float(ask(pipeline, everything(data)).output.double().abs().sum())
    return shapes, stages, tuple(first), limits, answers


def no_argument_ignored(cls: type[Component]) -> None:
    """9. Every constructor argument changes shapes, stages, first losses or calibration, or is refused."""
    for name, default in arguments(cls).items():
        hold(default is not inspect.Parameter.empty, f"argument {name} has no default")
    data = data_for(cls, absent=0.3)
    usual = _look(cls, data.schema, data, {})
    for name, default in arguments(cls).items():
        changed, refused = False, 0
        others = _others(default, len(data.schema))
        for value in others:
            try:
                changed = _look(cls, data.schema, data, {name: value}) != usual
            except KintsugiError:
                refused += 1
            if changed or (refused and isinstance(default, str)):
                break
        hold(
            changed or (bool(refused) and isinstance(default, str)),
            f"argument {name} is ignored: {' or '.join(map(repr, others))} in place of {default!r} changes no shape, "
            "stage, first loss, limit or answer",
        )


def _others(default: Any, modalities: int) -> list[Any]:
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default + 1, default * 2, max(1, default - 1), max(1, default // 2)]
    if isinstance(default, float):
        return [default * 0.5, default * 3 + 0.1]
    if isinstance(default, str):
        return ["no such thing"]
    return [[1.0] + [0.5] * (modalities - 1), 2, 0.5]


def cached_is_naive(cls: type[Component]) -> None:
    """10. The evaluator with its cache of features answers as the plain sweep does."""
    from kintsugi.evaluation import get_protocol, predict_conditions

    pipeline = fitted(cls)
    data = data_for(cls, absent=0.3).split()[2]
    conditions = get_protocol("standard(3)", data.schema).conditions
    for fast, plain in zip(
        predict_conditions(pipeline, data, conditions, cache=True, chunk=13),
        predict_conditions(pipeline, data, conditions, cache=False, chunk=24),
        strict=True,
    ):
        gap = float((fast.probabilities - plain.probabilities).abs().max())
        hold(gap < 1e-5, f"condition {fast.condition.name}: the cache is off by {gap:.2g}")
        hold(torch.equal(fast.used, plain.used), f"condition {fast.condition.name}: other modalities are used")


def card_is_true(cls: type[Component]) -> None:
    """11. The card is complete and true where that can be seen; of this library, file and folder are those it says."""
    card: Card = cls.card
    hold(METHODS[card.key] is cls, f"under the key {card.key!r} another class is registered: {METHODS[card.key]!r}")
    text = METHODS.entries.get(card.key)
    if text is not None and text.file.is_relative_to(HOME):
        alone = sum(other.file == text.file for other in METHODS.entries.values()) == 1
        hold(
            not alone or text.file.stem == card.key,
            f"the file is called {text.file.name}; of this library it is {card.key}.py, by its key",
        )
        folder = text.file.parent.relative_to(HOME).as_posix()
        hold(
            folder == card.leaf,
            f"the card's leaf is {card.leaf}, and the file is in methods/{folder}; move one of them",
        )
    hold(bool(cls.__doc__), f"the class {cls.__name__} has no docstring")
    explained = str(cls.__doc__)
    for name in arguments(cls):
        hold(name == "dim" or name in explained, f"argument {name} is not explained in the docstring of {cls.__name__}")
    hold("Args" in explained or set(arguments(cls)) <= {"dim"}, f"{cls.__name__} explains no arguments under Args:")
    hold(hasattr(cls, "ablation"), f"it has no ablation: write it under @ablation_of({cls.__name__})")
    hold(hasattr(cls, "claims"), f"it has no check: write check(lab) under @claims_of({cls.__name__})")


PROMISES: tuple[Callable[[type[Component]], None], ...] = (
    no_leak, every_subset, alone_or_together, every_loss_trains, seeded, learns, claims_hold, ablation_is_sound,
    no_argument_ignored, cached_is_naive, card_is_true,
)  # fmt: skip

CHECKS: dict[str, Callable[[type[Component]], None]] = {promise.__name__: promise for promise in PROMISES}


def check_method(key: str) -> None:
    """Run every promise on one registered method; the first that is broken raises ``AssertionError`` with what it saw.

    It may stand in this library, in a file that was given to ``load_plugin``, in an installed package that names it, or
    in a notebook. The round trip through a fresh process is the one promise that needs a folder: see ``kintsugi check``.

    Raises:
        UnknownName: no such method.
    """
    for check in CHECKS.values():
        check(METHODS[key])
