"""Pages and tables made from the code: one page a module, what ``import kintsugi`` offers, the corruption operators."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from rst import escape, heading, remove_others, table, write_if_changed

HIDDEN = ("kintsugi.cli", "kintsugi.demo")  # explained on the page of the command line


# modules ------------------------------------------------------------------------------------------------------------
def modules(package: str = "kintsugi") -> Iterator[tuple[str, bool]]:
    """Public modules with whether they are packages."""
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not any(part.startswith("_") for part in found.name.split(".")) and found.name not in HIDDEN:
            yield found.name, found.ispkg


def members(name: str) -> list[str]:
    """Public classes and functions that a module defines, in the order of its source."""
    module = importlib.import_module(name)
    own = [
        n for n, thing in vars(module).items() if not n.startswith("_") and getattr(thing, "__module__", None) == name
    ]
    return [n for n in own if inspect.isclass(vars(module)[n]) or inspect.isfunction(inspect.unwrap(vars(module)[n]))]


def module_page(name: str, children: list[str]) -> str:
    """What the module says of itself, its members at a glance, then each of them; or the modules of a package."""
    out = [heading(name), f".. automodule:: {name}", "   :no-members:", ""]
    if children:
        out += [".. list-table::", "   :widths: 35 65", ""]
        for child in children:
            out += [f"   * - :py:mod:`{child}`", f"     - {escape(summary(importlib.import_module(child)))}"]
        return "\n".join([*out, "", ".. toctree::", "   :hidden:", "", *(f"   {child}" for child in children)]) + "\n"
    found = members(name)
    if len(found) > 1:
        out += [f".. currentmodule:: {name}", "", ".. autosummary::", "   :nosignatures:", ""]
        out += [*(f"   {member}" for member in found), ""]
    for member in found:
        thing = getattr(importlib.import_module(name), member)
        kind = "function" if not inspect.isclass(thing) else "exception" if issubclass(thing, Exception) else "class"
        out += [f".. auto{kind}:: {name}.{member}", "   :members:" * (kind != "function")]
        out += ["   :inherited-members:"] * (name == "kintsugi.estimator" and kind == "class") + [""]
    return "\n".join(out) + "\n"


def write_module_pages(folder: Path) -> list[Path]:
    """Write a page for every public module; pages of modules that are gone go."""
    found = dict(modules())
    written = []
    for name in found:
        children = [child for child in found if child.rpartition(".")[0] == name]
        written.append(write_if_changed(folder / f"{name}.rst", module_page(name, children)))
    remove_others(folder, written)
    return written


# tables -------------------------------------------------------------------------------------------------------------
def public_names() -> list[tuple[str, Any]]:
    """Each name in ``kintsugi.__all__`` with what it stands for."""
    import kintsugi

    return [(name, getattr(kintsugi, name)) for name in kintsugi.__all__ if not name.startswith("_")]


def names_table() -> str:
    """Name, what it is in one sentence, where it is explained."""
    rows = []
    for name, thing in public_names():
        if isinstance(thing, ModuleType):
            link = f":py:mod:`{thing.__name__}`"
        else:
            link = f":py:obj:`{thing.__module__} <{thing.__module__}.{thing.__qualname__}>`"
        rows.append((f"``kg.{name}``", escape(summary(thing)), link))
    return table(("Name", "What it is", "Explained at"), rows, (20, 50, 30))


def summary(thing: Any) -> str:
    """The first paragraph of a docstring, with references as plain names."""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")
    return re.sub(r":\w+(?::\w+)?:`~?(?:[\w.]+\.)?(\w+)`", r"``\1``", text)


def operators_table() -> str:
    """Every corruption operator with its parameters at severities 1 to 5."""
    from kintsugi.imperfect import OPERATORS

    rows = []
    for key in OPERATORS:
        operator = OPERATORS[key]
        for number, (preset, levels) in enumerate(operator.parameters.items()):
            values = "; ".join(f"{name} {', '.join(f'{levels[s][name]:g}' for s in range(1, 6))}" for name in levels[1])
            first = (f"``{key}``", operator.kind, escape(operator.title)) if number == 0 else ("", "", "")
            rows.append((*first, f"``{preset}``", values))
    return table(("Operator", "Damages", "What it does", "Preset", "Severity 1 to 5"), rows, (20, 10, 30, 12, 28))


# references ---------------------------------------------------------------------------------------------------------
def canonical(target: str) -> str | None:
    """``kintsugi.evaluation.Results`` -> where it is defined; None where nothing of that name is."""
    package, _, name = target.rpartition(".")
    try:
        thing = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError, ValueError):
        return None
    if isinstance(thing, ModuleType):
        return thing.__name__
    found = f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', None)}"
    return found if found.startswith("kintsugi.") else None


def _candidates(node: Any, objects: Any) -> Iterator[str]:
    target = str(node.get("reftarget", ""))
    if target.startswith("kintsugi."):
        yield canonical(target) or ""
        return
    module, cls = node.get("py:module"), node.get("py:class")
    if module and cls:  # a method that the class inherits
        owner = getattr(importlib.import_module(module), cls.partition(".")[0], None)
        yield from (f"{base.__module__}.{base.__qualname__}.{target}" for base in getattr(owner, "__mro__", ()))
    same = [name for name in objects if name.rpartition(".")[2] == target]
    if len(same) == 1:
        yield same[0]


def _resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Names as users import them lead to where they are defined; short names, to the only thing that is called so."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains["py"]
    there = next((name for name in _candidates(node, domain.objects) if name in domain.objects), None)
    if there is None:
        return None
    role = "mod" if domain.objects[there].objtype == "module" else "obj"
    return domain.resolve_xref(env, node["refdoc"], app.builder, role, there, node, content)


def _write(app: Any) -> None:
    folder = Path(app.srcdir) / "api" / "generated"
    write_module_pages(folder)
    write_if_changed(folder / "names.txt", names_table())
    write_if_changed(folder / "operators.txt", operators_table())


def setup(app: Any) -> dict[str, bool]:
    """Pages are written before Sphinx looks for documents."""
    app.connect("builder-inited", _write)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True}
