"""Toy data whose rows carry a class that each modality tells something of, in every kind and for every task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Generator, Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.kind import KINDS
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.task import TASKS
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.training.sampling import generator

ROWS = 144  # of mixed data
CLASSES = 4  # of the toy
NOISE = 1.1  # standard deviation of each number around the centre of its class, whose numbers have 1
SHARED = 0.8  # share of the noise's variance that correlated channels have in common
SIZE, STEPS, CHANNELS, LETTERS = 8, 24, 4, 24  # of images, of series, of texts
LARGEST = 10**6  # an id that no vocabulary has
MIXED = ("image", "text", "table", "series", "vector")


# one kind ---------------------------------------------------------------------------------------------------------------
def toy(
    task: str = "classification", rows: int = 480, modalities: int = 3, dim: int = 8, seed: int = 0, *,
    kind: str = "vector", holes: float = 0.0, correlated: bool = False,
) -> Dataset:  # fmt: skip
    """Rows around one random centre a class: each modality tells most of the label, all together nearly all of it.

    The first 2/3 of the rows are for training, then 1/6 each for validation and test, as ``split()`` gives them.

    Args:
        task: key of a task with ``toy``; each row carries one of four classes.
        rows: in all.
        modalities: called m0, m1, …, all of one kind.
        dim: width of the signal; of vectors and tables their width too.
        seed: of the draws.
        kind: ``vector`` ``[dim]``; ``image`` ``[1, 8, 8]`` in [0, 1], smooth patterns; ``series`` ``[24, 4]``, slow waves, up
            to 8 steps at the end of which do not exist; ``text`` of 24 letters; ``tabular`` ``[dim + 1]``, the last a category
            of four, a tenth of the cells not seen; any other kind by the toy of its ``Kind``.
        holes: share of the slots that are absent; every row keeps one, and the first 12 are complete.
        correlated: noise of the numbers of a vector, and all channels of a series, have 0.8 of their variance in common.

    Raises:
        UnknownName: no such task or kind. ConfigError: the task or the kind has no toy.
    """
    noise = generator("toy", seed)
    label = torch.arange(rows) % CLASSES
    label = label[torch.randperm(rows, generator=noise)]
    centres = torch.randn(modalities, CLASSES, dim, generator=noise)
    inputs: dict[str, Tensor] = {}
    mask: dict[str, Tensor] = {}
    described: list[Modality] = []
    for i in range(modalities):
        drawn = torch.randn(rows, dim, generator=noise)
        if correlated:
            drawn = math.sqrt(1 - SHARED) * drawn + math.sqrt(SHARED) * torch.randn(rows, 1, generator=noise)
        signal = centres[i, label] + NOISE * drawn
        x, seen, modality = _rendered(f"m{i}", kind, signal, correlated, noise)
        inputs[f"m{i}"] = x
        described.append(modality)
        if seen is not None:
            mask[f"m{i}"] = seen
    chosen, target = TASKS[task].toy(label, CLASSES)
    names = tuple(inputs)
    present = torch.ones(rows, modalities, dtype=torch.bool)
    if holes:
        present = _with_holes(present, holes, noise)
        _empty(names, inputs, mask, present)
    batch = Batch(names, inputs, present, torch.arange(rows), target, mask=mask)
    return _split(TensorSource(Schema(tuple(described), chosen), batch, "toy"))


def _split(source: TensorSource) -> Dataset:
    rows = len(source.present)
    parts = torch.arange(rows).split([rows * 2 // 3, rows // 6, rows - rows * 2 // 3 - rows // 6])
    source.split = dict(zip(("train", "val", "test"), parts, strict=True))
    return Dataset(source)


def _with_holes(present: Tensor, share: float, noise: Generator) -> Tensor:
    drawn = torch.rand(present.shape, generator=noise)
    present = present & (drawn >= share)
    present = present | (~present.any(1)[:, None] & (drawn == drawn.amax(1, keepdim=True)))
    present[:12] = True
    return present


def _empty(names: Sequence[str], inputs: dict[str, Tensor], mask: dict[str, Tensor], present: Tensor) -> None:
    """Zeros where a modality is absent."""
    for column, name in enumerate(names):
        inputs[name] = inputs[name].clone()
        inputs[name][~present[:, column]] = 0
        if name in mask:
            mask[name] = mask[name] & present[:, column, None]


Rendered = tuple[Tensor, Tensor | None, Modality]


def _rendered(name: str, kind: str, signal: Tensor, correlated: bool, noise: Generator) -> Rendered:
    """A signal ``[N, dim]`` as rows of a kind, their mask and their modality."""
    if kind == "vector":
        return signal, None, Modality(name, kind, (signal.shape[1],))
    if kind in RENDERERS:
        return RENDERERS[kind](name, signal, correlated, noise)
    one = torch.sigmoid(signal[:, 0])
    x, seen = KINDS[kind].toy_rows(one, noise)
    record = KINDS[kind]
    vocabulary = int(x.max()) + 1 if record.vocabulary else None
    return x, seen, Modality(name, kind, tuple(x.shape[1:]), vocab=vocabulary)


def _waves(count: int, length: int) -> Tensor:
    """Cosines of 1/2, 1, 3/2, … periods over ``length`` points: ``[count, length]``."""
    place = (torch.arange(length) + 0.5) / length
    return torch.cos(math.pi * torch.arange(1, count + 1)[:, None] * place)


def _image(name: str, signal: Tensor, correlated: bool, noise: Generator) -> Rendered:
    across = _waves(3, SIZE)
    patterns = torch.einsum("ix,jy->ijxy", across, across).flatten(0, 1)[: signal.shape[1]]
    x = torch.einsum("nk,kxy->nxy", signal[:, : len(patterns)], patterns)
    return torch.sigmoid(0.7 * x)[:, None], None, Modality(name, "image", (1, SIZE, SIZE))


def _series(name: str, signal: Tensor, correlated: bool, noise: Generator) -> Rendered:
    rows, dim = signal.shape
    shared = signal @ _waves(dim, STEPS)
    if correlated:
        factor = torch.linspace(0.6, 1.4, CHANNELS)
        own = math.sqrt((1 - SHARED) / SHARED) * torch.randn(rows, STEPS, CHANNELS, generator=noise)
        x = factor * (shared[..., None] + shared.std() * own)
    else:
        parts = signal.chunk(CHANNELS, 1)
        x = torch.stack([part @ _waves(dim, STEPS)[: part.shape[1]] for part in parts], -1)
        x = x + 0.3 * torch.randn(x.shape, generator=noise)
    length = STEPS - torch.randint(0, 9, (rows,), generator=noise)
    return x, torch.arange(STEPS) < length[:, None], Modality(name, "series", (STEPS, x.shape[-1]))


def _text(name: str, signal: Tensor, correlated: bool, noise: Generator) -> Rendered:
    """Each number as one of four letters of its own at a place of its own, between letters that tell nothing."""
    rows, dim = signal.shape
    x = torch.randint(97, 123, (rows, LETTERS), generator=noise)
    level = torch.bucketize(signal.contiguous(), torch.tensor([-1.0, 0.0, 1.0]))
    used = min(dim, LETTERS // 2)
    x[:, : 2 * used : 2] = 130 + 4 * torch.arange(used) + level[:, :used]
    return x, torch.ones_like(x, dtype=torch.bool), Modality(name, "text", (LETTERS,), vocab=257)


def _tabular(name: str, signal: Tensor, correlated: bool, noise: Generator) -> Rendered:
    category = torch.bucketize(signal[:, :1].contiguous(), torch.tensor([-1.0, 0.0, 1.0])) + 1.0
    x = torch.cat([signal, category], 1)
    seen = torch.rand(x.shape, generator=noise) > 0.1
    seen[:, 0] = True
    x = torch.where(seen, x, 0)
    return x, seen, Modality(name, "tabular", (x.shape[1],), categories=(*[0] * signal.shape[1], 4))


RENDERERS: dict[str, Callable[[str, Tensor, bool, Generator], Rendered]] = {
    "image": _image, "series": _series, "text": _text, "tabular": _tabular,
}  # fmt: skip


# several kinds ----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=32)
def mixed(
    task: str, absent: float = 0.0, poison: bool = False, modalities: int = 3, kinds: tuple[str, ...] = ()
) -> Dataset:
    """Image, text with padding, table with unseen cells, series of correlated channels with absent steps, vector.

    Args:
        task: key of a task with ``toy``; each of the 144 rows carries one of three classes.
        absent: share of the slots that are absent.
        poison: NaN (or ids out of range) wherever nothing may be read: absent slots, unseen cells and steps.
        modalities: how many, in the order above.
        kinds: which, by their names in ``MIXED``; default: the first ``modalities``.

    Raises:
        UnknownName: no such task. ConfigError: the task has no toy, or there are not so many modalities.
    """
    if modalities > len(MIXED):
        raise ConfigError(f"mixed data has {len(MIXED)} modalities ({', '.join(MIXED)}), not {modalities}")
    names = kinds or MIXED[:modalities]
    label = torch.arange(ROWS) % 3
    inputs, mask, drawn = _mixed_inputs(label)
    chosen, target = TASKS[task].toy(label, 3)
    present = drawn[:, : len(names)] >= absent
    present[:, 0] |= ~present.any(1)
    present[:12] = True
    inputs = {name: inputs[name].clone() for name in names}
    mask = {name: m.clone() for name, m in mask.items() if name in names}
    for column, name in enumerate(names):
        _blank(name, inputs[name], mask, present[:, column], poison)
    schema = Schema(tuple(DESCRIBED[name] for name in names), chosen)
    source = TensorSource(schema, Batch(names, inputs, present, torch.arange(ROWS), target, mask=mask), "mixed")
    which = f"-{'+'.join(kinds)}" if kinds else ""
    source._fingerprint = f"mixed-{task}-{absent}{which}"  # the poison is not to be seen by anything
    return _split(source)


DESCRIBED = {
    modality.name: modality
    for modality in (
        Modality("image", "image", (1, 8, 8)),
        Modality("text", "text", (16,), vocab=257),
        Modality("table", "tabular", (4,), categories=(0, 0, 0, 3)),
        Modality("series", "series", (12, 3)),
        Modality("vector", "vector", (5,)),
    )
}


def _mixed_inputs(label: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Inputs and masks of all kinds, and uniform draws ``[N, 5]`` that decide which slots are absent."""
    noise = generator("mixed")
    image = 0.5 * torch.rand(ROWS, 1, 8, 8, generator=noise)
    image[torch.arange(ROWS), 0, label] += 0.5
    text = torch.randint(1, 200, (ROWS, 16), generator=noise)
    text[:, 0] = 30 + label
    length = torch.randint(4, 17, (ROWS,), generator=noise)
    cells = torch.randn(ROWS, 4, generator=noise) + label[:, None]
    cells[:, 3] = label + 1.0
    seen = torch.rand(ROWS, 4, generator=noise) > 0.2
    seen[:, 0] = True
    vector = torch.randn(ROWS, 5, generator=noise) + label[:, None]
    drawn = torch.rand(ROWS, 4, generator=noise)
    more = generator("mixed", "series")  # so that the numbers of the others stay what they were without it
    wave = torch.sin((1.0 + label)[:, None] * torch.arange(12) / 2) + 0.5 * torch.randn(ROWS, 12, generator=more)
    series = wave[..., None] * torch.tensor([1.0, -0.5, 2.0]) + 0.3 * torch.randn(ROWS, 12, 3, generator=more)
    steps = torch.arange(12) < torch.randint(5, 13, (ROWS, 1), generator=more)
    steps &= (torch.rand(ROWS, 12, generator=more) > 0.1) | (torch.arange(12) == 0)
    drawn = torch.cat([drawn, torch.rand(ROWS, 1, generator=more)], 1)
    inputs = {"image": image, "text": text, "table": cells, "series": series, "vector": vector}
    return inputs, {"text": torch.arange(16) < length[:, None], "table": seen, "series": steps}, drawn


def _blank(name: str, x: Tensor, mask: dict[str, Tensor], here: Tensor, poison: bool) -> None:
    """Zeros, or poison, where nothing may be read; of texts only in absent rows, since padding is 0 by their kind."""
    nothing: float = (LARGEST if name == "text" else torch.nan) if poison else 0
    x[~here] = nothing
    if name in mask:
        unseen = ~mask[name] & here[:, None]
        x[unseen] = nothing if name != "text" else 0
        mask[name] &= here[:, None]
