"""Where training stands, on disk after every epoch: taken up again, it goes on exactly as if it had not stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from kintsugi.core.errors import KintsugiError, ModelFileError
from kintsugi.core.stage import Clock
from kintsugi.io.files import digest, read_bounded, replace_file, sweep
from kintsugi.io.saved_models import fill

NAME = "checkpoint"
MOST_BYTES = (
    256 << 30
)  # of a file: 16 billion numbers of 32 bits four times, as weights, both of Adam's means, and the best


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
    clocks = [[asdict(part.clock) for _, part in p.named_components()] for p in pipelines]  # type: ignore[operator]
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    facts: dict[str, Any] = {"position": asdict(position), "groups": groups, "clocks": clocks}
    facts["digest"] = _digest(facts, tensors)
    replace_file(folder / f"{NAME}.safetensors", dump_tensors(tensors, {"kintsugi": json.dumps(facts)}))


def _digest(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Of everything in the file: safetensors notices what is cut off, but not what is altered."""
    names = sorted(tensors)
    kinds = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    return digest(
        [{name: value for name, value in facts.items() if name != "digest"}, kinds],
        *(tensors[name].reshape(-1).view(torch.uint8).numpy().data for name in names),
    )


def _device(pipelines: Sequence[nn.Module]) -> torch.device:
    return next(pipelines[-1].parameters()).device


class Checkpoint:
    """A checkpoint that was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = read_bounded(path, MOST_BYTES, "checkpoint")
            self.tensors = load_tensors(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            facts = json.loads(header["__metadata__"]["kintsugi"])
            if "sum" in facts and "digest" not in facts:
                raise ModelFileError(
                    f"{path} was written by kintsugi 0.1.0, which can finish that training; "
                    "or delete it to train from the start"
                )
            if facts["digest"] != _digest(facts, self.tensors):
                raise ValueError("it was altered: its digest differs")
            self.position = Position(**facts["position"])
            self.groups, self.clocks = facts["groups"], facts["clocks"]
        except ModelFileError:
            raise
        except Exception as error:  # the parsers of safetensors and JSON, and whatever their values do not fit
            raise ModelFileError(
                f"{path} is damaged ({str(error)[:200] or type(error).__name__}); delete it to train from the start"
            ) from error

    def restore_run(
        self, pipelines: Sequence[nn.Module], optimizer: torch.optim.Optimizer | None
    ) -> dict[str, Tensor] | None:
        """Put every weight, the optimiser and the random state back; the best weights so far are returned.

        Raises:
            ModelFileError: it is of another training than this one.
        """
        try:
            return self._restore_run(pipelines, optimizer)
        except KintsugiError:
            raise
        except Exception as error:  # torch, of what does not fit
            raise ModelFileError(
                f"{self.path} does not fit this training ({str(error)[:200] or type(error).__name__}); "
                "delete it to start anew"
            ) from error

    def _restore_run(
        self, pipelines: Sequence[nn.Module], optimizer: torch.optim.Optimizer | None
    ) -> dict[str, Tensor] | None:
        for i, pipeline in enumerate(pipelines):
            self._fill(pipeline, f"pipeline.{i}.")
            for (_, part), clock in zip(pipeline.named_components(), self.clocks[i], strict=True):  # type: ignore[operator]
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
        sweep(folder)
        if not any(folder.iterdir()):
            folder.rmdir()


__all__ = ["Checkpoint", "Position", "discard", "find", "write_checkpoint"]
