"""One stage of one component, from its first epoch to its last, with everything that an interruption must not lose."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data, Splits
from kintsugi.core.encoder import evaluating
from kintsugi.core.errors import ConfigError, NonFiniteLoss
from kintsugi.core.metrics import named_metric
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.randomness import DrawWatch
from kintsugi.core.stage import Stage
from kintsugi.data.loaders import batches, count, order
from kintsugi.io.saved_models import fill
from kintsugi.training import checkpoint as saved
from kintsugi.training.checks import moving, rows_of_stage
from kintsugi.training.choosing import doubt, metric_name, scored_rows
from kintsugi.training.devices import Devices
from kintsugi.training.progress import Progress
from kintsugi.training.sampling import cut, endless, generator
from kintsugi.training.views import get_view

if TYPE_CHECKING:
    from kintsugi.training.trainer import Trainer

GROWN = 1000.0  # times its start: a loss that has grown so far has exploded. Both constants are proposed here.
LEAST_LOSS = 0.1  # a start below counts as this: a loss that starts at nothing, between equal models, may grow


@dataclass
class Losses:
    """What an observer of training sees of each batch, before anything moves.

    stage: whose batch it is; run: the number of this stage in the fit, those of teachers too; epoch: or round, of a budget
    of updates; losses: by name, with their graph; moving: the parameters that the stage moves.
    """

    stage: Stage
    run: int
    epoch: int
    batch: Batch
    losses: dict[str, Tensor]
    moving: list[nn.Parameter]


Observer = Callable[[Losses], None]


@dataclass
class FitState:
    """What the stages of one ``fit`` share: where it runs, what it may go on from, which pipelines it has touched."""

    at: Devices
    folder: Path | None
    key: str
    resume: saved.Checkpoint | None
    bar: Progress
    runs: int = 0
    touched: list[Pipeline] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    latest: StageRun | None = None  # the stage that was begun last
    draw_said: bool = False


class _LossesOf(nn.Module):
    """The module that is wrapped for several processes: its call gives losses, while a pipeline's own gives answers."""

    def __init__(self, pipeline: Pipeline, trains: str) -> None:
        super().__init__()
        self.pipeline, self.trains = pipeline, trains

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.pipeline.training_step(batch, self.trains).losses


