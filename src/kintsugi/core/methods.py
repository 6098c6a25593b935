"""Methods as classes: registering one with its card, making a pipeline of it, and naming components in saved models."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from kintsugi.core.card import Card
from kintsugi.core.catalogue import METHODS, card, list_methods, load_plugin
from kintsugi.core.component import Component
from kintsugi.core.encoder import own_encoders
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.kind import KINDS
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.registry import Registry
from kintsugi.core.retired import warn
from kintsugi.core.schema import TASKS, Schema
from kintsugi.core.wrappers import Restorer, Strategy

if TYPE_CHECKING:
    from kintsugi.core.claims import Claims
    from kintsugi.core.fixture import Fixture


__all__ = [
    "COMPONENTS", "METHODS", "ablation_of", "address", "arguments", "build_ablation", "build_pipeline", "card", "claims_of",
    "component_class", "create", "current_names", "judged_ablations", "list_methods", "load_plugin", "register",
    "shared_name", "variant",
]  # fmt: skip

P = TypeVar("P", bound=type[Component])
F = TypeVar("F", bound="Callable[[Fixture], Claims | None]")

# What Classifier and Regressor take themselves: a method's argument of such a name could never be given.
ESTIMATORS_OWN = frozenset({
    "method", "params", "modalities", "target", "task", "epochs", "updates", "lr", "batch_size", "patience", "select",
    "seed", "device", "checkpoint", "progress", "trainer", "encoders", "class_weight",
})  # fmt: skip

# Shared by several methods: teachers, students, fall-backs, watchers. Saved models know them as ``component:<name>``.
COMPONENTS: Registry[type[Component]] = Registry("component", "kintsugi.components")
SHARED = "component:"

PLAIN = "mean_fusion"  # the host where none is given

# Where a helper component of a method stands today, by the address that saved models of before know it under.
MOVED: dict[str, str] = {}


def register(card: Card) -> Callable[[P], P]:
    """Class decorator: this class is the method of that card.

    Raises:
        UnknownName: a task that is not registered.
        ConfigError: it is no component, its key is taken, its card cannot be read from the text of its file, an argument has a
            name that belongs to the estimator, or arguments have no names.
    """

    def add(cls: P) -> P:
        if not (isinstance(cls, type) and issubclass(cls, Component)):
            raise ConfigError(
                f"method {card.key!r}: what is registered has to be a class made from Model, Strategy, Restorer or Monitor, "
                f"not {cls!r}"
            )
        nameless = [p.name for p in _parameters(cls) if p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY)]
        if nameless:
            raise ConfigError(
                f"method {card.key!r}: {', '.join(nameless)} can only be given by place, and arguments of methods are given "
                "by name; write each as NAME=DEFAULT, without a star or a slash"
            )
        clash = sorted(arguments(cls).keys() & ESTIMATORS_OWN)
        if clash:
            raise ConfigError(
                f"method {card.key!r}: {', '.join(clash)} belongs to Classifier and Regressor, so it would never reach the "
                "method; give its argument another name"
            )
        for task in card.tasks:
            if task not in TASKS:
                raise UnknownName(f"task of card {card.key!r}:", task, TASKS)
        for kind in card.kinds:
            if kind not in KINDS:
                raise UnknownName(f"kind of card {card.key!r}:", kind, KINDS)
        cls.card = card
        METHODS.add(cls, card)
        return cls

    return add


def variant(card: Card, of: type[Component], **defaults: Any) -> type[Component]:
    """A near-twin: the same class under its own card, with other defaults.

    Raises:
        UnknownName: a default of an argument that the method does not have. ConfigError: as :func:`register`.
    """
    known = arguments(of)
    for name in defaults:
        if name not in known:
            raise UnknownName(f"argument of {of.card.key}, of which {card.key} is a variant,", name, known)
    module = sys._getframe(1).f_globals.get("__name__", of.__module__)  # where the card is written
    preset = {**_preset(of), **defaults}
    cls = type(of.__name__ + "_" + card.key, (of,), {"__doc__": of.__doc__, "__module__": module, "preset": preset})
    return register(card)(cls)


def ablation_of(method: type[Component], part: str = "", **values: Any) -> Callable[[P], P]:
    """Class decorator, or a call with constructor values: the method without its mechanism.

    Of a method with several mechanisms, ``ablation`` takes all of them away, and one more for each, under a name of its own
    as ``part``, takes that alone: ``ablation_of(KDMM, "fall-back", fallback=False)``. All keep rows, stages, views, the number
    of moving parameters and the path of the answer: what is taken is the information that the mechanism brings.

    Args:
        method: whose ablation it is.
        part: the one mechanism that is taken away; "": all of them.
        values: of the method's constructor or recipe that do it; none where a class is decorated.
    """

    def note(what: dict[str, Any] | type[Component]) -> None:
        if part:
            method.ablations = {**vars(method).get("ablations", {}), part: what}
        else:
            method.ablation = what

    note(values)

    def decorate(cls: P) -> P:
        note(cls)
        return cls

    return decorate


def claims_of(method: type[Component]) -> Callable[[F], F]:
    """Decorator of the function that states what a method does in figures: it yields a ``Claim`` for each.

    It gets a fixture of the method or of its ablation, and has to give every claim on both.
    """

    def add(check: F) -> F:
        method.claims = staticmethod(check if inspect.isgeneratorfunction(check) else _claims_of_before(method, check))
        return check

    return add


def _claims_of_before(method: type[Component], check: Callable[[Fixture], Any]) -> Callable[[Fixture], Claims]:
    """A check of before asserted one property; it is one claim that holds or does not."""
    from kintsugi.core.claims import Claim

    warn("a check that asserts", "a generator of claims: yield Claim(name, figure, at_least=…)", 3)

    def claims(fixture: Fixture) -> Claims:
        holds = 1.0
        try:
            check(fixture)
        except AssertionError:
            holds = 0.0
        yield Claim(method.card.claims[0], holds, at_least=1.0)

    return claims


def create(
    key: str,
    schema: Schema,
    /,
    *,
    host: Model | None = None,
    encoders: Mapping[str, nn.Module] | None = None,
    **hyper: Any,
) -> Pipeline:
    """A pipeline of the registered method for this schema.

    Args:
        key: of the method.
        schema: of the data.
        host: the model that a strategy, restorer or monitor stands around; default: the plain one.
        encoders: modules of your own, by modality; every model inside takes a copy of those of its modalities, also one
            that is made during training.
        hyper: arguments of the method.

    Raises:
        UnknownName: no such method, no such argument of it, or no such modality.
        ConfigError: the schema has too few or too many modalities for it, or a task it does not solve; a host for a method
            that is a model itself; an encoder that no model of it takes, or that is no module; an argument under its name
            of today and of before.
    """
    if not isinstance(key, str):
        raise ConfigError(f"a method is named by its key, such as 'mean_fusion', not {key!r}")
    cls = METHODS[key]
    card: Card = cls.card
    misfit = card.misfit(schema)
    if misfit:
        raise ConfigError(misfit)
    if host is not None and issubclass(cls, Model):
        raise ConfigError(f"{key} is a model of its own, so it takes no host")
    if host is not None and not isinstance(host, Model):
        raise ConfigError(f"the host of {key} is a model, such as create('mean_fusion', schema).model, not {host!r}")
    hyper = {**_preset(cls), **current_names(cls, hyper)}
    known = arguments(cls)
    for name in hyper:
        if name not in known:
            raise UnknownName(f"argument of {key}", name, known)
    with own_encoders(encoders) as taken:
        for name in encoders or {}:
            schema.column(name)
        pipeline = recipe(cls, schema, host, **hyper)
    idle = sorted((encoders or {}).keys() - taken)
    if idle:
        why = (
            "it reads its inputs without encoders; leave encoders= out, or choose another method"
            if host is None
            else "the host was given, so its encoders are its own; make the host with encoders=, or leave the host out"
        )
        raise ConfigError(f"no model of {key} takes an encoder for {', '.join(idle)}: {why}")
    pipeline.own_encoders = dict(encoders or {})
    return pipeline


def current_names(cls: type[Component], hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments under the names of today; an old name is read, with a warning that tells the new one.

    Raises:
        ConfigError: an argument is given under both names.
    """
    for name in hyper:
        if name in cls.renamed:
            now = cls.renamed[name]
            if now in hyper:
                raise ConfigError(
                    f"{cls.card.key}: {name!r} is called {now!r} now, and both are given; leave {name!r} out"
                )
            warnings.warn(f"{cls.card.key}: the argument {name!r} is called {now!r} now", stacklevel=3)
    return {cls.renamed.get(name, name): value for name, value in hyper.items()}


