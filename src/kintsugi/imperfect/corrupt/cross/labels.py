"""Labels that are wrong: symmetric, by pairs of classes, and depending on the instance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.imperfect.corrupt.cross._common import check_share, draws, nearest, spread_order, table
from kintsugi.imperfect.corrupt.cross._features import features
from kintsugi.imperfect.operator import OPERATORS, CrossOperator, levels
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.seeds import stable_key


class LabelNoise(CrossOperator):
    """A share of the labels that are there, to the nearest one, becomes another; inputs stay.

    A level changes what lower levels change, to the same labels, and more. Rows without a label count for nothing.
    The plan's ``hit`` and ``label`` hold what is changed and to what, of each row of the data that it was made for.
    """

    least, most = 0, 0
    several: ClassVar[bool] = False  # it knows what to do where a row has several labels

    @classmethod
    def check_values(cls, preset: str | None, given: Mapping[str, Any]) -> None:
        super().check_values(preset, given)
        check_share(cls.key, given)

    def look(self, data: Data, modalities: tuple[str, ...], values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        task = data.schema.task
        if not task.exclusive and not (self.several and task.link == "sigmoid"):
            known = "classification or multilabel" if self.several else "classification"
            raise ConfigError(f"{self.key} changes labels of {known}; {data.name} is a {task.key}")
        if data.target is None:
            raise DataError(f"{self.key}: {data.name} has no labels")
        rows, at = table(data)
        label = data.target[at].clone()
        here = data.target_present[at].nonzero().flatten()
        hit = torch.zeros(label.shape, dtype=torch.bool)
        if len(here):
            hit[here], label[here] = self.flip(data, at[here], label[here], values, seed)
        return {"rows": rows, "hit": hit, "label": label}

    @abstractmethod
    def flip(
        self, data: Data, at: Tensor, label: Tensor, values: Mapping[str, Any], seed: int
    ) -> tuple[Tensor, Tensor]:
        """Which labels become wrong, and what they would become: bool and labels, of the shape of ``label`` ``[N, ...]``.

        Args:
            data: the data set. at: int64 ``[N]``: positions of its labelled rows. label: their labels.
            values: the plan's parameters. seed: of the draws.
        """

    def chosen(self, data: Data, at: Tensor, label: Tensor, share: float, seed: int) -> Tensor:
        """Bool ``[N]``: a share of these rows, exact overall and, to the nearest row, in each class of ``label`` ``[N]``."""
        order = spread_order(draws(seed, self.key, (), data.index[at])[:, 0], label)
        hit = torch.zeros(len(label), dtype=torch.bool)
        hit[order[: nearest(share, len(label))]] = True
        return hit

    def relabel(self, target: Tensor, index: Tensor, plan: Plan) -> Tensor:
        place = plan.place(index)
        hit, label = (plan.tensors[name][place].to(target.device) for name in ("hit", "label"))
        return torch.where(hit, label.to(target.dtype), target)


@OPERATORS.register("label_noise_symmetric")
class SymmetricLabelNoise(LabelNoise):
    """A share of the labels becomes any other class, each equally likely, in every class the same share.

    The label never stays what it was, so the share is that of wrong labels; where a benchmark draws among all C classes,
    the true one included, its noise of ``s`` is ``s (C - 1) / C`` here. Multilabel targets: a share of the bits of each
    label is flipped.
    """

    key = "label_noise_symmetric"
    title = "labels become any other class"
    source = (
        "definition and 20, 40, 60 and 80 %: Patrini et al., CVPR 2017, and the benchmarks after it; 10 %: proposed here, as "
        "curated data sets have up to 10 % (Northcutt et al., NeurIPS 2021)"
    )
    parameters = {"default": levels(share=(0.1, 0.2, 0.4, 0.6, 0.8))}  # noqa: RUF012
    several = True

    def flip(
        self, data: Data, at: Tensor, label: Tensor, values: Mapping[str, Any], seed: int
    ) -> tuple[Tensor, Tensor]:
        if label.ndim == 2:
            return self._bits(data, at, label, values["share"], seed)
        count = data.schema.task.outputs
        step = (draws(seed, self.key, (), data.index[at], 2)[:, 1] * (count - 1)).long() + 1
        return self.chosen(data, at, label, values["share"], seed), (label + step) % count

    def _bits(self, data: Data, at: Tensor, label: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
        size, bits = label.shape
        draw = draws(seed, self.key, (), data.index[at], bits).flatten()
        order = spread_order(draw, torch.arange(bits).expand(size, -1).flatten())
        hit = torch.zeros(size * bits, dtype=torch.bool)
        hit[order[: nearest(share, size * bits)]] = True
        return hit.view(size, bits), (1 - label.float()).to(label.dtype)


@OPERATORS.register("label_noise_pair_flip")
class PairFlipLabelNoise(LabelNoise):
    """A share of the labels of each class becomes the next class, in the order of the task's classes, the last the first.

    As when annotators confuse one class with one other. Beyond 50 % the wrong class would be the more frequent one.
    """

    key = "label_noise_pair_flip"
    title = "labels become the next class"
    source = (
        "definition: pair flipping of Han et al., Co-teaching, NeurIPS 2018, which uses 45 %; 5 to 40 %: proposed here, the "
        "range of asymmetric noise in the field"
    )
    parameters = {"default": levels(share=(0.05, 0.1, 0.2, 0.3, 0.4))}  # noqa: RUF012

    def flip(
        self, data: Data, at: Tensor, label: Tensor, values: Mapping[str, Any], seed: int
    ) -> tuple[Tensor, Tensor]:
        return self.chosen(data, at, label, values["share"], seed), (label + 1) % data.schema.task.outputs


@OPERATORS.register("label_noise_instance")
class InstanceLabelNoise(LabelNoise):
    """Labels become wrong in a way that depends on the row's inputs: alike rows of a class take the same wrong class.

    After Xia et al.: each row draws its own flip rate from a normal distribution around ``share`` with a standard deviation
    of 0.1, and flips by it; a projection drawn for its class turns its standardised features into odds of the other
    classes, of which one is drawn. Deviations: the share is exact, to the nearest row, so it is the rows that flip at the
    smallest ``share`` that are taken, and rates are not cut to [0, 1]; features are numbers of all modalities that are
    present (at most 128 of each, means of neighbours; of text the counts of its ids), since the paper has images alone;
    projections are scaled to unit variance times ``sharpness``.

    In the paper as here, a row's rate depends on chance and not on its inputs; only the wrong class does.
    """

    key = "label_noise_instance"
    title = "labels become a class that the inputs decide"
    source = (
        "definition and 10 to 50 %: Xia et al., Part-dependent Label Noise: Towards Instance-dependent Label Noise, NeurIPS "
        "2020, algorithm 2; sharpness: proposed here, about that of the paper's unscaled projections of 28-pixel images"
    )
    parameters = {"default": levels(share=(0.1, 0.2, 0.3, 0.4, 0.5))}  # noqa: RUF012
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"sharpness": 20.0})

    def flip(
        self, data: Data, at: Tensor, label: Tensor, values: Mapping[str, Any], seed: int
    ) -> tuple[Tensor, Tensor]:
        draw = draws(seed, self.key, (), data.index[at], 3)
        count = data.schema.task.outputs
        flips_at = draw[:, 0] - 0.1 * torch.special.ndtri(draw[:, 1].clamp(1e-12, 1 - 1e-12))
        hit = torch.zeros(len(label), dtype=torch.bool)
        hit[flips_at.argsort(stable=True)[: nearest(values["share"], len(label))]] = True
        wrong = label.clone()
        found = features(data, at)
        for each in label.unique():
            here = (label == each).nonzero().flatten()
            generator = torch.Generator().manual_seed(stable_key(seed, self.key, int(each)) % 2**32)
            weights = torch.randn(found.shape[1], count, generator=generator, dtype=torch.float64)
            odds = values["sharpness"] * found[here] @ weights / max(found.shape[1], 1) ** 0.5
            odds[:, each] = -torch.inf
            steps = odds.softmax(1).cumsum(1)
            wrong[here] = torch.searchsorted(steps, draw[here, 2:] * steps[:, -1:], right=True)[:, 0].clamp(
                max=count - 1
            )
        return hit, wrong
