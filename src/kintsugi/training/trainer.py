"""One loop for every method: it reads the stages of each part and runs them."""

from __future__ import annotations

import hashlib
import json
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
from kintsugi.core.data import Data, Splits
from kintsugi.core.errors import ConfigError, DataError, NonFiniteLoss
from kintsugi.core.part import Part
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.stage import Stage
from kintsugi.core.store import describe_part
from kintsugi.core.wrappers import Strategy
from kintsugi.data.dataset import Dataset
from kintsugi.training.feed import feed
from kintsugi.training import checkpoint as saved
from kintsugi.training.devices import Devices
from kintsugi.training.progress import Progress
from kintsugi.training.sampling import endless, epoch_batches, generator
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
        devices, precision, strategy: as in ``lightning_fabric.Fabric``.
        seed: of the order of rows, views and all noise in training.
        patience: epochs without a better validation score after which the last stage ends.
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
    precision: str | None = None
    strategy: str | None = None
    seed: int = 0
    patience: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("devices", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not self.lr > 0:
            raise ConfigError(f"lr must be above 0, not {self.lr}")
        if self.optimizer not in ("adamw", "adam", "sgd"):
            raise ConfigError(f"unknown optimizer {self.optimizer!r}; known: adamw, adam, sgd")
        if self.schedule not in ("cosine", "constant"):
            raise ConfigError(f"unknown schedule {self.schedule!r}; known: cosine, constant")
        self.history: list[dict[str, Any]] = []

    # the whole of it -------------------------------------------------------------------------------------------
    def fit(self, pipeline: Pipeline, data: Splits) -> Pipeline:
        """Every stage of every part, then the monitors' calibration; the pipeline is changed in place and returned.

        Raises:
            DataError: rows that a stage needs are not there, or a modality is absent in all training rows.
            NonFiniteLoss: with the rows of the batch.
        """
        check(pipeline, data)
        data = Splits(_memory(data.train), _memory(data.val), data.test)
        self._folder = None if self.checkpoint is None else Path(self.checkpoint)
        self._run, self._touched, self.history = 0, cast("list[Pipeline]", []), []
        self._key = self._name_run(pipeline, data)
        self._resume = saved.find(self._folder)
        if self._resume is not None and self._resume.position.key != self._key:
            raise ConfigError(
                f"{self._resume.path} belongs to a run with other data, method or settings; "
                "delete it to train from the start, or choose another checkpoint folder"
            )
        self._at = Devices(self.device, self.devices, self.precision, self.strategy)
        prior = pipeline.schema.task.prior(data.train)
        pipeline.model.prior.copy_(prior.reshape(pipeline.model.prior.shape))
        with torch.random.fork_rng(devices=[]), Progress(self.progress, _title(pipeline)) as self._bar:
            torch.manual_seed(self.seed)
            try:
                owner = next((s for s in pipeline.strategies if type(s).fit is not Strategy.fit), None)
                if owner is None:
                    self.run_all(pipeline, data)
                else:
                    cast(Strategy, owner).fit(self, pipeline, data)
            except KeyboardInterrupt as stop:
                stop.add_note(self._how_to_resume())
                raise
            pipeline.finish()
            pipeline.eval()
            with torch.no_grad():
                pipeline.calibrate(data)
        saved.discard(self._folder)
        return pipeline

    def run_all(self, pipeline: Pipeline, data: Splits) -> None:
        """Every stage of a pipeline, in order; epochs are chosen by validation in the model's last stage."""
        pipeline.to(self._at.device)
        plan = pipeline.plan()
        for i, (part, stage) in enumerate(plan):
            budget = sum(other.share for name, other in plan if name == part)
            epochs = max(1, round(self.epochs * stage.share / budget))
            self._stage(pipeline, part, stage, data, epochs, select=part == "model" and i == len(plan) - 1)

    def run(self, pipeline: Pipeline, stage: Stage, data: Splits) -> None:
        """One stage of the model, by its share of the epochs, without choosing among them."""
        pipeline.to(self._at.device)
        self._stage(pipeline, "model", stage, data, max(1, round(self.epochs * stage.share)), select=False)

    # one stage -------------------------------------------------------------------------------------------------
    def _stage(self, pipeline: Pipeline, path: str, stage: Stage, data: Splits, epochs: int, select: bool) -> None:
        run, self._run = self._run, self._run + 1
        if not any(p is pipeline for p in self._touched):
            self._touched.append(pipeline)
        parts = pipeline.named_parts()
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
            self._solve(pipeline, data, rows)
            return
        with _moving(part, pipeline, stage) as moving:
            self._descend(pipeline, stage, data, rows, side, epochs, select, run, moving)

    def _descend(
        self, pipeline: Pipeline, stage: Stage, data: Splits, rows: Tensor, side: Tensor | None, epochs: int,
        select: bool, run: int, moving: list[nn.Parameter],
    ) -> None:  # fmt: skip
        optimizer = self._optimizer(moving)
        source = data.val if stage.rows == "val" else data.train
        other = data.val if stage.side == "val" else data.train
        steps = max(1, math.ceil(len(rows) / self.batch_size) // self._at.world)
        place = saved.Position(self._key, run, 0)
        best: dict[str, Tensor] | None = None
        if self._resume is not None and run == self._resume.position.run:
            place, best = self._resume.position, self._resume.restore_run(self._touched, optimizer)
            self.history, self._resume = list(place.history), None
        module, wrapped = self._at.setup(pipeline, optimizer)
        self._bar.expect(epochs * steps, stage.name)
        view = get_view(stage.view)
        for epoch in range(place.epoch, epochs):
            pipeline.train()
            _calm(pipeline)
            for _, part in pipeline.named_parts():
                part.on_epoch(data)
            draw = generator(self.seed, run, epoch, "view", self._at.rank)
            batches = epoch_batches(rows, self.batch_size, generator(self.seed, run, epoch, "rows"))
            stream = feed(source, self._at.share(list(batches)))
            beside: Iterator[Batch | None] = repeat(None)
            if side is not None:
                asked = endless(side, self.batch_size, generator(self.seed, run, epoch, "side", self._at.rank))
                beside = (other.batch(next(asked)[: self.batch_size]) for _ in range(steps + 1))
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
                self._update(losses, batch, stage, epoch, i + 1 == steps or (i + 1) % self.accumulate == 0,
                             optimizer, wrapped, module, moving, (epoch * steps + i) / (epochs * steps))  # fmt: skip
                for _, part in pipeline.named_parts():
                    part.on_update()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(loss.detach())
                self._bar.advance(f"epoch {epoch + 1}/{epochs}")
            record: dict[str, Any] = {"stage": stage.name, "run": run, "epoch": epoch}
            record |= {f"loss/{name}": total / steps for name, total in sums.items()}
            better = False
            if select:
                score, sign, metric = self.validate(pipeline, data.val)
                record[f"val/{metric}"] = score
                better = math.isfinite(score) and (place.best is None or sign * score >= sign * place.best)
            self.history.append(record)
            if better:
                place.best, place.waited = score, 0
                best = {n: t.detach().clone() for n, t in pipeline.state_dict().items()}
            elif select:
                place.waited += 1
            place.epoch, place.history = epoch + 1, self.history
            if self._folder is not None and self._at.rank == 0:
                saved.write_checkpoint(self._folder, place, self._touched, optimizer, best)
            if select and self.patience is not None and place.waited > self.patience:
                break
        if best is not None:
            pipeline.load_state_dict(best)
        for _, part in pipeline.named_parts():
            part.clock.progress = 1.0

    def _update(
        self, losses: dict[str, Tensor], batch: Batch, stage: Stage, epoch: int, step: bool,
        optimizer: torch.optim.Optimizer, wrapped: Any, module: Any, moving: list[nn.Parameter], progress: float,
    ) -> None:  # fmt: skip
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if not math.isfinite(float(total.detach())):
            values = {name: float(loss.detach()) for name, loss in losses.items()}
            raise NonFiniteLoss(stage.name, epoch, values, batch.index.tolist())
        if not total.requires_grad:
            raise ConfigError(f"stage {stage.name!r}: its losses reach none of the parameters that it moves")
        self._at.backward(total / self.accumulate)
        if not step:
            return
        if self.clip:
            torch.nn.utils.clip_grad_norm_(moving, self.clip)
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

    def _solve(self, pipeline: Pipeline, data: Splits, rows: Tensor) -> None:
        pipeline.eval()
        with torch.no_grad():
            batch = data.train.batch(rows).to(self._at.device)
            pipeline.model.solve(pipeline.model.encode(batch), batch)

    @staticmethod
    def _tick(pipeline: Pipeline, epoch: int, progress: float) -> None:
        for _, part in pipeline.named_parts():
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
        mode = pipeline.training
        pipeline.eval()
        for batch in data.batches(512, rows):
            batch = batch.to(self._at.device)
            if pipeline.restore is not None:
                batch = pipeline.restore.restore(batch)
            metric.update(task.probabilities(model(batch).output.float()), batch.target)
        pipeline.train(mode)
        return float(metric.compute()), 1 if metric.higher_is_better else -1, name

    def _name_run(self, pipeline: Pipeline, data: Splits) -> str:
        parts = {path: describe_part(part) for path, part in pipeline.named_parts()}
        for part in parts.values():
            part.pop("clock")
        own = {f.name: getattr(self, f.name) for f in fields(Trainer) if f.name not in ("checkpoint", "progress")}
        said = [parts, own, data.train.fingerprint, data.val.fingerprint, pipeline.schema.to_json()]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

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
        blind = [type(p).__name__ for _, p in pipeline.named_parts() if not getattr(p, "card", _NO_CARD).sees_hidden]
        if blind:
            raise ConfigError(
                f"the training data keeps what was hidden as truth, but {', '.join(blind)} must not see it: its card does "
                'not say sees_hidden; use with_missing(..., keep="nothing")'
            )


class _NO_CARD:
    sees_hidden = True  # a helper part without a card follows the method that it belongs to


def _rows(data: Data | Splits, rows: str, stage: Stage, pipeline: Pipeline) -> Tensor:
    assert isinstance(data, Splits)
    source = data.val if rows == "val" else data.train
    found = source.positions("all" if rows == "val" else rows)
    if not len(found):
        who = getattr(getattr(pipeline.model, "card", None), "key", type(pipeline.model).__name__)
        counts = f"{len(source)} rows, {int(source.present.all(1).sum())} complete, {int(source.target_present.sum())} labelled"
        raise DataError(f"{who}: stage {stage.name!r} needs {rows} rows, and {source.name} has none ({counts})")
    return found


class _moving:
    """In a stage only the parameters that it names move; afterwards the flags are as before."""

    def __init__(self, part: Part, pipeline: Pipeline, stage: Stage) -> None:
        self._before = {p: p.requires_grad for p in pipeline.parameters()}
        names = dict(part.named_parameters())
        for pattern in stage.train:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    f"stage {stage.name!r} of {type(part).__name__}: {pattern!r} matches none of its parameters "
                    f"({', '.join(sorted({n.partition('.')[0] for n in names}))})"
                )
        own = {p for name, p in names.items() if any(fnmatchcase(name, pattern) for pattern in stage.train)}
        self._move = [p for p in pipeline.parameters() if p in own and self._before[p]]

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


def _title(pipeline: Pipeline) -> str:
    card = next((p.card for _, p in pipeline.named_parts() if hasattr(p, "card") and p.card.key != "mean_fusion"), None)
    return card.key if card is not None else type(pipeline.model).__name__
