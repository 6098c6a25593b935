"""Operators at work: clean rows, what became of them at each severity, and how large the damage is."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.evaluation.examples import BYTES
from kintsugi.gallery.cards import changes_labels, level
from kintsugi.gallery.samples import Sample
from kintsugi.imperfect.corruption import corrupt
from kintsugi.imperfect.operator import OPERATORS, CrossOperator
from kintsugi.imperfect.scales import scale

MEASURED = 16  # rows whose damage is measured
CROSS_MEASURED = 256  # of cross-modal operators, which reach a share of the rows


@dataclass(frozen=True)
class Level:
    """One severity. after: the damaged rows, or failed: what went wrong; measured: how large the damage is.

    refused: it went wrong on purpose, since the operator does not take such data or needs an option.
    """

    severity: int
    parameters: str
    after: Batch | None = None
    failed: str = ""
    measured: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Strip:
    """An operator on a sample. refused: why it does not take such data; else the clean rows and the levels."""

    key: str
    sample: Sample
    preset: str = ""
    modalities: tuple[str, ...] = ()
    clean: Batch | None = None
    levels: tuple[Level, ...] = ()
    refused: str = ""
    labels: bool = False

    @property
    def failures(self) -> list[Level]:
        """The severities at which it failed."""
        return [each for each in self.levels if each.failed]

    def order(self) -> list[int]:
        """Positions of the clean rows, those that are damaged at the most severities first.

        Operators that hit a share of the rows would often show two that they leave alone.
        """
        if self.clean is None:
            return []
        times = torch.zeros(len(self.clean), dtype=torch.int64)
        for after in (each.after for each in self.levels):
            if after is not None:
                times += torch.stack([_touched(self.clean, after, name) for name in self.modalities]).any(0)
        return times.argsort(descending=True, stable=True).tolist()


def strip(key: str, sample: Sample, severities: Sequence[int], seed: int) -> Strip:
    """Run an operator on a sample. What goes wrong is kept, not raised."""
    operator = OPERATORS[key]
    try:
        preset, modalities = _fitting(key, sample)
    except ConfigError as error:
        return Strip(key, sample, refused=str(error))
    labels = changes_labels(operator)
    rows = sample.rows(modalities, seed, CROSS_MEASURED if issubclass(operator, CrossOperator) else MEASURED)
    if len(rows) == 0:
        return Strip(key, sample, refused=f"no row of {sample.data.name} has {', '.join(modalities)}")
    clean = sample.data.batch(rows)
    levels = tuple(_level(key, sample, preset, modalities, clean, s, seed) for s in severities)
    if all(each.refused for each in levels):
        return Strip(key, sample, refused=levels[0].failed)
    return Strip(key, sample, preset, modalities, clean, levels, labels=labels)


def _fitting(key: str, sample: Sample) -> tuple[str, tuple[str, ...]]:
    """The preset, and the modalities that the operator takes."""
    kind = OPERATORS[key]
    operator = kind()
    if not isinstance(operator, CrossOperator):
        modality = sample.data.schema[sample.modality]
        operator.check(modality)
        return operator.preset(modality), (sample.modality,)
    names = sample.data.schema.names
    last = ConfigError(f"{sample.data.name} has {len(names)} modalities, and {key} takes {operator.least}")
    for chosen in itertools.permutations(names, operator.least):
        try:
            operator.check_count(chosen)
            operator.check(tuple(sample.data.schema[name] for name in chosen))
        except ConfigError as error:
            last = error
        else:
            return next(iter(operator.parameters)), chosen
    raise last


def _level(
    key: str, sample: Sample, preset: str, modalities: tuple[str, ...], clean: Batch, severity: int, seed: int
) -> Level:
    parameters = level(OPERATORS[key].parameters[preset], severity)
    single = not issubclass(OPERATORS[key], CrossOperator)
    try:
        spec = corrupt(key, modalities[0] if single else modalities, severity, preset)
        plan = spec.plan(sample.data, seed)
        after = spec.apply(clean, plan)
        if spec.labels and clean.target is not None:
            after = replace(after, target=spec.relabel(clean.target, clean.index, plan))
            measured = f"{_share(after.target != clean.target)} of the labels changed"
        elif single:
            measured = measure(sample, clean, after)
        else:
            measured = "; ".join(f"{_share(_touched(clean, after, name))} of {name} changed" for name in modalities)
    except ConfigError as error:
        return Level(severity, parameters, failed=str(error), refused=True)
    except Exception as error:  # an operator that fails is shown as failed
        return Level(severity, parameters, failed=f"{type(error).__name__}: {error}")
    return Level(severity, parameters, after, measured=measured)


def _touched(clean: Batch, after: Batch, name: str) -> Tensor:
    """Bool ``[B]``: the rows whose input or mask is another one."""
    x, y = clean.inputs[name], after.inputs[name]
    if x.is_floating_point():
        x, y = x.nan_to_num(9e9), y.nan_to_num(9e9)
    changed = (x != y).flatten(1).any(1)
    return changed | (seen(clean, name) != seen(after, name)).flatten(1).any(1)


def _share(hit: Tensor | bool) -> str:
    return f"{100 * float(torch.as_tensor(hit).float().mean()):.0f} %"


# how large it is ------------------------------------------------------------------------------------------------------
def measure(sample: Sample, clean: Batch, after: Batch) -> str:
    """The damage over the rows, in words: root mean square error, in the units of the kind, and what is gone.

    Images and sound: of the values; sound also as the ratio of signal to error in decibels. Series, vectors and tables:
    in standard deviations of each channel over the reference rows. Text: the share of characters that were inserted,
    deleted or replaced.
    """
    name = sample.modality
    kind = sample.data.schema[name].kind
    gone = 1 - float(seen(after, name)[seen(clean, name)].float().mean())
    lost = f"{_percent(gone)} gone" if gone > 0 and kind != "text" else ""  # text that became shorter has lost no step
    if kind == "text":
        said = [f"{_percent(_edits(sample, clean, after))} of characters"]
    elif kind == "tabular":
        changed = _cells(clean, after, name)
        said = [f"{_percent(changed)} of cells"] if changed or not lost else []
    else:
        said = []
    error = 0.0 if kind == "text" else _error(sample, clean, after)
    if error or (not said and not lost):
        said.append(f"RMSE {_digits(error)}" + " sd" * (kind in ("series", "vector", "tabular")))
        said += [f"SNR {_ratio(clean, after, name):.1f} dB"] if kind == "audio" and error else []
    return ", ".join([*said, *([lost] if lost else [])])


def _digits(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def seen(batch: Batch, name: str) -> Tensor:
    """Bool ``[B, T]``: the steps that are there; of data without a mask, ``[B, 1]``."""
    here = batch.present[:, [batch.names.index(name)]]
    return here & batch.mask[name] if name in batch.mask else here.expand(-1, _steps(batch, name))


def _steps(batch: Batch, name: str) -> int:
    x = batch.inputs[name]
    return x.shape[1] if x.ndim in (2, 3) else 1


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _difference(clean: Batch, after: Batch, name: str) -> tuple[Tensor, Tensor]:
    """Float64 difference and where both are seen, both of the shape of the input."""
    x, y = clean.inputs[name].double(), after.inputs[name].double()
    here = seen(after, name) & seen(clean, name)
    here = here.view(*here.shape, *[1] * (x.ndim - here.ndim)).expand_as(x)
    return torch.where(here, y - x, 0), here


def _error(sample: Sample, clean: Batch, after: Batch) -> float:
    name = sample.modality
    difference, here = _difference(clean, after, name)
    if sample.data.schema[name].kind in ("series", "vector", "tabular"):
        sd = scale(sample.data, name).sd
        categories = torch.tensor(sample.data.schema[name].categories or [0] * len(sd)) > 0
        difference = torch.where(categories, 0, difference / sd.clamp(min=1e-9))
    return float((difference.square().sum() / here.sum().clamp(min=1)).sqrt())


def _ratio(clean: Batch, after: Batch, name: str) -> float:
    """10 log10 of the clean power over the power of the difference."""
    difference, here = _difference(clean, after, name)
    power = torch.where(here, clean.inputs[name].double(), 0).square().sum()
    return float(10 * torch.log10(power / difference.square().sum().clamp(min=1e-20)))


def _cells(clean: Batch, after: Batch, name: str) -> float:
    difference, here = _difference(clean, after, name)
    return float((difference != 0)[here].double().mean())


def _edits(sample: Sample, clean: Batch, after: Batch) -> float:
    """Character error rate: edits over the length of the clean text, the mean of the rows."""
    shares = []
    for row in range(len(clean)):
        before, now = words(sample, clean, row), words(sample, after, row)
        shares.append(distance(before, now) / max(len(before), 1))
    return sum(shares) / len(shares)


def distance(before: str, after: str) -> int:
    """The fewest characters to insert, delete or replace (Levenshtein, 1966)."""
    old, new = (np.array([ord(c) for c in text], dtype=np.int64) for text in (before, after))
    at = np.arange(len(new) + 1)
    cost = at.copy()
    for number, character in enumerate(old, 1):
        kept = np.concatenate([[number], np.minimum(cost[1:] + 1, cost[:-1] + (new != character))])
        cost = np.minimum.accumulate(kept - at) + at  # insertions, one after the other
    return int(cost[-1])


def codes(before: str, after: str) -> list[tuple[str, int, int, int, int]]:
    """Edits: equal, insert, delete or replace; from and to in the old text, from and to in the new one.

    As ``difflib`` finds them, or character by character where the texts are equally long and that changes fewer.
    """
    found = [*difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()]
    changed = sum(max(b - a, d - c) for kind, a, b, c, d in found if kind != "equal")
    if len(before) != len(after) or sum(x != y for x, y in zip(before, after, strict=True)) > changed:
        return [*found]
    runs: list[tuple[str, int, int, int, int]] = []
    start = 0
    for same, run in itertools.groupby(zip(before, after, strict=True), lambda pair: pair[0] == pair[1]):
        end = start + len(list(run))
        runs.append(("equal" if same else "replace", start, end, start, end))
        start = end
    return runs


def words(sample: Sample, batch: Batch, row: int, name: str = "") -> str:
    """The text of a row; steps that the mask hides are written as ▢, ids that are no bytes as numbers."""
    name = name or sample.modality
    ids = batch.inputs[name][row]
    here = seen(batch, name)[row]
    if sample.data.schema[name].vocab != BYTES:
        return " ".join(str(int(i)) if ok else "▢" for i, ok in zip(ids, here, strict=True) if ok or int(i) > 0)
    known = bytes(int(i) - 1 if ok else 0 for i, ok in zip(ids, here, strict=True) if int(i) > 0)
    return known.decode("utf-8", errors="replace").replace("\0", "▢")


@dataclass
class Found:
    """Where inputs of cross-modal operators come from: every row of every modality, by content."""

    sample: Sample
    _where: dict[tuple[str, bytes], list[tuple[str, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = self.sample.data
        for batch in data.batches(256):
            for name in data.schema.names:
                for row, x in enumerate(batch.inputs[name]):
                    key = (str(tuple(x.shape)), x.contiguous().numpy().tobytes())
                    self._where.setdefault(key, []).append((name, int(batch.index[row])))

    def source(self, x: Tensor) -> list[tuple[str, int]]:
        """The modalities and rows that hold exactly this input."""
        return self._where.get((str(tuple(x.shape)), x.contiguous().numpy().tobytes()), [])
