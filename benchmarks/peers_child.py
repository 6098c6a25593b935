"""One learner on one data set, in a process of its own and by the Python that has the learner: see ``peers.py``.

    PYTHON benchmarks/peers_child.py FOLDER

FOLDER holds ``job.json`` (learner, data, seed, updates) and ``rows.npz``: for every part (``train``, ``val``, ``test0``, …) the
modalities ``x|PART|NAME``, float32 ``[N, *shape]`` with NaN where a modality is absent, and for the first two labels ``y|PART``,
int64 ``[N]``, -1 where there is none. The child leaves ``answers.npz`` (a class for every row of every test part, int64 ``[N]``)
and ``facts.json``. Of all that it needs only numpy is imported before the learner's own packages.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Answers = dict[str, Array]
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C of the logistic regression
ROUNDS = 12  # looks at the validation rows within a training
BATCH = 64
RATE = 2e-3  # the learning rate of Kintsugi's methods; those of iMML keep their own, which validation rows liked better
WIDE, NEAR = 100, 20  # of more columns than WIDE, IterativeImputer regresses on the NEAR most correlated ones


class Rows:
    """The rows of a job.

    Attributes:
        names: of the modalities; tests: of the test parts.
        x: part -> one array a modality, float32 ``[N, *shape]``, NaN where it is absent. y: part -> int64 ``[N]``, -1: no label.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as found:
            arrays = {key: found[key] for key in found.files}
        keys = [key.split("|") for key in arrays if key.startswith("x|")]
        self.names = list(dict.fromkeys(name for _, _, name in keys))
        self.parts = list(dict.fromkeys(part for _, part, _ in keys))
        self.tests = [part for part in self.parts if part.startswith("test")]
        self.x = {part: [arrays[f"x|{part}|{name}"] for name in self.names] for part in self.parts}
        self.y = {part: arrays[f"y|{part}"] for part in ("train", "val")}
        self.classes = 1 + int(max(y.max() for y in self.y.values()))
        self.arrays = arrays

    def wide(self, part: str) -> Array:
        """All numbers of all modalities side by side, float64 ``[N, P]``."""
        return np.concatenate([x.reshape(len(x), -1) for x in self.x[part]], 1).astype(float)

    def scaled(self, part: str) -> list[Array]:
        """One matrix a modality, ``[N, P_m]``, standardised by what the training rows own; NaN stays."""
        train = [x.reshape(len(x), -1).astype(float) for x in self.x["train"]]
        mine = [x.reshape(len(x), -1).astype(float) for x in self.x[part]]
        return [
            (x - np.nanmean(t, 0)) / np.where(np.nanstd(t, 0) > 0, np.nanstd(t, 0), 1.0)
            for x, t in zip(mine, train, strict=True)
        ]


# The plain classifier ----------------------------------------------------------------------------------------------
def regression(x: Array, y: Array, x_val: Array, y_val: Array) -> Any:
    """Logistic regression on complete numbers; the strength of its penalty is the one that validation rows like best."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labelled, checked = y >= 0, y_val >= 0
    found: list[tuple[float, Any]] = []
    for strength in STRENGTHS:
        learner = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        learner.fit(x[labelled], y[labelled])
        found.append((float(learner.score(x_val[checked], y_val[checked])), learner))
    return max(found, key=lambda each: each[0])[1]


def after(rows: Rows, filled: dict[str, Array]) -> Answers:
    """The answers of that regression on completed rows, part -> ``[N, P]``."""
    learner = regression(filled["train"], rows.y["train"], filled["val"], rows.y["val"])
    return {part: learner.predict(filled[part]) for part in rows.tests}


# scikit-learn ------------------------------------------------------------------------------------------------------
def plain(rows: Rows, learner: str, seed: int) -> Answers:
    """An imputer, learned from all training rows, labelled or not, and the regression on those with a label."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    width = rows.wide("train").shape[1]
    imputer: Any
    if learner == "simple":
        from sklearn.impute import SimpleImputer

        imputer = SimpleImputer(add_indicator=True, keep_empty_features=True)
    elif learner == "knn":
        from sklearn.impute import KNNImputer

        imputer = KNNImputer(keep_empty_features=True)
    else:
        importlib.import_module("sklearn.experimental.enable_iterative_imputer")
        from sklearn.impute import IterativeImputer

        nearest = NEAR if width > WIDE else None
        imputer = IterativeImputer(random_state=seed, n_nearest_features=nearest, keep_empty_features=True)
    filler = make_pipeline(StandardScaler(), imputer)  # distances and penalties depend on units
    filled = {"train": filler.fit_transform(rows.wide("train"))}
    filled |= {part: filler.transform(rows.wide(part)) for part in rows.parts if part != "train"}
    return after(rows, filled)


