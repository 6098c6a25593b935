"""Results of others: read, marked, refused where anything is wrong; and written for others."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kintsugi.bench import Store, StoreError, Trial, outside
from kintsugi.bench.outside import add_outside, give_out
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.evaluation.protocols import CLEAN, Condition, Protocol

PAGE = Path(__file__).parents[1] / "docs" / "outside.rst"
PROTOCOL = Protocol(
    "three",
    (
        CLEAN,
        Condition("image", "subset", keep=("image",)),
        Condition("mcar(0.3)", "rate/mcar", missing="mcar(0.3)", x=0.3),
    ),
)
OWN = Trial("mean", {"width": 8, "rates": [0.1]}, "toy", "f00d", "mcar(0.5)", 3, PROTOCOL, {"method mean": 2})
MADE_WITH = {"torch": "2.6", "sources": "ab12"}


def example() -> dict[str, Any]:
    """The one of the documentation."""
    block = re.search(r"code-block:: json\n\n((?:   .*\n|\n)+)", PAGE.read_text())
    assert block is not None
    found: dict[str, Any] = json.loads(block[1])
    return found


def written(folder: Path, values: Any) -> Path:
    file = folder / "RESULT.json"
    file.write_text(values if isinstance(values, str) else json.dumps(values))
    return file


def own_store(folder: Path) -> Store:
    """A store with a trial of one's own; the values are thirds, which no decimal number is."""
    store = Store.open(folder)
    lines = [
        {
            "dataset": OWN.dataset, "method": OWN.method, "seed": OWN.seed, "training": OWN.training, "condition": c.name,
            "group": c.group, "x": c.x, "metric": metric, "value": place / 3 if metric == "accuracy" or place else None,
            "low": -1 / 3, "high": 4 / 3, "n": 4, "higher_is_better": metric == "accuracy", "seconds": 0.5,
            "mask_hash": "ab" if place else "",
        }
        for place, c in enumerate(PROTOCOL.conditions)
        for metric in ("accuracy", "log_loss")
    ]  # fmt: skip
    numbers = dict.fromkeys(("x", "value", "low", "high"), "float64")
    store.finish(OWN, pd.DataFrame(lines).astype(numbers), None, {"training": {"seconds": 1.0}, "made_with": MADE_WITH})
    return store


# reading ------------------------------------------------------------------------------------------------------------
def test_the_example_of_the_documentation_is_read_and_marked(tmp_path: Path) -> None:
    store = own_store(tmp_path / "runs")
    trial = add_outside(store, written(tmp_path, example()))
    assert trial.versions == {"method their_fusion": 1, "origin": "Example Laboratory"}
    assert trial.dataset == "handwritten (as Example Laboratory has it)"
    table = pd.read_csv(store.export(tmp_path / "table.csv"), keep_default_na=False)
    theirs = table[table["origin"] == "Example Laboratory"]
    assert len(theirs) == 5
    assert (table.loc[table["dataset"] == "toy", "origin"] == "").all()
    line = theirs[(theirs["condition"] == "mcar(0.3)") & (theirs["metric"] == "accuracy")].iloc[0]
    assert (line["value"], line["n"], line["group"], line["x"], line["low"]) == ("0.913", 600, "rate/mcar", "0.3", "")
    (record,) = (r for r in store.records("done") if r.trial == trial)
    assert record.facts == {"origin": example()["origin"], "made_with": {"torch": "2.6.0"}}
    assert store.check() == []
    assert add_outside(store, tmp_path / "RESULT.json") == trial  # once more changes nothing
    assert store.counts() == {"done": 2}


def test_a_file_of_the_first_format_is_read(tmp_path: Path) -> None:
    values = example() | {"format": 1, "versions": {"torch": "2.6.0"}}
    del values["made_with"]
    trial = add_outside(Store.open(tmp_path / "runs"), written(tmp_path, values))
    assert trial.versions == {"torch": "2.6.0", "origin": "Example Laboratory"}


def test_conditions_alone_are_a_protocol(tmp_path: Path) -> None:
    given = example()
    given["protocol"] = given["protocol"]["conditions"]
    trial = add_outside(Store.open(tmp_path / "runs"), written(tmp_path, given))
    assert trial.protocol.name == "conditions"
    assert trial.protocol.conditions[1] == Condition("pix + fou", "subset", keep=("pix", "fou"))


