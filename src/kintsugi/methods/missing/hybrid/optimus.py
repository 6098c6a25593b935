"""Each modality's holes are filled by the way that serves the prediction best; one predictor answers all outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kintsugi.core import (
    Batch, Card, Claim, Claims, ConfigError, DataError, Features, Fixture, Fused, Modality, Model, Prediction, Schema, Splits,
    Stage, Stream, ablation_of, claims_of, every_subset, register,
)  # fmt: skip
from kintsugi.encoders.columns import Columns
from kintsugi.layers.bank import NO_ROW, Bank
from kintsugi.layers.impute import Chain, chain_fill, fit_chain, neighbour_fill
from kintsugi.layers.mlp import mlp
from kintsugi.layers.moments import ridge, standardised
from kintsugi.tasks.regression import Regression

Split = tuple[Tensor, Tensor, Tensor, Tensor]
USUAL = ("mean", "knn1", "knn3", "knn5", "chained")
NEIGHBOURS = {"knn1": 1, "knn2": 2, "knn3": 3, "knn5": 5}
TINY = 1e-10  # ridge of the adjustment, for covariates of which one follows from others
# deviation of a standardised column after the adjustment: what is left of covariates themselves is rounding
SMALLEST = 1e-6
STRENGTH = 0.1  # of the ridges, times the number of rows; proposed here: there may be more columns than rows


@register(
    Card(
        key="optimus",
        name="OPTIMUS",
        leaf="missing/hybrid",
        imperfection=("missing in training", "missing at test"),
        faithful=(
            "for each modality the imputer is chosen by how well a linear probe then predicts all outcomes in held-out rows",
            "means, one to five neighbours, and one round of chained regressions are the candidates",
            "columns are adjusted for a modality of covariates by least squares; so are outcomes that are numbers, to which the "
            "covariates' part is added back",
            "one predictor maps all columns, standardised after that, to all outcomes; each outcome is explained by taking "
            "columns away, or by sampled Shapley values, with the standardised mean as baseline",
        ),
        simplified=(
            "one choice a modality, as the paper says; the authors' code has one for ordinal and one for continuous columns",
            "held-out rows are folds of the training rows; the authors' code selects on the rows that it is tested on",
            "modalities are chosen one after the other and by squared error alone; the authors try all combinations",
            "chained regressions are ridges with a fixed strength over columns that the same rows have, where scikit-learn's "
            "are Bayesian and one a column; MissForest and GAIN are no candidates",
            "the predictor is a perceptron with two hidden layers; the authors compare linear, tree and attentive ones",
            "columns are standardised before they are imputed too; modalities are columns by fixed features, which video, points "
            "and volumes do not have",
            "ordinal and one-hot columns are adjusted too, where the authors leave ordinal ones as they are",
            "of rows with some outcome alone folds are held out, the others teach the imputers; each outcome has a probe of its "
            "own rows",
            "distances of all training rows to one another are held at once: memory grows with the square of their number",
        ),
        claims=(
            "a modality that others tell, and that drives the target, is filled nearer to the truth than by means",
            "the imputer of each modality is the candidate with the least held-out error of the probe",
        ),
        premise="tables with blocks of cells missing in which rows or columns tell of each other, few of them complete, and "
        "one or several outcomes",
        worlds=("few_complete_rows", "neighbours", "complementary"),
        confidence="high",
        defaults_from="the authors' code (cschneuw/optimus); sizes of the perceptron are this library's",
        reference=True,
        cost="medium",
    )
)
class Optimus(Model):
    """Outcome prediction targetedly integrating multimodality with unavailable signals.

    Args:
        dim: width of the last hidden layer, a quarter of the first.
        candidates: imputers in the order in which they win ties: ``mean``, ``knn1``, ``knn2``, ``knn3``, ``knn5``, ``chained``.
        folds: of the training rows, each of which is held out once for the choice.
        adjust: name of a modality of covariates, such as age and sex; None: nothing is adjusted.
    """

    encoding: ClassVar[Literal["separate", "joint"]] = "joint"
    probes: ClassVar[dict[str, tuple[Any, ...]]] = {"candidates": (("mean",), ("chained",))}
    block: Tensor
    choice: Tensor

    def __init__(
        self,
        schema: Schema,
        dim: int = 32,
        candidates: Sequence[str] = USUAL,
        folds: int = 3,
        adjust: str | None = None,
    ) -> None:
        super().__init__(schema, dim)
        known = ("mean", *NEIGHBOURS, "chained")
        if not candidates or not set(candidates) <= set(known) or folds < 2:
            raise ConfigError(
                f"candidates are some of {', '.join(known)}, and folds 2 or more; got {tuple(candidates)} and {folds}"
            )
        self.candidates, self.folds = tuple(candidates), folds
        self.encoders = nn.ModuleDict({m.name: Columns(m) for m in schema.modalities})
        sizes = [int(reader.columns) for reader in self.encoders.values()]  # type: ignore[arg-type]
        self.register_buffer("block", torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))
        self.covariates = [] if adjust is None else (self.block == schema.column(adjust)).nonzero().flatten().tolist()
        width, one = sum(sizes), 1 + len(self.covariates)
        start = {
            "mean": torch.zeros(width), "spread": torch.ones(width), "chain_weight": torch.zeros(width, width),
            "chain_offset": torch.zeros(width), "of_columns": torch.zeros(one, width), "left": torch.ones(2, width),
            "of_outcomes": torch.zeros(one, self.task.outputs),
        }  # fmt: skip
        for name, value in start.items():
            self.register_buffer(name, value.double())
        self.get_buffer("left")[0] = 0
        self.register_buffer("chain_unit", torch.zeros(width, dtype=torch.int64))
        self.register_buffer("choice", torch.zeros(len(schema), dtype=torch.int64))
        self.donors = Bank("x", "seen")
        self.trunk = mlp([width, 4 * dim, dim], last=True)

    # what is fitted before the predictor --------------------------------------------------------------------------------
    def prepare(self, data: Splits, stage: Stage) -> None:
        """Scale, choice of the imputers, the imputers, adjustment and scale after it: all of training rows."""
        batch = data.train.batch(data.train.positions("all")).to(self.prior.device)
        self.get_buffer("mean").zero_()
        self.get_buffer("spread").fill_(1)
        self.get_buffer("of_outcomes").zero_()
        features = self.encode_rows(data.train)
        x, seen = self.table(features)
        x, mean, spread = standardised(x, seen)
        y = self.outcomes(batch)
        self.choice.copy_(self.chosen(self.splits(x, seen, y)))
        chain = fit_chain(x, seen, self.block, STRENGTH)
        values = {"mean": mean, "spread": spread, "chain_weight": chain.weight, "chain_offset": chain.offset}
        for name, value in {**values, "chain_unit": chain.unit}.items():
            self.get_buffer(name).copy_(value)
        nobody = torch.full((len(x),), NO_ROW, device=x.device)
        self.donors.write(nobody if features.identity is None else features.identity, x=x, seen=seen)
        filled = self.filled(x, seen, features.identity)
        if self.covariates:
            given = filled[:, self.covariates]
            self.get_buffer("of_columns").copy_(_regression(given, filled))
            for k, known in enumerate(~y.T.isnan() if self.task.link == "identity" else ()):
                if bool(known.any()):
                    self.get_buffer("of_outcomes")[:, [k]] = _regression(given[known], y[known][:, [k]])
        rest = filled - self.design(filled) @ self.get_buffer("of_columns")
        _, mean, spread = standardised(rest, torch.ones_like(seen), SMALLEST)
        self.get_buffer("left").copy_(torch.stack([mean, spread]))

    def table(self, features: Features) -> tuple[Tensor, Tensor]:
        """Standardised columns ``[B, P]``, 0 where unseen, and bool ``[B, P]``: which cells were seen."""
        parts = [s.tokens[:, 0].double().chunk(2, 1) for s in features.streams.values()]
        x, seen = torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1) > 0
        return torch.where(seen, (x - self.get_buffer("mean")) / self.get_buffer("spread"), 0), seen

    def outcomes(self, batch: Batch) -> Tensor:
        """What the probes regress, ``[N, K]``: numbers, or 1 for the class or label, else 0; NaN where it is not known."""
        assert batch.target is not None
        target, lost = self.task.target(batch), batch.target.double().reshape(len(batch), -1).isnan()
        if self.task.exclusive:
            target = F.one_hot(target, self.task.outputs)
        if batch.target_present is not None:
            lost = lost | ~batch.target_present[:, None]
        return torch.where(lost, torch.nan, target.double())

    def splits(self, x: Tensor, seen: Tensor, y: Tensor) -> list[Split]:
        """For each fold the other rows filled in by each candidate ``[C, N, P]`` and their outcomes, then those held out.

        Rows without any outcome are never held out; rows that have the same outcomes are spread evenly over the folds.

        Raises:
            DataError: no outcome is known in two folds, so nothing can be held out.
        """
        known = ~y.isnan()
        labelled = known.any(1)
        order = known.unique(dim=0, return_inverse=True)[1][labelled].argsort(stable=True)
        fold = torch.full((len(x),), self.folds, device=x.device)
        fold[labelled.nonzero().flatten()[order]] = torch.arange(len(order), device=x.device) % self.folds
        splits = []
        for number in range(self.folds):
            held, rest = fold == number, labelled & (fold != number)
            if bool((known[held].any(0) & known[rest].any(0)).any()):
                fills = self.fills(x, seen, x[~held], seen[~held])
                splits.append((fills[:, rest], y[rest], fills[:, held], y[held]))
        if not splits:
            raise DataError(
                "optimus chooses its imputers by outcomes of training rows that it holds out; an outcome that two rows have is "
                f"needed, and of {len(x)} training rows {known.sum(0).tolist()} have each: add rows with that label"
            )
        return splits

    def chosen(self, splits: list[Split]) -> Tensor:
        """Place among the candidates for each modality, int64 ``[M]``: the least score, one after the other."""
        choice = torch.zeros(len(self.schema), dtype=torch.int64)
        for modality in range(len(choice)):
            tried = choice.repeat(len(self.candidates), 1)
            tried[:, modality] = torch.arange(len(self.candidates))
            choice = tried[int(torch.tensor([self.score(each, splits) for each in tried]).argmin())]
        return choice

    def score(self, choice: Tensor, splits: list[Split]) -> float:
        """Squared error of linear probes in held-out rows, on columns that are filled in by these candidates.

        The mean over outcomes, each over the rows that have it, summed over the folds in which it can be told.
        """
        place = choice.to(self.block.device)[self.block]
        column = torch.arange(len(place), device=place.device)
        error = 0.0
        for fitted, y, held, truth in splits:
            fitted, held = fitted[place, :, column].T, held[place, :, column].T
            patterns, which = torch.cat([y, truth]).isnan().unique(dim=1, return_inverse=True)
            for number, lost in enumerate(patterns.T):  # outcomes that the same rows have share a probe
                own, (learn, ask) = which == number, (~lost).split([len(y), len(truth)])
                if bool(learn.any()) and bool(ask.any()):
                    weight, offset = ridge(fitted[learn], y[learn][:, own], STRENGTH)
                    error += float((held[ask] @ weight + offset - truth[ask][:, own]).square().mean(0).sum()) / len(own)
        return error

    # what is done to a row ----------------------------------------------------------------------------------------------
    def fills(self, x: Tensor, seen: Tensor, donors: Tensor, donors_seen: Tensor) -> Tensor:
        """Rows ``[B, P]`` filled in by each candidate, all of which learn from the donors: ``[C, B, P]``."""
        counts = [NEIGHBOURS[name] for name in self.candidates if name in NEIGHBOURS]
        near = dict(zip(counts, neighbour_fill(x, seen, donors, donors_seen, counts), strict=True)) if counts else {}
        ways = []
        for name in self.candidates:
            if name == "chained":
                ways.append(chain_fill(x, seen, fit_chain(donors, donors_seen, self.block, STRENGTH)))
            else:
                ways.append(near[NEIGHBOURS[name]] if name in NEIGHBOURS else torch.where(seen, x, 0))
        return torch.stack(ways)

    def filled(self, x: Tensor, seen: Tensor, identity: Tensor | None = None) -> Tensor:
        """Standardised columns ``[B, P]`` with the chosen candidate's values in unseen cells; no row takes from itself."""
        names = [self.candidates[i] for i in self.choice.tolist()]
        filled = torch.where(seen, x, 0)
        for name in set(names) - {"mean"} if len(self.donors) else ():
            if name == "chained":
                parts = (self.get_buffer(f"chain_{part}") for part in ("weight", "offset", "unit"))
                values = chain_fill(x, seen, Chain(*parts))
            else:
                stored = self.donors.read("x"), self.donors.read("seen")
                others = None if identity is None else self.donors.others(identity)
                values = neighbour_fill(x, seen, *stored, [NEIGHBOURS[name]], others)[0]
            own = torch.tensor([each == name for each in names], device=x.device)[self.block]
            filled = torch.where(own, values, filled)
        return filled

    def design(self, filled: Tensor) -> Tensor:
        """A column of ones and the covariates, ``[B, 1 + D]``."""
        return torch.cat([torch.ones_like(filled[:, :1]), filled[:, self.covariates]], 1)

    def complete(self, features: Features) -> Features:
        """Columns as the predictor gets them, and what of the outcomes the covariates say."""
        filled = self.filled(*self.table(features), features.identity)
        design, (mean, spread) = self.design(filled), self.get_buffer("left")
        rest = (filled - design @ self.get_buffer("of_columns") - mean) / spread
        streams = {"columns": rest, "back": design @ self.get_buffer("of_outcomes")}
        return Features({n: Stream.vector(x.to(self.prior.dtype)) for n, x in streams.items()}, features.present)

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(self.trunk(features.streams["columns"].tokens[:, 0]))

    def head(self, fused: Fused, features: Features) -> Prediction:
        output = self.task_head(fused)
        if self.task.link == "identity":
            output = output + features.streams["back"].tokens[:, 0]
        return Prediction(output, features.present, fused.pooled())

    @torch.no_grad()
    def attribution(self, batch: Batch, way: str = "shapley", samples: int = 50, seed: int = 0) -> Tensor:
        """What each column does to each outcome of the rows, in units of the output: ``[B, K, P]``.

        Args:
            batch: rows.
            way: ``shapley`` or ``ablation``; the baseline of a column is its mean.
            samples: orders of the columns that are drawn for Shapley values. seed: of the draws.

        Raises:
            ConfigError: another way.
        """
        if way not in ("shapley", "ablation"):
            raise ConfigError(f"unknown way {way!r} of attribution; known: shapley, ablation")
        x = self.complete(self.encode(batch)).streams["columns"].tokens[:, 0]

        def answer(columns: Tensor) -> Tensor:
            out: Tensor = self.task_head(Fused.vector(self.trunk(columns)))
            return out

        return ablation_values(answer, x) if way == "ablation" else shapley_values(answer, x, samples, seed)


