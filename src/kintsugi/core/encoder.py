"""Encoders turn the rows of one modality into a stream; a user's own module is wrapped into one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Stream
from kintsugi.core.registry import Registry
from kintsugi.core.schema import KINDS, Modality


class Encoder(nn.Module):
    """``forward(x, mask) -> Stream`` on present rows only: x ``[R, *shape]``, mask bool ``[R, T]`` or None (all seen).

    What is masked must not influence the output, and a row's output must not depend on other rows in evaluation.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        raise NotImplementedError

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        stream: Stream = super().__call__(x, mask)
        return stream


ENCODERS: Registry[Callable[[Modality, int], Encoder]] = Registry("encoder", "kintsugi.encoders")


_OWN: ContextVar[tuple[Mapping[str, nn.Module], set[str]] | None] = ContextVar("own_encoders", default=None)


@contextmanager
def own_encoders(modules: Mapping[str, nn.Module] | None) -> Iterator[set[str]]:
    """Every model that is made inside takes a copy of these modules for its modalities.

    Yields:
        the modalities whose module was taken so far.

    Raises:
        ConfigError: as :func:`check_encoders`.
    """
    check_encoders(modules)
    taken: set[str] = set()
    token = _OWN.set((modules or {}, taken))
    try:
        yield taken
    finally:
        _OWN.reset(token)


def check_encoders(modules: object) -> None:
    """Raise unless this is nothing, or what a user may give as encoders: modules by modality.

    Raises:
        ConfigError: no mapping, or something in it that is no module.
    """
    if modules is None:
        return
    if not isinstance(modules, Mapping):
        raise ConfigError(f"encoders is a mapping from modality to module, not a {type(modules).__name__}")
    for name, module in modules.items():
        if not isinstance(module, nn.Module):
            what = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
            raise ConfigError(
                f"the encoder given for modality {name!r} is {what}, and an nn.Module is wanted; make a class of your own "
                "that calls it in forward, and give an instance of that"
            )


def make_encoder(modality: Modality, dim: int) -> Encoder:
    """The encoder of a modality: the user's own where :func:`own_encoders` has one, else that of its kind."""
    modules, taken = _OWN.get() or ({}, set())
    if modality.name not in modules:
        return ENCODERS[modality.kind](modality, dim)
    taken.add(modality.name)
    return UserEncoder(modality, dim, modules[modality.name])


class UserEncoder(Encoder):
    """A user's module, projected to the width of the model.

    The module maps ``[R, *shape]`` to ``[R, D]``, ``[R, T, D]`` or a map ``[R, C, H, W]``. It is copied: a teacher and its
    student never share weights, and what the user holds stays as it was. It sees zeros where steps or cells are masked, and
    is in evaluation mode while it is given a single row.

    Raises:
        ConfigError: the module fails on a row of the modality's shape, or its output has another number of axes.
    """

    def __init__(self, modality: Modality, dim: int, module: nn.Module) -> None:
        super().__init__()
        self.modality, self.module = modality, copy.deepcopy(module)
        width = self._probe()
        self.project = nn.Identity() if width == dim else nn.Linear(width, dim)

    def _probe(self) -> int:
        name, shape = self.modality.name, tuple(n or 1 for n in self.modality.shape)
        at = next((p.device for p in self.module.parameters()), None)
        try:
            with torch.no_grad(), evaluating(self.module):
                out = self.module(torch.zeros(2, *shape, dtype=_dtype(self.modality), device=at))
        except Exception as error:
            raise ConfigError(
                f"the encoder given for modality {name!r} fails on rows of shape {list(shape)}: {error}"
            ) from error
        return self._check(out, 2)

    def _check(self, out: object, rows: int) -> int:
        if not isinstance(out, Tensor) or out.ndim not in (2, 3, 4) or out.shape[0] != rows:
            got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ConfigError(
                f"the encoder given for modality {self.modality.name!r} must return [R, D], [R, T, D] or [R, C, H, W] "
                f"with R = {rows} rows; it returned {got}"
            )
        return int(out.shape[1] if out.ndim == 4 else out.shape[-1])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Stream:
        if mask is not None and mask.shape == x.shape[: mask.ndim]:
            x = torch.where(mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, 0)
        with evaluating(self.module, self.module.training and len(x) < 2):  # BatchNorm raises on a single row
            out = self.module(x)
        self._check(out, len(x))
        if out.ndim == 2:
            return Stream.vector(self.project(out))
        grid = tuple(out.shape[2:]) if out.ndim == 4 else None
        tokens = self.project(out.flatten(2).transpose(1, 2) if out.ndim == 4 else out)
        if mask is None or mask.shape != tokens.shape[:2]:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device)
        return Stream(torch.where(mask[..., None], tokens, 0), mask, grid)


@contextmanager
def evaluating(module: nn.Module, on: bool = True) -> Iterator[None]:
    """The module in evaluation mode; afterwards each module inside it is in its own mode again."""
    modes = {m: m.training for m in module.modules()} if on else {}
    try:
        if on:
            module.eval()
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode


def _dtype(modality: Modality) -> torch.dtype:
    return KINDS[modality.kind].dtype


def blank(modality: Modality, rows: int = 1, device: torch.device | None = None) -> Tensor:
    """Rows of zeros in the shape of this modality; an open axis gets length 1."""
    return torch.zeros(rows, *(n or 1 for n in modality.shape), dtype=_dtype(modality), device=device)
