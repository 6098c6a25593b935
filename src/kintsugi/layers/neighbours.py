"""Learned likeness to stored rows, and what a row makes of its neighbours.

Formulas of Zhang et al., "M3Care: learning with missing modalities in multimodal healthcare data", KDD 2022, as in the
authors' notebook for ODIR (choczhang/M3Care), unless another source is named.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Features, Stream
from kintsugi.layers.bank import Bank
from kintsugi.layers.graph import (
    GraphConvolution,
    common_modality_mean,
    cross_kernel,
    learned_threshold,
    mixed_kernel,
    normalise_rows,
)
from kintsugi.layers.mlp import mlp

EPS = 1e-5  # beside a variance, that of torch's BatchNorm1d


class ReferenceNorm(nn.Module):
    """``BatchNorm1d`` with the statistics of stored rows in place of the batch's, in training as in use.

    So the answer to a row does not depend on what else is asked, and what a slot holds that is not valid is never read.
    There is no bias: it would cancel in a distance.

    Args:
        dim: width of a row.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, stored: Tensor, valid: Tensor) -> Tensor:
        """x ``[B, D]``, stored ``[N, D]``, valid bool ``[N]`` -> ``[B, D]``; not scaled where fewer than two rows are valid."""
        count = valid.sum().clamp(min=1)
        mean = torch.where(valid[:, None], stored, 0).sum(0) / count
        variance = torch.where(valid[:, None], stored - mean, 0).square().sum(0) / count
        scale = torch.where(valid.sum() > 1, torch.rsqrt(variance + EPS), 1)
        return (x - mean) * scale * self.weight


class DeepKernel(nn.Module):
    """Likeness in one modality: a Gaussian kernel of learned features, mixed with one of the latents themselves.

    Both arguments pass through a :class:`ReferenceNorm`, which modalities may share. The share of the plain kernel is
    ``sigmoid(eps)`` with a learned eps.

    Args:
        dim: width of a latent.
        eps: where it begins: 2 in the notebook for ODIR, -0.3 in that for OV.
        form: ``product`` (ODIR, with a ReLU after the learned map) or ``sum`` (OV, without).

    Raises:
        ConfigError: unknown form.
    """

    def __init__(self, dim: int, eps: float = 2.0, form: str = "product") -> None:
        super().__init__()
        if form not in ("product", "sum"):
            raise ConfigError(f"unknown form {form!r} of a kernel; known: product, sum")
        self.phi = mlp([dim, dim, dim, dim])
        self.eps = nn.Parameter(torch.tensor(float(eps)))
        self.form = form

    def forward(self, norm: ReferenceNorm, query: Tensor, stored: Tensor, present: Tensor, valid: Tensor) -> Tensor:
        """Query ``[B, D]`` and stored ``[N, D]``, valid where bool ``[B]`` and ``[N]`` say so -> ``[B, N]``, 0 elsewhere."""
        plain = self._kernel(norm, query, stored, present, valid)
        learned = self._kernel(norm, self._map(query), self._map(stored), present, valid)
        return mixed_kernel(learned, plain, torch.sigmoid(self.eps), self.form)

    def _map(self, x: Tensor) -> Tensor:
        learned: Tensor = self.phi(x)
        return torch.relu(learned) if self.form == "product" else learned

    @staticmethod
    def _kernel(norm: ReferenceNorm, query: Tensor, stored: Tensor, present: Tensor, valid: Tensor) -> Tensor:
        return cross_kernel(norm(query, stored, valid), norm(stored, stored, valid), present, valid)


