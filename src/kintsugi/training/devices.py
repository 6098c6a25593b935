"""Where training runs. Lightning Fabric takes three seconds to import and is asked for only when it is needed."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from kintsugi.core.errors import ConfigError, UnknownName

# Fabric has more. Those that spawn or fork start a function and not a script; data parallel splits tensors, and our batches
# are none; DeepSpeed and XLA were never run with this trainer.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "fsdp")
FSDP_PRECISIONS = (None, "32-true", "bf16-mixed")

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Devices:
    """One device in float32: plain torch. Several devices or nodes, another precision or a strategy: Fabric.

    Args:
        device: "cpu", "cuda", ...; "auto": the accelerator if there is one.
        devices: processes on each node, one for each device.
        precision: as in ``lightning_fabric.Fabric``; None: float32.
        strategy: one of ``STRATEGIES``; None: what Fabric takes, which is "ddp" for more than one process.
        num_nodes: machines. The same script is started once on each.

    Raises:
        ConfigError: a precision that does not go with "fsdp", or several nodes of which this one does not know which it is.
        ImportError: Fabric is not installed.
    """

    def __init__(
        self, device: str, devices: int, precision: str | None, strategy: str | None, num_nodes: int = 1
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.fabric: Any = None
        self.world, self.rank = 1, 0
        self.sharded = strategy == "fsdp"
        self._shards: Shards | None = None
        if devices > 1 or num_nodes > 1 or precision is not None or strategy is not None:
            self._launch(device, devices, precision, strategy, num_nodes)
        else:
            self.device = torch.device(device)
        self.moves = self.device.type != "cpu"

    def _launch(self, device: str, devices: int, precision: str | None, strategy: str | None, num_nodes: int) -> None:
        check(precision, strategy)
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise ImportError(
                "several devices or nodes, a precision or a strategy need Lightning Fabric: "
                "pip install 'kintsugi-ml[distributed]'"
            ) from error
        self.fabric = Fabric(
            accelerator="cuda" if device.startswith("cuda") else "cpu",
            devices=devices,
            num_nodes=num_nodes,
            precision=precision,  # type: ignore[arg-type]
            strategy=_sharding(devices * num_nodes) if self.sharded else strategy or "auto",
        )
        if num_nodes > 1:
            _check_node(self.fabric.strategy.cluster_environment, num_nodes)
        self.fabric.launch()
        self.world, self.rank = self.fabric.world_size, self.fabric.global_rank
        if self.world > 1 or self.sharded:
            atexit.register(_leave)
        self.device = self.fabric.device

    def setup(
        self, module: nn.Module, moving: list[nn.Parameter], make: Make
    ) -> tuple[Any, torch.optim.Optimizer, Any]:
        """The module to call, the optimiser, and what steps it. The module's weights stay whole until :meth:`spread`."""
        if self.fabric is None:
            optimizer = make(moving)
            return module, optimizer, optimizer
        if not self.sharded:
            optimizer = make(moving)
            parallel, wrapped = self.fabric.setup(module, optimizer)
            return parallel, optimizer, wrapped
        self._shards = Shards(module, self.fabric)
        optimizer = make(self._shards.of(moving))  # over the pieces, so they have to be there first
        return self._shards.module, optimizer, self.fabric.setup_optimizers(optimizer)

    # pieces of weights ------------------------------------------------------------------------------------------
    def spread(self) -> None:
        """Before steps: under "fsdp" each process keeps its piece of each weight. Otherwise nothing."""
        if self._shards is not None:
            self._shards.spread()

    def gather(self, pipeline: nn.Module) -> None:
        """After the steps of an epoch: every process has whole weights, and the buffers of process 0, as DDP goes by."""
        if self._shards is not None:
            self._shards.gather()
        if self.world > 1:
            _equal(list(pipeline.buffers()))

    def settle(self) -> None:
        """The stage is done: the optimiser's pieces are given up."""
        self._shards = None

    @property
    def in_pieces(self) -> bool:
        """Do the parameters hold pieces now?"""
        return self._shards is not None and self._shards.spread_out

    def state_of(self, optimizer: torch.optim.Optimizer) -> Any:
        """What a checkpoint reads and fills: the optimiser, or its whole state gathered now. Every process has to call it."""
        return optimizer if self._shards is None else _Whole(optimizer)

    # what all processes have to agree on ------------------------------------------------------------------------
    def agreed(self, value: float) -> float:
        """The value of process 0, for decisions that all take: on machines that differ, theirs may differ in the last bits."""
        return value if self.world == 1 else float(self.fabric.broadcast(value, 0))

    def check_same(self, *position: int) -> None:
        """Did every process find the same checkpoint?

        Raises:
            ConfigError: in every process, if one has another or none.
        """
        if self.world == 1:
            return
        mine = torch.tensor(position, device=self.device)
        found = [torch.empty_like(mine) for _ in range(self.world)]
        distributed.all_gather(found, mine)
        if any(not torch.equal(mine, other) for other in found):
            raise ConfigError(
                "the processes found different checkpoints, or some found none; the checkpoint folder has to be one that "
                "all nodes share"
            )

    # one step ---------------------------------------------------------------------------------------------------
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


