"""Train on corrupted rows, anew in every epoch, so that what is learned holds for corrupted rows."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from kintsugi.core.claims import held
from kintsugi.core import (
    Claim, Claims, Batch, Card, ConfigError, Fixture, Schema, Splits, Stage, Strategy, ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.imperfect.corruption import (
    Compose,
    Correlated,
    Corruption,
    Distortion,
    OneOf,
    Sometimes,
    check_severity,
    corrupt,
    parse_corruption,
)

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
            "in each epoch the share asked for of each modality is damaged anew, at all levels; the clean rows "
            "and the levels are in truth, and the model sees no level",
        ),
        premise="inputs in use are corrupted in ways that the training noise resembles",
        confidence="high",
        defaults_from="the paper for the share of one half; severities: this library",
        modalities=(1, None),
        joint=False,
    )
)
class CorruptionAugmentation(Strategy):
    """Trains any model on rows of which some are damaged.

    The clean batch stays in ``truth``, for losses that restore, with the level of each slot as its ``severity``. Draws
    belong to a row and an epoch, so a run that was interrupted goes on as it would have. An operator that fixes
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
            _auto(schema, share, severity) if corruption == "auto" else _given(corruption, share, severity)
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
        """The batch as it is trained on in this epoch; the old one is its ``truth``."""
        planned = self.__dict__["planned"]
        if planned is None:
            raise ConfigError(
                "corruption_augmentation: there is no plan; it is made by Trainer.fit, before the first stage"
            )
        now = (self.clock.stage, self.clock.epoch)
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


def _given(corruption: str, share: float, severity: int) -> Distortion:
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


def half_is_damaged_anew_in_each_epoch(fixture: Fixture) -> None:
    """See the card's ``check``."""
    fixture.epochs = 3
    pipeline = fixture.pipeline()
    seen: list[Batch] = []
    hook = pipeline.model.register_forward_pre_hook(_note(seen))
    fixture.train(pipeline)
    hook.remove()
    assert all(batch.severity is None for batch in seen), "the model sees how much was damaged"
    levels = []
    for batch in seen:
        assert batch.truth is not None, "the clean batch is gone"
        assert batch.truth.severity is not None, "nobody knows what was damaged"
        clean = fixture.data.batch(batch.index)
        for column, name in enumerate(batch.names):
            assert torch.equal(batch.truth.inputs[name], clean.inputs[name]), "truth is not clean"
            changed = (batch.inputs[name] != clean.inputs[name]).any(1)
            assert torch.equal(changed, batch.truth.severity[:, column] > 0), "what is said is not what was done"
        levels.append((batch.index, batch.truth.severity))
    index = torch.cat([rows for rows, _ in levels]).chunk(fixture.epochs)
    level = torch.cat([found for _, found in levels]).chunk(fixture.epochs)
    hit = torch.stack([found[rows.argsort()] > 0 for rows, found in zip(index, level, strict=True)])
    shares = hit.float().mean((0, 1))
    assert bool(((shares - 0.5).abs() < 0.1).all()), f"shares of damaged rows: {shares.tolist()}"
    assert set(torch.cat(level).flatten().tolist()) == {0.0, 1.0, 2.0, 3.0}, "some level is never drawn"
    assert 0.4 < float((hit[0] != hit[1]).float().mean()) < 0.6, "epochs repeat their draws"


def _note(seen: list[Batch]) -> Any:
    """A hook that keeps the batches that a model is trained on."""

    def hook(module: nn.Module, args: tuple[Batch]) -> None:
        if module.training:
            seen.append(args[0])

    return hook


@claims_of(CorruptionAugmentation)
def claims(fixture: Fixture) -> Claims:
    """Interim."""
    yield Claim(CorruptionAugmentation.card.claims[0], held(half_is_damaged_anew_in_each_epoch, fixture), at_least=1.0)
