"""What a model costs in use: parameters, floating-point operations, latency, memory."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.encoder import evaluating
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.randomness import fork_rng_in_turn
from kintsugi.evaluation.costs_flops import count_flops
from kintsugi.evaluation.costs_memory import PATIENCE, peak_memory
from kintsugi.evaluation.naming import name_of, pipeline_of
from kintsugi.io.saved_models import clone

if TYPE_CHECKING:
    import pandas as pd

WARM_UP = 3  # calls of each kind before the clock counts
FEW = 5  # modalities of which all subsets are measured unless some are named; as in the protocol "standard"


@dataclass(frozen=True)
class PartSize:
    """Parameters of one part: ``trainable`` those that take a gradient, ``all`` with the frozen ones; ``bytes`` with buffers."""

    part: str
    trainable: int
    all: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """One answer to a batch of ``batch_size`` rows in which only the modalities of ``subset`` are present.

    flops: floating-point operations of the batch, a multiplication and an addition as two; p50, p95: seconds a batch,
    median and 95th percentile; memory: bytes that the answer takes at its worst beyond model and batch, None: not measured.
    Less is better in all of them.
    """

    subset: tuple[str, ...]
    batch_size: int
    flops: int
    p50: float
    p95: float
    memory: int | None


@dataclass(frozen=True)
class Costs:
    """The costs of one pipeline; see :func:`costs`.

    parts: parameters, each counted in one part only; cells: one for each subset and batch size; runs: timed calls of
    each; uncounted: operations that count as zero for want of a formula, so that FLOPs are a lower bound where there are
    any; memory_note: how memory was measured, or why not; machine: what it was measured on.
    """

    name: str
    parts: tuple[PartSize, ...]
    cells: tuple[Cost, ...]
    runs: int
    uncounted: tuple[str, ...]
    memory_note: str
    machine: dict[str, Any]

    @property
    def trainable(self) -> int:
        """Parameters that take a gradient."""
        return sum(part.trainable for part in self.parts)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(part.all for part in self.parts)

    def frame(self) -> pd.DataFrame:
        """One row a subset and batch size; ``subset``: names joined by a plus sign; times in seconds, memory in bytes."""
        import pandas as pd

        rows = [
            {
                "method": self.name,
                "subset": " + ".join(cell.subset),
                "modalities": len(cell.subset),
                "batch_size": cell.batch_size,
                "flops": cell.flops,
                "flops_per_row": cell.flops / cell.batch_size,
                "p50": cell.p50,
                "p95": cell.p95,
                "memory": cell.memory,
                "parameters": self.parameters,
                "trainable": self.trainable,
                "device": self.machine["device"],
            }
            for cell in self.cells
        ]
        return pd.DataFrame(rows).astype({"memory": "Int64"})

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for ``json.dumps``."""
        saved = asdict(self)
        for key in ("parts", "cells", "uncounted"):
            saved[key] = list(saved[key])
        for cell in saved["cells"]:
            cell["subset"] = list(cell["subset"])
        return saved | {"parameters": self.parameters, "trainable": self.trainable}


def costs(
    model: Any,
    data: Data,
    subsets: Iterable[Sequence[str]] | None = None,
    batch_sizes: Sequence[int] = (1, 64),
    runs: int = 20,
) -> Costs:
    """What answers cost: with restorer and monitors, in evaluation mode, on the device where the model is.

    A batch holds rows in which the modalities of the subset are there, complete rows first, repeated where there are
    too few; the other modalities are dropped. An absent modality is not free: its encoder sees one row of zeros a batch
    (see :meth:`kintsugi.core.model.Model.encode_one`), which is counted and timed as it happens. Reading the rows and moving
    them to the device is not part of it. The calls that are timed take turns over subsets and sizes, so that a machine
    which slows down slows them all; p95 of few runs is little more than the slowest. The model, its mode and the state of
    random generators are left as they were; a monitor that adapts is measured in a copy.

    Args:
        model: a pipeline, or an estimator after ``fit``.
        data: rows to answer; labels do not travel along.
        subsets: names of the modalities present, a sequence each; default: all subsets of up to 5 modalities, else all of
            them, each left out, and each alone.
        batch_sizes: rows a batch.
        runs: timed calls for each subset and batch size, after 3 that do not count.

    Raises:
        ConfigError: no model, no subset, an empty subset, or sizes or runs below 1.
        UnknownName: a modality that the data lack.
        DataError: no row has all modalities of a subset.
    """
    pipeline = pipeline_of(model)
    wanted = _subsets(pipeline.schema.names, subsets)
    sizes = tuple(dict.fromkeys(batch_sizes))
    if not sizes or min(sizes) < 1 or runs < 1:
        raise ConfigError(f"costs() needs batch sizes and runs of at least 1; got {list(sizes)} and {runs}")
    measured = clone(pipeline) if any(monitor.adapts for monitor in pipeline.monitors) else pipeline
    device = pipeline.model.prior.device
    keys = [(subset, size) for size in sizes for subset in wanted]
    batches = [_batch(data, subset, size).to(device) for subset, size in keys]
    calls = [_asking(measured, batch) for batch in batches]
    cards = [device] if device.type == "cuda" else []
    with evaluating(measured), torch.no_grad(), fork_rng_in_turn(cards):
        counted = [count_flops(call) for call in calls]
        seconds = _latencies(calls, runs, device)
        slowest = 10 * torch.get_num_threads() * float(seconds.mean(1).sum())  # a fork has one thread
        memory, note = peak_memory(calls, device, PATIENCE + slowest)
    cells = []
    for place, (subset, size) in enumerate(keys):
        p50, p95 = torch.quantile(seconds[place], seconds.new_tensor([0.5, 0.95])).tolist()
        cells.append(Cost(subset, size, counted[place][0], p50, p95, None if memory is None else memory[place]))
    uncounted = tuple(sorted({name for _, names in counted for name in names}))
    return Costs(name_of(model), part_sizes(pipeline), tuple(cells), runs, uncounted, note, machine(device))


