"""Pages and tables made from the code: one page a module, what ``import kintsugi`` offers, cards of the corruptions."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from docstrings import tidy
from rst import escape, heading, remove_others, table, write_if_changed

HIDDEN = ("kintsugi.cli", "kintsugi.demo", "kintsugi.commands")  # explained on the page of the command line


# modules ------------------------------------------------------------------------------------------------------------
def modules(package: str = "kintsugi") -> Iterator[tuple[str, bool]]:
    """Public modules with whether they are packages."""
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        hidden = ".".join(found.name.split(".")[:2]) in HIDDEN
        if not hidden and not any(part.startswith("_") for part in found.name.split(".")):
            yield found.name, found.ispkg


def members(name: str) -> list[str]:
    """Public classes and functions that a module defines, in the order of its source."""
    module = importlib.import_module(name)
    own = [
        n for n, thing in vars(module).items() if not n.startswith("_") and getattr(thing, "__module__", None) == name
    ]
    return [n for n in own if inspect.isclass(vars(module)[n]) or inspect.isfunction(inspect.unwrap(vars(module)[n]))]


def module_page(name: str, children: list[str]) -> str:
    """What the module says of itself, the modules of a package, its members at a glance, then each of them."""
    out = [heading(name), f".. automodule:: {name}", "   :no-members:", ""]
    if children:
        out += [".. list-table::", "   :widths: 35 65", ""]
        for child in children:
            out += [f"   * - :py:mod:`{child}`", f"     - {escape(summary(importlib.import_module(child)))}"]
        out += ["", ".. toctree::", "   :hidden:", "", *(f"   {child}" for child in children), ""]
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


# corruptions --------------------------------------------------------------------------------------------------------
def label(key: str) -> str:
    """The anchor of an operator's card."""
    return f"corruption-{key.replace('_', '-')}"


def kinds_table() -> str:
    """Kinds of modality with their operators, each a link to its card."""
    from kintsugi.gallery import cards

    rows = []
    for kind in cards.kinds():
        keys = cards.of_kind(kind)
        links = ", ".join(f":ref:`{key} <{label(key)}>`" for key in keys)
        rows.append((f":doc:`{kind} </corruptions/{page_of(kind)}>`", str(len(keys)), links))
    return table(("Kind", "Operators", "Which"), rows, (12, 10, 78))


def page_of(kind: str) -> str:
    """The page of a kind: cross-modal operators are at ``cross``."""
    return kind.partition("-")[0]


def operators_table(kind: str) -> str:
    """The operators of a kind at a glance."""
    from kintsugi.gallery import cards
    from kintsugi.imperfect import OPERATORS

    rows = [
        (
            f":ref:`{key} <{label(key)}>`", escape(OPERATORS[key].title), escape(", ".join(OPERATORS[key].parameters)),
            escape(", ".join(name for name, _ in cards.flags(OPERATORS[key]))) or "–",
        )
        for key in cards.of_kind(kind)
    ]  # fmt: skip
    return table(("Operator", "What it does", "Presets", "Is"), rows, (24, 40, 18, 18))


def operator_card(key: str) -> str:
    """All that an operator says of itself: definition, source, flags, options, parameters of every preset."""
    from kintsugi.gallery import cards
    from kintsugi.imperfect import OPERATORS

    operator = OPERATORS[key]
    facts = [("Write", f"``{cards.example(key)}``"), ("Source", escape(operator.source))]
    facts += [(escape(name.capitalize()), escape(meaning)) for name, meaning in cards.flags(operator)]
    facts += [("Options", ", ".join(f"``{name}={value!r}``" for name, value in operator.options.items()))]
    facts += [("Class", f":py:class:`{operator.__module__}.{operator.__qualname__}`")]
    values = [
        (f"``{preset}``", f"``{name}``", *map(escape, five)) for preset, name, five in cards.parameter_rows(operator)
    ]
    return "\n".join(
        [
            f".. _{label(key)}:\n",
            heading(key, "-"),
            f"*{escape(operator.title)}*\n",
            *tidy(cards.docstring(operator).splitlines(), operator),
            "",
            table(("", ""), [fact for fact in facts if fact[1]], (16, 84)).replace("   :header-rows: 1\n", "")
            .replace("   * -\n     -\n", "", 1),
            table(("Preset", "Parameter", "1", "2", "3", "4", "5"), values),
        ]
    )  # fmt: skip


def write_corruption_pages(folder: Path) -> list[Path]:
    """For each kind the table and the cards of its operators, which the page of the kind includes; and the overview."""
    from kintsugi.gallery import cards

    written = [write_if_changed(folder / "kinds.txt", kinds_table())]
    for kind in cards.kinds():
        text = "\n".join([operators_table(kind), *(operator_card(key) for key in cards.of_kind(kind))])
        written.append(write_if_changed(folder / f"{page_of(kind)}.txt", text))
    return written


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
    write_corruption_pages(folder / "corruptions")


def setup(app: Any) -> dict[str, bool]:
    """Pages are written before Sphinx looks for documents."""
    app.connect("builder-inited", _write)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True}
