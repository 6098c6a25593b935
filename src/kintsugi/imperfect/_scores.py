"""What a mechanism may depend on: a number for each row, read once for each data set and remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import KINDS, Modality
from kintsugi.imperfect._exact import Floats
from kintsugi.imperfect.mask import seen_steps

if TYPE_CHECKING:
    from kintsugi.core.data import Data

CHUNK = 512
QUIET = 1e-12  # added to the energy before the logarithm: -120 dB of full scale, so that silence has a score
_known: WeakKeyDictionary[Data, dict[tuple[str, ...], Tensor]] = WeakKeyDictionary()


def _remembered(data: Data, key: tuple[str, ...], make: Callable[[], Tensor]) -> Tensor:
    found = _known.setdefault(data, {})
    if key not in found:
        found[key] = make()
    return found[key]


def _chunks(data: Data, name: str) -> Iterator[tuple[Tensor, Tensor, Batch]]:
    """Positions of rows that have a modality, bool ``[B]``: still there when read, and the batch."""
    column = data.schema.column(name)
    for rows in data.present[:, column].nonzero().flatten().split(CHUNK):
        batch = data.batch(rows)
        yield rows, batch.present[:, column], batch


def observed_steps(data: Data, name: str) -> Tensor:
    """Bool ``[N, T]``: the steps of a modality that the data has.

    Raises:
        UnknownName: no such modality.
        ConfigError: it has no steps.
    """
    check_steps(data.schema[name])

    def read() -> Tensor:
        parts = [(rows, seen_steps(batch, name)) for rows, _, batch in _chunks(data, name)]
        width = max((seen.shape[1] for _, seen in parts), default=data.schema[name].shape[0] or 0)
        out = torch.zeros(len(data), width, dtype=torch.bool)
        for rows, seen in parts:
            out[rows, : seen.shape[1]] = seen.cpu()
        return out

    return _remembered(data, ("steps", name), read)


def has_steps(modality: Modality) -> bool:
    """Is there an axis of steps that a mask can count?"""
    return KINDS[modality.kind].steps is not None


def check_steps(modality: Modality) -> None:
    """Raise ConfigError where a modality has no steps."""
    if not has_steps(modality):
        raise ConfigError(
            f"modality {modality.name!r} is {modality.kind}, which has no steps that could go missing; hide a part of it "
            "with the operators occlusion or cutout, or the whole of it with a mechanism of slots"
        )


def score(data: Data, name: str) -> Tensor:
    """One number a row, float64 ``[N]``, NaN where the modality is absent.

    image, video, volume: mean brightness; audio: log10 of the mean square; text: tokens seen; series: the mean over seen
    steps, vector, tabular: the number itself, each standardised by column over these rows, then averaged.
    """
    modality = data.schema[name]

    def read() -> Tensor:
        rows, values = [], []
        for at, here, batch in _chunks(data, name):
            rows.append(at[here])
            values.append(_columns(modality, batch.rows(here)))
        out = torch.full((len(data),), torch.nan, dtype=torch.float64)
        if rows:
            out[torch.cat(rows)] = _averaged(torch.cat(values))
        return out

    return _remembered(data, ("score", name), read)


def _columns(modality: Modality, batch: Batch) -> Tensor:
    """What a score is the mean of: float64 ``[B, C]``, NaN where unseen."""
    x = batch.inputs[modality.name]
    if not has_steps(modality):
        return x.double().flatten(1).mean(1, keepdim=True)
    seen = seen_steps(batch, modality.name)
    if KINDS[modality.kind].vocabulary:
        return seen.sum(1, keepdim=True).double()
    x = x.double().masked_fill(~seen.view(*seen.shape, *[1] * (x.ndim - 2)), torch.nan)
    if modality.kind == "audio":
        return torch.log10(x.square().nanmean(1, keepdim=True) + QUIET)
    if modality.kind == "series":
        return x.nanmean(1)
    if x.ndim > 2:
        return x.flatten(1).nanmean(1, keepdim=True)
    numbers = [c for c, n in enumerate(modality.categories) if n == 0]
    return x[:, numbers] if numbers else x


def _averaged(columns: Tensor) -> Tensor:
    centred = columns - columns.nanmean(0)
    spread = centred.square().nanmean(0).sqrt()
    return (centred / spread.clamp(min=1e-12)).nanmean(1)


def cell(data: Data, name: str, index: int) -> Tensor:
    """The values of one cell of a table or vector: float64 ``[N]``, NaN where unseen.

    Raises:
        ConfigError: no such cell.
    """
    modality = data.schema[name]
    if modality.kind not in ("tabular", "vector") or not 0 <= index < (modality.shape[0] or 0):
        raise ConfigError(
            f"{name}.{index} is no cell: modality {name!r} is {modality.kind} of shape {list(modality.shape)}"
        )

    def read() -> Tensor:
        out = torch.full((len(data),), torch.nan, dtype=torch.float64)
        for rows, _, batch in _chunks(data, name):
            seen = seen_steps(batch, name)[:, index]
            out[rows] = batch.inputs[name][:, index].double().masked_fill(~seen, torch.nan)
        return out

    return _remembered(data, ("cell", name, str(index)), read)


def cells(data: Data, name: str) -> Tensor:
    """All cells of a table or vector: float64 ``[N, C]``, NaN where unseen."""

    def read() -> Tensor:
        width = data.schema[name].shape[0] or 0
        out = torch.full((len(data), width), torch.nan, dtype=torch.float64)
        for rows, _, batch in _chunks(data, name):
            out[rows] = batch.inputs[name].double().masked_fill(~seen_steps(batch, name), torch.nan)
        return out

    return _remembered(data, ("cells", name), read)


def context(data: Data, key: str) -> Tensor:
    """What is no modality, as a number: float64 ``[N]``.

    Raises:
        ConfigError: the batches carry no such context, or it is no number.
    """

    def read() -> Tensor:
        parts = []
        for batch in data.batches(CHUNK):
            found = batch.context.get(key)
            if found is None:
                known = ", ".join(batch.context) or "none"
                raise ConfigError(f"{data.name} has no context {key!r}; it has {known}")
            try:
                parts.append(torch.as_tensor(found, dtype=torch.float64).reshape(len(batch)))
            except (TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(f"context {key!r} is not one number a row: {error}") from error
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    return _remembered(data, ("context", key), read)


def label_score(data: Data) -> Tensor:
    """The label as a number, float64 ``[N]``, NaN where there is none: class id, value, or how many labels hold.

    Raises:
        ConfigError: the data has no target.
    """
    if data.target is None:
        raise ConfigError(f"{data.name} has no labels that missingness could depend on")
    value = data.target.double()
    value = value.flatten(1).sum(1) if value.ndim > 1 else value
    return value.masked_fill(~data.target_present, torch.nan)


def standardised(values: Tensor) -> Floats:
    """Mean 0 and standard deviation 1 over the known values; 0, the mean, where a value is not known."""
    found: Floats = values.numpy().astype(np.float64)
    known = np.isfinite(found)
    if not known.any():
        return np.zeros(len(found))
    spread = found[known].std()
    out: Floats = np.where(known, (found - found[known].mean()) / (spread if spread > 0 else 1.0), 0.0)
    return out


def driver(data: Data, by: str) -> tuple[Floats, str | None]:
    """The standardised number of each row that ``by`` names, and the modality that it reads.

    ``by``: a modality (its :func:`score`), ``table.3`` (cell 3, counted from 0), or ``context.site``.

    Raises:
        UnknownName: no such modality.
        ConfigError: no such cell or context.
    """
    name, dot, rest = by.partition(".")
    if dot and name == "context" and name not in data.schema.names:
        return standardised(context(data, rest)), None
    if dot:
        if not rest.isdigit():
            raise ConfigError(f"{by!r} names no cell; write {name}.3 for cell 3, counted from 0")
        return standardised(cell(data, name, int(rest))), name
    return standardised(score(data, name)), name