# PyPOTS ------------------------------------------------------------------------------------------------------------
def pots(rows: Rows, learner: str, seed: int, updates: int) -> Answers:
    """SAITS or BRITS on one series a row, the channels of all modalities side by side; then the regression."""
    imputation = importlib.import_module("pypots.imputation")
    importlib.import_module("pypots.utils.random").set_random_seed(seed)
    series = {}
    for part in rows.parts:
        blocks = [x.reshape(y.shape) for x, y in zip(rows.scaled(part), rows.x[part], strict=True)]
        series[part] = np.concatenate(blocks, 2).astype(np.float32)  # [N, T, channels]
    _, steps, channels = series["train"].shape
    epochs = max(1, updates // -(-len(series["train"]) // BATCH))
    common = {
        "n_steps": steps, "n_features": channels, "batch_size": BATCH, "epochs": epochs, "device": "cpu", "verbose": False,
    }  # fmt: skip
    if learner == "saits":
        model = imputation.SAITS(n_layers=2, d_model=64, n_heads=4, d_k=16, d_v=16, d_ffn=128, dropout=0.1, **common)
    else:
        model = imputation.BRITS(rnn_hidden_size=64, **common)
    model.fit({"X": series["train"]})
    filled = {}
    for part, x in series.items():
        out = np.asarray(model.impute({"X": x}), dtype=float)
        filled[part] = np.where(np.isnan(x), out, x).reshape(len(x), -1)
    return after(rows, filled)


# iMML --------------------------------------------------------------------------------------------------------------
def operators() -> None:
    """Names of torchvision's compiled operators, without which its wheel for CUDA does not import beside PyTorch for CPU.

    None of them is called here: they belong to detectors of objects.
    """
    try:
        importlib.import_module("torchvision")
        return
    except ImportError:
        return  # without it iMML says itself what is missing
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.kept = library  # type: ignore[attr-defined]  # what it defines goes with it


def transductive(rows: Rows, learner: str, seed: int) -> Answers:
    """An imputer of iMML, which fills no rows but those that it was fitted on: the training, validation and test rows together.

    It is fitted anew for every test part. JNMF wants numbers of 0 and above, so that the least of each column is taken off.
    """
    impute = importlib.import_module("imml.impute")
    make = {"mofa": impute.MOFAImputer, "jnmf": impute.JNMFImputer, "dfmf": impute.DFMFImputer}[learner]
    out: Answers = {}
    for part in rows.tests:
        pieces = ("train", "val", part)
        ends = np.cumsum([len(rows.x[piece][0]) for piece in pieces])[:-1]
        stacked = [np.concatenate(blocks) for blocks in zip(*(rows.scaled(piece) for piece in pieces), strict=True)]
        least = [np.nanmin(x, 0) if learner == "jnmf" else np.zeros(x.shape[1]) for x in stacked]
        given = [x - low for x, low in zip(stacked, least, strict=True)]
        filled = np.concatenate([np.asarray(x) for x in make(random_state=seed).fit_transform(given)], 1)
        train, val, test = np.split(filled, ends)
        out[part] = regression(train, rows.y["train"], val, rows.y["val"]).predict(test)
    return out


def networks(rows: Rows, learner: str, seed: int, updates: int) -> Answers:
    """M3Care or MUSE with their own learning rates, by Lightning's trainer; validation rows choose among the rounds."""
    import torch
    from torch.utils.data import DataLoader

    lightning = importlib.import_module("lightning")
    classify = importlib.import_module("imml.classify")
    lightning.seed_everything(seed, verbose=False)
    series = learner == "muse" and all(x.ndim == 3 for x in rows.x["train"])
    kind = "series" if series else "tabular"
    parts = {part: _samples(rows, part, learner, series) for part in rows.parts}
    widths = [sample.shape[-1] for sample in parts["train"][0][0]]
    modalities = [kind] * len(widths)
    model: Any
    if learner == "m3care":
        # a vocabulary that is not given is downloaded, after a question on the terminal; only text would read it
        model = classify.M3Care(input_dim=widths, modalities=modalities, vocab=["unused"], output_dim=rows.classes)
    else:

        def loss(logits: Any, y: Any) -> Any:  # its labels are floats, NaN where there is none
            return torch.nn.functional.cross_entropy(logits, y.long())

        class Labelled(classify.MUSE):  # type: ignore[name-defined]
            def training_step(self, batch: Any, batch_idx: Any = None) -> Any:
                """None, which leaves the batch out, where no row has a label: the mean over none is NaN."""
                return super().training_step(batch, batch_idx) if bool(batch[3].any()) else None

        model = Labelled(input_dim=widths, modalities=modalities, output_dim=rows.classes, loss_fn=loss)

    def answer(part: str) -> Array:
        training = model.training
        model.eval()
        with torch.no_grad():
            told = [model.predict_step(batch) for batch in DataLoader(parts[part], batch_size=BATCH)]
        model.train(training)
        return np.asarray(torch.cat(told).argmax(1))

    best: dict[str, Any] = {"score": -1.0}

    class Watch(lightning.Callback):  # type: ignore[name-defined]
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step % max(1, updates // ROUNDS) and trainer.global_step < updates:
                return
            there = rows.y["val"] >= 0
            score = float((answer("val")[there] == rows.y["val"][there]).mean())
            if score > best["score"]:
                best.update(score=score, state={name: value.clone() for name, value in model.state_dict().items()})

    trainer = lightning.Trainer(
        max_steps=updates, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Watch()],
    )  # fmt: skip
    train = parts["train"]
    trainer.fit(model, DataLoader(train, batch_size=BATCH, shuffle=True, drop_last=len(train) > BATCH))
    model.load_state_dict(best["state"])
    return {part: answer(part) for part in rows.tests}


def _samples(rows: Rows, part: str, learner: str, series: bool) -> Any:
    """Rows as the learner's own data sets hand them out; absent modalities are zeros, since NaN would go through its norms.

    M3Care: modalities, label, which are observed; of training rows those with a label. MUSE: modalities, label or NaN, which are
    missing, and whether there is a label.
    """
    import torch

    blocks = rows.scaled(part)
    here = torch.from_numpy(np.stack([~np.isnan(x).all(1) for x in blocks], 1))
    shapes = [x.shape if series else (len(x), -1) for x in rows.x[part]]
    tensors = [torch.from_numpy(np.nan_to_num(x)).float().reshape(s) for x, s in zip(blocks, shapes, strict=True)]
    y = rows.y.get(part, np.zeros(len(here), dtype=np.int64))
    out: list[Any] = []
    for row in range(len(here)):
        mine = [x[row] for x in tensors]
        if learner == "m3care":
            if part != "train" or y[row] >= 0:
                out.append((mine, torch.tensor(int(y[row])), here[row]))
        else:
            label = torch.tensor(float(y[row]) if y[row] >= 0 else float("nan"))
            out.append((mine, label, ~here[row], torch.tensor(bool(y[row] >= 0))))
    return out


# Kintsugi ----------------------------------------------------------------------------------------------------------
def kintsugi(rows: Rows, learner: str, job: dict[str, Any]) -> Callable[[], Answers]:
    """A registered method; the data set is made again, and refused where it is not what the others got."""
    import torch
    from peers import arrays, make

    import kintsugi as kg

    made = make(job["data"], job["seed"])
    again = arrays(made)
    if again.keys() != rows.arrays.keys() or not all(_same(again[key], rows.arrays[key]) for key in again):
        raise RuntimeError("the rows that were made again are not those that the others got")
    torch.set_num_threads(1)

    def learn() -> Answers:
        model = kg.Classifier(
            learner, updates=job["updates"], epochs=ROUNDS, lr=RATE, batch_size=BATCH, seed=job["seed"], progress=False
        ).fit(made.train, made.val)
        return {f"test{place}": model.predict_proba(test).argmax(1) for place, test in enumerate(made.tests.values())}

    return learn


def _same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


# Measuring ---------------------------------------------------------------------------------------------------------
def memory(field: str) -> float:
    """MB of this process that Linux tells: ``VmRSS`` now, ``VmHWM`` at most so far; NaN elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def versions(names: Sequence[str]) -> str:
    """Of Python and of these distributions."""
    from importlib.metadata import PackageNotFoundError, version

    said = [f"Python {platform.python_version()}"]
    for name in names:
        try:
            said.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(said)


def prepare(job: dict[str, Any], rows: Rows) -> tuple[Callable[[], Answers], list[str]]:
    """What is to be timed, its packages imported, and the names of those that matter."""
    peer, learner, seed, updates = job["peer"], job["learner"], job["seed"], job["updates"]
    importlib.import_module("sklearn.pipeline")
    if peer == "sklearn":
        importlib.import_module("sklearn.impute")
        return (lambda: plain(rows, learner, seed)), ["scikit-learn"]
    if peer == "pypots":
        importlib.import_module("pypots.imputation")
        return (lambda: pots(rows, learner, seed, updates)), ["pypots", "torch"]
    if peer == "imml":
        operators()  # its imputers import the rest of it too
        if learner in ("mofa", "jnmf", "dfmf"):
            importlib.import_module("imml.impute")
            return (lambda: transductive(rows, learner, seed)), ["imml"]
        importlib.import_module("lightning")
        importlib.import_module("imml.classify")
        return (lambda: networks(rows, learner, seed, updates)), ["imml", "lightning", "torch"]
    return kintsugi(rows, learner, job), ["kintsugi-ml", "torch"]


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    rows = Rows(folder / "rows.npz")
    learn, packages = prepare(job, rows)
    before = memory("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the imports
    began, worked = time.perf_counter(), time.process_time()
    answers = learn()
    facts = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - worked,
        "megabytes": max(0.0, memory("VmHWM") - before),
        "versions": versions(packages),
        "load": os.getloadavg()[0],
    }
    told: dict[str, Any] = {part: np.asarray(each, dtype=np.int64) for part, each in answers.items()}
    np.savez(folder / "answers.npz", **told)
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