def arguments(cls: type[Component]) -> dict[str, Any]:
    """What a method takes, with defaults: of its constructor and of its recipe, without schema and host.

    A variant has its own defaults.
    """
    named = (p for p in _parameters(cls) if p.kind is not p.VAR_KEYWORD)
    return {**{p.name: p.default for p in named}, **_preset(cls)}


def _parameters(cls: type[Component]) -> list[inspect.Parameter]:
    """Of constructor and recipe, without schema and host."""
    constructor: Any = cls.__init__  # of which a type checker expects an instance
    functions = [partial(constructor, None)]  # without self, whatever its name
    if hasattr(cls, "pipeline"):
        functions.append(cls.pipeline)
    parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
    return [p for p in parameters if p.name not in ("schema", "host")]


def _preset(cls: type[Component]) -> dict[str, Any]:
    """Defaults of a variant; none of any other class."""
    preset: dict[str, Any] = getattr(cls, "preset", {})
    return preset


def build_pipeline(cls: type[Component], schema: Schema, **hyper: Any) -> Pipeline:
    """A pipeline of a class, with the defaults of a variant; nothing is checked."""
    return recipe(cls, schema, **{**_preset(cls), **hyper})


def recipe(cls: type[Component], schema: Schema, host: Model | None = None, **hyper: Any) -> Pipeline:
    """A pipeline of this class: its own recipe where it has one, else itself, around or before a host.

    Args:
        cls: a model, restorer, strategy or monitor.
        schema: of the data.
        host: the model that a restorer, strategy or monitor stands around; default: the plain one.
        hyper: constructor arguments, and those of the recipe.
    """
    own: Callable[..., Pipeline] | None = getattr(cls, "pipeline", None)
    if own is not None:
        return own(schema, host=host, **hyper)
    component: Any = cls(schema, **hyper)  # type: ignore[call-arg]
    if isinstance(component, Model):
        return Pipeline(component)
    model = METHODS[PLAIN](schema) if host is None else host
    if isinstance(component, Restorer):
        return Pipeline(model, restore=component)
    if isinstance(component, Strategy):
        return Pipeline(model, strategies=[component])
    return Pipeline(model, monitors=[component])


