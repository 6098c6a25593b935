"""A convolutional autoencoder cleans windows of sensor channels; behind it a network that was never shown damage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Modality, Model, Pipeline, Restorer, Schema, Stage,
    Step, StreamSpec, ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.core.encoder import UserEncoder
from kintsugi.layers.autoencoder import CODE, ConvolutionalAutoencoder, burst_mask
from kintsugi.layers.channels import ActivityNetwork, ChannelEncoder, ChannelWindow, channel_names
from kintsugi.layers.initialisation import start_for_relu

DAMAGE = ("both", "noise", "bursts", "none")
STEPS = 16  # of the windows that claims are tried on


@register(
    Card(
        key="centaur",
        name="Centaur",
        leaf="corrupted/denoising",
        imperfection=("corrupted at test", "missing at test"),
        faithful=(
            "a convolutional autoencoder over all channels as one picture, with a linear code, trained to give the "
            "clean window",
            "noise, and bursts of missing samples of exponential length in each channel, drawn anew in every step",
            "convolutions over time of each channel alone, then attention over tokens that hold all channels",
            "the two are trained apart: no gradient of the task reaches the autoencoder, and the network behind it sees no "
            "damage",
        ),
        simplified=(
            "the network behind is trained on undamaged windows as the autoencoder gives them back, since what is restored in "
            "use is restored in training; the release shows it the windows themselves",
            "data are standardised, so the output is linear, noise is in standard deviations, and burst lengths are shares "
            "of the window; the release scales to [0, 1] by minima and maxima that look at test rows too",
            "a vector is one channel, whose numbers are its steps, and so are the numbers of a table; the release has "
            "inertial sensors only",
            "other kinds go by the autoencoder as they came; they and tables join the network behind it by encoders of "
            "their kind",
            "what a training row does not show has no part in the loss; the release has complete windows",
            "a quarter of the release's filters by default, and one optimiser in place of its RMSprop and SGD",
            "weights of the autoencoder start by He's rule: from PyTorch's default, the release's, it stands still for "
            "dozens of epochs",
        ),
        claims=(
            "a damaged window is nearer to the clean one after cleaning",
            "a channel that is missing is filled from the others",
            "a modality that is absent is filled from the others",
        ),
        premise="channels tell much of each other; some are noisy in use, or fall out for a while, and what is lost can be "
        "told from the rest of the window",
        confidence="high",
        defaults_from="the released code; lengths of bursts as for its windows of 100 steps, noise as 0.1 of a sine's range",
        modalities=(1, None),
        cost="medium",
    )
)
class Centaur(Restorer):
    """Cleans series, vectors and numbers of tables before a model sees them, and fills those that are absent.

    Args:
        code: values between the halves of the autoencoder.
        width: filters of its first layer; those of the others are 2, 4 and 8 times as many. The release: 64.
        damage: what it learns to undo: ``both``, ``noise``, ``bursts``, or ``none`` where an augmentation damages rows.
        sigma: standard deviation of the noise.
        missing, normal: mean lengths of bursts and of the times between them, in shares of the window's steps.
        output: ``reconstruction``, or ``fill``: it takes the place of samples that are exactly 0 alone (bursts, not noise).
        filters: of the network behind it. attention: over ``time`` or over ``sensor``, of that network.
    """

    def __init__(
        self, schema: Schema, code: int = CODE, width: int = 16, damage: str = "both", sigma: float = 0.3,
        missing: float = 0.3, normal: float = 0.5, output: str = "reconstruction",
    ) -> None:  # fmt: skip
        super().__init__()
        if damage not in DAMAGE or output not in ("reconstruction", "fill"):
            raise ConfigError(
                f"centaur: damage is one of {', '.join(DAMAGE)}, output is reconstruction or fill; not {damage!r}, {output!r}"
            )
        self.window = ChannelWindow(schema)
        steps = self.window.steps
        self.network: nn.Module = ConvolutionalAutoencoder(
            self.window.channels, steps, [width * 2**i for i in range(4)], code
        )
        start_for_relu(self.network)
        self.damage, self.sigma, self.output = damage, sigma, output
        self.lengths = max(1.0, normal * steps), max(1.0, missing * steps)

    @classmethod
    def pipeline(
        cls, schema: Schema, host: Model | None = None, filters: int = 64, attention: str = "time", **hyper: Any
    ) -> Pipeline:
        model = ActivityModel(schema, filters=filters, attention=attention) if host is None else host
        return Pipeline(model, restore=cls(schema, **hyper))

    def stages(self) -> list[Stage]:
        return [Stage("clean")]

    def damaged(self, window: Tensor, seen: Tensor) -> Tensor:
        """Noise, then zeros where a burst is: ``[B, 1, C, T]``, 0 wherever nothing was seen (bool of that shape)."""
        if self.damage in ("both", "noise"):
            window = window + self.sigma * torch.randn_like(window)
        if self.damage in ("both", "bursts"):
            rows, _, channels, steps = window.shape
            intact = burst_mask(rows, channels, steps, *self.lengths, torch.default_generator)
            seen = seen & intact[:, None].to(seen.device)
        return torch.where(seen, window, 0)

    def cleaned(self, window: Tensor) -> Tensor:
        """``[B, 1, C, T] -> [B, 1, C, T]``."""
        restored: Tensor = self.network(window)
        return torch.where(window == 0, restored, window) if self.output == "fill" else restored

    def restore(self, batch: Batch) -> Batch:
        return self.window.put(batch, self.cleaned(self.window.of(batch)))

    def step(self, batch: Batch) -> Step:
        """The mean squared error of everything that the clean batch shows, damaged and intact alike."""
        truth = batch if batch.truth is None else batch.truth
        seen = self.window.seen(truth)
        restored = self.network(self.damaged(self.window.of(batch), self.window.seen(batch)))
        errors = torch.where(seen, restored - self.window.of(truth), 0).square()
        return Step({"clean": errors.sum() / seen.sum().clamp(min=1)})


class ActivityModel(Model):
    """The network behind the autoencoder; all but series and vectors join its features by encoders of their kind."""

    def __init__(self, schema: Schema, dim: int = 32, filters: int = 64, attention: str = "time") -> None:
        super().__init__(schema, dim, fused=None)
        own = [m for m, encoder in self.encoders.items() if isinstance(encoder, UserEncoder)]
        self.channels = channel_names(schema, own)
        window = ChannelWindow(schema)
        for name in self.channels:
            self.encoders[name] = ChannelEncoder(window.steps)
        channels = sum(window.sizes[name][1] for name in self.channels)
        self.network = ActivityNetwork(channels, window.steps, filters, attention) if channels else None
        self.others = [name for name in schema.names if name not in self.channels]
        features = 0 if self.network is None else self.network.features
        self.task_head = schema.task.head(StreamSpec(features + dim * len(self.others)))

    def fuse(self, features: Features) -> Fused:
        parts = [features.streams[name].pooled() for name in self.others]
        if self.network is not None:
            window = torch.cat([features.streams[name].tokens for name in self.channels], 2).transpose(1, 2)
            parts.insert(0, self.network(window))
        return Fused.vector(torch.cat(parts, 1))


@ablation_of(Centaur)
class Uncleaned(Centaur):
    """Off: windows go to the network as they came."""

    @classmethod
    def pipeline(
        cls, schema: Schema, host: Model | None = None, filters: int = 64, attention: str = "time", **hyper: Any
    ) -> Pipeline:
        return Pipeline(ActivityModel(schema, filters=filters, attention=attention) if host is None else host)


@claims_of(Centaur)
def claims(fixture: Fixture) -> Claims:
    """Waves that six channels of two series share: an autoencoder trained by its own steps, then its loss and its rules."""
    series = tuple(Modality(name, "series", (STEPS, 3)) for name in ("arm", "leg"))
    fixture.schema = Schema(series, fixture.schema.task)
    pipeline, test = fixture.pipeline(), _waves(80, fixture.seed + 100)
    restore: Any = pipeline.restore
    if restore is not None:
        _train(pipeline, restore, _waves(320, fixture.seed))
    pipeline.eval()
    window, draws = ChannelWindow(fixture.schema), torch.Generator().manual_seed(fixture.seed)
    clean, channel = window.of(test), torch.arange(6)[:, None]
    intact = burst_mask(80, 6, STEPS, 0.5 * STEPS, 0.3 * STEPS, draws)[:, None]
    noisy = intact * (clean + 0.3 * torch.randn(clean.shape, generator=draws))
    after = _restored(pipeline, window.put(test, noisy))
    gain = (after - clean).square().mean() / (noisy - clean).square().mean()
    yield Claim(Centaur.card.claims[0], float(gain), at_most=0.6)
    lost = (_restored(pipeline, window.put(test, clean * (channel != 1))) - clean)[:, :, 1]
    yield Claim(Centaur.card.claims[1], float(lost.square().mean() / clean[:, :, 1].square().mean()), at_most=0.5)
    lost = (_restored(pipeline, test.only("leg")) - clean)[:, :, :3]
    yield Claim(Centaur.card.claims[2], float(lost.square().mean() / clean[:, :, :3].square().mean()), at_most=0.5)
    if restore is not None:
        yield from _rules(fixture, restore, test, window)


def _rules(fixture: Fixture, restore: Any, test: Batch, window: ChannelWindow) -> Claims:
    """What is drawn, what its loss is, and what the variant that fills leaves alone."""
    clean, seen = window.of(test), window.seen(test)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(fixture.seed)
        damaged, again = restore.damaged(clean, seen), restore.damaged(clean, seen)
        restore.network = nn.Identity()
        torch.random.default_generator.manual_seed(fixture.seed)
        loss = restore.step(replace(test.where(torch.tensor([True, False])), truth=test)).losses["clean"]
    burst = damaged == 0
    runs = burst.sum() / (burst & ~burst.roll(1, 3)).sum()
    yield Claim("samples go missing in bursts", float(runs), at_least=2.5)
    yield Claim("a third of the samples is missing", abs(float(burst.float().mean()) - 0.3), at_most=0.06)
    yield Claim("what is left has noise of its own", abs(float((damaged - clean)[~burst].std()) - 0.3), at_most=0.03)
    yield Claim("each draw has bursts of its own", float((burst ^ (again == 0)).float().mean()), at_least=0.2)
    given = torch.where(torch.arange(6)[:, None] < 3, damaged, 0)  # the leg was taken away by a view
    yield Claim("the loss is that of every entry", abs(float(loss - (given - clean).square().mean())), at_most=1e-6)
    filled: Any = fixture.pipeline(output="fill").restore
    kept = (window.of(filled.restore(window.put(test, damaged))) - damaged)[~burst].abs().max()
    yield Claim("to fill is to leave what is not 0", float(kept.detach()), at_most=0)


def _waves(rows: int, seed: int) -> Batch:
    """One period of a wave of any strength and phase, in all channels."""
    time = 2 * torch.pi * torch.arange(STEPS) / STEPS
    strength = 2 * torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
    wave = (strength @ torch.stack([time.sin(), time.cos()]))[..., None].expand(-1, -1, 3)
    present = torch.ones(rows, 2, dtype=torch.bool)
    return Batch(("arm", "leg"), {"arm": wave, "leg": wave}, present, torch.arange(rows))


def _train(pipeline: Pipeline, restore: Restorer, rows: Batch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        optimiser = torch.optim.Adam(restore.parameters(), 3e-3)
        for i in range(80):
            optimiser.zero_grad()
            pipeline.training_step(rows.rows(torch.arange(i % 10, len(rows), 10)), "restore").total.backward()
            optimiser.step()


@torch.no_grad()
def _restored(pipeline: Pipeline, batch: Batch) -> Tensor:
    return ChannelWindow(pipeline.schema).of(pipeline.restored(batch))
