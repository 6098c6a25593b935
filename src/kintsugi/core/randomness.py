"""Torch's global generator: who uses it takes turns, and who draws from it meanwhile is found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kintsugi.core.locks import ThreadLock

_TURN = ThreadLock()


@contextmanager
def fork_rng_in_turn(devices: Sequence[torch.device | int] = ()) -> Iterator[None]:
    """Torch's global generators, alone among those of this process that ask here, and put back afterwards.

    Layers draw their initial weights and their dropout from generators that all threads share: two that seed and draw
    side by side would get numbers that no seed decides. Another thread waits here until this one is done; the same
    thread may come in again.

    Args:
        devices: accelerators whose generators are put back too.
    """
    with _TURN, torch.random.fork_rng(devices=list(devices)):
        yield


@contextmanager
def private_draws(seed: int = 0) -> Iterator[None]:
    """What this thread draws in here comes from a generator of its own; the global one is neither moved nor put back.

    It is for making modules whose initial weights will be written over. It does not wait for :func:`fork_rng_in_turn`,
    but for operators that take no generator (dropout, attention), which have their turn there.

    Args:
        seed: of the generator.
    """
    with _OwnGenerator(torch.Generator().manual_seed(seed)):
        yield


class _OwnGenerator(TorchDispatchMode):
    """Hands a generator to every operator that draws; a mode holds in the thread that enters it alone."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags or given.get("generator") is not None:
            return func(*args, **given)
        if not _takes_generator(func):
            name = "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
            other = getattr(func.overloadpacket, name, None)
            if other is None:
                with fork_rng_in_turn():
                    return func(*args, **given)
            func = other
        return func(*args, **{**given, "generator": self.generator})


def _takes_generator(func: Any) -> bool:
    return any(argument.name == "generator" for argument in func._schema.arguments)


class DrawWatch:
    """Finds draws from torch's global generators in a stretch of code that draws nothing itself.

    Args:
        device: on which the code runs; its generator is watched beside that of the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generators.append(torch.cuda.default_generators[index])
        self._states: list[Tensor] | None = None

    def begin(self) -> None:
        """From here on nothing is to draw."""
        self._states = [generator.get_state() for generator in self._generators]

    def end(self, put_back: bool) -> bool:
        """Did something draw since :meth:`begin`? False where that was not called since the last end.

        Args:
            put_back: make the generators as they were; for stretches in which nothing of the caller's own can draw.
        """
        states, self._states = self._states, None
        drawn = False
        for generator, before in zip(self._generators, states or [], strict=False):
            if not torch.equal(generator.get_state(), before):
                drawn = True
                if put_back:
                    generator.set_state(before)
        return drawn


__all__ = ["DrawWatch", "fork_rng_in_turn", "private_draws"]