def build_ablation(cls: type[Component], schema: Schema, part: str = "", **hyper: Any) -> Pipeline:
    """The method without its mechanism, as its ``ablation`` says, or without one of several, by its name in ``ablations``.

    Raises:
        UnknownName: no such part.
    """
    if part and part not in cls.ablations:
        raise UnknownName(f"mechanism of {cls.card.key} that an ablation takes away", part, cls.ablations)
    ablation = cls.ablations[part] if part else cls.ablation
    if isinstance(ablation, dict):
        return build_pipeline(cls, schema, **{**hyper, **ablation})
    return build_pipeline(ablation, schema, **{**_preset(cls), **hyper})


def judged_ablations(cls: type[Component]) -> tuple[str, ...]:
    """Names of the ablations that a method is compared with: one for each of several mechanisms, else "" for the only one."""
    return tuple(cls.ablations) or ("",)


def shared_name(cls: type[Component]) -> str | None:
    """The name under which a class is registered among the shared components; None: it is none of them."""
    return next((name for name in COMPONENTS if COMPONENTS[name] is cls), None)


def address(cls: type[Component]) -> str:
    """How a saved folder names a component: by the key of its method; ``key.ClassName`` for a helper class in the same file;
    ``component:name`` for one that methods share.

    Raises:
        ConfigError: it is none of these, so that nobody could find it again.
    """
    name = shared_name(cls)
    if name is not None:
        return SHARED + name
    if "card" in vars(cls):
        return cls.card.key
    owners = METHODS.of_module(cls.__module__)
    if not owners:
        raise ConfigError(
            f"{cls.__qualname__} belongs to no registered method, so a model that holds it cannot be saved"
        )
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is not cls:
        raise ConfigError(f"{cls.__qualname__} is not at the top of its file, so a model that holds it cannot be saved")
    return f"{owners[0]}.{cls.__qualname__}"


def component_class(address: str) -> type[Component]:
    """The class at an address, of today or of before; nothing but components in the files of registered methods, and those
    that are registered themselves, can be reached."""
    address = MOVED.get(address, address)
    if address.startswith(SHARED):
        return COMPONENTS[address.removeprefix(SHARED)]
    key, _, name = address.partition(".")
    cls: type[Component] = METHODS[key]
    if not name:
        return cls
    here = vars(sys.modules[cls.__module__])
    own = {
        n: t
        for n, t in here.items()
        if isinstance(t, type) and issubclass(t, Component) and t.__module__ == cls.__module__
    }
    if name not in own:
        raise UnknownName(f"component of {key}", name, own)
    return own[name]
