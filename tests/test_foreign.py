"""Foreign models: holes are filled, answers are checked, and they stand in the same tables as everything else."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import textwrap
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from torch import Tensor, nn

import kintsugi as kg
from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality, Schema, Task
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.foreign import asking
from kintsugi.foreign.answers import places
from kintsugi.io.saved_models import save
from kintsugi.tasks import Classification, Multilabel, Regression

THREE = Classification(["no", "yes", "maybe"])
PIC, NOTE = Modality("pic", "image", (1, 2, 2)), Modality("note", "text", (3,), vocab=257)
CELLS = Modality("c", "tabular", (2,), categories=(0, 4))


def toy(task: Task = THREE, n: int = 12, target: Tensor | None = None, hole: float = 0.4) -> Dataset:
    """Rows of a picture, three ids and two cells; holes in slots and steps, a NaN or a 7 in each of them."""
    g = torch.Generator().manual_seed(3)
    present = torch.rand(n, 3, generator=g) >= hole
    present[0], present[1] = False, True  # one row with nothing, one with everything
    steps = torch.rand(n, 3, generator=g) < 0.7
    steps[:, 0] = True
    steps &= present[:, 1:2]
    pic = torch.rand(n, 1, 2, 2, generator=g)
    cells = torch.stack([torch.randn(n, generator=g), torch.randint(1, 4, (n,), generator=g).float()], 1)
    pic[~present[:, 0]], cells[~present[:, 2]] = math.nan, math.nan
    note = torch.randint(1, 257, (n, 3), generator=g).masked_fill(~steps, 7)
    if target is None:
        target = torch.arange(n) % 3
    inputs = {"pic": pic, "note": note, "c": cells}
    batch = Batch(("pic", "note", "c"), inputs, present, torch.arange(n), target, mask={"note": steps})
    return Dataset(TensorSource(Schema((PIC, NOTE, CELLS), task), batch, "toy"))


def rows(data: Dataset) -> Batch:
    return data.batch(torch.arange(len(data)))


def linear(batch_or_dict: Any) -> Tensor:
    """Three logits that depend on every value."""
    x = torch.cat([v.flatten(1).float() for v in batch_or_dict.values()], 1)
    return torch.stack([x.sum(1), (x * torch.arange(x.shape[1])).sum(1), x.pow(2).sum(1)], 1)


# holes --------------------------------------------------------------------------------------------------------------
def test_absent_slots_and_unseen_steps_are_zero_and_a_row_with_nothing_is_not_shown() -> None:
    data, shown = toy(), []

    def spy(given: dict[str, Tensor]) -> Tensor:
        shown.append(given)
        return linear(given)

    batch = rows(data)
    out = kg.wrap(spy, data.schema, reference=data)(batch)
    (seen,) = shown
    some = batch.present.any(1)
    assert some.tolist().count(False) >= 1
    for i, name in enumerate(batch.names):
        here = batch.present[some, i].view(-1, *[1] * (seen[name].ndim - 1))
        if name == "note":
            here = batch.mask["note"][some]
        assert torch.equal(seen[name], torch.where(here, batch.inputs[name][some], 0))
    assert torch.equal(out.output[some], linear(seen))  # as the model says when it is called by hand
    # twelve rows, four of each class, one more added to each: 5 / 15
    assert torch.allclose(out.output[~some], torch.full((1, 3), math.log(1 / 3)).expand(int((~some).sum()), 3))
    assert torch.equal(out.used, batch.present)


@pytest.mark.parametrize("absent", ["zero", "mean", lambda name, shape, rows: torch.ones(len(rows), *shape)])
@pytest.mark.parametrize("prepare", [None, {"note": lambda ids: ids.float() ** 2, "pic": lambda x: x.flatten(1) + 1}])
def test_poison_in_holes_changes_nothing(absent: Any, prepare: Any) -> None:
    data = toy()
    model = kg.wrap(linear, data.schema, absent=absent, reference=data, prepare=prepare)
    batch = rows(data)
    poisoned = {name: x.clone() for name, x in batch.inputs.items()}
    for i, name in enumerate(batch.names):
        poisoned[name][~batch.present[:, i]] = 99
    poisoned["note"][~batch.mask["note"]] = 250
    again = model(replace(batch, inputs=poisoned)).output
    assert torch.equal(again, model(batch).output)
    poisoned["pic"] = poisoned["pic"] + 1  # what is seen counts
    assert not torch.equal(model(replace(batch, inputs=poisoned)).output, again)


def test_means_are_those_of_seen_values_and_codes_have_none() -> None:
    data = toy()
    batch = rows(data)
    model = kg.wrap(linear, data.schema, absent="mean", reference=data).model
    filled = model.filled(batch.rows(batch.present.any(1)).where(torch.tensor([False, False, False])))
    pics = np.nanmean(batch.inputs["pic"].numpy(), 0)
    numbers = np.nanmean(batch.inputs["c"].numpy(), 0)
    assert np.allclose(filled.inputs["pic"][2].numpy(), pics, atol=1e-6)
    assert filled.inputs["note"].eq(0).all()
    assert np.allclose(filled.inputs["c"][0].numpy(), [numbers[0], 0], atol=1e-6)


@pytest.mark.parametrize(("kind", "stand_in"), [(torch.int64, 0.0), (torch.float32, 5.0)])
def test_whole_numbers_that_prepare_gives_have_no_mean(kind: torch.dtype, stand_in: float) -> None:
    data = toy()
    prepare = {"pic": lambda x: torch.full((len(x), 2), 5, dtype=kind)}
    model = kg.wrap(linear, data.schema, absent="mean", reference=data, prepare=prepare).model
    batch = rows(data)
    assert model.filled(batch).inputs["pic"][~batch.present[:, 0]].unique().tolist() == [stand_in]


def test_unseen_steps_get_the_mean_of_their_step() -> None:
    schema = Schema((Modality("s", "series", (2, 1)), Modality("v", "vector", (1,))), THREE)
    x = torch.tensor([[1.0, 10.0], [3.0, math.nan], [5.0, 30.0]])[..., None]
    seen = torch.tensor([[True, True], [True, False], [True, True]])
    batch = Batch(
        ("s", "v"), {"s": x, "v": torch.ones(3, 1)}, torch.ones(3, 2).bool(), torch.arange(3), torch.arange(3),
        mask={"s": seen},
    )  # fmt: skip
    data = Dataset(TensorSource(schema, batch, "steps"))
    got = kg.wrap(linear, schema, absent="mean", reference=data).model.filled(batch).inputs["s"][..., 0]
    assert got.tolist() == [[1, 10], [3, 20], [5, 30]]


def test_stand_ins_of_a_function_go_by_row() -> None:
    data = toy()

    def by_row(name: str, shape: tuple[int, ...], ids: Tensor) -> Tensor:
        return (ids.float() + 0.5).view(-1, *[1] * len(shape)).expand(-1, *shape)

    batch = rows(data)
    filled = kg.wrap(linear, data.schema, absent=by_row, reference=data).model.filled(batch)
    gone = ~batch.present[:, 0]
    assert filled.inputs["pic"][gone].flatten(1)[:, 0].tolist() == [float(i) + 0.5 for i in gone.nonzero().flatten()]
    wrong = kg.wrap(linear, data.schema, absent=lambda name, shape, ids: torch.zeros(1), reference=data)
    with pytest.raises(ConfigError, match=r"absent= gave \[1\] for 'pic'"):
        wrong(batch)


def test_without_labels_a_row_with_nothing_gets_the_even_answer_and_says_so() -> None:
    data = toy()
    model = kg.wrap(linear, data.schema)
    with pytest.warns(UserWarning, match="hold nothing get the even answer.*reference=train"):
        out = model(rows(data)).output
    assert out[0].tolist() == [0, 0, 0]


def test_prepare_makes_the_rows_that_are_seen_into_what_the_model_reads() -> None:
    data, asked = toy(), []

    def length(ids: Tensor) -> np.ndarray:
        asked.append(len(ids))
        return (ids > 0).sum(1, keepdim=True).float().numpy()

    model = kg.wrap(linear, data.schema, prepare={"note": length}, reference=data).model
    batch = rows(data)
    filled = model.filled(batch)
    assert asked == [int(batch.present[:, 1].sum())]
    assert torch.equal(filled.inputs["note"][:, 0], batch.mask["note"].sum(1).float())
    with pytest.raises(ConfigError, match=r"prepare\['note'\] made \[1\] of"):
        kg.wrap(linear, data.schema, prepare={"note": lambda ids: ids.new_zeros(1)})(batch)
    with pytest.raises(UnknownName, match="nota"):
        kg.wrap(linear, data.schema, prepare={"nota": length})


# how a model is called ----------------------------------------------------------------------------------------------
class Positional(nn.Module):
    def forward(self, pic: Tensor, note: Tensor, c: Tensor) -> Tensor:
        return linear({"pic": pic, "note": note, "c": c})


class Transformer(nn.Module):
    """Keywords in, an output with logits out, its labels in a config."""

    config = SimpleNamespace(id2label={0: "maybe", 1: "no", 2: "yes"})

    def forward(self, *, note: Tensor, pic: Tensor, c: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=linear({"pic": pic, "note": note, "c": c}))


def masked(batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    return dict(batch.inputs), batch.mask["note"]


def keyed(batch: Batch) -> dict[str, Any]:
    return {"given": dict(batch.inputs)}


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (linear, "dict"),
        (Positional(), "positional"),
        (Positional(), "keywords"),
        (lambda given, mask: linear(given) + 0 * mask.sum(), masked),
        (lambda given: linear(given), keyed),
        (lambda given: linear(given).numpy(), lambda batch: (dict(batch.inputs),)),
        (lambda x: torch.from_numpy(x) @ torch.eye(9)[:, :3], "matrix"),
    ],
)
def test_every_way_of_calling_gives_what_the_model_says_by_hand(model: Any, inputs: Any) -> None:
    data = toy(hole=-1)  # only row 0 has holes
    batch = rows(data).rows(torch.arange(1, 12))
    got = kg.wrap(model, data.schema, inputs=inputs, reference=data)(batch).output
    clean = {name: x.masked_fill(~batch.mask[name], 0) if name in batch.mask else x for name, x in batch.inputs.items()}
    flat = torch.cat([x.flatten(1) for x in clean.values()], 1)
    assert torch.equal(got, flat[:, :3] if inputs == "matrix" else linear(clean))


def test_labels_of_a_config_bring_the_columns_into_order() -> None:
    data = toy(hole=-1)
    model = kg.wrap(Transformer(), data.schema, reference=data)
    assert model.model.inputs == "keywords"
    batch = rows(data).rows(torch.arange(1, 12))
    plain = kg.wrap(Positional(), data.schema, inputs="positional", reference=data)(batch).output
    assert torch.equal(model(batch).output, plain[:, [1, 2, 0]])  # no, yes, maybe


@pytest.mark.parametrize(
    ("labels", "names", "found"),
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        ([np.int64(1)], ["a", "b"], [1]),
        ([0, 1], ["0", "1"], [0, 1]),
        (["2", "1"], ["1", "2"], [1, 0]),
    ],
)
def test_labels_are_names_or_ids(labels: list[Any], names: list[str], found: list[int]) -> None:
    assert places(labels, names, "it") == found


@pytest.mark.parametrize(
    ("labels", "match"), [(["a", "x"], "'x', which the task lacks"), (["a", "a"], "twice"), ([1, 0], "ids or names")]
)
def test_labels_that_mean_nothing_or_two_things_are_errors(labels: list[Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        places(labels, ["a", "b"] if match != "ids or names" else ["1", "0"], "it")


# estimators ---------------------------------------------------------------------------------------------------------
def test_a_classifier_of_fewer_classes_is_aligned() -> None:
    data = toy(hole=-1)
    batch = rows(data).rows(torch.arange(1, 12))
    wrapped = kg.wrap(LogisticRegression(), data.schema, reference=data)
    x = wrapped.matrix(data)[1:]
    assert batch.target is not None
    kept = (batch.target != 1).numpy()
    fitted = wrapped.model.foreign.fit(x[kept], np.array(["no", "?", "maybe"])[batch.target.numpy()[kept]])
    got = wrapped(batch).output.softmax(1).numpy()
    by_hand = fitted.predict_proba(x)  # in the order maybe, no
    assert np.allclose(got, np.stack([by_hand[:, 1], np.zeros(11), by_hand[:, 0]], 1), atol=1e-6)


def test_one_that_only_predicts_says_one_and_zero() -> None:
    data = toy(hole=-1)
    wrapped = kg.wrap(RidgeClassifier(), data.schema, reference=data)
    batch = rows(data).rows(torch.arange(1, 12))
    assert batch.target is not None
    fitted = wrapped.model.foreign.fit(wrapped.matrix(data)[1:], batch.target.numpy())
    got = wrapped(batch).output.softmax(1)
    assert np.allclose(got.numpy(), np.eye(3)[fitted.predict(wrapped.matrix(data)[1:])], atol=1e-6)


def test_several_labels_of_a_forest_one_of_which_it_never_saw() -> None:
    target = torch.stack([torch.arange(12) % 2, torch.zeros(12, dtype=torch.long), torch.ones(12, dtype=torch.long)], 1)
    data = toy(Multilabel(["a", "b", "c"]), target=target.float(), hole=-1)
    wrapped = kg.wrap(RandomForestClassifier(5, random_state=0), data.schema, reference=data)
    x = wrapped.matrix(data)
    forest = wrapped.model.foreign.fit(x, target.numpy())
    got = wrapped(rows(data)).output.sigmoid()[1:]
    assert np.allclose(got[:, 0].numpy(), forest.predict_proba(x)[0][1:, 1], atol=1e-6)
    assert np.allclose(got[:, 1:].numpy(), [[0, 1]] * 11, atol=1e-6)
    # a: 6 of 12, b: none, c: all; one row with and one without are added
    assert torch.allclose(wrapped(rows(data)).output[0].sigmoid(), torch.tensor([7 / 14, 1 / 14, 13 / 14]))


@pytest.mark.parametrize("targets", [1, 2])
def test_values_come_back_in_the_users_units(targets: int) -> None:
    target = torch.stack([torch.arange(12) * 3.0 + 100, -torch.arange(12.0)], 1)[:, :targets].squeeze(1)
    data = toy(Regression.fitted(target, ("p", "q")[:targets]), target=target, hole=-1)
    wrapped = kg.wrap(LinearRegression(), data.schema, reference=data)
    x = wrapped.matrix(data)
    fitted = wrapped.model.foreign.fit(x, target.numpy())
    task = data.schema.task
    got = task.probabilities(wrapped(rows(data)).output)
    assert np.allclose(got[1:].numpy(), fitted.predict(x)[1:], rtol=1e-4, atol=1e-3)
    assert np.allclose(got[0].numpy(), target.mean(0).numpy(), atol=1e-3)  # nothing present: the mean of training


# what is refused ----------------------------------------------------------------------------------------------------
def refused(model: Any, match: str, **options: Any) -> None:
    data = toy()
    with pytest.raises((ConfigError, DataError), match=match):
        kg.wrap(model, data.schema, **{"reference": data, **options})(rows(data))


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda given: linear(given)[:, :2], r"function gave \[\d+, 2\] for \d+ rows and 3 outputs"),
        (lambda given: linear(given)[1:], "has to be"),
        (lambda given: linear(given) * math.nan, "NaN or infinity in row 0"),
        (lambda given: "yes", r"gave a str; give a tensor.*\.logits"),
        (lambda given: given["speech"], "function failed.*KeyError: 'speech'.*inputs="),
    ],
)
def test_a_bad_answer_names_the_model_and_the_remedy(answer: Callable[..., Any], match: str) -> None:
    refused(answer, match)


def test_arguments_that_do_not_fit_are_refused() -> None:
    refused(linear, "no probabilities.*output='logits'", output="probabilities")
    refused(linear, "output='values' does not go with classification", output="values")
    refused(linear, "output='odds' is unknown", output="odds")
    refused(linear, "absent='median' is unknown", absent="median")
    refused(linear, "absent='mean' needs reference=", absent="mean", reference=None)
    refused(linear, "inputs='list' is unknown", inputs="list")
    refused(LogisticRegression(), "inputs='matrix' or a function, not 'dict'", inputs="dict")
    refused(LogisticRegression(), "asked for probabilities", output="logits")
    refused(3, "a int can neither be called")
    refused(LogisticRegression().fit(np.eye(3), [0, 1, 2]), "fitted on 3 features, and the modalities give 9")
    refused(kg.wrap(linear, toy().schema), "give it to kg.evaluate as it is")


def test_modalities_that_a_signature_has_not_are_refused_before_anything_runs() -> None:
    class Two(nn.Module):
        def forward(self, pic: Tensor, text: Tensor) -> Tensor:
            return pic

    refused(Two(), r"Two\(pic: .*does not take the modalities pic, note, c by inputs='positional'", inputs="positional")
    refused(Two(), "unexpected keyword argument|missing a required argument", inputs="keywords")
    refused(Two(), "inputs='dict'")


def test_data_of_another_label_order_or_with_a_modality_less_is_refused() -> None:
    data, other = toy(), toy(Classification(["yes", "no", "maybe"]))
    with pytest.raises(DataError, match=r"has the classes yes, no, maybe, the model .*differ in name or order"):
        kg.wrap(linear, data.schema, reference=other)
    with pytest.raises(DataError, match="differ in name or order"):
        kg.evaluate(kg.wrap(linear, data.schema, reference=data), other, "clean")
    more = Schema((*data.schema.modalities, Modality("smell", "vector", (2,))), THREE)
    with pytest.raises(DataError, match="lacks modality 'smell'"):
        kg.wrap(linear, more, reference=data)
    with pytest.raises(DataError, match="reads modality 'smell'; these rows have pic, note, c"):
        kg.wrap(linear, more)(rows(data))
    with pytest.raises(DataError, match="has modality 'pic'"):
        kg.wrap(linear, data.schema, absent="mean", reference=data.subset([0]))


def test_it_is_neither_saved_nor_trained(tmp_path: Path) -> None:
    data = toy()
    model = kg.wrap(Positional(), data.schema, inputs="positional", reference=data)
    with pytest.raises(ConfigError, match="Positional is a wrapped model and cannot be saved"):
        save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ConfigError, match="train it with its own code"):
        model.training_step(rows(data))


# tables -------------------------------------------------------------------------------------------------------------
class Net(nn.Module):
    """An image and a sentence, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.read = nn.Linear(784, 10), nn.EmbeddingBag(257, 10)

    def forward(self, given: dict[str, Tensor]) -> Tensor:
        out: Tensor = self.look(given["image"].flatten(1)) + self.read(given["clue"])
        return out


