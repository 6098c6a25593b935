"""A convolutional autoencoder cleans windows of sensor channels; behind it a network that was never shown damage."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kintsugi.components.activity import ActivityModel
from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Fixture, Modality, Model, Pipeline, Restorer, Schema, Stage, Step, ablation_of,
    claims_of, register,
)  # fmt: skip
from kintsugi.layers.autoencoder import CODE, ConvolutionalAutoencoder, burst_mask
from kintsugi.layers.channels import ChannelDamage, ChannelWindow
from kintsugi.layers.initialisation import start_for_relu


@register(
    Card(
        key="centaur",
        name="Centaur",
        leaf="corrupted/denoising",
        kinds=("series", "vector", "tabular"),
        imperfection=("corrupted at test", "missing at test"),
        faithful=(
            "a convolutional autoencoder over all channels as one picture, its code linear, trained to give the clean window",
            "noise, and bursts of missing samples of exponential length in each channel alone, drawn anew in every step",
            "convolutions over time of each channel alone, then attention over tokens that hold all channels",
            "trained apart: no gradient of the task reaches the autoencoder, and the network behind it sees no damage",
        ),
        simplified=(
            "the network learns from undamaged windows as the autoencoder gives them back; the release skips it there",
            "standardised data, noise in its units, a linear output; the release scales by extremes of test rows too",
            "a vector, or the numbers of a table, is one channel; other kinds, and tables again, join the network beside them",
            "the loss leaves out what a training row does not show; the release has complete windows of inertial sensors",
            "a quarter of the filters, one optimiser, He's start (else training stands still); no bursts of whole sensors",
        ),
        claims=(
            "a damaged window is nearer to the clean one after cleaning",
            "a channel that is missing is filled from the others",
            "a modality that is absent is filled from the others",
        ),
        premise="channels tell much of each other, and what is noisy or falls out for a while can be told from the rest",
        worlds=("visible_noise_at_test", "redundant"),
        confidence="high",
        defaults_from="the released code; bursts as for its windows of 100 steps, noise as 0.1 of a sine's range",
        modalities=(1, None),
        cost="medium",
    )
)
class Centaur(Restorer):
    """Cleans series, vectors and numbers of tables before a model sees them, and fills those that are absent.

    Args:
        code: values between the halves of the autoencoder. width: filters of its first layer, doubled thrice; the release: 64.
        damage: what it learns to undo: ``both``, ``noise``, ``bursts``, or ``none`` where an augmentation damages rows.
        sigma: deviation of the noise. missing, normal: mean lengths of bursts and between them, in shares of a window's steps.
        output: ``reconstruction``, or ``fill``: it takes the place of samples that are exactly 0 alone (bursts, not noise).
        filters: of the network behind it. attention: over ``time`` or over ``sensor``, of that network.
    """

    def __init__(
        self, schema: Schema, code: int = CODE, width: int = 16, damage: str = "both", sigma: float = 0.3,
        missing: float = 0.3, normal: float = 0.5, output: str = "reconstruction",
    ) -> None:  # fmt: skip
        super().__init__()
        if output not in ("reconstruction", "fill"):
            raise ConfigError(f"centaur: output is reconstruction or fill, not {output!r}")
        self.window, widths, self.output = ChannelWindow(schema), [width * 2**i for i in range(4)], output
        self.damage = ChannelDamage(self.window.steps, damage, sigma, missing, normal)
        self.network: nn.Module = ConvolutionalAutoencoder(self.window.channels, self.window.steps, widths, code)
        start_for_relu(self.network)

    @classmethod
    def pipeline(
        cls, schema: Schema, host: Model | None = None, filters: int = 64, attention: str = "time", **hyper: Any
    ) -> Pipeline:
        model = ActivityModel(schema, filters=filters, attention=attention) if host is None else host
        return Pipeline(model, restore=cls(schema, **hyper))

    def stages(self) -> list[Stage]:
        return [Stage("clean")]

    def restore(self, batch: Batch) -> Batch:
        window = self.window.of(batch)
        restored = self.network(window)
        return self.window.put(batch, torch.where(window == 0, restored, window) if self.output == "fill" else restored)

    def step(self, batch: Batch) -> Step:
        """The mean squared error of everything that the clean batch shows, damaged and intact alike."""
        truth = batch if batch.truth is None else batch.truth
        seen = self.window.seen(truth)
        restored = self.network(self.damage(self.window.of(batch), self.window.seen(batch)))
        errors = torch.where(seen, restored - self.window.of(truth), 0).square()
        return Step({"clean": errors.sum() / seen.sum().clamp(min=1)})


ablation_of(
    Centaur, "cleaning", damage="none"
)  # the autoencoder gives back what it gets, as it learned on clean windows


@ablation_of(Centaur)
class Uncleaned(Centaur):
    """Off: windows go to the network as they came."""

    @classmethod
    def pipeline(cls, schema: Schema, *args: Any, **hyper: Any) -> Pipeline:
        return Pipeline(super().pipeline(schema, *args, **hyper).model)


@claims_of(Centaur)
def claims(fixture: Fixture) -> Claims:
    """Six channels of two series mix two oscillators: an autoencoder trained by its own steps, its loss, and its variant."""
    fixture.schema = Schema(tuple(Modality(m, "series", (16, 3)) for m in ("arm", "leg")), fixture.schema.task)
    pipeline, window, test = fixture.pipeline(), ChannelWindow(fixture.schema), _waves(80, fixture.seed + 100)
    restore: Any = pipeline.restore
    if restore is not None:
        _train(restore, _waves(320, fixture.seed))
    clean, channel, draws = window.of(test), torch.arange(6)[:, None], torch.Generator().manual_seed(fixture.seed)
    intact = burst_mask(80, 6, 16, 8.0, 4.8, draws)[:, None]
    noisy = window.put(test, intact * (clean + 0.3 * torch.randn(clean.shape, generator=draws)))
    dead, alone = window.put(test, clean * (channel != 1)), test.only("leg")
    tried = ((noisy, channel >= 0, 0.3), (dead, channel == 1, 0.5), (alone, channel < 3, 0.25))
    for name, (damaged, lost, bound) in zip(Centaur.card.claims, tried, strict=True):
        before, after = ((window.of(x).detach() - clean) * lost for x in (damaged, pipeline.restored(damaged)))
        yield Claim(name, float(after.square().sum() / before.square().sum()), at_most=bound)
    if restore is not None:
        restore.network, restore.damage.forward = nn.Identity(), lambda window, seen: window * seen / 2
        loss = restore.step(test.view(torch.tensor([True, False]))).total
        expected = (clean * torch.where(channel < 3, 0.5, 1)).square().mean()  # of the leg all is lost
        yield Claim("the loss is that of every entry of the truth", float((loss - expected).abs()), at_most=1e-6)
        filled, shown = (window.of(x) for x in (fixture.pipeline(output="fill").restored(noisy), noisy))
        yield Claim("to fill is to leave what is not 0", float((filled != shown)[shown != 0].sum()), at_most=0)


def _waves(rows: int, seed: int) -> Batch:
    """Two oscillators of any strength, in each channel with gains and signs of its own."""
    angle = 2 * torch.pi * torch.arange(16) / 16
    strength = 2 * torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
    gains = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [0.5, -1.0], [-1.0, 0.5], [1.0, 0.5], [0.0, -1.0]])
    waves = (strength[:, None] * gains) @ torch.stack([angle.sin(), (2 * angle).cos()])
    parts = dict(zip(("arm", "leg"), waves.transpose(1, 2).split(3, 2), strict=True))
    return Batch(("arm", "leg"), parts, torch.ones(rows, 2, dtype=torch.bool), torch.arange(rows))


def _train(restore: Restorer, rows: Batch) -> None:
    optimiser = torch.optim.Adam(restore.parameters(), 3e-3)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        for i in range(80):
            optimiser.zero_grad()
            restore.step(rows.rows(torch.arange(i % 10, len(rows), 10))).total.backward()
            optimiser.step()
