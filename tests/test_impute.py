"""Filling tables with holes, and modalities as columns of one: against scikit-learn and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.impute import KNNImputer
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import nan_euclidean_distances
from torch import Tensor

from kintsugi.core import Modality
from kintsugi.core.errors import ConfigError
from kintsugi.encoders.columns import Columns
from kintsugi.layers.impute import chain_fill, fit_chain, nan_euclidean, neighbour_fill

NAN = float("nan")
DONORS = torch.tensor([[1, 5, 3], [2, 7, NAN], [NAN, 9, 1]])
ROW = torch.tensor([[1, NAN, 3.0]])


def holed(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=rng, dtype=torch.float64)
    x = x + 0.8 * x[:, :1]
    seen = torch.rand(rows, columns, generator=rng) > 0.3
    seen[:, 0] = True
    return torch.where(seen, x, NAN), seen


# neighbours -----------------------------------------------------------------------------------------------------------
def test_distances_and_neighbours_have_the_published_numbers() -> None:
    distance = nan_euclidean(ROW, ~ROW.isnan(), DONORS, ~DONORS.isnan())
    assert distance[0].tolist() == pytest.approx([0, 1.7320508, 3.4641016])
    one, two = neighbour_fill(ROW, ~ROW.isnan(), DONORS, ~DONORS.isnan(), [1, 2])
    assert one[0].tolist() == [1, 5, 3]
    assert two[0].tolist() == [1, 6, 3]


def test_distances_are_those_of_sklearn() -> None:
    (x, seen), (others, others_seen) = holed(20, 6, 0), holed(30, 6, 1)
    expected = nan_euclidean_distances(x.numpy(), others.numpy())
    np.testing.assert_allclose(nan_euclidean(x, seen, others, others_seen), expected, atol=1e-6)


def test_rows_without_a_common_cell_are_infinitely_far() -> None:
    x, seen = torch.tensor([[1.0, NAN]]), torch.tensor([[True, False]])
    assert nan_euclidean(x, seen, x.flip(1), seen.flip(1)).isinf().all()


@pytest.mark.parametrize("k", [1, 3, 5, 100])
def test_neighbours_are_those_of_sklearn(k: int) -> None:
    (donors, donors_seen), (x, seen) = holed(60, 7, 0), holed(20, 7, 1)
    expected = KNNImputer(n_neighbors=k).fit(donors.numpy()).transform(x.numpy())
    np.testing.assert_allclose(neighbour_fill(x, seen, donors, donors_seen, [2, k])[1], expected, atol=1e-12)


def test_a_row_is_filled_the_same_whatever_else_is_asked() -> None:
    (donors, donors_seen), (x, seen) = holed(60, 7, 0), holed(20, 7, 1)
    whole = neighbour_fill(x, seen, donors, donors_seen, [3])[0]
    alone = torch.cat(
        [neighbour_fill(a[None], b[None], donors, donors_seen, [3])[0] for a, b in zip(x, seen, strict=True)]
    )
    assert torch.equal(whole, alone)


def test_of_equally_near_donors_the_first_is_taken_and_without_one_the_cell_is_0() -> None:
    donors = torch.tensor([[1.0, 4.0, NAN], [1.0, 8.0, NAN]])
    filled = neighbour_fill(
        torch.tensor([[2.0, NAN, NAN]]), torch.tensor([[True, False, False]]), donors, ~donors.isnan(), [1]
    )
    assert filled[0].tolist() == [[2, 4, 0]]
    stranger = neighbour_fill(
        torch.tensor([[NAN, NAN, 1.0]]), torch.tensor([[False, False, True]]), donors, ~donors.isnan(), [1]
    )
    assert stranger[0].tolist() == [[0, 0, 1]]


def test_donors_that_a_row_may_not_take_from_are_as_if_they_were_not_there() -> None:
    others = torch.tensor([[False, True, True]])  # of distance 0, 1.73, 3.46
    filled = neighbour_fill(ROW, ~ROW.isnan(), DONORS, ~DONORS.isnan(), [1, 2, 3], others)
    assert [each[0].tolist() for each in filled] == [[1, 7, 3], [1, 8, 3], [1, 8, 3]]


def test_no_neighbours_are_refused() -> None:
    with pytest.raises(ConfigError, match="0"):
        neighbour_fill(ROW, ~ROW.isnan(), DONORS, ~DONORS.isnan(), [0])


# chained regressions --------------------------------------------------------------------------------------------------
def test_one_round_of_regressions_is_that_of_sklearn_in_the_order_of_holes() -> None:
    x, _ = holed(80, 6, 0)
    x = x.nan_to_num()
    group = torch.tensor([0, 0, 1, 1, 2, 2])
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:30, 2:4] = False
    seen[10:25, 0:2] = False
    x = torch.where(seen, x, NAN)
    chain = fit_chain(x, seen, group, 0.1)
    asked, asked_seen = holed(10, 6, 1)
    filled, out = x.nan_to_num().numpy().copy(), asked.nan_to_num().numpy().copy()
    for own in ([4, 5], [0, 1], [2, 3]):
        others = [i for i in range(6) if i not in own]
        rows = seen[:, own[0]].numpy()
        line = Ridge(0.1 * rows.sum()).fit(filled[rows][:, others], x[rows][:, own].numpy())
        filled[:, own] = np.where(seen[:, own], x[:, own], line.predict(filled[:, others]))
        out[:, own] = np.where(asked_seen[:, own], asked[:, own], line.predict(out[:, others]))
    np.testing.assert_allclose(chain_fill(x, seen, chain), filled, atol=1e-9)
    np.testing.assert_allclose(chain_fill(asked, asked_seen, chain), out, atol=1e-9)


def test_columns_of_one_group_with_other_holes_tell_of_each_other() -> None:
    x, _ = holed(100, 2, 0)
    x = torch.stack([x[:, 0], 2 * x[:, 0]], 1).nan_to_num()
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:20, 1] = False
    chain = fit_chain(x, seen, torch.zeros(2, dtype=torch.int64), 1e-6)
    np.testing.assert_allclose(chain_fill(torch.where(seen, x, NAN), seen, chain), x, atol=1e-3)


def test_a_single_unit_has_nothing_to_be_regressed_on() -> None:
    x = torch.randn(10, 3, dtype=torch.float64)
    chain = fit_chain(x, torch.ones_like(x, dtype=torch.bool), torch.zeros(3, dtype=torch.int64))
    filled = chain_fill(x, torch.zeros_like(x, dtype=torch.bool), chain)
    assert filled.abs().max() == 0


# columns --------------------------------------------------------------------------------------------------------------
def cells(modality: Modality, x: Tensor, mask: Tensor | None = None) -> tuple[list[list[float]], list[list[float]]]:
    reader = Columns(modality)
    values, seen = reader(x, mask).tokens[:, 0].chunk(2, 1)
    assert values.shape[1] == reader.columns
    return values.tolist(), seen.tolist()


def test_a_table_is_a_column_a_number_and_one_a_category() -> None:
    modality = Modality("t", "tabular", (3,), categories=(0, 3, 0))
    x = torch.tensor([[1.5, 2.0, -1.0], [NAN, 3.0, 4.0], [2.0, 0.0, NAN]])
    mask = torch.tensor([[True, True, True], [False, True, True], [True, False, False]])
    values, seen = cells(modality, x, mask)
    assert values == [[1.5, 0, 1, 0, -1], [0, 0, 0, 1, 4], [2, 0, 0, 0, 0]]
    assert seen == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [1, 0, 0, 0, 0]]


def test_a_vector_is_its_own_columns() -> None:
    x = torch.tensor([[1.0, NAN]])
    assert cells(Modality("v", "vector", (2,)), x, torch.tensor([[True, False]])) == ([[1, 0]], [[1, 0]])
    assert cells(Modality("v", "vector", (2,)), torch.tensor([[1.0, 2.0]])) == ([[1, 2]], [[1, 1]])


def test_a_series_is_a_column_a_channel_and_step() -> None:
    x = torch.tensor([[[1.0, 2.0], [NAN, NAN], [3.0, 4.0]]])
    mask = torch.tensor([[True, False, True]])
    values, seen = cells(Modality("s", "series", (3, 2)), x, mask)
    assert values == [[1, 2, 0, 0, 3, 4]]
    assert seen == [[1, 1, 0, 0, 1, 1]]
    assert cells(Modality("s", "series", (3, 2)), torch.ones(1, 3, 2))[1] == [[1] * 6]


def test_padding_behind_a_series_does_not_matter() -> None:
    modality = Modality("s", "series", (None, 2))
    x = torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0))
    for length in (1, 6, 16, 21, 33):
        short, mask = x[:, :length], torch.ones(2, length, dtype=torch.bool)
        mask[1, : length // 2] = False
        padding = torch.full((2, 40 - length, 2), NAN)
        padded = cells(modality, torch.cat([short, padding], 1), torch.cat([mask, padding[..., 0] > 0], 1))
        assert padded == cells(modality, short, mask)
        pooled = torch.nn.functional.adaptive_avg_pool1d(short[:1].transpose(1, 2), 16).transpose(1, 2).flatten()
        assert padded[0][0] == pytest.approx(pooled.tolist(), abs=1e-6)


def test_what_is_behind_the_last_step_of_a_series_of_known_length_is_lost() -> None:
    x, mask = torch.arange(4.0).view(1, 4, 1), torch.tensor([[True, True, False, False]])
    assert cells(Modality("s", "series", (4, 1)), x, mask) == ([[0, 1, 0, 0]], [[1, 1, 0, 0]])


@pytest.mark.parametrize(("kind", "shape"), [("video", (4, 3, 8, 8)), ("points", (10, 3)), ("volume", (1, 8, 8, 8))])
def test_kinds_without_columns_are_refused_by_name(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=f"'m': {kind} .* audio, image, series, tabular, text, vector"):
        Columns(Modality("m", kind, shape))


def test_other_kinds_are_their_lowlevel_features() -> None:
    values, seen = cells(Modality("i", "image", (1, 2, 2)), torch.arange(4.0).view(1, 1, 2, 2))
    assert values == [[0, 1, 2, 3]]
    assert seen == [[1, 1, 1, 1]]
