"""What the command line says of methods and corruptions: trees, tables and cards."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from kintsugi.core.errors import UnknownName

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
def method_tree(console: Console, pattern: str, task: str | None) -> None:
    """Methods that match, by their place in the taxonomy.

    Raises:
        UnknownName: no method or leaf of that name, or no such task.
    """
    from rich.tree import Tree

    from kintsugi.core.methods import METHODS, card, list_methods
    from kintsugi.core.schema import TASKS

    if task is not None:
        TASKS[task]  # an unknown one is said here
    found = list_methods(pattern, task)
    if not found:
        raise UnknownName("method or leaf", pattern, METHODS)
    tree = Tree(f"[bold]methods[/bold] ({len(found)})")
    branches: dict[str, Any] = {"": tree}
    for key in sorted(found, key=lambda k: (card(k).leaf, k)):
        said, path = card(key), ""
        for part in said.leaf.split("/"):
            above, path = path, f"{path}/{part}" if path else part
            if path not in branches:
                branches[path] = branches[above].add(f"[cyan]{part}[/cyan]")
        branches[path].add(f"[bold]{key}[/bold]  {escape(said.name)}, {escape(said.venue)}")
    console.print(tree)


def method_card(console: Console, key: str) -> None:
    """The card of one method."""
    from kintsugi.core.methods import METHODS, arguments, card

    said = card(key)
    table = _facts(f"{said.name} ({key})")
    lines = {
        "paper": f"{said.paper}, {said.venue}",
        "leaf": said.leaf,
        "faithful": "\n".join(f"· {x}" for x in said.faithful),
        "simplified": "\n".join(f"· {x}" for x in said.simplified) or "nothing",
        "defaults from": said.defaults_from,
        "tested by": said.check,
        "survives": ", ".join(sorted(said.imperfection)),
        "tasks": ", ".join(sorted(said.tasks)),
        "modalities": f"{said.modalities[0]} to {said.modalities[1] or 'any number'}",
        "cost": said.cost,
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
