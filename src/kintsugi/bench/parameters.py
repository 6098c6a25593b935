"""Parameters of a trial with every default written out, so that a default that changes is another trial."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from kintsugi.bench.suite_trainer import OWN
from kintsugi.bench.trial import canonical
from kintsugi.core.errors import ConfigError

if TYPE_CHECKING:
    from kintsugi.bench.job import Job


def resolved_params(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a method: those given, and the defaults of the others.

    A default that JSON does not have is left out: the version of the method stands for it.

    Args:
        method: key.
        params: those given, under their names of today or of before; an integer counts as the number that the default is.
    """
    from kintsugi.core.methods import METHODS, arguments, current_names

    cls = METHODS[method]
    usual = arguments(cls)
    resolved = {name: _plain(name, value) for name, value in usual.items() if _is_plain(value)}
    named = current_names(cls, params)
    return resolved | {name: _plain(name, _like(usual.get(name), value)) for name, value in named.items()}


def resolved_trainer(job: Job) -> dict[str, Any]:
    """Every setting of the trainer that a job trains with, but for the seed, which is the trial's, and what changes nothing."""
    from kintsugi.bench.work import estimator_of
    from kintsugi.training.trainer import Trainer

    trainer = estimator_of(job)._trainer()
    usual = inspect.signature(Trainer).parameters
    return {
        f.name: _plain(f.name, _like(usual[f.name].default, getattr(trainer, f.name)))
        for f in fields(Trainer)
        if f.name not in OWN and not (f.name == "updates" and trainer.updates is None)  # trials of before have none
    }


def _like(default: Any, value: Any) -> Any:
    """4 where the default is 2.0 is 4.0; likewise inside lists."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, list | tuple) and isinstance(value, list | tuple) and default:
        return [_like(default[min(place, len(default) - 1)], each) for place, each in enumerate(value)]
    return value


def _plain(name: str, value: Any) -> Any:
    """As it comes back from a store: tuples are lists there."""
    return json.loads(canonical(value, f"argument {name}"))


def _is_plain(value: Any) -> bool:
    try:
        canonical(value, "default")
    except ConfigError:
        return False
    return True
