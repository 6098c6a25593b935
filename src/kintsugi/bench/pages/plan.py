"""What is run for the page of a method: which data, at which strengths, with which seeds, and beside what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kintsugi.bench.job import COMPLETE, Planned, Source
from kintsugi.bench.pages.job import GENERATED, PLAIN, Judged
from kintsugi.core.card import Card
from kintsugi.core.catalogue import METHODS
from kintsugi.core.errors import ConfigError

FILE = Path(__file__).parent / "plan.yaml"
STRENGTHS = (0.0, 0.5, 1.0)
HOSTS = ("mean_fusion", "random_subsets")  # the plain host, on natural views and on random subsets
FIRST_SEEDS = 5
BESIDE = (*HOSTS, "late_fusion")  # on every page, and the plain baseline


@dataclass(frozen=True)
class Place:
    """Data on which a method is judged.

    role: ``own``, ``other`` or ``real``.
    key: of the data set; options: of a world, without strength and seed.
    training, protocol: what is imperfect in training and at test; a world brings its own imperfection.
    strengths: of a world; a real set has one, 1.
    params: arguments that the premise of the page's method asks for, such as which modality is there in use.
    """

    role: str
    key: str
    options: tuple[tuple[str, Any], ...] = ()
    training: str = COMPLETE
    protocol: str = "clean"
    strengths: tuple[float, ...] = (1.0,)
    params: tuple[tuple[str, Any], ...] = ()

    @property
    def title(self) -> str:
        """``redundant``, or ``handwritten``."""
        return str(dict(self.options).get("premise", self.key))

    def source(self, strength: float, seed: int) -> Source:
        """The rows of one seed: of a world the law too; a real set keeps its own."""
        if self.key not in GENERATED:
            options = {**dict(self.options), **({"seed": seed} if self.key in DRAWN else {})}
            return Source(self.key, options, f"{self.key}, split {seed}" if self.key in DRAWN else self.key)
        options = {**dict(self.options), "strength": strength, "seed": seed}
        more = ", ".join(f"{name} {value}" for name, value in self.options if name != "premise")
        return Source("worlds", options, f"{self.title}{more and f', {more}'}, strength {strength:g}, seed {seed}")


DRAWN = ("diabetes",)  # real sets that are divided by a seed


@dataclass(frozen=True)
class Budget:
    """updates, rounds: of one training; longer: updates of the second one, None: none; own, other, again: numbers of seeds.

    first: the first of the seeds, the others follow it.
    """

    updates: int
    longer: int | None
    rounds: int
    lr: float
    batch_size: int
    own: int
    other: int
    again: int
    first: int

    def seeds(self, count: int) -> range:
        """So many of them."""
        return range(self.first, self.first + count)

    def trainer(self, updates: int) -> dict[str, Any]:
        """Settings of the trainer."""
        return {"updates": updates, "epochs": self.rounds, "lr": self.lr, "batch_size": self.batch_size}


@cache
def _plan() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def budget(quick: bool = False) -> Budget:
    """That of all pages; ``quick``: of a look within minutes, from which nothing can be concluded."""
    said = _plan()
    size = {**said["budget"], **(said["quick"] if quick else {})}
    seeds = {**said["seeds"], **(said["quick"]["seeds"] if quick else {})}
    return Budget(
        size["updates"], size["longer"], size["rounds"], size["lr"], size["batch_size"], seeds["own"], seeds["other"],
        seeds["longer"], seeds["first"],
    )  # fmt: skip


def task_of(card: Card) -> str:
    """The task of a method's page: classification where it solves that."""
    return "classification" if "classification" in card.tasks else "regression"


