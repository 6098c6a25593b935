"""Modalities that belong to another row, and modalities that changed places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality
from kintsugi.imperfect.corrupt.cross._common import (
    check_share,
    classes,
    draws,
    nearest,
    sorted_rows,
    spread_order,
    table,
)
from kintsugi.imperfect.corrupt.cross._exchange import among_others, exchangeable, in_a_ring, past_own_class
from kintsugi.imperfect.distortion import marked, put
from kintsugi.imperfect.operator import OPERATORS, CrossOperator, levels
from kintsugi.imperfect.plan import Plan

WITHIN = ("any", "class", "other_class")


@OPERATORS.register("mismatched_pairs")
class MismatchedPairs(CrossOperator):
    """In a share of the rows that have it, one modality comes from another row; its mask goes along.

    The inputs change places among the rows that are hit: a derangement, so no row keeps its own and none is used twice.
    A plain shuffle leaves one row in place on average, so that fewer pairs are wrong than it says. A level hits the rows
    that lower levels hit, and more, in the same drawn order; partners may differ between levels, since the ring closes
    elsewhere.

    ``within`` says where a partner may come from:

    - ``any``: any other hit row. The share is exact, to the nearest row.
    - ``class``: a row of the same class. The share is kept within each class, to the nearest number that can be
      exchanged: one row alone cannot, so it is none, two or more.
    - ``other_class``: a row of another class. Where one class makes up more than half of the rows that are hit, they cannot
      be exchanged among themselves; then each gets a row of another class, these in turn, and the plan's
      ``exchanged`` is False.

    Classes are those of the task: labels, or quantile bins of a regression; rows without a label are left alone then. A
    partner is read as the data stood when the corruption was planned, so after everything before it in a chain; one
    whose input turns out unreadable leaves its row as it is. Plan on one split: partners come from the rows planned on.
    """

    key = "mismatched_pairs"
    title = "one modality comes from another row"
    source = (
        "noisy correspondence: Huang et al., Learning with Noisy Correspondence for Cross-modal Matching, NeurIPS 2021, "
        "with 20 to 80 %; 100 %, the classes and the derangement: proposed here, as a shuffle leaves rows in place"
    )
    parameters = {"default": levels(share=(0.2, 0.4, 0.6, 0.8, 1.0))}  # noqa: RUF012
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"within": "any"})
    gaps = True

    @classmethod
    def check_values(cls, preset: str | None, given: Mapping[str, Any]) -> None:
        super().check_values(preset, given)
        check_share(cls.key, given)
        if given.get("within", "any") not in WITHIN:
            raise UnknownName(f"within of {cls.key}", str(given["within"]), WITHIN)

    def within(self, values: Mapping[str, Any]) -> str:
        """Where a partner comes from: one of ``any``, ``class`` and ``other_class``."""
        return str(values["within"])

    def eligible(self, data: Data, modality: str) -> Tensor:
        """Bool ``[N]``: rows that may be hit."""
        return data.present[:, data.schema.column(modality)]

    def look(self, data: Data, modalities: tuple[str, ...], values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        rows, at = table(data)
        within, share = self.within(values), float(values["share"])
        fit = self.eligible(data, modalities[0])[at]
        if within != "any":
            fit = fit & data.target_present[at]
        here = fit.nonzero().flatten()
        group = torch.zeros(len(here), dtype=torch.int64) if within == "any" else classes(data, at[here])
        self._check_rows(data, modalities[0], within, share, group)
        order = spread_order(draws(seed, self.key, modalities, rows[here])[:, 0], group)
        chosen, group = here[order], group[order]
        partner = torch.full((len(rows),), -1, dtype=torch.int64)
        if within == "class":
            for each in group.unique():
                own = chosen[group == each]
                in_a_ring(partner, own[: exchangeable(share, len(own))])
            if share > 0 and not bool((partner >= 0).any()):
                raise DataError(
                    f"{self.key}({modalities[0]}) on {data.name}, within='class': {share:.0%} of the rows of each class are less "
                    "than one row; take more rows or a larger share"
                )
        elif within == "any":
            in_a_ring(partner, chosen[: nearest(share, len(chosen))])
        else:
            hits = nearest(share, len(chosen))
            values["exchanged"] = past_own_class(partner, chosen[:hits], group[:hits])
            if not values["exchanged"]:
                among_others(partner, chosen, group, hits)
        return {"rows": rows, "partner": partner}

    def _check_rows(self, data: Data, modality: str, within: str, share: float, group: Tensor) -> None:
        said = f"{self.key}({modality}) on {data.name}"
        hits = nearest(share, len(group))
        if share > 0 and (len(group) < 2 or (within == "any" and hits == 1)):
            raise DataError(
                f"{said}: {len(group)} rows of {len(data)} can be hit, and {share:.0%} of them are {hits}; an exchange needs "
                "two rows at least, so take more rows or a larger share"
            )
        found, count = group.unique(return_counts=True)
        if within == "class" and bool((count == 1).any()):
            alone = [_class_name(data, int(c)) for c in found[count == 1]]
            raise DataError(
                f"{said}, within='class': class {', '.join(alone[:5])} has a single row with {modality!r}, which has nobody "
                "to change places with; leave such rows out, or use within='any'"
            )
        if within == "other_class" and len(found) < 2:
            raise DataError(
                f"{said}: all {len(group)} rows that can be hit are of one class, and partners have to be of another; "
                "use within='any'"
            )

    def others(self, data: Data) -> Data | None:
        return sorted_rows(data)

    def damage(self, batch: Batch, here: Tensor, plan: Plan) -> Batch:
        name = plan.modality
        partner = plan.tensors["partner"][plan.place(batch.index)]
        hit = (partner >= 0) & here[:, 0].cpu()
        if not bool(hit.any()):
            return batch
        assert plan.others is not None
        column = batch.names.index(name)
        places, back = partner[hit].unique(return_inverse=True)
        read = plan.others.batch(places)
        there = read.present[:, read.names.index(name)][back]
        hit = hit.masked_scatter(hit, there)
        rows, back = hit.nonzero().flatten().to(batch.device), back[there]
        if len(rows) == 0:
            return batch
        inputs, masks = dict(batch.inputs), dict(batch.mask)
        inputs[name] = put(inputs[name], rows, read.inputs[name][back].to(inputs[name]))
        if name in batch.mask or name in read.mask:
            seen = _steps(read, name)[back].to(batch.device)
            masks[name] = put(_steps(batch, name) if name not in batch.mask else batch.mask[name], rows, seen)
        return marked(replace(batch, inputs=inputs, mask=masks), hit.to(batch.device), column, plan.severity)


@OPERATORS.register("conflicting_pairs")
class ConflictingPairs(MismatchedPairs):
    """In a share of the rows, one modality tells of another class than the rest of the row: ``mismatched_pairs`` from
    other classes, in rows that have another modality to contradict it.

    The label stays, so it is the label of what the other modalities tell.
    """

    key = "conflicting_pairs"
    title = "one modality contradicts the others: it comes from a row of another class"
    source = "definition and shares: proposed here, as those of mismatched_pairs, so that the two can be compared"
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def within(self, values: Mapping[str, Any]) -> str:
        return "other_class"

    def eligible(self, data: Data, modality: str) -> Tensor:
        return super().eligible(data, modality) & (data.present.sum(1) >= 2)


@OPERATORS.register("modality_swap")
class ModalitySwap(CrossOperator):
    """In a share of the rows that have both, two modalities of one kind and shape exchange their inputs and masks.

    As when sequences of a scan are filed under each other's names. Rows that have only one of the two are left alone: a
    slot that was announced as absent must not appear, and one that was hidden must not come to light under another name.
    """

    key = "modality_swap"
    title = "two modalities change places, as mislabelled sequences do"
    source = (
        "sequence mislabelling, the worst of the artefacts of multi-sequence MRI that Wang 2022 compared; "
        "shares: proposed here, from a slip in filing to a rule"
    )
    parameters = {"default": levels(share=(0.05, 0.10, 0.25, 0.50, 1.0))}  # noqa: RUF012
    gaps = True
    least, most = 2, 2

    @classmethod
    def check_values(cls, preset: str | None, given: Mapping[str, Any]) -> None:
        super().check_values(preset, given)
        check_share(cls.key, given)

    def check(self, modalities: tuple[Modality, ...]) -> None:
        first, second = modalities
        if first.name == second.name:
            raise ConfigError(f"{self.key} needs two different modalities, not {first.name!r} twice")
        told = [(m.kind, m.shape, m.vocab, m.categories) for m in modalities]
        if told[0] != told[1]:
            raise ConfigError(
                f"{self.key} needs two modalities of one kind and shape; {first.name!r} is {first.kind} {list(first.shape)}, "
                f"{second.name!r} is {second.kind} {list(second.shape)}"
            )

    def look(self, data: Data, modalities: tuple[str, ...], values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        rows, at = table(data)
        both = data.present[at][:, [data.schema.column(name) for name in modalities]].all(1)
        here = both.nonzero().flatten()
        if len(here) == 0:
            raise DataError(f"{self.key} on {data.name}: no row has both {modalities[0]!r} and {modalities[1]!r}")
        order = draws(seed, self.key, modalities, rows[here])[:, 0].argsort()
        hit = torch.zeros(len(rows), dtype=torch.bool)
        hit[here[order[: nearest(float(values["share"]), len(here))]]] = True
        values["between"] = list(modalities)
        return {"rows": rows, "hit": hit}

    def damage(self, batch: Batch, here: Tensor, plan: Plan) -> Batch:
        hit = plan.tensors["hit"][plan.place(batch.index)].to(batch.device) & here.all(1)
        rows = hit.nonzero().flatten()
        if len(rows) == 0:
            return batch
        names = list(plan.parameters["between"])
        inputs, masks = dict(batch.inputs), dict(batch.mask)
        for name, other in (names, names[::-1]):
            inputs[name] = put(batch.inputs[name], rows, batch.inputs[other][rows].to(batch.inputs[name]))
            if name in batch.mask or other in batch.mask:
                masks[name] = put(_steps(batch, name), rows, _steps(batch, other)[rows])
            batch = marked(batch, hit, batch.names.index(name), plan.severity)
        return replace(batch, inputs=inputs, mask=masks)


def _steps(batch: Batch, name: str) -> Tensor:
    """The mask of a modality, bool ``[B, T]``; where there is none, all steps of the rows that have it."""
    if name in batch.mask:
        return batch.mask[name]
    here, x = batch.present[:, batch.names.index(name)], batch.inputs[name]
    return here[:, None].expand(-1, x.shape[1]).clone()


def _class_name(data: Data, number: int) -> str:
    task = data.schema.task
    return repr(task.names[number]) if task.exclusive and number < len(task.names) else str(number)
