"""Sparse linear prediction from covariances of what is there: nothing is imputed, and no row is left out."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, DataError, Features, Fixture, Fused, Modality, Model, Prediction, Schema, Splits,
    Stage, ablation_of, claims_of, register,
)  # fmt: skip
from kintsugi.encoders.columns import Columns
from kintsugi.layers.moments import (
    huber_covariance, lasso, one_parameter_weights, pairwise_covariance, semidefinite, shrunk, standardised,
)  # fmt: skip

from kintsugi.tasks.regression import Regression

LARGEST, SMALLEST = 2.0, 1e-3  # penalties of the authors' script, for columns and responses of order one
LEAST_WEIGHT = 1e-3  # of the shrinkage weights there
AT_ONCE = 2**22  # entries of matrices that are worked on at a time
RIDGE = 1e-8  # of the mean variance, on covariances that are inverted
EXACT = 1e-6  # of the largest covariance with the target: slopes at the coefficients exceed the penalty by no more


@register(
    Card(
        key="discom",
        name="DISCOM",
        leaf="missing/generative",
        imperfection=("missing in training", "missing at test"),
        faithful=(
            "covariances of every pair of columns, and of each with the target, over all rows that have both",
            "entries within a modality and between two shrink by weights of their own, the identity gets what the first leave",
            "pairs of weights that leave a negative eigenvalue are rejected; the lasso is solved from the covariances alone",
            "both weights and the penalty are chosen together by the squared error on complete validation rows",
        ),
        simplified=(
            "modalities are columns by fixed features: pixels, bigrams, cells, steps; video, points and volumes have none",
            "columns are standardised and an intercept is added, which the authors' script leaves out for data of mean zero",
            "an answer to a row with holes fills them by the conditional mean of a normal law with the fitted covariance; the "
            "paper answers complete rows alone",
            "the penalty is tuned on coefficients after at most 30 rounds of descent, where columns are correlated off by a "
            "tenth of the largest and more; with the chosen one slopes exceed the penalty by at most a millionth, or it warns",
            "weights of rows are not read; rows without a target count for the covariances of columns",
        ),
        claims=(
            "covariances are those of numpy over the rows that have both columns",
            "both weights and the penalty are those of the whole grid with the least error on complete validation rows",
        ),
        premise="the target is a sum of what columns of several modalities say, few rows are complete, and blocks are missing "
        "at random",
        worlds=("few_complete_rows", "complementary"),
        confidence="high",
        defaults_from="the authors' script",
        tasks=("regression",),
        gradient=False,
        cost="low",
    )
)
class DISCOM(Model):
    """Direct sparse regression procedure using covariance from multi-modality data; in closed form.

    Args:
        robust: None for plain covariances; against heavy tails Huber's, with a threshold of so many times sqrt(n / log P)
            deviations, 1 in the authors' script.
        search: over a ``grid`` of both shrinkage weights, or the ``fast`` one over a single parameter that ties them.
        weights: values of each shrinkage weight from 1 to 0.001; three times as many of the single parameter.
        penalties: values of the lasso's penalty from 2 to 0.001.
    """

    encoding: ClassVar[Literal["separate", "joint"]] = "joint"
    block: Tensor
    covariance: Tensor
    beta: Tensor
    chosen: Tensor

    def __init__(
        self, schema: Schema, robust: float | None = None, search: str = "grid", weights: int = 10, penalties: int = 30
    ) -> None:  # fmt: skip
        super().__init__(schema, 1, fused=None)
        if search not in ("grid", "fast"):
            raise ConfigError(f"unknown search {search!r}; known: grid, fast")
        if min(weights, penalties) < 1 or not (robust is None or robust > 0):
            raise ConfigError(
                f"weights and penalties are counts of 1 or more, robust is above 0; got {weights}, {penalties} and {robust}"
            )
        self.robust, self.fast, self.counts = robust, search == "fast", (weights, penalties)
        self.encoders = nn.ModuleDict({m.name: Columns(m) for m in schema.modalities})
        sizes = [int(reader.columns) for reader in self.encoders.values()]  # type: ignore[arg-type]
        self.register_buffer("block", torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))
        width, outputs = sum(sizes), self.task.outputs
        start = {
            "mean": torch.zeros(width), "spread": torch.ones(width), "offset": torch.zeros(outputs),
            "covariance": torch.zeros(width, width), "cross": torch.zeros(outputs, width), "beta": torch.zeros(outputs, width),
            "chosen": torch.ones(outputs, 3),
        }  # fmt: skip
        for name, value in start.items():
            self.register_buffer(name, value.double())
        self.register_buffer("rows", torch.zeros(width, width, dtype=torch.int64))

    def stages(self) -> list[Stage]:
        return [Stage("moments", trainable=(), solve=True)]

    # the fit ------------------------------------------------------------------------------------------------------------
    def table(self, features: Features) -> tuple[Tensor, Tensor]:
        """Standardised columns ``[B, P]``, 0 where unseen, and bool ``[B, P]``: which cells were seen."""
        parts = [s.tokens[:, 0].double().chunk(2, 1) for s in features.streams.values()]
        x, seen = torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1) > 0
        return torch.where(seen, (x - self.get_buffer("mean")) / self.get_buffer("spread"), 0), seen

    def responses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Targets ``[B, K]`` in units of the output, and bool ``[B, K]``: which are known."""
        assert batch.target is not None
        known = ~batch.target.double().reshape(len(batch), -1).isnan()
        if batch.target_present is not None:
            known = known & batch.target_present[:, None]
        return self.task.target(batch).double(), known

    def fitting_rows(self, features: Features) -> Tensor:
        """Bool ``[B]``: rows of which moments are taken."""
        return features.present.any(1)

    def solve(self, features: Features, batch: Batch) -> None:
        """Moments of all training rows, those with the target of rows that have one.

        Raises:
            DataError: fewer than two rows to take moments of, or with some target.
        """
        keep = self.fitting_rows(features)
        y, known = self.responses(batch)
        fewest = int((known & keep[:, None]).sum(0).min())
        if fewest < 2:
            raise DataError(
                f"discom takes moments of two rows with each target, and more; of {len(keep)} training rows {int(keep.sum())} "
                f"hold what {type(self).__name__} fits on, {fewest} of them with a target: add such rows"
            )
        self.get_buffer("mean").zero_()
        self.get_buffer("spread").fill_(1)
        x, seen = self.table(features.rows(keep))
        y, known = y[keep], known[keep]
        x, mean, spread = standardised(x, seen)
        offset = torch.where(known, y, 0).sum(0) / known.sum(0).clamp(min=1)
        moments = pairwise_covariance if self.robust is None else partial(huber_covariance, k=self.robust)
        (covariance, rows), (cross, _) = moments(x, seen), moments(x, seen, y, known)
        found = {
            "mean": mean,
            "spread": spread,
            "offset": offset,
            "covariance": covariance,
            "rows": rows,
            "cross": cross.T,
        }
        for name, value in found.items():
            self.get_buffer(name).copy_(value)

    def grid(self) -> Tensor:
        """Pairs of shrinkage weights, within and between modalities, ``[G, 2]``."""
        count = self.counts[0]
        if self.fast:
            return one_parameter_weights(
                self.covariance.cpu(), self.block.cpu(), self.get_buffer("rows").cpu(), 3 * count
            )
        values = torch.logspace(0, np.log10(LEAST_WEIGHT), count, dtype=torch.float64)
        return torch.cartesian_prod(values, values)

    def penalties(self) -> Tensor:
        return torch.logspace(np.log10(LARGEST), np.log10(SMALLEST), self.counts[1], dtype=torch.float64)

    def settle(self, data: Splits) -> None:
        """Weights and penalty of each output by its error on complete validation rows; then its coefficients.

        Raises:
            DataError: no validation rows with some target, or no weights that leave a covariance without negative eigenvalue.
        """
        val = data.val
        rows = val.positions("complete")
        rows = rows[val.target_present[rows]]
        if not len(rows):  # then all, with the mean of what is absent
            rows = val.positions("labelled")
        if not len(rows):
            raise DataError(f"{val.name}: discom chooses its weights on validation rows with a label; there are none")
        batch = val.batch(rows).to(self.prior.device)
        x = self.table(self.encode(batch))[0].cpu()
        y, known = self.responses(batch)
        if not bool(known.any(0).all()):
            raise DataError(f"{val.name}: discom chooses its weights on validation rows, of which none has some target")
        y = torch.where(known, y - self.get_buffer("offset"), torch.nan).cpu()
        best = torch.full((self.task.outputs,), torch.inf, dtype=torch.float64)
        covariance, cross, block = self.covariance.cpu(), self.get_buffer("cross").cpu(), self.block.cpu()
        penalties = self.penalties()
        for pairs in self.grid().split(max(1, AT_ONCE // covariance.numel())):
            matrices = shrunk(covariance, block, pairs[:, 0], pairs[:, 1])
            allowed = semidefinite(matrices)
            for k in range(len(best)) if bool(allowed.any()) else ():
                fits = lasso(matrices[allowed], cross[k].expand(int(allowed.sum()), -1), penalties, 1e-3, 30)
                errors = (fits @ x.T - y[:, k]).square().nanmean(2)  # [pairs, penalties]
                if float(errors.min()) < best[k]:
                    best[k], place = errors.min(), int(errors.argmin())
                    pair, penalty = pairs[allowed][place // len(penalties)], penalties[place % len(penalties)]
                    self.chosen[k] = torch.cat([pair, penalty[None]])
        if not bool(best.isfinite().all()):
            raise DataError(
                f"with each of {len(self.grid())} tried shrinkage weights the covariance of the training rows has a negative "
                "eigenvalue, since its entries rest on different rows; give more weights="
            )
        for k, (inside, across, penalty) in enumerate(self.chosen):
            matrix = shrunk(covariance, block, float(inside), float(across))
            beta = lasso(matrix, cross[k], penalty[None].cpu())[0]
            excess = float((cross[k] - matrix @ beta).abs().max() - penalty)
            if excess > EXACT * float(cross[k].abs().max()):
                said = (
                    f"discom: the rounds ran out where a slope exceeds the penalty {float(penalty):.3g} by {excess:.2g}"
                )
                warnings.warn(f"{said}; give fewer columns, or none that follow from others", stacklevel=2)
            self.beta[k] = beta

    # the answer ---------------------------------------------------------------------------------------------------------
    def coefficients(self, seen: Tensor) -> Tensor:
        """What each seen cell counts in an answer, the conditional means of unseen ones worked in: ``[U, P] -> [U, K, P]``.

        An answer is ``b_o' x_o + b_m' E[x_m | x_o]`` with ``E[x_m | x_o] = Sigma_mo Sigma_oo^-1 x_o``.
        """
        whole = torch.stack([shrunk(self.covariance, self.block, *pair) for pair in self.chosen[:, :2]])
        level = whole.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        level = torch.where(level > 0, level, 1)  # of columns that never vary
        identity = torch.eye(len(self.block), dtype=whole.dtype, device=whole.device)
        found = []
        for some in seen.split(max(1, AT_ONCE // whole.numel())):
            both = (some[:, :, None] & some[:, None])[:, None]
            system = torch.where(both, whole + RIDGE * level * identity, identity)
            beta = self.beta.expand(len(some), -1, -1)
            told = (whole @ torch.where(some[:, None], 0, beta)[..., None])[..., 0]
            through = torch.linalg.solve(system, torch.where(some[:, None], told, 0))
            found.append(torch.where(some[:, None], beta + through, 0))
        return torch.cat(found)

    def fuse(self, features: Features) -> Fused:
        x, seen = self.table(features)
        patterns, which = seen.unique(dim=0, return_inverse=True)
        coefficients = self.coefficients(patterns)[which] if len(seen) else self.beta.new_zeros(0, *self.beta.shape)
        answer = (coefficients * x[:, None]).sum(2) + self.get_buffer("offset")
        return Fused.vector(answer.to(self.prior.dtype))

    def head(self, fused: Fused, features: Features) -> Prediction:
        return Prediction(fused.pooled(), features.present)


@ablation_of(DISCOM, "incomplete rows")
class CompleteCase(DISCOM):
    """Off: moments of complete rows alone."""

    def fitting_rows(self, features: Features) -> Tensor:
        return features.present.all(1)


@ablation_of(DISCOM, "two weights")
class OneWeight(DISCOM):
    """Off: one weight for all covariances, of which as many values are tried as the method tries pairs."""

    def grid(self) -> Tensor:
        values = torch.logspace(0, np.log10(LEAST_WEIGHT), len(super().grid()), dtype=torch.float64)
        return torch.stack([values, values], 1)


@ablation_of(DISCOM)
class Ordinary(CompleteCase, OneWeight):
    """Off: both; a lasso on the complete rows, with a ridge."""


@claims_of(DISCOM)
def claims(fixture: Fixture) -> Claims:
    """The fit on a table with holes against numpy, then on blocks that hardly any row has all of."""
    world = fixture.world(holes=0.4)
    pipeline = world.trained(weights=5, penalties=8).eval()
    model: Any = pipeline.model
    fitted = torch.cat([model.covariance, model.cross.T], 1).numpy()
    yield Claim(DISCOM.card.claims[0], np.abs(_moments(world) - fitted).max(), at_most=1e-6)
    inside, across, penalty = model.chosen[0].tolist()
    block = np.repeat([0, 1, 2], 8)
    matrix = _shrunk(model.covariance.numpy(), block, inside, across)
    slope = model.cross[0].numpy() - matrix @ model.beta[0].numpy()
    yield Claim("no slope at the solution is above the penalty", np.abs(slope).max() - penalty, at_most=1e-7)
    yield Claim("the chosen covariance has no negative eigenvalue", -np.linalg.eigvalsh(matrix)[0], at_most=1e-8)
    batch = world.batch(48)
    seen = batch.present.repeat_interleave(8, 1).numpy()
    cells = (torch.cat([batch.inputs[m] for m in batch.names], 1).double() - model.mean) / model.spread
    with torch.no_grad():
        answers = pipeline(batch).output[:, 0].double().numpy() - model.offset.numpy()
    gaps = [
        abs(a - _conditional(matrix, c, s) @ model.beta[0].numpy())
        for a, c, s in zip(answers, cells.numpy(), seen, strict=True)
    ]
    yield Claim("what is absent stands at its conditional mean", max(gaps), at_most=1e-4)

    few = fixture.world()
    few.schema, few.splits = _blocks(fixture.seed)
    model = few.trained(weights=5, penalties=8).model
    x, y = (part[:120] for part in _numbers(few, "val"))  # the complete ones
    x, y = (x - model.mean.numpy()) / model.spread.numpy(), y - model.offset.numpy()
    own, block, weights = _moments(few), np.repeat([0, 1, 2], 10), np.logspace(0, -3, 5)
    best = min(_least(own, block, x, y, inside, across) for inside in weights for across in weights)
    error = np.square(y - x @ model.beta[0].numpy()).mean()
    yield Claim(DISCOM.card.claims[1], abs(error / best - 1), at_most=0.003)
    mean, spread = model.mean.numpy(), model.spread.numpy()
    x, y = _numbers(few, "test")
    x, y = (x - mean) / spread, y - model.offset.numpy()
    left = np.square(y - x @ model.beta[0].numpy()).mean()
    yield Claim("of blocks that 8 of 308 rows have all of, half of the variance is explained", left, at_most=0.5)
    few.splits = replace(few.splits, val=few.splits.val.subset(torch.arange(120, 150)))
    model = few.trained(weights=5, penalties=8).model
    left = np.square(y - x @ model.beta[0].numpy()).mean()  # of the same training rows, so of the same scale
    yield Claim("incomplete validation rows do where no other is there", left, at_most=0.7)


def _moments(world: Fixture) -> np.ndarray:
    """Covariances of standardised columns, each with each and with the target, over rows that have both: ``[P, P + 1]``."""
    x, y = _numbers(world, "train")
    full = np.column_stack([(x - np.nanmean(x, 0)) / np.nanstd(x, 0, ddof=1), y])
    size = full.shape[1]
    return np.array([[_pair(full[:, j], full[:, t]) for t in range(size)] for j in range(size - 1)])


def _numbers(world: Fixture, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Columns with NaN where absent, and standardised targets."""
    batch = world.batch(len(getattr(world.splits, part)), part)
    x = torch.cat(
        [torch.where(batch.present[:, i, None], batch.inputs[m], torch.nan) for i, m in enumerate(batch.names)], 1
    )
    return x.double().numpy(), world.schema.task.target(batch)[:, 0].double().numpy()


def _pair(a: np.ndarray, b: np.ndarray) -> float:
    both = ~(np.isnan(a) | np.isnan(b))
    return float(np.cov(a[both], b[both])[0, 1])


def _shrunk(s: np.ndarray, block: np.ndarray, inside: float, across: float) -> np.ndarray:
    same = block[:, None] == block
    shrunk: np.ndarray = np.where(same, inside * s, across * s) + (1 - inside) * np.trace(s) / len(s) * np.eye(len(s))
    return shrunk


def _least(own: np.ndarray, block: np.ndarray, x: np.ndarray, y: np.ndarray, inside: float, across: float) -> float:
    """The least error over the penalties, by proximal gradient steps."""
    matrix, cross = _shrunk(own[:, :-1], block, inside, across), own[:, -1]
    values = np.linalg.eigvalsh(matrix)
    if values[0] < 0:
        return np.inf
    penalty = np.logspace(np.log10(2), -3, 8)[:, None]
    beta, ahead, pace = np.zeros((8, len(cross))), np.zeros((8, len(cross))), 1.0
    for _ in range(2000):
        moved = ahead - (ahead @ matrix - cross) / values[-1]
        new = np.sign(moved) * np.maximum(np.abs(moved) - penalty / values[-1], 0)
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        beta, ahead, pace = new, new + (pace - 1) / faster * (new - beta), faster
    return float(np.square(y - beta @ x.T).mean(1).min())


def _conditional(matrix: np.ndarray, x: np.ndarray, seen: np.ndarray) -> np.ndarray:
    filled = np.where(seen, x, 0.0)
    if seen.any() and not seen.all():
        filled[~seen] = matrix[np.ix_(~seen, seen)] @ np.linalg.solve(matrix[np.ix_(seen, seen)], x[seen])
    return filled


def _blocks(seed: int) -> tuple[Schema, Splits]:
    """Three blocks of ten columns, a sum over all of them; 8 training and 120 validation rows have all, 300 and 30 two."""
    from kintsugi.data.dataset import Dataset, TensorSource

    rng, rows = torch.Generator().manual_seed(seed), 308 + 150 + 300
    shared = torch.randn(rows, 30, generator=rng)
    x = shared + 0.6 * shared.roll(1, 1)
    weight = torch.zeros(30)
    weight[[0, 3, 10, 13, 20, 23]] = torch.tensor([1.0, -0.7, 0.8, 0.6, -0.9, 0.7])
    y = x @ weight + 0.5 * torch.randn(rows, generator=rng)
    present = torch.ones(rows, 3, dtype=torch.bool)
    present[torch.arange(8, 308), torch.arange(8, 308) % 3] = False
    present[torch.arange(428, 458), torch.arange(428, 458) % 3] = False
    task = Regression.fitted(y[:308])
    schema = Schema(tuple(Modality(f"m{i}", "vector", (10,)) for i in range(3)), task)
    inputs = {f"m{i}": torch.where(present[:, i, None], x[:, 10 * i : 10 * i + 10], torch.nan) for i in range(3)}
    source = Dataset(TensorSource(schema, Batch(schema.names, inputs, present, torch.arange(rows), y)))
    return schema, Splits(*(source.subset(part) for part in torch.arange(rows).split([308, 150, 300])))