def places(key: str) -> tuple[Place, ...]:
    """The world of a method's premise, one other world, and one real set.

    Raises:
        UnknownName: no such method. ConfigError: it solves neither classification nor regression.
    """
    card = METHODS.card(key)
    said = _plan()
    own = said["methods"].get(key, {})
    task = task_of(card)
    if task not in card.tasks:
        raise ConfigError(f"{key} solves {', '.join(card.tasks)}; pages are of classification and regression")
    world = own.get("world") or (card.worlds[0] if card.worlds else "complementary")
    other = own.get("other") or said["other"]["of complementary" if world == "complementary" else "usual"]
    more = dict(own.get("options", {}))
    if task != "classification":
        more["task"] = task
    if card.kinds and "vector" not in card.kinds:
        more["kind"] = "series"
    if card.modalities[1] is not None and card.modalities[1] < 3:
        more["modalities"] = card.modalities[1]
    missing = not card.imperfection or card.imperfection[0].startswith("missing")  # what it is built for comes first
    real = {"key": said["real"][task], **said["real"]["missing" if missing else "corrupted"], **own.get("real", {})}
    if "modalities" in more and real["key"] in said["few"]:
        real.setdefault("options", said["few"][real["key"]])
    params = tuple(own.get("params", {}).items())
    return (
        Place("own", "worlds", (("premise", world), *more.items()), strengths=STRENGTHS, params=params),
        Place("other", "worlds", (("premise", other), *more.items()), params=params),
        Place("real", real["key"], tuple(real.get("options", {}).items()), real["training"], real["protocol"]),
    )


@dataclass(frozen=True)
class Entry:
    """One number of a page: where, at which strength, seed and budget, of whom, and the job that brings it.

    without: as in :class:`~kintsugi.bench.pages.job.Judged`.
    """

    place: Place
    strength: float
    seed: int
    updates: int
    method: str
    without: str | None
    job: Judged


def entries(key: str, size: Budget) -> Iterator[Entry]:
    """Every number of a method's page.

    Raises:
        UnknownName: no such method.
    """
    from kintsugi.core.methods import judged_ablations

    mine: list[tuple[str, str | None]] = [(key, None), *((key, part) for part in judged_ablations(METHODS[key]))]
    beside: list[tuple[str, str | None]] = [(name, None) for name in (*BESIDE, PLAIN)]
    for place in places(key):
        for strength in place.strengths:
            for seed in size.seeds(size.own if place.role == "own" else size.other):
                for method, without in dict.fromkeys(mine + beside):
                    yield _entry(key, place, strength, seed, method, without, size, size.updates)
        if place.role == "own" and size.longer is not None:
            for seed in size.seeds(size.again):
                for method, without in dict.fromkeys(mine + [(host, None) for host in HOSTS]):
                    yield _entry(key, place, 1.0, seed, method, without, size, size.longer)


def _entry(
    key: str, place: Place, strength: float, seed: int, method: str, without: str | None, size: Budget, updates: int
) -> Entry:
    name = method if without is None else f"{method} without {without or 'its mechanism'}"
    trainer = {} if method == PLAIN else size.trainer(updates)
    job = Judged(
        place.source(strength, seed), method, seed, place.training, place.protocol, name,
        dict(place.params) if method == key else {}, trainer, resamples=20, without=without,
    )  # fmt: skip
    return Entry(place, strength, seed, updates, method, without, job)


def jobs_of(keys: Sequence[str], quick: bool = False) -> list[Judged]:
    """Every training that the pages of these methods need, each once, what a verdict needs first.

    Raises:
        UnknownName: no such method.
    """
    size = budget(quick)
    found: dict[tuple[Any, ...], tuple[int, Judged]] = {}
    for key in keys:
        for entry in entries(key, size):
            before = found.get(_identity(entry.job))
            found[_identity(entry.job)] = (min(_turn(entry), before[0] if before else LAST), entry.job)
    return [job for _, job in sorted(found.values(), key=_order)]


LAST = 4


def _turn(entry: Entry) -> int:
    """What a verdict needs comes first, so that a run that was stopped says something of every method."""
    if entry.place.role != "own" or entry.strength == 0.5:
        return 3
    if entry.updates > budget().updates:
        return 2
    return 0 if entry.strength == 1 and entry.seed < budget().first + FIRST_SEEDS else 1


def _identity(job: Judged) -> tuple[Any, ...]:
    return job.source.name, job.method, job.without, job.seed, job.training, job.protocol, job.trainer.get("updates")


def _order(turn_and_job: tuple[int, Judged]) -> tuple[Any, ...]:
    """Turn after turn, within it data set after data set."""
    turn, job = turn_and_job
    updates = job.trainer.get("updates", 0)
    return (
        turn,
        job.source.name,
        job.training,
        job.method not in (*BESIDE, PLAIN),
        job.method,
        job.without or "",
        updates,
    )


def planned(jobs: Sequence[Judged]) -> list[Planned]:
    """The jobs with the trials that they are."""
    return [Planned(job, job.trial()) for job in jobs]
