"""Means and covariances of columns with holes, and least squares that need nothing else.

Formulas of Yu, Li, Shen and Liu, "Optimal sparse linear prediction for block-missing multi-modality data without
imputation", JASA 2020, and the authors' script, unless another source is named. All is float64: what is solved here is
solved once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError

MAD = 1.4826  # times the median absolute deviation is the standard deviation of a normal variable (R's mad)
FLAT = 1e-12  # a variance below counts as none
NEGATIVE = -1e-9  # an eigenvalue below counts as negative: rounding of singular matrices stays above
ROUNDING = 1e-7  # of float32, in which columns come: a deviation of so much of the mean, and below, is none
STRIDE = 50  # rounds of coordinate descent between two exact steps


class Moments(NamedTuple):
    """Covariances ``[P, Q]`` and the number of rows that each rests on, int64 ``[P, Q]``."""

    covariance: Tensor
    rows: Tensor


def standardised(x: Tensor, seen: Tensor, least: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Columns ``[N, P]`` around their means, in units of their standard deviations, of the cells that are seen alone.

    Args:
        x: numbers; what stands where ``seen`` (bool ``[N, P]``) is False is never read.
        seen: which cells are there.
        least: a deviation of so much, and below, is none; for columns of a known order, such as what a regression leaves.

    Returns:
        The columns, 0 where unseen, then mean and deviation (divisor n - 1) ``[P]``; a column that varies by the rounding of
        its mean to float32 alone (1e-7 of it), or has fewer than two cells, has deviation 1.
    """
    x = torch.where(seen, x.double(), 0)
    count = seen.sum(0)
    mean = x.sum(0) / count.clamp(min=1)
    around = torch.where(seen, x - mean, 0)
    spread = (around.square().sum(0) / (count - 1).clamp(min=1)).sqrt()
    spread = torch.where(spread > (ROUNDING * mean.abs()).clamp(min=least), spread, 1)
    return around / spread, mean, spread


def pairwise_covariance(x: Tensor, seen: Tensor, y: Tensor | None = None, y_seen: Tensor | None = None) -> Moments:
    """Sample covariance of each column of x with each of y, over the rows in which both are seen.

    Both columns are centred on their means over exactly these rows, and the divisor is their number less one. Where fewer than
    two rows have both, nothing is known and the covariance is 0.

    Args:
        x: ``[N, P]``; seen: bool ``[N, P]``. What stands in unseen cells is never read.
        y: ``[N, Q]`` with ``y_seen``; default: x itself.

    Raises:
        DataError: shapes that do not fit.
    """
    y, y_seen = _second(x, seen, y, y_seen)
    x, y = torch.where(seen, x.double(), 0), torch.where(y_seen, y.double(), 0)
    a, b = seen.double(), y_seen.double()
    count = a.T @ b
    cross = x.T @ y - (x.T @ b) * (a.T @ y) / count.clamp(min=1)
    covariance = torch.where(count >= 2, cross / (count - 1).clamp(min=1), 0)
    return Moments(covariance, count.round().long())


def huber_covariance(
    x: Tensor, seen: Tensor, y: Tensor | None = None, y_seen: Tensor | None = None, k: float = 1.0
) -> Moments:
    """The same with Huber's M-estimate of location in place of the mean of products, against heavy tails.

    The threshold for n rows is ``k sqrt(n / log P)`` times the normalised median absolute deviation of the products, whose
    estimate is found as by ``huberM`` of R's robustbase: products cut off at the threshold around the estimate, and their mean
    taken anew, until it moves by less than 1e-6 deviations. P is the number of columns of x, 2 at least.
    One column of x is worked on at a time: memory is that of ``[N, Q]``.

    Args:
        x, seen, y, y_seen: as :func:`pairwise_covariance`.
        k: 1 in the authors' script.
    """
    y, y_seen = _second(x, seen, y, y_seen)
    x, y = torch.where(seen, x.double(), 0), torch.where(y_seen, y.double(), 0)
    lines, counts = [], []
    for column, there in zip(x.T, seen.T, strict=True):
        both = there[:, None] & y_seen
        count = both.sum(0)
        mean_x = torch.where(both, column[:, None], 0).sum(0) / count.clamp(min=1)
        mean_y = torch.where(both, y, 0).sum(0) / count.clamp(min=1)
        products = torch.where(both, (column[:, None] - mean_x) * (y - mean_y), torch.nan)
        reach = k * torch.sqrt(count / math.log(max(x.shape[1], 2)))
        lines.append(torch.where(count >= 2, _location(products, reach), 0))
        counts.append(count)
    return Moments(torch.stack(lines), torch.stack(counts))


