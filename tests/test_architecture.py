"""The shape of the code: imports point one way, importing is free, nothing reads pickles or global randomness."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kintsugi

ROOT = Path(kintsugi.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
IDS = [str(file.relative_to(ROOT)) for file in FILES]
CHAIN = (
    "core", "layers", "losses", "encoders", "tasks", "imperfect", "data", "training", "methods", "foreign",
    "evaluation", "gallery", "estimator", "bench", "report", "commands", "cli",
)  # fmt: skip
RANK = {name: place for place, name in enumerate(CHAIN)}
FACE = RANK["estimator"]  # estimator, contract, demo and whatever else stands on all the layers stand side by side
TOP = RANK["cli"]


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


# imports ------------------------------------------------------------------------------------------------------------
def typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def walk(tree: ast.AST, typing: bool = False) -> Iterator[ast.AST]:
    """Every node, in functions too; what stands under ``if TYPE_CHECKING`` only with ``typing``."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not typing and typing_only(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield from walk(other)
        else:
            yield from walk(child, typing)


def imports(source: str, module: str, package: bool = False, typing: bool = False) -> list[tuple[int, str]]:
    """Line and full name of everything of the library that the source imports, ``kintsugi`` alone for what is lazy."""
    found: list[tuple[int, str]] = []
    bare: set[str] = set()
    for node in walk(ast.parse(source), typing):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "kintsugi":  # carries only its version until an attribute is asked for
                    bare.add(alias.asname or alias.name)
                else:
                    found.append((node.lineno, alias.name))
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + package]
                start = ".".join([*above, *([node.module] if node.module else [])])
            if start != "kintsugi":
                found.append((node.lineno, start))
                continue
            for alias in node.names:
                if alias.name != "__version__":
                    lazy = not ((ROOT / alias.name).is_dir() or (ROOT / f"{alias.name}.py").exists())
                    found.append((node.lineno, "kintsugi" if lazy else f"kintsugi.{alias.name}"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.append((node.lineno, first.value))
    for node in walk(ast.parse(source), typing):
        reads = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bare
        if isinstance(node, ast.Attribute) and reads and not node.attr.startswith("__"):
            found.append((node.lineno, "kintsugi"))
    return [(line, name) for line, name in found if name.split(".")[0] == "kintsugi"]


def wrong_way(source: str, module: str, package: bool = False) -> list[str]:
    """Imports that point up the chain."""
    return [
        f"{module}:{line} imports {name}"
        for line, name in imports(source, module, package)
        if rank(name) > rank(module)
    ]


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_imports_point_down_the_chain(file: Path) -> None:
    assert wrong_way(file.read_text(), module_of(file), file.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from kintsugi.data.dataset import Dataset", "kintsugi.imperfect.missing"),
        ("import kintsugi.methods", "kintsugi.training.trainer"),
        ("def f():\n    from kintsugi.evaluation import evaluate", "kintsugi.methods.general.mean_fusion"),
        ("from ..tasks import Classification", "kintsugi.core.model"),
        ("from .. import tasks", "kintsugi.core.model"),
        ("from kintsugi import Table", "kintsugi.layers.vote"),
        ("from kintsugi import training", "kintsugi.data.table"),
        ("import kintsugi\ndef f():\n    return kintsugi.evaluate", "kintsugi.evaluation.results"),
        ("import importlib\nimportlib.import_module('kintsugi.cli')", "kintsugi.estimator"),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import kintsugi.data", "kintsugi.core.model"),
        ("class A:\n    from kintsugi.demo import run", "kintsugi.core.model"),
        ("from kintsugi.cli import main", "kintsugi.demo.run"),
    ],
)
def test_an_import_up_the_chain_is_seen(source: str, module: str) -> None:
    assert len(wrong_way(source, module)) == 1


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from kintsugi.core.batch import Batch", "kintsugi.core.model"),
        ("from kintsugi.core.batch import Batch", "kintsugi.cli"),
        ("if TYPE_CHECKING:\n    from kintsugi.data.dataset import Dataset", "kintsugi.core.model"),
        ("import torch\nfrom pandas import DataFrame", "kintsugi.core.model"),
        ("import kintsugi\nprint(kintsugi.__version__)", "kintsugi.evaluation.results"),
        ("from kintsugi import __version__", "kintsugi.core.store"),
        ("from kintsugi.demo import data", "kintsugi.contract"),
        ("import kintsugi as kg\nkg.evaluate()", "kintsugi.demo"),
    ],
)
def test_an_import_down_the_chain_is_fine(source: str, module: str) -> None:
    assert wrong_way(source, module) == []


def test_every_layer_that_the_chain_names_was_looked_at() -> None:
    seen = {module_of(file).split(".")[1] for file in FILES if file.parent != ROOT}
    assert set(CHAIN) - {"estimator", "cli"} <= seen


@pytest.mark.parametrize("file", sorted((ROOT / "imperfect").rglob("*.py")), ids=lambda file: file.stem)
def test_imperfections_never_read_data_sets_not_even_for_a_type(file: Path) -> None:
    names = [name for _, name in imports(file.read_text(), module_of(file), file.name == "__init__.py", typing=True)]
    assert not [name for name in names if name.startswith("kintsugi.data")]


