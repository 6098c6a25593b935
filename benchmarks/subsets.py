"""All 63 subsets of the six views of handwritten: the cached evaluator against 63 passes over the data.

OMP_NUM_THREADS=1 python benchmarks/subsets.py
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import torch
from common import interleaved, machine, ratio

from kintsugi.core.methods import create
from kintsugi.core.pipeline import Pipeline
from kintsugi.data import datasets
from kintsugi.data.dataset import Dataset
from kintsugi.evaluation import get_protocol, predict_conditions


def naive(pipeline: Pipeline, data: Dataset, chunk: int = 1024) -> list[torch.Tensor]:
    """What a user would write: for each subset a pass over the data."""
    names = data.schema.names
    subsets = [s for size in range(len(names), 0, -1) for s in combinations(names, size)]
    pipeline.eval()
    answers = []
    with torch.no_grad():
        for subset in subsets:
            parts = [pipeline(batch.only(*subset)).output.softmax(1) for batch in data.batches(chunk)]
            answers.append(torch.cat(parts))
    return answers


def count_rows(pipeline: Pipeline) -> Counter[str]:
    """Rows that each encoder of the model sees from now on."""
    seen: Counter[str] = Counter()

    def hook(name: str) -> Any:
        return lambda module, args: seen.update({name: len(args[0])})

    for name, encoder in pipeline.model.encoders.items():
        encoder.register_forward_pre_hook(hook(name))
    return seen


def main() -> None:
    print(machine())
    data = datasets.load("handwritten").in_memory()
    conditions = get_protocol("subsets", data.schema).conditions
    for method in ("late_fusion", "mean_fusion", "mmin"):
        torch.manual_seed(0)
        pipeline = create(method, data.schema)
        for _, part in pipeline.named_components():
            part.clock.stage = pipeline.stages()[-1][1].name
        seconds = interleaved(
            5,
            cached=lambda p=pipeline: predict_conditions(p, data, conditions),
            naive=lambda p=pipeline: naive(p, data),
        )
        seen = count_rows(pipeline)
        found = {tuple(c.keep or data.schema.names): o.probabilities for c, o in
                 zip(conditions, predict_conditions(pipeline, data, conditions), strict=True)}  # fmt: skip
        names = data.schema.names
        subsets = [s for size in range(len(names), 0, -1) for s in combinations(names, size)]
        assert seen == dict.fromkeys(names, len(data)), f"encoders saw {dict(seen)}"
        gap = max(float((found[s] - x).abs().max()) for s, x in zip(subsets, naive(pipeline, data), strict=True))
        print(
            f"{method}: {ratio(seconds, 'cached', 'naive')}; each encoder saw {len(data)} rows; largest difference {gap:.1e}"
        )


if __name__ == "__main__":
    main()
