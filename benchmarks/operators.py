"""Every single-modality operator: peak memory beside its input, and two worker threads against one.

OMP_NUM_THREADS=1 python benchmarks/operators.py memory
OMP_NUM_THREADS=1 python benchmarks/operators.py workers
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from common import interleaved, machine
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect import OPERATORS, Operator
from kintsugi.imperfect.plan import Plan
from kintsugi.tasks.classification import Classification

Job = Callable[[int], object]
SENTENCE = b"The patient reports two or three days of chest pain, worse at night, and there is no fever at all. "


def rows_of(kind: str, scale: int) -> tuple[Modality, Tensor]:
    """A modality of usual size and rows of it; ``scale`` multiplies their number."""
    rng = torch.Generator().manual_seed(0)
    match kind:
        case "image":
            smooth = torch.rand(64 * scale, 3, 28, 28, generator=rng)
            x = torch.nn.functional.interpolate(smooth, size=224, mode="bilinear").clamp(0, 1)
            return Modality("x", kind, (3, 224, 224)), x
        case "audio":
            return Modality("x", kind, (80_000,), rate=16_000), torch.randn(64 * scale, 80_000, generator=rng) * 0.1
        case "text":
            ids = torch.tensor([b + 1 for b in SENTENCE] * 4)
            return Modality("x", kind, (len(ids),), vocab=257), ids.expand(4000 * scale, -1).contiguous()
        case "tabular":
            x = torch.randn(200_000 * scale, 20, generator=rng)
            x[:, 15:] = torch.randint(1, 4, (len(x), 5), generator=rng).float()
            return Modality("x", kind, (20,), categories=(0,) * 15 + (3,) * 5), x
        case "series":
            x = torch.randn(10_000 * scale, 128, 9, generator=rng).cumsum(1)
            return Modality("x", kind, (128, 9), rate=50), x
        case "vector":
            return Modality("x", kind, (512,)), torch.randn(20_000 * scale, 512, generator=rng)
    raise ValueError(kind)


def jobs(kinds: list[str], only: list[str], scale: int) -> Iterator[tuple[str, Operator, Tensor, Plan]]:
    for kind in kinds:
        modality, x = rows_of(kind, scale)
        index = torch.arange(len(x))
        small = Batch(("x",), {"x": x[:512]}, torch.ones(min(512, len(x)), 1, dtype=torch.bool), index[:512])
        data = Dataset(TensorSource(Schema((modality,), Classification(["a", "b"])), small))
        for key in OPERATORS:
            operator = OPERATORS[key]
            if operator.kind == kind and issubclass(operator, Operator) and (not only or key in only):
                given = {"files": str(noise_file())} if key == "file_noise" else {}
                yield key, operator(), x, operator().plan(data, "x", 3, 0, **given)


def noise_file() -> Path:
    import soundfile

    path = Path(tempfile.mkdtemp()) / "noise.wav"
    soundfile.write(path, (torch.randn(160_000, generator=torch.Generator().manual_seed(1)) * 0.1).numpy(), 16_000)
    return path


def status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def peak(operator: Operator, x: Tensor, plan: Plan) -> float:
    """Peak of resident memory above what was there before, over the bytes of the input; in a fork, so that nothing lingers.

    The result itself counts: an operator that makes nothing else has 1.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        index = torch.arange(len(x))
        operator.apply(x[:2], index[:2], plan)  # imports and caches are not part of it
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = status("VmRSS")
        operator.apply(x, index, plan)
        os.write(write, f"{(status('VmHWM') - before) / (x.numel() * x.element_size())}".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    said = os.read(read, 100)
    os.close(read)
    return float(said) if said else math.nan


def memory(kinds: list[str], only: list[str]) -> None:
    print("operator, rows, peak extra memory / input (the result counts as 1)")
    worst: dict[str, float] = {}
    for key, operator, x, plan in jobs(kinds, only, 2):
        worst[key] = peak(operator, x, plan)
        print(f"{operator.kind:8} {key:26} {list(x.shape)!s:24} {worst[key]:.2f}", flush=True)
    top = max(worst, key=lambda key: worst[key])
    print(
        f"{len(worst)} operators; largest: {top} {worst[top]:.2f}; above 3: {[k for k in worst if not worst[k] <= 3]}"
    )


def control(runs: int) -> None:
    """What two threads gain in a loop that does nothing but copy chunks into new memory and scale them five times."""
    x = torch.randn(10_000, 128, 9, generator=torch.Generator().manual_seed(0))

    def job(threads: int) -> None:
        out = torch.empty_like(x)

        def one(start: int) -> None:
            block = out[start : start + 900].copy_(x[start : start + 900])
            for _ in range(5):
                block.mul_(1.01)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(0, len(x), 900)))

    seconds = interleaved(runs, one=lambda: job(1), two=lambda: job(2))
    found = sorted(a / b for a, b in zip(seconds["one"], seconds["two"], strict=True))
    print(f"control, a copy and five products: {statistics.median(found):.2f} ({found[0]:.2f} – {found[-1]:.2f})")


def workers(kinds: list[str], only: list[str], runs: int) -> None:
    control(4 * runs)
    print("operator, seconds with one worker and with two, speed-up: median of paired runs (range)")
    gains: dict[str, float] = {}
    sums: dict[str, list[list[float]]] = {}
    for key, operator, x, plan in jobs(kinds, only, 1):
        index = torch.arange(len(x))

        def job(n: int, operator: Operator = operator, x: Tensor = x, plan: Plan = plan, i: Tensor = index) -> object:
            return operator.apply(x, i, plan, workers=n)

        seconds = interleaved(runs, one=lambda: job(1), two=lambda: job(2))
        found = sorted(a / b for a, b in zip(seconds["one"], seconds["two"], strict=True))
        gains[key] = statistics.median(found)
        for side in ("one", "two"):
            sums.setdefault(f"{operator.kind} {side}", []).append(seconds[side])
        one, two = statistics.median(seconds["one"]), statistics.median(seconds["two"])
        print(
            f"{operator.kind:8} {key:26} {one:.3f} {two:.3f}  {gains[key]:.2f} ({found[0]:.2f} – {found[-1]:.2f})",
            flush=True,
        )
    for kind in kinds:
        both = [[sum(run) for run in zip(*sums[f"{kind} {side}"], strict=True)] for side in ("one", "two")]
        found = sorted(a / b for a, b in zip(*both, strict=True))
        print(f"all of {kind} together: {statistics.median(found):.2f} ({found[0]:.2f} – {found[-1]:.2f})")
    whole = [
        [sum(run) for run in zip(*(r for k in kinds for r in sums[f"{k} {side}"]), strict=True)]
        for side in ("one", "two")
    ]
    found = sorted(a / b for a, b in zip(*whole, strict=True))
    print(f"all {len(gains)} together: {statistics.median(found):.2f} ({found[0]:.2f} – {found[-1]:.2f})")
    values = list(gains.values())
    print(
        f"{len(values)} operators; geometric mean {statistics.geometric_mean(values):.2f}; "
        f"below 1.6: {[f'{k} {v:.2f}' for k, v in gains.items() if v < 1.6]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["memory", "workers"])
    parser.add_argument("--kinds", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    usual = "image,audio,text,tabular,series,vector" if asked.what == "memory" else "image,audio,series,vector"
    kinds = (asked.kinds or usual).split(",")
    only = [key for key in asked.only.split(",") if key]
    print(machine())
    if asked.what == "memory":
        memory(kinds, only)
    else:
        workers(kinds, only, asked.runs)


if __name__ == "__main__":
    main()
