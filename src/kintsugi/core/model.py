"""encode -> complete -> fuse -> head: the flow that every model follows, and the hooks it may override."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.component import Component
from kintsugi.core.encoder import evaluating, make_encoder
from kintsugi.core.errors import DataError
from kintsugi.core.features import Features, Fused, Stream
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.schema import Schema, StreamSpec
from kintsugi.core.stage import Stage

if TYPE_CHECKING:
    from kintsugi.core.data import Data


class Model(Component):
    """A model of the plain kind: encode each modality, average what is there, ask the task's head.

    Args:
        schema: the modalities and the task.
        dim: width of every token.
        fused: what :meth:`fuse` leaves, so that the head fits; None where the method brings its own.
    """

    encoding: ClassVar[Literal["separate", "joint"]] = "separate"
    prior: Tensor

    def __init__(
        self,
        schema: Schema,
        dim: int = 32,
        fused: StreamSpec | int | None = -1,
    ) -> None:
        super().__init__()
        self.schema, self.dim, self.task = schema, dim, schema.task
        self.encoders = nn.ModuleDict()
        if self.encoding == "separate":
            for m in schema.modalities:
                self.encoders[m.name] = make_encoder(m, dim)
        if fused is not None:
            spec = fused if isinstance(fused, StreamSpec) else StreamSpec(dim if fused == -1 else fused)
            self.task_head = schema.task.head(spec)
        self.register_buffer("prior", torch.zeros(schema.task.prior_shape))

    def stages(self) -> list[Stage]:
        return [Stage("train")]

    def encode(self, batch: Batch, encoders: Mapping[str, nn.Module] | nn.ModuleDict | None = None) -> Features:
        """Each encoder on its present rows only."""
        chosen = self.encoders if encoders is None else encoders
        streams = {name: self.encode_one(name, batch, chosen[name]) for name in self.schema.names}
        return Features(streams, self.columns(batch), batch.identity)

    def columns(self, batch: Batch) -> Tensor:
        """``present`` of this model's own modalities: a model of few may read a batch of many."""
        if batch.names == self.schema.names:
            return batch.present
        return batch.present[:, [batch.names.index(name) for name in self.schema.names]]

    def encode_only(self, names: Sequence[str], batch: Batch) -> dict[str, Stream]:
        """The streams of some modalities, where models of encoding ``separate`` are asked for one version of an input.

        A class with its own :meth:`encode` is asked through it, with nothing else present.
        """
        if type(self).encode is Model.encode:
            return {name: self.encode_one(name, batch, self.encoders[name]) for name in names}
        streams = self.encode(batch.only(*names)).streams
        return {name: streams[name] for name in names}

    def encode_one(self, name: str, batch: Batch, encoder: nn.Module) -> Stream:
        """The stream of one modality; zero in absent rows, whose content is never touched."""
        here = batch.present[:, batch.names.index(name)]
        x, mask = batch.inputs[name], batch.mask.get(name)
        count = int(here.sum())
        if count == len(here) and count:
            return _stream(encoder(x, mask))
        if count:
            rows = here.nonzero().flatten()
            part = _stream(encoder(x[rows], None if mask is None else mask[rows]))
        else:  # a zero-weight row: tells the shape, and keeps every process of a distributed run in step
            rows = torch.zeros(0 if not len(here) else 1, dtype=torch.int64, device=here.device)
            dummy = x.new_zeros(1, *x.shape[1:])
            part = _stream(encoder(dummy, None if mask is None else mask.new_ones(1, *mask.shape[1:])))
            part = part.where(torch.zeros(1, dtype=torch.bool, device=here.device)).rows(slice(0, len(rows)))  # type: ignore[arg-type]

        def scatter(values: Tensor) -> Tensor:  # in the encoder's own dtype: bfloat16 under mixed precision
            return values.new_zeros(len(here), *values.shape[1:]).index_copy(0, rows, values)

        return Stream(
            scatter(part.tokens), scatter(part.mask.to(torch.uint8)).bool(), part.grid, tuple(map(scatter, part.finer))
        )

    def complete(self, features: Features) -> Features:
        """Stand-ins for what is absent."""
        return features

    def fuse(self, features: Features) -> Fused:
        """Default: the mean over present modalities."""
        pooled = features.pooled()
        weights = features.present.to(pooled.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
        return Fused.vector((pooled * weights[..., None]).sum(1), weights=weights)

    def head(self, fused: Fused, features: Features) -> Prediction:
        """Default: the task's head."""
        return Prediction(self.task_head(fused), features.present, fused.pooled(), weights=fused.weights)

    def enough(self, present: Tensor) -> Tensor:
        """Bool ``[B]``: rows that hold enough to be answered; the others get the prior."""
        return present.any(1)

    @final
    def predict(self, features: Features) -> Prediction:
        """complete, fuse, head; rows with too little get the prior."""
        present = features.present
        completed = self.complete(features)
        prediction = self.head(self.fuse(completed), completed)
        return prediction.where_present(self.schema.names, present).fall_back(self.enough(present), self.prior)

    @final  # type: ignore[misc]
    def forward(self, batch: Batch) -> Prediction:
        return self.predict(self.encode(batch))

    def step(self, batch: Batch) -> Step:
        """The objective; default: the task's loss alone. A second batch, where the stage asks for one, is ``batch.auxiliary``."""
        prediction: Prediction = self(batch)
        return Step({"task": self.task.loss(prediction.output, batch)}, prediction)

    def solve(self, features: Features, batch: Batch) -> None:
        """Closed form, for stages with ``solve=True``: all rows of the stage at once."""
        raise NotImplementedError(f"{type(self).__name__} has a solve stage but no solve()")

    def call(self, params: Mapping[str, Tensor], batch: Batch) -> Prediction:
        """``forward`` with some parameters replaced, for inner loops."""
        prediction: Prediction = torch.func.functional_call(self, dict(params), (batch,))
        return prediction

    @torch.no_grad()
    def encode_rows(self, data: Data, rows: str = "all", size: int = 256) -> Features:
        """Features of all these rows, in evaluation mode and in the order of the table; for ``prepare`` and ``settle``."""
        device = self.prior.device
        with evaluating(self):
            parts = [self.encode(batch.to(device)) for batch in data.batches(size, data.positions(rows)) if len(batch)]
        if not parts:
            raise DataError(f"{data.name} has no {rows} rows to encode")
        streams = {
            name: Stream(
                torch.cat([p.streams[name].tokens for p in parts]),
                torch.cat([p.streams[name].mask for p in parts]),
                parts[0].streams[name].grid,
                tuple(torch.cat(f) for f in zip(*(p.streams[name].finer for p in parts), strict=True)),
            )
            for name in parts[0].streams
        }
        identities = [p.identity for p in parts if p.identity is not None]
        return Features(streams, torch.cat([p.present for p in parts]), torch.cat(identities) if identities else None)


def _stream(out: Any) -> Stream:
    return out if isinstance(out, Stream) else Stream.vector(out)