class AdaptiveGate(nn.Module):
    """A row's own latent mixed with what its neighbours say: ``z = g h' + (1 - g) h``, one g a row.

    ``g = a / (a + b)`` with ``a = sigmoid(w1 h')`` and ``b = sigmoid(w2 h)``; w1 and w2 have a bias.

    Args:
        dim: width of a latent.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.neighbour = nn.Linear(dim, 1)
        self.own = nn.Linear(dim, 1)

    def forward(self, neighbour: Tensor, own: Tensor) -> Tensor:
        """``[B, D]`` and ``[B, D]`` -> ``[B, D]``."""
        # the quotient as a sigmoid of logarithms: both sigmoids may underflow, and 0 / 0 is NaN
        g = torch.sigmoid(logsigmoid(self.neighbour(neighbour)) - logsigmoid(self.own(own)))
        return g * neighbour + (1 - g) * own


class Senders(NamedTuple):
    """Rows that others may take from: latents ``[N, M, D]``, which are there bool ``[N, M]``, what the first convolution of a
    :class:`NeighbourGraph` made of them ``[N, M, D]``."""

    latent: Tensor
    present: Tensor
    hidden: Tensor


class NeighbourGraph(nn.Module):
    """Latents of M modalities, completed from similar rows: ``[B, M, D] -> [B, M, D]``.

    Two rows are as like as their common modalities are on average (:class:`DeepKernel`), if that is above a learned
    threshold. Over this graph two convolutions a modality bring the neighbours' vector, from rows that have the modality, a
    row itself among them. It stands in where the modality is absent, and is mixed with the own latent where it is present.

    Here the rows of a graph are divided by their sums, so that a vector does not grow with the number of senders.

    Args:
        modalities: M.
        dim: width of a latent.
        eps, form: see :class:`DeepKernel`.
        theta: ``sigmoid(theta)`` is the threshold where it begins: 2 in the notebook for ODIR, 0 in that for OV.
    """

    def __init__(self, modalities: int, dim: int, eps: float = 2.0, theta: float = 0.0, form: str = "product") -> None:
        super().__init__()
        self.kernels = nn.ModuleList(DeepKernel(dim, eps, form) for _ in range(modalities))
        self.norm = ReferenceNorm(dim)
        self.theta = nn.Parameter(torch.tensor(float(theta)))
        self.first = nn.ModuleList(GraphConvolution(dim, dim) for _ in range(modalities))
        self.second = nn.ModuleList(GraphConvolution(dim, dim) for _ in range(modalities))
        self.gates = nn.ModuleList(AdaptiveGate(dim) for _ in range(modalities))

    def likeness(self, latent: Tensor, present: Tensor, stored: Tensor, known: Tensor) -> Tensor:
        """Latents ``[B, M, D]`` and ``[N, M, D]``, there where bool ``[B, M]`` and ``[N, M]`` say so -> ``[B, N]``.

        0 where it is not above the threshold, and where two rows share no modality.
        """
        each = [
            kernel(self.norm, latent[:, m], stored[:, m], present[:, m], known[:, m])
            for m, kernel in enumerate(self.kernels)
        ]
        return learned_threshold(common_modality_mean(torch.stack(each), present, known), self.theta)

    def mapped(self, latent: Tensor, present: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each modality the latents that are there, as its kernel maps them and as they are: ``[B_m, D]`` each.

        Of latents ``[B, M, D]``, there where bool ``[B, M]`` says so: what a penalty on the learned maps compares.
        """
        rows = [latent[present[:, m], m] for m in range(len(self.kernels))]
        return [(kernel.phi(x), x) for kernel, x in zip(self.kernels, rows, strict=True)]  # type: ignore[operator]

    def adjacency(
        self,
        latent: Tensor,
        present: Tensor,
        stored: Tensor,
        known: Tensor,
        others: Tensor,
        share: Tensor | float = 1.0,
    ) -> Tensor:
        """What each row takes from the senders, and from itself: ``[M, B, N + B]``, rows that sum to 1, or to 0.

        Args:
            latent, present: of the rows, ``[B, M, D]`` and bool ``[B, M]``.
            stored, known: of the senders, ``[N, M, D]`` and bool ``[N, M]``.
            others: bool ``[B, N]``, the senders that are other rows than the one that takes.
            share: how many rows a sender counts for, where the row itself counts for one.
        """
        taken = torch.where(others, self.likeness(latent, present, stored, known), 0) * share
        itself = learned_threshold(latent.new_ones(len(latent)), self.theta).diag()
        graph = torch.cat([taken, itself], 1)
        senders = torch.cat([known, present])
        each = [normalise_rows(torch.where(has, graph, 0)) for has in senders.unbind(1)]
        return torch.stack(each)

    def senders(self, latent: Tensor, present: Tensor, share: Tensor | float = 1.0, size: int = 256) -> Senders:
        """These rows ``[N, M, D]`` as senders: with what the first convolution makes of each from the others.

        It is done for ``size`` rows at a time, since the graph of all may not fit into memory. The rest as in :meth:`adjacency`.
        """
        others = ~torch.eye(len(latent), dtype=torch.bool, device=latent.device)
        hidden = latent.clone()
        for rows in torch.arange(len(latent), device=latent.device).split(size):
            adjacency = self.adjacency(latent[rows], present[rows], latent, present, others[rows], share)
            hidden[rows] = _convolved(self.first, adjacency, torch.cat([latent, latent[rows]]))
        return Senders(latent, present, hidden)

    def forward(
        self,
        latent: Tensor,
        present: Tensor,
        senders: Senders | None = None,
        others: Tensor | None = None,
        share: Tensor | float = 1.0,
    ) -> Tensor:
        """Completed latents ``[B, M, D]``.

        Args:
            latent: ``[B, M, D]``, finite.
            present: bool ``[B, M]``.
            senders: None: the rows take from one another.
            others, share: see :meth:`adjacency`; without ``others`` all senders are other rows.
        """
        stored, known = (latent, present) if senders is None else senders[:2]
        if senders is None:
            others = ~torch.eye(len(latent), dtype=torch.bool, device=latent.device)
        elif others is None:
            others = present.new_ones(len(latent), len(stored))
        adjacency = self.adjacency(latent, present, stored, known, others, share)
        hidden = _convolved(self.first, adjacency, torch.cat([stored, latent]))
        beyond = hidden if senders is None else senders.hidden
        borrowed = _convolved(self.second, adjacency, torch.cat([beyond, hidden]))
        mixed = [gate(borrowed[:, m], latent[:, m]) for m, gate in enumerate(self.gates)]
        return torch.where(present[..., None], torch.stack(mixed, 1), borrowed)

    def complete(self, features: Features, bank: NeighbourBank | None = None) -> Features:
        """With completed latents, taken from the other rows of a bank, or from one another where there is no bank.

        From an empty bank a row takes nothing, and gets what the convolutions make of itself.
        """
        latent, present = features.pooled(), features.present
        if bank is None:
            return with_latents(features, self(latent, present))
        if not len(bank):
            return with_latents(features, self(latent, present, Senders(latent[:0], present[:0], latent[:0])))
        senders, others = Senders(*map(bank.read, Senders._fields)), bank.others(_identity(features))
        return with_latents(features, self(latent, present, senders, others, bank.share(len(bank))))


