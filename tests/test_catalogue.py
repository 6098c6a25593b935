"""Methods are found by the text of their files; a broken file harms no other; files of one's own join by name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kintsugi as kg
from kintsugi.core.card_text import fault, read_cards
from kintsugi.core.catalogue import METHODS, Catalogue
from kintsugi.core.citations import Citation, citation, read_bibliography
from kintsugi.core.errors import ConfigError, ModelFileError, UnknownName

Read = Callable[[], Catalogue]

GOOD = '''"""A method of the tests."""

from kintsugi.core import Card, Model, register


@register(
    Card(
        key="{key}",
        name="A method",
        leaf="general",
        imperfection=("missing at test",),  # a comment with (brackets
        faithful=("a text with ) and \\"quotes\\"", """and
            another"""),
        claims=("it is there",),
        premise="none",
        confidence="low",{more}
    )
)
class Mine(Model):
    """The plain host again."""

    ablation = {{"dim": 3}}
'''


def good(key: str, more: str = "") -> str:
    return GOOD.format(key=key, more=more)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of methods of the tests alone, ``kt_methods``."""
    folder = tmp_path / "kt_methods"
    (folder / "leaf").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "leaf" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "kt_methods"]:
        del sys.modules[name]


@pytest.fixture
def catalogue(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Catalogue]:
    """Reads the methods of the tests; what their files register goes there too."""

    def read() -> Catalogue:
        found = Catalogue(home, "kt_methods")
        monkeypatch.setattr("kintsugi.core.methods.METHODS", found)
        return found

    return read


@pytest.fixture(autouse=True)
def plugins() -> Iterator[None]:
    """Files that a test adds are taken back."""
    before = set(METHODS.plugins)
    yield
    for file in set(METHODS.plugins) - before:
        METHODS.forget_plugin(file)


# reading cards -------------------------------------------------------------------------------------------------------
def test_every_card_of_the_library_reads_as_it_runs() -> None:
    assert METHODS.problems == {}
    for key in METHODS.entries:
        assert METHODS.entries[key].card == METHODS[key].card
        assert METHODS.entries[key].file.stem == key


def test_several_cards_in_one_file_are_found(home: Path, catalogue: Read) -> None:
    text = good("one") + "\n\n" + good("two").split("\n\n", 2)[2].replace("Mine", "Other")
    text += (
        '\n\nTWIN = kg.variant(\n    kg.Card(key="three", name="T", leaf="general", imperfection=("missing at test",), '
    )
    text += 'faithful=("all",), claims=("c",), premise="p", confidence="low", formerly=("old",)), of=Mine, dim=4)\n'
    file = home / "several.py"
    file.write_text(text)
    assert [found.card.key for found in read_cards(file, "m")] == ["one", "two", "three"]
    assert catalogue().names("*") == sorted(["one", "two", "three", *_outside()])
    assert catalogue().card("old").key == "three"


def _outside() -> set[str]:
    """Entry points that happen to be installed where the tests run."""
    return {key for key, text in METHODS.entries.items() if not text.file.is_relative_to(METHODS.home)}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "\n        version=2,\n        cost=LOW,",
            "line 18: the card's cost is no literal: write the value itself in place of LOW",
        ),
        ('\n        cite=f"{1}",', "the card's cite is no literal"),
        ("\n        **MORE,", r"is no literal: write its fields out in place of \*\*MORE"),
        ('\n        premis="x",', "unknown field of card 'bad': 'premis'; did you mean 'premise'"),
        ('\n        tasks={"regression"},', "tasks is a tuple of texts"),
        ('\n        cost="cheap",', "cost is low, medium or high, not 'cheap'"),
    ],
)
def test_a_card_that_cannot_be_read_is_named_with_its_line(
    home: Path, catalogue: Read, more: str, message: str
) -> None:
    file = home / "bad.py"
    file.write_text(good("bad", more))
    with pytest.raises(ConfigError, match=message):
        read_cards(file, "bad")
    (home / "fine.py").write_text(good("fine"))
    found = catalogue()
    assert set(found) - _outside() == {"fine"}
    assert str(file) in found.problems


def test_a_literal_is_more_than_a_constant(home: Path) -> None:
    (home / "m.py").write_text(good("m", "\n        version=-1 + 3,"))
    with pytest.raises(ConfigError, match="version is no literal"):
        read_cards(home / "m.py", "m")
    (home / "m.py").write_text(good("m", "\n        modalities=(2, None),"))
    (read,) = read_cards(home / "m.py", "m")
    assert read.card.modalities == (2, None)
    assert read.card.faithful == ('a text with ) and "quotes"', "and\n            another")


