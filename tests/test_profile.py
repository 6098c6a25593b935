"""What is not there, or not as in training, is said: absent modalities, numbers out of range, known rows, few rows, odd keys."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import kintsugi as kg
from kintsugi.cli import app
from kintsugi.core.data import Splits
from kintsugi.core.errors import DataError
from kintsugi.core.methods import create
from kintsugi.data import profile as module
from kintsugi.data.profile import Overlap, Profile, Range, tell
from kintsugi.imperfect import parse_mechanism
from kintsugi.testing.fixture import toy
from kintsugi.training.checks import check

pytestmark = pytest.mark.filterwarnings("ignore:no validation rows were given")

READERS = {
    "vitals": kg.tabular(["age", "pulse", "ward"]),
    "note": kg.text("note", 12),
    "lab": kg.vector("lab", standardise=True),
    "trace": kg.series("trace", 4, 1),
}


def rows(count: int = 120, seed: int = 0) -> pd.DataFrame:
    """Rows of which no two are alike."""
    noise = np.random.default_rng(seed)
    y = np.arange(count) % 2
    return pd.DataFrame(
        {
            "age": noise.uniform(20, 80, count),
            "pulse": 60.0 + noise.integers(0, 40, count),
            "ward": pd.Series([("east", "west")[i] for i in y], dtype=object),
            "note": pd.Series([f"slept {noise.integers(10**6)}" for _ in y], dtype=object),
            "lab": pd.Series([noise.normal(5, 2, 3).tolist() for _ in y], dtype=object),
            "trace": pd.Series([noise.uniform(-1, 1, 4).tolist() for _ in y], dtype=object),
            "outcome": [("home", "ward")[i] for i in y],
        }
    )


def table(frame: pd.DataFrame, readers: dict[str, Any] | None = None) -> kg.Table:
    return kg.Table.from_pandas(frame, modalities=readers or READERS, target="outcome")


def alike(frame: Any, trained: kg.Table) -> kg.Table:
    assert trained.reading is not None
    return kg.Table.from_reading(frame, trained.reading)


def model(frame: pd.DataFrame | None = None, **options: Any) -> kg.Classifier:
    usual: dict[str, Any] = {"modalities": READERS, "target": "outcome", "dim": 8, "epochs": 1, "progress": False}
    chosen = kg.Classifier(**{**usual, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return chosen.fit(rows() if frame is None else frame)


def said(call: Callable[[], Any]) -> list[str]:
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


# absent modalities --------------------------------------------------------------------------------------------------
def without_notes(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[frame.index[:count], "note"] = None
    return frame


@pytest.mark.parametrize(
    ("before", "count", "gone", "is_said"),
    [
        (12, 40, 17, True),  # 10 % -> 42.5 %
        (12, 40, 15, False),  # -> 37.5 %: less than 0.3 more
        (48, 40, 34, True),  # 40 % -> 85 %: more than twice
        (48, 40, 30, False),  # -> 75 %: 0.35 more, but not twice
        (0, 20, 20, True),
        (0, 19, 19, False),  # too few rows to judge
        (120, 40, 40, False),  # as in training
    ],
)
def test_a_modality_absent_far_more_often_than_in_training_is_said(
    before: int, count: int, gone: int, is_said: bool
) -> None:
    trained = table(without_notes(rows(), before))
    found = Profile.of(trained).differences(alike(without_notes(rows(count, 1), gone), trained))
    assert bool(found) is is_said
    if is_said:
        assert f"modality 'note' is absent in {gone} of {count} rows ({gone / count:.0%})" in found[0]
        assert f"in training it was in {before / 120:.0%}" in found[0]


def test_a_modality_that_may_be_absent_in_use_is_not_missed() -> None:
    trained = table(rows())
    new = alike(without_notes(rows(40, 1), 40), trained)
    assert len(Profile.of(trained).differences(new)) == 1
    assert Profile.of(trained).differences(new, optional=("note",)) == []


def test_what_is_simulated_on_rows_does_not_count_as_absent_in_them_but_does_in_training() -> None:
    trained = table(rows())
    hidden = trained.with_missing(parse_mechanism("mcar(0.6)"), seed=0)
    assert Profile.of(trained).differences(hidden) == []
    shares = Profile.of(hidden).absent
    assert shares == pytest.approx([1 - float(share) for share in hidden.present.double().mean(0)])
    assert all(0.4 < share < 0.8 for share in shares)


# ranges -------------------------------------------------------------------------------------------------------------
def test_a_range_holds_extremes_and_percentiles_of_finite_numbers() -> None:
    values = np.append(np.arange(1001.0), [np.nan, np.inf])
    assert Range.of("age", values) == Range("age", 1001, 0.0, 1000.0, pytest.approx((1.0, 999.0)))
    assert Range.of("age", np.array([np.nan])) is None


@pytest.mark.parametrize(
    ("value", "is_said"),
    [(139.9, False), (140.5, True), (-39.9, False), (-40.5, True), (np.nan, False), (5200.0, True)],
)
def test_a_number_beyond_the_range_widened_by_its_width_is_said(value: float, is_said: bool) -> None:
    frame = rows()
    frame["age"] = np.linspace(20, 80, 120)
    trained, new = table(frame), rows(10, 1)
    new.loc[7, "age"] = value
    found = Profile.of(trained).differences(alike(new, trained))
    assert bool(found) is is_said
    if is_said:
        expected = (
            f"column 'age': 1 of 10 numbers, the worst is {value:.6g} in row 7 (counted from 0); training had 20 to 80"
        )
        assert expected in found[0]
        assert "-999" in found[0]


@pytest.mark.parametrize(("cells", "is_said"), [(20, True), (19, False)])
def test_few_training_cells_say_nothing_of_a_range(cells: int, is_said: bool) -> None:
    frame, new = rows(), rows(10, 1)
    frame.loc[cells:, "age"] = np.nan
    new.loc[0, "age"] = 1e5
    trained = table(frame)
    assert bool(Profile.of(trained).differences(alike(new, trained))) is is_said


def test_a_column_that_never_varied_is_left_by_another_number_alone() -> None:
    frame, new = rows(), rows(10, 1)
    frame["age"] = 0.1
    new["age"] = np.float32(0.1)
    trained = table(frame)
    assert Profile.of(trained).differences(alike(new, trained)) == []
    new.loc[3, "age"] = 0.2
    assert "in row 3" in Profile.of(trained).differences(alike(new, trained))[0]


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("lab", [5.0, 900.0, 5.0], "modality 'lab' (standardised): 1 of 30 numbers"),
        ("trace", [0.0, 7.0, 0.0, -9.0], "modality 'trace': 2 of 40 numbers, the worst is -9 in row 4"),
        ("trace", [0.0, 2.0, np.nan, -2.0], None),  # twice the width is still inside, and a gap is no number
        ("lab", None, None),
    ],
)
def test_vectors_and_series_have_one_range_as_a_whole(column: str, cell: Any, words: str | None) -> None:
    trained, new = table(rows()), rows(10, 1)
    new.at[4, column] = cell
    found = Profile.of(trained).differences(alike(new, trained))
    assert found == [] if words is None else words in found[0]


def test_many_columns_are_one_warning_that_names_five() -> None:
    names = [f"c{i}" for i in range(8)]
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 8)), columns=names).assign(outcome=["a", "b"] * 30)
    trained = table(frame, {"all": kg.tabular(names)})
    (text,) = Profile.of(trained).differences(alike(frame.assign(**dict.fromkeys(names, 1e6)), trained))
    assert "column 'c4'" in text
    assert "column 'c5'" not in text
    assert "; and 3 more" in text


def test_what_a_simulator_hid_is_not_in_the_range_of_training() -> None:
    frame = rows()
    trained = table(frame).with_missing(parse_mechanism("mcar(0.5)"), seed=0)
    shown = frame.loc[trained.present[:, 0].numpy(), "age"]
    (age, *_) = Profile.of(trained).ranges["vitals"]
    assert age is not None
    assert (age.count, age.low, age.high) == (len(shown), shown.min(), shown.max())


def test_tensors_have_ranges_in_the_units_of_their_table() -> None:
    trained = table(rows())
    profile, new = Profile.of(trained), rows(10, 1)
    assert profile.differences(alike(new, trained).in_memory()) == []
    new.loc[2, "pulse"] = 700.0
    assert (
        "column 'pulse': 1 of 10 numbers, the worst is 700 in row 2"
        in profile.differences(alike(new, trained).in_memory())[0]
    )


# rows that are known ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("known", "fresh", "is_said"),
    [(10, 0, True), (6, 4, True), (5, 5, False), (9, 0, False), (0, 60, False), (40, 20, True)],
)
def test_scoring_mostly_training_rows_is_said(known: int, fresh: int, is_said: bool) -> None:
    trained = table(rows())
    profile = Profile.of(trained)
    new = alike(pd.concat([rows()[:known], rows(fresh, 1)] if fresh else [rows()[:known]]), trained)
    assert profile.overlap(new) == Overlap(known + fresh, known, False)
    text = profile.trained_on(new)
    assert (text is not None) is is_said
    if text is not None:
        assert f"the model was trained on {known} of these {known + fresh} rows" in text
        assert "held out" in text


def test_validation_and_test_pieces_of_the_same_table_are_silent() -> None:
    for seed in range(3):
        frame = rows(200, seed)
        frame.loc[::3, "note"] = None
        frame.loc[1::4, ["age", "pulse", "ward"]] = None
        trained, *others = table(frame).split(seed=seed)
        profile = Profile.of(trained)
        for piece in others:
            assert said(lambda p=profile, d=piece: tell(p, d, scored=True)) == []


@pytest.mark.parametrize("values", [2, 4, 8])
def test_rows_that_are_often_alike_are_not_taken_for_training_rows(values: int) -> None:
    def drawn(count: int, seed: int) -> pd.DataFrame:
        noise = np.random.default_rng(seed)
        cells = noise.integers(0, values, size=(count, 2))
        return pd.DataFrame({"a": cells[:, 0], "b": cells[:, 1], "outcome": np.arange(count) % 2})

    trained = table(drawn(400, 0), {"v": kg.tabular(["a", "b"])})
    profile = Profile.of(trained)
    assert profile.twins > 0.9
    for seed in range(1, 20):
        assert profile.trained_on(alike(drawn(50, seed), trained)) is None


def test_twins_are_the_share_of_training_rows_that_another_equals_and_are_taken_off() -> None:
    frame = pd.DataFrame({"a": [0.0] * 40 + [float(i) for i in range(1, 61)], "outcome": [0, 1] * 50})
    trained = table(frame, {"v": kg.tabular(["a"])})
    profile = Profile.of(trained)
    assert profile.twins == 0.4
    fresh = pd.DataFrame({"a": np.linspace(100, 200, 60), "outcome": [0, 1] * 30})
    same = frame[:40]
    assert profile.trained_on(alike(pd.concat([same, fresh]), trained)) is None  # 40 %: what luck gives
    assert (
        profile.trained_on(alike(pd.concat([same, frame[40:70], fresh[:30]]), trained)) is None
    )  # 70 %: half of the rest
    assert profile.trained_on(alike(frame, trained)) is not None


def test_rows_are_known_in_whatever_format_order_and_company_they_come(tmp_path: Path) -> None:
    readers = {"vitals": READERS["vitals"], "note": READERS["note"], "lab": READERS["lab"]}
    frame = rows().drop(columns="trace")
    frame["pulse"] = frame["pulse"].astype(int)
    frame.loc[5, "note"] = None
    trained = table(frame, readers)
    profile = Profile.of(trained)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.assign(lab=frame["lab"].map(json.dumps)).to_csv(tmp_path / "rows.csv", index=False)
    others: list[Any] = [
        tmp_path / "rows.parquet",
        tmp_path / "rows.csv",
        frame.to_dict("records"),
        frame.sample(frac=1, random_state=0)[list(reversed(frame.columns))].assign(more=1),
        frame.convert_dtypes(),
    ]
    for other in others:
        assert profile.overlap(alike(other, trained)) == Overlap(120, 120, False)
    changed = frame.assign(age=frame["age"] + 1)
    assert profile.overlap(alike(changed, trained)) == Overlap(120, 0, False)


def test_pictures_are_known_by_their_content(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
    for i in range(12):
        picture = Image.fromarray(noise.integers(0, 255, (6, 6), dtype=np.uint8))
        for place in ("one", "other"):
            picture.save(tmp_path / place / f"{i}.png")
    paths = [f"{i}.png" for i in range(12)]
    frame = pd.DataFrame({"scan": paths, "outcome": ["a", "b"] * 6})
    trained = kg.Table.from_pandas(
        frame, modalities={"scan": kg.image("scan", 6)}, target="outcome", root=tmp_path / "one"
    )
    profile = Profile.of(trained)
    assert trained.reading is not None
    moved = kg.Table.from_reading(frame, trained.reading, root=tmp_path / "other")
    held = frame.assign(scan=[(tmp_path / "one" / path).read_bytes() for path in paths])
    turned = frame.assign(scan=list(reversed(paths)))
    absent = frame.assign(scan=[*paths[:11], None])
    assert profile.overlap(moved) == Overlap(12, 12, False)
    assert profile.overlap(alike(held, trained)) == Overlap(12, 12, False)
    assert profile.overlap(kg.Table.from_reading(turned, trained.reading, root=tmp_path / "one")) == Overlap(
        12, 12, False
    )
    assert profile.overlap(kg.Table.from_reading(absent, trained.reading, root=tmp_path / "one")) == Overlap(
        11, 11, False
    )


def test_cells_that_cannot_be_read_are_no_reason_to_stop() -> None:
    frame = rows()
    frame.at[3, "lab"] = [1.0, "x", None]
    frame.at[4, "trace"] = {1: 2}
    trained = kg.Table.from_pandas(frame, modalities=READERS, target="outcome", on_error="missing")
    profile = Profile.of(trained)
    assert profile.rows == 120
    assert profile.overlap(alike(rows(), trained)) == Overlap(120, 118, False)


def test_tensors_are_known_but_not_as_cells() -> None:
    data = toy("classification", 160, 2, holes=0.2)
    train, _, test = data.split()
    profile = Profile.of(train)
    found = profile.overlap(train)
    assert found is not None
    assert found.known == found.rows > 90
    assert said(lambda: tell(profile, test, scored=True)) == []
    assert Profile.of(table(rows())).overlap(table(rows()).in_memory()) is None
    hidden = train.with_missing(parse_mechanism("mcar(0.3)"), seed=1)
    assert profile.overlap(hidden) == found  # told by the rows as given


def test_of_many_rows_a_random_part_is_kept_and_the_share_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_HASHES", 200)
    noise = np.random.default_rng(0)
    frame = pd.DataFrame({"a": noise.normal(size=2000), "outcome": np.arange(2000) % 2})
    trained = table(frame, {"v": kg.tabular(["a"])})
    profile = Profile.of(trained)
    assert len(profile.hashes) == 200
    assert not profile.complete
    half = alike(pd.concat([frame[:500], frame[:500].assign(a=noise.normal(size=500))]), trained)
    found = profile.overlap(half)
    assert found is not None
    assert found.sampled
    assert 60 <= found.rows <= 145  # a tenth of 1,000
    assert 0.35 < found.known / found.rows < 0.65
    text = profile.trained_on(alike(frame[:1500], trained))
    assert text is not None
    assert "about 100% of these 1500 rows" in text


def test_of_many_scored_rows_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_HASHED", 30)
    trained = table(rows())
    assert Profile.of(trained).overlap(trained) == Overlap(30, 30, True)


def test_the_salt_comes_from_the_rows_and_hashes_of_equal_rows_differ_with_it() -> None:
    first, again, other = (Profile.of(table(frame)) for frame in (rows(), rows(), pd.concat([rows(), rows(5, 1)])))
    assert first.to_json() == again.to_json()
    assert first.salt != other.salt
    assert not set(first.hashes.tolist()) & set(other.hashes.tolist())
    column = rows()["age"].to_numpy(np.float32).view(np.uint32).astype(np.uint64)
    unsalted = {int.from_bytes(hashlib.blake2b(cell.tobytes(), digest_size=8).digest(), "little") for cell in column}
    assert not unsalted & set(first.hashes.tolist())


# to JSON and back ---------------------------------------------------------------------------------------------------
def test_ten_thousand_rows_take_less_than_150_kilobytes() -> None:
    noise = np.random.default_rng(0)
    names = [f"c{i}" for i in range(30)]
    frame = pd.DataFrame(noise.normal(size=(12_000, 30)), columns=names).assign(outcome=np.arange(12_000) % 2)
    saved = json.dumps(Profile.of(table(frame, {"v": kg.tabular(names)})).to_json())
    assert 100_000 < len(saved) < 150_000


def test_a_profile_comes_back_from_json_and_pickle_the_same() -> None:
    profile = Profile.of(table(rows()))
    for back in (Profile.from_json(json.loads(json.dumps(profile.to_json()))), pickle.loads(pickle.dumps(profile))):
        assert back is not None
        assert back.to_json() == profile.to_json()
        assert back.trained_on(table(rows())) == profile.trained_on(table(rows())) is not None


@pytest.mark.parametrize(
    "damage",
    [
        {"ranges": 3},
        {"ranges": {"vitals": [{"column": "age"}]}},
        {"absent": None},
        {"absent": {"note": "much"}},
        {"hashes": "§"},
        {"hashes": base64.b64encode(b"odd").decode()},
        {"salt": "zz"},
        {"salt": "00" * 99},
        {"hashes": "", "complete": False},
        {"twins": 2.0},
        {"twins": None},
        {"rows": "all"},
        {"ranges": {"note": [{"column": "", "count": 30, "low": "nan", "high": 1, "usual": [0, 1]}]}},
    ],
)
def test_a_damaged_profile_is_an_error_of_the_library(damage: dict[str, Any]) -> None:
    saved = Profile.of(table(rows())).to_json()
    with pytest.raises(DataError, match="training rows is damaged"):
        Profile.from_json({**saved, **damage})


@pytest.mark.parametrize("saved", [None, {"format": 2}, {}])
def test_nothing_or_a_later_format_says_nothing(saved: Any) -> None:
    assert Profile.from_json(saved) is None
    assert said(lambda: tell(None, table(rows()), scored=True)) == []


def test_what_is_no_mapping_is_damaged() -> None:
    with pytest.raises(DataError, match="is damaged"):
        Profile.from_json([1])


# estimators ---------------------------------------------------------------------------------------------------------
def test_each_call_says_once_what_is_unlike_training() -> None:
    trained = model()
    odd = without_notes(rows(30, 1), 30)
    odd.loc[2, "pulse"] = 9999.0
    calls: dict[str, Callable[[], Any]] = {
        "predict": lambda: trained.predict(odd),
        "predict_proba": lambda: trained.predict_proba(odd),
        "predict_frame": lambda: trained.predict_frame(odd),
        "explain": lambda: trained.explain(odd),
        "score": lambda: trained.score(odd),
        "evaluate": lambda: kg.evaluate(trained, odd, "clean", resamples=10),
        "records": lambda: trained.predict(odd.to_dict("records")),
        "table": lambda: trained.predict(kg.Table.from_reading(odd, trained.reading_ or {})),
    }
    for name, call in calls.items():
        texts = said(call)
        assert sum("modality 'note' is absent in 30 of 30 rows" in text for text in texts) == 1, name
        assert sum("the worst is 9999 in row 2" in text for text in texts) == 1, name
        assert len(texts) == 2, name


def test_scores_on_training_rows_are_said_and_predictions_for_them_are_not() -> None:
    trained = model()
    assert said(lambda: trained.predict(rows())) == []
    for call in (lambda: trained.score(rows()), lambda: kg.evaluate(trained, rows(), "clean", resamples=10)):
        (text,) = said(call)
        assert "the model was trained on 108 of these 120 rows" in text  # a tenth chose the epoch
    assert said(lambda: trained.score(rows(60, 1))) == []
    assert said(lambda: kg.evaluate(trained, rows(60, 1), "clean", resamples=10)) == []


def test_several_models_of_the_same_rows_say_it_once() -> None:
    first, second = model(), model(seed=1)
    texts = said(lambda: kg.evaluate({"a": first, "b": copy.copy(first)}, rows(), "clean", resamples=10))
    assert len(texts) == 1
    assert second.profile_ is not None


@pytest.mark.parametrize("protocol", ["rates(0, 0.7)", "subsets"])
def test_conditions_of_a_protocol_are_no_reason_for_a_word(protocol: str) -> None:
    trained = model()
    assert said(lambda: kg.evaluate(trained, rows(60, 1), protocol, resamples=10)) == []


def test_a_saved_model_says_the_same_and_without_a_profile_nothing(tmp_path: Path) -> None:
    trained = model()
    odd = without_notes(rows(30, 1), 30)
    before = said(lambda: trained.score(odd)) + said(lambda: trained.score(rows()))
    trained.save(tmp_path / "model")
    loaded = kg.load(tmp_path / "model")
    assert said(lambda: loaded.score(odd)) + said(lambda: loaded.score(rows())) == before
    assert len(before) == 2
    loaded.profile_ = None  # as of models that were saved before there were profiles
    loaded.save(tmp_path / "bare")
    config = json.loads((tmp_path / "bare" / "model.json").read_text())
    assert config["extra"].get("profile") is None
    bare = kg.load(tmp_path / "bare")
    assert bare.profile_ is None
    assert said(lambda: bare.score(odd)) + said(lambda: bare.score(rows())) == []


def test_models_of_version_0_1_0_have_no_profile() -> None:
    folders = sorted((Path(__file__).parent / "saved" / "0.1.0" / "models").iterdir())
    described = [
        json.loads((folder / "model.json").read_text()) for folder in folders if (folder / "model.json").exists()
    ]
    assert described
    assert all(Profile.from_json(config["extra"].get("profile")) is None for config in described)


def test_evaluate_on_the_command_line_prints_that_rows_were_trained_on(tmp_path: Path) -> None:
    model().save(tmp_path / "model")
    rows().to_parquet(tmp_path / "rows.parquet")
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "model"), str(tmp_path / "rows.parquet"), "-p", "clean"])
    assert done.exit_code == 0, done.output
    assert "warning: rows: the model was trained on 108 of these 120 rows" in done.output


# keys ---------------------------------------------------------------------------------------------------------------
def records(count: int = 12) -> list[dict[str, Any]]:
    return rows(count, 1).drop(columns="outcome").to_dict("records")


def test_rows_that_spell_a_key_otherwise_are_said() -> None:
    trained = table(rows())
    odd = records()
    for row in odd[:3]:
        row["agee"] = row.pop("age")
    (text,) = said(lambda: alike(odd, trained))
    assert "column 'agee', which nothing reads, is filled in 3 rows where 'age' is empty" in text
    (text,) = said(lambda: alike(pd.DataFrame(odd), trained))
    assert "'agee'" in text


def test_other_columns_beside_those_that_are_read_are_not() -> None:
    trained = table(rows())
    both = [{**row, "age2": 3.0} for row in records()]
    both[0]["age"] = None  # filled elsewhere too, so age2 is a column of its own
    assert said(lambda: alike(both, trained)) == []
    assert said(lambda: alike(rows(12, 1).assign(ages=1.0, id=7), trained)) == []
    hole = [{**row, "id": 7} for row in records()]
    hole[0]["age"] = None
    assert said(lambda: alike(hole, trained)) == []


def test_keys_that_nothing_reads_are_named_where_one_that_is_read_lacks() -> None:
    trained = table(rows())
    odd = [{**{k: v for k, v in row.items() if k != "note"}, "words": "x"} for row in records()]
    (text,) = said(lambda: alike(odd, trained))
    assert "no row has 'note', which the model reads, and nothing reads 'words'" in text
    for row in odd:
        row["outcome"] = "home"
        del row["words"]
    assert said(lambda: alike(odd, trained)) == []  # the target is known


# stages on few rows -------------------------------------------------------------------------------------------------
def with_complete(complete: int, count: int) -> kg.Table:
    frame = pd.DataFrame({"a": np.arange(count) * 1.0, "b": np.arange(count) * -1.0, "outcome": np.arange(count) % 2})
    frame.loc[complete::2, "a"] = np.nan
    frame.loc[complete + 1 :: 2, "b"] = np.nan
    return table(frame, {"a": kg.tabular(["a"]), "b": kg.tabular(["b"])})


@pytest.mark.parametrize(
    ("complete", "count", "is_said"),
    [(19, 200, True), (20, 200, False), (9, 100, True), (9, 99, False), (10, 100, False), (26, 1200, True)],
)
def test_a_stage_that_trains_on_few_of_the_rows_is_said(complete: int, count: int, is_said: bool) -> None:
    train = with_complete(complete, count)
    pipeline = create("mmin", train.schema)
    texts = said(lambda: check(pipeline, Splits(train, train)))
    assert bool(texts) is is_said
    if is_said:
        (text,) = texts
        share = f"{complete / count:.0%}"
        assert f"stage 'encoders' trains on {complete} of {count} rows ({share}, those 'complete')" in text
        assert "mean_fusion" in text


def test_a_method_that_takes_incomplete_rows_is_not_warned_of() -> None:
    train = with_complete(5, 200)
    assert said(lambda: check(create("mean_fusion", train.schema), Splits(train, train))) == []


def test_training_says_it_once() -> None:
    train = with_complete(19, 200)
    texts = said(
        lambda: kg.Trainer(epochs=2, progress=False).fit(create("mmin", train.schema, dim=8), Splits(train, train))
    )
    assert sum("stage 'encoders'" in text for text in texts) == 1
    assert torch.isfinite(train.target.float()).all()  # type: ignore[union-attr]
