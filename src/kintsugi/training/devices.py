"""Where training runs. Lightning Fabric takes three seconds to import and is asked for only when it is needed."""

from __future__ import annotations

import atexit
from typing import Any

import torch
from torch import Tensor, distributed, nn

from kintsugi.core.pipeline import Pipeline


class Devices:
    """One device in float32: plain torch. Several devices, another precision or a strategy: Fabric."""

    def __init__(self, device: str, devices: int, precision: str | None, strategy: str | None) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.fabric: Any = None
        self.world, self.rank = 1, 0
        if devices > 1 or precision is not None or strategy is not None:
            try:
                from lightning_fabric import Fabric
            except ImportError as error:
                raise ImportError(
                    "several devices, a precision or a strategy need Lightning Fabric: pip install 'kintsugi-ml[distributed]'"
                ) from error
            accelerator = "cuda" if device.startswith("cuda") else "cpu"
            self.fabric = Fabric(
                accelerator=accelerator,
                devices=devices,
                precision=precision,  # type: ignore[arg-type]
                strategy=strategy or "auto",
            )
            self.fabric.launch()
            self.world, self.rank = self.fabric.world_size, self.fabric.global_rank
            if self.world > 1:
                atexit.register(_leave)
            self.device = self.fabric.device
        else:
            self.device = torch.device(device)
        self.moves = self.device.type != "cpu"

    def setup(self, pipeline: Pipeline, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """The module to call and the optimiser to step."""
        if self.fabric is None:
            return pipeline, optimizer
        module, wrapped = self.fabric.setup(pipeline, optimizer)
        return module, wrapped

    def backward(self, loss: Tensor) -> None:
        """Gradients of this loss."""
        if self.fabric is None:
            loss.backward()
        else:
            self.fabric.backward(loss)

    def clip(self, module: Any, optimizer: Any, moving: list[nn.Parameter], most: float) -> None:
        """Scale the gradients down to a norm of at most ``most``; Fabric knows of its own scaling of float16."""
        if self.fabric is None:
            torch.nn.utils.clip_grad_norm_(moving, most)
        else:
            self.fabric.clip_gradients(module, optimizer, max_norm=most, error_if_nonfinite=False)

    def share(self, batches: list[Tensor]) -> list[Tensor]:
        """This process's part of the batches, as many as every other process gets."""
        if self.world == 1:
            return batches
        full = len(batches) // self.world * self.world
        return batches[self.rank : full : self.world] or batches[:1]


def _leave() -> None:
    """End the group of processes before the interpreter ends: a thread of its own that still runs then kills the process."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
