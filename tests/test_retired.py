"""Names of before are still read, with a warning that tells the name of today; both at once are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import kintsugi as kg
from kintsugi import core
from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS, claims_of
from kintsugi.core.retired import GLOSSARY, NAMES
from kintsugi.testing.fixture import toy

CARD: dict[str, Any] = {
    "key": "mine", "name": "Mine", "leaf": "general", "faithful": ("all",), "imperfection": ("missing at test",),
    "premise": "there is some", "confidence": "high",
}  # fmt: skip


@pytest.mark.parametrize(
    ("package", "old", "new"), [(package, old, new) for package, names in NAMES.items() for old, new in names.items()]
)
def test_a_public_name_of_before_is_the_thing_of_today(package: str, old: str, new: str) -> None:
    module = {"kintsugi": kg, "kintsugi.core": core}[package]
    with pytest.warns(DeprecationWarning, match=rf"{re.escape(package)}\.{old} is called .*{new} now"):
        thing = getattr(module, old)
    assert thing is getattr(module, new)
    assert old not in dir(module)
    with pytest.raises(AttributeError):
        getattr(module, old + "_of_nobody")


def test_the_names_that_version_0_1_0_had_are_among_them() -> None:
    assert {"Part", "Lab", "check_of", "contract"} <= set(NAMES["kintsugi"])


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("share", "fraction", 0.25), ("train", "trainable", ("encoders.*",)), ("side", "auxiliary", "complete")],
)
def test_a_stage_reads_its_arguments_of_before(old: str, new: str, value: Any) -> None:
    with pytest.warns(DeprecationWarning, match=rf"Stage\({old}=…\) is called {new}= now") as caught:
        stage = kg.Stage("warm", **{old: value})
    assert stage == kg.Stage("warm", **{new: value})
    assert caught[0].filename == __file__, "the warning points elsewhere than to the caller"
    with pytest.raises(ConfigError, match=f"Stage: {old}= is called {new}= now, and both are given; leave {old}= out"):
        kg.Stage("warm", **{old: value, new: value})


def test_a_card_of_before_names_one_claim() -> None:
    with pytest.warns(DeprecationWarning, match=r"Card\(check=…\) is called claims=\(…,\) now") as caught:
        card = kg.Card(**CARD, check="it does")
    assert card == kg.Card(**CARD, claims=("it does",))
    assert len(caught) == 1
    with pytest.raises(ConfigError, match=r"check= is called claims= now, and both are given"):
        kg.Card(**CARD, check="it does", claims=("it does",))


class _Judged(kg.Model):
    """A method that is not registered, for claims of its own."""

    card = kg.Card(**CARD, claims=("it does",))


def _says(outcome: bool) -> Callable[[Any], None]:
    def check(fixture: Any) -> None:
        """The fixture is what the check looks at."""
        assert (outcome, fixture) == (True, "the fixture")

    return check


@pytest.mark.parametrize("outcome", [True, False])
def test_a_check_that_asserts_is_one_claim_that_holds_or_does_not(outcome: bool) -> None:
    with pytest.warns(DeprecationWarning, match="a check that asserts is called a generator of claims"):
        claims_of(_Judged)(_says(outcome))
    (claim,) = _Judged.claims("the fixture")  # type: ignore[arg-type]
    assert (claim.name, claim.holds) == ("it does", outcome)


def test_an_error_of_a_check_that_asserts_is_no_failed_claim() -> None:
    def broken(fixture: Any) -> None:
        raise ZeroDivisionError

    with pytest.warns(DeprecationWarning, match="a check that asserts"):
        claims_of(_Judged)(broken)
    with pytest.raises(ZeroDivisionError):
        list(_Judged.claims(None))  # type: ignore[arg-type]


def test_a_pipeline_answers_under_its_call_of_before() -> None:
    data = toy(rows=24, dim=5)
    pipeline = METHODS["mean_fusion"](data.schema, dim=4)
    around = kg.Pipeline(pipeline).eval()
    batch = data.batch(torch.arange(6))
    with pytest.warns(DeprecationWarning, match=r"pipeline\.answer\(batch\) is called pipeline\(batch\) now") as caught:
        answer = around.answer(batch)
    assert caught[0].filename == __file__
    assert torch.equal(answer.output, around(batch).output)


def test_every_public_name_and_argument_of_before_is_in_the_glossary() -> None:
    listed = {name.old for name in GLOSSARY}
    assert {old for names in NAMES.values() for old in names} <= listed
    assert {"Stage(share=)", "Stage(train=)", "Stage(side=)", "Card(check=)", "Pipeline.answer"} <= listed
    assert len(listed) == len(GLOSSARY), "a name is listed twice"
    assert all(name.new and name.meaning.endswith(".") for name in GLOSSARY)