def _location(products: Tensor, reach: Tensor, rounds: int = 50, tolerance: float = 1e-6) -> Tensor:
    """Huber's location of each column of ``[N, Q]``, NaN where there is nothing: ``[Q]``; ``reach`` in deviations.

    The median, where half of the products and more are equal.
    """
    middle = _median(products)
    spread = MAD * _median((products - middle).abs())
    limit = reach * spread
    for _ in range(rounds):
        moved = torch.minimum(torch.maximum(products, middle - limit), middle + limit).nanmean(0)
        moved = torch.where(spread > 0, moved, middle)
        still = ((moved - middle).abs() <= tolerance * spread) | moved.isnan()
        middle = moved
        if bool(still.all()):
            break
    return middle.nan_to_num()


def _median(x: Tensor) -> Tensor:
    """Of each column, without NaN; the mean of the two middle values of an even number."""
    return torch.nanquantile(x, 0.5, dim=0)


def _second(x: Tensor, seen: Tensor, y: Tensor | None, y_seen: Tensor | None) -> tuple[Tensor, Tensor]:
    y, y_seen = (x, seen) if y is None or y_seen is None else (y, y_seen)
    if x.shape != seen.shape or y.shape != y_seen.shape or len(x) != len(y):
        shapes = ", ".join(str(list(part.shape)) for part in (x, seen, y, y_seen))
        raise DataError(f"columns and what is seen of them must be [N, P] and [N, Q] of the same rows, not {shapes}")
    return y, y_seen


# shrinkage --------------------------------------------------------------------------------------------------------------
def shrunk(covariance: Tensor, block: Tensor, inside: Tensor | float, across: Tensor | float) -> Tensor:
    """``inside * S_I + across * S_C + (1 - inside) * (trace S / P) * I``: S ``[P, P]`` -> ``[..., P, P]``.

    S_I holds the entries of S within a block, S_C those between two. The weight of the identity follows from that of S_I, so
    that the trace stays what it was.

    Args:
        covariance: S.
        block: int ``[P]``, which block each column belongs to.
        inside, across: weights, in (0, 1]; numbers, or tensors ``[...]`` of one shape.
    """
    one = torch.as_tensor(inside, dtype=covariance.dtype, device=covariance.device)[..., None, None]
    two = torch.as_tensor(across, dtype=covariance.dtype, device=covariance.device)[..., None, None]
    same = block[:, None] == block[None]
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    level = covariance.diagonal().mean()
    return torch.where(same, one * covariance, two * covariance) + (1 - one) * level * identity


def smallest_eigenvalue(matrix: Tensor) -> Tensor:
    """Of symmetric ``[..., P, P]``: ``[...]``."""
    return torch.linalg.eigvalsh(matrix)[..., 0]


def semidefinite(matrix: Tensor) -> Tensor:
    """Has a symmetric ``[..., P, P]`` no negative eigenvalue but for rounding? Bool ``[...]``."""
    level = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).abs()
    return smallest_eigenvalue(matrix) >= NEGATIVE * level


def one_parameter_weights(covariance: Tensor, block: Tensor, rows: Tensor, count: int = 30) -> Tensor:
    """Pairs of weights for :func:`shrunk` along one parameter K, none of which leaves a negative eigenvalue: ``[count, 2]``.

    ``1 - K c1`` and ``1 - K c2`` with ``c1 = sqrt(log P / min_j n_j)`` and ``c2 = sqrt(log P / min_jt n_jt)``, for K evenly
    between ``max(0, l(S) / (c2 l(S) - l(A)))`` and ``1 / c2``, where l is the smallest eigenvalue and
    ``A = (c2 - c1) S_I + c1 (trace S / P) I`` (the fast variant of the authors' script).

    Args:
        covariance: S ``[P, P]``.
        block: int ``[P]``.
        rows: int ``[P, P]``, on how many rows each entry rests; a pair without rows counts as one.
        count: how many.
    """
    size = len(covariance)
    one = math.sqrt(math.log(max(size, 2)) / max(int(rows.diagonal().min()), 1))
    two = math.sqrt(math.log(max(size, 2)) / max(int(rows.min()), 1))
    inside = torch.where(block[:, None] == block[None], covariance, 0)
    identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    towards = (two - one) * inside + one * covariance.diagonal().mean() * identity
    least, gain = float(smallest_eigenvalue(covariance)), float(smallest_eigenvalue(towards))
    start = least / (two * least - gain) if least < 0 else 0.0
    k = torch.linspace(min(max(start, 0.0), 1 / two), 1 / two, count, dtype=covariance.dtype)
    return torch.stack([1 - k * one, 1 - k * two], 1).clamp(0, 1)


