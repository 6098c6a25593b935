"""Mutants of a method: copies of its code with one small fault each, to see whether its checks notice.

:func:`mutants_of` finds them in the text of one file, :func:`chosen` takes a good spread of them; how they are run is the
business of :mod:`kintsugi.testing.mutation_run`, what a fault may be that of :mod:`kintsugi.testing.mutation_operators`.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import tomllib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from kintsugi.core.errors import ConfigError
from kintsugi.testing.mutation_operators import ARITHMETIC, SEMANTIC, Change, Place, called, loss_names

MOST, LEAST = 24, 10  # mutants of a method
ABLATIONS, CLAIMS = ("ablation_of",), ("claims_of", "check_of")  # decorators of what is no part of the mechanism
OVERRIDE = "override deleted"
LONGEST = 100  # characters of a fragment of code in a description

Origin = Literal["method", "component", "base"]


@dataclass(frozen=True)
class Trace:
    """What a training of the method on the toy went through.

    lines: file -> numbers of lines that ran. gradients: file -> function -> local variables, and ``return``, that carried
    a gradient. overrides: ``Class.method`` in the method's file that stand in place of one of a base class.
    Files by their path below the package, ``/`` between folders; functions by their qualified name.
    """

    lines: Mapping[str, Collection[int]] = field(default_factory=dict)
    gradients: Mapping[str, Mapping[str, Collection[str]]] = field(default_factory=dict)
    overrides: Collection[str] = ()


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Args:
        file: in which it is, by its path below the package.
        function: its qualified name.
        operator: what was done.
        before: the piece of code that was changed, in one line.
        after: what it became.
        text: of the whole file with the fault.
        semantic: does it change what the method means, or only a number or a condition?
        constructor: is it where a module is built?
        origin: the method's own file, a shared component that it uses, or the model that every method inherits.
        number: counts mutants that would have the same description otherwise.
    """

    file: str
    function: str
    operator: str
    before: str
    after: str
    text: str = field(repr=False)
    semantic: bool = True
    constructor: bool = False
    origin: Origin = "method"
    number: int = 1

    @property
    def description(self) -> str:
        """Stable text that names it: it moves with neither line numbers nor formatting."""
        again = f" ({self.number})" if self.number > 1 else ""
        return f"{self.file}, {self.function}, {self.operator}: {self.before} => {self.after}{again}"


# finding ----------------------------------------------------------------------------------------------------------------
def mutants_of(source: str, file: str, origin: Origin = "method", trace: Trace | None = None) -> list[Mutant]:
    """Every mutant of one file, in the order of its lines.

    Of a method's own file: its classes and functions, without card, ablation, claims, and what only these two use. Of any
    other file: the functions that the trace went through, where lines of it ran. No mutant touches constants of the
    module, annotations, defaults of arguments, and what only raises an error.

    Args:
        source: text of the file.
        file: its path below the package, for descriptions.
        origin: whose file it is.
        trace: of the method; None: all lines count as run, every variable may carry a gradient, and no override is known.
    """
    tree = ast.parse(source)
    known = trace if trace is not None else Trace()
    lines = None if trace is None or origin == "method" else frozenset(known.lines.get(file, ()))
    changes: list[tuple[Place, bool, Change]] = []
    for place, statement in _statements(tree, file, trace):
        if lines is not None and statement.lineno not in lines:
            continue
        for node in _expressions(statement):
            changes += [(place, True, change) for operator in SEMANTIC for change in operator(node, place)]
            changes += [(place, False, change) for operator in ARITHMETIC for change in operator(node, place)]
    if origin == "method":
        changes += [(place, True, change) for place, change in _overrides(tree, known.overrides)]
    mutants = [_mutant(tree, file, origin, *change) for change in changes]
    return _numbered(_distinct(mutants, ast.unparse(tree)))


def _mutant(tree: ast.Module, file: str, origin: Origin, place: Place, semantic: bool, change: Change) -> Mutant:
    if change.operator == OVERRIDE:
        before, after = f"def {place.name}", "nothing"
    elif change.gone is not None:
        before, after = _fragment(change.gone), "nothing"
    else:
        before, after = _fragment(change.old), _fragment(change.new)
    constructor = place.name == "__init__" and change.operator != "freezing dropped"
    text = _applied(tree, change.old, change.new)
    return Mutant(file, place.function, change.operator, before, after, text, semantic, constructor, origin)


