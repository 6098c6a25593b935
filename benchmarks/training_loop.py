"""The trainer against a loop written by hand: same modules, batches, threads, optimiser and data access, no validation.

OMP_NUM_THREADS=1 python benchmarks/training_loop.py
"""

from __future__ import annotations

import copy
import math

import torch
from common import interleaved, machine, ratio
from torch.nn import functional as F

from kintsugi.core.data import Splits
from kintsugi.core.methods import create
from kintsugi.data import datasets
from kintsugi.data.dataset import Dataset
from kintsugi.data.loaders import order
from kintsugi.training.sampling import generator
from kintsugi.training.trainer import Trainer

EPOCHS, BATCH, LR = 3, 64, 1e-3


def by_hand(pipeline: object, data: Dataset) -> None:
    """What a user would write for this model and this data."""
    model = copy.deepcopy(pipeline).model  # type: ignore[attr-defined]
    model.train()
    moving = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in moving if p.ndim > 1], "weight_decay": 1e-2},
         {"params": [p for p in moving if p.ndim <= 1], "weight_decay": 0.0}], lr=LR,
    )  # fmt: skip
    names = data.schema.names
    steps = EPOCHS * math.ceil(len(data) / BATCH)
    step = 0
    torch.manual_seed(0)
    for epoch in range(EPOCHS):
        for rows in order(torch.arange(len(data)), BATCH, generator(0, 0, epoch, "rows")):
            batch = data.batch(rows)
            pooled = [model.encoders[name](batch.inputs[name], batch.mask.get(name)).pooled() for name in names]
            output = model.task_head.linear(torch.stack(pooled, 1).mean(1))
            loss = F.cross_entropy(output, batch.target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(moving, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.step()
            optimizer.zero_grad()
            step += 1


def by_trainer(pipeline: object, data: Dataset) -> None:
    """The same with the trainer."""
    trainer = Trainer(epochs=EPOCHS, batch_size=BATCH, lr=LR, select=False, progress=False)
    trainer.fit(copy.deepcopy(pipeline), Splits(data, data))  # type: ignore[arg-type]


def main() -> None:
    print(machine())
    for name in ("handwritten", "avdigits"):
        data = datasets.load(name).split()[0].in_memory()
        pipeline = create("mean_fusion", data.schema)
        seconds = interleaved(
            9,
            kintsugi=lambda p=pipeline, d=data: by_trainer(p, d),
            by_hand=lambda p=pipeline, d=data: by_hand(p, d),
        )
        print(f"{name}, {len(data)} rows, {EPOCHS} epochs: {ratio(seconds, 'kintsugi', 'by_hand')}")


if __name__ == "__main__":
    main()
