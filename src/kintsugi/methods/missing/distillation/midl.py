"""A trained model adapts in use, on complete rows: its answer should not depend on which modality it was shown."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Answer, Batch, Card, Claim, Claims, ConfigError, Fixture, Monitor, Pipeline, Prediction, Schema, ablation_of, claims_of,
    register,
)  # fmt: skip
from kintsugi.layers.adaptation import adaptable
from kintsugi.losses.information import kl_between, mutual_information


@register(
    Card(
        key="midl",
        name="MiDl",
        leaf="missing/distillation",
        imperfection=("missing at test",),
        faithful=(
            "complete rows of the stream adapt the model without labels; the others are answered by it as it then is",
            "the mutual information between the answer and the version of the row that was shown is minimised",
            "self-distillation: KL(before || now) to the model as it was trained, on the complete row",
            "one step of gradient descent with momentum a row, on the affine parameters of LayerNorm alone, after the answer",
        ),
        simplified=(
            "an erased modality is absent, as in all of this library; in the paper its input is zero",
            "any number of modalities: each of them alone, and all together; the paper has two",
            "a model without LayerNorm adapts the affine parameters of its other norms, one without any all but its head",
            "of several labels each has its two outcomes, and their terms are summed, as the paper does with its heads",
            "rows are answered in the order in which they come, as the paper says; its release first adapts to all complete rows",
        ),
        claims=(
            "steps are those of gradient descent with momentum on the two losses",
            "after a stream the answers to its rows depend less on which modality is shown",
        ),
        premise="modalities repeat each other in unequal strength, training rows were complete, and many rows in use are",
        confidence="high",
        defaults_from="the release: weights 3 and 3, step 2.5e-4 / 64 * 8 * 2, momentum 0.9",
        tasks=("classification", "multilabel"),
        joint=False,
    )
)
class MiDl(Monitor):
    """Mutual information minimisation with self-distillation, around any model of classes or labels.

    Args:
        lambda_mi: weight of the mutual information.
        lambda_kl: weight of the self-distillation.
        step_size: of the descent; small models need 1e-3 to 1e-2 to change within some hundred rows.
        momentum: of the descent.

    Raises:
        ConfigError: the task is neither of classes nor of labels, or a weight or a step is below 0.
    """

    adapts = True

    def __init__(
        self, schema: Schema, lambda_mi: float = 3.0, lambda_kl: float = 3.0, step_size: float = 6.25e-5, momentum: float = 0.9
    ) -> None:  # fmt: skip
        super().__init__()
        if schema.task.link == "identity":
            raise ConfigError(f"midl compares probabilities; task {schema.task.key} has none: choose another method")
        if min(lambda_mi, lambda_kl, step_size, momentum) < 0:
            raise ConfigError("midl: lambda_mi, lambda_kl, step_size and momentum must be 0 or more")
        self.lambda_mi, self.lambda_kl, self.step_size, self.momentum = lambda_mi, lambda_kl, step_size, momentum
        self.reset()

    def reset(self) -> None:
        self.velocity: dict[str, Tensor] = {}  # of each parameter that has moved

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        prediction = inner(batch)
        complete = self.host.columns(batch).all(1)
        if bool(complete.any()):
            self.adapt(batch.rows(complete))
        return prediction

    def adapt(self, batch: Batch) -> None:
        """One step on complete rows."""
        before = self.pipeline_in_use.answer_before(batch).output
        with torch.enable_grad():
            losses = self.losses(self.outputs(batch), before)
            if not losses:
                return
            moving = adaptable(self.host)
            gradients = torch.autograd.grad(
                torch.stack([*losses.values()]).sum(), [*moving.values()], allow_unused=True
            )
        with torch.no_grad():
            for (name, parameter), gradient in zip(moving.items(), gradients, strict=True):
                if gradient is not None:
                    self.velocity[name] = gradient + self.momentum * self.velocity.get(name, 0)
                    parameter.sub_(self.step_size * self.velocity[name])

    def outputs(self, batch: Batch) -> Tensor:
        """What the model answers to each version of the rows, every modality alone and then all: ``[V, B, ...]``."""
        names = self.host.schema.names
        shown = [*((name,) for name in names), names]
        keep = torch.tensor([[name in some for name in batch.names] for some in shown], device=batch.device)
        rows = torch.arange(len(batch), device=batch.device).repeat(len(shown))
        versions = batch.rows(rows).where(keep.repeat_interleave(len(batch), 0))
        output: Tensor = self.host(versions).output
        return output.unflatten(0, (len(shown), len(batch)))

    def losses(self, outputs: Tensor, before: Tensor) -> dict[str, Tensor]:
        """Means over rows: outputs of versions ``[V, B, ...]``, the complete one last, and of the model before ``[B, ...]``."""
        logits = self._logits(outputs)  # [V, B, H, C]
        losses: dict[str, Tensor] = {}
        if self.lambda_mi:
            versions = logits.log_softmax(-1).flatten(1, 2).transpose(0, 1)
            information = mutual_information(versions).view(logits.shape[1:3]).sum(1)
            losses["mutual_information"] = self.lambda_mi * information.mean()
        if self.lambda_kl:
            losses["distillation"] = self.lambda_kl * kl_between(self._logits(before), logits[-1]).sum(1).mean()
        return losses

    def _logits(self, output: Tensor) -> Tensor:
        """``[..., H, C]``: one distribution of classes, or one of two outcomes for each label."""
        if self.host.task.link == "softmax":
            return output[..., None, :]
        return torch.stack([output, torch.zeros_like(output)], -1)


ablation_of(MiDl, lambda_mi=0.0, lambda_kl=0.0)


@claims_of(MiDl)
def claims(fixture: Fixture) -> Claims:
    """On streams of a trained model, each from the state that training led to."""
    steps, depends = MiDl.card.claims
    pipeline = fixture.trained().eval()
    monitor, rows = pipeline.monitors[0], fixture.batch(80)
    assert isinstance(monitor, MiDl)
    start, information = _weights(pipeline), _information(monitor, rows)
    monitor.step_size = 0.5  # so long that the second step feels the distillation
    pairs = [rows.rows(torch.tensor([2 * i, 2 * i + 1])) for i in range(2)]
    expected = {**start, **_descended(monitor, pairs)}
    for pair in pairs:
        monitor.adapt(pair)
    gaps = [float((tensor - expected[name]).abs().max()) for name, tensor in _weights(pipeline).items()]
    yield Claim(steps, max(gaps), at_most=1e-4)
    pipeline.reset()
    late = float((pipeline(pairs[0]).output[:1] - pipeline.answer_before(pairs[0]).output[:1]).abs().max())
    yield Claim("a row is answered before its step", late, at_most=1e-5)
    monitor.step_size = 0.02  # so long that 80 rows show it
    pipeline.reset()
    holes = rows.only(*fixture.schema.names[1:])
    moved = float((pipeline(holes).output - pipeline.answer_before(holes).output).abs().max())
    moved += sum(not torch.equal(tensor, start[name]) for name, tensor in _weights(pipeline).items())
    yield Claim("a stream without complete rows changes nothing", moved, at_most=1e-5)
    pipeline(rows)
    yield Claim(depends, _information(monitor, rows) / information, at_most=0.95)


def _weights(pipeline: Pipeline) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in pipeline.model.named_parameters()}


def _information(monitor: MiDl, rows: Batch) -> float:
    """Mean mutual information of answer and version, in nats."""
    with torch.no_grad():
        p = monitor.outputs(rows).softmax(-1)
    entropies = [-(each * each.log()).sum(-1) for each in (p.mean(0), p)]
    return float((entropies[0] - entropies[1].mean(0)).mean())


def _descended(monitor: MiDl, batches: list[Batch]) -> dict[str, Tensor]:
    """The affine parameters of LayerNorm after a step on each batch, by torch's own descent on a copy of the model."""
    model = copy.deepcopy(monitor.host)
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)]
    norms = {f"{name}.{own}": p for name, layer in layers for own, p in layer.named_parameters()}
    descent = torch.optim.SGD(norms.values(), lr=0.5, momentum=0.9)
    for rows in batches:
        shown = [*(rows.only(name) for name in model.schema.names), rows]
        p = torch.stack([model(version).output for version in shown]).softmax(2)  # [V, B, C]
        before = monitor.host(rows).output.detach().softmax(1)
        entropy, mixed = -(p * (p + 1e-5).log()).sum(2).mean(0), p.mean(0)
        information = -(mixed * (mixed + 1e-5).log()).sum(1) - entropy
        (3 * information + 3 * (before * (before.log() - p[-1].log())).sum(1)).mean().backward()
        descent.step()
        descent.zero_grad()
    return {name: p.detach() for name, p in norms.items()}