def _fragment(code: ast.AST | Sequence[ast.AST]) -> str:
    """A piece of code in one line, cut where it is long."""
    nodes = [code] if isinstance(code, ast.AST) else list(code)
    text = "; ".join(" ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split()) for node in nodes)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _distinct(mutants: Iterable[Mutant], unchanged: str) -> list[Mutant]:
    """The first of those that come to the same text; none that changes nothing."""
    seen = {unchanged}
    distinct: list[Mutant] = []
    for mutant in mutants:
        if mutant.text not in seen:
            seen.add(mutant.text)
            distinct.append(mutant)
    return distinct


def _numbered(mutants: Iterable[Mutant]) -> list[Mutant]:
    counts: Counter[str] = Counter()
    numbered: list[Mutant] = []
    for mutant in mutants:
        counts[mutant.description] += 1
        numbered.append(replace(mutant, number=counts[mutant.description]))
    return numbered


class _Swap(ast.NodeTransformer):
    """Puts something in the place of one node."""

    def __init__(self, old: ast.AST, new: ast.AST | Sequence[ast.stmt]) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
        if node is self.old:
            return self.new if isinstance(self.new, ast.AST) else list(self.new)
        visited: ast.AST | list[ast.stmt] = super().visit(node)
        return visited


def _applied(tree: ast.Module, old: ast.AST, new: ast.AST | Sequence[ast.stmt]) -> str:
    """The text of the file with one node changed; the tree stays as it is."""
    # copied together, so that the pieces of the old code in the new one are copies too, and the place is still known
    twin, twin_old, twin_new = copy.deepcopy((tree, old, new))
    changed = _Swap(twin_old, twin_new).visit(twin)
    assert isinstance(changed, ast.Module)
    for node in ast.walk(changed):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.body:
            node.body = [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(changed)) + "\n"


def _overrides(tree: ast.Module, overrides: Collection[str]) -> Iterator[tuple[Place, Change]]:
    excluded = no_mechanism(tree)
    for cls in tree.body:
        if isinstance(cls, ast.ClassDef) and cls.name not in excluded:
            for function in cls.body:
                if isinstance(function, ast.FunctionDef) and f"{cls.name}.{function.name}" in overrides:
                    yield Place(f"{cls.name}.{function.name}", function), Change(OVERRIDE, function, [])


# what may be mutated ----------------------------------------------------------------------------------------------------
def _statements(tree: ast.Module, file: str, trace: Trace | None) -> Iterator[tuple[Place, ast.stmt]]:
    """Every statement of every function that belongs to the mechanism, with its place."""
    excluded = no_mechanism(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in excluded:
            yield from _inside(node, "", file, trace, {})


def _inside(
    node: ast.FunctionDef | ast.ClassDef, before: str, file: str, trace: Trace | None, frozen: Mapping[str, ast.expr]
) -> Iterator[tuple[Place, ast.stmt]]:
    name = f"{before}{node.name}"
    if isinstance(node, ast.ClassDef):
        copies = _frozen_copies(node)
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield from _inside(child, f"{name}.", file, trace, copies)
        return
    gradients = None if trace is None else frozenset(trace.gradients.get(file, {}).get(name, ()))
    place = Place(name.replace(".<locals>", ""), node, frozen, gradients, loss_names(node))
    for statement in _flat(node.body):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield from _inside(statement, f"{name}.<locals>.", file, trace, frozen)
        else:
            yield place, statement


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements, those inside others too, without docstrings, assertions, and what only raises an error."""
    for statement in body:
        if isinstance(statement, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if isinstance(statement, ast.If) and all(isinstance(inner, ast.Raise) for inner in statement.body):
            yield from _flat(statement.orelse)
            continue
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            for name in ("body", "orelse", "finalbody"):
                yield from _flat(getattr(statement, name, ()))


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """The statement and the expressions in it, without statements inside, annotations and text."""
    yield statement
    for name, value in ast.iter_fields(statement):
        if name not in ("annotation", "body", "orelse", "finalbody", "handlers"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _below(child)


def _below(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, ast.JoinedStr):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _below(child)


def _frozen_copies(cls: ast.ClassDef) -> dict[str, ast.expr]:
    """Name -> module, of each ``keep_frozen(name, module)`` in a class."""
    copies: dict[str, ast.expr] = {}
    for node in ast.walk(cls):
        if called(node) == "keep_frozen" and isinstance(node, ast.Call) and len(node.args) >= 2:
            name = getattr(node.args[0], "value", None)
            if isinstance(name, str):
                copies[name] = node.args[1]
    return copies


def no_mechanism(tree: ast.Module) -> set[str]:
    """Names at the top of a method's file that are ablation or claims, or are used by these alone."""
    tops = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    excluded = {
        name for name, node in tops.items() if any(called(d) in ABLATIONS + CLAIMS for d in node.decorator_list)
    }
    while True:
        needed: set[str] = set()
        for node in tree.body:
            name = getattr(node, "name", "")
            if name not in excluded and not _switches_off(node):
                needed |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - {name}
        used_there = {n.id for name in excluded for n in ast.walk(tops[name]) if isinstance(n, ast.Name)}
        more = {name for name in tops if name in used_there and name not in needed} - excluded
        more = {name for name in more if not any(called(d) == "register" for d in tops[name].decorator_list)}
        if not more:
            return excluded
        excluded |= more


def _switches_off(node: ast.stmt) -> bool:
    """A call of ``ablation_of`` with values, at the top of the file."""
    return isinstance(node, ast.Expr) and called(node.value) in ABLATIONS


# choosing ---------------------------------------------------------------------------------------------------------------
def chosen(key: str, mutants: Iterable[Mutant], most: int = MOST, least: int = LEAST) -> list[Mutant]:
    """A spread of them, the same whenever it is asked for.

    All that change the meaning of the method's own file; then, up to ``most`` (and at least a quarter of that), in turn one
    of the components that it uses and one of its own arithmetic. What builds modules comes last, since it mostly crashes;
    the model that every method inherits takes part only where there are fewer than ``least`` others. Among equals
    operators and functions take turns, in an order that the key of the method decides and that no other mutant changes.

    Args:
        key: of the method.
        mutants: all of them.
        most: how many at most, if no more change the meaning.
        least: how many are wanted at least.
    """
    every = _by_name(mutants)
    built = [mutant for mutant in every if mutant.constructor and mutant.origin != "base"]
    other = [mutant for mutant in every if not mutant.constructor and mutant.origin != "base"]
    own = _in_turn(key, (mutant for mutant in other if mutant.origin == "method" and mutant.semantic))
    arithmetic = _in_turn(key, (mutant for mutant in other if mutant.origin == "method" and not mutant.semantic))
    shared = [mutant for mutant in other if mutant.origin == "component"]
    components = [m for semantic in (True, False) for m in _in_turn(key, (m for m in shared if m.semantic is semantic))]
    both = [mutant for pair in zip_longest(components, arithmetic) for mutant in pair if mutant is not None]
    fill = [*both, *_in_turn(key, built)]
    taken = own + fill[: max(most - len(own), most // 4)]
    base = _in_turn(key, (mutant for mutant in every if mutant.origin == "base" and not mutant.constructor))
    return taken + base[: max(0, least - len(taken))]


def _in_turn(key: str, mutants: Iterable[Mutant]) -> list[Mutant]:
    """Those of the first of each operator and function, then the second, and so on."""
    kinds: Counter[tuple[str, str]] = Counter()
    turns: list[tuple[int, str, Mutant]] = []
    by_draw = sorted((hashlib.sha256(f"{key}: {m.description}".encode()).hexdigest(), m) for m in _by_name(mutants))
    for draw, mutant in by_draw:
        kind = (mutant.operator, mutant.function)
        kinds[kind] += 1
        turns.append((kinds[kind], draw, mutant))
    return [mutant for _, _, mutant in sorted(turns, key=lambda turn: turn[:2])]


def _by_name(mutants: Iterable[Mutant]) -> list[Mutant]:
    return list({mutant.description: mutant for mutant in mutants}.values())


# equivalents ------------------------------------------------------------------------------------------------------------
def read_equivalents(file: Path) -> dict[str, dict[str, str]]:
    """Key of a method -> description of a mutant that can change no answer -> why it cannot.

    The file is TOML with lines ``"KEY: description" = "reason"``; a file that is not there holds none.

    Raises:
        ConfigError: it is no TOML, an entry names no method, or has no reason.
    """
    if not file.is_file():
        return {}
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{file} is no TOML: {error}; write lines "KEY: description" = "reason"') from error
    by_key: dict[str, dict[str, str]] = defaultdict(dict)
    for name, reason in entries.items():
        key, colon, description = name.partition(": ")
        if not colon or not isinstance(reason, str) or not reason.strip():
            raise ConfigError(f'{file}: {name!r}: write "KEY: description" = "reason", with the reason in words')
        by_key[key][description] = reason
    return dict(by_key)


def without_equivalents(
    mutants: Iterable[Mutant], equivalents: Mapping[str, str]
) -> tuple[list[Mutant], list[tuple[Mutant, str]]]:
    """The mutants that count, and those that cannot change an answer, each with its reason.

    Raises:
        ConfigError: an entry that names no mutant.
    """
    every = list(mutants)
    unknown = equivalents.keys() - {mutant.description for mutant in every}
    if unknown:
        raise ConfigError(
            f"no such mutant (any more): {'; '.join(sorted(unknown))}. See the list of all by --list, and take the entry out "
            "of the file of equivalent mutants, or mend it"
        )
    counted = [mutant for mutant in every if mutant.description not in equivalents]
    return counted, [(m, equivalents[m.description]) for m in every if m.description in equivalents]