LAYOUTS = {
    "windows": good("m").replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + good("m"),
    "blanks": good("m").replace("@register(\n    Card(", "@ register  (  # why\n\n    # because\n    Card ("),
    "by name": good("m").replace("@register(\n    Card(", "@register(\n    card = Card("),
    "prose with import": good("m").replace(
        "A method of the tests.", "Pulled by a loss,\nfrom the first epoch on,\nimport weights."
    ),
    "an example in the docstring": good("m").replace(
        '"""A method of the tests."""', '"""As in\n\n@register(Card(key="ghost", **more))\nclass Ghost: ...\n"""'
    ),
    "an example in a comment": good("m") + '\nTEXT = """\n@register(Card(key=...))\n"""\n# variant(Card(...))\n',
    "assigned": good("m") + '\nkg = None\n\n\ndef variant(card: object) -> None: ...\n',
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_card_is_found_however_the_file_is_laid_out(home: Path, catalogue: Read, name: str) -> None:
    (home / "m.py").write_bytes(LAYOUTS[name].encode())
    found = catalogue()
    assert {file: why for file, why in found.problems.items() if "kt_methods" in file} == {}
    assert found.entries["m"].card.name == "A method"
    assert found["m"].__name__ == "Mine"


@pytest.mark.parametrize(
    "more",
    [
        "CARD = Card()\n\n\n@register(CARD)\nclass Other(Model): ...\n",
        "Other = variant(of=Mine, card=Card(key='other'))\n",
        "Other: type = variant(CARD, of=Mine)\n",
        "if True:\n    @register(Card(key='other'))\n    class Other(Model): ...\n",
        "@register((Card(key='other')))\nclass Other(Model): ...\n",
    ],
)
def test_a_card_that_is_not_there_to_be_read_is_named_with_its_line(home: Path, catalogue: Read, more: str) -> None:
    (home / "m.py").write_text(good("m") + "\n" + more)
    (reason,) = (why for file, why in catalogue().problems.items() if "kt_methods" in file)
    assert re.match(r"line 2[4-8]: no card can be read there; write it out at the top level", reason)


def test_what_is_no_module_is_left_alone_or_named(home: Path, catalogue: Read) -> None:
    (home / "m.py").write_text(good("m"))
    for name in (".ipynb_checkpoints", "d.py"):
        (home / name).mkdir()
    (home / ".ipynb_checkpoints" / "m-checkpoint.py").write_text(good("m"))
    (home / ".#m.py").symlink_to("nobody@nowhere")
    (home / "a (copy).py").write_text(good("m"))
    (home / "a_copy.py").write_text(good("m"))
    os.mkfifo(home / "x.py")
    found = catalogue()
    assert found.entries["m"].file.name == "m.py", "a copy took its place"
    problems = {Path(file).name: why for file, why in found.problems.items() if "kt_methods" in file}
    assert problems.keys() == {"a (copy).py", "a_copy.py"}
    assert "none that Python can import" in problems["a (copy).py"]
    assert "the key 'm' is that of" in problems["a_copy.py"]


def test_threads_that_ask_at_once_get_the_whole_list(home: Path, catalogue: Read) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for number in range(30):
        (home / f"m{number}.py").write_text(good(f"m{number}"))
    found, before = catalogue(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(lambda _: len(found), range(8)))
    finally:
        sys.setswitchinterval(before)
    assert set(counts) == {30 + len(_outside())}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_look_at_the_files_leaves_no_half_of_it(
    home: Path, catalogue: Read, stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (home / f"{name}.py").write_text(good(name))
    found = catalogue()
    with monkeypatch.context() as patch:
        patch.setattr(
            "kintsugi.core.catalogue.fault", lambda file, _: (_ for _ in ()).throw(stop) if file.stem == "b" else ""
        )
        with pytest.raises(stop):
            len(found)
    assert set(found) - _outside() == {"a", "b", "c"}


def test_a_file_that_python_cannot_take_in_is_named(home: Path, catalogue: Read) -> None:
    (home / "deep.py").write_text(good("deep") + f"\nX = {'-' * 100_000}1\n")
    (home / "sound.py").write_text(good("sound"))
    found = catalogue()
    assert set(found) - _outside() == {"sound"}
    assert set(found) - _outside() == {"sound"}


# broken files --------------------------------------------------------------------------------------------------------
BROKEN = {
    "syntax": (good("syntax") + "\n\ndef broken(:\n", "line 25: "),
    "package": ("import timm_not_here\n" + good("package"), "it needs 'timm_not_here', which is not installed"),
    "module": ("from kintsugi.layers.nowhere import x\n" + good("module"), "it needs 'kintsugi.layers.nowhere'"),
    "no_literal": (good("no_literal").replace('"none"', "str(1)"), "premise is no literal"),
    "unclosed": (good("unclosed").split("confidence")[0], "the card's brackets are not closed"),
    "no_card": ('"""Nothing."""\n', "it registers no method"),
    "not_utf8": ("\xff", "it is no UTF-8"),
    "positional": ('@register(Card("positional"))\nclass X: ...\n', "say the field's name"),
    "empty": ("@register(Card())\nclass X: ...\n", "the card is empty"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("bytecode", [True, False])
def test_a_broken_file_is_named_and_harms_no_other(
    home: Path, catalogue: Read, name: str, bytecode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", not bytecode)
    text, why = BROKEN[name]
    (home / "leaf" / f"{name}.py").write_text(text, encoding="latin-1")
    (home / "leaf" / "sound.py").write_text(good("sound"))
    (home / "_private.py").write_text("1 / 0")
    found = catalogue()
    assert [key for key in found if key not in _outside()] == ["sound"]
    ((file, reason),) = ((file, reason) for file, reason in found.problems.items() if "kt_methods" in file)
    assert file.endswith(f"{name}.py")
    assert why in reason
    assert found["sound"].__name__ == "Mine"
    with pytest.raises(ConfigError, match=f"method '{name}' cannot be used: .*{name}.py"):
        found[name]


def test_what_only_running_shows_is_said_when_the_method_is_asked_for(home: Path, catalogue: Read) -> None:
    (home / "late.py").write_text(good("late") + "\n\n1 / 0\n")
    (home / "unregistered.py").write_text(
        good("unregistered").replace(
            "Card, Model, register", "Card, Model\n\ndef register(card):\n    return lambda cls: cls"
        )
    )
    found = catalogue()
    assert "late" in found
    with pytest.raises(ConfigError, match=r"method 'late' cannot be used: .*ZeroDivisionError in line 25 of late.py"):
        found["late"]
    with pytest.raises(ConfigError, match=r"holds the card of 'unregistered' but registers no such method"):
        found["unregistered"]


def test_a_file_that_was_compiled_is_not_compiled_again_until_it_changes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = home / "twice.py"
    file.write_text(good("twice"))
    assert fault(file, file.read_text()) == ""
    monkeypatch.setattr("kintsugi.core.card_text.SourceFileLoader", None)
    assert fault(file, file.read_text()) == ""
    file.write_text(good("twice") + "\ndef broken(:\n")
    with pytest.raises(TypeError):
        fault(file, file.read_text())


def test_one_key_in_two_files_is_named(home: Path, catalogue: Read) -> None:
    (home / "a.py").write_text(good("same"))
    (home / "b.py").write_text(good("same"))
    found = catalogue()
    assert found.entries["same"].file.name == "a.py"
    assert "the key 'same' is that of" in found.problems[str(home / "b.py")]


def test_the_list_on_the_command_line_names_what_is_broken(tmp_path: Path) -> None:
    import shutil

    package = tmp_path / "kintsugi"
    shutil.copytree(Path(kg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "methods" / "general" / "needs_timm.py").write_text("import timm_not_here\n" + good("needs_timm"))
    done = subprocess.run(
        [sys.executable, "-m", "kintsugi.cli", "methods"], env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "mmin" in done.stdout
    assert "cannot be used: " in done.stderr
    assert "needs_timm.py: it needs 'timm_not_here', which is not installed" in done.stderr


# what is imported ----------------------------------------------------------------------------------------------------
def modules_after(statement: str) -> set[str]:
    """Modules of a fresh process."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


def methods_of(modules: set[str]) -> set[str]:
    packages = {"kintsugi.methods" + "".join(f".{p}" for p in parts) for parts in _packages()}
    return {name for name in modules if name.startswith("kintsugi.methods.")} - packages


def _packages() -> list[tuple[str, ...]]:
    return [file.parent.relative_to(METHODS.home).parts for file in METHODS.home.rglob("__init__.py")]


@pytest.mark.parametrize(
    "statement",
    [
        "import kintsugi as kg; kg.methods.list(); kg.methods.card('mmin')",
        "import kintsugi as kg; kg.methods.citation('mmin')",
        "from kintsugi.commands.method_list import method_tree; method_tree('missing/*', None, 'redundant')",
    ],
)
def test_listing_imports_neither_torch_nor_pandas_nor_a_method(statement: str) -> None:
    modules = modules_after(statement)
    assert not {"torch", "pandas", "numpy"} & modules
    assert methods_of(modules) == set()


def test_creating_a_method_imports_its_file_alone() -> None:
    code = (
        "import kintsugi as kg\nfrom kintsugi.tasks import Classification\n"
        "schema = kg.Schema((kg.Modality('a', 'vector', (3,)), kg.Modality('b', 'vector', (3,))), Classification('xy'))\n"
        "kg.methods.create({!r}, schema)"
    )
    assert methods_of(modules_after(code.format("mmin"))) == {"kintsugi.methods.missing.generative.mmin"}
    assert methods_of(modules_after(code.format("corruption_augmentation"))) == {
        "kintsugi.methods.corrupted.augmentation.corruption_augmentation",
        "kintsugi.methods.general.mean_fusion",  # the host
    }


def test_loading_a_model_imports_the_file_of_its_method_alone(tmp_path: Path) -> None:
    from kintsugi.io.saved_models import save
    from kintsugi.testing import fitted

    for key, files in {
        "mmin": {"kintsugi.methods.missing.generative.mmin"},
        "kd_mm": {"kintsugi.methods.missing.distillation.kd_mm"},  # with three helper parts
    }.items():
        save(fitted(METHODS[key]), tmp_path / key)
        modules = modules_after(f"from kintsugi.io.saved_models import load; load({str(tmp_path / key)!r})")
        assert methods_of(modules) == files
        assert not {"pandas", "kintsugi.training.trainer"} & modules


# files of one's own ---------------------------------------------------------------------------------------------------
def test_a_plugin_registers_its_methods(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text(good("from_the_shop") + "\n\nCOUNT = globals().get('COUNT', 0) + 1\n")
    assert kg.methods.load_plugin(file) == ("from_the_shop",)
    assert kg.methods.load_plugin(str(file)) == ("from_the_shop",)
    assert sys.modules["kintsugi_plugin_shop"].COUNT == 1, "it ran twice"
    assert "from_the_shop" in kg.methods.list("general")
    assert kg.methods.card("from_the_shop").name == "A method"
    METHODS.forget_plugin(file)
    assert "from_the_shop" not in kg.methods.list()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such Python file"),
        ("x = 1\n", "registers no method"),
        (good("mmin"), "the key 'mmin' is that of .*mmin.py; choose another"),
        (good("mine") + "\n\n1 / 0\n", r"cannot be used: ZeroDivisionError in line 25 of shop.py: division by zero"),
        ("import nowhere_at_all\n" + good("mine"), "it needs the package 'nowhere_at_all', which is not installed"),
        (good("mine") + "\ndef broken(:\n", "cannot be used: SyntaxError in line"),
        (good("mine", "\n        premis='x',"), "'premis'; did you mean 'premise'"),
        (good("mine", "\n        cost=str(1),"), "cost is no literal"),
        (
            good("mine").replace("class Mine(Model):", "def mine(lr=1):\n    ...\n\nclass Mine:"),
            "has to be a class made from Model",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_leaves_nothing(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "shop.py"
    if text is not None:
        file.write_text(text)
    before = kg.methods.list()
    with pytest.raises(ConfigError, match=message):
        kg.methods.load_plugin(file)
    assert kg.methods.list() == before
    assert METHODS.plugins == ()
    assert "kintsugi_plugin_shop" not in sys.modules
    METHODS["mmin"]


@pytest.mark.parametrize("key", ["a.b", "../evil", "*", " ", "Mine", "9", "mine "])
def test_a_key_is_a_name_that_files_and_patterns_can_bear(key: str) -> None:
    from dataclasses import replace

    card = METHODS.card("mmin")
    with pytest.raises(ConfigError, match="a key is made of small letters"):
        replace(card, key=key)
    with pytest.raises(ConfigError, match="a key is made of small letters"):
        replace(card, formerly=(key,))


def test_an_error_in_a_plugin_names_the_plugin(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    for text, message in (
        (good("mine", "\n        premis='x',"), "premis"),
        (good("mine").split("confidence")[0], "brackets"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=rf"plugin .*shop.py: line \d+: .*{message}"):
            kg.methods.load_plugin(file)
    for name in ("shop.txt", "folder.py"):
        (tmp_path / "folder.py").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=f"plugin .*{name}: there is no such Python file"):
            kg.methods.load_plugin(tmp_path / name)


def test_a_plugin_that_changed_since_it_was_run_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text(good("first"))
    kg.methods.load_plugin(file)
    file.write_text(good("second"))
    with pytest.raises(ConfigError, match=r"shop.py: it has changed since it was run.*forget_plugin"):
        kg.methods.load_plugin(file)
    kg.methods.forget_plugin(file)
    assert kg.methods.load_plugin(file) == ("second",)


def test_a_plugin_that_ends_the_process_or_needs_its_neighbour_says_so(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text(good("mine") + "\nraise SystemExit(3)\n")
    with pytest.raises(ConfigError, match="SystemExit in line 24"):
        kg.methods.load_plugin(file)
    (tmp_path / "neighbour.py").write_text("")
    file.write_text("import neighbour\n" + good("mine"))
    with pytest.raises(ConfigError, match=r"needs the package 'neighbour'.*a plugin is one file"):
        kg.methods.load_plugin(file)


def test_a_key_of_before_is_taken_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(METHODS["mmin"], "card", replace(METHODS["mmin"].card, formerly=("mmin_2021",)))
    (tmp_path / "shop.py").write_text(good("mmin_2021"))
    (tmp_path / "other.py").write_text(good("mine", "\n        formerly=('smil',),"))
    with pytest.raises(ConfigError, match="the key 'mmin_2021' is that of"):
        kg.methods.load_plugin(tmp_path / "shop.py")
    with pytest.raises(ConfigError, match="the key 'smil' is that of"):
        kg.methods.load_plugin(tmp_path / "other.py")


def test_two_plugins_of_one_name_or_key_are_refused(tmp_path: Path) -> None:
    for folder, key in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "shop.py").write_text(good(key))
    (tmp_path / "again.py").write_text(good("first"))
    kg.methods.load_plugin(tmp_path / "a" / "shop.py")
    with pytest.raises(ConfigError, match=r"another plugin is called shop.py too"):
        kg.methods.load_plugin(tmp_path / "b" / "shop.py")
    with pytest.raises(ConfigError, match=r"the key 'first' is that of .*a/shop.py"):
        kg.methods.load_plugin(tmp_path / "again.py")


def test_a_class_cannot_take_the_key_of_a_method_that_was_not_imported_yet(tmp_path: Path) -> None:
    code = (
        "import kintsugi as kg\n"
        "card = kg.Card(key='mmin', name='M', leaf='general', imperfection=('missing at test',), faithful=('a',),\n"
        "               claims=('c',), premise='p', confidence='low')\n"
        "try:\n    kg.register(card)(type('Mine', (kg.Model,), {}))\n"
        "except kg.KintsugiError as error:\n    print(error)\nelse:\n    print('taken')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the key 'mmin' is that of" in done.stdout


def test_an_argument_that_belongs_to_the_estimator_is_refused() -> None:
    class Mine(kg.Model):
        """The plain host."""

        def __init__(self, schema: kg.Schema, lr: float = 0.1, seed: int = 0) -> None:
            super().__init__(schema)

    card = METHODS.card("mean_fusion")
    with pytest.raises(ConfigError, match="'mean_fusion': lr, seed belongs to Classifier and Regressor"):
        kg.register(card)(Mine)


def test_a_card_with_a_task_that_is_not_there_is_refused() -> None:
    from dataclasses import replace

    card = replace(METHODS.card("mean_fusion"), tasks=("clasification",))
    with pytest.raises(UnknownName, match="task of card 'mean_fusion': 'clasification'; did you mean 'classification'"):
        kg.register(card)(type("Mine", (kg.Model,), {}))


def test_the_names_of_the_estimator_are_those_that_are_refused() -> None:
    import inspect

    from kintsugi.core.methods import ESTIMATORS_OWN

    names = set(inspect.signature(kg.Classifier.__init__).parameters) - {"self", "hyper"}
    assert names == ESTIMATORS_OWN


def test_a_package_with_an_entry_point_brings_its_methods(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name, module, text in (
        ("theirs", "their_methods.fusion", good("theirs")),
        ("misnamed", "their_methods.other", good("named_otherwise")),
        ("gone", "no_such_package.at_all", None),
        ("handed_on", "their_methods", "from their_methods.fusion import Mine\n"),
        ("lacking", "their_methods.lacking", good("lacking").replace("class Mine", "class Other")),
    ):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[kintsugi.methods]\n{name} = {module}:Mine\n")
        if text is not None:
            file = site.joinpath(*module.split(".")).with_suffix(".py")
            file = file if "." in module else file.with_suffix("") / "__init__.py"
            file.parent.mkdir(exist_ok=True)
            if not (file.parent / "__init__.py").exists():
                (file.parent / "__init__.py").write_text("")
            file.write_text(text)
    code = (
        "import json, sys\nimport kintsugi as kg\nfrom kintsugi.core.catalogue import METHODS\n"
        "print(json.dumps([kg.methods.list(), METHODS.problems, 'their_methods' in sys.modules]))\n"
        "print(METHODS['theirs'].__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    listed, home = done.stdout.splitlines()
    keys, problems, imported = json.loads(listed)
    assert {"theirs", "named_otherwise", "mmin"} <= set(keys)
    assert not imported
    assert home == "their_methods.fusion"
    assert any("holds no card with key 'misnamed'" in why for why in problems.values())
    assert any(
        name.startswith("entry point handed_on =") and "__init__.py holds no card" in why
        for name, why in problems.items()
    )
    assert any("lacking.py has no Mine at its top level" in why for why in problems.values())
    assert any(name.startswith("entry point gone =") and "no such module" in why for name, why in problems.items())


# saved models of plugins ----------------------------------------------------------------------------------------------
def test_a_model_of_a_plugin_needs_the_plugin_and_does_not_fetch_it(tmp_path: Path) -> None:
    from kintsugi.io.saved_models import load, save
    from kintsugi.testing import mixed

    file = tmp_path / "shop.py"
    file.write_text(good("from_the_shop"))
    kg.methods.load_plugin(file)
    save(kg.methods.create("from_the_shop", mixed("classification").schema), tmp_path / "model")
    load(tmp_path / "model")
    METHODS.forget_plugin(file)
    with pytest.raises(UnknownName, match=r"unknown method 'from_the_shop'.*--plugin FILE, or kg.methods.load_plugin"):
        load(tmp_path / "model")
    assert METHODS.plugins == ()
    assert str(file) not in (tmp_path / "model" / "model.json").read_text()
    kg.methods.load_plugin(file)
    load(tmp_path / "model")


# versions in saved models ----------------------------------------------------------------------------------------------
@pytest.fixture
def saved(tmp_path: Path) -> Path:
    from kintsugi.io.saved_models import save
    from kintsugi.testing import mixed

    save(kg.methods.create("mmin", mixed("classification").schema, blocks=2), tmp_path / "model")
    return tmp_path / "model"


def raise_version(key: str, monkeypatch: pytest.MonkeyPatch, version: int = 9) -> None:
    from dataclasses import replace

    monkeypatch.setattr(METHODS[key], "card", replace(METHODS[key].card, version=version))


def test_a_saved_model_names_the_versions_of_its_parts(saved: Path) -> None:
    config = json.loads((saved / "model.json").read_text())
    assert config["versions"] == {
        "encoder image": 1, "encoder tabular": 1, "encoder text": 1, "method mmin": METHODS.card("mmin").version,
        "task classification": 1,
    }  # fmt: skip
    assert config["kintsugi"] == kg.__version__


def test_a_model_under_a_key_of_before_keeps_its_version(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from kintsugi.io.saved_models import load

    cls, card = METHODS["mmin"], METHODS.card("mmin")
    renamed = replace(card, key="mmin_new", formerly=("mmin",))
    monkeypatch.setattr(cls, "card", renamed)
    entries = {key: text for key, text in METHODS.entries.items() if key != "mmin"}
    monkeypatch.setattr(METHODS._looked(), "entries", entries)
    monkeypatch.setattr(METHODS, "_classes", {"mmin_new": cls})
    load(saved)
    monkeypatch.setattr(cls, "card", replace(renamed, version=9))
    with pytest.raises(ModelFileError, match=f"with version {card.version} of method mmin, and here is version 9"):
        load(saved)


def test_a_model_that_does_not_say_a_version_is_damaged(saved: Path) -> None:
    from kintsugi.io.files import digest
    from kintsugi.io.saved_models import load

    config = json.loads((saved / "model.json").read_text())
    del config["versions"]["method mmin"]
    config["digest"] = digest({name: value for name, value in config.items() if name != "digest"})
    (saved / "model.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="does not say the version of method mmin"):
        load(saved)


def test_a_model_of_another_version_of_its_method_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.io.saved_models import load

    raise_version("mmin", monkeypatch)
    with pytest.raises(
        ModelFileError, match=r"with version \d of method mmin, and here is version 9.*kintsugi 0\S+ reads it"
    ):
        load(saved)


def test_a_model_of_another_version_is_read_by_code_that_says_how(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.io.saved_models import load

    then = METHODS.card("mmin").version
    raise_version("mmin", monkeypatch)
    monkeypatch.setattr(
        METHODS["mmin"], "arguments_of_version",
        classmethod(lambda cls, version, hyper: {**hyper, "w_forward": 7.0} if version == then else None),
    )  # fmt: skip
    model = load(saved)[0].model
    assert (model.w_forward, len(model.forward_imagination.down)) == (7.0, 2)


@pytest.mark.parametrize("name", ["encoder image", "task classification"])
def test_a_model_of_another_version_of_what_it_is_made_of_is_refused(
    saved: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kintsugi.core.encoder import ENCODERS
    from kintsugi.core.schema import TASKS
    from kintsugi.io.saved_models import load

    kind, _, key = name.partition(" ")
    monkeypatch.setitem({"encoder": ENCODERS, "task": TASKS}[kind]._versions, key, 3)
    with pytest.raises(ModelFileError, match=f"with version 1 of {name}, and here is version 3"):
        load(saved)


def test_a_model_of_a_newer_version_says_which_kintsugi_reads_it(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.io.saved_models import load, save

    raise_version("mmin", monkeypatch, 5)
    save(load_nothing(), saved)
    raise_version("mmin", monkeypatch, 1)
    with pytest.raises(ModelFileError, match=r"with version 5 of method mmin, and here is version 1.*update kintsugi"):
        load(saved)


def load_nothing() -> kg.Pipeline:
    from kintsugi.testing import mixed

    return kg.methods.create("mmin", mixed("classification").schema)


def test_a_part_that_moved_is_found_under_its_old_address(monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.core.methods import MOVED, component_class

    monkeypatch.setitem(MOVED, "ccm.Watchman", "ccm.DetectRejectCorrect")
    assert component_class("ccm.Watchman") is component_class("ccm.DetectRejectCorrect")


def test_an_argument_of_before_is_read_with_a_warning() -> None:
    from kintsugi.testing import mixed

    with pytest.warns(UserWarning, match="corruption_augmentation: the argument 'seed' is called 'draws' now"):
        pipeline = kg.methods.create("corruption_augmentation", mixed("classification").schema, seed=3)
    assert pipeline.strategies[0].draws == 3


def test_a_key_of_before_still_finds_its_method(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(METHODS["mmin"], "card", replace(METHODS["mmin"].card, formerly=("mmin_2021",)))
    assert METHODS["mmin_2021"] is METHODS["mmin"]
    assert kg.methods.card("mmin_2021").key == "mmin"


# encoders of one's own ------------------------------------------------------------------------------------------------
def test_a_model_that_is_made_during_training_takes_the_user_s_encoder() -> None:
    import torch
    from torch import nn

    from kintsugi.core.encoder import UserEncoder
    from kintsugi.testing.fixture import toy

    class Late(kg.Strategy):
        """Makes a teacher when training begins."""

        def prepare(self, data: kg.Splits, stage: kg.Stage) -> None:
            self.teacher = kg.Model(self.host.schema, 4)

        def __init__(self, schema: kg.Schema) -> None:
            super().__init__()

    train, val, test = toy(rows=96).split()
    own = nn.Linear(8, 5)
    with torch.random.fork_rng(devices=[]):
        pipeline = kg.methods.create("mean_fusion", train.schema, encoders={"m1": own})
        pipeline.strategies.append(Late(train.schema))
        pipeline.attach()
        kg.Trainer(epochs=1, progress=False).fit(pipeline, kg.Splits(train, val, test), strip=False)
    encoder = pipeline.strategies[0].teacher.encoders["m1"]
    assert isinstance(encoder, UserEncoder)
    assert torch.equal(encoder.module.weight, own.weight)
    assert encoder.module is not own
    assert not isinstance(pipeline.strategies[0].teacher.encoders["m0"], UserEncoder)


# references -----------------------------------------------------------------------------------------------------------
def test_every_method_has_its_paper() -> None:
    entries = read_bibliography(METHODS.home / "references.bib")
    assert not [entry for entry in entries.values() if isinstance(entry, str)]
    assert set(entries) == {card.citation_key for card in map(METHODS.card, METHODS) if card.key not in _outside()}
    assert list(entries) == sorted(entries)
    for entry in entries.values():
        assert isinstance(entry, Citation)
        assert entry.venue
        assert entry.year.isdigit()


def test_a_citation_in_one_line() -> None:
    paper = citation("mmin")
    assert paper.text.startswith("Zhao, Li and Jin: Missing Modality Imagination Network")
    assert paper.short == "ACL 2021"
    assert paper.bibtex.startswith("@inproceedings{mmin,\n")


def test_the_library_keeps_its_references_in_one_layout() -> None:
    text = (METHODS.home / "references.bib").read_text(encoding="utf-8")
    entry = r"@\w+\{\w+,\n(?:  \w+ = \{.*\},\n)+\}\n"
    assert re.fullmatch(rf"{entry}(?:\n{entry})*", text)


@pytest.mark.parametrize(
    "text",
    [
        "@article{a,\n  author = {Doe, Jane and Roe, R.},\n  title = {A {T}itle},\n  journal = {J},\n  year = {2020},\n}\n",
        "@article{a,\nauthor={Doe, Jane and Roe, R.},\ntitle={A {T}itle},\njournal={J},\nyear={2020}\n}",
        '@Article { a ,\n\tAuthor = "Doe, Jane and Roe, R.",\n\tTitle = "A {T}itle", journal = "J", year = 2020 }',
        "\ufeff@article{a,\r\n  author = {Doe, Jane\r\n  and Roe, R.},\r\n title={A {T}itle},\r\n journal={J}, year=2020}\r\n",
        "prose\n@string{x = {y}}\n@misc{a, author = {Doe, Jane and Roe, R.}, title={A {T}itle}, journal = {J}, year = {2020}}",
    ],
)
def test_a_reference_is_read_as_publishers_write_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "references.bib"
    file.write_bytes(text.encode())
    entry = read_bibliography(file)["a"]
    assert not isinstance(entry, str)
    assert (entry.text, entry.year) == ("Doe and Roe: A {T}itle, J 2020", "2020")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@article{odd,\n  title = {D},\n}\n", "line 1: entry 'odd' needs author and title"),
        ("@article{odd,\n  author = {B},\n  title = {D},\n}\n" * 2, "line 5: entry 'odd' is there twice"),
        ("\n@article{odd,\n  author = {B},\n  title = {D},\n", "line 2: entry 'odd' is not closed"),
    ],
)
def test_an_odd_reference_is_named_and_harms_no_other(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "references.bib"
    file.write_text("@article{fine,\n  author = {B, C},\n  title = {D},\n}\n" * ("not closed" not in message) + text)
    entries = read_bibliography(file)
    assert message.split(": ")[1] in str(entries["odd"])
    assert isinstance(entries.get("fine", ""), str) == ("not closed" in message)


def test_a_plugin_brings_its_references_beside_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(good("from_the_shop"))
    kg.methods.load_plugin(tmp_path / "shop.py")
    with pytest.raises(UnknownName, match=r"references.bib 'from_the_shop'"):
        citation("from_the_shop")
    (tmp_path / "references.bib").write_text("@misc{from_the_shop,\n  author = {A, B and others},\n  title = {T},\n}\n")
    assert citation("from_the_shop").text == "A et al.: T, "


# plugins on the command line ------------------------------------------------------------------------------------------
SUITE = (
    "about: tiny\ndatasets: [factors]\nmethods: [from_the_shop]\nseeds: [0]\nprotocol: clean\ntrainer: {epochs: 1}\n"
)


def kintsugi_command(*words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "kintsugi.cli", *words],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_plugin_reaches_the_workers_of_a_bench_and_nothing_else_runs_it(tmp_path: Path) -> None:
    file, suite, out = tmp_path / "shop.py", tmp_path / "suite.yaml", tmp_path / "runs"
    file.write_text(good("from_the_shop"))
    suite.write_text(SUITE)
    words = ("bench", str(suite), "-o", str(out), "--workers", "1", "--no-report")
    refused = kintsugi_command(*words)
    assert refused.returncode == 2
    assert "unknown method 'from_the_shop'" in refused.stderr
    done = kintsugi_command(*words, "--plugin", str(file))
    assert "1 trials run" in done.stdout, done.stderr
    again = kintsugi_command(*words)
    assert again.returncode == 2, "the store made the plugin run"
    status = kintsugi_command("bench", "status", str(out))
    assert "method from_the_shop (not here)" in status.stdout
    assert kintsugi_command("report", str(out), "-o", str(tmp_path / "r.html")).returncode == 0


def test_a_plugin_is_trained_saved_and_asked_from_the_command_line(tmp_path: Path) -> None:
    import pandas as pd

    file, columns, rows = tmp_path / "shop.py", tmp_path / "columns.yaml", tmp_path / "rows.csv"
    file.write_text(good("from_the_shop"))
    columns.write_text("modalities: {a: {kind: tabular, columns: [x]}, b: {kind: tabular, columns: [z]}}\ntarget: y\n")
    pd.DataFrame({"x": range(40), "z": range(40), "y": list("ab") * 20}).to_csv(rows, index=False)
    train = ("train", str(rows), str(columns), "-m", "from_the_shop", "-o", str(tmp_path / "m"), "--epochs", "1")
    assert kintsugi_command(*train, "--plugin", str(file)).returncode == 0
    predict = ("predict", str(tmp_path / "m"), str(rows))
    refused = kintsugi_command(*predict)
    assert refused.returncode == 2
    assert "--plugin FILE" in refused.stderr
    answered = kintsugi_command(*predict, "--plugin", str(file))
    assert len(answered.stdout.splitlines()) == 41
