"""Train any model on random parts of each row, so that no part of its answer rests on one modality alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Fixture, Pipeline, Schema, Splits, Stage, Strategy, ablation_of, claims_of,
    difference, register,
)  # fmt: skip


@register(
    Card(
        key="random_subsets",
        name="Random subsets (modality dropout)",
        leaf="corrupted/augmentation",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "in every step each row keeps a random part of its modalities, drawn for each row by itself; what is dropped is as "
            "if it were absent",
            "nothing is rescaled for what was dropped, and in use nothing is drawn",
            "the model, its loss and its answer are those of the host",
        ),
        simplified=(
            "of ModDrop this is the dropping alone: no training of each modality before, no fusion layer that begins block by "
            "block",
            "every subset that is not empty is equally likely, which is dropping each modality with probability 1/2 and drawing "
            "again where nothing is left; the paper has a probability for each modality",
            "it drops from the first step; the paper drops once the joint model has been trained",
            "only what a host learns by descent is trained on subsets; a host that is all closed form is refused",
        ),
        claims=(
            "each subset of a row's modalities that is not empty is trained on equally often",
            "each pass over the rows draws anew",
        ),
        premise="modalities that training rows have are absent in use, and what is left tells the target too",
        worlds=("redundant",),
        confidence="medium",
        defaults_from="this library; a probability of 1/2 is also that of ports of the paper",
        cite="moddrop",
        modalities=(1, None),
        joint=False,
    )
)
class RandomSubsets(Strategy):
    """Trains any model on subsets of what each row has. A stage that has a view of its own keeps it.

    The whole row stays in ``truth``, for losses that compare.

    Raises:
        ConfigError: the host is solved in closed form, from all rows as they are.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()

    def attach(self, pipeline: Pipeline) -> None:
        super().attach(pipeline)
        stages = self.host.stages()
        if stages and all(stage.solve for stage in stages):
            raise ConfigError(
                f"random_subsets: {type(self.host).__name__} is solved in closed form from whole rows, so subsets of them "
                "would change nothing; leave random_subsets out, or choose a host that is trained by descent"
            )

    def adjust_stages(self, stages: list[Stage]) -> list[Stage]:
        return [replace(stage, view="subsets") if stage.view == "natural" else stage for stage in stages]


@ablation_of(RandomSubsets)
class WholeRows(RandomSubsets):
    """Off: rows as they are."""

    def adjust_stages(self, stages: list[Stage]) -> list[Stage]:
        return stages


@claims_of(RandomSubsets)
def claims(fixture: Fixture) -> Claims:
    """One training on rows of which some have holes; every batch as the model got it is held against the table."""
    from kintsugi.imperfect import parse_mechanism

    train: Any = fixture.splits.train
    train = train.with_missing(parse_mechanism("mcar(0.1)"), seed=1)
    fixture.splits, fixture.epochs = Splits(train, fixture.splits.val), 10
    pipeline, batches = fixture.pipeline(), list[tuple[int, Batch]]()

    def watch(module: Any, args: tuple[Batch]) -> None:
        if module.training:
            batches.append((module.clock.passes, args[0]))

    pipeline.model.register_forward_pre_hook(watch)
    fixture.train(pipeline)
    kept = torch.zeros(fixture.epochs, *train.present.shape, dtype=torch.bool)
    seen = torch.zeros(fixture.epochs, len(train), dtype=torch.bool)
    wrong, table_moved = 0, 0
    for number, batch in batches:
        rows = torch.searchsorted(train.index, batch.index)
        kept[number, rows], seen[number, rows] = batch.present, True
        wrong += int((batch.present & ~train.present[rows]).sum() + (~batch.present.any(1)).sum())
        clean, truth = train.batch(rows), batch.truth or batch
        table_moved += int((batch.target != clean.target).sum() + (truth.present != clean.present).sum())
    yield Claim("what a row lacks stays absent, and something is always left", wrong, at_most=0)
    yield Claim("labels are those of the row, and truth is the whole row", table_moved, at_most=0)
    whole = fixture.batch(8, "val")
    part = whole.only(fixture.schema.names[0])
    full, answer = pipeline.eval()(whole), pipeline(part)
    alone = pipeline.model.encode(whole).pooled()
    for name, prediction, mean in (("whole", full, alone.mean(1)), ("partial", answer, alone[:, 0])):
        away = difference(prediction.embedding, mean)
        yield Claim(
            f"a {name} row is answered from the plain mean of what it has: nothing is rescaled", away, at_most=1e-5
        )
    yield Claim("a pass has every row once", int((~seen[:, train.present.any(1)]).sum()), at_most=0)
    yield Claim(RandomSubsets.card.claims[0], _unevenness(kept, train.present), at_most=0.06)
    several = train.present.sum(1) > 1
    anew = (kept[1:] != kept[:-1]).any(2)[:, several].float().mean()
    yield Claim(RandomSubsets.card.claims[1], float(anew), at_least=0.5)  # of two modalities 2 in 3 draws are others


def _unevenness(kept: Tensor, present: Tensor) -> float:
    """Largest difference of the share of a subset, among rows that have the same modalities, to an equal share."""
    counts: dict[tuple[bool, ...], dict[tuple[bool, ...], int]] = defaultdict(lambda: defaultdict(int))
    for has, draws in zip(present.tolist(), kept.transpose(0, 1).tolist(), strict=True):
        for draw in draws:
            counts[tuple(has)][tuple(draw)] += 1
    gaps = [0.0]
    for has, subsets in counts.items():
        equal, total = 1 / max(1, 2 ** sum(has) - 1), sum(subsets.values())
        lacking = len(subsets) < 1 / equal
        shares = [count / total for count in subsets.values()] + [0.0] * lacking
        gaps += [abs(share - equal) * (total >= 500) for share in shares if any(has)]  # fewer draws scatter
    return max(gaps)