def test_data_of_unknown_fingerprint_is_a_data_set_of_its_own(tmp_path: Path) -> None:
    store = own_store(tmp_path / "runs")
    for by in ("one", "two"):
        given = example() | {"dataset": "toy", "origin": {"by": by, "date": "2026-01-31"}}
        assert add_outside(store, written(tmp_path, given)).dataset == f"toy (as {by} has it)"
    assert sorted(set(store.table()["dataset"])) == ["toy", "toy (as one has it)", "toy (as two has it)"]


def test_data_of_another_fingerprint_is_refused(tmp_path: Path) -> None:
    store = own_store(tmp_path / "runs")
    file = written(tmp_path, example() | {"dataset": "toy", "fingerprint": "beef"})
    with pytest.raises(
        StoreError, match="data set 'toy' is another one than that of this store: fingerprint f00d → beef"
    ):
        add_outside(store, file)
    assert add_outside(store, written(tmp_path, example() | {"dataset": "toy", "fingerprint": "f00d"})).dataset == "toy"


def test_another_result_of_the_same_trial_is_refused(tmp_path: Path) -> None:
    store, given = Store.open(tmp_path / "runs"), example()
    trial = add_outside(store, written(tmp_path, given))
    given["results"][0]["value"] = 0.982
    with pytest.raises(StoreError, match="this run differs from it"):
        add_outside(store, written(tmp_path, given))
    table = store.table()
    assert 0.982 not in table["value"].tolist()
    given["origin"]["by"] = "Another Laboratory"  # that is another trial
    assert add_outside(store, written(tmp_path, given)).hash != trial.hash


# refusals -----------------------------------------------------------------------------------------------------------
def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        *above, last = (int(part) if part.isdecimal() else part for part in path.split("/"))
        at: Any = given
        for part in above:
            at = at[part]
        if value is ...:
            del at[last]
        else:
            at[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("results/3/value", float("nan"), "results[3].value: nan: input should be a finite number; where a metric is not"),
        ("results/3/high", float("inf"), "results[3].high: inf: input should be a finite number"),
        ("results/3/value", "0.9", "results[3].value: '0.9': input should be a valid number"),
        ("results/3/value", True, "results[3].value: True: input should be a valid number"),
        ("results/3/metrik", "accuracy", "results[3].metrik: unknown field; did you mean 'metric'?"),
        ("results/3/metric", ..., "results[3].metric: is lacking"),
        ("results/3/metric", "", "results[3].metric: '': string should have at least 1 character"),
        ("results/3/n", -1, "results[3].n: -1: input should be greater than or equal to 0"),
        ("results/3/n", 1.5, "results[3].n: 1.5: input should be a valid integer"),
        ("results/3/condition", "pix", "results[3].condition: the protocol has no condition 'pix'; did you mean 'pix + fou'"),
        ("results/3/metric", "accuracy", "results[3]: a second value of 'accuracy' in condition 'clean'"),
        ("results/0/low", 0.999, "results[0]: low 0.999 is above high 0.991"),
        ("results/0/low", ..., "results[0]: low and high belong together"),
        ("results/4/higher_is_better", True, "results[4].higher_is_better: 'log_loss' has the other direction above"),
        ("results", [], "results: a list: list should have at least 1 item"),
        ("orgin", {}, "orgin: unknown field; did you mean 'origin'?"),
        ("origin/who", "me", "origin.who: unknown field"),
        ("origin/by", ..., "origin.by: is lacking"),
        ("origin/date", "31.1.2026", "origin.date: '31.1.2026': should be a day such as 2026-01-31"),
        ("origin/date", "20260131", "origin.date: '20260131': should be a day such as 2026-01-31"),
        ("seed", 0.5, "seed: 0.5: input should be a valid integer"),
        ("seed", 2**70, "seed: 1180591620717411303424 is a number beyond 64 bits"),
        ("parameters/width", float("nan"), "parameters.width is nan"),
        ("versions/origin", "me", "versions.origin: say it under origin.by"),
        ("format", 3, "format is 3; this version of kintsugi reads 1 and 2"),
        ("versions/method x", True, "versions.method x"),
        ("format", ..., "format: is lacking"),
        ("protocol/conditions/1/keeps", [], "protocol.conditions[1].keeps: unknown field; did you mean 'keep'?"),
        ("protocol/conditions/1/keep", "pix", "protocol.conditions[1].keep: 'pix': input should be a valid list"),
        ("protocol/nam", "x", "protocol.nam: unknown field; did you mean 'name'?"),
        ("protocol/conditions/1/name", "clean", "protocol.conditions[1].name: a second condition 'clean'"),
        ("protocol", [{"name": "clean"}], "protocol[0].group: is lacking"),
        ("protocol", "standard", "protocol: 'standard': "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_place(path: str, value: Any, said: str, tmp_path: Path) -> None:
    store, given = Store.open(tmp_path / "runs"), example()
    changed(path, value)(given)
    with pytest.raises(DataError, match=re.escape(f"RESULT.json: {said}")):
        add_outside(store, written(tmp_path, given))
    assert store.counts() == {}


def test_a_condition_without_a_result_is_named(tmp_path: Path) -> None:
    given = example()
    given["protocol"]["conditions"].append({"name": "fac", "group": "subset", "keep": ["fac"]})
    with pytest.raises(DataError, match=re.escape("protocol.conditions[3].name: no result has the condition 'fac'")):
        add_outside(Store.open(tmp_path / "runs"), written(tmp_path, given))


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    given = example()
    changed("results/0/value", float("nan"))(given)
    changed("origin/by", ...)(given)
    changed("protocol/conditions/0/grup", "clean")(given)
    with pytest.raises(DataError) as caught:
        add_outside(Store.open(tmp_path / "runs"), written(tmp_path, given))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all("RESULT.json: " in line for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 1,\n "origin" 2}', "line 2: not JSON"),
        ("[1]", "expected an object with the fields format, origin, dataset"),
        ('{"format": 1, "format": 1}', "the field 'format' stands twice in one object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"parameters": {"a": ' + "[" * 300 + "]" * 300 + "}}", "nested too deeply"),
        ('{"seed": ' + "3" * 4301 + "}", "RESULT.json: not JSON as it is read here"),
        ('{"method": "\\udc80"}', r"RESULT.json: method: '\\udc80' has half of a surrogate pair"),
        ('{"parameters": {"\\ud83d": 1}}', "RESULT.json: parameters: .* has half of a surrogate pair"),
        (
            '{"results": [{"n": 9223372036854775808}]}',
            r"results\[0\]\.n: 9223372036854775808 is a number beyond 64 bits",
        ),
    ],
)
def test_what_is_no_such_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        add_outside(Store.open(tmp_path / "runs"), written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "runs")
    with pytest.raises(DataError, match=r"none\.json does not exist"):
        add_outside(store, tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"bytes\.json cannot be read"):
        add_outside(store, tmp_path / "bytes.json")


