"""The shape of the code: imports point one way, importing is free, nothing reads pickles or global randomness.

Each check reads the text of a file; nothing is imported for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHAIN = (
    "core", "io", "layers", "losses", "encoders", "tasks", "components", "imperfect", "data", "training", "methods", "foreign",
    "evaluation", "gallery", "estimator", "bench", "report", "commands", "cli",
)  # fmt: skip
RANK = {name: place for place, name in enumerate(CHAIN)}
RANK["testing"] = RANK["report"]  # golden numbers are of the bench too
RANK["contract"] = RANK["testing"]  # its name of before
FACE = RANK["estimator"]  # estimator, demo and whatever else stands on all the layers stand side by side
TOP = RANK["cli"]
# What the file of a method may import at its top, so that importing one costs little; a near-twin imports the other one.
FOR_METHODS = ("core", "layers", "losses", "encoders", "tasks", "components", "imperfect", "methods")

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec",
    "__import__", "os.system",
}  # fmt: skip
UNSAFE_METHODS = {"to_pickle", "read_pickle"}
SEEDED = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox", "RandomState"}
GLOBAL_SEEDS = {"torch.manual_seed", "torch.random.manual_seed", "torch.seed", "torch.cuda.manual_seed"}
UNSAFE_FLAGS = {("allow_pickle", True), ("weights_only", False), ("shell", True)}


def faults_of_method(file: Path, module: str) -> list[str]:
    """What is wrong with the shape of a method's file; one of this library has to keep to its layers besides.

    Args:
        file: of the method.
        module: its dotted name.
    """
    source = file.read_text(encoding="utf-8")
    faults = unsafe(source)
    if not described(source):
        faults.append("the file has no docstring; say in its first line what the method does")
    if module.startswith("kintsugi."):
        faults += [*wrong_way(source, module), *too_much_for_a_method(source, module)]
    return faults


def described(source: str) -> bool:
    """Does a module say what it is?"""
    return len(ast.get_docstring(ast.parse(source)) or "") > 10


# imports --------------------------------------------------------------------------------------------------------------
def module_of(file: Path) -> str:
    """The dotted name of a source file; a package is named by its folder."""
    parts = ("kintsugi", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def rank(module: str) -> int:
    """Place in the chain; the root, which hands on what all the layers have, is a face of them."""
    parts = module.split(".")
    if len(parts) == 1:
        return FACE
    return TOP if parts[1] in ("cli", "__main__") else RANK.get(parts[1], FACE)


def _walk(tree: ast.AST, typing: bool = False, functions: bool = True) -> Iterator[ast.AST]:
    """Every node; what stands under ``if TYPE_CHECKING`` only with ``typing``, inside functions only with ``functions``."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not typing and isinstance(child, ast.If) and _typing_only(child):
            for other in child.orelse:
                yield from _walk(other, typing, functions)
        elif functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, typing, functions)


def _typing_only(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(
    source: str, module: str, package: bool = False, typing: bool = False, functions: bool = True
) -> list[tuple[int, str]]:
    """Line and full name of everything of the library that the source imports, ``kintsugi`` alone for what is lazy."""
    nodes = list(_walk(ast.parse(source), typing, functions))
    names: list[tuple[int, str]] = []
    bare: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "kintsugi":  # carries only its version until an attribute is asked for
                    bare.add(alias.asname or alias.name)
                else:
                    names.append((node.lineno, alias.name))
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + package]
                start = ".".join([*above, *([node.module] if node.module else [])])
            if start != "kintsugi":
                names.append((node.lineno, start))
                continue
            for alias in node.names:
                if alias.name != "__version__":
                    lazy = not ((ROOT / alias.name).is_dir() or (ROOT / f"{alias.name}.py").exists())
                    names.append((node.lineno, "kintsugi" if lazy else f"kintsugi.{alias.name}"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                names.append((node.lineno, first.value))
    for node in nodes:
        reads = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bare
        if isinstance(node, ast.Attribute) and reads and not node.attr.startswith("__"):
            names.append((node.lineno, "kintsugi"))
    return [(line, name) for line, name in names if name.split(".")[0] == "kintsugi"]


def wrong_way(source: str, module: str, package: bool = False) -> list[str]:
    """Imports that point up the chain."""
    return [
        f"{module}:{line} imports {name}, which stands above it in the chain of layers"
        for line, name in imports(source, module, package)
        if rank(name) > rank(module)
    ]


def too_much_for_a_method(source: str, module: str) -> list[str]:
    """Imports at the top of a method's file of anything but what methods are made of."""
    return [
        f"{module}:{line} imports {name}; at its top a method imports of this library {', '.join(FOR_METHODS)} only: "
        "import it in the function that needs it"
        for line, name in imports(source, module, functions=False)
        if name.split(".")[1:2] not in [[layer] for layer in FOR_METHODS]
    ]


# what must not be written ---------------------------------------------------------------------------------------------
def unsafe(source: str) -> list[str]:
    """Pickles, code from data, and randomness that other code shares."""
    tree = ast.parse(source)
    known, inside = _aliases(tree), _forked(tree)
    faults = [f"imports {name}" for name in known.values() if name.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _full_name(node.func, known)
        top, _, leaf = name.rpartition(".")
        if name in UNSAFE_CALLS or leaf in UNSAFE_METHODS:
            faults.append(f"line {node.lineno}: {name}")
        if (top == "numpy.random" and leaf not in SEEDED) or (top == "random" and leaf not in ("Random", "")):
            faults.append(f"line {node.lineno}: {name} draws from a global generator")
        if name in GLOBAL_SEEDS and id(node) not in inside:
            faults.append(f"line {node.lineno}: {name} outside fork_rng")
        for keyword in node.keywords:
            value = keyword.value
            if isinstance(value, ast.Constant) and (keyword.arg, value.value) in UNSAFE_FLAGS:
                faults.append(f"line {node.lineno}: {keyword.arg}={value.value!r}")
    return faults


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _full_name(node: ast.expr, known: dict[str, str]) -> str:
    first, _, rest = ast.unparse(node).partition(".")
    first = known.get(first, first)
    return f"{first}.{rest}" if rest else first


def _forked(tree: ast.AST) -> set[int]:
    """Calls that stand inside ``with torch.random.fork_rng(...)``."""
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item.context_expr) for item in node.items):
            inside |= {id(child) for child in ast.walk(node) if isinstance(child, ast.Call)}
    return inside


# circles --------------------------------------------------------------------------------------------------------------
def circles(folder: Path) -> list[list[str]]:
    """Files of one package that import each other in a circle, inside functions too; what is for types only does not count."""
    package = module_of(folder / "__init__.py")
    graph = {
        file.stem: {
            module.removeprefix(package + ".").partition(".")[0]
            for _, module in imports(file.read_text(encoding="utf-8"), module_of(file))
            if module.startswith(package + ".")
        }
        for file in sorted(folder.glob("*.py"))
        if file.stem != "__init__"
    }
    return sorted(_strongly_connected({name: there & graph.keys() - {name} for name, there in graph.items()}))


def _strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two and more that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        queue = [start]
        while queue:
            for other in graph[queue.pop()] - seen:
                seen.add(other)
                queue.append(other)
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return [sorted(group) for group in groups if len(group) > 1]
