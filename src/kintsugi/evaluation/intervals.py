"""How sure a number is: bootstrap over rows, spread over seeds, paired differences.

A resample of n rows with replacement is a vector of counts. A metric that is a function of sums over rows needs nothing
but those sums weighted by the counts, so all resamples are one matrix product.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, percentile intervals.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

RESAMPLES = 1000
SLOW_RESAMPLES = 100
LEVEL = 0.95
MOST_COUNTED = 32  # classes; the counts of more, for each resample, take longer than a metric of a hundred of them
_MOST_CACHED = 1 << 25  # counts held in memory, 128 MiB; more are drawn again when they are needed


class Interval(NamedTuple):
    """A value and the interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Formula:
    """A metric as a function of sums over rows.

    rows: float ``[N, K]``: what each row adds; finish: sums ``[R, K]`` -> values ``[R]``.
    """

    rows: Tensor
    finish: Callable[[Tensor], Tensor]

    def value(self) -> float:
        """With every row counted once."""
        return float(self.finish(self.rows.double().sum(0, keepdim=True))[0])


class Bootstrap:
    """Resamples of n rows, the same ones for every metric and condition, so that differences are paired.

    Args:
        n: number of rows.
        resamples: how many.
        seed: of the draws.
        level: of the intervals.
    """

    def __init__(self, n: int, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> None:
        self.n, self.resamples, self.seed, self.level = n, resamples, seed, level
        self._cached: list[Tensor] | None = None

    def counts(self) -> Iterator[Tensor]:
        """How often each row is drawn: float ``[r, N]``, block after block, ``resamples`` rows in all."""
        if self._cached is None and self.resamples * self.n <= _MOST_CACHED:
            self._cached = list(self._draw())
        yield from self._draw() if self._cached is None else self._cached

    def _draw(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        block = max(1, (1 << 22) // max(self.n, 1))
        for start in range(0, self.resamples, block):
            rows = min(block, self.resamples - start)
            drawn = torch.randint(self.n, (rows, self.n), generator=generator)
            drawn += torch.arange(rows)[:, None] * self.n
            yield torch.bincount(drawn.flatten(), minlength=rows * self.n).view(rows, self.n).float()

    def replicates(self, formula: Formula) -> Tensor:
        """The metric on each resample: ``[R]``."""
        rows = formula.rows.float()
        return torch.cat([formula.finish((counts @ rows).double()) for counts in self.counts()])

    def resampled(self, score: Callable[[Tensor], float], most: int = SLOW_RESAMPLES) -> Tensor:
        """The same for any function of row positions ``[N]``, one resample at a time."""
        values: list[float] = []
        for counts in self.counts():
            for row in counts[: most - len(values)]:
                values.append(score(torch.arange(self.n).repeat_interleave(row.long())))
            if len(values) == most:
                break
        return torch.tensor(values, dtype=torch.float64)

    def interval(self, value: float, replicates: Tensor) -> Interval:
        """The percentile interval; undefined resamples, such as those without a class, are left out."""
        finite = replicates[torch.isfinite(replicates)]
        if not len(finite):
            return Interval(value, math.nan, math.nan)
        tail = (1 - self.level) / 2
        low, high = torch.quantile(finite, torch.tensor([tail, 1 - tail], dtype=finite.dtype)).tolist()
        return Interval(value, low, high)


@dataclass(frozen=True)
class Measured:
    """A metric with its interval and with its values on the resamples ``[R]``."""

    interval: Interval
    replicates: Tensor


def measure(
    metrics: Mapping[str, Any], probabilities: Tensor, target: Tensor, bootstrap: Bootstrap
) -> dict[str, Measured]:
    """Each metric of these rows: the value by torchmetrics, the interval by the bootstrap.

    Args:
        metrics: name -> torchmetrics metric that takes ``(probabilities, target)``.
        probabilities: ``[N, ...]``, as the task's ``probabilities`` gives them.
        target: ``[N, ...]``.
        bootstrap: over N rows.
    """
    return {name: _measure(metric, probabilities, target, bootstrap) for name, metric in metrics.items()}


def _measure(metric: Any, probabilities: Tensor, target: Tensor, bootstrap: Bootstrap) -> Measured:
    def score(rows: Tensor) -> float:
        metric.reset()
        metric.update(probabilities[rows], target[rows])
        return float(metric.compute())

    value = score(torch.arange(len(target)))
    formula = formula_of(metric, probabilities, target)
    if formula is not None and math.isclose(formula.value(), value, rel_tol=1e-3, abs_tol=1e-4):
        replicates = bootstrap.replicates(formula)
    else:  # a metric that is no function of sums, or one that is set up in a way that the formula does not know
        with warnings.catch_warnings():  # a resample may lack a class, which is no news
            warnings.simplefilter("ignore", UserWarning)
            replicates = bootstrap.resampled(score)
    metric.reset()
    return Measured(bootstrap.interval(value, replicates), replicates)


# metrics as functions of sums --------------------------------------------------------------------------------------


def formula_of(metric: Any, probabilities: Tensor, target: Tensor) -> Formula | None:
    """The formula of a torchmetrics metric, or None where it has none here."""
    make = _FORMULAS.get((type(metric).__name__, getattr(metric, "average", None)))
    return None if make is None else make(metric, probabilities, target)


def _ratio(sums: Tensor) -> Tensor:
    return sums[:, 0] / sums[:, 1]


def _mean(values: Tensor) -> Formula:
    """The mean of what each row has: ``[N]`` or ``[N, K]``."""
    each = values.double().reshape(len(values), -1)
    return Formula(torch.stack([each.sum(1), torch.full((len(each),), float(each.shape[1]))], 1), _ratio)


def _accuracy(metric: Any, probabilities: Tensor, target: Tensor) -> Formula:
    """Share of rows whose most probable class is the true one."""
    return _mean(probabilities.argmax(1) == target)


def _log_loss(metric: Any, probabilities: Tensor, target: Tensor) -> Formula:
    """Mean of -log p(true class), p clipped at 1e-7."""
    return _mean(-probabilities.gather(1, target[:, None]).clamp(min=1e-7).log())


def _f1(predicted: Tensor, actual: Tensor, skip_empty: bool) -> Formula:
    """Mean over classes of 2 TP / (predicted + actual), from bool ``[N, C]``; classes that never occur are left out."""
    both = torch.cat([predicted & actual, predicted, actual], 1).double()
    classes = predicted.shape[1]

    def finish(sums: Tensor) -> Tensor:
        hits, guessed, real = torch.split(sums, classes, dim=1)
        total = guessed + real
        f1: Tensor = 2 * hits / total.clamp(min=1)
        if not skip_empty:
            return f1.mean(1)
        occurring: Tensor = (total > 0).sum(1)
        return f1.sum(1) / occurring.clamp(min=1)

    return Formula(both, finish)


def _macro_f1(metric: Any, probabilities: Tensor, target: Tensor) -> Formula:
    classes = probabilities.shape[1]
    guess, real = (one_hot(x.long(), classes).bool() for x in (probabilities.argmax(1), target))
    return _f1(guess, real, skip_empty=True)


def _label_f1(metric: Any, probabilities: Tensor, target: Tensor) -> Formula:
    return _f1(probabilities > metric.threshold, target.bool(), skip_empty=False)


def _label_accuracy(metric: Any, probabilities: Tensor, target: Tensor) -> Formula:
    """Share of labels that are right at the threshold."""
    return _mean((probabilities > metric.threshold) == target.bool())


def _mae(metric: Any, values: Tensor, target: Tensor) -> Formula:
    return _mean((values - target).abs())


def _mse(metric: Any, values: Tensor, target: Tensor) -> Formula:
    mean = _mean((values - target).square())
    return mean if metric.squared else Formula(mean.rows, lambda sums: _ratio(sums).sqrt())


def _r2(metric: Any, values: Tensor, target: Tensor) -> Formula | None:
    """1 - sum (y - f)^2 / sum (y - mean y)^2, the mean over targets; y is centred first, to keep digits."""
    if metric.adjusted or metric.multioutput != "uniform_average":
        return None
    y = target.double().reshape(len(target), -1)
    error = (values.double().reshape(len(target), -1) - y).square()
    y = y - y.mean(0)
    outputs = y.shape[1]

    def finish(sums: Tensor) -> Tensor:
        rest, total, squares = torch.split(sums[:, :-1], outputs, dim=1)
        spread = squares - total.square() / sums[:, -1:]
        r2: Tensor = 1 - rest / spread
        return r2.mean(1)

    return Formula(torch.cat([error, y, y.square(), torch.ones(len(y), 1)], 1), finish)


def _class_distance(metric: Any, probabilities: Tensor, target: Tensor) -> Formula:
    """Mean number of places between the most probable and the true class."""
    return _mean((probabilities.argmax(1) - target).abs())


def _kappa(metric: Any, probabilities: Tensor, target: Tensor) -> Formula | None:
    """1 - n sum (i - j)^2 / sum p_i t_j (i - j)^2 over guessed places i and true ones j, that occur p_i and t_j times."""
    if metric.weights != "quadratic":
        return None
    classes = probabilities.shape[1]
    guess = probabilities.argmax(1)
    guessed, real = (one_hot(x.long(), classes).double() for x in (guess, target))
    places = torch.arange(classes, dtype=torch.float64)
    apart = (places[:, None] - places).square()

    def finish(sums: Tensor) -> Tensor:
        squares, p, t = torch.split(sums, [1, classes, classes], dim=1)
        kappa: Tensor = 1 - squares[:, 0] * p.sum(1) / ((p @ apart) * t).sum(1)
        return kappa

    return Formula(torch.cat([(guess - target).square().double()[:, None], guessed, real], 1), finish)


def _counts(metric: Any, probabilities: Tensor, target: Tensor) -> Formula | None:
    """What a metric reads from the counts of true and answered classes."""
    classes = probabilities.shape[1]
    if classes > MOST_COUNTED:
        return None
    cells = one_hot(target.long() * classes + probabilities.argmax(1), classes**2).double()
    return Formula(cells, lambda sums: metric.read(sums.view(-1, classes, classes)))


def _label_counts(metric: Any, probabilities: Tensor, target: Tensor) -> Formula:
    """The same of each label."""
    labels = probabilities.shape[1]
    cells = one_hot(target.long() * 2 + (probabilities > metric.threshold).long(), 4).double()
    return Formula(cells.flatten(1), lambda sums: metric.read(sums.view(-1, labels, 2, 2)))


_FORMULAS: dict[tuple[str, str | None], Callable[[Any, Tensor, Tensor], Formula | None]] = {
    ("MulticlassAccuracy", "micro"): _accuracy,
    ("LogLoss", None): _log_loss,
    ("MulticlassF1Score", "macro"): _macro_f1,
    ("MultilabelF1Score", "macro"): _label_f1,
    ("MultilabelAccuracy", "micro"): _label_accuracy,
    ("MeanAbsoluteError", None): _mae,
    ("MeanSquaredError", None): _mse,
    ("R2Score", None): _r2,
    ("ClassDistance", None): _class_distance,
    ("MulticlassCohenKappa", None): _kappa,
    ("ClassCounts", None): _counts,
    ("LabelCounts", None): _label_counts,
}


# seeds and pairs ---------------------------------------------------------------------------------------------------


def seed_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean over training seeds with its t-interval: mean ± t(n - 1) s / sqrt(n); no interval for a single seed."""
    from scipy.stats import t as student

    x = torch.tensor(list(values), dtype=torch.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(student.ppf((1 + level) / 2, len(x) - 1)) * float(x.std()) / math.sqrt(len(x))
    return Interval(mean, mean - half, mean + half)


def paired_difference(
    a: Tensor | Sequence[float],
    b: Tensor | Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Mean of ``a - b`` over rows, each row drawn with both its values (``[N]`` each, such as right or wrong)."""
    difference = torch.as_tensor(a, dtype=torch.float64) - torch.as_tensor(b, dtype=torch.float64)
    bootstrap = Bootstrap(len(difference), resamples, seed, level)
    formula = _mean(difference)
    return bootstrap.interval(formula.value(), bootstrap.replicates(formula))