def test_a_result_is_a_regular_file_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, file = Store.open(tmp_path / "runs"), written(tmp_path, example())
    monkeypatch.setattr(outside, "MOST_BYTES", file.stat().st_size - 1)
    with pytest.raises(DataError, match=r"RESULT\.json has .* bytes; as a result at most"):
        add_outside(store, file)
    monkeypatch.setattr(outside, "MOST_BYTES", file.stat().st_size)
    add_outside(store, file)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="Is a FIFO"):
        add_outside(store, tmp_path / "fifo")


# writing ------------------------------------------------------------------------------------------------------------
def test_two_laboratories_exchange_a_result(tmp_path: Path) -> None:
    ours, theirs = own_store(tmp_path / "ours"), Store.open(tmp_path / "theirs")
    file = give_out(ours, OWN.hash[:8], tmp_path / "out.json", by="Us")
    assert file == tmp_path / "out.json"
    trial = add_outside(theirs, file)
    assert trial == replace(OWN, versions={**OWN.versions, "origin": "Us"})
    sent, come = ours.table(timing=False), theirs.table(timing=False)
    marked = ["trial", "origin"]
    pd.testing.assert_frame_equal(sent.drop(columns=marked), come.drop(columns=marked), check_exact=True)
    assert set(come["origin"]) == {"Us"}
    (record,) = theirs.records("done")
    assert record.facts["made_with"] == MADE_WITH
    # back home it stands beside one's own, and changes nothing there
    assert add_outside(ours, file) == trial
    assert ours.counts() == {"done": 2}


def test_what_cannot_be_given_out_is_said(tmp_path: Path) -> None:
    store, file = own_store(tmp_path / "runs"), tmp_path / "out.json"
    pending = replace(OWN, seed=4)
    store.add([pending])
    for hash in (pending.hash, "0" * 12, OWN.hash[:7]):
        with pytest.raises(UnknownName, match="unknown trial with a result"):
            give_out(store, hash, file, by="Us")
    with pytest.raises(ConfigError, match="needs the name of who ran it"):
        give_out(store, OWN.hash, file, by=" ")
    theirs = add_outside(store, written(tmp_path, example()))
    with pytest.raises(ConfigError, match="was run by 'Example Laboratory'; hand on the file"):
        give_out(store, theirs.hash, file, by="Us")
    assert not file.exists()
