"""Names of before: they are still read, with a warning that tells the name of today.

The glossary in the documentation lists old and new; no class, function, argument or field of today bears an old one.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from kintsugi.core.errors import ConfigError

T = TypeVar("T", bound=type)

# Public names, by the package that hands them on.
NAMES: Mapping[str, Mapping[str, str]] = {
    "kintsugi": {"Part": "Component", "Lab": "Fixture", "check_of": "claims_of", "contract": "testing"},
    "kintsugi.core": {"Part": "Component", "Lab": "Fixture", "check_of": "claims_of"},
}


class Name(NamedTuple):
    """A word of before and the word of today.

    old, new: as a reader meets them.
    meaning: what the word of today means, in one sentence.
    banned: the identifier that no class, function, parameter or attribute bears any more; empty where the old word rightly
        means something else elsewhere, such as the share of an operator or the plan of a distortion.
    """

    old: str
    new: str
    meaning: str
    banned: str = ""


GLOSSARY: tuple[Name, ...] = (
    Name("Part", "Component", "A restorer, a model, a strategy or a monitor of a pipeline.", "Part"),
    Name("Lab", "Fixture", "A method, or its ablation, with a small world to show its claims in.", "Lab"),
    Name("lab", "fixture", "The argument of a function of claims.", "lab"),
    Name("off", "ablation", "The same method without its mechanism.", "off"),
    Name("switched_off", "build_ablation", "Makes a pipeline of a method's ablation.", "switched_off"),
    Name("made", "build_pipeline", "Makes a pipeline of a class, with the defaults of a variant.", "made"),
    Name("mechanism", "claims", "What a method does that its ablation does not, in figures."),
    Name("check_of", "claims_of", "Decorator of the function that states a method's claims.", "check_of"),
    Name("Card(check=)", "Card(claims=)", "Names of the claims that the ablation has to fail."),
    Name(
        "has_its_mechanism",
        "claims_hold",
        "The promise that claims hold, and fail on the ablation.",
        "has_its_mechanism",
    ),
    Name("off_is_sound", "ablation_is_sound", "The promise that the ablation is a method too.", "off_is_sound"),
    Name("says_what_it_is", "card_is_true", "The promise that a method is what its card says.", "says_what_it_is"),
    Name("contract", "testing", "The package of the promises that every method keeps."),
    Name("side", "batch.auxiliary", "The second batch of a stage that asks for one.", "side"),
    Name("Stage(side=)", "Stage(auxiliary=)", "Which rows make up the second batch."),
    Name("Stage(share=)", "Stage(fraction=)", "Of the component's budget of epochs."),
    Name("Stage(train=)", "Stage(trainable=)", "Patterns of the parameters that move in a stage."),
    Name("Strategy.plan", "Strategy.adjust_stages", "How a strategy changes the model's stages."),
    Name("Pipeline.plan", "Pipeline.stages", "Every stage of a pipeline in the order of training."),
    Name("Pipeline.answer", "pipeline(batch)", "The answer to each row, as it is served."),
    Name("Pipeline.step", "Pipeline.training_step", "The named losses of one training batch."),
    Name("training_part", "training_step(batch, trains)", "Whose stage it is: restore or model.", "training_part"),
    Name("named_parts", "named_components", "Every component of a pipeline under its path.", "named_parts"),
    Name("part_class", "component_class", "The class at an address of a saved model.", "part_class"),
    Name("or_prior", "fall_back", "The prior in the place of answers to rows that hold too little.", "or_prior"),
)


def warn(old: str, new: str, stacklevel: int = 3) -> None:
    """Tell the caller of the caller what a name is called now."""
    warnings.warn(f"{old} is called {new} now", DeprecationWarning, stacklevel=stacklevel + 1)


def renamed_attributes(**renamed: str) -> Callable[[T], T]:
    """Class decorator: attributes and methods of before, ``old=new``, are read, with a warning."""

    def add(cls: T) -> T:
        for old, new in renamed.items():

            def read(self: Any, old: str = old, new: str = new) -> Any:
                warn(f"{cls.__name__}.{old}", f"{cls.__name__}.{new}", 2)
                return getattr(self, new)

            setattr(cls, old, property(read))
        return cls

    return add


HOOKS = {  # of components: nobody calls them by these names any more
    "off": "ablation (@ablation_of)", "mechanism": "claims (@claims_of)", "check": "claims (@claims_of)",
    "plan": "adjust_stages of a strategy, stages of others", "named_parts": "named_components", "training_part": "training_step",
}  # fmt: skip


def refuse_hooks(cls: type) -> None:
    """A class that overrides a hook of before would never be called there.

    Raises:
        ConfigError: with the hook of today.
    """
    for old in HOOKS.keys() & vars(cls).keys():
        raise ConfigError(f"{cls.__name__}.{old} is never called: it is {HOOKS[old]} now")
    step = vars(cls).get("step")
    if callable(step) and "side" in inspect.signature(step).parameters:
        raise ConfigError(f"{cls.__name__}.step takes side=, which is never given: it is batch.auxiliary now")


def renamed_arguments(**renamed: str) -> Callable[[T], T]:
    """Class decorator: the constructor reads arguments of before, ``old=new``, with a warning.

    Raises (when the class is made an instance of):
        ConfigError: an argument is given under both names.
    """

    def add(cls: T) -> T:
        plain = cls.__init__  # type: ignore[misc]

        @functools.wraps(plain)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            for old in renamed.keys() & kwargs.keys():
                new = renamed[old]
                if new in kwargs:
                    raise ConfigError(
                        f"{cls.__name__}: {old}= is called {new}= now, and both are given; leave {old}= out"
                    )
                warn(f"{cls.__name__}({old}=…)", f"{new}=", 2)
                kwargs[new] = kwargs.pop(old)
            plain(self, *args, **kwargs)

        cls.__init__ = init  # type: ignore[misc]
        return cls

    return add
