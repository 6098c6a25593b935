"""Two passes of one network, over all steps and over what is left of them; the second learns to say what the first says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Prediction, Schema, Step, Stream, ablation_of,
    claims_of, difference, every_subset, register,
)  # fmt: skip
from kintsugi.core.kind import KINDS
from kintsugi.layers.streams import Block
from kintsugi.layers.temporal import BidirectionalTemporal, mean_over, reach

EPSILON = 1e-6  # beside the number of lost values, in the authors' code


@register(
    Card(
        key="mitr_dnet",
        name="MITR-DNet",
        leaf="missing/distillation",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "two passes of one network, complete and with steps lost at one rate in every modality, both with the task's loss",
            "gated dilated causal convolutions whose blocks both directions of time share; the levels are side by side",
            "modalities are pulled to the joint representation of either pass, and to what they are in the complete one",
            "attraction of the passes with a stopped gradient; reconstruction at lost steps alone",
            "the first text enters fusion as an embedding added to the other modalities, which attend to each other",
            "the complete pass teaches and is not taught, as the paper's figure has it; the released code leaves it attached "
            "(detach_teacher=False), which draws complete representations together until they say little",
        ),
        simplified=(
            "encoders by kind stand for BERT and raw frames; a step is one token of theirs, and a vector a sequence of one step",
            "width 32 for 100; LayerNorm for batch norm everywhere; attention of one head, for 10, where there is a single key",
            "losses are drawn anew in each step, once in the release; the target of reconstruction is the complete pass's token; "
            "behind the last step seen the network reads nothing, since in use nobody knows the length, and rebuilds a mean",
            "kinds without steps are lost whole, with all tokens to rebuild; where an encoder does not say how many steps make a "
            "token, each token stands for an equal share of them, whatever it reads",
            "time is turned back in both places; the release turns channels; means leave padding out",
            "any number of modalities, of which the first is added where none is text; where one is left, it attends to that",
            "a row that would lose everything keeps one step, or modality without steps, at random; a modality that a row lacks "
            "has no part in the terms of that row",
            "the task's loss for the mean absolute error; one learning rate",
        ),
        claims=(
            "each modality is taught by the joint and by itself of the complete pass, and by the joint of its own pass",
            "lost steps are rebuilt as the complete pass has them, and no others count",
            "what one pass predicts is drawn to what the other is, which is not drawn",
        ),
        premise="modalities repeat each other in unequal strength, training rows are complete, and in use steps of all are lost",
        worlds=("redundant",),
        confidence="high",
        defaults_from="the released code: rate 0.4, weights 1, 1 and 0.3, dropout 0.01 and 0.5",
        cost="medium",
        version=3,
    )
)
class MITRDNet(Model):
    """Modality-invariant bidirectional temporal representations with distillation between two passes.

    Args:
        dim: width of tokens and representations, a multiple of 4 and at least 16.
        rate: of the steps of each modality that the incomplete pass loses.
        attract_weight, rebuild_weight, teach_weight: of the attraction, the reconstruction and the nine terms of distillation.
        detach_teacher: the complete pass teaches and is not taught by the nine terms; False: as in the released code.
        dropout: before the head; that of the convolutions is 0.01.

    Raises:
        ConfigError: another width, a rate outside [0, 1], a weight below 0, or a dropout outside [0, 1).
    """

    training_only = ("project", "predictor", "rebuild")

    def __init__(
        self, schema: Schema, dim: int = 32, rate: float = 0.4, attract_weight: float = 1.0, rebuild_weight: float = 1.0,
        teach_weight: float = 0.3, detach_teacher: bool = True, dropout: float = 0.5,
    ) -> None:  # fmt: skip
        if not 0 <= rate <= 1 or min(attract_weight, rebuild_weight, teach_weight) < 0:
            raise ConfigError("mitr_dnet: rate must be within 0 and 1, and no weight below 0")
        if not 0 <= dropout < 1:
            raise ConfigError(f"mitr_dnet: dropout must be at least 0 and below 1, not {dropout}")
        super().__init__(schema, dim)
        self.rate, self.teach_weight, self.detach_teacher = rate, teach_weight, detach_teacher
        self.attract_weight, self.rebuild_weight = attract_weight, rebuild_weight
        count, kinds = len(schema), [m.kind for m in schema.modalities]
        self.added = kinds.index("text") if "text" in kinds else 0
        self.temporal = nn.ModuleList(BidirectionalTemporal(dim, dropout=0.01) for _ in range(count))
        self.branches = nn.ModuleList(Branch(dim, max(1, count - 2)) for _ in range(count - 1))
        self.trunk = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout))
        self.project = nn.ModuleList(_projector(dim) for _ in range(count))
        self.predictor = nn.ModuleList(_predictor(dim) for _ in range(count))
        self.rebuild = nn.ModuleList(nn.Linear(dim, dim) for _ in range(count))
        nn.ModuleList([self.project, self.predictor]).requires_grad_(attract_weight > 0)
        self.rebuild.requires_grad_(rebuild_weight > 0)

    def fuse(self, features: Features) -> Fused:
        streams = list(features.streams.values())
        steps = [reach(s.mask) for s in streams]
        sequences = [
            temporal(x.tokens, there) for temporal, x, there in zip(self.temporal, streams, steps, strict=True)
        ]
        alone = torch.stack([mean_over(z, there) for z, there in zip(sequences, steps, strict=True)], 1)
        added = alone[:, self.added]
        own = [x for i, x in enumerate(alone.unbind(1)) if i != self.added]
        branches: list[Any] = list(self.branches)
        read = torch.stack([branch.read(x, added) for branch, x in zip(branches, own, strict=True)], 1)
        joint = torch.zeros_like(added)
        for i, branch in enumerate(branches):
            others = [x for j, x in enumerate(read.unbind(1)) if j != i] or [added]
            joint = joint + branch(read[:, i], torch.stack(others, 1))
        extras = {"alone": alone, "joint": joint, "sequences": sequences}
        return Fused.vector(self.trunk(joint), extras=extras)

    def head(self, fused: Fused, features: Features) -> Prediction:
        return replace(super().head(fused, features), extras=fused.extras)

    def lossy(self, batch: Batch, whole: Features) -> tuple[Batch, dict[str, Tensor]]:
        """The batch with steps lost at the rate, each alone, and which tokens of the complete pass these are: bool ``[B, T]``.

        A step is a token of the complete pass ``whole``, for which several of the input may stand; a modality without steps is
        lost with all its tokens. A row that would lose everything keeps one step, or such a modality, at random.
        """
        present, mask, drawn = batch.present.clone(), dict(batch.mask), dict[str, Tensor]()
        seen, places = dict[str, Tensor](), dict[str, Tensor]()
        for m in self.schema.modalities:
            here, tokens = batch.present[:, batch.names.index(m.name), None], whole.streams[m.name].mask
            there = here
            if KINDS[m.kind].stepped:
                steps = batch.inputs[m.name].shape[:2]
                seen[m.name] = here & batch.mask.get(m.name, torch.ones(steps, dtype=torch.bool, device=batch.device))
                places[m.name] = _places(self.encoders[m.name], steps[1], tokens.shape[1]).to(batch.device)
                held = torch.zeros(tokens.shape, dtype=torch.int64, device=batch.device)
                there = (held.index_add(1, places[m.name], seen[m.name].long()) > 0) & tokens
            drawn[m.name] = torch.rand(there.shape, device=batch.device).masked_fill(~there, -1)
        least = torch.cat(list(drawn.values()), 1).amax(1, keepdim=True).clamp(max=self.rate)
        lost = {}
        for name, draw in drawn.items():
            keep, column = draw >= least, batch.names.index(name)
            lost[name] = whole.streams[name].mask & (draw >= 0) & ~keep
            if name in seen:
                mask[name] = seen[name] & keep[:, places[name]]
                present[:, column] = mask[name].any(1)
            else:
                present[:, column] &= keep[:, 0]
                if name in mask:
                    mask[name] = mask[name] & present[:, column, None]
        return replace(batch, present=present, mask=mask), lost

    def step(self, batch: Batch) -> Step:
        whole = self.encode(batch)
        less, lost = self.lossy(batch, whole)
        # one call for both, since rows are apart
        both, rows = self.predict(_stacked(self.encode(less), whole)), len(batch)
        incomplete, here = both.map(lambda x: x[:rows]), whole.present
        (alone, their), (joint, their_joint) = (both.extras[name].split(rows) for name in ("alone", "joint"))
        losses = {
            "task": self.task.loss(incomplete.output, batch),
            "task/complete": self.task.loss(both.output[rows:], batch),
        }
        if self.attract_weight:
            losses["attraction"] = self.attract_weight * self.attraction(alone, their, here)
        if self.rebuild_weight:
            losses["reconstruction"] = self.rebuild_weight * self.reconstruction(both.extras["sequences"], lost, whole)
        if self.teach_weight:
            if self.detach_teacher:
                their, their_joint = their.detach(), their_joint.detach()
            losses["distillation"] = self.teach_weight * distillation(alone, joint, their, their_joint, here)
        return Step(losses, incomplete)

    def attraction(self, ours: Tensor, theirs: Tensor, here: Tensor) -> Tensor:
        """Of what is said of modalities ``[B, M, D]`` in both passes; summed over modalities."""
        total = ours.new_zeros(())
        for i, (project, predictor) in enumerate(zip(self.project, self.predictor, strict=True)):
            z, taught = project(ours[:, i]), project(theirs[:, i])
            total = total + attraction(predictor(z), taught, predictor(taught), z, here[:, i])
        return total

    def reconstruction(self, sequences: list[Tensor], lost: dict[str, Tensor], whole: Features) -> Tensor:
        """Of the tokens of the complete pass that were to be lost (bool ``[B, T]`` each); the encoder may still say something."""
        total = sequences[0].new_zeros(())
        for rebuild, z, (name, stream) in zip(self.rebuild, sequences, whole.streams.items(), strict=True):
            total = total + reconstruction(rebuild(z[: len(whole.present)]), stream.tokens.detach(), lost[name])
        return total


class Branch(nn.Module):
    """One modality in the fusion, all over sequences of length 1: ``read`` with the added embedding, then with the others.

    ``A = Enc(r + t) + r``; then ``MLP(A) + A + adapter(A) + adapter(attention from A to the others)``, where what leaves an
    adapter starts at zero. A single other one is heard whole, so that query and key would have no part in it.
    """

    def __init__(self, dim: int, others: int) -> None:
        super().__init__()
        self.encoder, self.perceptron = Block(dim), _bottleneck(dim, dim // 2)
        self.value = nn.Linear(dim, dim)
        if others > 1:
            self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.adapters = nn.ModuleList(_bottleneck(dim, dim // 2) for _ in range(2))
        for adapter in self.adapters:
            nn.init.zeros_(adapter[2].weight)  # type: ignore[index]
            nn.init.zeros_(adapter[2].bias)  # type: ignore[index]

    def read(self, own: Tensor, added: Tensor) -> Tensor:
        """``[B, D]`` each -> A ``[B, D]``."""
        there = torch.ones(len(own), 1, dtype=torch.bool, device=own.device)
        out: Tensor = self.encoder((own + added)[:, None], there)[:, 0] + own
        return out

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """A ``[B, D]``, that of others ``[B, N, D]`` -> ``[B, D]``."""
        heard = self.value(others)
        if others.shape[1] > 1:
            scores = (self.key(others) @ self.query(x)[..., None]) * x.shape[1] ** -0.5
            heard = scores.softmax(1) * heard
        own, across = self.adapters
        out: Tensor = self.perceptron(x) + x + own(x) + across(heard.sum(1))
        return out


def _places(encoder: nn.Module, steps: int, tokens: int) -> Tensor:
    """The token that each of so many steps belongs to: by the window of an encoder that has one, else in equal shares."""
    window = getattr(encoder, "window", None)
    step = torch.arange(steps)
    return (step // window).clamp(max=tokens - 1) if isinstance(window, int) else step * tokens // steps


def _stacked(one: Features, other: Features) -> Features:
    """The rows of the one, then those of the other."""
    streams = {
        name: Stream(torch.cat([a.tokens, b.tokens]), torch.cat([a.mask, b.mask]))
        for (name, a), b in zip(one.streams.items(), other.streams.values(), strict=True)
    }
    return Features(streams, torch.cat([one.present, other.present]))


def _projector(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim, elementwise_affine=False))


def _predictor(dim: int) -> nn.Sequential:
    hidden = dim // 2
    return nn.Sequential(nn.Linear(dim, hidden, bias=False), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, dim))


def _bottleneck(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))


def attraction(p: Tensor, taught: Tensor, q: Tensor, z: Tensor, rows: Tensor) -> Tensor:
    """``-(cos(p, taught) + cos(q, z)) / 2`` in the mean over rows (bool ``[B]``); taught and z are targets, without gradient.

    p and z of the one pass, q and taught of the other, all ``[B, D]``. SimSiam (Chen and He, CVPR 2021), between two passes.
    """
    one = functional.cosine_similarity(p, taught.detach(), dim=1)
    other = functional.cosine_similarity(q, z.detach(), dim=1)
    return -0.5 * torch.where(rows, one + other, 0).sum() / rows.sum().clamp(min=1)


def reconstruction(rebuilt: Tensor, target: Tensor, lost: Tensor) -> Tensor:
    """SmoothL1 (beta 1) of ``[B, T, D]``, the mean over all values of lost steps (bool ``[B, T]``) and 1e-6."""
    each = functional.smooth_l1_loss(rebuilt, target, reduction="none")
    return torch.where(lost[..., None], each, 0).sum() / (lost.sum().to(each.dtype) * target.shape[2] + EPSILON)


def distillation(ours: Tensor, joint: Tensor, theirs: Tensor, their_joint: Tensor, here: Tensor) -> Tensor:
    """Three terms a modality, summed: modalities ``[B, M, D]`` and joint ``[B, D]`` of the incomplete and the complete pass.

    ``mean |r - R'| + mean (r - r')^2 + mean (r - R)^2``, where r and R are ours; means over rows that have the modality (bool
    ``[B, M]``) and over channels.
    """
    each = (ours - their_joint[:, None]).abs() + (ours - theirs).square() + (ours - joint[:, None]).square()
    return (torch.where(here[..., None], each, 0).mean(2).sum(0) / here.sum(0).clamp(min=1)).sum()


ablation_of(MITRDNet, "distillation", teach_weight=0.0)
ablation_of(MITRDNet, "reconstruction", rebuild_weight=0.0)
ablation_of(MITRDNet, "attraction", attract_weight=0.0)
ablation_of(MITRDNet, teach_weight=0.0, rebuild_weight=0.0, attract_weight=0.0)


@claims_of(MITRDNet)
def claims(fixture: Fixture) -> Claims:
    """Untrained, on series of which rows lack modalities, with gradients; the losses as loops over modalities and rows."""
    taught, rebuilt, drawn = MITRDNet.card.claims
    series = fixture.world(kind="series")
    model: Any = series.pipeline().model.double().eval()
    batch = every_subset(series.batch(21).map(lambda x: x.double() if x.is_floating_point() else x))
    whole = model.encode(batch)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(fixture.seed)
        for adapter in (adapter for branch in model.branches for adapter in branch.adapters):
            nn.init.uniform_(adapter[2].weight, -0.1, 0.1)  # which would say nothing yet
        torch.random.default_generator.manual_seed(fixture.seed)
        less, lost = model.lossy(batch, whole)
        steps = []
        usual = model.detach_teacher
        for model.detach_teacher in (usual, False):
            torch.random.default_generator.manual_seed(fixture.seed)
            steps.append(model.step(batch).losses)
    losses, none = steps[0], 0 * steps[0]["task"]
    part = model.encode(less)
    ours, theirs = (model.predict(features) for features in (part, whole))
    fixed = {name: theirs.extras[name].detach() for name in ("alone", "joint")}
    nine, still = (_nine(ours.extras, other, batch.present) for other in (theirs.extras, fixed))
    yield Claim(taught, difference(losses.get("distillation", none), 0.3 * still, model), at_most=1e-8)
    attached = steps[1].get("distillation", 0.3 * nine)
    yield Claim("a teacher that is not detached is taught", difference(attached, 0.3 * nine, model), at_most=1e-8)
    expected = _rebuilt(model, ours.extras["sequences"], whole, lost)
    yield Claim(rebuilt, difference(losses.get("reconstruction", none), expected, model), at_most=1e-8)
    pull = _pull(model, ours.extras["alone"], theirs.extras["alone"], batch.present)
    yield Claim(drawn, difference(losses.get("attraction", none), pull, model), at_most=1e-8)
    for name, loss, answer in (("the incomplete", "task", ours), ("the complete", "task/complete", theirs)):
        output = _answer(model, answer.extras["alone"])
        gap = max(
            difference(answer.output, output, model), difference(losses[loss], model.task.loss(output, batch), model)
        )
        yield Claim(f"{name} pass answers from the joint representation, and has the task's loss", gap, at_most=1e-8)
    back = sum(int((part.streams[n].mask & ~whole.streams[n].mask).sum()) for n in batch.names)
    yield Claim("nothing comes back that was not there", float(back), at_most=0)
    yield from _lost(series, fixture.world(rows=3000))


def _nine(ours: dict[str, Tensor], theirs: dict[str, Tensor], present: Tensor) -> Tensor:
    total = torch.zeros(())
    for i, here in enumerate(present.unbind(1)):
        r, other, joint, their = (
            x[here] for x in (ours["alone"][:, i], theirs["alone"][:, i], ours["joint"], theirs["joint"])
        )
        total = total + (r - their).abs().mean() + functional.mse_loss(r, other) + functional.mse_loss(r, joint)
    return total


def _pull(model: Any, ours: Tensor, theirs: Tensor, present: Tensor) -> Tensor:
    total = torch.zeros(())
    for i, here in enumerate(present.unbind(1)):
        z, other = model.project[i](ours[here, i]), model.project[i](theirs[here, i])
        for p, target in ((model.predictor[i](z), other.detach()), (model.predictor[i](other), z.detach())):
            total = total - (functional.normalize(p) * functional.normalize(target)).sum(1).mean() / 2
    return total


def _rebuilt(model: Any, sequences: list[Tensor], whole: Features, lost: dict[str, Tensor]) -> Tensor:
    total = torch.zeros(())
    for i, (name, had) in enumerate(whole.streams.items()):
        rows, steps = lost[name].nonzero(as_tuple=True)
        error = (model.rebuild[i](sequences[i])[rows, steps] - had.tokens[rows, steps].detach()).abs()
        total = total + torch.where(error < 1, error.square() / 2, error - 0.5).sum() / (error.numel() + 1e-6)
    return total


def _answer(model: Any, alone: Tensor) -> Tensor:
    """Of three modalities, the first of which is added: the fusion, spelled out."""
    added, *own = alone.unbind(1)
    there = torch.ones(len(alone), 1, dtype=torch.bool)
    read = [b.encoder((x + added)[:, None], there)[:, 0] + x for b, x in zip(model.branches, own, strict=True)]
    joint = torch.zeros(())
    for branch, x, other in zip(model.branches, read, read[::-1], strict=True):
        within, across = branch.adapters
        joint = joint + branch.perceptron(x) + x + within(x) + across(branch.value(other))
    output: Tensor = model.task_head(Stream.vector(model.trunk(joint)))
    return output


def _lost(series: Fixture, vectors: Fixture) -> Claims:
    """How much the incomplete pass loses."""
    for world, rows, name in ((series, 80, "steps"), (vectors, 400, "modalities without steps")):
        model: Any = world.pipeline().model.eval()
        batch = world.batch(rows)
        whole = model.encode(batch)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(world.seed)
            less, lost = model.lossy(batch, whole)
        part = model.encode(less)
        had, left, meant = (
            torch.cat(x, 1)
            for x in (*([s.mask for s in f.streams.values()] for f in (whole, part)), [lost[n] for n in batch.names])
        )
        share = 1 - float(left.sum() / had.sum())
        expected = 0.4 if name == "steps" else 0.4 - 0.4**3 / 3  # a row that lost all three has one of them back
        yield Claim(f"{name} are lost at the rate", abs(share - expected), at_most=0.06)
        yield Claim(
            f"what is to be rebuilt is what was lost, of {name}", float((meant != had & ~left).sum()), at_most=0
        )
        bare = (~less.present.any(1)).sum() + sum(
            (less.mask[n].any(1) != less.present[:, i]).sum() for i, n in enumerate(less.mask)
        )
        yield Claim(f"no row is left with nothing, of {name}", float(bare), at_most=0)
