"""The promises of every registered method. Registering a class is enough to be put through all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kintsugi.contract import CHECKS, data_for, everything, round_trip
from kintsugi.core.methods import METHODS

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


LOADER = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from kintsugi.core.batch import Batch
from kintsugi.core.store import load

torch.set_num_threads(1)
folder = Path(sys.argv[1])
said = json.loads((folder / "batch.json").read_text())
tensors = load_file(folder / "batch.safetensors")
group = lambda kind: {n.split("/")[1]: t for n, t in tensors.items() if n.startswith(kind + "/")}
answers = {}
for key, name in said["methods"].items():
    part = {n.removeprefix(name + "|"): t for n, t in tensors.items() if n.startswith(name + "|")}
    pick = lambda kind: {n.split("/")[1]: t for n, t in part.items() if n.startswith(kind + "/")}
    batch = Batch(tuple(said["names"][name]), pick("inputs"), part["present"], part["index"], mask=pick("mask"))
    pipeline, _ = load(folder / key)
    with torch.no_grad():
        answers[key] = pipeline.answer(batch).output
save_file(answers, folder / "answers.safetensors")
heavy = {"torchmetrics", "lightning_fabric"} & set(sys.modules)
assert not heavy, f"predicting imports {heavy}"
"""


def test_every_method_survives_saving_and_loading_in_a_fresh_process(tmp_path: Path) -> None:
    """Promise 6, for all methods in one child process; it also holds that predicting imports nothing heavy."""
    expected, tensors, methods, names = {}, {}, {}, {}
    for key in METHODS.names():
        expected[key] = round_trip(METHODS[key], tmp_path / key)
        data = data_for(METHODS[key], absent=0.3)
        batch = everything(data)
        task = data.schema.task.key + str(len(batch.names))
        methods[key], names[task] = task, batch.names
        tensors |= {f"{task}|present": batch.present, f"{task}|index": batch.index}
        tensors |= {f"{task}|inputs/{n}": x.contiguous() for n, x in batch.inputs.items()}
        tensors |= {f"{task}|mask/{n}": m.contiguous() for n, m in batch.mask.items()}
    save_file(tensors, tmp_path / "batch.safetensors")
    (tmp_path / "batch.json").write_text(json.dumps({"methods": methods, "names": names}))
    child = subprocess.run([sys.executable, "-c", LOADER, str(tmp_path)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    answers = load_file(tmp_path / "answers.safetensors")
    wrong = [key for key in expected if not torch.equal(expected[key], answers[key])]
    assert not wrong, f"the loaded model answers otherwise: {wrong}"
