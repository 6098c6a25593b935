"""A trained model adapts in use, on complete rows: its answer should not depend on which modality it was shown."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Answer, Batch, Card, Claim, Claims, ConfigError, Fixture, Model, Monitor, Prediction, Schema, ablation_of, claims_of,
    difference, register,
)  # fmt: skip
from kintsugi.layers.adaptation import adaptable, descend, outcome_logits, outputs_of_versions
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
        worlds=("redundant",),
        confidence="high",
        defaults_from="the release: weights 3 and 3, step 2.5e-4 / 64 * 8 * 2, momentum 0.9",
        tasks=("classification", "multilabel"),
        joint=False,
    )
)
class MiDl(Monitor):
    """Mutual information minimisation with self-distillation, around any model of classes or labels.

    Args:
        lambda_mi, lambda_kl: weights of the mutual information and of the self-distillation.
        step_size, momentum: of the descent; small models need steps of 1e-3 to 1e-2 to change within some hundred rows.

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
        complete = self.host.columns(batch.where(batch.observed)).all(1)  # what a restorer filled was not seen
        if bool(complete.any()):
            self.adapt(batch.rows(complete))
        return prediction

    def adapt(self, batch: Batch) -> None:
        """One step on complete rows."""
        before = self.pipeline_in_use.answer_before(batch).output
        with torch.enable_grad():
            losses = self.losses(self.outputs(batch), before)
            if losses:
                total = torch.stack([*losses.values()]).sum()
                descend(total, adaptable(self.host), self.velocity, self.step_size, self.momentum)

    def outputs(self, batch: Batch) -> Tensor:
        """What the model answers to each version of the rows, every modality alone and then all: ``[V, B, ...]``."""
        names = self.host.schema.names
        return outputs_of_versions(self.host, batch, [*((name,) for name in names), names])

    def losses(self, outputs: Tensor, before: Tensor) -> dict[str, Tensor]:
        """Means over rows, of versions ``[V, B, ...]``, the complete one last, and those before ``[B, ...]``."""
        logits, taught = (outcome_logits(x, self.host.task.link) for x in (outputs, before))  # [V, B, H, C], [B, H, C]
        losses: dict[str, Tensor] = {}
        if self.lambda_mi:
            versions = logits.log_softmax(-1).flatten(1, 2).transpose(0, 1)
            information = mutual_information(versions).view(logits.shape[1:3]).sum(1)
            losses["mutual_information"] = self.lambda_mi * information.mean()
        if self.lambda_kl:
            losses["distillation"] = self.lambda_kl * kl_between(taught, logits[-1]).sum(1).mean()
        return losses


ablation_of(MiDl, lambda_mi=0.0, lambda_kl=0.0)


@claims_of(MiDl)
def claims(fixture: Fixture) -> Claims:
    """On streams of a trained model, each from the state that training led to."""
    steps, depends = MiDl.card.claims
    pipeline, rows, model = fixture.trained().eval(), fixture.batch(80), fixture.trained().eval().model
    monitor = next(each for each in pipeline.monitors if isinstance(each, MiDl))
    monitor.step_size = 0.5  # so long that the second step feels the distillation
    pairs = [rows.rows(torch.tensor(pair)) for pair in ([0, 1], [2, 3])]
    _descend(model, pairs)
    for pair in pairs:
        monitor.adapt(pair)
    gaps = [difference(p, q) for p, q in zip(monitor.host.parameters(), model.parameters(), strict=True)]
    yield Claim(steps, max(gaps), at_most=1e-4)
    pipeline.reset()
    before = _information(monitor.outputs(rows))
    monitor.step_size = 0.02  # so long that 80 rows show it
    pipeline(rows)
    yield Claim(depends, float((_information(monitor.outputs(rows)) / before).detach()), at_most=0.95)


def _information(outputs: Tensor) -> Tensor:
    """Mean mutual information of answer and version in nats: logits ``[V, B, C]``."""
    p = outputs.softmax(2)
    mixed, each = (-(q * (q + 1e-5).log()).sum(-1) for q in (p.mean(0), p))
    return (mixed - each.mean(0)).mean()


def _descend(model: Model, batches: list[Batch]) -> None:
    """A step on each batch, by torch's own descent on the LayerNorms."""
    norms = [p for layer in model.modules() if isinstance(layer, nn.LayerNorm) for p in layer.parameters()]
    descent = torch.optim.SGD(norms, lr=0.5, momentum=0.9)
    taught = [model(rows).output.detach().softmax(1) for rows in batches]
    for rows, p in zip(batches, taught, strict=True):
        outputs = torch.stack([model(shown).output for shown in (*map(rows.only, model.schema.names), rows)])
        descent.zero_grad()
        kl = (p * (p.log() - outputs[-1].log_softmax(1))).sum(1).mean()
        (3 * _information(outputs) + 3 * kl).backward()
        descent.step()
