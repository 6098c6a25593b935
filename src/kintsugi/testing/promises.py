"""The promises, one function each: of a method's class, raising ``AssertionError`` with what is broken in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from kintsugi.core.card import Card
from kintsugi.core.catalogue import HOME
from kintsugi.core.component import Component
from kintsugi.core.methods import METHODS, arguments
from kintsugi.testing.holding import hold, place_of
from kintsugi.testing.promises_of_answers import (
    alone_or_together,
    cached_is_naive,
    every_subset,
    restored_in_training_too,
    says_what_it_knows,
    use_is_undone,
)
from kintsugi.testing.promises_of_arguments import no_argument_ignored
from kintsugi.testing.promises_of_data import bank_is_declared, hidden_is_gone, no_leak, seeded
from kintsugi.testing.promises_of_training import (
    ablation_is_sound,
    claims_hold,
    every_loss_trains,
    learns,
    stated,
    tasks_are_known,
)
from kintsugi.testing.trials import ask, data_for, everything, fitted

__all__ = ["CHECKS", "PROMISES", "check_method", "hold", "place_of", "round_trip", "stated"]


def round_trip(cls: type[Component], folder: Path) -> Tensor:
    """First half of the round trip: saved, with the answers that the loaded model must give in another process."""
    from kintsugi.io.saved_models import save

    pipeline = fitted(cls)
    save(pipeline, folder)
    return ask(pipeline, everything(data_for(cls, absent=0.3))).output


def card_is_true(cls: type[Component]) -> None:
    """The card is complete and true where that can be seen; of this library, file and folder are those it says."""
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
    hold(hasattr(cls, "claims"), f"it states no claim: write a generator of claims under @claims_of({cls.__name__})")
    tasks_are_known(cls)


PROMISES: tuple[Callable[[type[Component]], None], ...] = (
    no_leak, hidden_is_gone, seeded, bank_is_declared, every_subset, alone_or_together, use_is_undone, says_what_it_knows,
    restored_in_training_too, cached_is_naive, every_loss_trains, claims_hold, learns, ablation_is_sound,
    no_argument_ignored, card_is_true,
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
