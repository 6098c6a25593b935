"""A digest of the sources that a trial runs through: a fact of its result, no part of what it is."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

ALWAYS = ("kintsugi.bench.work", "kintsugi.bench.beside")
# Pictures, progress and the naming of trials change no number. Costs are measured anew each time, and are no result.
SILENT = (
    "kintsugi", "kintsugi.evaluation.report", "kintsugi.evaluation.pictures", "kintsugi.evaluation.examples",
    "kintsugi.evaluation.costs", "kintsugi.training.progress", "kintsugi.bench.sources", "kintsugi.bench.made_with",
    "kintsugi.bench.components", "kintsugi.bench.parameters", "kintsugi.bench.spelling", "kintsugi.bench.trial",
    "kintsugi.core.card", "kintsugi.core.card_text", "kintsugi.core.catalogue", "kintsugi.core.citations",
)  # fmt: skip


@cache
def sources_digest(roots: frozenset[str]) -> str:
    """SHA-256 over the sources of these modules and of all of the library that they import: 16 hexadecimal digits.

    A module without a source (a notebook, a compiled one) counts by the sources of its functions and classes, where these
    can be read, else by its name.
    """
    digest = hashlib.sha256()
    for name in sorted(closure(roots)):
        digest.update(f"{name}\n{_content(name)}\n".encode())
    return digest.hexdigest()[:16]


def closure(roots: Iterable[str]) -> set[str]:
    """Names of modules: the roots, and what they import of their own package, directly or not."""
    found: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name not in found and name not in SILENT:
            found.add(name)
            todo += _imports(name)
    return found


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Modules of the same package that a module imports, in functions too, but not for type checkers alone."""
    file = _file(module)
    if file is None:
        return ()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in _import_nodes(file):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                if node.level
                else node.module
            )
            names += [_home(str(start), alias.name) for alias in node.names]
    top = module.partition(".")[0]
    return tuple(sorted({name for name in names if name.partition(".")[0] == top}))


def _home(package: str, name: str) -> str:
    """The module that ``from package import name`` takes it from: what a package hands on is looked up there."""
    if _file(f"{package}.{name}") is not None:
        return f"{package}.{name}"
    file = _file(package)
    if file is not None and file.name == "__init__.py":
        stub = file.with_suffix(".pyi")  # lists what is imported when it is used; see kintsugi.core.lazy
        for node in (*_import_nodes(file), *(_import_nodes(stub) if stub.is_file() else ())):
            names = node.names if isinstance(node, ast.ImportFrom) and not node.level else []
            for alias in names:
                if (alias.asname or alias.name) == name and isinstance(node, ast.ImportFrom):
                    return (
                        package if (node.module, alias.name) == (package, name) else _home(str(node.module), alias.name)
                    )
    return package


@cache  # what a package hands on is looked up for each module that imports from it
def _import_nodes(file: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return tuple(node for node in _executed(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from _executed(child)


@cache
def _file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


@cache
def _content(module: str) -> str:
    """Digest of a module's source."""
    file = _file(module)
    if file is not None:
        text = _bare(file.read_text(encoding="utf-8"))
    else:
        loaded = importlib.import_module(module) if importlib.util.find_spec(module) else None
        text = _inspected(loaded) if loaded is not None else module
    return hashlib.sha256(text.encode()).hexdigest()


def _inspected(module: ModuleType) -> str:
    own = [thing for _, thing in sorted(vars(module).items()) if getattr(thing, "__module__", "") == module.__name__]
    try:
        return "\n".join(
            inspect.getsource(thing) for thing in own if inspect.isclass(thing) or inspect.isfunction(thing)
        )
    except (OSError, TypeError):
        return module.__name__


def _bare(source: str) -> str:
    """A source without comments, layout, docstrings and what cards say."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Card":
            node.args, node.keywords = [], []
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
