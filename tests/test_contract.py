"""The promises of every registered method. Registering a class is enough to be put through all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kintsugi.contract import CHECKS
from kintsugi.core.methods import METHODS
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