def _subsets(names: tuple[str, ...], given: Iterable[Sequence[str]] | None) -> list[tuple[str, ...]]:
    """In the order of the schema, each once."""
    if given is None:
        lengths = range(len(names), 0, -1) if len(names) <= FEW else (len(names), len(names) - 1, 1)
        return [subset for length in lengths for subset in combinations(names, length)]
    found = []
    for one in given:
        if isinstance(one, str):
            raise ConfigError(f"a subset is a sequence of names; write ({one!r},) for {one!r} alone")
        for name in one:
            if name not in names:
                raise UnknownName("modality", name, names)
        if not one:
            raise ConfigError("a subset without modalities costs nothing: the prior answers; name at least one")
        found.append(tuple(name for name in names if name in one))
    if not found:
        raise ConfigError("no subset to measure; leave subsets= out for all of them")
    return list(dict.fromkeys(found))


def _batch(data: Data, subset: tuple[str, ...], size: int) -> Batch:
    columns = [data.schema.column(name) for name in subset]
    there = data.present[:, columns].all(1)
    complete = there & data.present.all(1)
    rows = torch.cat([complete.nonzero().flatten(), (there & ~complete).nonzero().flatten()])
    if not len(rows):
        raise DataError(f"no row of {data.name} has {' + '.join(subset)}; leave this subset out with subsets=")
    batch = data.batch(rows[torch.arange(size) % len(rows)])
    unread = [name for name, column in zip(subset, columns, strict=True) if not bool(batch.present[:, column].all())]
    if unread:
        raise DataError(f"{data.name}: some rows of {unread[0]!r} cannot be read; repair the files or mark them absent")
    return replace(batch.only(*subset), target=None, target_present=None, weight=None, truth=None, severity=None)


def _asking(pipeline: Pipeline, batch: Batch) -> Callable[[], object]:
    return lambda: pipeline(batch)


def _latencies(calls: Sequence[Callable[[], object]], runs: int, device: torch.device) -> Tensor:
    """Seconds, float64 ``[calls, runs]``; the calls take turns."""
    for call in calls:
        for _ in range(WARM_UP):
            call()
    seconds = torch.zeros(len(calls), runs, dtype=torch.float64)
    for run in range(runs):
        for place, call in enumerate(calls):
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            seconds[place, run] = time.perf_counter() - start
    return seconds


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def part_sizes(pipeline: Pipeline) -> tuple[PartSize, ...]:
    """Parameters of each part, that of the model by its encoders and children; what is shared belongs to the first."""
    groups: dict[str, nn.Module] = {} if pipeline.restore is None else {"restore": pipeline.restore}
    for name, module in pipeline.model.encoders.items():
        groups[f"model.encoders.{name}"] = module
    groups |= {f"model.{name}": child for name, child in pipeline.model.named_children() if name != "encoders"}
    groups["model"] = pipeline.model  # what it holds itself, after its children have taken theirs
    groups |= {path: part for path, part in pipeline.named_components() if path not in ("restore", "model")}
    seen: set[int] = set()
    sizes = []
    for path, module in groups.items():
        own = [p for p in module.parameters() if id(p) not in seen]
        extra = [b for b in module.buffers() if id(b) not in seen]
        seen.update(id(tensor) for tensor in (*own, *extra))
        if own or extra:
            trainable = sum(p.numel() for p in own if p.requires_grad)
            taken = sum(t.numel() * t.element_size() for t in (*own, *extra))
            sizes.append(PartSize(path, trainable, sum(p.numel() for p in own), taken))
    return tuple(sizes)


def machine(device: torch.device) -> dict[str, Any]:
    """Where something was measured: device, processor, cores, threads, system, versions."""
    return {
        "device": device.type,
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    """As the kernel names it on Linux, where ``platform.processor`` is often empty."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