def test_both_stand_in_one_table_under_the_standard_protocol(tmp_path: Path) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, _, test = kg.datasets.load("avdigits").split()
    train, test = train.subset(range(300)), test.subset(range(60))
    both = Schema((train.schema["image"], train.schema["clue"]), train.schema.task)
    linear_model = kg.wrap(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01)), both, absent="mean", reference=train
    )
    assert train.target is not None
    linear_model.model.foreign.fit(linear_model.matrix(train), train.target.numpy())
    net = Net().train()
    wrapped = kg.wrap(net, both, reference=train)
    results = kg.evaluate([linear_model, wrapped], test, "standard", resamples=20)
    assert set(results.table["method"]) == {"LogisticRegression", "Net"}
    counts = results.table.groupby("method")["condition"].nunique()
    assert counts.nunique() == 1
    assert counts.iloc[0] > 40
    assert net.training  # left as it was
    batch = rows(test)
    assert batch.target is not None
    hit = (
        net({"image": torch.zeros_like(batch.inputs["image"]), "clue": batch.inputs["clue"]}).argmax(1) == batch.target
    )
    table = results.table.set_index(["method", "condition", "metric"])["value"]
    assert table["Net", "speech + clue", "accuracy"] == pytest.approx(hit.float().mean().item())
    pixels = batch.inputs["image"].flatten(1)
    padded = torch.cat([pixels, batch.inputs["clue"].float()], 1).numpy()
    right = linear_model.model.foreign.predict(padded) == batch.target.numpy()
    assert table["LogisticRegression", "clean", "accuracy"] == pytest.approx(right.mean())
    page = results.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "LogisticRegression" in page
    assert "Net" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("foreign_sklearn", ["logistic (mean)", "logistic (zero)", "mean_fusion"]),
        ("foreign_torch", ["late", "mean_fusion"]),
        ("foreign_callable", ["mean_fusion", "remote"]),
    ],
)
def test_the_examples_print_a_table_and_write_a_report(name: str, methods: list[str], tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "examples" / f"{name}.py"
    small = ["--rows", "300", "--test-rows", "60", "--epochs", "2"]
    done = subprocess.run(
        [sys.executable, str(script), "-o", "report.html", *small],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, *lines, last = done.stdout.strip().splitlines()
    assert first.split() == ["method", "clean", "mean", "worst", "worst_in"]
    found = {}
    for line in lines:
        method, clean, mean, worst = re.match(r" *(.+?) +([.\d]+) +([.\d]+) +([.\d]+) ", line).groups()  # type: ignore
        found[method] = tuple(map(float, (clean, mean, worst)))
    assert sorted(found) == methods
    for method, (clean, mean, worst) in found.items():
        assert clean > mean > worst, method
        if method != "mean_fusion":  # which has learned for two epochs only
            assert 0.6 < clean < 1, method
    assert last == "report: report.html"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for method in methods:
        assert page.count(method) > 5, method  # in the table, beside the subsets, in the charts
    assert "unstated" not in page
    assert f"{name}.py -o report.html --rows 300" in page


class Said(OrderedDict[str, Tensor]):
    """The output of a transformers model is a dict and has its keys as attributes."""

    @property
    def logits(self) -> Tensor:
        return self["logits"]


class Network(nn.Module):
    """Arguments and answer as those of a transformers model that reads text and pictures."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.config = SimpleNamespace(id2label=dict(enumerate(names)))
        self.words, self.pixels = nn.Embedding(900, 8), nn.Linear(784, 8)
        self.head = nn.Linear(8, len(names))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None, return_dict: bool | None = None,
    ) -> Said:  # fmt: skip
        assert input_ids is not None
        assert attention_mask is not None
        assert pixel_values is not None
        self.seen.append((input_ids, attention_mask))
        scores = self.words(input_ids).sum(-1).masked_fill(attention_mask == 0, -math.inf)
        read = (scores.softmax(1)[..., None] * self.words(input_ids)).sum(1)
        return Said(loss=torch.zeros(()), logits=self.head(read + self.pixels(pixel_values.flatten(1))))


class Tokenizer:
    """A token for each word, by its length and first letter; 1 is padding, as with RoBERTa."""

    pad_token_id = 1

    def __call__(
        self, lines: list[str], padding: str, truncation: bool, max_length: int, return_tensors: str
    ) -> dict[str, Tensor]:
        assert (padding, truncation, return_tensors) == ("max_length", True, "pt")
        rows = [[2 + (31 * len(w) + ord(w[0])) % 898 for w in line.split()][:max_length] for line in lines]
        return {"input_ids": torch.tensor([row + [1] * (max_length - len(row)) for row in rows])}


def test_a_transformers_model_is_wrapped_as_the_documentation_says() -> None:
    page = (Path(__file__).parents[1] / "docs" / "foreign.rst").read_text(encoding="utf-8")
    block = page.split("A model of transformers\n")[1].split(".. code-block:: python\n")[1].split("\n.. ")[0]
    train, _, test = kg.datasets.load("avdigits").split()
    train, test = train.subset(range(60)), test.subset(range(40))
    names = list(reversed(train.schema.task.names))  # type: ignore[attr-defined]
    torch.manual_seed(0)
    network = Network(names)
    scope: dict[str, Any] = {
        "kg": kg, "torch": torch, "tokenizer": Tokenizer(), "network": network, "train": train, "test": test,
    }  # fmt: skip
    exec(textwrap.dedent(block), scope)
    assert scope["results"].table["condition"].nunique() == 7
    network.seen.clear()
    batch = rows(test)
    out = scope["model"](batch).output
    ((ids, visible),) = network.seen
    text = bytes(i - 1 for i in batch.inputs["clue"][0].tolist() if i).decode()
    assert len(text.split()) == int(visible[0].sum()) > 1
    by_hand = network(input_ids=ids, attention_mask=visible, pixel_values=batch.inputs["image"]).logits
    assert torch.equal(out, by_hand.flip(1))  # brought into the order of the schema
    deaf = scope["model"](batch.where(torch.tensor([n != "clue" for n in batch.names]))).output
    assert torch.isfinite(deaf).all()
    ids, visible = network.seen[-1]
    assert ids.unique().tolist() == [1]
    assert visible.sum(1).unique().tolist() == [1]


def test_names_are_those_that_a_reader_knows() -> None:
    from sklearn.pipeline import make_pipeline

    assert asking.name_of(make_pipeline(LogisticRegression())) == "LogisticRegression"
    assert asking.name_of(linear) == "linear"
    assert asking.name_of(Positional()) == "Positional"
