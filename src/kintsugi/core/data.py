"""What a method may ask of data. The concrete kind, with files and holes, lives in ``kintsugi.data``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Schema


class Data(ABC):
    """Rows with holes, read in batches.

    index: int64 ``[N]``: position of each row in its source; present: bool ``[N, M]`` as a method gets it;
    target ``[N, ...]`` or None; target_present: bool ``[N]``.
    trusted: bool ``[N]``: rows whose label is known to be right; None: nothing says, so each is trusted that has a label.
    """

    schema: Schema
    name: str
    index: Tensor
    present: Tensor
    target: Tensor | None
    target_present: Tensor
    trusted: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    @abstractmethod
    def batch(self, rows: Tensor) -> Batch:
        """The rows at these positions (int64 ``[B]``)."""

    @abstractmethod
    def subset(self, rows: Tensor | Sequence[int]) -> Data:
        """Only these positions, in this order; ``index`` goes along."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the content and of everything that was done to it."""

    @property
    def reference(self) -> Data:
        """Clean rows whose statistics say how large a damage is: the training rows, where it is known which these are.

        They are without what a simulator hid in them.
        """
        return self

    def identified(self) -> Data:
        """The same rows, whose batches carry ``identity`` where this kind of data can tell rows of several tables apart."""
        return self

    def units(self, modality: str) -> tuple[Tensor, Tensor] | None:
        """Offset and factor, ``[C]`` each, that were taken off the values: original = offset + factor * value; None: none."""
        return None

    def positions(self, rows: str) -> Tensor:
        """Positions of the rows that a stage names (see :class:`~kintsugi.core.stage.Stage`)."""
        here = self.present.any(1)
        match rows:
            case "all":
                keep = here
            case "complete":
                keep = self.present.all(1)
            case "incomplete":
                keep = here & ~self.present.all(1)
            case "labelled":
                keep = here & self.target_present
            case "trusted":
                labelled = here & self.target_present
                keep = labelled if self.trusted is None else labelled & self.trusted
            case "unlabelled":
                keep = here & ~self.target_present
            case _ if rows.startswith("has:"):
                keep = self.present[:, self.schema.column(rows[4:])]
            case _:
                raise ConfigError(f"unknown rows {rows!r}")
        return keep.nonzero().flatten()

    def batches(self, size: int, rows: Tensor | None = None) -> Iterator[Batch]:
        """All rows, or these, in order."""
        order = torch.arange(len(self)) if rows is None else rows
        for chunk in order.split(size):
            yield self.batch(chunk)


@dataclass
class Splits:
    """Training and validation rows; where they are asked for, test rows, and an auxiliary table.

    auxiliary: what only stages of training read that ask for it: pairs, unlabelled rows, enrolment.
    """

    train: Data
    val: Data
    test: Data | None = None
    auxiliary: Data | None = None
