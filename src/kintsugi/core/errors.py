"""What can go wrong, said in the user's words: each error names the thing, the place and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class KintsugiError(Exception):
    """Base of every error that this library raises on purpose."""


class UnknownName(KintsugiError, KeyError):
    """A name that no registry, schema or table knows; the message suggests the nearest one."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.what, self.name, self.known, self.hint = what, name, sorted(known), hint
        super().__init__(f"unknown {what} {name!r}{nearest(name, self.known)}{hint}")

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[UnknownName], tuple[str, str, list[str], str]]:  # so that a worker can raise it
        return type(self), (self.what, self.name, self.known, self.hint)


class DataError(KintsugiError, ValueError):
    """Input that cannot be used as it is."""


class ConfigError(KintsugiError, ValueError):
    """An argument or a configuration that makes no sense."""


class ModelFileError(KintsugiError, ValueError):
    """A saved model that cannot be read: truncated, of another version, or not written by this library."""


class NonFiniteLoss(KintsugiError, ArithmeticError):
    """A loss became NaN or infinite; carries the row ids of the batch in which it happened."""

    def __init__(self, stage: str, epoch: int, losses: dict[str, float], rows: list[int]) -> None:
        self.stage, self.epoch, self.losses, self.rows = stage, epoch, losses, rows
        terms = ", ".join(f"{name}={value:.4g}" for name, value in losses.items())
        shown = ", ".join(map(str, rows[:20])) + (", …" if len(rows) > 20 else "")
        super().__init__(
            f"the loss is not finite in stage {stage!r}, epoch {epoch + 1} ({terms}); rows of the batch: {shown}. "
            "Look at these rows, lower the learning rate, or clip harder."
        )

    def __reduce__(self) -> tuple[type[NonFiniteLoss], tuple[str, int, dict[str, float], list[int]]]:
        return type(self), (self.stage, self.epoch, self.losses, self.rows)


def nearest(name: str, known: Iterable[str]) -> str:
    """Ending of an error message: the nearest known name, or all of them when there are few."""
    options = sorted(known)
    close = get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    if not options:
        return "; there are none"
    return f"; known: {', '.join(options[:20])}{', …' if len(options) > 20 else ''}"
