"""The process that a mutant runs in: ``python -m kintsugi.testing.mutation_child REQUEST``, of a copy of the package.

Only :func:`checks_of` and ``_golden`` know how a method is checked.
"""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from kintsugi.core.component import Component
from kintsugi.core.methods import METHODS

CLAIMS = "claims_hold"  # tried first: cheap, and the likeliest to see that the mechanism is another
FRESH = "fresh_process"
ENCODERS = str(Path(__file__).parent.parent / "encoders")
MESSAGE = 300  # characters of a message that are kept


# how a method is checked ------------------------------------------------------------------------------------------------
def checks_of(cls: type[Component]) -> dict[str, Callable[[], object]]:
    """Name -> check, in the order in which they are tried: claims, all other promises, saved and loaded elsewhere."""
    from kintsugi.testing.promises import CHECKS

    ordered = sorted(CHECKS, key=lambda name: name != CLAIMS)
    checks: dict[str, Callable[[], object]] = {name: partial(CHECKS[name], cls) for name in ordered}
    return {**checks, FRESH: partial(_fresh_process, cls)}


def _fresh_process(cls: type[Component]) -> None:
    from kintsugi.testing.fresh_process import wrong_in_a_fresh_process

    with tempfile.TemporaryDirectory() as folder:
        wrong = wrong_in_a_fresh_process([cls], Path(folder))
    if wrong:
        raise AssertionError(wrong[cls.card.key])


def _golden(request: Mapping[str, Any]) -> dict[str, str]:
    """Golden numbers, against those of the method without a fault; whoever has none to compare with leaves its own."""
    from kintsugi.testing import golden
    from kintsugi.testing.golden_numbers import differences

    now = golden.method_subject(request["key"]).measure().numbers
    sound = Path(request["golden"])
    if not sound.is_file():
        sound.write_text(json.dumps(now), encoding="utf-8")
        return {"state": "survived"}
    moved = differences(json.loads(sound.read_text(encoding="utf-8")), now)
    return {"state": "killed", "by": "golden", "message": _short(moved[0])} if moved else {"state": "survived"}


def _contract(request: Mapping[str, Any]) -> dict[str, str]:
    wanted = request["checks"]
    for name, check in checks_of(METHODS[request["key"]]).items():
        if wanted is None or name in wanted:
            try:
                check()
            except AssertionError as error:
                return {"state": "killed", "by": name, "message": _short(str(error) or f"assertion in {_place(error)}")}
            except Exception as error:  # whatever the fault made of the code
                return _crash(error, name)
    return {"state": "survived"}


def _crash(error: Exception, by: str) -> dict[str, str]:
    return {"state": "crash", "by": by, "message": _short(f"{type(error).__name__} in {_place(error)}: {error}")}


def _short(message: str) -> str:
    return next(iter(message.splitlines()), "")[:MESSAGE]


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    home = str(Path(__file__).parent.parent)
    frame = next((frame for frame in reversed(frames) if frame.filename.startswith(home)), frames[-1])
    return f"line {frame.lineno} of {Path(frame.filename).name}: {frame.line}"


# what a training goes through -------------------------------------------------------------------------------------------
class Tracer:
    """Notes which lines of some files run, and which local variables carry a gradient in which function.

    What an encoder calls is no business of the method, so that nothing is noted of it.

    Args:
        names: full path of a file -> how it is called in what is noted.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.lines: dict[str, set[int]] = defaultdict(set)
        self.gradients: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        """As ``sys.settrace`` wants it: of frames of other files nothing is noted."""
        file = self.names.get(frame.f_code.co_filename)
        if file is None or (event == "call" and _below_an_encoder(frame)):
            return None
        self.lines[file].add(frame.f_lineno)
        if event == "return":
            function = frame.f_code.co_qualname.partition(".<locals>.<")[0]  # a comprehension belongs to its function
            held = {**frame.f_locals, "return": argument}
            self.gradients[file][function] |= {name for name, value in held.items() if _carries_gradient(value)}
        return self


def _below_an_encoder(frame: FrameType) -> bool:
    outer = frame.f_back
    while outer is not None:
        if outer.f_code.co_filename.startswith(ENCODERS):
            return True
        outer = outer.f_back
    return False


def _carries_gradient(value: object) -> bool:
    if isinstance(value, tuple | list):
        return any(isinstance(each, Tensor) and each.requires_grad for each in value)
    return isinstance(value, Tensor) and value.requires_grad


def _trace(request: Mapping[str, Any]) -> dict[str, object]:
    """Train and use the method on the toy, and on data with holes."""
    from kintsugi.testing import Fixture, ask, fitted

    cls = METHODS[request["key"]]
    tracer = Tracer(request["files"])
    sys.settrace(tracer)
    try:
        fixture = Fixture(cls, epochs=2)
        batch = fixture.batch()
        ask(fixture.trained(), batch.only(batch.names[0]))
        fitted(cls)
    finally:
        sys.settrace(None)
    return {
        "state": "survived",
        "lines": {file: sorted(lines) for file, lines in tracer.lines.items()},
        "gradients": {
            file: {function: sorted(names) for function, names in functions.items()}
            for file, functions in tracer.gradients.items()
        },
        "overrides": overrides(cls),
    }


def overrides(cls: type[Component]) -> list[str]:
    """``Class.method`` of each method in the file of ``cls`` that stands in place of one of a base of this library."""
    found: list[str] = []
    for part in vars(sys.modules[cls.__module__]).values():
        if inspect.isclass(part) and issubclass(part, Component) and part.__module__ == cls.__module__:
            bases = [base for base in part.__mro__[1:] if base not in nn.Module.__mro__]
            own = (name for name, value in vars(part).items() if inspect.isroutine(value) and not name.startswith("__"))
            found += [f"{part.__qualname__}.{name}" for name in own if any(name in vars(base) for base in bases)]
    return found


# the process ------------------------------------------------------------------------------------------------------------
COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, object]]] = {
    "trace": _trace, "contract": _contract, "golden": _golden,
}  # fmt: skip


def main(file: Path) -> None:
    """Answer a request, one line of JSON a column, as soon as it is known; a column that never ends has none."""
    request = json.loads(file.read_text(encoding="utf-8"))
    if not Path(__file__).is_relative_to(request["tree"]):
        raise SystemExit(f"{__file__} is not of the copy in {request['tree']}, so no fault would be seen")
    torch.set_num_threads(1)
    for column in request["columns"]:
        try:
            if request["plugin"]:
                METHODS.load_plugin(request["plugin"])
            reply = dict(COLUMNS[column](request))
        except Exception as error:  # such as a file that cannot be imported any more
            reply = dict(_crash(error, "import or training"))
        with Path(request["reply"]).open("a", encoding="utf-8") as answers:
            answers.write(json.dumps({"column": column, **reply}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
