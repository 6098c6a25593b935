"""Train on corrupted rows, anew in every pass, so that what is learned holds for corrupted rows."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Fixture, Schema, Splits, Stage, Strategy, ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.imperfect.corruption import (
    Compose, Correlated, Corruption, Distortion, OneOf, Sometimes, check_severity, corrupt, parse_corruption,
)  # fmt: skip

# The plain noise of each kind of modality: the one operator that nothing has to be known about the data for.
NOISE = {
    "image": "gaussian_noise", "audio": "white_noise", "text": "keyboard_typos", "tabular": "cell_noise",
    "series": "sensor_noise", "vector": "feature_noise",
}  # fmt: skip


@register(
    Card(
        key="corruption_augmentation",
        name="Corruption augmentation",
        leaf="corrupted/augmentation",
        imperfection=("corrupted at test", "missing at test", "missing in training"),
        faithful=(
            "half of the inputs of a batch are corrupted by noise of a level that is drawn for each, the others "
            "stay clean",
            "new draws in every epoch",
            "the model, its loss and its answer are those of the host",
        ),
        simplified=(
            "each modality is corrupted on its own, since the paper has one; its noise is the plain one of its kind",
            "levels are severities 1 to 3, each equally likely; the paper tunes one standard deviation, or "
            "draws among five",
            "trained from the start; the paper fine-tunes a trained network",
            "the paper's adversarial noise training (a generator learns the noise) is left out",
        ),
        claims=(
            "half of the rows of each modality are damaged",
            "each epoch draws anew which rows are damaged",
            "each level from the least to the largest is drawn equally often",
            "damage grows with its level, by the spread of the training rows",
            "what is said in words is drawn at each level from the least to its own",
        ),
        premise="inputs in use are corrupted in ways that the training noise resembles",
        worlds=("visible_noise_at_test",),
        confidence="high",
        defaults_from="the paper for the share of one half; severities: this library",
        modalities=(1, None),
        version=2,
        joint=False,
    )
)
class CorruptionAugmentation(Strategy):
    """Trains any model on rows of which some are damaged.

    The clean batch stays in ``truth``, for losses that restore, with the level of each slot as its ``severity``. Draws
    belong to a row and a pass over the rows, so a run that was interrupted goes on as it would have. An operator that fixes
    something for the whole data set when it is planned, such as the partners of mismatched pairs, keeps it over the epochs.

    Args:
        corruption: what is done, as text such as ``"gaussian_noise(image, 5) + white_noise(speech, 3)"``; ``auto``: the
            plain noise of each modality's kind, independent of each other. An operator is used at levels 1 to its own.
        share: of the rows that are damaged; with ``auto`` of each modality's rows.
        severity: the largest level; each row draws its own.
        draws: number of the sequence of random draws.
    """

    renamed = MappingProxyType({"seed": "draws"})  # in models of 0.1.0

    def __init__(
        self, schema: Schema, corruption: str = "auto", share: float = 0.5, severity: int = 3, draws: int = 0
    ) -> None:
        super().__init__()
        check_severity("corruption_augmentation", severity)
        if not severity:
            raise ConfigError("corruption_augmentation: the severity must be 1 or more; share=0 does nothing")
        self.distortion = (
            _auto(schema, share, severity) if corruption == "auto" else _of_text(corruption, share, severity)
        )
        if self.distortion.labels:
            raise ConfigError(
                f"corruption_augmentation damages inputs, and {corruption} changes labels; train on data.with_corruption(...)"
            )
        for name in self.distortion.modalities:
            schema.column(name)
        self.draws = draws
        self._forget()

    def _forget(self) -> None:
        self.__dict__["planned"], self.__dict__["drawn"] = None, (None, None)

    def prepare(self, data: Splits, stage: Stage) -> None:
        """Look at the training rows once: scales, pools of noise."""
        self.__dict__["planned"] = self.distortion.plan(data.train, self.draws)
        self.__dict__["drawn"] = (None, None)

    def augment(self, batch: Batch) -> Batch:
        """The batch as it is trained on in this pass; the old one is its ``truth``."""
        planned = self.__dict__["planned"]
        if planned is None:
            raise ConfigError(
                "corruption_augmentation: there is no plan; it is made by Trainer.fit, before the first stage"
            )
        now = (self.clock.stage, self.clock.passes)
        if self.__dict__["drawn"][0] != now:
            self.__dict__["drawn"] = (now, planned.reseeded(*now))
        after = self.distortion.apply(replace(batch, truth=None, severity=None), self.__dict__["drawn"][1])
        level = torch.zeros(batch.present.shape, device=batch.device) if after.severity is None else after.severity
        truth = replace(batch if batch.truth is None else batch.truth, severity=level)
        return replace(after, severity=None, truth=truth)

    def finish(self, model: Any) -> Any:
        """The plan, which may hold on to the training rows, is let go."""
        self._forget()
        return model


def _auto(schema: Schema, share: float, severity: int) -> Distortion:
    known = [m for m in schema.modalities if m.kind in NOISE]
    if not known:
        raise ConfigError(
            f"corruption_augmentation: there is no noise for {', '.join(sorted({m.kind for m in schema.modalities}))}; "
            "say what is done by corruption="
        )
    parts = [Sometimes(up_to(corrupt(NOISE[m.kind], m.name, severity), severity), share) for m in known]
    return parts[0] if len(parts) == 1 else Compose(tuple(parts))


def _of_text(corruption: str, share: float, severity: int) -> Distortion:
    return Sometimes(up_to(parse_corruption(corruption), severity), share)


def up_to(distortion: Distortion, severity: int) -> Distortion:
    """The same with each operator at a level drawn by row: from 1 to its own, and at most ``severity``."""
    if isinstance(distortion, Corruption):
        levels = range(1, min(distortion.severity, severity) + 1)
        each = tuple(replace(distortion, severity=level) for level in levels)
        return distortion if not each else each[0] if len(each) == 1 else OneOf(each)
    if isinstance(distortion, Sometimes):
        return replace(distortion, part=up_to(distortion.part, severity))
    if isinstance(distortion, Compose | OneOf | Correlated):
        return replace(distortion, parts=tuple(up_to(part, severity) for part in distortion.parts))
    raise ConfigError(f"corruption_augmentation: levels cannot be drawn for {distortion}")


ablation_of(CorruptionAugmentation, share=0.0)


@claims_of(CorruptionAugmentation)
def claims(fixture: Fixture) -> Claims:
    """One training on rows of which some have holes; every batch as the model got it is held against the table."""
    from kintsugi.imperfect import parse_mechanism

    train: Any = fixture.splits.train
    train = train.with_missing(parse_mechanism("mcar(0.2)"), seed=1)
    fixture.splits, fixture.epochs = Splits(train, fixture.splits.val), 5
    pipeline, batches = fixture.pipeline(), list[tuple[int, Batch]]()
    strategy = pipeline.strategies[0]
    assert isinstance(strategy, CorruptionAugmentation)

    def watch(module: Any, args: tuple[Batch]) -> None:
        if module.training:
            batches.append((module.clock.epoch, args[0]))

    pipeline.model.register_forward_pre_hook(watch)
    fixture.train(pipeline)
    planned, table_moved, otherwise = strategy.distortion.plan(train, 0), 0, 0
    level = torch.full((fixture.epochs, *train.present.shape), torch.nan)
    noise = torch.zeros(level.shape)
    for epoch, batch in batches:
        rows = torch.searchsorted(train.index, batch.index)
        clean, truth, severity = train.batch(rows), batch.truth, _severity(batch)
        wanted = strategy.distortion.apply(clean, planned.reseeded("train", epoch))
        level[epoch, rows] = severity.where(batch.present, torch.nan)
        for i, name in enumerate(batch.names):
            x, spread = clean.inputs[name], train.batch(train.positions(f"has:{name}")).inputs[name].std(0)
            noise[epoch, rows, i] = ((batch.inputs[name] - x) / spread).square().mean(1)
            table_moved += int((truth.inputs[name] != x).any(1).sum())  # type: ignore[union-attr]
            otherwise += int((batch.inputs[name] != wanted.inputs[name]).any(1).sum())
            otherwise += int(((batch.inputs[name] != x).any(1) != (severity[:, i] > 0)).sum())
        table_moved += int((batch.target != clean.target).sum() + (batch.present != clean.present).sum())
        otherwise += batch.severity is not None
    yield Claim("labels and holes are those of the row, and truth is the clean row", table_moved, at_most=0)
    yield Claim(
        "the model gets what the operators make of the row, and truth alone tells the level", otherwise, at_most=0
    )
    unread = sum(value is not None for value in (strategy.__dict__["planned"], *strategy.__dict__["drawn"]))
    yield Claim("the plan, which may hold training rows, is let go", unread, at_most=0)
    hit, seen = level > 0, ~level.isnan()
    shares = hit.sum((0, 1)) / seen.sum((0, 1))
    yield Claim(CorruptionAugmentation.card.claims[0], float((shares - 0.5).abs().max()), at_most=0.1)
    anew = (level[1:] != level[:-1])[seen[1:]].float().mean()
    yield Claim(CorruptionAugmentation.card.claims[1], float(anew), at_least=0.5)
    counts = torch.stack([(level == k).sum((0, 1)) for k in (1, 2, 3)])
    often = counts / counts.sum(0).clamp(min=1)
    yield Claim(CorruptionAugmentation.card.claims[2], float((often - 1 / 3).abs().max()), at_most=0.1)
    size = torch.stack([noise[level == k].sum() / (level == k).sum().clamp(min=1) for k in (1, 2, 3)]).sqrt()
    away = float((size / torch.tensor([0.1, 0.2, 0.4]) - 1).abs().max())  # k of feature_noise
    yield Claim(CorruptionAugmentation.card.claims[3], away, at_most=0.1)
    one, two, three = fixture.schema.names
    words = f"feature_noise({one}, 2) + one_of(feature_noise({two}, 1), feature_noise({two}, 5))"
    words += f" + sometimes(feature_noise({three}, 1), share=0.5)"
    strategy = fixture.pipeline(corruption=words, share=1.0).strategies[0]
    assert isinstance(strategy, CorruptionAugmentation)
    strategy.prepare(fixture.splits, Stage("train"))
    severity = _severity(strategy.augment(train.batch(train.positions("complete"))))
    wrong = [
        set(x.tolist()) ^ levels for x, levels in zip(severity.unbind(1), ({1, 2}, {1, 2, 3}, {0, 1}), strict=True)
    ]
    yield Claim(CorruptionAugmentation.card.claims[4], sum(map(len, wrong)), at_most=0)


def _severity(batch: Batch) -> Any:
    """Level of each slot, as the clean batch tells it."""
    return batch.truth.severity  # type: ignore[union-attr]
