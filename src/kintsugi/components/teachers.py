"""Teachers: models that others learn from or fall back on."""

from __future__ import annotations

from kintsugi.core.methods import COMPONENTS
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Stage

PREFIX = "teacher_"


@COMPONENTS.register("unimodal_teacher")
class UnimodalTeacher(Model):
    """A model of one modality, which it reads out of rows that have more; trained on every row that owns it."""

    def __init__(self, schema: Schema, modality: str, dim: int = 32) -> None:
        super().__init__(Schema((schema[modality],), schema.task), dim)
        self.modality = modality

    def stages(self) -> list[Stage]:
        return [Stage(f"teacher of {self.modality}", rows=f"has:{self.modality}")]


def teachers_of(pipeline: Pipeline) -> dict[str, UnimodalTeacher]:
    """The unimodal teachers that a pipeline shares as ``teacher_<modality>``, by modality."""
    return {
        name.removeprefix(PREFIX): teacher
        for name, teacher in pipeline.shared.items()
        if name.startswith(PREFIX) and isinstance(teacher, UnimodalTeacher)
    }
