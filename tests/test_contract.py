"""The promises of every registered method. Registering a class is enough to be put through all of them."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import kintsugi.testing
from kintsugi.core import Batch, Features, Fixture, Fused, Model, Prediction, Schema, Step, claims_of
from kintsugi.core.errors import UnknownName
from kintsugi.core.methods import METHODS
from kintsugi.testing import CHECKS, ROWS, check_method
from kintsugi.testing.fresh_process import wrong_in_a_fresh_process

# (method, promise) -> reason: what is known not to hold. Strict: an entry that holds after all fails here.
KNOWN_EXCEPTIONS: dict[tuple[str, str], str] = {}


@pytest.mark.parametrize("promise", CHECKS)
@pytest.mark.parametrize("key", METHODS.names())
def test_promise(key: str, promise: str, request: pytest.FixtureRequest) -> None:
    if (key, promise) in KNOWN_EXCEPTIONS:
        request.applymarker(pytest.mark.xfail(reason=KNOWN_EXCEPTIONS[key, promise], strict=True))
    CHECKS[promise](METHODS[key])


def test_known_exceptions_name_what_exists() -> None:
    for key, promise in KNOWN_EXCEPTIONS:
        assert key in METHODS
        assert promise in CHECKS


def test_every_method_survives_saving_and_loading_in_a_fresh_process(tmp_path: Path) -> None:
    """Promise 6, for all methods in one child process; it also holds that predicting imports nothing heavy."""
    assert wrong_in_a_fresh_process([METHODS[key] for key in METHODS], tmp_path) == {}


# what breaks a promise ------------------------------------------------------------------------------------------------
Plain = METHODS["mean_fusion"]


class Undocumented(Plain):  # type: ignore[misc,valid-type]
    card = replace(Plain.card, key="broken")


class Reads(Undocumented):
    """Takes what stands in absent slots for a sign."""

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        features = super().encode(batch, encoders)
        sign = batch.inputs[self.schema.names[0]].flatten(1).nan_to_num(7.0).mean(1)
        stream = features.streams[self.schema.names[1]]
        return features.replace({self.schema.names[1]: replace(stream, tokens=stream.tokens + sign[:, None, None])})


class NotFinite(Undocumented):
    """Divides by what is not there, where a row has one modality; the trainer would see it in smaller batches."""

    def head(self, fused: Fused, features: Features) -> Prediction:
        answer = super().head(fused, features)
        few = features.present.sum(1, keepdim=True) == 1
        return replace(answer, output=answer.output.masked_fill(few & (len(few) == ROWS), torch.nan))


class Answers(Undocumented):
    """Answers rows with nothing as if it knew them."""

    def enough(self, present: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(present), dtype=torch.bool)


class Claims(Undocumented):
    """Says that it used what is absent."""

    def head(self, fused: Fused, features: Features) -> Prediction:
        return replace(super().head(fused, features), used=torch.ones_like(features.present))


class Compares(Undocumented):
    """Looks at the other rows of the batch."""

    def fuse(self, features: Features) -> Fused:
        fused = super().fuse(features)
        return replace(fused, tokens=fused.tokens - fused.tokens.mean(0))


class Idle(Undocumented):
    """Has a layer that nothing asks."""

    def __init__(self, schema: Schema, dim: int = 32) -> None:
        super().__init__(schema, dim)
        self.spare = nn.Linear(2, 2)


class Reachless(Undocumented):
    """Has a loss that reaches no parameter."""

    def step(self, batch: Batch, side: Batch | None = None) -> Step:
        return super().step(batch, side).plus(nothing=torch.zeros(()))


COUNT = itertools.count()


class Unseeded(Undocumented):
    """Begins elsewhere each time."""

    def __init__(self, schema: Schema, dim: int = 32) -> None:
        super().__init__(schema, dim)
        with torch.no_grad():
            self.task_head.linear.weight += 1e-3 * next(COUNT)


class Guesses(Undocumented):
    """Learns nothing from its inputs."""

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(0 * super().fuse(features).pooled())


class Deaf(Undocumented):
    """Has an argument that changes nothing."""

    def __init__(self, schema: Schema, dim: int = 32, volume: float = 1.0) -> None:
        super().__init__(schema, dim)


class Bare(Undocumented):
    """Has an argument that must be given."""

    def __init__(self, schema: Schema, volume: float, dim: int = 32) -> None:
        super().__init__(schema, dim)


class BrokenOff(Undocumented):
    """Works, but what is left without its mechanism does not."""

    ablation = NotFinite


class Toothless(Undocumented):
    """Has a check that tests nothing."""


class Wordless(Undocumented):
    """Has a check that fails without a word."""


class Lacking(Model):
    """Has neither ablation nor check."""

    card = replace(Plain.card, key="broken")


@claims_of(Toothless)
def passes_always(fixture: Fixture) -> None:
    assert fixture.schema, "there is no schema"


@claims_of(Wordless)
def fails_without_a_word(fixture: Fixture) -> None:
    if len(fixture.schema) != 2:
        raise AssertionError


@pytest.mark.parametrize(
    ("cls", "promise", "message"),
    [
        (Reads, "no_leak", "was trained on what is absent"),
        (NotFinite, "every_subset", "with image present some answer is not finite"),
        (Answers, "every_subset", "a row with nothing does not get the prior"),
        (Claims, "every_subset", "with image present it says that it used what is absent"),
        (Compares, "alone_or_together", "an answer depends on the batch: it moves by up to"),
        (Idle, "every_loss_trains", "trainable parameters without gradient: model.spare.weight, model.spare.bias"),
        (Reachless, "every_loss_trains", "losses that reach no parameter: nothing of stage train"),
        (Unseeded, "seeded", r"model\..* differs between two runs of one seed"),
        (Guesses, "learns", r"it does not learn the toy: accuracy 0\.\d+; guessing has 0.25, and 0.55 is wanted"),
        (Deaf, "no_argument_ignored", r"argument volume is ignored: 0.5 or 3.1 in place of 1.0 changes no shape"),
        (Bare, "no_argument_ignored", "argument volume has no default"),
        (BrokenOff, "ablation_is_sound", "with the mechanism off: with image present some answer is not finite"),
        (Toothless, "claims_hold", "passes on its ablation too"),
        (Wordless, "claims_hold", r"its own check fails at line \d+ of test_contract.py: raise AssertionError$"),
        (Lacking, "claims_hold", r"it has no check: write check\(lab\) under @claims_of\(Lacking\)"),
        (Lacking, "ablation_is_sound", r"it has no ablation: write it under @ablation_of\(Lacking\)"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_broken_promise_says_what_is_broken(cls: Any, promise: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        CHECKS[promise](cls)


def notebook(source: str, key: str, cell: str) -> Any:
    """The class of a method that stands in no file, as in a notebook."""
    module = ModuleType(f"notebook_{key}")
    sys.modules[module.__name__] = module
    exec(compile(source, cell, "exec", dont_inherit=True), vars(module))
    return METHODS[key]


@pytest.fixture
def forgetting() -> Any:
    """Methods and modules that a test registers are gone afterwards."""
    classes, modules = dict(METHODS._classes), set(sys.modules)
    yield
    METHODS._classes.clear()
    METHODS._classes.update(classes)
    for name in set(sys.modules) - modules:
        if name.startswith(("notebook_", "kintsugi_plugin_")):
            del sys.modules[name]


EXAMPLE = (Path(__file__).parent.parent / "docs" / "examples" / "max_fusion.py").read_text(encoding="utf-8")


@pytest.mark.usefixtures("forgetting")
def test_a_method_of_a_notebook_keeps_every_promise() -> None:
    notebook(EXAMPLE, "max_fusion", "<cell>")
    check_method("max_fusion")


@pytest.mark.usefixtures("forgetting")
def test_a_cell_that_is_run_again_is_checked_as_it_is_now() -> None:
    first = notebook(EXAMPLE, "max_fusion", "<cell>")
    CHECKS["every_subset"](first)
    broken = EXAMPLE.replace("return Fused.vector(self.gain *", "return Fused.vector(torch.nan *")
    assert broken != EXAMPLE
    second = notebook(broken, "max_fusion", "<cell>")
    assert second is not first
    with pytest.raises(Exception, match="not finite"):
        CHECKS["every_subset"](second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"own": "gain: factor of the maximum before the head.", "new": "none."}, "argument gain is not explained"),
        ({"own": "    Args:\n", "new": ""}, "MaxFusion explains no arguments under Args:"),
        ({"own": "@ablation_of(MaxFusion)\n", "new": ""}, "it has no ablation"),
        ({"own": "@claims_of(MaxFusion)\n", "new": ""}, "it has no check"),
    ],
)
@pytest.mark.usefixtures("forgetting")
def test_what_a_method_does_not_say_of_itself_is_seen(change: dict[str, str], message: str) -> None:
    source = EXAMPLE.replace(change["own"], change["new"])
    assert source != EXAMPLE
    with pytest.raises(AssertionError, match=message):
        CHECKS["card_is_true"](notebook(source, "max_fusion", "<cell>"))


def test_a_class_under_a_key_that_is_not_its_own_is_seen() -> None:
    class Other(Plain):  # type: ignore[misc,valid-type]
        """Another one."""

    with pytest.raises(AssertionError, match="under the key 'mean_fusion' another class is registered"):
        CHECKS["card_is_true"](Other)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("leaf", "general", r"the card's leaf is general, and the file is in methods/missing/generative"),
        ("file", "mmin2.py", r"the file is called mmin2.py; of this library it is mmin.py, by its key"),
    ],
)
def test_a_method_of_the_library_stands_where_it_says(
    field: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, text = METHODS["mmin"], METHODS.entries["mmin"]
    if field == "leaf":
        monkeypatch.setattr(cls, "card", replace(cls.card, leaf=value))
    else:
        monkeypatch.setitem(METHODS.entries, "mmin", replace(text, file=text.file.with_name(value)))
    with pytest.raises(AssertionError, match=message):
        CHECKS["card_is_true"](cls)


def test_a_file_of_several_methods_need_not_have_the_name_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    text = METHODS.entries["mmin"]
    elsewhere = replace(text, file=text.file.with_name("family.py"))
    monkeypatch.setitem(METHODS.entries, "mmin", elsewhere)
    monkeypatch.setitem(METHODS.entries, "sibling", replace(elsewhere, card=replace(text.card, key="sibling")))
    CHECKS["card_is_true"](METHODS["mmin"])


def test_an_unknown_method_cannot_be_checked() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mmin'"):
        check_method("mmim")


def test_no_promise_is_an_assert_statement_that_python_may_leave_out() -> None:
    folder = Path(str(kintsugi.testing.__file__)).parent
    files = [folder / name for name in ("promises.py", "trials.py", "fixture.py")]
    assert len(files) > 1
    bare = [
        f"{file.name}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert bare == []


def test_the_check_of_a_method_is_not_taken_for_passed_where_python_leaves_it_out() -> None:
    source = (
        "from kintsugi.testing import CHECKS\n"
        "from kintsugi.core.methods import METHODS\n"
        "try:\n    CHECKS['claims_hold'](METHODS['mean_fusion'])\n"
        "except AssertionError as error:\n    print(error)\n"
    )
    child = subprocess.run([sys.executable, "-O", "-c", source], capture_output=True, text=True, check=True)
    assert child.stdout.startswith("python -O leaves the assert statements")
