"""What a check of a method's defining property gets: the method and a small world to try it in."""

from __future__ import annotations

from typing import Any, Protocol

from kintsugi.core.batch import Batch
from kintsugi.core.data import Splits
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Schema


class Fixture(Protocol):
    """:class:`kintsugi.testing.fixture.Fixture`, as methods know it, so that they need not import the trainer."""

    data: Any
    splits: Splits
    schema: Schema
    epochs: int
    seed: int

    def world(
        self, *, kind: str = "vector", holes: float = 0.0, correlated: bool = False, task: str | None = None,
        modalities: int | None = None, rows: int = 480,
    ) -> Fixture:  # fmt: skip
        """The same method with other data: of another kind, with holes, with correlated channels, for another task."""
        ...

    def pipeline(self, **hyper: Any) -> Pipeline:
        """Untrained."""
        ...

    def trained(self, **hyper: Any) -> Pipeline:
        """Trained on the training rows; a copy of one's own."""
        ...

    def train(self, pipeline: Pipeline) -> Pipeline:
        """This pipeline, trained on the training rows as they now are."""
        ...

    def batch(self, rows: int = 32, part: str = "test") -> Batch:
        """The first rows of a part; complete ones where the world has no holes."""
        ...
