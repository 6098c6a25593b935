"""The shape of the code: imports point one way, importing is free, nothing reads pickles or global randomness."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import kintsugi
from kintsugi.testing.architecture import (
    CHAIN,
    ROOT,
    circles,
    described,
    faults_of_method,
    imports,
    module_of,
    too_much_for_a_method,
    unsafe,
    wrong_way,
)

FILES = sorted(ROOT.rglob("*.py"))
IDS = [str(file.relative_to(ROOT)) for file in FILES]
METHOD_FILES = sorted(file for file in (ROOT / "methods").rglob("*.py") if not file.name.startswith("_"))


# imports ------------------------------------------------------------------------------------------------------------
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
        ("from kintsugi import __version__", "kintsugi.io.saved_models"),
        ("from kintsugi.demo import data", "kintsugi.testing"),
        ("import kintsugi as kg\nkg.evaluate()", "kintsugi.demo"),
    ],
)
def test_an_import_down_the_chain_is_fine(source: str, module: str) -> None:
    assert wrong_way(source, module) == []


def test_the_files_of_the_core_import_each_other_in_no_circle() -> None:
    assert circles(ROOT / "core") == []


def test_a_circle_of_imports_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kintsugi.testing.architecture.ROOT", tmp_path)
    texts = {
        "__init__": "",
        "a": "from kintsugi.core.b import x",
        "b": "def f():\n    from kintsugi.core.c import x",
        "c": "from kintsugi.core.a import x\nfrom kintsugi.core.d import x",
        "d": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from kintsugi.core.c import x",
    }
    (tmp_path / "core").mkdir()
    for name, text in texts.items():
        (tmp_path / "core" / f"{name}.py").write_text(text)
    assert circles(tmp_path / "core") == [["a", "b", "c"]]


def test_every_layer_that_the_chain_names_was_looked_at() -> None:
    seen = {module_of(file).split(".")[1] for file in FILES if file.parent != ROOT}
    assert set(CHAIN) - {"estimator", "cli"} <= seen


@pytest.mark.parametrize("file", METHOD_FILES, ids=lambda file: file.stem)
def test_a_method_imports_at_its_top_what_methods_are_made_of_and_no_more(file: Path) -> None:
    assert too_much_for_a_method(file.read_text(), module_of(file)) == []


@pytest.mark.parametrize(
    "source",
    [
        "from kintsugi.testing.fixture import Lab",
        "from kintsugi.data.dataset import Dataset",
        "import kintsugi.evaluation",
        "from kintsugi import training",
        "from ....training import lab",
        "import kintsugi as kg\nTABLE = kg.Table",
        "class A:\n    from kintsugi.data import splits",
        "try:\n    import kintsugi.testing\nexcept ImportError:\n    raise",
    ],
)
def test_a_method_that_imports_too_much_at_its_top_is_seen(source: str) -> None:
    assert len(too_much_for_a_method(source, "kintsugi.methods.missing.generative.mmin")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from kintsugi.core import Card, Model",
        "from kintsugi.layers.mlp import mlp\nfrom kintsugi.losses.distance import mse",
        "def check(lab):\n    from kintsugi.data.dataset import Dataset",
        "if TYPE_CHECKING:\n    from kintsugi.testing.fixture import Lab",
        "from kintsugi.methods.general.mean_fusion import MeanFusion",
        "import torch\nfrom pandas import DataFrame",
    ],
)
def test_a_method_may_import_what_methods_are_made_of(source: str) -> None:
    assert too_much_for_a_method(source, "kintsugi.methods.missing.generative.mmin") == []


def test_the_faults_of_a_method_are_those_of_its_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import pickle\nfrom kintsugi.evaluation import evaluate\n")
    outside = faults_of_method(file, "kintsugi_plugin_mine")
    assert [fault.split(";")[0] for fault in outside] == ["imports pickle", "the file has no docstring"]
    inside = faults_of_method(file, "kintsugi.methods.general.mine")
    assert inside[:2] == outside
    assert [fault.split(" imports ")[0] for fault in inside[2:]] == ["kintsugi.methods.general.mine:2"] * 2


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
    assert described(file.read_text())


@pytest.mark.parametrize("source", ["x = 1", "", '"""Short."""', "# A method of some kind."])
def test_a_file_that_does_not_say_what_it_is_is_seen(source: str) -> None:
    assert not described(source)


def test_every_folder_with_code_is_a_package() -> None:
    bare = {str(file.parent.relative_to(ROOT)) for file in FILES if not (file.parent / "__init__.py").exists()}
    assert bare == set()
