"""Saved models: a folder with safetensors and JSON, never a pickle, written so that there is a model at any moment."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from kintsugi import __version__
from kintsugi.core.catalogue import HOME
from kintsugi.core.component import Component
from kintsugi.core.encoder import check_encoders, own_encoders
from kintsugi.core.errors import ConfigError, DataError, KintsugiError, ModelFileError, UnknownName
from kintsugi.core.inventory import versions_held
from kintsugi.core.methods import COMPONENTS, METHODS, SHARED, address, component_class
from kintsugi.core.pipeline import Pipeline, Recipe
from kintsugi.core.randomness import private_draws
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Clock
from kintsugi.core.versions import READING
from kintsugi.io.files import NoSuchFile, digest, is_temporary, read_bounded, replace_file, taking_turns
from kintsugi.io.json_text import read_json

FORMAT = 3
FORMATS = (1, 2, FORMAT)
CONFIG = "model.json"
FIXED_WEIGHTS = "model.safetensors"  # of format 1, whose description has neither their name nor a digest
MOST_CONFIG = 256 << 20  # bytes: a million categories that a column is known to have take 20 MB
ATTEMPTS = 20  # readings of a folder that others save to meanwhile, before its weights count as lost
_WEIGHTS = re.compile(r"model-[0-9a-f]{16}\.safetensors")


def save(pipeline: Pipeline, folder: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> Path:
    """Write the model so that a kill at any moment leaves the old one or the new one, and a reader meets one of them.

    Weights get a name of their own, then the description that names them is replaced in one move, then what is
    superseded is removed. Savers to one folder take turns.

    Raises:
        OSError: the disk is full or not writable; what was there before still is.
        ConfigError: the folder exists and holds something other than a saved model.
    """
    target = Path(folder).resolve()
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; a saved model is a folder")
    state = _state(pipeline)
    parts = {path: describe_component(part) for path, part in pipeline.served().items()}
    # those of what only training needs are gone by now, but sizes may rest on them, and training again does
    parts["model"]["own_encoders"] = sorted({*parts["model"]["own_encoders"], *pipeline.own_encoders})
    weights = dump_tensors(state)
    checksum = hashlib.sha256(weights).hexdigest()
    config: dict[str, Any] = {
        "format": FORMAT,
        "kintsugi": __version__,
        "versions": versions_held(pipeline) | ({"reading": READING} if (extra or {}).get("reading") else {}),
        "parts": parts,
        "training": _recipes(pipeline),
        "schema": pipeline.schema.to_json(),
        "tensors": {name: _kind(tensor) for name, tensor in state.items()},
        "weights": f"model-{checksum[:16]}.safetensors",
        "sha256": checksum,
        "reference": any(
            getattr(p, "card", None) is not None and p.card.reference for _, p in pipeline.named_components()
        ),
        "extra": dict(extra or {}),
    }
    config["digest"] = digest(config)
    is_new = not target.exists()
    with taking_turns(target):
        if strangers(target):
            raise ConfigError(f"{target} is not empty and holds no saved model; choose another folder")
        try:
            _remove_superseded(target)
            replace_file(target / config["weights"], weights)
            replace_file(target / CONFIG, json.dumps(config, indent=1).encode())
        finally:
            _remove_superseded(target)
            if is_new and not any(target.iterdir()):
                target.rmdir()
    return Path(folder)


def strangers(folder: Path) -> list[str]:
    """What keeps a model from being saved to a folder: names in it, none where a model is or where its first save was killed."""
    if not folder.exists() or (folder / CONFIG).exists():
        return []
    return sorted(child.name for child in folder.iterdir() if not _is_own(child.name))


def _is_own(name: str) -> bool:
    return _WEIGHTS.fullmatch(name) is not None or is_temporary(name)


def _remove_superseded(target: Path) -> None:
    """Weights that the description does not name."""
    try:
        named = _weights_name(_config(target), target)
    except ModelFileError:
        if (target / CONFIG).exists():  # damaged: nobody knows which weights are its own
            return
        named = ""
    for child in target.iterdir():
        if child.name != named and (_WEIGHTS.fullmatch(child.name) or (named and child.name == FIXED_WEIGHTS)):
            with contextlib.suppress(OSError):  # where a file that is being read stays, the next save removes it
                child.unlink()


def load(
    folder: str | os.PathLike[str], encoders: Mapping[str, nn.Module] | None = None
) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline, and what was saved beside it.

    Raises:
        ModelFileError: not a saved model, truncated, altered, of another format, or a pickle in disguise.
        UnknownName: it was saved with a method that is not registered here.
        ConfigError: encoders of the user's own that the model was built with are not given, or others are.
    """
    check_encoders(encoders)
    source = Path(folder)
    config, weights = _read(source)
    _check_encoders(config, encoders or {})
    with private_draws(), own_encoders(encoders):  # initial weights are drawn, and written over
        pipeline = _build(config, source)
    pipeline.own_encoders = dict(encoders or {})
    if config["format"] < 3:  # saved with what only training needs
        weights = {name: tensor for name, tensor in weights.items() if not _for_training(name, config)}
    _check_versions(config, versions_held(pipeline) | {"reading": READING}, source)
    fill(pipeline, weights, _state(pipeline), f"{source}: the saved model", "save it again")
    pipeline.remember()
    return pipeline.eval(), config["extra"]


