"""Faults of sensors: what was asked is what is measured."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect._runs import gilbert_elliott
from kintsugi.imperfect.operator import OPERATORS, Operator, list_corruptions
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.seeds import uniforms
from kintsugi.tasks.classification import Classification

ROWS, STEPS, CHANNELS = 400, 50, 4
EVERY = list_corruptions("series")
MOVED = ("time_warp", "rate_mismatch", "clock_offset", "stuck_at")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clean(rows: int = ROWS, steps: int = STEPS, channels: int = CHANNELS) -> Tensor:
    """Channels of different size and mean."""
    return noise(rows, steps, channels) * torch.tensor([1.0, 5.0, 0.2, 30.0])[:channels] + torch.arange(channels)


def operator(key: str) -> Operator:
    found = OPERATORS[key]()
    assert isinstance(found, Operator)
    return found


def dataset(x: Tensor, mask: Tensor | None = None) -> Dataset:
    rows, steps, channels = x.shape
    schema = Schema((Modality("sensor", "series", (steps, channels)),), Classification(["a", "b"]))
    masks = {} if mask is None else {"sensor": mask}
    present = torch.ones(rows, 1, dtype=torch.bool)
    batch = Batch(("sensor",), {"sensor": x}, present, torch.arange(rows), torch.arange(rows) % 2, mask=masks)
    return Dataset(TensorSource(schema, batch))


def planned(key: str, x: Tensor, mask: Tensor | None = None, severity: int = 3, seed: int = 0, **values: Any) -> Plan:
    return operator(key).plan(dataset(x, mask), "sensor", severity, seed, **values)


def run(key: str, x: Tensor, mask: Tensor | None = None, severity: int = 3, seed: int = 0, **values: Any) -> Tensor:
    return both(key, x, mask, severity, seed, **values)[0]


def both(
    key: str, x: Tensor, mask: Tensor | None = None, severity: int = 3, seed: int = 0, **values: Any
) -> tuple[Tensor, Tensor | None]:
    plan = planned(key, x, mask, severity, seed, **values)
    return operator(key).apply(x, torch.arange(len(x)), plan, mask)


def holes(x: Tensor, fill: float = torch.nan) -> tuple[Tensor, Tensor]:
    """Rows of several lengths with gaps in them; ``fill`` stands in what is unseen."""
    rows, steps, _ = x.shape
    mask = torch.arange(steps) < steps - torch.arange(rows)[:, None] % 3 * (steps // 4)
    mask &= noise(rows, steps, seed=9) < 1.0
    mask[:, 0] = True
    return torch.where(mask[..., None], x, fill), mask


# every one ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", EVERY)
@pytest.mark.parametrize("severity", [1, 5])
def test_gaps_stay_gaps_and_do_not_spread(key: str, severity: int) -> None:
    x, mask = holes(clean(60))
    out, seen = both(key, x, mask, severity)
    assert seen is not None
    assert bool((seen <= mask).all())
    assert torch.isfinite(out[seen]).all()
    assert out[~mask].isnan().all()
    if key != "dropout_bursts":
        assert seen is mask


@pytest.mark.parametrize("key", EVERY)
def test_what_stands_in_unseen_steps_is_never_read(key: str) -> None:
    x, mask = holes(clean(60))
    other = torch.where(mask[..., None], x, 777.0)
    one, seen = both(key, x, mask)
    two, _ = both(key, other, mask)
    assert seen is not None
    assert torch.equal(one[seen], two[seen])
    assert (two[~mask] == 777).all()


@pytest.mark.parametrize("key", EVERY)
def test_channels_may_come_first_in_memory(key: str) -> None:
    x = clean(30)
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    assert torch.equal(run(key, turned).nan_to_num(9e9), run(key, x).nan_to_num(9e9))


@pytest.mark.parametrize("key", EVERY)
@pytest.mark.parametrize(("steps", "channels"), [(1, 1), (1, 3), (2, 1), (40, 1)])
def test_short_and_narrow_series(key: str, steps: int, channels: int) -> None:
    x = clean(50, steps, channels)
    for severity in (1, 5):
        out, seen = both(key, x, severity=severity)
        assert out.shape == x.shape
        kept = torch.ones(x.shape[:2], dtype=torch.bool) if seen is None else seen
        assert torch.isfinite(out[kept]).all()
        if steps == 1 and key in MOVED:
            assert torch.equal(out, x), "one step has no time to move in"


@pytest.mark.parametrize("key", ["sensor_noise", "bias", "drift", "spikes", "quantisation", "saturation"])
def test_a_constant_channel_stays(key: str) -> None:
    x = clean()
    x[..., 2] = 3.25
    out = run(key, x, severity=5)
    assert torch.equal(out[..., 2], x[..., 2])
    assert not torch.equal(out[..., 0], x[..., 0])


@pytest.mark.parametrize("key", [k for k in EVERY if k not in ("sensor_noise", "spikes", "dropout_bursts")])
def test_rows_that_are_filled_up_are_damaged_as_if_they_were_not(key: str) -> None:
    x = clean(40)
    longer = torch.cat([x, torch.full((40, 14, CHANNELS), torch.nan)], 1)
    mask = torch.arange(STEPS + 14).expand(40, -1) < STEPS
    assert torch.allclose(run(key, longer, mask)[:, :STEPS], run(key, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("key", EVERY)
def test_a_plan_for_other_channels_is_refused(key: str) -> None:
    plan = planned(key, clean())
    if plan.tensors:
        with pytest.raises(DataError, match=r"made for rows \[…, 4\], not \[20, 3\]"):
            operator(key).apply(clean(5, 20, 3), torch.arange(5), plan)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("drift", {"shape": "cubic"}),
        ("stuck_at", {"channels": "some"}),
        ("stuck_at", {"share": 1.5}),
        ("time_warp", {"warp": 1.0}),
        ("rate_mismatch", {"ratio": 0.0}),
        ("clock_offset", {"share": -0.1}),
        ("saturation", {"q": 0.3}),
        ("quantisation", {"bits": 0}),
        ("gain_error", {"gain": 0.0}),
        ("sensor_unit_error", {"share": 2.0}),
    ],
)
def test_values_that_make_no_sense(key: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        planned(key, clean(5), **values)


# runs ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rate", "length"), [(0.05, 4), (0.2, 8), (0.5, 16), (0.3, 1), (0.45, 1.2), (0.02, 1)])
def test_runs_have_their_rate_and_length(rate: float, length: float) -> None:
    draws = torch.from_numpy(uniforms(0, torch.arange(4000), 500))
    lost = gilbert_elliott(draws, rate, length)
    assert abs(float(lost.double().mean()) - rate) < 0.05 * rate + 0.002
    for step in (0, 1, 250, 499):
        assert abs(float(lost[:, step].double().mean()) - rate) < 0.03, "the rate is that of every step"
    begins = lost[:, 1:] & ~lost[:, :-1]
    ends = lost[:, :-1] & ~lost[:, 1:]
    found = float(lost[:, 1:].sum()) / float(begins.sum() + lost[:, 1].sum() - begins[:, 0].sum())
    assert found == pytest.approx(length, rel=0.06)
    assert float(ends.sum() / lost[:, :-1].sum()) == pytest.approx(1 / length, rel=0.05)


def test_runs_equal_the_chain_step_by_step() -> None:
    draws = torch.rand(50, 80, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for rate, length in ((0.2, 5.0), (0.45, 1.1), (0.5, 1.0)):
        enter, leave = rate / (length * (1 - rate)), 1 / length
        state = draws[:, 0] < rate
        chain = [state]
        for u in draws[:, 1:].T:
            state = torch.where(state, u < 1 - leave, u < enter)
            chain.append(state)
        assert torch.equal(gilbert_elliott(draws, rate, length), torch.stack(chain, 1))


def test_more_and_longer_runs_contain_fewer_and_shorter_ones() -> None:
    draws = torch.rand(300, 200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    levels = OPERATORS["dropout_bursts"].parameters["default"]
    lost = [gilbert_elliott(draws, **levels[s]) for s in range(1, 6)]
    for less, more in pairwise(lost):
        assert bool((less <= more).all())


def test_runs_at_their_limits() -> None:
    draws = torch.rand(3, 9, dtype=torch.float64)
    assert not gilbert_elliott(draws, 0, 4).any()
    assert gilbert_elliott(draws, 1, 4).all()
    assert gilbert_elliott(draws[:, :0], 0.3, 4).shape == (3, 0)
    for rate, length in ((0.8, 1), (-0.1, 4), (0.1, 0.5)):
        with pytest.raises(ConfigError):
            gilbert_elliott(draws, rate, length)


# values -------------------------------------------------------------------------------------------------------------
def test_noise_has_its_spread_in_every_channel() -> None:
    x = clean()
    for severity, k in enumerate((0.1, 0.2, 0.4, 0.7, 1.0), 1):
        added = (run("sensor_noise", x, severity=severity) - x).double()
        spread = added.std((0, 1)) / x.double().std((0, 1))
        assert torch.allclose(spread, torch.full((4,), k, dtype=torch.float64), rtol=0.03)
        assert (added.mean((0, 1)) / x.double().std((0, 1))).abs().max() < 0.03 * k


def test_bias_is_constant_and_of_both_signs() -> None:
    x = clean()
    added = (run("bias", x, severity=4) - x).double() / x.double().std((0, 1))
    assert torch.allclose(added.abs(), torch.full_like(added, 1.5), rtol=0.01)
    assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-3)
    assert ((added[:, 0] > 0).double().mean(0) - 0.5).abs().max() < 0.1


def test_gain_goes_up_and_down() -> None:
    x = clean().abs() + 1
    gain = run("gain_error", x, severity=5) / x
    assert torch.allclose(torch.minimum((gain - 2).abs(), (gain - 0.5).abs()), torch.zeros(1), atol=1e-5)
    assert abs(float((gain[:, 0] > 1).double().mean()) - 0.5) < 0.05


@pytest.mark.parametrize("shape", ["linear", "walk"])
def test_drift_begins_at_zero_and_arrives(shape: str) -> None:
    x, mask = holes(clean(), 0.0)
    sd = torch.stack([x[..., c][mask].std(correction=0) for c in range(CHANNELS)])
    offset = (run("drift", x, mask, severity=5, shape=shape) - x) / sd
    last = STEPS - 1 - mask.flip(1).int().argmax(1)
    end = offset[torch.arange(ROWS), last]
    assert offset[:, 0].abs().max() < 1e-4
    assert torch.allclose(end.abs(), torch.full_like(end, 2.5), rtol=1e-3)
    assert abs(float((end > 0).double().mean()) - 0.5) < 0.06
    line = end[:, None] * (torch.arange(STEPS) / last[:, None])[..., None]
    off = torch.where(mask[..., None], offset - line, 0)
    if shape == "linear":
        assert off.abs().max() < 1e-3
    else:
        whole = (last == STEPS - 1).nonzero().flatten()
        middle = off[whole, STEPS // 2][mask[whole, STEPS // 2]]
        assert float(middle.std()) == pytest.approx(2.5 * 0.5, rel=0.1), "a Brownian bridge has half its spread there"


def test_spikes_have_their_share_and_size() -> None:
    x = clean()
    for severity, (share, size) in enumerate(((0.005, 3), (0.01, 4), (0.02, 5), (0.04, 6), (0.08, 8)), 1):
        added = (run("spikes", x, severity=severity) - x).double() / x.double().std((0, 1))
        hit = added.abs() > 1e-2
        assert float(hit.double().mean()) == pytest.approx(share, rel=0.1)
        assert torch.allclose(added[hit].abs(), torch.full_like(added[hit], size), rtol=0.01)
        assert abs(float((added[hit] > 0).double().mean()) - 0.5) < 0.08
    hits = [(run("spikes", x, severity=s) != x) for s in (1, 3, 5)]
    assert bool((hits[0] <= hits[1]).all() and (hits[1] <= hits[2]).all()), "the same draws at every level"


def test_saturation_clips_at_quantiles() -> None:
    x = clean()
    for severity, q in enumerate((0.98, 0.95, 0.9, 0.8, 0.65), 1):
        out = run("saturation", x, severity=severity)
        for c in range(CHANNELS):
            clipped = (out[..., c] != x[..., c]).double().mean()
            assert float(clipped) == pytest.approx(2 * (1 - q), abs=0.005)
            high, low = np.quantile(x[..., c].numpy(), [q, 1 - q])
            assert float(out[..., c].max()) == pytest.approx(high, rel=0.02)
            assert float(out[..., c].min()) == pytest.approx(low, rel=0.02, abs=0.02)


@pytest.mark.parametrize(("severity", "bits"), list(enumerate((8, 6, 5, 4, 3), 1)))
def test_quantisation_leaves_so_many_levels(severity: int, bits: int) -> None:
    x = torch.rand(200, 200, 1, generator=torch.Generator().manual_seed(0)) * 7 - 3
    out = run("quantisation", x, severity=severity)
    found = torch.unique(out)
    assert len(found) == 2**bits
    step = float(x.max() - x.min()) / (2**bits - 1)
    assert float((out - x).abs().max()) <= 0.501 * step
    assert torch.allclose(found.diff(), torch.tensor(step), rtol=1e-2)
    plan = planned("quantisation", x, severity=severity)
    far = operator("quantisation").apply(100 * x[:3], torch.arange(3), plan)[0]
    assert bool(torch.isclose(far, found[:, None, None, None], atol=1e-4).any(0).all())


def test_unit_errors_of_each_kind() -> None:
    x = clean()
    for unit, factor, offset in (("milli", 1000, 0), ("gravity", 9.81, 0), ("fahrenheit", 1.8, 32)):
        out = run("sensor_unit_error", x, severity=4, unit=unit)
        hit = (out != x).any(1)
        assert float(hit.double().mean()) == pytest.approx(0.4, abs=0.05)
        wrong = torch.where(hit[:, None], x * factor + offset, x)
        assert torch.allclose(out, wrong, rtol=1e-5, atol=1e-3)
    ratio = run("sensor_unit_error", x, severity=5) / x
    shares = [float(torch.isclose(ratio, torch.tensor(f), rtol=1e-3).double().mean()) for f in (1000.0, 9.81)]
    assert shares == pytest.approx([0.2, 0.2], abs=0.04)
    with pytest.raises(UnknownName, match="did you mean 'gravity'"):
        run("sensor_unit_error", x, unit="gravitty")


# time ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_bursts_go_missing(severity: int) -> None:
    x = clean(2000, 200, 2)
    level = OPERATORS["dropout_bursts"].parameters["default"][severity]
    out, seen = both("dropout_bursts", x, severity=severity)
    assert seen is not None
    assert float((~seen).double().mean()) == pytest.approx(level["rate"], rel=0.06)
    inner = seen[:, :-1] & ~seen[:, 1:]
    assert float((seen[:, 1:] & ~seen[:, :-1]).sum() / (~seen[:, :-1]).sum()) == pytest.approx(
        1 / level["length"], rel=0.08
    )
    assert inner.any()
    assert out[~seen].isnan().all()
    assert torch.equal(out[seen], x[seen])


def test_a_burst_may_take_a_whole_row() -> None:
    x = clean(300, 6, 2)
    batch = dataset(x).batch(torch.arange(300))
    from kintsugi.imperfect.corruption import corrupt

    it = corrupt("dropout_bursts", "sensor", 5)
    after = it.apply(batch, it.plan(dataset(x), 0))
    empty = ~after.mask["sensor"].any(1)
    assert 50 < int(empty.sum()) < 250
    assert torch.equal(after.present[:, 0], ~empty)


@pytest.mark.parametrize("channels", ["one", "all"])
@pytest.mark.parametrize(("severity", "share"), [(1, 0.05), (3, 0.25), (4, 0.5), (5, 1.0)])
def test_stuck_for_its_share(severity: int, share: float, channels: str) -> None:
    x = clean()
    out = run("stuck_at", x, severity=severity, channels=channels)
    changed = out != x
    long = max(2, round(share * STEPS))
    hit = changed.any(1)
    assert (hit.sum(1) == (CHANNELS if channels == "all" else 1)).double().mean() > 0.97
    same = out[:, 1:] == out[:, :-1]
    runs = same.sum(1)[hit]
    assert (runs == long - 1).all(), "so many steps show one value"
    values = torch.where(hit[:, None], out, torch.nan)
    start = torch.where(hit, same.int().argmax(1), 0)
    held = values.gather(1, start[:, None])[:, 0]
    assert bool((held[..., None, :] == x)[hit[:, None].expand_as(x)].view(-1, 1).any())
    late = hit & (start > 0)
    assert torch.equal(held[late], x.gather(1, start[:, None])[:, 0][late]), "what it was when it began"
    if share < 1:
        assert 0.35 < float(start[hit].double().mean() / (STEPS - long)) < 0.65


def test_two_steps_at_least_are_stuck() -> None:
    out = run("stuck_at", clean(400, 12), severity=1)
    runs = (out[:, 1:] == out[:, :-1]).sum((1, 2))
    assert float((runs == 1).double().mean()) > 0.95, "5 % of twelve steps would be one, which cannot repeat"


def test_stuck_channels_are_drawn_alike() -> None:
    x = clean(2000)
    counts = (run("stuck_at", x, severity=4) != x).any(1).sum(0)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def clock(rows: int = 200, steps: int = 200) -> Tensor:
    """A channel that tells the time, so that what a step shows is when it was read."""
    return torch.arange(steps, dtype=torch.float64).expand(rows, -1)[..., None].clone()


@pytest.mark.parametrize(("severity", "warp"), list(enumerate((0.05, 0.1, 0.2, 0.3, 0.4), 1)))
def test_warped_time_is_smooth_and_monotone(severity: int, warp: float) -> None:
    x = clock()
    at = run("time_warp", x, severity=severity)[..., 0]
    speed = at.diff(dim=1)
    assert torch.allclose(at[:, 0], torch.zeros(1, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(at[:, -1], torch.tensor(199.0, dtype=torch.float64), atol=1e-3)
    assert float(speed.min()) > 0
    assert (speed.amax(1) - (1 + warp)).abs().max() < 0.01
    assert (speed.amin(1) - (1 - warp)).abs().max() < 0.01
    assert float(speed.diff(dim=1).abs().max()) < 0.11 * warp, "no jumps of speed"


def test_another_rate_stretches() -> None:
    for severity, ratio in enumerate((0.95, 0.9, 0.8, 0.65, 0.5), 1):
        at = run("rate_mismatch", clock(5), severity=severity)[..., 0]
        assert torch.allclose(at, (ratio * torch.arange(200)).double().expand(5, -1), atol=1e-3)


@pytest.mark.parametrize(("severity", "share"), list(enumerate((0.01, 0.02, 0.04, 0.08, 0.16), 1)))
def test_clocks_are_early_or_late(severity: int, share: float) -> None:
    x = clock(400).expand(-1, -1, 5).clone()
    moved = (run("clock_offset", x, severity=severity) - x)[:, 60:140]
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-3)
    shift = moved[:, 0]
    group = shift.abs() > 1e-6
    assert (group.sum(1) == 3).all(), "half of the channels, rounded up"
    assert torch.allclose(shift[group].abs(), torch.tensor(share * 200, dtype=torch.float64), atol=1e-3)
    assert abs(float((shift.sum(1) > 0).double().mean()) - 0.5) < 0.1
    assert ((group.double().mean(0) - 0.6).abs() < 0.1).all()
    out = run("clock_offset", x, severity=5)
    assert float(out.min()) == 0
    assert float(out.max()) == 199, "the ends repeat"


def test_times_within_gaps_are_read_between_seen_steps() -> None:
    x = clock(30, 40)
    gaps = torch.ones(30, 40, dtype=torch.bool)
    gaps[:, 10:20], gaps[:, 33:] = False, False
    broken = torch.where(gaps[..., None], x, torch.nan)
    for key in ("time_warp", "rate_mismatch"):
        whole = run(key, x[:, :33], severity=4)
        out, seen = both(key, broken, gaps, severity=4)
        assert seen is gaps
        assert torch.allclose(out[:, :33][gaps[:, :33]], whole[gaps[:, :33]], atol=1e-4), "a line stays a line"
