"""One page a registered method, made from its card, its signature and its stages; and the tree that leads to them."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docstrings import explained
from markdown_pages import convert
from rst import bullets, escape, heading, remove_others, table, write_if_changed

from kintsugi.core.card import LEAVES, Card
from kintsugi.core.citations import citation
from kintsugi.core.component import Component
from kintsugi.core.methods import METHODS, arguments
from kintsugi.core.model import Model
from kintsugi.core.stage import Stage
from kintsugi.testing.claim_figures import recorded
from kintsugi.testing.fixture import Fixture

MEASURED = Path(__file__).parents[1] / "measured"


def leaf_title(leaf: str) -> str:
    """The title of a leaf or branch, as the first line of its package says it."""
    package = importlib.import_module("kintsugi.methods." + leaf.replace("/", "."))
    return (package.__doc__ or "").partition("\n")[0]


def write_method_pages(folder: Path) -> list[Path]:
    """Write a page for every registered method and the index into ``folder``; pages of methods that are gone go."""
    written = [write_if_changed(folder / f"{key}.rst", method_page(key)) for key in METHODS]
    written.append(write_if_changed(folder / "index.rst", index_page()))
    remove_others(folder, written)
    return written


# one method ---------------------------------------------------------------------------------------------------------
def method_page(key: str) -> str:
    """The page of one method."""
    cls = METHODS[key]
    card: Card = cls.card
    parts = [
        heading(escape(card.name)),
        escape(_first_paragraph(inspect.getmodule(cls))),
        "",
        table(("", ""), _facts(card, cls), (24, 76))
        .replace("   :header-rows: 1\n", "")
        .replace("   * -\n     -\n", "", 1),
        heading("When it helps", "-"),
        escape(card.premise[0].upper() + card.premise[1:]) + ".\n",
        _worlds(card),
        heading("Measured", "-"),
        _measured(key),
        heading("What is faithful to the paper", "-"),
        bullets(map(escape, card.faithful)),
        heading("What is simplified", "-"),
        bullets(map(escape, card.simplified)) if card.simplified else "Nothing.\n",
        heading("What it claims", "-"),
        _claims(cls),
        "The claims that it names fail on its ablation: " + _off(cls.ablation) + "\n",
        _parts(cls),
        heading("Cite", "-"),
        ".. code-block:: bibtex\n\n" + textwrap.indent(citation(card.key).bibtex, "   ") + "\n",
        heading("Arguments", "-"),
        _arguments(key, cls),
        heading("Stages of training", "-"),
        _stages(cls),
    ]
    return "\n".join(parts)


def _first_paragraph(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")


def _facts(card: Card, cls: type[Component]) -> Iterator[tuple[str, str]]:
    least, most = card.modalities
    yield "Key", f"``{card.key}``"
    yield "Paper", escape(citation(card.key).text)
    yield "Leaf", f"``{card.leaf}``"
    yield "Built to survive", escape(", ".join(sorted(card.imperfection)))
    yield "Tasks", ", ".join(sorted(card.tasks))
    yield "Modalities", f"{least} or more" if most is None else f"{least} to {most}"
    yield "Interactions of modalities", "modelled" if card.joint else "not modelled: each modality answers alone"
    yield "Cost", card.cost
    yield "Reads training rows in use", "yes: the saved folder holds them" if card.reference else "no"
    yield "May see what was hidden", "yes" if card.sees_hidden else "no"
    yield (
        "Mechanism known",
        {"high": "from the paper or its code", "medium": "in parts", "low": "from a title"}[card.confidence],
    )
    yield "Version", str(card.version)
    yield "Defaults from", escape(card.defaults_from)
    yield "Class", f":py:class:`{cls.__module__}.{cls.__qualname__}`"


def _worlds(card: Card) -> str:
    """The premise in words of the worlds."""
    if not card.worlds:
        return "It rests on no premise: it is a plain host.\n"
    return "In words of the :doc:`worlds </worlds>`: " + ", ".join(f"``{world}``" for world in card.worlds) + ".\n"


def _measured(key: str) -> str:
    """What its trainings came to, as ``kintsugi bench pages`` wrote it."""
    page = MEASURED / f"{key}.md"
    if not page.exists():
        return f"Not yet; ``kintsugi bench pages --methods {key}`` does it.\n"
    return convert(page.read_text(encoding="utf-8"))


def _off(ablation: dict[str, Any] | type[Component]) -> str:
    """What an ablation is: constructor values, or a class and what it takes away."""
    if isinstance(ablation, dict):
        return "with " + ", ".join(f"``{name}={value!r}``" for name, value in ablation.items()) + "."
    what = _first_paragraph(ablation).removeprefix("Off: ").rstrip(".")
    return f"{escape(what)}. That is :py:class:`~{ablation.__module__}.{ablation.__qualname__}`."


def _parts(cls: type[Component]) -> str:
    """The ablations of one of several mechanisms each; at least one named claim fails on each."""
    if not cls.ablations:
        return ""
    lines = (f"*without {escape(part)}*: {_off(ablation)}" for part, ablation in cls.ablations.items())
    return "It has several mechanisms, which are judged one by one:\n\n" + bullets(lines)


def _claims(cls: type[Component]) -> str:
    """Each claim with its figure, margin and spread over five seeds, as they were recorded."""
    measured = recorded(cls.card.key)
    if measured is None:
        return bullets(map(escape, cls.card.claims))
    rows = [
        (
            escape(m.claim) + (" *" if m.named else ""),
            f"{m.figure:.3g}",
            escape(m.bound),
            f"{m.margin:.3g}",
            f"{m.spread:.2g}",
            "–" if m.on_ablation is None else f"{m.on_ablation:.3g}",
        )
        for m in measured
    ]
    shown = table(("Claim", "Figure", "Bound", "Margin", "Spread", "Ablation"), rows, (48, 9, 16, 9, 9, 9))
    return (
        f"Means over five seeds, by ``kintsugi check {cls.card.key} --seeds 5 --record``; the spread is the standard "
        "deviation of the figure over seeds. \\* named by the card: the ablation has to fail it.\n\n" + shown
    )


def _arguments(key: str, cls: type[Component]) -> str:
    given = arguments(cls)
    if not given:
        return "None.\n"
    call = ", ".join([repr(key), *(f"{name}={value!r}" for name, value in given.items())])
    meanings = {"dim": "width of every token.", **explained(cls, given)}
    joint = issubclass(cls, Model) and cls.encoding == "joint"
    note = (
        "It takes no encoders of your own.\n"
        if joint
        else "``encoders={modality: module}`` takes modules of your own.\n"
    )
    rows = [(f"``{name}``", f"``{value!r}``", escape(meanings.get(name, "")) or "–") for name, value in given.items()]
    summary = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
    code = f".. code-block:: python\n\n   kg.Classifier({call})\n"
    return "\n".join([escape(summary), "", code, table(("Argument", "Default", "Meaning"), rows, (20, 15, 65)), note])


def stages_of(cls: type[Component]) -> list[tuple[str, Stage]]:
    """Component and stage, in the order of training, of an untrained instance for the toy data.

    Models that a strategy trains itself, such as teachers, come first.
    """
    pipeline = Fixture(cls).pipeline()
    mine = {id(part) for _, part in pipeline.named_components()}
    inner = [
        (path, stage)
        for path, part in pipeline.named_modules()
        if isinstance(part, Component) and id(part) not in mine
        for stage in part.stages()
    ]
    return inner + pipeline.stages()


def _stages(cls: type[Component]) -> str:
    stages = stages_of(cls)
    if not stages:
        return "It is not trained.\n"
    rows = []
    for path, stage in stages:
        view = stage.view if isinstance(stage.view, str) else getattr(stage.view, "__name__", "its own")
        moves = ", ".join(f"``{pattern}``" for pattern in stage.trainable)
        more = [f"auxiliary batch: {stage.auxiliary}"] * bool(stage.auxiliary) + ["closed form"] * stage.solve
        rows.append((path, stage.name, f"{stage.fraction:g}", stage.rows, view, moves, ", ".join(more) or "–"))
    note = "As an instance for three toy modalities ``m0``, ``m1`` and ``m2`` says it. "
    note += (
        "*Fraction* is of the epochs of its component; :py:class:`~kintsugi.core.stage.Stage` explains the columns.\n"
    )
    return note + "\n" + table(("Component", "Stage", "Fraction", "Rows", "View", "What moves", "More"), rows)


# the tree -----------------------------------------------------------------------------------------------------------
def index_page() -> str:
    """The taxonomy as a tree, leaves without a method too."""
    cards = [METHODS[key].card for key in METHODS]
    out = [heading("Methods")]
    out.append(
        "Every method that is registered, by its place in the taxonomy of imperfect multimodal learning. "
        "Each page is made from the method's *card*, so it says what the code says.\n"
    )
    for branch in dict.fromkeys(leaf.partition("/")[0] for leaf in LEAVES):
        leaves = [leaf for leaf in LEAVES if leaf.partition("/")[0] == branch]
        out.append(f"- **{leaf_title(branch)}**")
        out.append("")
        for leaf in leaves:
            here = [card for card in cards if card.leaf == leaf]
            indent = "  "
            if leaf != branch:
                name, _, what = leaf_title(leaf).partition(": ")
                out += [f"  - {name}: {what}" + ("" if here else " *(no method yet)*"), ""]
                indent = "    "
            out += [
                f"{indent}- :doc:`{card.name} <{card.key}>` (``{card.key}``, {escape(citation(card.key).short)})"
                for card in here
            ]
            out += [""] * bool(here)
    out.append(heading("At a glance", "-"))
    rows = [
        (
            f":doc:`{card.key} <{card.key}>`", f"``{card.leaf}``", escape(", ".join(sorted(card.imperfection))),
            ", ".join(sorted(card.tasks)), card.cost,
        )
        for card in cards
    ]  # fmt: skip
    out.append(table(("Method", "Leaf", "Built to survive", "Tasks", "Cost"), rows, (22, 24, 24, 22, 8)))
    out.append(".. toctree::\n   :hidden:\n\n" + "".join(f"   {card.key}\n" for card in cards))
    return "\n".join(out)


def _write(app: Any) -> None:
    write_method_pages(Path(app.srcdir) / "methods")


def setup(app: Any) -> dict[str, bool]:
    """Pages are written before Sphinx looks for documents."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}
