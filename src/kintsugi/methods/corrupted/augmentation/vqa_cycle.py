"""A question is made from the image and the answer, asked again, and held to the true answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Prediction, Schema, Stage, Step, Stream,
    ablation_of, claims_of, difference, every_subset, register,
)  # fmt: skip
from kintsugi.layers.mlp import mlp
from kintsugi.losses.distance import mse


@register(
    Card(
        key="vqa_cycle",
        name="Cycle-consistent VQA",
        leaf="corrupted/augmentation",
        imperfection=("corrupted at test", "missing at test", "missing in training"),
        faithful=(
            "a generator makes a question from the attended image and the predicted answer's logits, both cut from the model",
            "the made question, cut from the generator, is answered again and held to the true answer",
            "only made questions that pass a gate count, by their answer or by their likeness, and only after a late start",
            "in use the model answers the given question alone",
        ),
        simplified=(
            "a question is its embedding, not words: the generator is a perceptron that learns by squared error, where the "
            "paper's is an LSTM that learns by cross-entropy and is decoded greedily; its cosine is that of these embeddings, "
            "and the cycle never trains the question's encoder, which in the paper it does",
            "any modality may be the question, and all others are the image; encoders by kind of data",
            "the task's own loss is that of answers, which for labels is the paper's but for the factor of their number",
            "the generator reads outputs without a ReLU before its first layer, since those of other tasks are negative too, and "
            "has no BatchNorm",
            "the late start is a stage, after which the optimiser starts anew",
            "one step of the sum of all losses; the released loop applies the gradients of the first ones twice",
            "a row without the question, or without an image, has a learned stand-in and no cycle",
            "one learning rate for model and generator",
        ),
        claims=(
            "the question that is asked again is the one that was made, and its answer is held to the true one",
            "a made question that is answered wrongly does not count",
        ),
        premise="the question comes in other words in use, its meaning unchanged, and image and answer tell much of it",
        worlds=("shifted_test",),
        version=2,
        confidence="high",
        defaults_from="the released configuration (facebookresearch/mmf, project/cycle-consistency) for weights, start and the "
        "gate by answers; the threshold is that of a fork of it",
        cost="medium",
    )
)
class VQACycle(Model):
    """A question answerer that reads images by the question, and a generator of questions that trains it.

    Args:
        dim: width of embeddings. hidden: of the generator's hidden layers.
        question: name of the modality that is the question; None: the only text, or the last modality where there is no or more
            than one text.
        lambda_g, lambda_c: weights of the generator's and of the cycle's loss.
        gate: which made questions count: ``answer``, those whose answer is the true class; ``cosine``, those that are like the
            one asked; ``none``, all. None: by answer where a row has one class, else by cosine.
        threshold: cosine above which a made question counts.
        after: share of training after which the cycle begins.

    Raises:
        ConfigError: no such gate, or one that the task has no classes for, a weight below 0, no hidden unit, or ``after``
            outside [0, 1). UnknownName: no such modality.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 32,
        hidden: int = 128,
        question: str | None = None,
        lambda_g: float = 0.5,
        lambda_c: float = 0.5,
        gate: str | None = None,
        threshold: float = 0.9,
        after: float = 0.06,
    ) -> None:
        super().__init__(schema, dim)
        gate = gate or ("answer" if self.task.exclusive else "cosine")
        if gate not in ("cosine", "answer", "none"):
            raise ConfigError(f"unknown gate {gate!r}; known: cosine, answer, none")
        if gate == "answer" and not self.task.exclusive:
            raise ConfigError(f"gate='answer' compares classes, and {self.task.key} has none; take cosine or none")
        if min(lambda_g, lambda_c) < 0 or hidden < 1:
            raise ConfigError(
                f"vqa_cycle: lambda_g={lambda_g} and lambda_c={lambda_c} must be 0 or more, and hidden={hidden} 1 or more"
            )
        if not 0 <= after < 1:
            raise ConfigError(f"after is a share of the training, from 0 to below 1, not {after}")
        texts = [m.name for m in schema.modalities if m.kind == "text"]
        by_default = texts[0] if len(texts) == 1 else schema.names[-1]
        self.question = by_default if question is None else schema.names[schema.column(question)]
        self.lambda_g, self.lambda_c, self.threshold = lambda_g, lambda_c, threshold
        self.after, self.gate = after, gate
        self.see, self.read = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.attend = nn.Linear(dim, 1, bias=False)
        self.join_image, self.join_question = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.no_image, self.no_question = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        outputs = int(torch.Size(self.task.output_shape).numel())
        self.of_image = nn.Linear(dim, hidden)
        self.of_answer = mlp([outputs, hidden, hidden], last=True)
        self.make = mlp([hidden, hidden, dim])

    training_only = ("of_image", "of_answer", "make")
    rare = ("no_image", "no_question")
    probes: ClassVar[dict[str, tuple[Any, ...]]] = {"threshold": (-1.0,)}

    def stages(self) -> list[Stage]:
        late = Stage("cycle", 1 - self.after)
        return [Stage("answer", self.after), late] if self.after else [late]

    # the answerer -------------------------------------------------------------------------------------------------------
    def parts(self, features: Features) -> tuple[Tensor, Tensor]:
        """The question's embedding ``[B, D]``, zero where there is none, and bool ``[B]``: rows with question and image."""
        column = self.schema.column(self.question)
        here = features.present[:, column]
        others = features.present & (torch.arange(len(self.schema), device=here.device) != column)
        return features.streams[self.question].pooled(), here & others.any(1)

    def fuse(self, features: Features) -> Fused:
        """Images are read by a softmax over their tokens that depends on the question; both are joined by a product."""
        asked, _ = self.parts(features)
        here = features.present[:, self.schema.column(self.question), None]
        question = torch.where(here, asked, self.no_question.to(asked.dtype))
        images = [stream for name, stream in features.streams.items() if name != self.question]
        tokens, mask = torch.cat([s.tokens for s in images], 1), torch.cat([s.mask for s in images], 1)
        scores = self.attend(F.relu(self.see(tokens)) * F.relu(self.read(question))[:, None])[..., 0]
        some = mask.any(1, keepdim=True)
        shares = scores.masked_fill(~mask & some, -torch.inf).softmax(1)
        seen = (shares[..., None] * tokens).sum(1)
        image = torch.where(some, seen, self.no_image.to(seen.dtype))
        joint = F.relu(self.join_image(image)) * F.relu(self.join_question(question))
        return Fused.vector(joint, extras={"image": image})

    def head(self, fused: Fused, features: Features) -> Prediction:
        return Prediction(self.task_head(fused), features.present, fused.pooled(), extras=fused.extras)

    # the cycle ----------------------------------------------------------------------------------------------------------
    def generated(self, image: Tensor, answer: Tensor) -> Tensor:
        """A question ``[B, D]`` from the attended image ``[B, D]`` and the answer ``[B, ...]``, neither of which it moves."""
        written: Tensor = self.make(F.relu(self.of_image(image.detach()) + self.of_answer(answer.detach().flatten(1))))
        return written

    def asked_again(self, written: Tensor, asked: Tensor) -> Tensor:
        """The question ``[B, D]`` of the second round."""
        return written

    def passed(self, written: Tensor, asked: Tensor, output: Tensor, batch: Batch) -> Tensor:
        """Bool ``[B]``: made questions that count."""
        if self.gate == "cosine":
            return F.cosine_similarity(written, asked) > self.threshold
        if self.gate == "answer":
            return output.argmax(1) == self.task.target(batch)
        return torch.ones(len(written), dtype=torch.bool, device=written.device)

    def step(self, batch: Batch) -> Step:
        features = self.encode(batch)
        prediction = self.predict(features)
        question, rows = self.parts(features)
        losses = {"task": self.task.loss(prediction.output, batch)}
        written = self.generated(prediction.extras["image"], prediction.output)
        asked = question.detach()
        losses["question"] = self.lambda_g * mse(written, asked, rows)
        if self.clock.stage == "cycle":
            losses |= self.cycle(features, written.detach(), asked, rows, batch)
        return Step(losses, prediction)

    def cycle(
        self, features: Features, written: Tensor, asked: Tensor, rows: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """The loss of the answers to the questions that are asked again; none where nothing passes."""
        question = torch.where(rows[:, None], self.asked_again(written, asked), 0)
        again = self.predict(features.replace({self.question: Stream(question[:, None], rows[:, None])})).output
        counts = rows & self.passed(written, asked, again, batch)
        if batch.target_present is not None:
            counts = counts & batch.target_present
        return {"cycle": self.lambda_c * self.task.loss(again, batch, counts)} if bool(counts.any()) else {}


def consensus_score(scores: Tensor | Sequence[float], k: int) -> float:
    """Share of the subsets of k rephrasings of one question, all of which are answered with a score above 0.

    CS(k) of Shah et al., CVPR 2019, section 4.2; average it over groups of rephrasings. CS(1) is the share of questions with a
    score above 0, not the mean score, and no CS(k + 1) is above CS(k).

    Args:
        scores: of the answers to the n rephrasings, soft or not, ``[n]``.
        k: from 1 to n.

    Raises:
        ConfigError: another k.
    """
    right = [float(score) > 0 for score in scores]
    if not 1 <= k <= len(right):
        raise ConfigError(f"subsets of {len(right)} rephrasings have 1 to {len(right)} members, not {k}")
    subsets = [all(chosen) for chosen in combinations(right, k)]
    return sum(subsets) / len(subsets)


@ablation_of(VQACycle, "made question")
class Parrot(VQACycle):
    """Off: the question that was asked is asked again; the generator learns and decides which rows count, as ever."""

    def asked_again(self, written: Tensor, asked: Tensor) -> Tensor:
        return asked


ablation_of(VQACycle, "gate", gate="none")


@ablation_of(VQACycle)
class Ungated(Parrot):
    """Off: both."""

    def passed(self, written: Tensor, asked: Tensor, output: Tensor, batch: Batch) -> Tensor:
        return torch.ones(len(written), dtype=torch.bool, device=written.device)


@claims_of(VQACycle)
def claims(fixture: Fixture) -> Claims:
    """Untrained, against the paper's formulas written row by row, with gradients; then what passes the gate after training."""
    batch = every_subset(fixture.batch(28).map(lambda x: x.double() if x.is_floating_point() else x))
    both = batch.present[:, 2] & batch.present[:, :2].any(1)
    y: Any = batch.target
    model: Any = fixture.pipeline().model.double()
    by_default = model.gate

    def losses(gate: str = "none", threshold: float = 0.0, stage: str = "cycle", **also: Any) -> dict[str, Tensor]:
        model.clock.stage, model.gate, model.threshold = stage, gate, threshold
        found: dict[str, Tensor] = model.step(replace(batch, **also)).losses
        return found

    pooled = model.encode(batch).pooled()
    answers, images = _answers(model, pooled, batch.present)
    gap = difference(model(batch).output, answers, model)
    yield Claim("the image is read by the question, and joined with it", gap, at_most=1e-9)
    made = model.make((model.of_image(images.detach()) + model.of_answer(answers.detach())).relu())
    told = 0.5 * (made - pooled[:, 2].detach())[both].square().mean()
    gap = difference(losses()["question"], told, model)
    yield Claim("the generator learns the question asked, and moves nothing else", gap, at_most=1e-9)

    asked = torch.stack([*pooled.unbind(1)[:2], made.detach()], 1)
    again, _ = _answers(model, asked, batch.present)
    surprise = -again.log_softmax(1)[torch.arange(len(y)), y]
    likeness = torch.cosine_similarity(made, pooled[:, 2]).detach()
    middle = float(likeness[both].sort().values[int(both.sum()) // 2 :][:2].mean())  # between two rows
    right, near, known = again.argmax(1) == y, likeness > middle, torch.arange(len(y)) % 3 > 0
    for name, found, held in (
        (VQACycle.card.claims[0], losses(), both),
        (VQACycle.card.claims[1], losses(by_default), both & right),
        ("by cosine, made questions count that are like the one asked", losses("cosine", middle), both & near),
        ("a made question without a true answer does not count", losses(target_present=known), both & known),
    ):
        expected = 0.5 * surprise[held].sum() / held.sum().clamp(min=1)
        yield Claim(name, difference(found.get("cycle", 0 * expected), expected, model), at_most=1e-9)
    stages = [stage.name for stage in model.stages()]
    other = {"task", "question", "cycle"} ^ set(losses()) | {"task", "question"} ^ set(losses(stage=stages[0]))
    yield Claim("the cycle begins in the second stage", len(other), at_most=0)
    yield Claim("where nothing passes there is no loss of it", float("cycle" in losses("cosine", 1.5)), at_most=0)

    published = [0.75, 0.5, 0.25, 0.0]
    gap = max(abs(consensus_score([1.0, 0.6, 0.0, 0.3], k) - share) for k, share in enumerate(published, 1))
    yield Claim("the consensus score is the share of subsets that are right throughout", gap, at_most=1e-9)
    trained: Any = fixture.trained().model.eval()
    with torch.no_grad():
        features = trained.encode(fixture.batch(80))
        seen, asked = trained.predict(features), features.pooled()[:, 2]
        made = trained.generated(seen.extras["image"], seen.output)
    error = float((made - asked).square().mean() / (asked - asked.mean(0)).square().mean())
    yield Claim("made questions are nearer to those asked than the mean question is", error, at_most=0.8)


def _answers(model: Any, pooled: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and attended images of three vectors, the last of which is the question: ``[B, 3, D]``, one row at a time."""
    answers, images = [], []
    for row, here in zip(pooled, present, strict=True):
        question = row[2] if here[2] else model.no_question
        tokens = row[:2][here[:2]]
        scores = (model.see(tokens).relu() * model.read(question).relu()) @ model.attend.weight[0]
        image = scores.softmax(0) @ tokens if len(tokens) else model.no_image
        images.append(image)
        answers.append(model.task_head.linear(model.join_image(image).relu() * model.join_question(question).relu()))
    return torch.stack(answers), torch.stack(images)