class NeighbourBank(Bank):
    """Rows from which a :class:`NeighbourGraph` completes others in use, so that no answer depends on who else asks.

    All stored rows together count for as many as the largest batch of the last training had, ``batch_rows``: the method
    keeps it.
    """

    batch_rows: Tensor

    def __init__(self) -> None:
        super().__init__(*Senders._fields)
        self.register_buffer("batch_rows", torch.ones(()))

    def share(self, rows: int) -> Tensor:
        """How many rows of a training batch one of so many senders counts for."""
        return self.batch_rows / rows

    def remember(self, graph: NeighbourGraph, features: Features) -> None:
        """Put these rows in place of all that are stored, with what the first convolution makes of each."""
        senders = graph.senders(features.pooled(), features.present, self.share(len(features.present)))
        self.write(_identity(features), **senders._asdict())


def with_latents(features: Features, latents: Tensor) -> Features:
    """These features with one vector a modality, ``[B, M, D]``, in place of all streams; what is present stays."""
    columns = dict(zip(features.streams, latents.unbind(1), strict=True))
    return features.replace(streams={name: Stream.vector(x) for name, x in columns.items()})


def evenly_spread(rows: Tensor, most: int) -> Tensor:
    """At most so many of these positions ``[N]``, evenly spread, the first and the last among them."""
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().long()]


def _identity(features: Features) -> Tensor:
    """-1, that of no row, where nobody said which rows these are."""
    nobody = torch.full((len(features.present),), -1, device=features.present.device)
    return nobody if features.identity is None else features.identity


def _convolved(steps: nn.ModuleList, graphs: Tensor, senders: Tensor) -> Tensor:
    """One convolution a modality: graphs ``[M, B, S]``, senders ``[S, M, D]`` -> ``[B, M, D]``."""
    return torch.stack([step(graphs[m], senders[:, m]) for m, step in enumerate(steps)], 1)