def test_an_import_for_types_is_seen_where_none_is_allowed() -> None:
    source = "if TYPE_CHECKING:\n    from kintsugi.data.dataset import Dataset"
    assert imports(source, "kintsugi.imperfect.missing", typing=True) == [(2, "kintsugi.data.dataset")]
    assert imports(source, "kintsugi.imperfect.missing") == []


# what importing costs -----------------------------------------------------------------------------------------------
HEAVY = (
    "torch", "pandas", "numpy", "rich", "typer", "sklearn", "torchmetrics", "lightning_fabric", "pyarrow", "pydantic",
    "safetensors", "plotly", "yaml",
)  # fmt: skip


def loaded(statement: str) -> list[str]:
    """Which heavy libraries a fresh process has loaded after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_importing_the_library_loads_nothing_heavy() -> None:
    assert loaded("import kintsugi\nkintsugi.__version__\ndir(kintsugi)") == []


def test_a_heavy_import_would_be_seen() -> None:
    assert "yaml" in loaded("import yaml")


def test_every_public_name_is_there() -> None:
    absent = [name for name in kintsugi.__all__ if not hasattr(kintsugi, name)]
    assert absent == []
    assert set(kintsugi.__all__) <= set(dir(kintsugi))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clasifier"):
        kintsugi.Clasifier  # noqa: B018


# what must not be written -------------------------------------------------------------------------------------------
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec",
    "__import__", "os.system",
}  # fmt: skip
UNSAFE_METHODS = {"to_pickle", "read_pickle"}
SEEDED = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox", "RandomState"}
GLOBAL_SEEDS = {"torch.manual_seed", "torch.random.manual_seed", "torch.seed", "torch.cuda.manual_seed"}
UNSAFE_FLAGS = {("allow_pickle", True), ("weights_only", False), ("shell", True)}


def aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def full_name(node: ast.expr, known: dict[str, str]) -> str:
    first, _, rest = ast.unparse(node).partition(".")
    first = known.get(first, first)
    return f"{first}.{rest}" if rest else first


def forked(tree: ast.AST) -> set[int]:
    """Calls that stand inside ``with torch.random.fork_rng(...)``."""
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item.context_expr) for item in node.items):
            inside |= {id(child) for child in ast.walk(node) if isinstance(child, ast.Call)}
    return inside


def unsafe(source: str) -> list[str]:
    """Pickles, code from data, and randomness that other code shares."""
    tree = ast.parse(source)
    known, inside, found = aliases(tree), forked(tree), []
    found += [f"imports {name}" for name in known.values() if name.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func, known)
        top, _, leaf = name.rpartition(".")
        if name in UNSAFE_CALLS or leaf in UNSAFE_METHODS:
            found.append(f"line {node.lineno}: {name}")
        if (top == "numpy.random" and leaf not in SEEDED) or (top == "random" and leaf not in ("Random", "")):
            found.append(f"line {node.lineno}: {name} draws from a global generator")
        if name in GLOBAL_SEEDS and id(node) not in inside:
            found.append(f"line {node.lineno}: {name} outside fork_rng")
        for keyword in node.keywords:
            value = keyword.value
            if isinstance(value, ast.Constant) and (keyword.arg, value.value) in UNSAFE_FLAGS:
                found.append(f"line {node.lineno}: {keyword.arg}={value.value}")
    return found


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_no_pickle_and_no_global_randomness(file: Path) -> None:
    assert unsafe(file.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import dump",
        "def f():\n    import pickle as p",
        "import torch\ntorch.load(path)",
        "from torch import load\nload(path)",
        "import torch as t\nt.save(x, path)",
        "import numpy as np\nnp.random.seed(0)",
        "import numpy\nnumpy.random.rand(3)",
        "import random\nrandom.shuffle(x)",
        "import torch\ntorch.manual_seed(0)",
        "import torch\nwith open(f):\n    torch.manual_seed(0)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "frame.to_pickle(path)",
        "import yaml\nyaml.load(text)",
        "eval(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
    ],
)
def test_what_must_not_be_written_is_seen(source: str) -> None:
    assert unsafe(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Never a pickle."""',
        "import numpy as np\nnp.random.default_rng(0).random()",
        "import random\nrandom.Random(0).random()",
        "import torch\nwith torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)",
        "import torch\ntorch.Generator().manual_seed(0)",
        "import yaml\nyaml.safe_load(text)",
        "model.eval()",
    ],
)
def test_what_is_fine_is_not_mistaken(source: str) -> None:
    assert unsafe(source) == []


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_every_file_says_what_it_is(file: Path) -> None:
    text = ast.get_docstring(ast.parse(file.read_text()))
    assert text
    assert len(text) > 10


def test_every_folder_with_code_is_a_package() -> None:
    bare = {str(file.parent.relative_to(ROOT)) for file in FILES if not (file.parent / "__init__.py").exists()}
    assert bare == set()
