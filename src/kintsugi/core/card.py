"""What a method says of itself; listings, documentation, tests and the leaderboard are made from it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Self

from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.retired import warn

if TYPE_CHECKING:
    from kintsugi.core.schema import Schema

Level = Literal["low", "medium", "high"]
LEAVES = (
    "general",
    "missing/generative", "missing/alignment", "missing/co_learning", "missing/distillation",
    "missing/modular", "missing/selective_fusion", "missing/attention", "missing/prompt", "missing/hybrid",
    "corrupted/denoising", "corrupted/recovery", "corrupted/detection", "corrupted/noise_aware",
    "corrupted/confidence", "corrupted/robust_fusion", "corrupted/augmentation", "corrupted/adversarial",
)  # fmt: skip
IMPERFECTIONS = ("missing in training", "missing at test", "corrupted in training", "corrupted at test")
WORLDS = (  # premises in one word each, and the worlds of :mod:`kintsugi.data.worlds` in which they hold
    "redundant", "few_complete_rows", "privileged", "visible_noise", "visible_noise_at_test", "hidden_noise",
    "informative_absence", "neighbours", "noisy_labels", "unpaired", "shifted_test",
    "complementary",
)  # fmt: skip
MODALITY_TABLES = ("train", "use", "auxiliary")
LEVELS = ("low", "medium", "high")
KEY = r"[a-z][a-z0-9_]*"


def _of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """A card of before had one sentence under ``check``; it is read as the name of one claim.

    Raises:
        ConfigError: it has both.
    """
    if "check" not in values:
        return dict(values)
    if "claims" in values:
        raise ConfigError(
            f"card {values.get('key', '?')!r}: check= is called claims= now, and both are given; leave check= out"
        )
    warn("Card(check=…)", "claims=(…,)", 3)
    return {name: value for name, value in values.items() if name != "check"} | {"claims": (values["check"],)}


@dataclass(frozen=True)
class Card:
    """The card of one method. Every value is written as a literal, so that it can be read without running the file.

    key: slug, the name of ``create``; of a method of this library also the name of its file, if it is alone there.
    name: as published; the paper itself stands in ``references.bib`` under ``cite``, which is the key unless said.
    leaf: place in the taxonomy.
    claims: what it does that its ablation does not: names of claims that its check states in figures.
    faithful: what of the paper's essence is here; simplified: what is not, and why.
    premise: what the data must be like for the method to help over the plain host.
    worlds: the premise in words of ``WORLDS``, of which the first is where the method's page judges it; empty: a plain host,
    which rests on none.
    confidence: how well the mechanism is known: high (from the paper or its code), medium (in parts), or low (from a title).
    version: raised whenever the numbers of the method change; results and saved models carry it.
    defaults_from: source of the default values; imperfection: which of ``IMPERFECTIONS`` it is meant to survive.
    tasks: task keys; modalities: least and most, None: any number; kinds: of modality, of which it needs one at least, empty:
    it takes any.
    formerly: keys that it had before, under which saved models and suites still find it.
    sees_hidden: it may be trained on what a simulator hid; joint: it models interactions between modalities;
    reference: its answer at test time reads stored training rows; gradient: it is trained by descent; cost: of training.
    evidence: what its uncertainty of classes is, where it is not the normalised entropy of the answer.
    modality_only_in: tables, of ``MODALITY_TABLES``, that may be the only ones with some modality; for all other methods a
    modality that the training rows lack is an error.

    Raises:
        UnknownName: a field that cards do not have, with the nearest one; a leaf or an imperfection that is not known.
        ConfigError: a field that is needed is not there, is empty, or is of another sort.
    """

    key: str
    name: str
    leaf: str
    faithful: tuple[str, ...]
    claims: tuple[str, ...]
    imperfection: tuple[str, ...]
    premise: str
    confidence: Level
    version: int = 1
    simplified: tuple[str, ...] = ()
    defaults_from: str = "this library"
    cite: str = ""
    formerly: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("classification", "multilabel", "regression", "ordinal")
    modalities: tuple[int, int | None] = (2, None)
    sees_hidden: bool = False
    joint: bool = True
    reference: bool = False
    gradient: bool = True
    cost: Level = "low"
    evidence: str = ""
    kinds: tuple[str, ...] = ()
    modality_only_in: tuple[str, ...] = ()
    worlds: tuple[str, ...] = ()

    def __new__(cls, *args: Any, **given: Any) -> Self:  # before the constructor, whose TypeError names no remedy
        sorts, needed = _fields()
        given = _of_today(given)
        key = given.get("key", args[0] if args else "?")
        for name in given:
            if name not in sorts:
                raise UnknownName(f"field of card {key!r}:", name, sorts)
        lacking = [name for name in needed[len(args) :] if name not in given]
        if lacking and given:
            raise ConfigError(f"card {key!r}: {' and '.join(lacking)} must be said")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, sort in _fields()[0].items():
            self._check_sort(name, getattr(self, name), sort)
        if self.leaf not in LEAVES:
            raise UnknownName(f"leaf of card {self.key!r}:", self.leaf, LEAVES)
        for imperfection in self.imperfection:
            if imperfection not in IMPERFECTIONS:
                raise UnknownName(f"imperfection of card {self.key!r}:", imperfection, IMPERFECTIONS)
        for world in self.worlds:
            if world not in WORLDS:
                raise UnknownName(f"world of card {self.key!r}:", world, WORLDS)
        for table in self.modality_only_in:
            if table not in MODALITY_TABLES:
                raise UnknownName(f"table of card {self.key!r}:", table, MODALITY_TABLES)
        for name in ("confidence", "cost"):
            if getattr(self, name) not in LEVELS:
                raise ConfigError(f"card {self.key!r}: {name} is low, medium or high, not {getattr(self, name)!r}")
        if self.version < 1:
            raise ConfigError(f"card {self.key!r}: version counts from 1, not {self.version}")
        for key in (self.key, *self.formerly):  # it is part of file names, addresses of saved parts, and patterns
            if not re.fullmatch(KEY, key):
                raise ConfigError(
                    f"card {key!r}: a key is made of small letters, digits and _, and begins with a letter"
                )

    def _check_sort(self, name: str, value: Any, sort: str) -> None:
        """Literals of another sort would be understood as something else: a text in place of a tuple is letters."""
        if name == "modalities":
            fits = isinstance(value, tuple) and [type(each) for each in value] in ([int, int], [int, type(None)])
            fits = fits and 1 <= value[0] <= (value[1] or value[0])
            wanted = "(least, most), of 1 or more, where most may be None"
        elif sort.startswith("tuple"):
            fits = isinstance(value, tuple) and all(isinstance(each, str) and each for each in value)
            fits &= bool(value) or name in ("simplified", "formerly", "modality_only_in", "kinds", "worlds")
            wanted = "a tuple of texts: ('one',) with a comma"
        elif sort in ("bool", "int"):
            fits, wanted = type(value).__name__ == sort, "True or False" if sort == "bool" else "a whole number"
        else:
            fits, wanted = (
                isinstance(value, str) and (bool(value) or name in ("cite", "evidence")),
                "a text that says something",
            )
        if not fits:
            raise ConfigError(f"card {self.key or '?'!r}: {name} is {wanted}, not {value!r}")

    def misfit(self, schema: Schema) -> str:
        """Why the method cannot be used on data of this schema, in words; "": it can."""
        least, most = self.modalities
        if len(schema) < least or (most is not None and len(schema) > most):
            return (
                f"{self.key} takes {least} to {most or 'any number of'} modalities; this schema has {len(schema)}: "
                f"{', '.join(schema.names)}"
            )
        if schema.task.key not in self.tasks:
            return f"{self.key} does not solve {schema.task.key}; it solves {', '.join(sorted(self.tasks))}"
        if self.kinds and not any(m.kind in self.kinds for m in schema.modalities):
            here = ", ".join(f"{m.name} ({m.kind})" for m in schema.modalities)
            return f"{self.key} needs a modality of kind {' or '.join(self.kinds)}; this schema has {here}"
        return ""

    @property
    def citation_key(self) -> str:
        """Under which its paper stands in ``references.bib``."""
        return self.cite or self.key


@cache
def _fields() -> tuple[dict[str, str], tuple[str, ...]]:
    """Name -> type of every field, as it is written, and the names of those without a default."""
    return (
        {field.name: str(field.type) for field in fields(Card)},
        tuple(field.name for field in fields(Card) if field.default is MISSING),
    )


def _reads_cards_of_before(plain: Any) -> Any:
    def init(self: Card, *args: Any, **given: Any) -> None:
        with warnings.catch_warnings():  # said once, by ``__new__``
            warnings.simplefilter("ignore", DeprecationWarning)
            given = _of_today(given)
        plain(self, *args, **given)

    return init


Card.__init__ = _reads_cards_of_before(Card.__init__)  # type: ignore[method-assign]
