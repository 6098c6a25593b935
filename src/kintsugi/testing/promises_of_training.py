"""What training must do: reach every parameter, learn, and show in figures what the mechanism adds."""

from __future__ import annotations

import math
from typing import Any

from kintsugi.core.claims import Claim
from kintsugi.core.component import Component
from kintsugi.core.errors import ConfigError
from kintsugi.core.task import TASKS
from kintsugi.testing.fixture import Fixture, blind
from kintsugi.testing.holding import hold, on_every_task, place_of
from kintsugi.testing.promises_of_answers import every_subset
from kintsugi.testing.trials import ask, everything, run_of

EPOCHS = (2, 4, 12)  # on the toy, tried in turn: most need the fewest; the last is what a fixture trains for
SHARE = 0.4  # of the way from guessing to a perfect score that has to be gone


def every_loss_trains(cls: type[Component], ablated: bool | str = False) -> None:
    """Over all stages each named loss reaches a parameter, and no trainable parameter is left without gradient.

    Parameters that only few rows reach are named by ``rare`` of their component.
    """
    if cls.card.gradient:
        on_every_task(cls, lambda task: _every_loss_trains(cls, task, ablated))


def _every_loss_trains(cls: type[Component], task: str, ablated: bool | str) -> None:
    reach: Any = run_of(cls, task, ablated).reach
    hold(
        not reach.idle,
        f"losses that reach no parameter: {', '.join(reach.idle)}; where the weight of a loss is 0, leave the loss out of "
        "the step",
    )
    hold(not reach.still, f"trainable parameters without gradient: {', '.join(reach.still)}")
    idle = reach.idle_patterns
    hold(not idle, f"rare names parameters that there are not: {', '.join(idle)}; leave the pattern out")


def learns(cls: type[Component], ablated: bool | str = False) -> None:
    """On a small task it goes 0.4 of the way from guessing to a perfect score, within seconds."""
    on_every_task(cls, lambda task: _learns(cls, task, ablated))


def _learns(cls: type[Component], task: str, ablated: bool | str) -> None:
    fixtures = [Fixture(cls, ablated, epochs, task=task) for epochs in EPOCHS]
    if fixtures[-1].is_trained():
        fixtures = fixtures[-1:]
    for fixture in fixtures:
        measure, score, guess = _score(fixture)
        wanted = guess + SHARE * (1 - guess)
        if score > wanted:
            break
    hold(
        score > wanted,
        f"it does not learn the toy: {measure} {score:.3f}; guessing has {guess:.3g}, and {wanted:.2f} is wanted",
    )


def _score(fixture: Fixture) -> tuple[str, float, float]:
    test: Any = fixture.splits.test
    batch, task = everything(test), fixture.schema.task
    answer = task.probabilities(ask(fixture.trained(), batch).output)
    truth: Any = batch.target
    return task.score(answer, truth)


# claims -----------------------------------------------------------------------------------------------------------------
def claims_hold(cls: type[Component]) -> None:
    """Every claim holds, and each that the card names fails on the ablation, by its own figure."""
    hold(hasattr(cls, "claims"), f"it states no claim: write a generator of claims under @claims_of({cls.__name__})")
    hold(hasattr(cls, "ablation"), f"it has no ablation: write it under @ablation_of({cls.__name__})")
    hold(bool(cls.card.claims), "the card names no claim that the ablation must fail")
    claims = stated(cls)
    for claim in claims.values():
        hold(claim.holds, f"claim fails: {claim}")
    for name in cls.card.claims:
        hold(name in claims, f"the card names the claim {name!r}, and the method states {_listed(claims)}")
    ablated = stated(cls, ablated=True)
    for name in cls.card.claims:
        hold(
            name in ablated, f"on the ablation nothing is said of {name!r}: state the claim there too, with its figure"
        )
        hold(
            math.isfinite(ablated[name].figure),
            f"on the ablation {name!r} has no figure ({ablated[name].figure}): measure there what is claimed of the method",
        )
        hold(not ablated[name].holds, f"the ablation keeps the claim {ablated[name]}, so it tests nothing")
    for part in cls.ablations:
        without = stated(cls, ablated=part)
        failed = [name for name in cls.card.claims if name in without and not without[name].holds]
        hold(
            bool(failed), f"without {part!r} the method keeps every claim of its card, so none is about that mechanism"
        )


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))


def stated(cls: type[Component], ablated: bool | str = False, seed: int = 0) -> dict[str, Claim]:
    """The claims of a method, or what is left of them on its ablation, by name.

    Raises:
        AssertionError: two claims of one name, or none; or stating them ends with an error.
    """
    where = "on the ablation" if ablated else "on the method"
    claims: dict[str, Claim] = {}
    try:
        for claim in cls.claims(blind(Fixture(cls, ablated, seed=seed))):
            hold(isinstance(claim, Claim), f"{where} it yields {claim!r}, which is no Claim")
            hold(claim.name not in claims, f"two claims are called {claim.name!r}")
            claims[claim.name] = claim
    except Exception as error:
        if isinstance(error, AssertionError) and error.__traceback__ is not None and _is_own(error):
            raise
        words = str(error) or "no words"
        raise AssertionError(
            f"stating the claims {where} ends with {type(error).__name__} in {place_of(error)}: {words}; a claim fails by its "
            "figure, not by an error"
        ) from error
    hold(bool(claims), f"{where} no claim is stated")
    return claims


def _is_own(error: BaseException) -> bool:
    """Was it raised by ``hold`` here?"""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is hold.__code__


def ablation_is_sound(cls: type[Component]) -> None:
    """What is left without the mechanism is still a model: it answers every subset, trains and learns."""
    hold(hasattr(cls, "ablation"), f"it has no ablation: write it under @ablation_of({cls.__name__})")
    ways: list[bool | str] = [True, *cls.ablations]
    for ablated in ways:
        for promise in (every_subset, every_loss_trains, learns):
            try:
                promise(cls, ablated=ablated)
            except AssertionError as error:
                off = ablated if isinstance(ablated, str) else "the mechanism"
                raise AssertionError(f"with {off} off: {error}") from error


def tasks_are_known(cls: type[Component]) -> None:
    """Every task of the card is registered, and has toy data to try the method on."""
    import torch

    for key in cls.card.tasks:
        hold(key in TASKS, f"the card names the task {key!r}, and there are {', '.join(TASKS)}")
        try:
            TASKS[key].toy(torch.arange(3), 3)
        except ConfigError as error:
            raise AssertionError(str(error)) from error
