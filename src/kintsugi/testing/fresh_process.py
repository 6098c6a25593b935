"""A saved model, loaded in another process, answers as it did, with the parameters it had, and imports nothing heavy.

``python -m kintsugi.testing.fresh_process FOLDER`` is that other process; it imports what a user who predicts would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kintsugi.core.batch import Batch
from kintsugi.core.component import Component
from kintsugi.core.errors import KintsugiError
from kintsugi.core.methods import METHODS

HEAVY = ("torchmetrics", "lightning_fabric")  # a second each; only training and evaluation need them
BATCHES, ANSWERS, ORDER, REPLY = "batches.safetensors", "answers.safetensors", "order.json", "reply.json"


def wrong_in_a_fresh_process(methods: Sequence[type[Component]], folder: Path) -> dict[str, str]:
    """Save each method, trained briefly, and let one new process load and ask them all.

    Args:
        methods: the classes. Files that were given to ``load_plugin`` are given to the new process too.
        folder: an empty one, for what is passed on.

    Returns:
        Key -> what is wrong, of the methods with which something is.

    Raises:
        AssertionError: the process ended with an error, or predicting imports what is heavy.
    """
    from kintsugi.testing import data_for, everything, fitted, round_trip

    expected: dict[str, Tensor] = {}
    parameters: dict[str, dict[str, int]] = {}
    tensors: dict[str, Tensor] = {}
    order: dict[str, dict[str, object]] = {"methods": {}, "names": {}}
    for cls in methods:
        key = cls.card.key
        expected[key] = round_trip(cls, folder / key)
        parameters[key] = parameter_sizes(fitted(cls))
        data = data_for(cls, absent=0.3)
        batch = everything(data)
        name = f"{data.schema.task.key}{len(batch.names)}"
        order["methods"][key], order["names"][name] = name, batch.names
        tensors |= {f"{name}|present": batch.present, f"{name}|index": batch.index}
        tensors |= {f"{name}|inputs/{n}": x.contiguous() for n, x in batch.inputs.items()}
        tensors |= {f"{name}|mask/{n}": m.contiguous() for n, m in batch.mask.items()}
    save_file(tensors, folder / BATCHES)
    beside = {"plugins": [str(file) for file in METHODS.plugins], "threads": torch.get_num_threads()}
    (folder / ORDER).write_text(json.dumps({**order, **beside}), encoding="utf-8")
    # -P: no module of the folder that this happens to run in
    command = [sys.executable, "-P", "-m", __name__, str(folder)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        raise AssertionError(f"the process that loads the saved model failed: {child.stderr.strip()[-2000:]}")
    reply = json.loads((folder / REPLY).read_text(encoding="utf-8"))
    if reply["heavy"]:
        raise AssertionError(f"predicting imports {', '.join(reply['heavy'])}; import it in the function that needs it")
    answers = load_file(folder / ANSWERS)
    wrong = dict(reply["faults"])
    for key in expected.keys() - wrong.keys():
        if not torch.equal(expected[key], answers[key]):
            gap = float((expected[key] - answers[key]).abs().max())
            wrong[key] = f"the loaded model answers otherwise, by up to {gap:.2g}"
        elif parameters[key] != reply["parameters"][key]:
            wrong[key] = _other_parameters(parameters[key], reply["parameters"][key])
    return wrong


def parameter_sizes(pipeline: nn.Module) -> dict[str, int]:
    """Name -> how many numbers, of every parameter; one that two modules share counts once."""
    return {name: p.numel() for name, p in pipeline.named_parameters()}


def _other_parameters(before: dict[str, int], after: dict[str, int]) -> str:
    names = ", ".join(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
    return f"the loaded model has {sum(after.values()):,} parameters, the saved one {sum(before.values()):,}: {names}"


def answer_all(folder: Path) -> None:
    """In the new process: load every model in the folder, ask it, and write down answers and faults."""
    order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    torch.set_num_threads(order["threads"])
    for file in order["plugins"]:
        METHODS.load_plugin(file)
    from kintsugi.io.saved_models import load

    tensors = load_file(folder / BATCHES)
    answers, faults, parameters = {}, {}, {}
    for key, name in order["methods"].items():
        batch = _batch(tensors, name, tuple(order["names"][name]))
        try:
            pipeline, _ = load(folder / key)
            with torch.no_grad():
                answers[key] = pipeline(batch).output
            parameters[key] = parameter_sizes(pipeline)
        except KintsugiError as error:
            faults[key] = f"the saved model cannot be used: {error}"
    save_file(answers, folder / ANSWERS)
    heavy = sorted(set(HEAVY) & sys.modules.keys())
    (folder / REPLY).write_text(
        json.dumps({"faults": faults, "heavy": heavy, "parameters": parameters}), encoding="utf-8"
    )


def _batch(tensors: dict[str, Tensor], name: str, names: tuple[str, ...]) -> Batch:
    def those(kind: str) -> dict[str, Tensor]:
        start = f"{name}|{kind}/"
        return {full.removeprefix(start): x for full, x in tensors.items() if full.startswith(start)}

    return Batch(names, those("inputs"), tensors[f"{name}|present"], tensors[f"{name}|index"], mask=those("mask"))


if __name__ == "__main__":
    answer_all(Path(sys.argv[1]))
