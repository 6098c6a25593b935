"""Where training stands, on disk after every epoch: taken up again, it goes on exactly as if it had not stopped."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from kintsugi.core.errors import ModelFileError
from kintsugi.core.stage import Clock
from kintsugi.core.store import fill, write

NAME = "checkpoint"


@dataclass
class Position:
    """run: how many stages were begun before; epoch: how many epochs of this one are done; best: validation score so far."""

    key: str
    run: int
    epoch: int
    best: float | None = None
    waited: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def write_checkpoint(
    folder: Path, position: Position, pipelines: Sequence[nn.Module], optimizer: torch.optim.Optimizer | None,
    best: Mapping[str, Tensor] | None,
) -> None:  # fmt: skip
    """Replace the checkpoint in one move: a kill at any moment leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
    device = _device(pipelines)
    if device.type == "cuda":
        tensors["rng_cuda"] = torch.cuda.get_rng_state(device)
    for i, pipeline in enumerate(pipelines):
        tensors |= {f"pipeline.{i}.{name}": t for name, t in pipeline.state_dict().items()}
    tensors |= {f"best.{name}": t for name, t in (best or {}).items()}
    groups: list[dict[str, Any]] = []
    if optimizer is not None:
        state = optimizer.state_dict()
        groups = state["param_groups"]
        for i, values in state["state"].items():
            tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(v) for name, v in values.items()}
    clocks = [[asdict(part.clock) for _, part in p.named_parts()] for p in pipelines]  # type: ignore[operator]
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    said = {"position": asdict(position), "groups": groups, "clocks": clocks, "sum": _sum(tensors)}
    fresh = folder / f".{NAME}.{os.getpid()}"
    try:
        write(fresh, dump_tensors(tensors, {"kintsugi": json.dumps(said)}))
        os.replace(fresh, folder / f"{NAME}.safetensors")
    finally:
        fresh.unlink(missing_ok=True)


def _sum(tensors: Mapping[str, Tensor]) -> int:
    """A checksum: safetensors notices what is cut off, but not what is altered."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(
            tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes(), zlib.crc32(name.encode(), total)
        )
    return total


def _device(pipelines: Sequence[nn.Module]) -> torch.device:
    return next(pipelines[-1].parameters()).device


class Checkpoint:
    """A checkpoint that was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = path.read_bytes()
            self.tensors = load_tensors(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            said = json.loads(header["__metadata__"]["kintsugi"])
            if said["sum"] != _sum(self.tensors):
                raise ValueError("checksum differs")
            self.position = Position(**said["position"])
            self.groups, self.clocks = said["groups"], said["clocks"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(f"{path} is damaged ({error}); delete it to train from the start") from error

    def restore_run(
        self, pipelines: Sequence[nn.Module], optimizer: torch.optim.Optimizer | None
    ) -> dict[str, Tensor] | None:
        """Put every weight, the optimiser and the random state back; the best weights so far are returned."""
        for i, pipeline in enumerate(pipelines):
            self._fill(pipeline, f"pipeline.{i}.")
            for (_, part), clock in zip(pipeline.named_parts(), self.clocks[i], strict=True):  # type: ignore[operator]
                part.clock = Clock(**clock)
        if optimizer is not None:
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in self._under("optimizer.").items():
                number, _, key = name.partition(".")
                state.setdefault(int(number), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": self.groups})
        torch.set_rng_state(self.tensors["rng"])
        if "rng_cuda" in self.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.tensors["rng_cuda"], _device(pipelines))
        best = self._under("best.")
        return best or None

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}

    def _fill(self, pipeline: nn.Module, prefix: str) -> None:
        fill(
            pipeline,
            self._under(prefix),
            pipeline.state_dict(),
            f"{self.path}: the checkpoint",
            "delete it to start anew",
        )


def find(folder: Path | None) -> Checkpoint | None:
    """The checkpoint in this folder, if there is one."""
    if folder is None or not (folder / f"{NAME}.safetensors").exists():
        return None
    return Checkpoint(folder / f"{NAME}.safetensors")


def discard(folder: Path | None) -> None:
    """Training is done: the checkpoint goes, and its folder if nothing else is in it."""
    if folder is not None and folder.is_dir():
        (folder / f"{NAME}.safetensors").unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


__all__ = ["Checkpoint", "Position", "discard", "find", "write_checkpoint"]
