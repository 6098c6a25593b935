"""Fall-backs: who answers where the model cannot."""

from __future__ import annotations

from dataclasses import replace

import torch

from kintsugi.components.teachers import PREFIX, teachers_of
from kintsugi.core.batch import Batch
from kintsugi.core.methods import COMPONENTS
from kintsugi.core.prediction import Prediction
from kintsugi.core.schema import Schema
from kintsugi.core.wrappers import Answer, Monitor
from kintsugi.layers.vote import vote


@COMPONENTS.register("teacher_vote")
class TeacherVote(Monitor):
    """Rows with holes are answered by the product of the unimodal teachers of what is there."""

    uses = (f"{PREFIX}*",)

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.task = schema.task

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        prediction = inner(batch)
        holes = ~batch.present.all(1) & batch.present.any(1)
        if not bool(holes.any()):
            return prediction
        teachers = teachers_of(self.pipeline_in_use).values()
        alone = torch.stack([teacher(batch).output for teacher in teachers], 1)
        merged, _ = vote(alone, batch.present, self.task, "product")
        whole = prediction.fall_back(~holes, merged.mean(0))  # what the student thinks of a row with holes is nobody's
        return replace(whole, output=torch.where(holes[:, None], merged, prediction.output), used=prediction.used)