def _regression(x: Tensor, y: Tensor) -> Tensor:
    """Least squares with an intercept: x ``[N, D]``, y ``[N, K]`` -> ``[1 + D, K]``, the intercept first."""
    weight, offset = ridge(x, y, TINY)
    return torch.cat([offset[None], weight])


def ablation_values(answer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``f_j(x) - f_j(x with x_i = 0)``: x ``[B, P]``, answer ``[B, P] -> [B, K]``; ``[B, K, P]``."""
    whole = answer(x)
    without = [whole - answer(x * (torch.arange(x.shape[1], device=x.device) != i)) for i in range(x.shape[1])]
    return torch.stack(without, 2)


def shapley_values(answer: Callable[[Tensor], Tensor], x: Tensor, samples: int, seed: int = 0) -> Tensor:
    """Mean of what each column adds where columns come in a drawn order, from 0 on: ``[B, K, P]``, which sums to f(x) - f(0).

    Castro, Gómez and Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers & Operations Research
    2009. Arguments as of :func:`ablation_values`, and the number of orders and their seed.
    """
    noise, size = torch.Generator().manual_seed(seed), x.shape[1]
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for _ in range(samples):
        rank = torch.randperm(size, generator=noise).to(x.device)
        shown = rank < torch.arange(size + 1, device=x.device)[:, None]  # [P + 1, P]
        answers = answer((x[:, None] * shown).flatten(0, 1)).unflatten(0, (len(x), size + 1))
        total = total + answers.diff(dim=1)[:, rank].transpose(1, 2)
    return total / samples


ablation_of(Optimus, candidates=("mean",))  # off: nothing is chosen by what it does for the prediction


@claims_of(Optimus)
def claims(fixture: Fixture) -> Claims:
    """Rows in clusters, of which two modalities tell, while the third alone drives the outcome; against scikit-learn."""
    world = fixture.world()
    world.schema, world.splits = _clusters(fixture.seed)
    rows, test = world.batch(len(world.splits.train), "train"), world.batch(100)
    x = _cells(rows)
    mean, spread = np.nanmean(x, 0), np.nanstd(x, 0, ddof=1)
    x, truth, fold = (x - mean) / spread, (_cells(test) - mean) / spread, np.arange(len(x)) % 3
    model = _prepared(world)
    wrong = np.square(_values(model, test.where(torch.tensor([True, True, False]))) - truth)[:, 8:].mean()
    yield Claim(Optimus.card.claims[0], wrong / np.square(truth)[:, 8:].mean(), at_most=0.5)
    y = world.schema.task.target(rows).double().numpy()
    fills = [{name: _imputed(name, x[fold != k], x) for name in USUAL} for k in range(3)]
    names = ["mean", "mean", "mean"]
    for place in range(3):
        errors = [_held_out([*names[:place], name, *names[place + 1 :]], fills, fold, y) for name in USUAL]
        names[place] = USUAL[int(np.argmin(errors))]
    own = [model.candidates[i] for i in model.choice]
    yield Claim(Optimus.card.claims[1], sum(a != b for a, b in zip(own, names, strict=True)), at_most=0)
    splits = model.splits(*model.table(model.encode(rows)), torch.as_tensor(y))
    gap = abs(model.score(model.choice, splits) - _held_out(own, fills, fold, y))
    yield Claim("its score is the squared error of a linear probe in rows that are held out", gap, at_most=1e-6)
    hidden = every_subset(test)
    asked = (_cells(hidden) - mean) / spread
    for name in USUAL:
        gap = np.abs(_values(_prepared(world, candidates=(name,)), hidden) - _imputed(name, x, asked)).max()
        yield Claim(f"what {name} fills in is what scikit-learn finds", gap, at_most=1e-5)

    other = replace(world.splits, val=world.splits.val.subset(torch.arange(5)))
    states = [_prepared(world, splits).state_dict() for splits in (world.splits, other)]
    moved = sum(not torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    yield Claim("validation rows change nothing that imputers, scales and choice are made of", moved, at_most=0)

    model = _prepared(world, adjust="m0")
    given = _values(model, rows)[:, :4]
    completed = model.complete(model.encode(rows)).streams
    rest, back = (completed[name].tokens[:, 0].double().numpy() for name in ("columns", "back"))
    told = np.abs(given.T @ rest).max() / len(rest)
    yield Claim("covariates tell nothing of what is left of columns", told, at_most=1e-5)
    design = np.column_stack([np.ones(len(given)), given])
    regression = design @ np.linalg.lstsq(design, y[:, 0], rcond=None)[0]
    yield Claim("what covariates say of the outcome is added back", np.abs(back[:, 0] - regression).max(), at_most=1e-4)
    yield Claim("what is left of columns has deviation 1", np.abs(rest[:, 4:].std(0, ddof=1) - 1).max(), at_most=1e-4)
    with torch.no_grad():
        answer = model(rows).output[:, 0].double().numpy()
        plain = model.task_head(Fused.vector(model.trunk(completed["columns"].tokens[:, 0])))[:, 0].double().numpy()
    yield Claim(
        "the answer is the predictor's with that added", np.abs(answer - plain - regression).max(), at_most=1e-4
    )
    with torch.no_grad():
        model.trunk[0].weight[:, 5] = 0
        zero = model.task_head(Fused.vector(model.trunk(torch.zeros(1, 12)))).double().numpy()
        plain = model.task_head(Fused.vector(model.trunk(completed["columns"].tokens[:, 0]))).double().numpy()
    shares = model.attribution(rows, samples=2).double().numpy()
    yield Claim(
        "Shapley values sum to the answer less that of means", np.abs(shares.sum(2) - plain + zero).max(), at_most=1e-4
    )
    away = model.attribution(rows, "ablation").double().numpy()
    yield Claim("a column without a path explains nothing", np.abs([shares[..., 5], away[..., 5]]).max(), at_most=1e-6)
    without = completed["columns"].tokens[:, 0].index_fill(1, torch.tensor([6]), 0)
    with torch.no_grad():
        plain = plain - model.task_head(Fused.vector(model.trunk(without))).double().numpy()
    yield Claim("a column that is taken away is at its mean", np.abs(plain - away[..., 6]).max(), at_most=1e-5)
    idle = (np.abs([shares, away])[..., [4, *range(6, 12)]].max((1, 2)) < 1e-6).sum()
    yield Claim("every other column but covariates explains something", idle, at_most=0)


def _prepared(world: Fixture, splits: Splits | None = None, **hyper: Any) -> Any:
    """A model of which all but the predictor is fitted."""
    model: Any = world.pipeline(**hyper).model.eval()
    with torch.no_grad():
        model.prepare(world.splits if splits is None else splits, model.stages()[0])
    return model


def _cells(batch: Batch) -> np.ndarray:
    """Columns of all modalities, NaN where absent."""
    parts = [torch.where(batch.present[:, i, None], batch.inputs[m], torch.nan) for i, m in enumerate(batch.names)]
    cells: np.ndarray = torch.cat(parts, 1).double().numpy()
    return cells


def _values(model: Any, batch: Batch) -> np.ndarray:
    values: np.ndarray = model.filled(*model.table(model.encode(batch))).numpy()
    return values


def _imputed(name: str, x: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Rows filled by what one candidate learns from x, by scikit-learn; three blocks of four columns."""
    from sklearn.impute import KNNImputer
    from sklearn.linear_model import Ridge

    if name == "mean":
        return np.nan_to_num(asked)
    if name != "chained":
        found: np.ndarray = KNNImputer(n_neighbors=int(name[3:])).fit(x).transform(asked)
        return found
    filled, out = np.nan_to_num(x), np.nan_to_num(asked)
    for block in sorted(range(3), key=lambda b: np.isnan(x[:, 4 * b]).sum()):
        own = np.arange(12) // 4 == block
        there = ~np.isnan(x[:, 4 * block])
        line = Ridge(STRENGTH * there.sum()).fit(filled[there][:, ~own], x[there][:, own])
        for whole, given in ((filled, x), (out, asked)):
            holes = np.isnan(given[:, 4 * block])
            whole[np.ix_(holes, own)] = line.predict(whole[:, ~own])[holes]
    return out


def _held_out(names: list[str], fills: list[dict[str, np.ndarray]], fold: np.ndarray, y: np.ndarray) -> float:
    """Error of the linear probe in three folds, with a candidate for each modality."""
    from sklearn.linear_model import Ridge

    error = 0.0
    for k, filled in enumerate(fills):
        columns = np.concatenate([filled[name][:, 4 * b : 4 * b + 4] for b, name in enumerate(names)], 1)
        line = Ridge(STRENGTH * (fold != k).sum()).fit(columns[fold != k], y[fold != k, 0])
        error += float(np.square(line.predict(columns[fold == k]) - y[fold == k, 0]).mean())
    return error


def _clusters(seed: int) -> tuple[Schema, Splits]:
    """Forty clusters in three blocks of four columns; the second is linear in the first, and only the cluster tells the third.

    The last two drive the outcome, and training rows lack them.
    """
    from kintsugi.data.dataset import Dataset, TensorSource

    rng, rows = torch.Generator().manual_seed(seed), 300 + 60 + 100
    centres = torch.randn(40, 12, generator=rng)
    x = centres[torch.randint(0, 40, (rows,), generator=rng)] + 0.2 * torch.randn(rows, 12, generator=rng)
    x[:, 4:8] = x[:, :4] @ torch.randn(4, 4, generator=rng) + 0.02 * torch.randn(rows, 4, generator=rng)
    y = x[:, 4:] @ torch.tensor([0.4, 0.3, -0.4, 0.3, 1.0, -1.0, 0.5, 0.7]) + 0.1 * torch.randn(rows, generator=rng)
    present = torch.ones(rows, 3, dtype=torch.bool)
    present[:300, 1] = torch.rand(300, generator=rng) > 0.15
    present[:300, 2] = torch.rand(300, generator=rng) > 0.4
    schema = Schema(tuple(Modality(f"m{i}", "vector", (4,)) for i in range(3)), Regression.fitted(y[:300]))
    inputs = {f"m{i}": torch.where(present[:, i, None], x[:, 4 * i : 4 * i + 4], torch.nan) for i in range(3)}
    source = Dataset(TensorSource(schema, Batch(schema.names, inputs, present, torch.arange(rows), y)))
    return schema, Splits(*(source.subset(part) for part in torch.arange(rows).split([300, 60, 100])))
