"""Golden numbers of operators, mechanisms and published settings, on a small data set of every kind of modality."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect.corrupt._numbers import UNITS
from kintsugi.imperfect.corruption import corrupt, parse_corruption
from kintsugi.imperfect.mask import Mask
from kintsugi.imperfect.missing import MECHANISMS, parse_mechanism
from kintsugi.imperfect.operator import CROSS, OPERATORS, CrossOperator, Operator
from kintsugi.testing.golden_measures import plain
from kintsugi.testing.golden_numbers import Numbers, projections, sha
from kintsugi.testing.inputs import every_kind, noise_file, words

ROWS, SEED, LEVELS, BRIEFLY, MIDDLE = 16, 1, (1, 3, 5), (2, 4), 3
ON: Mapping[str, str] = MappingProxyType(
    {"image": "photo", "audio": "speech", "text": "note", "tabular": "table", "series": "sensor", "vector": "code"}
)
CROSS_ON = ("photo", "thermal", "sensor", "gait")  # the first so many that an operator takes and can read
THRESHOLDED = (
    "spatter",
)  # drops are where noise is above a level: with other sums of MKL its direction moves by 0.012
# Values besides the usual one of options that are text; numbers of every operator have one of each.
OTHER_OPTIONS: Mapping[str, tuple[Mapping[str, str], ...]] = MappingProxyType(
    {
        "desynchronisation": ({"direction": "early"}, {"direction": "late"}),
        "drift": ({"shape": "walk"},),
        "feature_block_dropout": ({"fill": "zero"},),
        "feature_dropout": ({"fill": "zero"},),
        "mismatched_pairs": ({"within": "class"}, {"within": "other_class"}),
        "packet_loss": ({"fill": "repeat"},),
        "sensor_unit_error": tuple({"unit": unit} for unit in UNITS),
        "stuck_at": ({"channels": "all"},),
        "unit_error": tuple({"unit": unit} for unit in UNITS),
    }
)
OF_EVERY: Mapping[str, tuple[Mapping[str, str], ...]] = MappingProxyType(
    {"rows": ({"rows": "other"}, {"rows": "self"})}  # of all operators with such an option
)
# What several operators are made into. There is no name of such a thing; it belongs to evaluation.
TOGETHER = (
    "feature_noise(code, 3) + sensor_noise(sensor, 2)",
    "sometimes(feature_noise(code, 3), share=0.4)",
    "one_of(feature_noise(code, 3), feature_dropout(code, 5), weights=[3, 1])",
    "correlated(feature_noise(code, 3), sensor_noise(sensor, 3), share=0.5, coupling=0.5)",
)
# What each mechanism is tried with; the rows are those of :func:`data`. Others are tried with a rate alone.
TRIED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "blocks": ("blocks(0.3, sensor)",),
        "bursts": ("bursts(0.3, 3.0)",),
        "cells": ("cells(0.3, table)", "cells(0.3, table, by=mcar)", "cells(0.3, table, by=mnar)"),
        "gilbert_elliott": ("gilbert_elliott(0.3, 4.0, sensor)",),
        "labels": ("labels(0.3)", "labels(0.3, by=code)"),
        "map_missing": ("map_missing(0.5, text=note, image=thermal)",),
        "mar": ("mar(0.3, code)",),
        "mcar": ("mcar(0.3)", "mcar(0.5, coupling=0.5)"),
        "mnar": ("mnar(0.3, of=code)", "mnar(0.3, by=label)"),
        "natural": ("natural()", "natural(0.5)"),
        "pattern": ("pattern(photo, table+sensor)",),
        "per_modality": ("per_modality(photo=0.2, table=0.4)",),
        "smil": ("smil(0.5, code)", "smil(0.5, code, by_class=False)"),
        "steps": ("steps(0.3, sensor)",),
    }
)
# The name and the modalities with which each published setting is tried; others with a rate of 0.3 on the first three.
THREE = ("photo", "note", "sensor")
SET: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "brats15": ("brats15", (*THREE, "code")),
        "map-ETA-both|text|image": ("map-0.5-both", ("photo", "note")),
        "smil-ETA": ("smil-0.5", ("photo", "speech")),
    }
)


@cache
def data(*names: str) -> Dataset:
    """Eight modalities, or some of them; some slots are absent."""
    everything = every_kind(ROWS)
    if not names:
        return everything
    schema = Schema(tuple(everything.schema[name] for name in names), everything.schema.task)
    batch = everything.batch(torch.arange(ROWS))
    columns = [everything.schema.column(name) for name in names]
    some = replace(
        batch,
        names=names,
        inputs={name: batch.inputs[name] for name in names},
        present=batch.present[:, columns],
        mask={name: batch.mask[name] for name in names if name in batch.mask},
    )
    return Dataset(TensorSource(schema, some))


# operators ------------------------------------------------------------------------------------------------------------
def operator_numbers(key: str) -> Numbers:
    """Preset, severity and options -> size and direction of what was changed, what is seen, labels.

    The usual preset at every severity, at 2 and 4 without the direction; every other one at 3, as well as other values of
    options. ``levels``: preset -> name -> value at each severity, which say the rest.
    """
    operator = OPERATORS[key]
    names = modalities(key)
    tried: list[tuple[str | None, int]] = [(None, level) for level in LEVELS]
    tried += [(preset, MIDDLE) for preset in operator.parameters if len(operator.parameters) > 1]
    with tempfile.TemporaryDirectory() as folder:
        options = _options(operator, Path(folder))
        found: dict[str, Numbers] = {
            f"{preset or 'usual preset'}, severity {level}": _damage(key, names, level, preset, options)
            for preset, level in tried
        }
        found["levels"] = {
            preset: {name: [plain(table[level].get(name)) for level in sorted(table)] for name in table[min(table)]}
            for preset, table in operator.parameters.items()
        }
        for level in BRIEFLY:
            found[f"usual preset, severity {level}"] = _damage(key, names, level, None, options, briefly=True)
        for other in other_options(operator):
            name = ", ".join(
                f"{option}={v:g}" if isinstance(v, float) else f"{option}={v}" for option, v in other.items()
            )
            found[f"usual preset, severity {MIDDLE}, {name}"] = _damage(
                key, names, MIDDLE, None, {**options, **other}, briefly=True
            )
        return found


def other_options(operator: Any) -> list[Mapping[str, Any]]:
    """Options of an operator with other values than the usual ones: each text by itself, numbers all at once."""
    every = [other for name in operator.options for other in OF_EVERY.get(name, ())]
    numbers = {name: _other_number(usual) for name, usual in operator.options.items() if isinstance(usual, int | float)}
    return [*OTHER_OPTIONS.get(operator.key, ()), *every, *([numbers] if numbers else [])]


def _other_number(usual: float) -> float:
    if isinstance(usual, bool):
        return not usual
    return usual + 1 if isinstance(usual, int) else 1.25 * usual or 0.25


def together_numbers() -> Numbers:
    """Spec of several operators -> size of the damage to each modality, and which rows have some of it."""
    clean = data().batch(torch.arange(ROWS))
    found: dict[str, Numbers] = {}
    for spec in TOGETHER:
        after = data().with_corruption(parse_corruption(spec), seed=SEED).batch(torch.arange(ROWS))
        found[spec] = {
            name: {
                **_changed(clean, after, name, spec, briefly=True),
                "rows": sha((clean.inputs[name].nan_to_num() != after.inputs[name].nan_to_num()).flatten(1).any(1)),
            }
            for name in ("code", "sensor")
        }
    return found


def modalities(key: str) -> tuple[str, ...]:
    """The modalities of :func:`data` that an operator is tried on.

    Raises:
        ConfigError: it takes none of those that there are.
    """
    operator = OPERATORS[key]
    if issubclass(operator, Operator):
        if operator.kind not in ON:
            raise ConfigError(f"golden numbers: there is no data of kind {operator.kind} to try {key} on")
        return (ON[operator.kind],)
    chosen: CrossOperator = operator()
    for start in range(len(CROSS_ON)):
        names = CROSS_ON[start : start + chosen.least]
        try:
            chosen.check_count(names)
            chosen.check(tuple(data().schema[name] for name in names))
            return names
        except ConfigError:
            continue
    raise ConfigError(f"golden numbers: {key} takes none of {', '.join(CROSS_ON)}")


def _options(operator: Any, folder: Path) -> dict[str, Any]:
    """What an operator needs that has no default: files of noise."""
    needed = [name for name, usual in operator.options.items() if usual is None]
    return {name: noise_file(folder / "noise.wav") for name in needed}


def _damage(
    key: str, names: tuple[str, ...], level: int, preset: str | None, options: Mapping[str, Any], briefly: bool = False
) -> Numbers:
    clean = data().batch(torch.arange(ROWS))
    damaged = data().with_corruption(corrupt(key, names, level, preset, **options), seed=SEED)
    after = damaged.batch(torch.arange(ROWS))
    found: dict[str, Numbers] = {
        name: _changed(clean, after, name, key, briefly) for name in clean.names if name in names
    }
    if OPERATORS[key].kind == CROSS:
        assert after.target is not None
        found["labels"] = [int(label) for label in after.target]
    return found


def _changed(clean: Batch, after: Batch, name: str, key: str, briefly: bool = False) -> dict[str, Numbers]:
    column = clean.names.index(name)
    old, new = clean.inputs[name], after.inputs[name]
    seen = after.present[:, column].view(-1, *[1] * (new.ndim - 1)).expand_as(new).clone()
    found: dict[str, Numbers] = {"present": int(after.present[:, column].sum())}
    mask = after.mask.get(name)
    if mask is not None:
        seen &= mask.view(*mask.shape, *[1] * (new.ndim - mask.ndim))
        found |= {"seen": int(mask.sum()), "which": sha(mask)}
    if not new.is_floating_point():
        first = int(after.present[:, column].int().argmax())
        text: dict[str, Numbers] = {} if briefly else {"text": words(new[first])}
        return {**found, **text, "sha256": sha(new * seen)}
    gap = torch.where(seen, new.double() - old.double().nan_to_num(), 0.0)
    size = float(gap.square().mean().sqrt())
    rough = "rough " if key in THRESHOLDED else ""
    found[f"{rough}size"] = size
    return found if briefly else {**found, f"{rough}direction": projections(gap / (size or 1.0), key, name)}


# mechanisms -----------------------------------------------------------------------------------------------------------
def mechanism_numbers(key: str) -> Numbers:
    """Mechanism with its arguments -> realised rate, slots, steps and labels that stay, and the digest of which."""
    if key == "given":
        keep = torch.rand(data().present.shape, generator=torch.Generator().manual_seed(SEED)) > 0.3
        return {"given(a mask)": _left(MECHANISMS[key](keep).plan(data(), SEED))}
    return {spec: _left(parse_mechanism(spec).plan(data(), SEED)) for spec in TRIED.get(key, (f"{key}(0.3)",))}


def setting_numbers(form: str) -> Numbers:
    """The same for a setting of published work."""
    name, names = SET.get(form, (re.sub("RATE|ETA", "0.3", form), THREE))
    return {f"{name} of {', '.join(names)}": _left(parse_mechanism(name).plan(data(*names), SEED))}


def _left(mask: Mask) -> Numbers:
    steps: list[Tensor] = [mask.steps[name] for name in sorted(mask.steps)]
    labels = [] if mask.labels is None else [mask.labels]
    return {
        "realised": mask.realised,
        "slots": int(mask.keep.sum()),
        "steps": sum(int(left.sum()) for left in steps),
        "labels": sum(int(left.sum()) for left in labels),
        "sha256": sha(mask.keep, *steps, *labels),
    }
