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

from kintsugi.core.errors import ConfigError, KintsugiError, ModelFileError
from kintsugi.core.methods import address, part_class
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
    target = Path(folder).resolve()
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; a saved model is a folder")
    if target.exists() and any(target.iterdir()) and not (target / CONFIG).exists():
        raise ConfigError(f"{target} is not empty and holds no saved model; choose another folder")
    state = _state(pipeline)
    weights = dump_tensors(state)
    config = {
        "format": FORMAT,
        "parts": {path: describe_part(part) for path, part in pipeline.named_parts()},
        "schema": pipeline.schema.to_json(),
        "tensors": {name: _kind(tensor) for name, tensor in state.items()},
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
    return Path(folder)


def _swap(fresh: Path, target: Path) -> None:
    if not target.exists():
        os.rename(fresh, target)
        return
    old = fresh.with_name(fresh.name + ".old")
    os.rename(target, old)
    try:
        os.rename(fresh, target)
    except BaseException:
        os.rename(old, target)
        raise
    for child in old.iterdir():  # what else lives there, such as a checkpoint, goes along
        if child.name not in (CONFIG, WEIGHTS):
            os.rename(child, target / child.name)
    shutil.rmtree(old)


def write(path: Path, content: bytes) -> None:
    """Write and flush to the disk, so that a full disk is noticed here."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load(
    folder: str | os.PathLike[str], encoders: Mapping[str, nn.Module] | None = None
) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline, and what was saved beside it.

    Raises:
        ModelFileError: not a saved model, truncated, altered, of another format, or a pickle in disguise.
        UnknownName: it was saved with a method that is not registered here.
        ConfigError: encoders of the user's own that the model was built with are not given, or others are.
    """
    source = Path(folder)
    config = _config(source)
    weights = _weights(source, config)
    own = {name for saved in config["parts"].values() for name in saved.get("own_encoders", ())}
    odd = sorted((encoders or {}).keys() - own)
    if odd:
        raise ConfigError(f"this model was built without an encoder of your own for {', '.join(odd)}; leave it out")
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and written over
        pipeline = _build(config, source, encoders)
    fill(pipeline, weights, _state(pipeline), f"{source}: the saved model", "save it again")
    return pipeline.eval(), config["extra"]


def _build(config: Mapping[str, Any], source: Path, encoders: Mapping[str, nn.Module] | None) -> Pipeline:
    try:
        schema = Schema.from_json(config["schema"])
        pipeline = assemble({path: build_part(saved, schema, encoders) for path, saved in config["parts"].items()})
        for path, part in pipeline.named_parts():
            for name, origin in config["parts"][path]["frozen"].items():
                part.keep_frozen(name, part.get_submodule(origin), save=True)
    except KintsugiError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{source / CONFIG} does not describe a model ({error}); save the model again") from error
    return pipeline


def describe_part(part: Part) -> dict[str, Any]:
    """What is needed to build the part again."""
    clock = vars(part.clock)
    frozen = {name: origin for name, (origin, saved) in part.frozen.items() if saved}
    try:
        json.dumps(part.hyper)
    except TypeError as error:
        raise ConfigError(f"{type(part).__name__} has an argument that cannot be saved as JSON: {error}") from error
    return {
        "class": address(part),
        "hyper": part.hyper,
        "clock": clock,
        "frozen": frozen,
        "own_encoders": list(part.own_encoders),
    }


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
    unsaved = [
        f"{path}.{name}." for path, p in pipeline.named_parts() for name, (_, kept) in p.frozen.items() if not kept
    ]
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
    parts = config["parts"]
    if (
        not isinstance(parts, dict)
        or "model" not in parts
        or not all(isinstance(saved, dict) for saved in parts.values())
    ):
        raise ModelFileError(f"{path} is damaged: it describes no model")
    return config


def _weights(source: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    path = source / WEIGHTS
    if not path.is_file():
        raise ModelFileError(f"{source} holds no {WEIGHTS}; the folder was copied in part")
    content = path.read_bytes()
    # the first eight bytes of safetensors are a length, which may look like the start of a pickle; its header follows
    if content[8:9] != b"{" and (content[:1] == b"\x80" or content[:2] == b"PK"):
        raise ModelFileError(f"{path} is a pickle, not safetensors; it is not opened, since a pickle can run any code")
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise ModelFileError(f"{path} is truncated or altered ({len(content)} bytes, checksum differs); copy it again")
    try:
        weights = load_tensors(content)
    except SafetensorError as error:
        raise ModelFileError(f"{path} is not a safetensors file: {error}") from error
    if {name: _kind(tensor) for name, tensor in weights.items()} != config["tensors"]:
        raise ModelFileError(f"{path} and {CONFIG} list different tensors; they are not of one save")
    return weights


def _kind(tensor: Tensor) -> list[Any]:
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]


def fill(root: nn.Module, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], who: str, remedy: str) -> None:
    """Load weights; what is not learned takes the size that it had, since that may depend on the data."""
    device = next((tensor.device for tensor in root.state_dict().values()), None)
    for name in sorted(weights.keys() - expected.keys()):  # buffers of data-dependent size that start as None
        module, leaf = _owner(root, name)
        if module is None or module._buffers.get(leaf, 0) is not None or leaf in module._non_persistent_buffers_set:
            raise ModelFileError(f"{who} holds {name}, which its class does not have; {remedy}")
        module._buffers[leaf] = torch.empty_like(weights[name], device=device)
    lacking = sorted(expected.keys() - weights.keys())
    if lacking:
        raise ModelFileError(f"{who} lacks {', '.join(lacking[:5])}; {remedy}")
    for name, tensor in expected.items():
        if tensor.shape != weights[name].shape:
            _resize(root, name, weights[name], f"{who} has another size than its class makes it; {remedy}")
    root.load_state_dict(weights, strict=False)


def _resize(root: nn.Module, name: str, like: Tensor, problem: str) -> None:
    module, leaf = _owner(root, name)
    assert module is not None
    old = module._buffers.get(leaf)
    if old is not None:
        module._buffers[leaf] = torch.empty_like(like, device=old.device)
        return
    parameter = module._parameters[leaf]
    assert parameter is not None
    if parameter.requires_grad:
        raise ModelFileError(f"{problem} ({name}: {list(like.shape)}, not {list(parameter.shape)})")
    module._parameters[leaf] = nn.Parameter(torch.empty_like(like, device=parameter.device), requires_grad=False)


def _owner(root: nn.Module, name: str) -> tuple[nn.Module | None, str]:
    path, _, leaf = name.rpartition(".")
    try:
        return root.get_submodule(path), leaf
    except AttributeError:
        return None, leaf
