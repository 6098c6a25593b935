"""A model with what stands before and around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.component import Component
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.model import Model
from kintsugi.core.prediction import Prediction, Step, known
from kintsugi.core.retired import renamed_attributes, warn
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Stage
from kintsugi.core.wrappers import Answer, Inner, Monitor, Restorer, Strategy

TRAINING = ("shared.", "strategies.")  # paths of what is served only where another component uses it


class Recipe(NamedTuple):
    """A component that training needs and answers do not: how to build it again."""

    kind: type[Component]
    hyper: dict[str, Any]


class _Shared(nn.ModuleDict):
    """What several components refer to, by name."""

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self:
            hint = "; a component that reads one in answers has to name it in uses, or it is gone after training"
            raise UnknownName("shared component", name, self.keys(), hint)
        return super().__getitem__(name)


@renamed_attributes(plan="stages", step="training_step", named_parts="named_components")
class Pipeline(nn.Module):
    """restore -> model, trained through strategies, answering through monitors (the first of a list is outermost).

    ``shared``: teachers, students, fall-backs and whatever else several components refer to, by name; each has its
    parameters here and nowhere else. After training only what some component ``uses`` in answers is left of them, and no
    strategy: what is saved, loaded and counted is what is served. ``recipes`` tells how to build the rest again.
    """

    own_encoders: dict[str, nn.Module]
    reading: Mapping[str, Any] | None = None  # of the table that it was trained on, where an estimator read one
    recipes: dict[str, Recipe]

    def __init__(
        self,
        model: Model,
        restore: Restorer | None = None,
        strategies: Sequence[Strategy] = (),
        monitors: Sequence[Monitor] = (),
        shared: Mapping[str, Component] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.restore = restore
        self.strategies = nn.ModuleList(strategies)
        self.monitors = nn.ModuleList(monitors)
        self.shared = _Shared(dict(shared or {}))
        owners = [s for s in strategies if type(s).fit is not Strategy.fit]
        if len(owners) > 1:
            raise ConfigError(f"two strategies own the training loop: {', '.join(type(s).__name__ for s in owners)}")
        whole = model.built_for or model.schema
        for path, component in self.named_components():
            built_for = component.built_for
            if built_for is not None and built_for.modalities != whole.modalities:
                raise ConfigError(
                    f"{path} ({type(component).__name__}) was built for {', '.join(built_for.names)}, the model for "
                    f"{', '.join(whole.names)}: give it the pipeline's schema, and an argument that says what it reads"
                )
        self.recipes = {}
        # modules of the user's own by modality, for models that are made during training; no part of this module tree
        self.__dict__["own_encoders"] = {}
        self.attach()

    def attach(self) -> None:
        """Every component knows this pipeline; a model that was trained in another one is this one's again."""
        for _, component in self.named_components():
            component.attach(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.attach()

    @property
    def schema(self) -> Schema:
        return self.model.schema

    def named_components(self) -> list[tuple[str, Component]]:
        """Every component under its path in the module tree."""
        named: list[tuple[str, Component]] = [] if self.restore is None else [("restore", self.restore)]
        named.append(("model", self.model))
        named += [(f"shared.{name}", component) for name, component in self.shared.items()]  # type: ignore[misc]
        for group in ("strategies", "monitors"):
            named += [(f"{group}.{i}", component) for i, component in enumerate(getattr(self, group))]
        return named

    # training --------------------------------------------------------------------------------------------------
    def stages(self) -> list[tuple[str, Stage]]:
        """Every stage in the order of training, with the path of the component that it trains."""
        stages = self.model.stages()
        for strategy in reversed(self.strategies):
            assert isinstance(strategy, Strategy)
            stages = strategy.adjust_stages(stages)
        before = [] if self.restore is None else [("restore", stage) for stage in self.restore.stages()]
        return before + [("model", stage) for stage in stages]

    def training_step(self, batch: Batch, trains: str = "model") -> Step:
        """The named losses of one training batch; ``trains``: the component whose stage it is, restore or model.

        Augmentation comes first, then restoring, then the model's step inside those of the strategies.
        """
        batch = self._augmented(batch)
        if trains == "restore":
            assert self.restore is not None
            return self.restore.step(batch)
        with torch.no_grad():
            batch = self.restored(batch)
        call: Inner = self.model.step
        for strategy in reversed(self.strategies):
            call = partial(cast("Strategy", strategy).step, inner=call)
        return call(batch)

    def _augmented(self, batch: Batch) -> Batch:
        for strategy in self.strategies:
            batch = strategy.augment(batch)  # type: ignore[operator]
        return batch if batch.auxiliary is None else replace(batch, auxiliary=self._augmented(batch.auxiliary))

    def restored(self, batch: Batch) -> Batch:
        """The batch as the model gets it. What came with nothing stays so, and all but inputs, masks and presence is kept."""
        if self.restore is None:
            return batch
        arrived = batch.present.clone()  # a restorer that fills it in place would change what the answer says of it
        filled = self.restore.restore(replace(batch, inputs=dict(batch.inputs), mask=dict(batch.mask)))
        restored = replace(
            batch,
            inputs=filled.inputs,
            present=filled.present,
            mask=filled.mask,
            unrestored=arrived,
            auxiliary=None if batch.auxiliary is None else self.restored(batch.auxiliary),
        )
        anything = arrived.any(1)
        return restored if bool(anything.all()) else restored.where(anything[:, None].expand_as(arrived))

    def begin_training(self) -> None:
        """What training needs is there, built anew where an earlier training or a saved model left it out.

        What was learned in use is let go, and so is the calibrated state, since training moves the weights.
        """
        self.reset()
        self.__dict__["calibrated_"] = {}
        for path, recipe in self.recipes.items():  # in their old order, which strategies and teachers go by
            component = recipe.kind.build(self.schema, recipe.hyper)
            group, _, name = path.partition(".")
            if group == "strategies":
                self.strategies.append(component)
            else:
                self.shared[name] = component
        self.recipes = {}
        for _, component in self.named_components():
            component.make_whole()
        self.attach()

    def finish(self, strip: bool = True) -> None:
        """After training: the model that is served takes the place of the one that was trained, and the rest goes."""
        for strategy in reversed(self.strategies):
            assert isinstance(strategy, Strategy)
            self.model = strategy.finish(self.model)
        if strip:
            self.strip()
        self.attach()

    def strip(self) -> None:
        """Let go of what no answer needs, and keep its recipe."""
        served = self.served()
        for path, component in self.named_components():
            if path not in served:
                self.recipes[path] = Recipe(type(component), component.hyper)
                if path.startswith("shared."):
                    del self.shared[path.removeprefix("shared.")]
            else:
                component.strip()
        self.strategies = nn.ModuleList()
        self.attach()

    def served(self) -> dict[str, Component]:
        """The components that answers need, under their paths."""
        named = dict(self.named_components())
        users = [c for path, c in named.items() if not path.startswith(TRAINING)]
        served: dict[str, Component] = {}
        while users:  # what a shared component uses is served too
            patterns = [pattern for user in users for pattern in user.uses]
            more = {
                path: c
                for path, c in named.items()
                if path.startswith("shared.") and any(fnmatchcase(path.removeprefix("shared."), p) for p in patterns)
            }
            users = [c for path, c in more.items() if path not in served]
            served |= more
        return {path: c for path, c in named.items() if path in served or not path.startswith(TRAINING)}

    def settle(self, data: Splits) -> None:
        """Every component looks at the data with the weights as they are; without gradient, in evaluation mode."""
        for _, component in self.named_components():
            component.settle(data)

    def calibrate(self, data: Splits) -> None:
        """Monitors look at validation rows, innermost first; what adapts in use starts from here."""
        for monitor in reversed(self.monitors):
            assert isinstance(monitor, Monitor)
            monitor.calibrate(data)
        self.remember()

    # use -------------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, model: Answer | None = None) -> Prediction:
        """The answer to each row, as it is served. ``model`` stands in for the model where its features are cached.

        An adapting pipeline answers row after row, and what it learns from one row counts for the next.

        Raises:
            ConfigError: an adapting pipeline is asked in torch.inference_mode, where nothing can learn.
        """
        batch = batch.unlabelled()
        if not self.adapts:
            return self._answer(batch, model)
        if torch.is_inference_mode_enabled():
            raise ConfigError(
                "a pipeline that adapts in use needs gradients; ask it under torch.no_grad(), not inference_mode()"
            )
        if not self.calibrated:
            self.remember()  # of a pipeline that was put together from trained components
        if not len(batch):
            return self._answer(batch, model).detach()
        rows = [batch.rows(row) for row in torch.arange(len(batch), device=batch.device).split(1)]
        with torch.enable_grad():
            answers = [self._answer(row.map(torch.clone), model).detach() for row in rows]
        return Prediction.concatenate(answers)

    def answer(self, batch: Batch) -> Prediction:
        """The call of before; call the pipeline itself."""
        warn("pipeline.answer(batch)", "pipeline(batch)", 2)
        prediction: Prediction = self(batch)
        return prediction

    def _answer(self, batch: Batch, model: Answer | None) -> Prediction:
        call: Answer = self.model if model is None else model
        for monitor in reversed(self.monitors):
            call = partial(cast("Monitor", monitor).answer, inner=call)
        arrived = replace(batch, present=batch.present.clone())
        restored = self.restored(batch)
        prediction = call(restored)
        if self.restore is not None:
            prediction = replace(prediction, restored={**restored.inputs, **prediction.restored})
        return self.described(prediction, self.model.columns(arrived))

    def described(self, prediction: Prediction, present: Tensor) -> Prediction:
        """An answer that names nothing that did not come in (``present`` bool ``[B, M]``) and says how sure it is.

        What rests on filled slots alone rests on all that came in, from which they were filled. Where the method says nothing
        of how sure it is, it is the task that can: the entropy of classes. What nobody can know is NaN.
        """
        used = prediction.used & present
        used = torch.where((prediction.used.any(1) & ~used.any(1))[:, None], present, used)
        prediction = prediction.where_present(self.model.schema.names, present)
        uncertainty = prediction.uncertainty
        if uncertainty is None and not self.training:
            uncertainty = self.model.task.uncertainty(prediction.output)
        weights = None if prediction.weights is None else prediction.weights.masked_fill(~used, 0)
        answered = used.any(1)
        return replace(
            prediction,
            used=used,
            uncertainty=known(uncertainty, answered),
            embedding=known(prediction.embedding, answered),
            weights=weights,
        )

    @property
    def adapts(self) -> bool:
        """Do answers change the pipeline?"""
        return any(type(monitor).adapts for monitor in self.monitors)  # type: ignore[attr-defined]

    def remember(self) -> None:
        """This is the state that :meth:`reset` leads back to and that is saved."""
        calibrated = (
            {name: tensor.detach().clone() for name, tensor in self.state_dict().items()} if self.adapts else {}
        )
        self.__dict__["calibrated_"] = calibrated
        for monitor in self.monitors:
            assert isinstance(monitor, Monitor)
            monitor.forget_noise()

    @property
    def calibrated(self) -> dict[str, Tensor]:
        """The tensors of the calibrated state, by name; empty for a pipeline that does not adapt."""
        state: dict[str, Tensor] = self.__dict__.get("calibrated_", {})
        return state

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the calibrated state, bit for bit."""
        if self.calibrated:
            for name, tensor in self.state_dict(keep_vars=True).items():
                tensor.data.copy_(self.calibrated[name])
                tensor.grad = None
        for monitor in self.monitors:
            assert isinstance(monitor, Monitor)
            monitor.forget_noise()
            monitor.reset()

    def answer_before(self, batch: Batch) -> Prediction:
        """The model's own answer with the weights of the calibrated state, whatever was learned in use since."""
        before = {n.removeprefix("model."): t for n, t in self.calibrated.items() if n.startswith("model.")}
        weights = {
            name: tensor.to(batch.device, copy=True) for name, tensor in before.items()
        }  # buffers may be written to
        return self.model.call(weights, batch)
