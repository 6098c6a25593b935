"""The life cycle that every component of a pipeline shares."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from kintsugi.core.card import Card
from kintsugi.core.claims import Claims
from kintsugi.core.encoder import UserEncoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.retired import refuse_hooks
from kintsugi.core.stage import Clock, Stage

if TYPE_CHECKING:
    from kintsugi.core.data import Splits
    from kintsugi.core.fixture import Fixture
    from kintsugi.core.pipeline import Pipeline
    from kintsugi.core.schema import Schema


class Component(nn.Module):
    """A restorer, a model, a strategy or a monitor.

    ``hyper`` holds the constructor arguments as given, so that a component can be saved, cloned and shown without code of
    its own. ``ablation`` is the same method without its mechanism: constructor values, or a subclass; ``ablations`` holds, by
    name, one for each of several mechanisms; ``claims`` states in figures what the method does that its ablation does not.

    A class of which a pipeline is more than itself, in or around a host, has a recipe: a classmethod ``pipeline(schema,
    host=None, **hyper) -> Pipeline``.

    renamed: argument of before -> its name now, for saved models that know it by the old one.
    rare: glob patterns of parameters that only few rows reach, so that a training of a few batches may miss them.
    training_only: names of submodules that no answer needs: they are neither saved nor counted in what is served.
    uses: glob patterns of the pipeline's shared components that this one reads in use; all others are for training only.
    reads_auxiliary: a hook of its own reads ``data.auxiliary``, though no stage names that table.
    """

    card: ClassVar[Card]
    ablation: ClassVar[dict[str, Any] | type[Component]]
    ablations: ClassVar[Mapping[str, dict[str, Any] | type[Component]]] = MappingProxyType({})
    claims: ClassVar[Callable[[Fixture], Claims]]
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})
    rare: ClassVar[tuple[str, ...]] = ()
    training_only: ClassVar[tuple[str, ...]] = ()
    uses: tuple[str, ...] = ()
    reads_auxiliary: ClassVar[bool] = False
    clock: Clock
    hyper: dict[str, Any]
    frozen: dict[str, tuple[str, bool]]
    built_for: Schema | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_hooks(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        component = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        arguments = dict(signature.bind_partial(component, *args, **kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:  # **hyper holds arguments, it is none
                arguments |= arguments.pop(name, {})
        arguments.pop(next(iter(signature.parameters)), None)  # self
        component.__dict__["built_for"] = arguments.pop("schema", None)
        component.__dict__["hyper"] = arguments
        return component

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.frozen = {}

    @classmethod
    def arguments_of_version(cls, version: int, hyper: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments with which a model that was saved with an earlier version answers as it did then.

        Args:
            version: of the card when it was saved.
            hyper: the arguments it was saved with.

        Returns:
            None where this version cannot answer as that one did; the model is refused then.
        """
        return None

    @classmethod
    def build(cls, schema: Schema, hyper: Mapping[str, Any]) -> Self:
        """One with these arguments, for a pipeline of this schema; a component that takes no ``schema`` goes without."""
        takes_schema = "schema" in inspect.signature(cls.__init__).parameters
        make: Any = cls
        built: Self = make(schema, **hyper) if takes_schema else make(**hyper)
        return built

    @property
    def own_encoders(self) -> tuple[str, ...]:
        """The modalities for which it holds a module of the user's, which cannot be written as JSON."""
        return tuple(sorted({m.modality.name for m in self.modules() if isinstance(m, UserEncoder)}))

    # where it stands -------------------------------------------------------------------------------------------
    @property
    def pipeline_in_use(self) -> Pipeline:
        """The pipeline that it is a component of.

        Raises:
            ConfigError: it is in none yet.
        """
        pipeline: Pipeline | None = self.__dict__.get("attached_to")
        if pipeline is None:
            raise ConfigError(f"{type(self).__name__} is in no pipeline yet: Pipeline(...) attaches its components")
        return pipeline

    def attach(self, pipeline: Pipeline) -> None:
        """Called by the pipeline; kept out of the module tree, so that each parameter has one owner."""
        self.__dict__["attached_to"] = pipeline

    def __getstate__(self) -> dict[str, Any]:
        """A copy of one component is in no pipeline, rather than in a copy of all of it; a copied pipeline attaches its own."""
        state = {name: value for name, value in self.__dict__.items() if name not in ("attached_to", "noise_")}
        if "noise_" in self.__dict__:  # a generator cannot be copied, what it draws next can
            state["noise_state_"] = self.__dict__["noise_"].get_state()
        return state

    # training --------------------------------------------------------------------------------------------------
    def stages(self) -> list[Stage]:
        """Phases of training, in order; none for a component that is not trained by itself."""
        return []

    def prepare(self, data: Splits, stage: Stage) -> None:
        """Before a stage, without gradient: centres, graphs, teachers."""

    def on_epoch(self, data: Splits) -> None:
        """Before each epoch, without gradient: rewriting labels, pairs, graphs."""

    def on_update(self) -> None:
        """After each step of the optimiser: moving averages."""

    def settle(self, data: Splits) -> None:
        """Without gradient, in evaluation mode, whenever the weights are about to be asked: before each validation, and when
        training is over and the best weights are back. Banks are filled here, and closed forms solved."""

    def keep_frozen(self, name: str, module: nn.Module, save: bool = False) -> nn.Module:
        """A copy of one of this component's modules that never moves; ``save`` where answers need it."""
        path = next((n for n, m in self.named_modules() if m is module), None)
        if path is None:
            raise ConfigError(f"keep_frozen({name!r}): the module is not one of {type(self).__name__}'s own")
        twin = copy.deepcopy(module).requires_grad_(False).eval()
        self.frozen[name] = (path, save)
        setattr(self, name, twin)
        return twin

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    # what is served --------------------------------------------------------------------------------------------
    def not_served(self) -> list[str]:
        """Names of the submodules that no answer needs."""
        frozen = [name for name, (_, save) in self.frozen.items() if not save]
        return [name for name in (*self.training_only, *frozen) if name in self._modules]

    def strip(self) -> None:
        """Let go of what no answer needs."""
        for name in self.not_served():
            del self._modules[name]
            self.frozen.pop(name, None)

    def make_whole(self) -> None:
        """Before training: what :meth:`strip` took is there again, as new."""
        absent = [name for name in self.training_only if name not in self._modules]
        if absent:
            device = next((p.device for p in self.parameters()), None)
            fresh = type(self)(self.built_for, **self.hyper)  # type: ignore[call-arg]
            for name in absent:
                setattr(self, name, getattr(fresh, name).to(device))