def _check_encoders(config: Mapping[str, Any], encoders: Mapping[str, nn.Module]) -> None:
    own = {name for saved in config["parts"].values() for name in saved.get("own_encoders", ())}
    odd = sorted(encoders.keys() - own)
    if odd:
        raise ConfigError(f"this model was built without an encoder of your own for {', '.join(odd)}; leave it out")
    lacking = sorted(own - encoders.keys())
    if lacking:
        raise ConfigError(
            f"this model was built with your own encoder for {', '.join(lacking)}: "
            f"load(folder, encoders={{{lacking[0]!r}: module, …}}) with modules of the same shape"
        )


def _build(config: Mapping[str, Any], source: Path) -> Pipeline:
    try:
        schema = Schema.from_json(config["schema"])
        saved_parts = {p: saved for p, saved in config["parts"].items() if not p.startswith("strategies.")}
        components = {path: _part(saved, schema, config, source) for path, saved in saved_parts.items()}
        for component in components.values():
            component.strip()
        pipeline = assemble(components)
        for path, part in pipeline.named_components():
            for name, origin in config["parts"][path]["frozen"].items():
                part.keep_frozen(name, part.get_submodule(origin), save=True)
        before = {p: saved for p, saved in config["parts"].items() if p.startswith("strategies.")}
        for path, saved in {**before, **config.get("training", {})}.items():
            kind = _class(saved["class"], source)
            pipeline.recipes[path] = Recipe(kind, _of_today(kind, saved["hyper"]))
    except KintsugiError:
        raise
    except Exception as error:  # of constructors, with whatever arguments the file gives
        why = str(error)[:200] or type(error).__name__
        raise ModelFileError(f"{source / CONFIG} does not describe a model ({why}); save the model again") from error
    return pipeline


def _part(saved: Mapping[str, Any], schema: Schema, config: Mapping[str, Any], source: Path) -> Component:
    """The part that :func:`describe_component` described, untrained, built so that it answers as when it was saved."""
    key = saved["class"].partition(".")[0]  # as it was called when it was saved
    try:
        cls = _class(saved["class"], source)
    except UnknownName:
        if key in METHODS and (version := _version(config, f"method {key}", source)) != METHODS.card(key).version:
            # a helper component that this version of the method does without
            raise _other_version(config, f"method {key}", version, METHODS.card(key).version, source) from None
        raise
    hyper = _of_today(cls, saved["hyper"])
    name, now = (
        (key.replace(":", " "), COMPONENTS.version(key.removeprefix(SHARED)))
        if key.startswith(SHARED)
        else (f"method {key}", METHODS.card(key).version)
    )
    version = _version(config, name, source)
    if version != now:
        read = cls.arguments_of_version(version, hyper) if version < now else None
        if read is None:
            raise _other_version(config, name, version, now, source)
        hyper = read
    part = cls.build(schema, hyper)
    part.clock = Clock(**saved["clock"])
    return part


