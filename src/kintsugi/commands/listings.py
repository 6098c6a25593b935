"""What the command line says of methods and corruptions: trees, tables and cards."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from rich.markup import escape

from kintsugi.core.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def _facts(title: str) -> Table:
    from rich.table import Table

    table = Table(title=escape(title), show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


# methods --------------------------------------------------------------------------------------------------------------
def method_card(console: Console, key: str) -> None:
    """The card of one method."""
    from kintsugi.core.citations import citation
    from kintsugi.core.methods import METHODS, arguments

    card = METHODS.card(key)
    try:
        paper = citation(key).text
    except UnknownName:
        paper = "no reference is given"
    except ConfigError as error:
        paper = str(error)
    table = _facts(f"{card.name} ({key})")
    lines = {
        "paper": paper,
        "leaf": card.leaf,
        "version": str(card.version),
        "helps where": card.premise,
        "premise": ", ".join(card.worlds) or "none: a plain host",
        "faithful": "\n".join(f"· {x}" for x in card.faithful),
        "simplified": "\n".join(f"· {x}" for x in card.simplified) or "nothing",
        "confidence": card.confidence,
        "defaults from": card.defaults_from,
        "claims": "; ".join(card.claims),
        "survives": ", ".join(sorted(card.imperfection)),
        "tasks": ", ".join(sorted(card.tasks)),
        "modalities": f"{card.modalities[0]} to {card.modalities[1] or 'any number'}",
        "cost": card.cost,
        "arguments": ", ".join(f"{n}={v!r}" for n, v in arguments(METHODS[key]).items()),
    }
    for name, text in lines.items():
        table.add_row(name, escape(text))
    console.print(table)


# corruptions ----------------------------------------------------------------------------------------------------------
def corruption_table(console: Console, wanted: str | None) -> None:
    """Operators by kind: all, those of one kind, or those that match a glob.

    Raises:
        UnknownName: no kind, and no operator, of that name.
    """
    from rich.table import Table

    from kintsugi.gallery import cards
    from kintsugi.imperfect.operator import OPERATORS

    found = _wanted(wanted)
    marks: dict[str, str] = {}
    for kind in dict.fromkeys(OPERATORS[key].kind for key in found):
        here = [key for key in found if OPERATORS[key].kind == kind]
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"[bold]{kind}[/bold] ({len(here)})", title_justify="left")
        for name in ("key", "what it does", "presets", "is"):
            table.add_column(name, style="bold" if name == "key" else "", overflow="fold", no_wrap=name == "key")
        for key in here:
            flags = [(_LETTERS[name], name) for name, _ in cards.flags(OPERATORS[key])]
            marks |= dict(flags)
            presets = ", ".join(OPERATORS[key].parameters)
            table.add_row(key, escape(OPERATORS[key].title), presets, "".join(letter for letter, _ in flags))
        console.print(table)
        console.print()
    if marks:
        console.print(", ".join(f"{letter}: {name}" for letter, name in sorted(marks.items())), highlight=False)
    console.print("kintsugi corruptions KEY shows parameters, source and definition", highlight=False)


_LETTERS = {"differentiable": "d", "no draws": "=", "leaves gaps": "g", "labels": "l", "not monotone": "n"}


def _wanted(wanted: str | None) -> list[str]:
    from kintsugi.gallery.cards import kinds, of_kind
    from kintsugi.imperfect.operator import OPERATORS

    order = [key for kind in kinds() for key in of_kind(kind)]
    if wanted is None:
        return order
    if wanted in kinds():
        return of_kind(wanted)
    found = [key for key in order if fnmatchcase(key, wanted)]
    if not found:
        raise UnknownName("corruption or kind", wanted, [*OPERATORS, *kinds()])
    return found


def corruption_card(console: Console, key: str) -> None:
    """Parameters of all presets, source and definition of one operator."""
    from kintsugi.gallery import cards
    from kintsugi.imperfect.operator import OPERATORS

    operator = OPERATORS[key]
    table = _facts(f"{operator.title} ({key})")
    lines = {
        "damages": operator.kind,
        "write": cards.example(key),
        "source": operator.source,
        "options": ", ".join(f"{n}={v!r}" for n, v in operator.options.items()),
        **dict(cards.flags(operator)),
    }
    for name, text in lines.items():
        if text:
            table.add_row(name, escape(text))
    console.print(table)
    console.print()
    console.print(_parameters(list(cards.parameter_rows(operator))))
    for paragraph in cards.paragraphs(cards.plain(cards.docstring(operator))):
        console.print()
        console.print(paragraph, markup=False, highlight=False)


def _parameters(rows: Sequence[tuple[str, str, list[str]]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title="severity", title_justify="left")
    table.add_column("preset", style="bold", overflow="fold")
    table.add_column("", overflow="fold")
    for severity in range(1, 6):
        table.add_column(str(severity), justify="right", overflow="fold")
    last = ""
    for preset, name, values in rows:
        table.add_row(preset if preset != last else "", name, *map(escape, values))
        last = preset
    return table
