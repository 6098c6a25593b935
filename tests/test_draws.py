"""Many draws a row: their distribution, and that neither rows nor columns nor streams have to do with each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.seeds import bits

ROWS, WORDS = 512, 2048
LEAST = 1e-4  # of some 80 tests of fixed draws: one in a hundred sets of draws would fail somewhere


def plan(seed: int = 0) -> Plan:
    return Plan("gaussian_noise", "image", 3, seed, {})


@pytest.fixture(scope="module")
def words() -> np.ndarray:
    return bits(11, torch.arange(ROWS), WORDS)


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_of_a_word_is_uniform(words: np.ndarray, shift: int) -> None:
    counts = np.bincount(((words >> shift) & 255).ravel(), minlength=256)
    assert stats.chisquare(counts).pvalue > LEAST


def test_both_halves_together_are_uniform(words: np.ndarray) -> None:
    counts = np.bincount((words & 255).ravel().astype(np.int64) * 256 + ((words >> 16) & 255).ravel(), minlength=65536)
    assert stats.chisquare(counts).pvalue > LEAST


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("lag", [1, 2, 3, 4, 7, 8, 16, 64, 224, 256])
def test_neighbours_are_not_correlated(words: np.ndarray, axis: int, lag: int) -> None:
    for values in (words, words & 0xFFFF, words >> 16):
        x = values.astype(np.float64)
        x = (x - x.mean()) / x.std()
        a, b = (x[lag:], x[:-lag]) if axis == 0 else (x[:, lag:], x[:, :-lag])
        z = (a * b).mean() * np.sqrt(a.size)  # standard normal, were they independent
        assert abs(z) < stats.norm.isf(LEAST / 2)


def test_bits_of_neighbouring_rows_differ_in_half_of_the_places(words: np.ndarray) -> None:
    changed = np.unpackbits((words[1:] ^ words[:-1]).view(np.uint8)).reshape(-1, 32).mean(0)
    sd = 0.5 / np.sqrt((ROWS - 1) * WORDS)
    assert (np.abs(changed - 0.5) < sd * stats.norm.isf(LEAST / 64)).all()


def test_rows_that_share_half_of_their_seed_do_not_share_numbers() -> None:
    from kintsugi.imperfect import seeds

    real = seeds.row_seeds
    try:
        for alike in (32, 0):
            pair = np.array([12345, 12345 + (1 << (alike + 3))], dtype=np.uint64)
            seeds.row_seeds = lambda key, index, pair=pair: pair  # type: ignore[assignment, misc]
            a, b = bits(0, torch.arange(2), 65536).astype(np.float64)
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
            assert (a == b).mean() < 1e-3
    finally:
        seeds.row_seeds = real


def test_the_first_of_more_are_the_same() -> None:
    index = torch.tensor([3, 10**12, 7])
    for draw in (plan().normal, plan().uniform):
        many = draw(index, 1001)
        assert torch.equal(draw(index, 10), many[:, :10])
        assert torch.equal(draw(index[1:], 7, 11).flatten(1), many[1:, :77])


def test_normal_numbers_are_normal() -> None:
    x = plan().normal(torch.arange(2000), 500).double()
    n = x.numel()
    assert abs(float(x.mean())) < 4 / n**0.5
    assert abs(float(x.var()) - 1) < 4 * (2 / n) ** 0.5
    assert abs(float((x**3).mean())) < 4 * (15 / n) ** 0.5
    assert abs(float((x**4).mean()) - 3) < 4 * (96 / n) ** 0.5
    assert stats.kstest(x[:40].flatten().numpy(), "norm").pvalue > LEAST
    assert 4 < float(x.abs().max()) < 4.4


def test_numbers_of_one_row_are_independent_at_every_distance() -> None:
    drawn = plan().normal(torch.arange(4000), 256).double()
    for kind in (drawn, (drawn.square() - 1) / 2**0.5):
        for lag in range(1, 200):
            pairs = kind[:, lag:] * kind[:, :-lag]
            assert abs(float(pairs.mean())) * pairs.numel() ** 0.5 < 4.5
    power = torch.fft.rfft(drawn, dim=1).abs().square().mean(0)[1:-1] / 256
    assert float((power - 1).abs().max()) * 4000**0.5 < 4.5, "no frequency stands out"


def test_uniform_numbers_are_uniform() -> None:
    x = plan().uniform(torch.arange(2000), 500).double()
    assert float(x.min()) >= 0
    assert float(x.max()) < 1
    assert stats.kstest(x[:40].flatten().numpy(), "uniform").pvalue > LEAST
    assert torch.equal(x * 2**23, (x * 2**23).round())


def test_coarse_numbers_have_mean_0_and_variance_1() -> None:
    x = plan().coarse(torch.arange(2000), 501).double()
    assert abs(float(x.mean())) < 4 / x.numel() ** 0.5
    assert abs(float(x.var()) - 1) < 4 * (0.8 / x.numel()) ** 0.5
    assert float(x.abs().max()) <= 3**0.5
    assert torch.equal(plan().coarse(torch.arange(5), 9), plan().coarse(torch.arange(5), 40)[:, :9])


def test_seeds_operators_modalities_and_streams_have_draws_of_their_own() -> None:
    index = torch.arange(4)
    others = [plan(), plan(1), Plan("fog", "image", 3, 0, {}), Plan("gaussian_noise", "depth", 3, 0, {})]
    found = [p.normal(index, 4000) for p in others] + [plan().normal(index, 4000, stream="second")]
    for i, a in enumerate(found):
        for b in found[:i]:
            assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5
    assert torch.equal(found[0], Plan("gaussian_noise", "image", 5, 0, {"sd": 1}).normal(index, 4000)), (
        "severities share"
    )