def _of_today(kind: type[Component], hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Saved arguments under their names of today; nobody can do anything about old ones, so nothing is said of them."""
    return {kind.renamed.get(name, name): value for name, value in hyper.items()}


def _class(address: str, source: Path) -> type[Component]:
    try:
        return component_class(address)
    except UnknownName as error:
        hint = (
            f" ({source} was saved with it; if it is in a file of your own: --plugin FILE, or kg.methods.load_plugin)"
        )
        raise UnknownName(error.what, error.name, error.known, hint) from error


def _for_training(tensor: str, config: Mapping[str, Any]) -> bool:
    """Does a tensor of a format before 3 belong to what no answer needs?"""
    if tensor.startswith("strategies."):
        return True
    for path, saved in config["parts"].items():
        if tensor.startswith(path + "."):
            name = tensor.removeprefix(path + ".").partition(".")[0]
            return name in component_class(saved["class"]).training_only
    return False


def _version(config: Mapping[str, Any], name: str, source: Path) -> int:
    """With which version it was saved; format 1 is of a time when everything had version 1."""
    if config["format"] == 1:
        return 1
    version = config["versions"].get(name)
    if type(version) is not int:
        raise ModelFileError(
            f"{source / CONFIG} is damaged: it does not say the version of {name}; save the model again"
        )
    return version


def _check_versions(config: Mapping[str, Any], versions: Mapping[str, int], source: Path) -> None:
    """Of what has no way to be read as it was: encoders, task, reading. Methods were looked at when they were built."""
    reads = isinstance(config["extra"], dict) and bool(config["extra"].get("reading"))
    for name, now in versions.items():
        if name.startswith(("method ", "component ")) or (name == "reading" and not reads):
            continue
        version = _version(config, name, source)
        if version != now:
            raise _other_version(config, name, version, now, source)


def _is_ours(key: str) -> bool:
    """Is it a method of this library?"""
    text = METHODS.entries.get(METHODS.current(key))
    return text is not None and text.file.is_relative_to(HOME)


def _other_version(config: Mapping[str, Any], name: str, version: int, now: int, source: Path) -> ModelFileError:
    by = config.get("kintsugi", "0.1.0")
    if name.startswith("method ") and not _is_ours(name.removeprefix("method ")):
        remedy = "take the file of the method as it was then, or train the model again"
    elif version < now:
        remedy = f"kintsugi {by} reads it; or train it again"
    else:
        remedy = f"update kintsugi: {by} reads it"
    return ModelFileError(
        f"{source} was saved by kintsugi {by} with version {version} of {name}, and here is version {now}, which answers "
        f"otherwise; {remedy}"
    )


def describe_component(part: Component) -> dict[str, Any]:
    """What is needed to build the component again."""
    clock = vars(part.clock)
    frozen = {name: origin for name, (origin, saved) in part.frozen.items() if saved}
    try:
        json.dumps(part.hyper)
    except TypeError as error:
        raise ConfigError(f"{type(part).__name__} has an argument that cannot be saved as JSON: {error}") from error
    return {
        "class": address(type(part)),
        "hyper": part.hyper,
        "clock": clock,
        "frozen": frozen,
        "own_encoders": list(part.own_encoders),
    }


def assemble(parts: Mapping[str, Component]) -> Pipeline:
    """A pipeline from parts under their paths."""

    def group(name: str) -> list[Any]:
        return [part for path, part in parts.items() if path.startswith(name + ".")]

    shared = {path.removeprefix("shared."): part for path, part in parts.items() if path.startswith("shared.")}
    return Pipeline(parts["model"], parts.get("restore"), group("strategies"), group("monitors"), shared)  # type: ignore[arg-type]


def clone(pipeline: Pipeline) -> Pipeline:
    """An independent copy with its weights."""
    return copy.deepcopy(pipeline)


def _state(pipeline: Pipeline) -> dict[str, Tensor]:
    """Of what is served, as it was calibrated: what was learned in use is not saved."""
    served = pipeline.served()
    unsaved = [f"{path}." for path, _ in pipeline.named_components() if path not in served]
    unsaved += [f"{path}.{name}." for path, component in served.items() for name in component.not_served()]
    return {
        name: pipeline.calibrated.get(name, tensor).detach().cpu().contiguous().clone()
        for name, tensor in pipeline.state_dict().items()
        if not name.startswith(tuple(unsaved))
    }


def _recipes(pipeline: Pipeline) -> dict[str, Any]:
    """Of the components that only training needs: how to build them again, without weights."""
    served = pipeline.served()
    here = {path: Recipe(type(c), c.hyper) for path, c in pipeline.named_components() if path not in served}
    recipes = {**pipeline.recipes, **here}
    return {path: {"class": address(recipe.kind), "hyper": recipe.hyper} for path, recipe in recipes.items()}


def _config(source: Path) -> dict[str, Any]:
    path = source / CONFIG
    if not path.is_file():
        hint = f"; {source} does not exist" if not source.exists() else f": it holds no {CONFIG}"
        raise ModelFileError(f"{source} is not a saved model{hint}")
    try:
        config: Any = read_json(read_bounded(path, MOST_CONFIG, "description of a model"), str(path))
    except NoSuchFile:  # superseded by nothing: somebody removed the model meanwhile
        raise ModelFileError(f"{source} is not a saved model: it holds no {CONFIG}") from None
    except DataError as error:
        raise ModelFileError(f"{path} is damaged ({error}); save the model again") from error
    version = config.get("format") if isinstance(config, dict) else None
    if version not in FORMATS or isinstance(version, bool | float):
        raise ModelFileError(
            f"{path} has format {version!r}; this version reads formats {' and '.join(map(str, FORMATS))}"
        )
    missing = {"parts", "schema", "tensors", "sha256", "extra"} - config.keys()
    missing |= {"weights", "digest", "kintsugi", "versions"} - config.keys() if version != 1 else set()
    if missing:
        raise ModelFileError(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    if version != 1 and config["digest"] != digest({name: v for name, v in config.items() if name != "digest"}):
        raise ModelFileError(f"{path} was altered: its digest differs; copy it again, or save the model again")
    parts = config["parts"]
    if (
        not isinstance(parts, dict)
        or "model" not in parts
        or not all(isinstance(saved, dict) for saved in parts.values())
        or not isinstance(config.get("versions", {}), dict)
        or not isinstance(config.get("training", {}), dict)
        or not all(isinstance(saved, dict) for saved in config.get("training", {}).values())
        or not all(isinstance(saved.get("own_encoders", []), list) for saved in parts.values())
    ):
        raise ModelFileError(f"{path} is damaged: it describes no model")
    return dict(config)


def _weights_name(config: Mapping[str, Any], source: Path) -> str:
    if config["format"] == 1:
        return FIXED_WEIGHTS
    name = config["weights"]
    if not isinstance(name, str) or not _WEIGHTS.fullmatch(name):  # else it could be any file of the machine
        raise ModelFileError(f"{source / CONFIG} is damaged: {name!r} is no name of weights")
    return name


def _read(source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights of one save, also while others save to the folder."""
    for _ in range(ATTEMPTS):
        config = _config(source)
        path = source / _weights_name(config, source)
        try:
            content = read_bounded(path, _most_bytes(config), "file of these weights")
        except NoSuchFile:  # superseded since the description was read
            continue
        except DataError as error:
            raise ModelFileError(f"{error}; or copy the model again") from error
        return config, _weights(path, content, config)
    raise ModelFileError(f"{source} holds no {path.name}; the folder was copied in part")


def _most_bytes(config: Mapping[str, Any]) -> int:
    """Bytes that a file of the weights that are listed can have: numbers of 16 bytes, and the list of them."""
    try:
        tensors = {name: math.prod(map(int, shape)) for name, (_, shape) in config["tensors"].items()}
    except (AttributeError, TypeError, ValueError):  # compared with those of the file afterwards
        tensors = {}
    return 1024 + sum(16 * count + len(json.dumps(name)) + 1024 for name, count in tensors.items() if count >= 0)


def _weights(path: Path, content: bytes, config: Mapping[str, Any]) -> dict[str, Tensor]:
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