class StageRun:
    """One stage.

    Args:
        trainer: its settings.
        fit: what it shares with the other stages.
        pipeline: which is trained; path: of the component whose stage it is, restore or model.
        stage: which rows, parameters, views.
        data: the tables.
        epochs: how many passes over the rows; with ``updates``: into how many rounds these are cut.
        select: keep the epoch with the best validation score.
        updates: steps of the optimiser, however many passes that are; None: ``epochs`` passes.
    """

    def __init__(
        self, trainer: Trainer, fit: FitState, pipeline: Pipeline, path: str, stage: Stage, data: Splits, epochs: int,
        select: bool, updates: int | None = None,
    ) -> None:  # fmt: skip
        self.trainer, self.fit, self.at = trainer, fit, fit.at
        self.pipeline, self.path, self.stage, self.data = pipeline, path, stage, data
        self.epochs, self.select, self.updates = epochs, select, updates
        self.number = fit.runs
        fit.runs += 1
        fit.latest = self
        self.best: dict[str, Tensor] | None = None  # weights and buffers of the best epoch
        self.metric: str | None = None  # by which it is chosen, where that is not the task's first
        self.first_loss: float | None = None
        self.now: _Pass | None = None  # that batches are taken from
        self.watch = DrawWatch(self.at.device)

    def run(self) -> None:
        """All of it; nothing but the preparations where it was done before an interruption."""
        fit, pipeline, stage = self.fit, self.pipeline, self.stage
        if not any(p is pipeline for p in fit.touched):
            fit.touched.append(pipeline)
        pipeline.attach()
        components = dict(pipeline.named_components())
        for component in components.values():
            component.clock.stage, component.clock.epoch, component.clock.progress = stage.name, 0, 0.0
        self.source, self.rows = rows_of_stage(self.data, stage.rows, stage, pipeline)
        with torch.no_grad():
            for component in components.values():
                component.prepare(self.data, stage)
        pipeline.to(self.at.device)  # what was prepared too
        if fit.resume is not None and self.number < fit.resume.position.run:
            return  # its result is in the checkpoint
        if stage.solve:
            self._solve()
            return
        with moving(components[self.path], pipeline, stage) as chosen:
            self.moving = chosen
            self._descend()

    def _solve(self) -> None:
        pipeline = self.pipeline
        pipeline.eval()
        with torch.no_grad():
            batch = pipeline.restored(self.source.batch(self.rows).to(self.at.device))
            pipeline.model.solve(pipeline.model.encode(batch), batch)

    # descent ---------------------------------------------------------------------------------------------------
    def _descend(self) -> None:
        fit, pipeline = self.fit, self.pipeline
        self.module, self.optimizer, self.wrapped = self.at.setup(
            _LossesOf(pipeline, self.path), self.moving, self.trainer.make_optimizer
        )
        self.steps = max(1, count(self.rows, self.trainer.batch_size, self.source) // self.at.world)
        self.ends = self._round_ends()
        self.place = saved.Position(fit.key, self.number, 0)
        if fit.resume is not None and self.number == fit.resume.position.run:
            self.place = fit.resume.position
            self.best = fit.resume.restore_run(fit.touched, self.at.state_of(self.optimizer))
            fit.history[:] = self.place.history
            fit.resume = None
        if self.select and isinstance(self.trainer.select, str):
            self.metric = metric_name(pipeline, self.data.val, self.trainer.select, quiet=self.at.rank != 0)
        many = self.trainer.accumulate
        sizes = [end - start for start, end in zip([0, *self.ends], self.ends, strict=False)]
        self.done = sum(-(-size // many) for size in sizes[: self.place.epoch])  # updates
        fit.bar.expect(self.ends[-1], self.stage.name)
        for epoch in range(self.place.epoch, len(self.ends)):
            patience = self.trainer.patience
            if self.select and patience is not None and self.place.waited >= patience:
                break
            record = self._epoch(epoch)
            if self.select:
                self._choose(record)
            fit.history.append(record)
            self._keep(epoch)
        self.at.settle()
        if self.select and self.metric in (None, self.trainer.select):  # else it was said before
            self._doubt()
        self.put_back_best()

    def put_back_best(self) -> None:
        """The weights of the best epoch, where epochs are chosen; the stage is over."""
        if self.best is not None:
            _put_back(self.pipeline, self.best)
        for _, component in self.pipeline.named_components():
            component.clock.progress = 1.0

    def _round_ends(self) -> list[int]:
        """How many batches each epoch ends at, counted from the start of the stage.

        Of a budget of updates, round r of R ends at the share (r / R)² of it: what learns fast is looked at early.
        """
        if self.updates is None:
            return [self.steps * (epoch + 1) for epoch in range(self.epochs)]
        rounds = min(self.epochs, self.updates)
        ends = cut(self.updates, [((each + 1) / rounds) ** 2 for each in range(rounds)])
        return [end * self.trainer.accumulate for end in ends]

    def _epoch(self, epoch: int) -> dict[str, Any]:
        """Every batch once, or those of a round; the mean of each loss."""
        pipeline, first, last = self.pipeline, self.ends[epoch - 1] if epoch else 0, self.ends[epoch]
        self._tick(epoch, first, epoch / self.epochs)
        with torch.no_grad():
            for _, component in pipeline.named_components():
                component.on_epoch(self.data)
        self.at.spread()
        pipeline.train()
        _calm(pipeline)
        sums: dict[str, float] = {}
        what = "epoch" if self.updates is None else "round"
        for i, batch in enumerate(self._between(first, last)):
            self._tick(epoch, first + i, (epoch + i / self.steps) / self.epochs)
            self._check_draws(epoch, put_back=False)  # rows of a user's own may draw
            losses = self.module(batch)
            self._update(losses, batch, epoch, i)
            self.watch.begin()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach())
            self.fit.bar.advance(f"{what} {epoch + 1}/{len(self.ends)}")
        self.watch.end(put_back=False)
        self.at.gather(pipeline)
        self._check_growth(sum(sums.values()) / (last - first), epoch)
        record: dict[str, Any] = {"stage": self.stage.name, "run": self.number, "epoch": epoch, "updates": self.done}
        return record | {f"loss/{name}": total / (last - first) for name, total in sums.items()}

    def _between(self, first: int, last: int) -> Iterator[Batch]:
        """The batches from one to before another, counted from the start of the stage: one pass after the other."""
        while first < last:
            number, within = divmod(first, self.steps)
            if self.now is None or self.now.number != number:
                self.now = _Pass(self, number)
                for _ in self.now.take(0, within):  # after an interruption in its middle: what these draw comes before
                    pass
            end = min(self.steps, within + last - first)
            yield from self.now.take(within, end)
            first += end - within

    def auxiliary(self, chunks: list[Tensor], number: int) -> Iterator[Batch | None]:
        """The auxiliary batch beside each batch of a pass."""
        if self.stage.auxiliary is None:
            return repeat(None)
        source, rows = rows_of_stage(self.data, self.stage.auxiliary, self.stage, self.pipeline)
        # "side" is part of the seed of results that exist
        draw = generator(self.trainer.seed, self.number, number, "side", self.at.rank)
        return map(source.batch, endless(rows, map(len, chunks), draw))

    def _update(self, losses: dict[str, Tensor], batch: Batch, epoch: int, i: int) -> None:
        name = self.stage.name
        if not losses:
            raise ConfigError(f"stage {name!r}: its step brings no loss")
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if not math.isfinite(float(total.detach())):
            values = {name: float(loss.detach()) for name, loss in losses.items()}
            raise NonFiniteLoss(name, epoch, values, batch.index.tolist())
        for observer in self.trainer.observers:
            observer(Losses(self.stage, self.number, epoch, batch, losses, self.moving))
        if not total.requires_grad:
            raise ConfigError(f"stage {name!r}: its losses reach none of the parameters that it moves")
        if self.first_loss is None:
            self.first_loss = float(total.detach())
        self.watch.begin()
        many, first = self.trainer.accumulate, self.ends[epoch - 1] if epoch else 0
        size = self.ends[epoch] - first
        group = min(many, size - i // many * many)
        self.at.backward(total / group)
        if i + 1 != size and (i + 1) % many:
            self._check_draws(epoch, put_back=True)
            return
        if self.trainer.clip:
            self.at.clip(self.module, self.wrapped, self.moving, self.trainer.clip)
        at, of = (first + i, self.ends[-1]) if self.updates is None else ((first + i) // many, self.updates)
        rate = self.trainer.rate(at / of)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.wrapped.step()
        self.wrapped.zero_grad()
        self.done += 1
        self._check_draws(epoch, put_back=True)
        for _, component in self.pipeline.named_components():
            component.on_update()

    def _check_draws(self, epoch: int, put_back: bool) -> None:
        """Say once a fit that something else drew; ``put_back``: what it drew is undone.

        Draws while the model computes its losses cannot be told from the model's own. Between these, backward, the
        optimiser's step and the reading of rows draw nothing.
        """
        if self.watch.end(put_back) and not self.fit.draw_said:
            self.fit.draw_said = True
            warnings.warn(
                f"something beside the training drew from torch's global random generator, or seeded it, in stage "
                f"{self.stage.name!r}, epoch {epoch + 1}: another thread of this process, or rows that draw when they are "
                "read. The same seed may give other weights the next time. Draw from a torch.Generator of your own there, or "
                "wait until the training has ended",
                stacklevel=2,
            )

    def _check_growth(self, mean: float, epoch: int) -> None:
        """Say once a stage that its loss has exploded."""
        if self.first_loss is None or mean <= GROWN * max(abs(self.first_loss), LEAST_LOSS):
            return
        warnings.warn(
            f"the loss of stage {self.stage.name!r} was {self.first_loss:.4g} in its first batch and {mean:.4g} in the mean of "
            f"epoch {epoch + 1}: training diverges. Lower the learning rate ({self.trainer.lr:g}), or clip harder "
            f"({self.trainer.clip:g})",
            stacklevel=2,
        )
        self.first_loss = math.inf

    # choosing and keeping --------------------------------------------------------------------------------------
    def _choose(self, record: dict[str, Any]) -> None:
        """Of equal epochs the later: it has learned for longer."""
        settle(self.pipeline, self.data)
        asked = () if self.metric is None else (self.metric,)
        score, sign, metric = validate(self.pipeline, self.data.val, self.at.device, *asked)
        score = self.at.agreed(score)
        record[f"val/{metric}"] = score
        place = self.place
        lead = sign * (score - (-sign * math.inf if place.best is None else place.best))
        is_best = math.isfinite(score) and lead >= 0
        place.waited = 0 if is_best and lead > 0 else place.waited + 1
        if is_best:
            place.best = score
            self.best = {n: t.detach().clone() for n, t in self.pipeline.state_dict().items()}

    def _doubt(self) -> None:
        """Say where the validation scores cannot have told one epoch from another; asked in every process, since metrics wait
        for each other.
        """
        mine = [record for record in self.fit.history if record["run"] == self.number]
        names = [key.removeprefix("val/") for record in mine for key in record if key.startswith("val/")]
        scores = [record[f"val/{names[0]}"] for record in mine if f"val/{names[0]}" in record] if names else []
        if not any(math.isfinite(score) for score in scores):
            return
        said = doubt(self.pipeline, self.data.val, names[0], scores)
        if said is not None and self.at.rank == 0:
            warnings.warn(said, stacklevel=2)

    def _keep(self, epoch: int) -> None:
        self.place.epoch, self.place.history = epoch + 1, self.fit.history
        if self.fit.folder is not None:
            state = self.at.state_of(self.optimizer)
            if self.at.rank == 0:
                saved.write_checkpoint(self.fit.folder, self.place, self.fit.touched, state, self.best)

    def _tick(self, epoch: int, batch: int, progress: float) -> None:
        """Before this batch of the stage; ``progress`` where epochs are passes."""
        if self.updates is not None:
            progress = batch // self.trainer.accumulate / self.updates
        for _, component in self.pipeline.named_components():
            clock = component.clock
            clock.epoch, clock.passes, clock.progress = epoch, batch // self.steps, progress


class _Pass:
    """All rows of a stage once, in batches: in the order of this pass, on the device, with their views taken and their
    auxiliary batches beside them."""

    def __init__(self, of: StageRun, number: int) -> None:
        seed, rank, size = of.trainer.seed, of.at.rank, of.trainer.batch_size
        self.of, self.number = of, number
        self.draw = generator(seed, of.number, number, "view", rank)
        self.chunks = of.at.share(order(of.rows, size, generator(seed, of.number, number, "rows"), of.source))
        self.auxiliary = of.auxiliary(self.chunks, number)

    def take(self, first: int, last: int) -> Iterator[Batch]:
        """Its batches from one to before another; each has to be taken once, since the next ones draw after it."""
        of, view = self.of, get_view(self.of.stage.view)
        for batch, auxiliary in zip(batches(of.source, self.chunks[first:last]), self.auxiliary, strict=False):
            batch = batch.to(of.at.device) if of.at.moves else batch
            keep = view(batch, self.draw)
            if keep is not batch.present:
                batch = batch.view(keep)
            if auxiliary is not None:
                batch = replace(batch, auxiliary=auxiliary.to(of.at.device))
            yield batch


def _put_back(pipeline: Pipeline, best: dict[str, Tensor]) -> None:
    """The weights and buffers of the best epoch; a buffer may have had another size then, or none."""
    for name in pipeline.state_dict().keys() - best.keys():
        path, _, leaf = name.rpartition(".")
        buffers = pipeline.get_submodule(path)._buffers
        if leaf in buffers:
            buffers[leaf] = None
    fill(pipeline, best, pipeline.state_dict(), "the best epoch", "make what changes its shape a buffer")


@torch.no_grad()
def settle(pipeline: Pipeline, data: Splits) -> None:
    """Banks are filled and closed forms solved with the weights as they are."""
    with evaluating(pipeline):
        pipeline.settle(data)


@torch.no_grad()
def validate(
    pipeline: Pipeline, data: Data, device: torch.device | str = "cpu", name: str | None = None
) -> tuple[float, int, str]:
    """A metric on validation rows in natural view: value, +1 where higher is better else -1, name; default: the task's first."""
    model = pipeline.model
    task = model.task
    name = str(next(iter(task.metrics().keys()))) if name is None else name
    metric = named_metric(task, name).to(device)
    rows = scored_rows(pipeline, data)
    if not len(rows) or data.target is None:
        return math.nan, 1, name
    with evaluating(pipeline):
        for batch in data.batches(512, rows):
            batch = batch.to(device)
            assert batch.target is not None
            output = model(pipeline.restored(batch.unlabelled())).output.float()
            metric.update(*task.match(task.probabilities(output), batch.target))
    return float(metric.compute()), 1 if metric.higher_is_better else -1, name


def _calm(pipeline: Pipeline) -> None:
    """Modules of which nothing moves are in evaluation mode, so that frozen normalisers keep their statistics."""
    for module in pipeline.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()
