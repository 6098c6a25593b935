"""The life cycle that the four kinds of part share."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from kintsugi.core.card import Card
from kintsugi.core.encoder import UserEncoder
from kintsugi.core.errors import ConfigError
from kintsugi.core.stage import Clock, Stage

if TYPE_CHECKING:
    from kintsugi.core.data import Splits
    from kintsugi.core.fixture import Fixture
    from kintsugi.core.pipeline import Pipeline
    from kintsugi.core.schema import Schema


class Component(nn.Module):
    """A restorer, a model, a strategy or a monitor.

    ``hyper`` holds the constructor arguments as given, so that a part can be saved, cloned and shown without code of its
    own. ``ablation`` is the same method without its mechanism: constructor values, or a subclass; ``claims`` states what
    it does that its ablation does not, in figures. ``renamed``: argument of before -> its name now, for saved models that know it by the old one.
    """

    card: ClassVar[Card]
    ablation: ClassVar[dict[str, Any] | type[Component]]
    claims: ClassVar[Callable[[Fixture], None]]
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})
    clock: Clock
    hyper: dict[str, Any]
    frozen: dict[str, tuple[str, bool]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        part = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        given = dict(signature.bind_partial(part, *args, **kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:  # **hyper holds arguments, it is none
                given |= given.pop(name, {})
        given.pop(next(iter(signature.parameters)), None)  # self
        part.__dict__["hyper"] = {name: value for name, value in given.items() if name != "schema"}
        return part

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

    @property
    def own_encoders(self) -> tuple[str, ...]:
        """The modalities for which it holds a module of the user's, which cannot be written as JSON."""
        return tuple(sorted({m.modality.name for m in self.modules() if isinstance(m, UserEncoder)}))

    def stages(self) -> list[Stage]:
        """Phases of training, in order; none for a part that is not trained by itself."""
        return []

    def prepare(self, data: Splits, stage: Stage) -> None:
        """Before a stage, without gradient: centres, banks, graphs, teachers."""

    def on_epoch(self, data: Splits) -> None:
        """Before each epoch: rewriting labels, pairs, graphs."""

    def on_update(self) -> None:
        """After each step of the optimiser: moving averages."""

    def keep_frozen(self, name: str, module: nn.Module, save: bool = False) -> nn.Module:
        """A copy of one of this part's modules that never moves; ``save`` where inference needs it."""
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

    @classmethod
    def pipeline(cls, schema: Schema, host: Any = None, **hyper: Any) -> Pipeline:
        """The recipe of this method: itself, around or in the plain host where it needs one."""
        raise NotImplementedError
