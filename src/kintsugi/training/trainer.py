"""One loop for every method: it reads the stages of each part and runs them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.component import Component
from kintsugi.core.data import Data, Splits
from kintsugi.core.encoder import UserEncoder, evaluating, own_encoders
from kintsugi.core.errors import ConfigError, DataError, NonFiniteLoss
from kintsugi.core.methods import address
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.stage import Stage
from kintsugi.core.wrappers import Strategy
from kintsugi.data.content import content_digest, structure_digest
from kintsugi.data.dataset import Dataset
from kintsugi.data.loaders import batches, count, order
from kintsugi.training import checkpoint as saved
from kintsugi.training.components import names_in, versions_of
from kintsugi.training.devices import Devices
from kintsugi.training.devices import check as check_devices
from kintsugi.training.progress import Progress
from kintsugi.training.sampling import endless, generator
from kintsugi.training.views import get_view

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "constant"]


@dataclass
class Trainer:
    """Trains pipelines. One device in float32 is plain torch; Lightning Fabric is imported when more is asked for.

    Args:
        epochs: the budget of each part; its stages share it.
        lr, weight_decay: of the optimiser; biases and gains do not decay.
        optimizer: adamw, adam or sgd (momentum 0.9). schedule: cosine to zero within each stage, or constant.
        clip: largest norm of the gradient; 0: none. accumulate: batches to a step.
        batch_size: rows of a batch; a last batch of one row joins the one before it.
        device: "cpu", "cuda", …; "auto": the accelerator if there is one.
        devices: processes on each node. num_nodes: machines; the same script is started once on each, with MASTER_ADDR,
            MASTER_PORT and NODE_RANK set, or by torchrun or SLURM. ``batch_size`` is that of each process.
        precision: as in ``lightning_fabric.Fabric``.
        strategy: "ddp": each process has the whole model. "fsdp": each has a piece of the gradients and of the optimiser's
            state, and of the weights between steps; within a step and between epochs weights are whole in each. It is
            tested with processes on CPUs only; on a GPU it was not run. "ddp_find_unused_parameters_true", "auto".
        seed: of the order of rows, views and all noise in training.
        patience: epochs without a better validation score after which the last stage ends.
        select: keep the epoch with the best validation score; False: the last one, and nothing is validated.
        checkpoint: a folder that holds the state after each epoch; a fit that finds one there goes on from it.
        progress: a bar; None: on a terminal.
    """

    epochs: int = 20
    lr: float = 1e-3
    weight_decay: float = 1e-2
    optimizer: Optimizer = "adamw"
    schedule: Schedule = "cosine"
    clip: float = 1.0
    batch_size: int = 64
    accumulate: int = 1
    device: str = "cpu"
    devices: int = 1
    num_nodes: int = 1
    precision: str | None = None
    strategy: str | None = None
    seed: int = 0
    patience: int | None = None
    select: bool = True
    checkpoint: str | os.PathLike[str] | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience must be at least 1, or None for no early end, not {self.patience}")
        if not self.lr > 0:
            raise ConfigError(f"lr must be above 0, not {self.lr}")
        if self.optimizer not in ("adamw", "adam", "sgd"):
            raise ConfigError(f"unknown optimizer {self.optimizer!r}; known: adamw, adam, sgd")
        if self.schedule not in ("cosine", "constant"):
            raise ConfigError(f"unknown schedule {self.schedule!r}; known: cosine, constant")
        check_devices(self.precision, self.strategy)
        self.history: list[dict[str, Any]] = []

    # the whole of it -------------------------------------------------------------------------------------------
    def fit(self, pipeline: Pipeline, data: Splits) -> Pipeline:
        """Every stage of every part, then the monitors' calibration; the pipeline is changed in place and returned.

        Raises:
            DataError: rows that a stage needs are not there, or a modality is absent in all training rows.
            NonFiniteLoss: with the rows of the batch.
        """
        check(pipeline, data)
        _check_plan(pipeline, data)
        data = Splits(_memory(data.train), _memory(data.val), data.test)
        self._folder = None if self.checkpoint is None else Path(self.checkpoint)
        self._run, self._touched, self.history = 0, cast("list[Pipeline]", []), []
        self._key = "" if self._folder is None else self._name_run(pipeline, data)
        self._resume = saved.find(self._folder)
        if self._resume is not None and self._resume.position.key != self._key:
            raise ConfigError(
                f"{self._resume.path} belongs to a run with other data, method or settings; "
                "delete it to train from the start, or choose another checkpoint folder"
            )
        if self.strategy == "fsdp":
            _check_hooks(pipeline)
        self._at = Devices(self.device, self.devices, self.precision, self.strategy, self.num_nodes)
        found = self._resume and self._resume.position
        self._at.check_same(*((found.run, found.epoch) if found else (-1, -1)))
        prior = pipeline.schema.task.prior(data.train)
        pipeline.model.prior.copy_(prior.reshape(pipeline.model.prior.shape))
        cuda = [self._at.device] if self._at.device.type == "cuda" else []
        shown = self.progress if self._at.rank == 0 else False
        own = own_encoders(pipeline.own_encoders)  # for models that a part makes on the way
        with own, torch.random.fork_rng(devices=cuda), Progress(shown, _title(pipeline)) as self._bar:
            torch.manual_seed(self.seed)
            try:
                owner: Any = next(
                    (s for s in cast("list[Strategy]", pipeline.strategies) if type(s).fit is not Strategy.fit), None
                )
                if owner is None:
                    self.run_all(pipeline, data)
                else:
                    owner.fit(self, pipeline, data)
                pipeline.finish()
                pipeline.eval()
                with torch.no_grad():
                    pipeline.calibrate(data)
            except BaseException as stop:
                if isinstance(stop, KeyboardInterrupt):
                    stop.add_note(self._how_to_resume())
                if self._at.in_pieces:
                    stop.add_note("The weights are in pieces, one in each process: make the model anew.")
                raise
        if self._at.rank == 0:
            saved.discard(self._folder)
        return pipeline

    def run_all(self, pipeline: Pipeline, data: Splits) -> None:
        """Every stage of a pipeline, in order; epochs are chosen by validation in the model's last stage."""
        _check_plan(pipeline, data)
        pipeline.to(self._at.device)
        plan = pipeline.plan()
        for i, (part, stage) in enumerate(plan):
            budget = sum(other.share for name, other in plan if name == part)
            epochs = max(1, round(self.epochs * stage.share / budget))
            self._stage(
                pipeline, part, stage, data, epochs, select=self.select and part == "model" and i == len(plan) - 1
            )

    def run(self, pipeline: Pipeline, stage: Stage, data: Splits) -> None:
        """One stage of the model, by its share of the epochs, without choosing among them."""
        pipeline.to(self._at.device)
        self._stage(pipeline, "model", stage, data, max(1, round(self.epochs * stage.share)), select=False)

    # one stage -------------------------------------------------------------------------------------------------
    def _stage(self, pipeline: Pipeline, path: str, stage: Stage, data: Splits, epochs: int, select: bool) -> None:
        run, self._run = self._run, self._run + 1
        if not any(p is pipeline for p in self._touched):
            self._touched.append(pipeline)
        parts = pipeline.named_components()
        for _, part in parts:
            part.clock.stage, part.clock.epoch, part.clock.progress = stage.name, 0, 0.0
        pipeline.training_part = path
        rows = _rows(data, stage.rows, stage, pipeline)
        side = None if stage.side is None else _rows(data, stage.side, stage, pipeline)
        with torch.no_grad():
            for _, part in parts:
                part.prepare(data, stage)
        pipeline.to(self._at.device)  # what was prepared too
        if self._resume is not None and run < self._resume.position.run:
            return  # done before the interruption; its result is in the checkpoint
        part = dict(parts)[path]
        if stage.solve:
            self._solve(pipeline, data.val if stage.rows == "val" else data.train, rows)
            return
        with _Moving(part, pipeline, stage) as moving:
            self._descend(pipeline, stage, data, rows, side, epochs, select, run, moving)

    def _descend(
        self, pipeline: Pipeline, stage: Stage, data: Splits, rows: Tensor, side: Tensor | None, epochs: int,
        select: bool, run: int, moving: list[nn.Parameter],
    ) -> None:  # fmt: skip
        module, optimizer, wrapped = self._at.setup(pipeline, moving, self._optimizer)
        source = data.val if stage.rows == "val" else data.train
        other = data.val if stage.side == "val" else data.train
        steps = max(1, count(len(rows), self.batch_size) // self._at.world)
        place = saved.Position(self._key, run, 0)
        best: dict[str, Tensor] | None = None
        if self._resume is not None and run == self._resume.position.run:
            place, best = self._resume.position, self._resume.restore_run(self._touched, self._at.state_of(optimizer))
            self.history, self._resume = list(place.history), None
        self._bar.expect(epochs * steps, stage.name)
        view = get_view(stage.view)
        for epoch in range(place.epoch, epochs):
            if select and self.patience is not None and place.waited >= self.patience:
                break
            self._tick(pipeline, epoch, epoch / epochs)
            for _, part in pipeline.named_components():
                part.on_epoch(data)
            self._at.spread()
            pipeline.train()
            _calm(pipeline)
            draw = generator(self.seed, run, epoch, "view", self._at.rank)
            chunks = self._at.share(order(rows, self.batch_size, generator(self.seed, run, epoch, "rows")))
            stream = batches(source, chunks)
            beside: Iterator[Batch | None] = repeat(None)
            if side is not None:
                asked = endless(side, map(len, chunks), generator(self.seed, run, epoch, "side", self._at.rank))
                beside = map(other.batch, asked)
            sums: dict[str, float] = {}
            for i, (batch, companion) in enumerate(zip(stream, beside, strict=False)):
                batch = batch.to(self._at.device) if self._at.moves else batch
                keep = view(batch, draw)
                if keep is not batch.present:
                    batch = batch.view(keep)
                if companion is not None:
                    companion = companion.to(self._at.device)
                self._tick(pipeline, epoch, (epoch + i / steps) / epochs)
                losses = module(batch, companion)
                group = min(self.accumulate, steps - i // self.accumulate * self.accumulate)
                step = i + 1 == steps or (i + 1) % self.accumulate == 0
                self._update(losses, batch, stage, epoch, step, optimizer, wrapped, module, moving,
                             (epoch * steps + i) / (epochs * steps), group)  # fmt: skip
                for _, part in pipeline.named_components() if step else ():
                    part.on_update()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(loss.detach())
                self._bar.advance(f"epoch {epoch + 1}/{epochs}")
            self._at.gather(pipeline)
            record: dict[str, Any] = {"stage": stage.name, "run": run, "epoch": epoch}
            record |= {f"loss/{name}": total / steps for name, total in sums.items()}
            good = False
            if select:
                score, sign, metric = self.validate(pipeline, data.val)
                score = self._at.agreed(score)
                record[f"val/{metric}"] = score
                lead = sign * (score - (-sign * math.inf if place.best is None else place.best))
                good = math.isfinite(score) and lead >= 0  # of equal ones the later: it has learned for longer
                place.waited = 0 if good and lead > 0 else place.waited + 1
            self.history.append(record)
            if good:
                place.best = score
                best = {n: t.detach().clone() for n, t in pipeline.state_dict().items()}
            place.epoch, place.history = epoch + 1, self.history
            if self._folder is not None:
                state = self._at.state_of(optimizer)
                if self._at.rank == 0:
                    saved.write_checkpoint(self._folder, place, self._touched, state, best)
        self._at.settle()
        if best is not None:
            pipeline.load_state_dict(best)
        for _, part in pipeline.named_components():
            part.clock.progress = 1.0

    def _update(
        self, losses: dict[str, Tensor], batch: Batch, stage: Stage, epoch: int, step: bool,
        optimizer: torch.optim.Optimizer, wrapped: Any, module: Any, moving: list[nn.Parameter], progress: float,
        parts: int,
    ) -> None:  # fmt: skip
        if not losses:
            raise ConfigError(f"stage {stage.name!r}: its step brings no loss")
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if not math.isfinite(float(total.detach())):
            values = {name: float(loss.detach()) for name, loss in losses.items()}
            raise NonFiniteLoss(stage.name, epoch, values, batch.index.tolist())
        if not total.requires_grad:
            raise ConfigError(f"stage {stage.name!r}: its losses reach none of the parameters that it moves")
        self._at.backward(total / parts)
        if not step:
            return
        if self.clip:
            self._at.clip(module, wrapped, moving, self.clip)
        factor = 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1.0
        for group in optimizer.param_groups:
            group["lr"] = self.lr * factor
        wrapped.step()
        wrapped.zero_grad()

    def _optimizer(self, moving: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [
            {"params": [p for p in moving if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in moving if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=0.9)
        return (torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam)(groups, lr=self.lr)

    def _solve(self, pipeline: Pipeline, source: Data, rows: Tensor) -> None:
        pipeline.eval()
        with torch.no_grad():
            batch = source.batch(rows).to(self._at.device)
            pipeline.model.solve(pipeline.model.encode(batch), batch)

    @staticmethod
    def _tick(pipeline: Pipeline, epoch: int, progress: float) -> None:
        for _, part in pipeline.named_components():
            part.clock.epoch, part.clock.progress = epoch, progress

    @torch.no_grad()
    def validate(self, pipeline: Pipeline, data: Data) -> tuple[float, int, str]:
        """The task's first metric on validation rows in natural view: value, +1 where higher is better else -1, name."""
        model = pipeline.model
        task = model.task
        metrics = task.metrics()
        name = next(iter(metrics.keys()))
        metric = metrics[name].to(self._at.device)
        columns = [data.schema.column(m) for m in model.schema.names]
        rows = (data.present[:, columns].any(1) & data.target_present).nonzero().flatten()
        if not len(rows) or data.target is None:
            return math.nan, 1, name
        with evaluating(pipeline):
            for batch in data.batches(512, rows):
                batch = batch.to(self._at.device)
                if pipeline.restore is not None:
                    batch = pipeline.restore.restore(batch)
                values = task.probabilities(model(batch).output.float())
                assert batch.target is not None
                target = batch.target.long() if task.key == "multilabel" else batch.target
                metric.update(values, target.reshape(values.shape) if task.key == "regression" else target)
        return float(metric.compute()), 1 if metric.higher_is_better else -1, name

    def _name_run(self, pipeline: Pipeline, data: Splits) -> str:
        """16 hexadecimal digits of everything that decides a run; the same in every process.

        Raises:
            ConfigError: a part holds an argument whose content cannot be told.
        """
        parts = []
        for path, part in pipeline.named_components():
            try:
                arguments = content_digest(part.hyper)
            except DataError as error:
                raise ConfigError(
                    f"an argument of {type(part).__name__} is {error}; or train without checkpoint=, since nobody could "
                    "tell whether a checkpoint belongs to this run"
                ) from error
            encoders = {
                m.modality.name: structure_digest(m.module) for m in part.modules() if isinstance(m, UserEncoder)
            }
            parts.append([path, _component_name(part), arguments, encoders])
        own = {f.name: getattr(self, f.name) for f in fields(Trainer) if f.name not in ("checkpoint", "progress")}
        task = pipeline.schema.task
        names = [*names_in(pipeline), f"task {task.key}", "training", "reading"]
        decided = [
            parts, own, versions_of(names, task), data.train.fingerprint, data.val.fingerprint, pipeline.schema.to_json()
        ]  # fmt: skip
        return content_digest(decided).hex()[:16]

    def _how_to_resume(self) -> str:
        if self._folder is None:
            return "Training was stopped; nothing was kept, since no checkpoint folder was given."
        found = self._folder / f"{saved.NAME}.safetensors"
        if not found.exists():
            return "Training was stopped before the first epoch ended; nothing was lost that took long."
        return f"Training was stopped; {found} holds the last full epoch. The same call goes on from there."


def check(pipeline: Pipeline, data: Splits) -> None:
    """What would make training senseless, said before it starts."""
    train = data.train
    task = pipeline.schema.task
    if train.schema.names != pipeline.schema.names or train.schema.task != task:
        raise ConfigError(
            f"the model was made for {', '.join(pipeline.schema.names)} ({task.key}), "
            f"the data has {', '.join(train.schema.names)} ({train.schema.task.key})"
        )
    if train.target is None:
        raise DataError(f"{train.name}: no target column was named, so there is nothing to learn")
    labelled = train.target[train.target_present]
    if not len(labelled):
        raise DataError(f"{train.name}: every label of the training rows is missing")
    if task.key == "classification" and len(labelled.unique()) < 2:
        raise DataError(f"{train.name}: the training rows hold a single class; nothing can be told apart")
    for column, name in enumerate(train.schema.names):
        if not bool(train.present[:, column].any()):
            raise DataError(
                f"{train.name}: modality {name!r} is absent in all {len(train)} training rows; leave it out of the schema"
            )
    empty = int((~train.present.any(1)).sum())
    if empty:
        warnings.warn(f"{train.name}: {empty} training rows hold nothing at all and are left out", stacklevel=3)
    if isinstance(train, Dataset) and train.damage.keep == "truth":
        # a helper part without a card follows the method that it belongs to
        blind = [
            type(p).__name__ for _, p in pipeline.named_components() if hasattr(p, "card") and not p.card.sees_hidden
        ]
        if blind:
            raise ConfigError(
                f"the training data keeps what was hidden as truth, but {', '.join(blind)} must not see it: its card does "
                'not say sees_hidden; use with_missing(..., keep="nothing")'
            )


def _check_hooks(pipeline: Pipeline) -> None:
    """After each step the weights are in pieces, which no part knows of."""
    for _, part in pipeline.named_components():
        if type(part).on_update is not Component.on_update:
            raise ConfigError(
                f"{type(part).__name__} looks at the weights after every step (on_update), and strategy='fsdp' keeps them in "
                "pieces; use strategy='ddp'"
            )


def _check_plan(pipeline: Pipeline, data: Splits) -> None:
    """What any stage would stumble over, said before the first one costs time."""
    parts = dict(pipeline.named_components())
    for path, stage in pipeline.plan():
        _named(parts[path], stage)
        get_view(stage.view)
        _rows(data, stage.rows, stage, pipeline)
        if stage.side is not None:
            _rows(data, stage.side, stage, pipeline)


def _rows(data: Splits, rows: str, stage: Stage, pipeline: Pipeline) -> Tensor:
    source = data.val if rows == "val" else data.train
    found = source.positions("all" if rows == "val" else rows)
    if not len(found):
        raise DataError(
            f"{_title(pipeline)}: stage {stage.name!r} needs {rows!r} rows, and {source.name} has none "
            f"({len(source)} rows, {int(source.present.all(1).sum())} complete, "
            f"{int(source.target_present.sum())} labelled)"
        )
    return found


def _named(part: Component, stage: Stage) -> set[nn.Parameter]:
    """The part's parameters that the stage names."""
    names = dict(part.named_parameters())
    for pattern in stage.train:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"stage {stage.name!r} of {type(part).__name__}: {pattern!r} matches none of its parameters "
                f"({', '.join(sorted({n.partition('.')[0] for n in names}))})"
            )
    return {p for name, p in names.items() if any(fnmatchcase(name, pattern) for pattern in stage.train)}


class _Moving:
    """In a stage only the parameters that it names move; afterwards the flags are as before."""

    def __init__(self, part: Component, pipeline: Pipeline, stage: Stage) -> None:
        self._before = {p: p.requires_grad for p in pipeline.parameters()}
        own = _named(part, stage)
        self._move = [p for p in pipeline.parameters() if p in own and self._before[p]]
        if not self._move:
            raise ConfigError(f"stage {stage.name!r} of {type(part).__name__}: all parameters that it names are frozen")

    def __enter__(self) -> list[nn.Parameter]:
        for p in self._before:
            p.requires_grad_(False)
        for p in self._move:
            p.requires_grad_(True)
        return self._move

    def __exit__(self, *error: object) -> None:
        for p, flag in self._before.items():
            p.requires_grad_(flag)
            p.grad = None


def _calm(pipeline: Pipeline) -> None:
    """Modules of which nothing moves are in evaluation mode, so that frozen normalisers keep their statistics."""
    for module in pipeline.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()


def _memory(data: Data) -> Data:
    return data.in_memory() if isinstance(data, Dataset) else data


def _component_name(part: Component) -> str:
    """Its address; of a class of the user's own its name."""
    try:
        return address(part)
    except ConfigError:
        return type(part).__qualname__


def _title(pipeline: Pipeline) -> str:
    keys = [p.card.key for _, p in pipeline.named_components() if hasattr(p, "card")]
    around = [key for key in keys if key != "mean_fusion"]  # the host is not what a person chose
    return next(iter(around or keys), type(pipeline.model).__name__)
