"""AV-MNIST with severely missing sound, as SMIL (AAAI 2021) set it up, on real FSDD recordings.

    OMP_NUM_THREADS=1 python benchmarks/avmnist.py FSDD [--seeds 10] [--workers 2] [--save FILE.json]

FSDD: folder or zip of the Free Spoken Digit Dataset. Training: 1,050 pairs, all images, the sound of a share eta.
Test: images alone, the 450 of the pairs' split and the 3,500 MNIST images in no pair. The last epoch counts: there are no
validation rows, and none is chosen on test rows. Everything of one seed is paired: pairs, split, eta, initial weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, product
from multiprocessing import get_context
from pathlib import Path

import torch
from common import machine

import kintsugi as kg
from kintsugi.core.batch import Batch
from kintsugi.core.data import Splits
from kintsugi.core.methods import create
from kintsugi.core.schema import Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.evaluation import seed_interval

ETAS = (0.05, 0.10, 0.15, 0.20)
EPOCHS, LR, BATCH = 40, 2e-3, 64  # epochs: passes over the 1,050 images
BOUND, ZEROED, FALLBACK = (
    "image only (bound)",
    "KD-MM, student with its sound zeroed",
    "KD-MM, fall-back on the teachers",
)
METHODS = {  # method and epochs; SMIL spends a fifth of its budget on the complete rows before it sees all images
    BOUND: ("mean_fusion", EPOCHS),
    "late fusion": ("late_fusion", EPOCHS),
    ZEROED: ("kd_mm", EPOCHS),
    FALLBACK: ("kd_mm", EPOCHS),
    "SMIL": ("smil", EPOCHS * 5 // 4),
}
PUBLISHED = {  # accuracy at eta 5, 10, 15, 20 %, as quoted in Table 3 of ShaSpec (CVPR 2023), 450 test images
    "image only (lower bound)": (92.35, 92.35, 92.35, 92.35),
    "AutoEncoder": (89.78, 89.33, 89.78, 88.89),
    "GAN": (89.11, 89.78, 88.67, 89.56),
    "Full2miss": (90.00, 91.11, 92.23, 92.67),
    "SMIL": (92.89, 93.11, 93.33, 94.44),
    "ShaSpec": (93.33, 93.56, 93.78, 94.67),
}


def images_of(data: Dataset) -> Dataset:
    """The rows of a data set without their sound: a schema of one modality."""
    batch = data.batch(torch.arange(len(data)))
    schema = Schema((data.schema["image"],), data.schema.task)
    alone = Batch(("image",), {"image": batch.inputs["image"]}, batch.present[:, :1], batch.index, batch.target)
    return Dataset(TensorSource(schema, alone, "avmnist images"))


def accuracy(answer: Callable[[Batch], kg.Prediction], data: Dataset) -> float:
    """On images alone, percent."""
    right = 0
    with torch.no_grad():
        for batch in data.batches(512):
            right += int((answer(batch.only("image")).output.argmax(1) == batch.target).sum())
    return 100 * right / len(data)


def work(fsdd: str, seed: int, eta: float, method: str) -> list[dict[str, float | int | str]]:
    """Train a model and test it; KD-MM's student is asked with and without its fall-back."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    train, _, small = kg.datasets.load("avmnist", fsdd=fsdd, seed=seed).split()
    _, _, large = kg.datasets.load("avmnist", fsdd=fsdd, seed=seed, test="large").split()
    key, epochs = METHODS[method]
    if method == BOUND:
        train, small, large = images_of(train), images_of(small), images_of(large)
    else:
        train = train.with_missing(kg.missing.smil(eta, "sound"), seed=seed)
    torch.manual_seed(seed)
    pipeline = create(key, train.schema)
    trainer = kg.Trainer(epochs=epochs, lr=LR, batch_size=BATCH, seed=seed, select=False, progress=False)
    trainer.fit(pipeline, Splits(train, train)).eval()
    seconds = time.perf_counter() - began
    asked = {ZEROED: pipeline.model, FALLBACK: pipeline.answer} if key == "kd_mm" else {method: pipeline.answer}
    return [
        {"seed": seed, "eta": eta, "method": name, "small": accuracy(answer, small), "large": accuracy(answer, large),
         "seconds": seconds}
        for name, answer in asked.items()
    ]  # fmt: skip


def cell(values: list[float]) -> str:
    """Mean and 95 % t-interval over seeds."""
    found = seed_interval(values)
    return f"{found.value:.2f} ± {(found.high - found.low) / 2:.2f}"


def table(found: list[dict[str, object]], test: str, against: str | None = None) -> list[str]:
    """A Markdown table; with ``against``, of paired differences to that method."""
    lines = ["| method | " + " | ".join(f"eta {100 * eta:.0f} %" for eta in ETAS) + " |", "| --- " * 5 + "|"]
    value = {(f["method"], f["eta"], f["seed"]): float(f[test]) for f in found}  # type: ignore[arg-type]
    seeds = sorted({s for *_, s in value})
    for method in METHODS:
        if method == against:
            continue
        cells = []
        for eta in ETAS:
            mine = [value[method, eta, s] for s in seeds]
            if against is not None:
                mine = [a - value[against, eta, s] for a, s in zip(mine, seeds, strict=True)]
            cells.append(cell(mine))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fsdd")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--save", type=Path, help="JSON of every single result")
    options = parser.parse_args()
    methods = [m for m in METHODS if m != FALLBACK]  # one training serves both
    jobs = [(s, e, m) for s, e, m in product(range(options.seeds), ETAS, methods) if m != BOUND or e == ETAS[0]]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        found = list(chain.from_iterable(pool.map(work, [options.fsdd] * len(jobs), *zip(*jobs, strict=True))))
    found += [{**f, "eta": eta} for f in found if f["method"] == BOUND for eta in ETAS[1:]]  # eta does not touch it
    if options.save:
        options.save.write_text(json.dumps(found))
    print(f"{machine()}; {options.seeds} seeds, {EPOCHS} epochs, lr {LR}, batch {BATCH}; "
          f"median {statistics.median(float(f['seconds']) for f in found):.0f} s a model\n")  # fmt: skip
    for test, said in (("small", "450 test images"), ("large", "3,500 test images")):
        print(f"\n{said}: accuracy, %\n")
        print("\n".join(table(found, test)))
        print(f"\n{said}: difference to the image-only bound, paired by seed, points\n")
        print("\n".join(table(found, test, BOUND)))
    print("\nPublished (450 test images)\n")
    print("| method | " + " | ".join(f"eta {100 * eta:.0f} %" for eta in ETAS) + " |")
    print("| --- " * 5 + "|")
    for method, values in PUBLISHED.items():
        print(f"| {method} | " + " | ".join(f"{v:.2f}" for v in values) + " |")


if __name__ == "__main__":
    main()
