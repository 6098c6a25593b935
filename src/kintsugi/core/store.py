"""Saved models: a folder with safetensors and JSON, never a pickle, written so that an old model survives a full disk."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError, ModelFileError
from kintsugi.core.methods import address, part_class
from kintsugi.core.model import Model
from kintsugi.core.part import Part
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Clock

FORMAT = 1
CONFIG, WEIGHTS = "model.json", "model.safetensors"


def save(pipeline: Pipeline, folder: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> Path:
    """Write the model beside the old one and swap, so that a failure leaves the old one intact.

    Raises:
        OSError: the disk is full or not writable; what was there before still is.
        ConfigError: the folder exists and holds something other than a saved model.
    """
    target = Path(folder)
    if target.exists() and any(target.iterdir()) and not (target / CONFIG).exists():
        raise ConfigError(f"{target} is not empty and holds no saved model; choose another folder")
    weights = dump_tensors(_state(pipeline))
    config = {
        "format": FORMAT,
        "parts": {path: describe_part(part) for path, part in pipeline.named_parts()},
        "schema": pipeline.schema.to_json(),
        "tensors": {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in _state(pipeline).items()},
        "sha256": hashlib.sha256(weights).hexdigest(),
        "reference": any(getattr(p, "card", None) is not None and p.card.reference for _, p in pipeline.named_parts()),
        "extra": dict(extra or {}),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        write(fresh / WEIGHTS, weights)
        write(fresh / CONFIG, json.dumps(config, indent=1).encode())
        os.chmod(fresh, 0o755)
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _swap(fresh: Path, target: Path) -> None:
    if not target.exists():
        os.rename(fresh, target)
        return
    for child in target.iterdir():  # what else lives there, such as a checkpoint, goes along
        if child.name not in (CONFIG, WEIGHTS):
            os.rename(child, fresh / child.name)
    old = fresh.with_name(fresh.name + ".old")
    os.rename(target, old)
    os.rename(fresh, target)
    shutil.rmtree(old)


def write(path: Path, content: bytes) -> None:
    """Write and flush to the disk, so that a full disk is noticed here."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load(folder: str | os.PathLike[str], encoders: Mapping[str, nn.Module] | None = None) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline, and what was saved beside it.

    Raises:
        ModelFileError: not a saved model, truncated, altered, of another format, or a pickle in disguise.
        ConfigError: the model was built with encoders of the user's own and they were not given.
    """
    source = Path(folder)
    config = _config(source)
    weights = _weights(source, config)
    schema = Schema.from_json(config["schema"])
    parts: dict[str, Part] = {}
    for path, saved in config["parts"].items():
        parts[path] = build_part(saved, schema, encoders)
    pipeline = assemble(parts)
    for path, part in pipeline.named_parts():
        for name, origin in config["parts"][path]["frozen"].items():
            part.keep_frozen(name, part.get_submodule(origin), save=True)
    _fill(pipeline, weights, source)
    return pipeline.eval(), config["extra"]


def describe_part(part: Part) -> dict[str, Any]:
    """What is needed to build the part again."""
    clock = vars(part.clock)
    frozen = {name: origin for name, (origin, saved) in part.frozen.items() if saved}
    own = list(part.own_encoders) if isinstance(part, Model) else []
    try:
        json.dumps(part.hyper)
    except TypeError as error:
        raise ConfigError(f"{type(part).__name__} has an argument that cannot be saved as JSON: {error}") from error
    return {"class": address(part), "hyper": part.hyper, "clock": clock, "frozen": frozen, "own_encoders": own}


def build_part(saved: Mapping[str, Any], schema: Schema, encoders: Mapping[str, nn.Module] | None = None) -> Part:
    """The part that :func:`describe_part` described, untrained."""
    cls = part_class(saved["class"])
    hyper = dict(saved["hyper"])
    if saved["own_encoders"]:
        lacking = [name for name in saved["own_encoders"] if name not in (encoders or {})]
        if lacking:
            raise ConfigError(
                f"this model was built with your own encoder for {', '.join(lacking)}: "
                f"load(folder, encoders={{{lacking[0]!r}: module, …}}) with modules of the same shape"
            )
        hyper["encoders"] = {name: (encoders or {})[name] for name in saved["own_encoders"]}
    part: Part = cls(schema, **hyper)  # type: ignore[call-arg]
    part.clock = Clock(**saved["clock"])
    return part


def assemble(parts: Mapping[str, Part]) -> Pipeline:
    """A pipeline from parts under their paths."""

    def group(name: str) -> list[Any]:
        return [part for path, part in parts.items() if path.startswith(name + ".")]

    return Pipeline(parts["model"], parts.get("restore"), group("strategies"), group("monitors"))  # type: ignore[arg-type]


def clone(pipeline: Pipeline) -> Pipeline:
    """An independent copy with its weights."""
    return copy.deepcopy(pipeline)


def _state(pipeline: Pipeline) -> dict[str, Tensor]:
    unsaved = [f"{path}.{name}." for path, p in pipeline.named_parts() for name, (_, kept) in p.frozen.items() if not kept]
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in pipeline.state_dict().items()
        if not any(name.startswith(prefix) for prefix in unsaved)
    }


def _config(source: Path) -> dict[str, Any]:
    path = source / CONFIG
    if not path.is_file():
        hint = f"; {source} does not exist" if not source.exists() else f": it holds no {CONFIG}"
        raise ModelFileError(f"{source} is not a saved model{hint}")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged ({error}); save the model again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise ModelFileError(f"{path} has format {found!r}; this version reads format {FORMAT}")
    missing = {"parts", "schema", "tensors", "sha256", "extra"} - config.keys()
    if missing:
        raise ModelFileError(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    return config


def _weights(source: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    path = source / WEIGHTS
    if not path.is_file():
        raise ModelFileError(f"{source} holds no {WEIGHTS}; the folder was copied in part")
    content = path.read_bytes()
    if content[:1] == b"\x80" or content[:2] == b"PK":
        raise ModelFileError(f"{path} is a pickle, not safetensors; it is not opened, since a pickle can run any code")
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise ModelFileError(f"{path} is truncated or altered ({len(content)} bytes, checksum differs); copy it again")
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise ModelFileError(f"{path} is not a safetensors file: {error}") from error


def _fill(pipeline: Pipeline, weights: Mapping[str, Tensor], source: Path) -> None:
    expected = _state(pipeline)
    unknown = weights.keys() - expected.keys()
    lacking = expected.keys() - weights.keys()
    for name in sorted(unknown):  # buffers of data-dependent size that start as None
        module, leaf = _owner(pipeline, name)
        if module is None or leaf not in module._buffers:
            raise ModelFileError(f"{source}: the saved model holds {name}, which its class does not have")
        module._buffers[leaf] = torch.empty_like(weights[name])
    if lacking:
        raise ModelFileError(f"{source}: the saved model lacks {', '.join(sorted(lacking)[:5])}")
    for name, tensor in expected.items():
        if tensor.shape != weights[name].shape:
            resize(pipeline, name, weights[name])
    pipeline.load_state_dict(weights, strict=False)


def resize(pipeline: nn.Module, name: str, like: Tensor) -> None:
    """Make room for a tensor whose size depends on the data."""
    module, leaf = _owner(pipeline, name)
    assert module is not None
    if leaf in module._buffers:
        module._buffers[leaf] = torch.empty_like(like)
    else:
        old = module._parameters[leaf]
        assert old is not None
        module._parameters[leaf] = nn.Parameter(torch.empty_like(like), requires_grad=old.requires_grad)


def _owner(root: nn.Module, name: str) -> tuple[nn.Module | None, str]:
    path, _, leaf = name.rpartition(".")
    try:
        return root.get_submodule(path), leaf
    except AttributeError:
        return None, leaf
