"""Each modality in two parts, one in a space that all share and one in its own; six tokens, one transformer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, Features, Fixture, Fused, Model, Prediction, Schema, Step, ablation_of,
    claims_of, difference, every_subset, register,
)  # fmt: skip
from kintsugi.layers.disentangle import SharedSpecific
from kintsugi.layers.streams import Attention
from kintsugi.losses.distance import cmd, mse
from kintsugi.losses.orthogonality import soft_orthogonality


@register(
    Card(
        key="misa",
        name="MISA",
        leaf="general",
        imperfection=("missing at test", "missing in training"),
        faithful=(
            "a shared encoder of one set of weights and a private one for each modality, both behind a sigmoid",
            "central moments of the shared codes of a batch are matched, for every pair of modalities",
            "private codes are kept orthogonal to the shared ones and to each other",
            "the sum of both codes, decoded, gives the vector that they were made from",
            "one post-norm transformer layer over all private, then all shared codes; its outputs side by side feed a head",
        ),
        simplified=(
            "encoders by kind of data stand for the mean of BERT tokens and the states of the LSTMs",
            "a decoder for each modality, as in the authors' code; the paper speaks of a shared one",
            "absent modalities are an addition: their tokens are invisible, their slots zero, and no loss reads them; a pair "
            "of modalities is compared over rows that have both, and means are over pairs with two such rows or more",
            "attention weights are not dropped out; hidden states and feed-forward are, by 0.1",
            "gradients are clipped by their norm, as everywhere in this library; the authors clip their values at 1",
        ),
        claims=(
            "shared codes are compared by the central moments of the rows that have both modalities",
            "private codes are kept apart from the shared ones and from each other",
            "the sum of both codes is decoded to the vector that they were made from",
            "training brings the distributions of the shared codes together",
        ),
        premise="modalities share a part that tells of the target, and each has a part of its own that tells more",
        worlds=("redundant", "complementary"),
        confidence="high",
        defaults_from="the authors' code (declare-lab/MISA): weights 1, 0.3 and 1, five moments, one layer of two heads; 0.3 at "
        "width 128 is 0.02 at 32, since the mean of squares falls with the width squared",
        cost="medium",
    )
)
class MISA(Model):
    """Modality-invariant and -specific representations.

    Args:
        dim: width of both codes.
        heads, layers: of the transformer; its feed-forward is 16 times as wide as a token, as 2048 is to 128.
        moments: of the shared codes that are matched.
        sim_weight, diff_weight, recon_weight: of similarity, of orthogonality and of reconstruction; 0 leaves a loss out.
        dropout: before the head.

    Raises:
        ConfigError: fewer than one moment or layer, or a weight below 0.
    """

    def __init__(
        self, schema: Schema, dim: int = 32, heads: int = 2, layers: int = 1, moments: int = 5, sim_weight: float = 1.0,
        diff_weight: float = 0.02, recon_weight: float = 1.0, dropout: float = 0.5,
    ) -> None:  # fmt: skip
        count = len(schema)
        super().__init__(schema, dim, fused=count * dim)
        if min(moments, layers) < 1 or min(sim_weight, diff_weight, recon_weight) < 0:
            raise ConfigError(
                f"misa: moments={moments} and layers={layers} must be 1 or more, and sim_weight, diff_weight and recon_weight 0 "
                "or more"
            )
        self.moments = moments
        self.sim_weight, self.diff_weight, self.recon_weight = sim_weight, diff_weight, recon_weight
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.LayerNorm(dim)) for _ in range(count)
        )
        self.subspaces = SharedSpecific(lambda: nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid()), count)
        self.decoders = nn.ModuleList(nn.Linear(dim, dim) for _ in range(count))
        self.decoders.requires_grad_(recon_weight > 0)
        self.blocks = nn.ModuleList(PostNorm(dim, heads) for _ in range(layers))
        self.trunk = nn.Sequential(nn.Linear(2 * count * dim, count * dim), nn.Dropout(dropout), nn.ReLU())

    training_only = ("decoders",)

    def fuse(self, features: Features) -> Fused:
        pooled, here = features.pooled(), features.present
        u = torch.stack([project(x) for project, x in zip(self.projections, pooled.unbind(1), strict=True)], 1)
        shared, private = self.subspaces(u)
        tokens, seen = torch.cat([private, shared], 1), torch.cat([here, here], 1)
        for block in self.blocks:
            tokens = block(tokens, seen)
        codes = {"u": u, "shared": shared, "private": private}
        return Fused.vector(self.trunk(torch.where(seen[..., None], tokens, 0).flatten(1)), extras=codes)

    def head(self, fused: Fused, features: Features) -> Prediction:
        return replace(super().head(fused, features), extras=fused.extras)

    def step(self, batch: Batch) -> Step:
        prediction: Prediction = self(batch)
        u, shared, private = (prediction.extras[name].unbind(1) for name in ("u", "shared", "private"))
        here = self.columns(batch).unbind(1)
        both = {(i, j): here[i] & here[j] for i, j in combinations(range(len(here)), 2)}
        losses = {"task": self.task.loss(prediction.output, batch)}
        if self.sim_weight:
            # of one row there is no distribution: moments would compare its two codes
            several = {pair: rows & (rows.sum() > 1) for pair, rows in both.items()}
            gaps = [cmd(shared[i], shared[j], self.moments, rows, rows) for (i, j), rows in several.items()]
            losses["similarity"] = self.sim_weight * mean_of_known(gaps, several.values())
        if self.diff_weight:
            apart = [soft_orthogonality(p, s, rows) for p, s, rows in zip(private, shared, here, strict=True)]
            apart += [soft_orthogonality(private[i], private[j], rows) for (i, j), rows in both.items()]
            losses["difference"] = self.diff_weight * torch.stack(apart).sum()
        if self.recon_weight:
            parts = zip(self.decoders, u, private, shared, here, strict=True)
            # the target is not detached, as in the authors' code
            errors = [mse(decode(p + s), x, rows) for decode, x, p, s, rows in parts]
            losses["reconstruction"] = self.recon_weight * mean_of_known(errors, here)
        return Step(losses, prediction)


def mean_of_known(losses: Iterable[Tensor], rows: Iterable[Tensor]) -> Tensor:
    """Mean of those losses, each 0 without rows, that have any (bool ``[B]`` each); 0 where none has, with all their graphs."""
    return torch.stack([*losses]).sum() / torch.stack([r.any() for r in rows]).sum().clamp(min=1)


class PostNorm(nn.Module):
    """``LN(x + attention(x))``, then ``LN(x + mlp(x))``, with ReLU, and dropout of 0.1 (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention, self.drop = Attention(dim, heads), nn.Dropout(0.1)
        self.mlp = nn.Sequential(nn.Linear(dim, 16 * dim), nn.ReLU(), self.drop, nn.Linear(16 * dim, dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x ``[B, T, D]`` finite everywhere, mask bool ``[B, T]`` -> ``[B, T, D]``; what comes out where masked means nothing."""
        x = self.norm1(x + self.drop(self.attention(x, mask)))
        out: Tensor = self.norm2(x + self.drop(self.mlp(x)))
        return out


ablation_of(MISA, sim_weight=0.0, diff_weight=0.0, recon_weight=0.0)
ablation_of(MISA, "similarity", sim_weight=0.0)
ablation_of(MISA, "difference", diff_weight=0.0)
ablation_of(MISA, "reconstruction", recon_weight=0.0)


@claims_of(MISA)
def claims(fixture: Fixture) -> Claims:
    """Untrained, on rows with every subset of the modalities, losses with their gradients; then after a training."""
    similar, apart, decoded, alike = MISA.card.claims
    model: Any = fixture.pipeline().model.double().eval()
    batch = every_subset(fixture.batch(21).map(lambda x: x.double() if x.is_floating_point() else x))
    losses, here = model.step(batch).losses, batch.present
    u, private, shared = _codes(model, batch)
    each, pairs = range(len(u)), list(combinations(range(len(u)), 2))
    rows = {m: here[:, list(m)].all(1) for m in [*pairs, *((m, m) for m in each)]}
    gaps = [_moment_gap(shared[i][rows[i, j]], shared[j][rows[i, j]]) for i, j in pairs]
    common = [_common(private[m][rows[m, m]], shared[m][rows[m, m]]) for m in each]
    common += [_common(private[i][rows[i, j]], private[j][rows[i, j]]) for i, j in pairs]
    errors = [(model.decoders[m](private[m] + shared[m]) - u[m])[rows[m, m]].square().mean() for m in each]
    for name, loss, wanted in (
        (similar, "similarity", torch.stack(gaps).mean()),
        (apart, "difference", 0.02 * torch.stack(common).sum()),
        (decoded, "reconstruction", torch.stack(errors).mean()),
    ):
        yield Claim(name, difference(losses.get(loss, 0 * losses["task"]), wanted, model), at_most=1e-8)
    expected = _answer(model, torch.stack([*private, *shared], 1), here)
    gap = difference(model(batch).output, expected, model)
    yield Claim("the answer is read from all codes of what is present, by torch's own attention", gap, at_most=1e-8)
    same, own = model.subspaces(torch.rand(5, 1, model.dim, dtype=torch.float64).expand(-1, len(u), -1))
    yield Claim(
        "one encoder makes the shared codes of all modalities", difference(same, same[:, [0] * len(u)]), at_most=0
    )
    yield Claim("private encoders differ", min(difference(own[:, i], own[:, j]) for i, j in pairs), at_least=1e-3)
    gaps = []
    for pipeline in (fixture.pipeline(), fixture.trained()):
        _, _, shared = _codes(pipeline.model.eval(), fixture.batch(80))
        gaps.append(torch.stack([_moment_gap(shared[i], shared[j]) for i, j in pairs]).mean())
    yield Claim(alike, float((gaps[1] / gaps[0]).detach()), at_most=0.75)


def _codes(model: Any, batch: Batch) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Vectors, private and shared codes of each modality, ``[B, dim]`` each; those of absent slots mean nothing."""
    inputs = [model.encoders[name](batch.inputs[name]).pooled() for name in batch.names]
    u = [project(x) for project, x in zip(model.projections, inputs, strict=True)]
    private = [torch.sigmoid(encode[0](x)) for encode, x in zip(model.subspaces.specific, u, strict=True)]
    return u, private, [torch.sigmoid(model.subspaces.shared[0](x)) for x in u]


def _moment_gap(x: Tensor, y: Tensor) -> Tensor:
    gaps = [x.mean(0) - y.mean(0)]
    gaps += [((x - x.mean(0)) ** k).mean(0) - ((y - y.mean(0)) ** k).mean(0) for k in (2, 3, 4, 5)]
    return torch.stack([gap.square().sum().sqrt() for gap in gaps]).sum()


def _common(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(0), b - b.mean(0)
    a, b = (x / (x.detach().square().sum(1, keepdim=True).sqrt() + 1e-6) for x in (a, b))
    return torch.einsum("bd,be->de", a, b).square().mean()


def _answer(model: Any, codes: Tensor, here: Tensor) -> Tensor:
    """Row by row with the codes ``[B, 2 M, D]`` that are there."""
    (block,), slots = model.blocks, torch.zeros_like(codes)
    inner, out = block.attention.qkv, block.attention.out
    for row, seen in enumerate(torch.cat([here, here], 1)):
        x = codes[row, seen]
        mixed, _ = nn.functional.multi_head_attention_forward(
            x, x, x, x.shape[1], 2, inner.weight, inner.bias, None, None, False, 0.0, out.weight, out.bias
        )  # fmt: skip
        x = block.norm1(x + mixed)
        x = block.norm2(x + block.mlp[3](torch.relu(block.mlp[0](x))))
        slots = slots.index_put((torch.tensor(row), seen.nonzero()[:, 0]), x)
    answer: Tensor = model.task_head.linear(torch.relu(model.trunk[0](slots.flatten(1))))
    return answer