class Shards:
    """A pipeline's parameters in pieces, one in each process: FSDP2, ``torch.distributed.fsdp.fully_shard``.

    All parameters are one group. Components call into each other by functions of their own, and FSDP puts weights together only
    where ``forward`` of a module that it wraps is called; of the whole pipeline, that is the only one. So the
    weights are whole during a step, and what is spared is the gradients and the optimiser's state, and the weights between
    steps. Between epochs they are whole, since validation, checkpoints and the components' hooks read them.

    Args:
        pipeline: whole, on its device, with the flags of the stage.
        fabric: launched, with the strategy that :class:`Devices` makes.

    Raises:
        ConfigError: a parameter that FSDP cannot cut.
    """

    def __init__(self, pipeline: nn.Module, fabric: Any) -> None:
        self._places = _places(pipeline)
        for module, name, p in self._places:
            if p.ndim == 0 or not p.is_contiguous():
                what = "has no axis" if p.ndim == 0 else "is not contiguous"
                raise ConfigError(
                    f"strategy='fsdp' cannot cut parameter {name!r} of {type(module).__name__}, which {what}; "
                    "give it shape [1], or use strategy='ddp'"
                )
        _equal([*pipeline.parameters(), *pipeline.buffers()])  # DDP does it of itself, FSDP2 not
        before = {m: list(m._load_state_dict_post_hooks) for m in pipeline.modules()}
        self.module = fabric.setup_module(_Shell(pipeline))
        for m, known in before.items():  # FSDP2 listens to every module for new pieces, and would meet whole weights
            for hook in [h for h in m._load_state_dict_post_hooks if h not in known]:
                del m._load_state_dict_post_hooks[hook]
        self._pieces = [getattr(module, name) for module, name, _ in self._places]
        self._put([whole for _, _, whole in self._places])  # as before, until it is asked for
        self.spread_out = False

    def of(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """The pieces of these parameters, in their order."""
        known = {whole: piece for (_, _, whole), piece in zip(self._places, self._pieces, strict=True)}
        return [known[p] for p in parameters]

    @torch.no_grad()
    def spread(self) -> None:
        """Pieces in the place of parameters, which are emptied."""
        for whole, piece in self._both().items():
            piece.to_local().copy_(_cut(whole.data, piece))
            whole.data = whole.data.new_empty(0)
        self._put(self._pieces)
        self.spread_out = True

    @torch.no_grad()
    def gather(self) -> None:
        """The parameters filled and back in place, equal in every process."""
        for whole, piece in self._both().items():
            whole.data = piece.detach().full_tensor()
        self._put([whole for _, _, whole in self._places])
        self.spread_out = False

    def _both(self) -> dict[nn.Parameter, Any]:
        """Whole -> piece; a parameter in two places is one."""
        return {whole: piece for (_, _, whole), piece in zip(self._places, self._pieces, strict=True)}

    def _put(self, parameters: list[nn.Parameter]) -> None:
        for (module, name, _), p in zip(self._places, parameters, strict=True):
            setattr(module, name, p)  # recurrent layers keep a list besides, which this renews


class _Shell(nn.Module):
    """Takes FSDP's hooks and its change of class, so that the pipeline is as before once this is gone."""

    def __init__(self, pipeline: nn.Module) -> None:
        super().__init__()
        self.pipeline = pipeline

    def forward(self, *given: Any) -> Any:
        return self.pipeline(*given)


class _Whole:
    """The state of an optimiser over pieces, whole when it is read, cut when it is filled. Made in every process at once."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        state = optimizer.state_dict()
        moments = state["state"]  # sorted, since what was loaded comes in another order in each process
        self._said = {
            "state": {i: {k: _full(moments[i][k]) for k in sorted(moments[i])} for i in sorted(moments)},
            "param_groups": state["param_groups"],
        }

    def state_dict(self) -> dict[str, Any]:
        return self._said

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pieces = [p for group in self._optimizer.param_groups for p in group["params"]]
        cut = {
            i: {k: _like(v, pieces[i]) if v.shape == pieces[i].shape else v for k, v in values.items()}
            for i, values in state["state"].items()
        }
        self._optimizer.load_state_dict({"state": cut, "param_groups": state["param_groups"]})


def check(precision: str | None, strategy: str | None) -> None:
    """Are these known to work here?

    Raises:
        UnknownName: no such strategy.
        ConfigError: a precision that was not tried with "fsdp".
    """
    if strategy is not None and strategy not in STRATEGIES:
        raise UnknownName("strategy of training", strategy, STRATEGIES)
    if strategy == "fsdp" and precision not in FSDP_PRECISIONS:
        raise ConfigError(
            f"precision={precision!r} was not tried with strategy='fsdp'; it goes with "
            f"{', '.join(map(repr, FSDP_PRECISIONS))}, or use strategy='ddp'"
        )


def _check_node(environment: Any, num_nodes: int) -> None:
    """Without a cluster that says it, each node has to be told which it is, or all of them wait for the others for ever."""
    from lightning_fabric.plugins.environments import LightningEnvironment

    if type(environment) is not LightningEnvironment:
        return
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if "GROUP_RANK" in os.environ and "NODE_RANK" in lacking:
        lacking.remove("NODE_RANK")
    if lacking:
        raise ConfigError(
            f"num_nodes={num_nodes}, and {', '.join(lacking)} are not set: start the script once on each node with "
            f"MASTER_ADDR and MASTER_PORT of the first node and NODE_RANK from 0 to {num_nodes - 1}, or by torchrun or SLURM"
        )
    if not 0 <= environment.node_rank() < num_nodes:
        raise ConfigError(
            f"NODE_RANK is {environment.node_rank()}; with num_nodes={num_nodes} it is 0 to {num_nodes - 1}"
        )


def _sharding(world: int) -> Any:
    """Fabric's strategy for FSDP2. Its "fsdp" is the first FSDP, which needs a GPU and takes the parameters away for good."""
    from lightning_fabric.strategies import ModelParallelStrategy

    def cut(module: nn.Module, mesh: Any) -> nn.Module:
        from torch.distributed.fsdp import fully_shard

        return fully_shard(module, mesh=mesh["data_parallel"])  # type: ignore[return-value]

    return ModelParallelStrategy(cut, data_parallel_size=world, tensor_parallel_size=1)


def _places(pipeline: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Every place of every parameter; one that is shared has several."""
    return [(m, name, p) for m in pipeline.modules() for name, p in m._parameters.items() if p is not None]


def _like(whole: Tensor, piece: Any) -> Any:
    """A whole tensor, the same in every process, cut as this piece is."""
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        _cut(whole, piece).to(piece.device), piece.device_mesh, piece.placements, run_check=False,
        shape=piece.shape, stride=piece.stride(),
    )  # fmt: skip


def _cut(whole: Tensor, piece: Any) -> Tensor:
    """This process's rows: FSDP2 cuts along the first axis, as ``torch.chunk`` does; the last ones may get none."""
    parts = whole.chunk(piece.device_mesh.size())
    rank = piece.device_mesh.get_local_rank()
    return parts[rank] if rank < len(parts) else whole[:0]


def _full(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


@torch.no_grad()
def _equal(tensors: list[Any]) -> None:
    """The values of process 0, in every process. As bytes, since gloo sends no truth values."""
    for t in tensors:
        if t.numel() == 0:
            continue
        flat = t.detach().reshape(-1).contiguous()
        distributed.broadcast(flat.view(torch.uint8), 0)
        t.copy_(flat.view_as(t))


def _leave() -> None:
    """End the group of processes before the interpreter ends: a thread of its own that still runs then kills the process."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
