"""Which registered things a pipeline is made of, with their versions."""

from __future__ import annotations

from contextlib import suppress

from kintsugi.core.encoder import ENCODERS, Encoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS, address
from kintsugi.core.part import Part
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import TASKS


def versions_of(pipeline: Pipeline) -> dict[str, int]:
    """``method mmin``, ``encoder image``, ``task classification`` -> version, of all that this pipeline is made of.

    A helper part counts as the method in whose file it is; encoders of the user's own have no version.
    """
    task = pipeline.schema.task.key
    versions = {f"task {task}": TASKS.version(task)}
    for module in pipeline.modules():
        if isinstance(module, Encoder) and module.kind:
            versions[f"encoder {module.kind}"] = ENCODERS.version(module.kind)
        elif isinstance(module, Part):
            with suppress(ConfigError):  # a part of no registered method, which saving refuses
                key = address(module).partition(".")[0]
                versions[f"method {key}"] = METHODS.card(key).version
    return dict(sorted(versions.items()))
