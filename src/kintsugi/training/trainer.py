"""One loop for every method: it reads the stages of each component and runs them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from kintsugi.core.component import Component
from kintsugi.core.data import Data, Splits
from kintsugi.core.encoder import UserEncoder, own_encoders
from kintsugi.core.errors import ConfigError, DataError, NonFiniteLoss
from kintsugi.core.methods import address
from kintsugi.core.metrics import named_metric
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.randomness import fork_rng_in_turn
from kintsugi.core.stage import Stage
from kintsugi.core.wrappers import Strategy
from kintsugi.data.content import content_digest, structure_digest
from kintsugi.data.dataset import Dataset
from kintsugi.training import checkpoint as saved
from kintsugi.training.checks import cards_of, check, check_hooks, check_stages, title
from kintsugi.training.components import names_in, versions_of
from kintsugi.training.devices import Devices
from kintsugi.training.devices import check as check_devices
from kintsugi.training.progress import Progress
from kintsugi.training.sampling import cut
from kintsugi.training.stage_run import FitState, Observer, StageRun, settle

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "constant"]


@dataclass
class Trainer:
    """Trains pipelines. One device in float32 is plain torch; Lightning Fabric is imported when more is asked for.

    Args:
        epochs: the budget of each component; its stages share it by their ``fraction``. An epoch is a pass over the rows of
            the stage.
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
        patience: epochs (or rounds) without a better validation score after which the last stage ends.
        select: keep the epoch with the best validation score, by the task's first metric, or by that of this name, such as
            ``auroc``; False: the last one, and nothing is validated.
        updates: the budget of each component as steps of the optimiser, which its stages that descend share exactly; rows are
            repeated as needed, in new orders. ``epochs`` is then the number of rounds that each stage is cut into (one of
            fewer updates has as many rounds as updates), short ones first: round r of R ends at the share (r / R)² of the
            updates. The last stage is validated after each round; ``patience`` and ``epoch`` in the history count rounds.
            None: ``epochs`` is the budget.
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
    select: bool | str = True
    updates: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.updates is not None and self.updates < 1:
            raise ConfigError(f"updates must be at least 1, or None where epochs are the budget, not {self.updates}")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience must be at least 1, or None for no early end, not {self.patience}")
        if not isinstance(self.select, bool | str) or self.select == "":
            raise ConfigError(f"select is True, False or the name of a metric, not {self.select!r}")
        if not self.lr > 0:
            raise ConfigError(f"lr must be above 0, not {self.lr}")
        if self.optimizer not in ("adamw", "adam", "sgd"):
            raise ConfigError(f"unknown optimizer {self.optimizer!r}; known: adamw, adam, sgd")
        if self.schedule not in ("cosine", "constant"):
            raise ConfigError(f"unknown schedule {self.schedule!r}; known: cosine, constant")
        check_devices(self.precision, self.strategy)
        self.history: list[dict[str, Any]] = []
        self.observers: list[Observer] = []  # asked about every batch, before anything moves
        self._fit: FitState | None = None
        self._spared: Callable[[], Pipeline] | None = None  # gives what keep_best is for

    # the whole of it -------------------------------------------------------------------------------------------
    def fit(self, pipeline: Pipeline, data: Splits, *, strip: bool = True) -> Pipeline:
        """Every stage of every component, then the monitors' calibration; the pipeline is changed in place and returned.

        Args:
            pipeline: what is trained.
            data: training and validation rows, and the auxiliary table of methods that read one.
            strip: let go of what no answer needs; False: teachers and strategies stay, for a look at them.

        Raises:
            DataError: rows that a stage needs are not there, or a modality is absent in all training rows.
            UnknownName, ConfigError: ``select`` names no metric, or none of this task.
            NonFiniteLoss: with the rows of the batch; :meth:`keep_best` gives the best epoch before it.

        Layers draw their initial weights and their dropout from torch's global generator, which this seeds and puts back
        afterwards. So the fits of one process take turns: a second one in another thread waits until the first has ended.
        Loading a model neither waits nor draws. What else draws from that generator meanwhile, or seeds it, is looked for
        between the steps and said in a warning.
        """
        self._spared = None
        check(pipeline, data)
        self._budgets(pipeline)
        if isinstance(self.select, str):
            named_metric(pipeline.schema.task, self.select)
        own = own_encoders(pipeline.own_encoders)  # for models that a component makes on the way
        with own, fork_rng_in_turn():
            torch.manual_seed(self.seed)
            pipeline.begin_training()
        check_stages(pipeline, data)
        data = _ready(pipeline, data)
        fit = self._start(pipeline, data)
        flags = [(p, p.requires_grad) for p in pipeline.parameters()]
        _set_prior(pipeline, data)
        cuda = [fit.at.device] if fit.at.device.type == "cuda" else []
        with own_encoders(pipeline.own_encoders), fork_rng_in_turn(cuda), fit.bar:
            torch.manual_seed(self.seed)
            owner: Any = next(
                (s for s in cast("list[Strategy]", pipeline.strategies) if type(s).fit is not Strategy.fit), None
            )
            try:
                if owner is None:
                    self._run_stages(pipeline, data)
                else:
                    owner.fit(self, pipeline, data)
                _finish(pipeline, data, strip)
            except BaseException as stop:
                if isinstance(stop, KeyboardInterrupt):
                    stop.add_note(self._how_to_resume(fit))
                if isinstance(stop, NonFiniteLoss) and owner is None:
                    self._offer_best(fit, pipeline, data, strip, stop)
                if fit.at.in_pieces:
                    stop.add_note("The weights are in pieces, one in each process: make the model anew.")
                raise
            finally:
                self._fit = None
                for p, flag in flags:  # what was frozen on the way can learn in another training
                    p.requires_grad_(flag)
        if fit.at.rank == 0:
            saved.discard(fit.folder)
        return pipeline

    def _offer_best(self, fit: FitState, pipeline: Pipeline, data: Splits, strip: bool, stop: NonFiniteLoss) -> None:
        """Keep the best epoch for :meth:`keep_best`, where one has ended and nothing but the stage that failed was left."""
        run = fit.latest
        if run is None or run.best is None or run.pipeline is not pipeline or fit.at.world > 1:
            stop.add_note("No epoch whose weights could be kept had ended.")
            return
        if run.number + 1 < len(pipeline.stages()):
            stop.add_note("Stages after this one have not been trained, so there is nothing to keep.")
            return
        self._spared = lambda: _finish_best(pipeline, data, strip, run, self.seed)
        stop.add_note(
            f"The best epoch before that can be had: keep_best() of the trainer or the estimator (validation score "
            f"{run.place.best:.4g}, {run.place.epoch} epochs done)."
        )

    def keep_best(self) -> Pipeline:
        """After a :class:`~kintsugi.core.errors.NonFiniteLoss`: the pipeline as its best epoch before that left it.

        It is finished and calibrated as at the end of :meth:`fit`. Where a process ended meanwhile, the same call of
        ``fit`` with the same ``checkpoint`` comes to the error again without the epochs before.

        Raises:
            ConfigError: the last ``fit`` did not end so, no epoch had ended, epochs were not validated (``select=False``,
                or a stage before the last), stages come after it, or a strategy or several processes trained.
        """
        if self._spared is None:
            raise ConfigError(
                "there is no best epoch to keep: the last fit did not stop at a loss that is not finite after an epoch of its "
                "last stage that was validated"
            )
        return self._spared()

    def _start(self, pipeline: Pipeline, data: Splits) -> FitState:
        """Where it runs, and what there is to go on from."""
        folder = None if self.checkpoint is None else Path(self.checkpoint)
        key = "" if folder is None else self._name_run(pipeline, data)
        resume = saved.find(folder)
        if resume is not None and resume.position.key != key:
            raise ConfigError(
                f"{resume.path} belongs to a run with other data, method or settings; "
                "delete it to train from the start, or choose another checkpoint folder"
            )
        if self.strategy == "fsdp":
            check_hooks(pipeline)
        at = Devices(self.device, self.devices, self.precision, self.strategy, self.num_nodes)
        at.check_same(*((resume.position.run, resume.position.epoch) if resume else (-1, -1)))
        bar = Progress(self.progress if at.rank == 0 else False, title(pipeline))
        self._fit = FitState(at, folder, key, resume, bar)
        self.history = self._fit.history
        return self._fit

    # what a strategy may ask for -------------------------------------------------------------------------------
    def run_all(self, pipeline: Pipeline, data: Splits) -> None:
        """Every stage of a pipeline, in order; epochs are chosen by validation in the model's last stage that descends."""
        self._run_stages(pipeline, data)
        settle(pipeline, data)

    def _run_stages(self, pipeline: Pipeline, data: Splits) -> None:
        check_stages(pipeline, data)
        _set_prior(pipeline, data)
        pipeline.to(self._running.at.device)
        stages, budgets = pipeline.stages(), self._budgets(pipeline)
        last = max((i for i, (path, stage) in enumerate(stages) if path == "model" and not stage.solve), default=-1)
        for i, (path, stage) in enumerate(stages):
            budget = sum(other.fraction for name, other in stages if name == path)
            epochs = max(1, round(self.epochs * stage.fraction / budget))
            select = bool(self.select) and i == last
            if budgets[i] is not None:
                epochs = self.epochs  # rounds
            StageRun(self, self._running, pipeline, path, stage, data, epochs, select, budgets[i]).run()

    def _budgets(self, pipeline: Pipeline) -> list[int | None]:
        """Updates of each stage, in the order of the pipeline's; None: its epochs count, or it does not descend.

        Raises:
            ConfigError: a component has more stages than updates.
        """
        stages = pipeline.stages()
        budgets: list[int | None] = [None] * len(stages)
        for path in {path for path, _ in stages} if self.updates is not None else ():
            own = [i for i, (name, stage) in enumerate(stages) if name == path and not stage.solve]
            if len(own) > self.updates:  # type: ignore[operator]
                raise ConfigError(
                    f"{title(pipeline)}: {self.updates} updates are too few for {len(own)} stages "
                    f"({', '.join(stages[i][1].name for i in own)}); give at least {len(own)}"
                )
            parts = list(accumulate(stages[i][1].fraction for i in own))
            ends = cut(self.updates, [part / parts[-1] for part in parts])  # type: ignore[arg-type]
            for i, start, end in zip(own, [0, *ends], ends, strict=False):
                budgets[i] = end - start
        return budgets

    def run(
        self, pipeline: Pipeline, stage: Stage, data: Splits, epochs: int | None = None, updates: int | None = None
    ) -> None:
        """One stage of the model, without choosing among its epochs.

        Each call starts its optimiser and its schedule anew.

        Args:
            pipeline: of which the model's stage is run.
            stage: which rows, parameters, views.
            data: the tables.
            epochs: passes over its rows; default: its fraction of the budget, of updates where that is said in updates.
            updates: steps of the optimiser, in as many rounds as the trainer's ``epochs``.

        Raises:
            ConfigError: both are given, or less than one.
        """
        if epochs is not None and updates is not None:
            raise ConfigError(f"stage {stage.name!r}: epochs and updates are both given; give one")
        if updates is not None and updates < 1:
            raise ConfigError(f"stage {stage.name!r}: updates must be at least 1, not {updates}")
        pipeline.to(self._running.at.device)
        if epochs is None and updates is None and self.updates is not None:
            updates = max(1, round(self.updates * stage.fraction))
        if updates is not None:
            epochs = self.epochs  # rounds
        epochs = max(1, round(self.epochs * stage.fraction)) if epochs is None else epochs
        StageRun(self, self._running, pipeline, "model", stage, data, epochs, False, updates).run()

    @property
    def _running(self) -> FitState:
        if self._fit is None:
            raise ConfigError("run and run_all are for strategies, while Trainer.fit runs; call fit")
        return self._fit

    # settings, as a stage asks for them ------------------------------------------------------------------------
    def make_optimizer(self, moving: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Of these parameters; biases and gains do not decay."""
        groups = [
            {"params": [p for p in moving if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in moving if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=0.9)
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        # one loop in C++ over many small parameters: an update of small models on a CPU takes a tenth to a fifth less
        fused = all(p.device.type == "cpu" and p.is_floating_point() for p in moving)
        return kind(groups, lr=self.lr, fused=fused or None)

    def rate(self, progress: float) -> float:
        """The learning rate at this point of a stage, from 0 to 1."""
        return self.lr * (0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1.0)

    # checkpoints -----------------------------------------------------------------------------------------------
    def _name_run(self, pipeline: Pipeline, data: Splits) -> str:
        """16 hexadecimal digits of everything that decides a run; the same in every process.

        Raises:
            ConfigError: a component holds an argument whose content cannot be told.
        """
        components = []
        for path, component in pipeline.named_components():
            try:
                arguments = content_digest(component.hyper)
            except DataError as error:
                raise ConfigError(
                    f"an argument of {type(component).__name__} is {error}; or train without checkpoint=, since nobody could "
                    "tell whether a checkpoint belongs to this run"
                ) from error
            encoders = {
                m.modality.name: structure_digest(m.module) for m in component.modules() if isinstance(m, UserEncoder)
            }
            components.append([path, _component_name(component), arguments, encoders])
        own = {f.name: getattr(self, f.name) for f in fields(Trainer) if f.name not in ("checkpoint", "progress")}
        if self.updates is None:  # so that checkpoints of before updates could be said are gone on from
            del own["updates"]
        task = pipeline.schema.task
        names = [*names_in(pipeline), f"task {task.key}", "training", "reading"]
        names += [f"metric {self.select}"] if isinstance(self.select, str) else []
        decided = [
            components, own, versions_of(names, task), data.train.fingerprint, data.val.fingerprint, pipeline.schema.meaning()
        ]  # fmt: skip
        if data.auxiliary is not None:
            decided.append(data.auxiliary.fingerprint)
        return content_digest(decided).hex()[:16]

    @staticmethod
    def _how_to_resume(fit: FitState) -> str:
        if fit.folder is None:
            return "Training was stopped; nothing was kept, since no checkpoint folder was given."
        path = fit.folder / f"{saved.NAME}.safetensors"
        if not path.exists():
            return (
                "Training was stopped before the first epoch ended, and nothing was kept: begin with a new pipeline, since the "
                "weights of this one have moved."
            )
        return f"Training was stopped; {path} holds the last full epoch. The same call goes on from there."


@torch.no_grad()
def _finish(pipeline: Pipeline, data: Splits, strip: bool) -> None:
    """What follows the last stage."""
    pipeline.finish(strip)
    _set_prior(pipeline, data)  # of a model that took the place of the one that was trained
    pipeline.eval()
    with torch.no_grad():
        settle(pipeline, data)
        pipeline.calibrate(data)


def _finish_best(pipeline: Pipeline, data: Splits, strip: bool, run: StageRun, seed: int) -> Pipeline:
    with own_encoders(pipeline.own_encoders), fork_rng_in_turn():
        torch.manual_seed(seed)
        run.put_back_best()
        _finish(pipeline, data, strip)
    return pipeline


def _set_prior(pipeline: Pipeline, data: Splits) -> None:
    """What the model answers where nothing is there, from the training rows."""
    prior = pipeline.schema.task.prior(data.train)
    pipeline.model.prior.copy_(prior.reshape(pipeline.model.prior.shape))


def _ready(pipeline: Pipeline, data: Splits) -> Splits:
    """In memory where they are small; with the identity of rows where a method reads other rows; without test rows."""
    reads_rows = any(card.reference for card in cards_of(pipeline))

    def ready(rows: Data) -> Data:
        rows = rows.in_memory() if isinstance(rows, Dataset) else rows
        return rows.identified() if reads_rows else rows

    auxiliary = None if data.auxiliary is None else ready(data.auxiliary)
    return Splits(ready(data.train), ready(data.val), auxiliary=auxiliary)


def _component_name(component: Component) -> str:
    """Its address; of a class of the user's own its name."""
    try:
        return address(type(component))
    except ConfigError:
        return type(component).__qualname__
