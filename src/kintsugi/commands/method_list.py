"""The list of methods; it imports no more than it needs, since rich alone costs as much as reading 250 cards."""

from __future__ import annotations

from contextlib import suppress

import typer

from kintsugi.core.card import Card
from kintsugi.core.catalogue import METHODS
from kintsugi.core.citations import citation
from kintsugi.core.errors import ConfigError, KintsugiError, UnknownName


def method_tree(pattern: str, task: str | None, premise: str | None = None) -> None:
    """Print the methods that match, by their place in the taxonomy, and what could not be read.

    Raises:
        UnknownName: no method or leaf of that name, or no such task or premise.
        ConfigError: the file of that method cannot be used, or there are methods of that name, but none with that premise.
    """
    keys = METHODS.names(pattern, task, premise)
    if not keys:
        if premise is not None and METHODS.names(pattern, task):
            named = ", ".join(METHODS.names(premise=premise)) or "no method yet"
            raise ConfigError(f"no card of these methods names the premise {premise!r}; it is named by {named}")
        if task is not None and not METHODS.names("*", task):
            raise UnknownName("task", task, {task for key in METHODS for task in METHODS.card(key).tasks})
        with suppress(UnknownName):
            METHODS.card(pattern.rpartition("/")[2])  # which says what is wrong with its file, where that is why
        raise UnknownName("method or leaf", pattern, METHODS)
    lines, leaf = [f"{typer.style('methods', bold=True)} ({len(keys)})"], ""
    for card in sorted(map(METHODS.card, keys), key=lambda card: (card.leaf, card.key)):
        if card.leaf != leaf:
            leaf = card.leaf
            lines.append(typer.style(leaf, fg="cyan"))
        lines.append(f"  {typer.style(card.key, bold=True)}  {_name(card)}")
    typer.echo("\n".join(lines))
    for file, why in METHODS.problems.items():
        typer.echo(f"{typer.style('cannot be used:', fg='red')} {file}: {why}", err=True)


def _name(card: Card) -> str:
    """Name and venue of a method; of one whose reference is not there, or odd, its name alone."""
    try:
        return f"{card.name}, {citation(card.key).short}"
    except KintsugiError:  # `kintsugi cite` says what is wrong with it
        return card.name
