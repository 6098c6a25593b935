"""ImageNet-C: this library against the package imagecorruptions, one thread, milliseconds an image.

OMP_NUM_THREADS=1 python benchmarks/imagenet_c.py              # all nineteen at 224 and at 32 pixels, 7 runs
python benchmarks/imagenet_c.py --size 224 --only fog frost --runs 3 --batch 16

Both get pictures in [0, 1] as float32 ``[B, C, H, W]`` and return the same (the package works on single pictures of bytes,
so its side includes the conversion), and, in a second table, both get and return bytes. At 32 pixels ours has the values
and the lengths for 224 pixels too, as the package has no others.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import interleaved, machine
from torch import Tensor

from kintsugi.imperfect.operator import OPERATORS, Operator
from kintsugi.imperfect.plan import Plan

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from corruption_data import pictures
from imagenet_c_oracle import ALL

Job = Callable[[], object]


def ours(key: str, severity: int, preset: str) -> Callable[[Tensor, int], Tensor]:
    operator = OPERATORS[key]()
    assert isinstance(operator, Operator)
    values = {"preset": preset, **operator.options, **operator.parameters[preset][severity]}
    if preset == "imagenet" and "side" in values:
        values["side"] = 0  # lengths as they stand there, as the package has them
    plan = Plan(key, "image", severity, 0, values)

    def run(x: Tensor, first: int) -> Tensor:
        return operator.apply(x, torch.arange(first, first + len(x)), plan)[0]

    return run


def theirs(key: str, severity: int) -> Callable[[np.ndarray], np.ndarray]:
    from imagecorruptions import corrupt

    return lambda images: np.stack([corrupt(image, severity, key) for image in images])


def to_bytes(x: Tensor) -> np.ndarray:
    return x.mul(255).round_().byte().permute(0, 2, 3, 1).contiguous().numpy()


def to_floats(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(255)


def in_bytes(run: Callable[[Tensor, int], Tensor], images: np.ndarray) -> np.ndarray:
    """A megabyte at a time, so that what is converted is still in the cache."""
    step, out = max(1, (1 << 20) // (4 * images[0].size)), torch.empty(images.shape, dtype=torch.uint8)
    for start in range(0, len(images), step):
        floats = run(to_floats(images[start : start + step]), start)
        out[start : start + step] = floats.mul_(255).add_(0.5).byte().permute(0, 2, 3, 1)
    return out.numpy()


def jobs(key: str, severity: int, size: int, batch: int, preset: str) -> dict[str, Job]:
    x = pictures(batch, 3, size)
    images = to_bytes(x)
    mine, reference = ours(key, severity, preset), theirs(key, severity)
    return {
        "ours": lambda: mine(x, 0),
        "theirs": lambda: to_floats(reference(to_bytes(x))),
        "ours_bytes": lambda: in_bytes(mine, images),
        "theirs_bytes": lambda: reference(images),
    }


def factors(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """Median, least and largest of how many times as fast the second is, over neighbouring runs."""
    found = sorted(a / b for a, b in zip(slow, fast, strict=True))
    return statistics.median(found), found[0], found[-1]


def suite(seconds: dict[str, dict[str, list[float]]], kind: str, without: tuple[str, ...] = ()) -> str:
    """Of the sums over all corruptions, run by run."""
    kept = [times for key, times in seconds.items() if key not in without]
    sums = {
        name: [sum(run) for run in zip(*(t[name + kind] for t in kept), strict=True)] for name in ("ours", "theirs")
    }
    middle, least, largest = factors(sums["theirs"], sums["ours"])
    return f"{middle:.2f}x ({least:.2f} to {largest:.2f})"


def report(size: int, batch: int, seconds: dict[str, dict[str, list[float]]]) -> None:
    for kind, title in (("", "float32 [B, C, H, W] in and out"), ("_bytes", "bytes in and out")):
        print(f"\n{size} pixels, batch {batch}, {title}")
        print(f"{'':20}{'package':>10}{'ours':>10}   times as fast (least to largest)")
        slower = []
        for key, times in seconds.items():
            a, b = times["theirs" + kind], times["ours" + kind]
            middle, least, largest = factors(a, b)
            per = [statistics.median(t) / batch * 1e3 for t in (a, b)]
            print(f"{key:20}{per[0]:10.3f}{per[1]:10.3f}   {middle:.2f} ({least:.2f} to {largest:.2f})")
            slower += [key] if middle < 1 else []
        print(f"sum of {len(seconds)}: {suite(seconds, kind)}", end="")
        rest = len(seconds) - ("frost" in seconds)
        print(f"; without frost: {suite(seconds, kind, ('frost',))}" if 0 < rest < len(seconds) else "")
        print(f"slower than the package: {', '.join(slower) or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--size", type=int, nargs="*", default=[224, 32])
    parser.add_argument("--only", nargs="*", default=list(ALL), choices=ALL)
    parser.add_argument("--preset", default="imagenet", help="of ours; imagenet is what the package has")
    given = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(machine())
    for size in given.size:
        seconds = {}
        for key in given.only:
            seconds[key] = interleaved(given.runs, **jobs(key, given.severity, size, given.batch, given.preset))
        report(size, given.batch, seconds)


if __name__ == "__main__":
    main()