# least squares ----------------------------------------------------------------------------------------------------------
def ridge(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """``argmin |y - x w - b|^2 + strength N |w|^2``: x ``[N, P]``, y ``[N, K]`` -> w ``[P, K]`` and the free b ``[K]``.

    With more columns than rows the system of rows is solved, which is the smaller one (Hoerl and Kennard, "Ridge regression",
    Technometrics 1970).
    """
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    around, rest = x - mean_x, y - mean_y
    rows, size = x.shape
    if size <= rows:
        system = around.T @ around + strength * rows * torch.eye(size, dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(system, around.T @ rest)
    else:
        system = around @ around.T + strength * rows * torch.eye(rows, dtype=x.dtype, device=x.device)
        weight = around.T @ torch.linalg.solve(system, rest)
    return weight, mean_y - mean_x @ weight


# the lasso --------------------------------------------------------------------------------------------------------------
def lasso(covariance: Tensor, cross: Tensor, penalties: Tensor, tolerance: float = 1e-10, rounds: int = 1000) -> Tensor:
    """``argmin_b b' S b / 2 - c' b + penalty |b|_1`` for each penalty, by coordinate descent: ``[..., L, P]``.

    One coordinate after the other becomes ``soft(c_j - sum_k!=j S_jk b_k, penalty) / S_jj``; each penalty starts where the one
    before ended (Friedman, Hastie and Tibshirani, "Regularization paths for generalized linear models via coordinate descent",
    Journal of Statistical Software 2010). A coordinate with S_jj = 0 stays 0. All problems are solved side by side.

    Descent hardly moves where columns are correlated. After every 50 rounds each problem therefore goes to the least value with
    the signs that its coefficients have; those that would change theirs on the way are left at 0 (as in the feature-sign search
    of Lee et al., "Efficient sparse coding algorithms", NIPS 2006). Then all coordinates are descended again.

    Args:
        covariance: S ``[..., P, P]``, symmetric, without negative eigenvalues.
        cross: c ``[..., P]``, of the same leading shape.
        penalties: ``[L]``, best from the largest down.
        tolerance: until no coefficient moves by more than so much, in units of the largest entry of c.
        rounds: at most so many over all coordinates for each penalty.

    Raises:
        ConfigError: a penalty below 0. DataError: shapes that do not fit.
    """
    if cross.shape != covariance.shape[:-1] or covariance.shape[-1] != covariance.shape[-2]:
        raise DataError(f"S is [..., P, P] and c [..., P], not {list(covariance.shape)} and {list(cross.shape)}")
    if bool((penalties < 0).any()):
        raise ConfigError(f"penalties of the lasso are 0 or more, not {penalties.tolist()}")
    size = cross.shape[-1]
    s = covariance.cpu().double().reshape(-1, size, size).permute(1, 2, 0).contiguous().numpy()
    c = cross.cpu().double().reshape(-1, size).T.contiguous().numpy()
    path = _path(s, c, penalties.cpu().double().tolist(), tolerance, rounds)
    solved = torch.from_numpy(path).permute(2, 0, 1).contiguous().to(cross.device)
    return solved.reshape(*cross.shape[:-1], len(penalties), size)


def _path(s: np.ndarray, c: np.ndarray, penalties: list[float], tolerance: float, rounds: int) -> np.ndarray:
    """N problems side by side: s ``[P, P, N]``, c ``[P, N]`` -> ``[L, P, N]``."""
    size = len(c)
    diagonal = s[np.arange(size), np.arange(size)]
    inverse = np.where(diagonal > FLAT, 1 / np.where(diagonal > FLAT, diagonal, 1), 0)
    b, rest = np.zeros_like(c), c.copy()  # rest = c - S b
    enough = tolerance * float(np.abs(c).max(initial=0.0))
    found = np.zeros((len(penalties), *c.shape))
    everything = np.arange(size)
    for place, penalty in enumerate(penalties):
        active = everything
        for number in range(1, rounds + 1):
            moved = 0.0
            for j in active:
                now = rest[j] + diagonal[j] * b[j]
                change = (now - np.minimum(np.maximum(now, -penalty), penalty)) * inverse[j] - b[j]
                if change.any():
                    rest -= s[j] * change
                    b[j] += change
                    moved = max(moved, float(np.abs(change).max()))
            if moved <= enough and active is everything:
                break
            # until nothing moves, only coordinates that are not 0 in all problems; then all of them again
            active = np.flatnonzero(b.any(1)) if moved > enough else everything
            if number % STRIDE == 0:
                for problem in range(b.shape[1]):
                    _exact(s[:, :, problem], b[:, problem], rest[:, problem], penalty)
                active = everything
        found[place] = b
    return found


def _exact(s: np.ndarray, b: np.ndarray, rest: np.ndarray, penalty: float) -> None:
    """To the minimum over the coefficients that are not 0, leaving out what becomes 0 on the way: b, rest ``[P]`` in place.

    The pseudo-inverse makes each step a descent of singular S too.
    """
    length = 0.0
    while length < 1:
        own = np.flatnonzero(b)
        way = np.linalg.lstsq(s[np.ix_(own, own)], rest[own] - penalty * np.sign(b[own]), rcond=-NEGATIVE)[0]
        ends = np.where(b[own] * way < 0, -b[own] / np.where(way == 0, 1, way), np.inf)  # where each of them is 0
        length = min(1.0, float(ends.min(initial=np.inf)))
        step = np.where(ends <= length, -b[own], length * way)
        b[own] += step
        rest -= s[:, own] @ step
