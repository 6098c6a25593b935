"""Noise, blur and weather: each does what its definition says, at any size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from corruption_data import pictures
from kintsugi.core.schema import Modality
from kintsugi.imperfect.corrupt.image import _drops, _textures
from kintsugi.imperfect.corrupt.image._blur import disk, displacements, streak, zoom_filter
from kintsugi.imperfect.corrupt.image._common import gaussian, inside, padded, preset_by_size
from kintsugi.imperfect.corrupt.image.noise import CELLS, _quantiles
from kintsugi.imperfect.corrupt.image.weather import MUD
from kintsugi.imperfect.operator import OPERATORS, Operator
from kintsugi.imperfect.plan import Plan

NOISE = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
BLUR = ("gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur", "glass_blur")
WEATHER = ("fog", "frost", "snow", "spatter")
MINE = NOISE + BLUR + WEATHER
# Published levels that are the same or nearly so: 3 and 4 of the one, 1 and 2 of the other.
SAME = (("motion_blur", "cifar"), ("glass_blur", "cifar"))
SHAPES = ((1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 64, 48), (2, 9, 33), (5, 40, 16), (3, 224, 224))


def damaged(key: str, x: Tensor, severity: int = 3, preset: str = "", seed: int = 0, **given: Any) -> Tensor:
    operator = OPERATORS[key]()
    assert isinstance(operator, Operator)
    preset = preset or preset_by_size(Modality("photo", "image", tuple(x.shape[1:])))
    values = {"preset": preset, **operator.options, **operator.parameters[preset][severity], **given}
    return operator.apply(x, torch.arange(len(x)), Plan(key, "photo", severity, seed, values))[0]


def rmse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


# all of them ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(101, 67), (33, 35)])
@pytest.mark.parametrize("key", MINE)
def test_threads_and_neighbours_change_no_bit_at_odd_sizes(key: str, size: tuple[int, int]) -> None:
    x = pictures(3, 3, max(size))[..., : size[0], : size[1]].contiguous()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = damaged(key, x)
        torch.set_num_threads(1)
        one = damaged(key, x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)
    assert torch.equal(damaged(key, x[:1]), one[:1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("key", MINE)
def test_any_size_and_number_of_channels(key: str, shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    x = pictures(2, channels, max(height, width))[..., :height, :width].contiguous()
    before = x.clone()
    for severity in (1, 5):
        out = damaged(key, x, severity)
        assert out.shape == x.shape
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert rmse(out, x) > 0.005, "level 5 does nothing"
    assert torch.equal(x, before)


@pytest.mark.parametrize("preset", ["imagenet", "cifar", "mnist"])
@pytest.mark.parametrize("key", MINE)
def test_levels_differ_and_leave_something(key: str, preset: str) -> None:
    size, channels = {"imagenet": (224, 3), "cifar": (32, 3), "mnist": (28, 1)}[preset]
    x = pictures(16, channels, size)
    levels = [damaged(key, x, severity, preset) for severity in range(1, 6)]
    for a, b in pairwise(levels):
        if (key, preset) not in SAME:
            assert rmse(a, b) > 0.004
    assert rmse(levels[4], x) > rmse(levels[0], x)
    last = torch.stack([x.mean(1).flatten(1), levels[4].mean(1).flatten(1)])
    alike = [float(torch.corrcoef(last[:, row])[0, 1]) for row in range(len(x))]
    assert np.mean(alike) > 0.1, "level 5 leaves nothing"


@pytest.mark.parametrize("key", MINE)
def test_memory_layout_does_not_matter(key: str) -> None:
    x = pictures(2, 3, 40)
    turned = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not turned.is_contiguous()
    assert torch.equal(damaged(key, x), damaged(key, turned))


@pytest.mark.parametrize("key", MINE)
def test_double_precision_agrees(key: str) -> None:
    x = pictures(2, 3, 40)
    double = damaged(key, x.double())
    assert double.dtype == torch.float64
    assert torch.allclose(double.float(), damaged(key, x), atol=2e-5)


@pytest.mark.parametrize("key", ["gaussian_blur", "defocus_blur", "motion_blur", "glass_blur", "snow", "spatter"])
def test_lengths_go_by_the_smaller_side(key: str) -> None:
    sides = [preset[3]["side"] for preset in OPERATORS[key].parameters.values()]
    assert sides == [224, 32, 28]
    x = pictures(2, 3, 112)
    assert not torch.equal(damaged(key, x), damaged(key, x, side=0))
    half = {"sigma": 0.5, "radius": 0.5}
    values = OPERATORS[key].parameters["imagenet"][3]
    if key in ("gaussian_blur", "motion_blur"):
        given = {
            name: round(v * half[name]) if name == "radius" else v * half[name]
            for name, v in values.items()
            if name in half
        }
        assert torch.equal(damaged(key, x), damaged(key, x, side=0, **given))


# noise ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("severity", range(1, 6))
def test_speckle_grows_with_brightness(severity: int) -> None:
    x = torch.full((1, 1, 200, 200), 0.2)
    x[..., 100:] = 0
    change = damaged("speckle_noise", x, severity, "cifar") - x
    sd = OPERATORS["speckle_noise"].parameters["cifar"][severity]["sd"]
    assert float(change[..., :100].std()) == pytest.approx(0.2 * sd, rel=0.03)
    assert torch.equal(change[..., 100:], torch.zeros_like(change[..., 100:]))


def test_impulses_are_half_black_half_white_and_nested() -> None:
    x = torch.full((1, 3, 200, 200), 0.5)
    before: Tensor | None = None
    for severity in range(1, 6):
        share = OPERATORS["impulse_noise"].parameters["imagenet"][severity]["share"]
        out = damaged("impulse_noise", x, severity)
        error = 4 * (share / 2 / x.numel()) ** 0.5
        for value in (0.0, 1.0):
            assert float((out == value).float().mean()) == pytest.approx(share / 2, abs=error)
        assert float((out == 0.5).float().mean()) == pytest.approx(1 - share, abs=2 * error)
        if before is not None:
            hit = before != 0.5
            assert torch.equal(out[hit], before[hit])
        before = out


@pytest.mark.parametrize("photons", [500.0, 75.0, 60.0, 25.0, 12.0, 5.0, 3.0])
def test_the_table_of_counts_is_the_poisson_distribution(photons: float) -> None:
    table = _quantiles(photons).view(256, CELLS).double().mul(photons).round().numpy()
    for level in (0, 1, 7, 40, 128, 200, 255):
        expected = level / 255 * photons
        below = stats.poisson.cdf(np.arange(int(photons)), expected)
        found = (table[level][None] <= np.arange(int(photons))[:, None]).mean(1)
        assert np.abs(found - below).max() <= 0.5 / CELLS + 1e-9


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("photons", [500, 75, 25, 12, 5, 3])
def test_shot_noise_has_the_moments_of_poisson(photons: int, exact: bool) -> None:
    for level in (0.1, 0.3):
        bright = round(level * 255) / 255
        x = torch.full((1, 1, 400, 400), bright)
        counts = damaged("shot_noise", x, photons=photons, exact=exact).double().mul(photons).flatten().numpy()
        n, rate = counts.size, bright * photons
        truth = np.minimum(np.arange(photons * 4), photons)
        weights = stats.poisson.pmf(np.arange(photons * 4), rate)
        mean = float(weights @ truth)
        variance = float(weights @ (truth - mean) ** 2)
        skew = float(weights @ (truth - mean) ** 3) / variance**1.5
        assert np.allclose(counts, counts.round(), atol=1e-3)
        assert counts.mean() == pytest.approx(mean, abs=4 * (variance / n) ** 0.5 + 0.002 * mean)
        assert counts.var() == pytest.approx(variance, rel=0.03)
        assert stats.skew(counts) == pytest.approx(skew, abs=0.05)
        assert (counts == 0).mean() == pytest.approx(np.exp(-rate), abs=0.005)


def test_black_has_no_shot_noise_and_white_stays_in_range() -> None:
    x = torch.zeros(1, 1, 64, 64)
    assert torch.equal(damaged("shot_noise", x, 5), x)
    assert float(damaged("shot_noise", x + 1, 5).max()) == 1


# blur -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (64, 48), (9, 130)])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 3.0, 6.0])
def test_gaussian_is_that_of_scipy(shape: tuple[int, int], sigma: float) -> None:
    x = torch.rand(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    assert np.abs(gaussian(x, sigma).numpy() - truth).max() < 1e-12


@pytest.mark.parametrize("radius", [0.3, 1.0, 1.5, 3.0, 6.0, 10.0])
def test_disk_is_a_convolution_with_a_disk(radius: float) -> None:
    x = torch.rand(1, 2, 30, 41, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at = np.arange(-12, 13)
    kernel = ((at[:, None] ** 2 + at[None] ** 2) <= radius**2).astype(float)
    soft = np.exp(-0.5 * (np.arange(-1, 2) / 0.5) ** 2)
    kernel = ndimage.convolve(kernel / kernel.sum(), np.outer(soft, soft) / soft.sum() ** 2, mode="constant")
    truth = np.stack([ndimage.convolve(plane, kernel, mode="mirror") for plane in x[0].numpy()])
    assert np.abs(disk(x, radius, 0.5, 3)[0].numpy() - truth).max() < 1e-12


@pytest.mark.parametrize("degrees", [-45.0, -20.0, 0.0, 10.0, 45.0, -90.0])
def test_a_point_is_smeared_along_its_line(degrees: float) -> None:
    x = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    x[..., 30, 30] = 1
    out = streak(x, 8, 4.0, torch.tensor([degrees]))[0, 0]
    assert float(out.sum()) == pytest.approx(1)
    rows, columns = (torch.arange(61.0).double() - 30 for _ in range(2))
    down, right = float((out.sum(1) * rows).sum()), float((out.sum(0) * columns).sum())
    weights = np.exp(-0.5 * (np.arange(17) / 4) ** 2)
    length = float((weights * np.arange(17)).sum() / weights.sum())
    assert np.hypot(down, right) == pytest.approx(length, abs=0.3)
    assert np.degrees(np.arctan2(-down, -right)) == pytest.approx(degrees, abs=5)
    assert int((out > 0).sum()) <= 17


def test_motion_goes_in_many_directions_within_45_degrees() -> None:
    x = torch.zeros(40, 1, 96, 96)
    x[..., 48, 48] = 1
    out = damaged("motion_blur", x, 5, side=0)[:, 0]
    at = torch.arange(96.0) - 48
    angles = torch.atan2((out.sum(2) * at).sum(1), (out.sum(1) * at).sum(1)).rad2deg()
    angles = angles.where(angles.abs() < 90, angles - 180 * angles.sign())
    assert float(angles.min()) < -30
    assert float(angles.max()) > 30
    assert float(angles.abs().max()) < 50


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (64, 48), (40, 97)])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_zoom_blur_is_a_mean_of_enlarged_middles(shape: tuple[int, int], severity: int) -> None:
    x = torch.rand(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    said = OPERATORS["zoom_blur"].parameters["imagenet"][severity]
    layers = [x.numpy()]
    for factor in np.arange(1, said["stop"], said["step"]):
        parts = [int(np.ceil(size / factor)) for size in shape]
        starts = [(size - part) // 2 for size, part in zip(shape, parts, strict=True)]
        middle = x[..., starts[0] : starts[0] + parts[0], starts[1] : starts[1] + parts[1]].numpy()
        wide = ndimage.zoom(middle, (1, 1, factor, factor), order=1, mode="nearest")
        trims = [(n - size) // 2 for n, size in zip(wide.shape[2:], shape, strict=True)]
        layers.append(wide[..., trims[0] : trims[0] + shape[0], trims[1] : trims[1] + shape[1]])
    assert np.abs(damaged("zoom_blur", x, severity, "imagenet").numpy() - np.mean(layers, 0)).max() < 1e-9


@pytest.mark.parametrize("factor", [1.0, 1.25, 2.5, 4.0])
def test_what_is_enlarged_too_much_is_cut_on_both_sides(factor: float) -> None:
    x = torch.rand(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    part = int(np.ceil(30 / factor))
    start = (30 - part) // 2
    wide = ndimage.zoom(x[:, start : start + part].numpy(), (1, factor), order=1, mode="nearest")
    trim = (wide.shape[1] - 30) // 2
    found = zoom_filter(factor, 30, torch.float64, torch.device("cpu")).across(x)
    assert np.abs(found.numpy() - wide[:, trim : trim + 30]).max() < 1e-9


def travelled(reach: int, rounds: int, side: int = 96, seed: int = 0) -> np.ndarray[Any, Any]:
    """Squared distances by the published loop: one pixel after the other, each takes the value of one nearby."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side].tolist()
    for _ in range(rounds):
        for y in range(side - reach, reach, -1):
            for x in range(side - reach, reach, -1):
                right, down = rng.integers(-reach, reach, 2)
                rows[y][x], columns[y][x] = rows[y + down][x + right], columns[y + down][x + right]
    moved = np.stack([np.array(rows) - np.arange(side)[:, None], np.array(columns) - np.arange(side)])
    return moved[:, 20:-20, 20:-20].reshape(2, -1)


@pytest.mark.parametrize(("reach", "rounds"), [(1, 1), (1, 2), (2, 3), (4, 2)])
def test_pixels_travel_as_far_as_in_the_published_loop(reach: int, rounds: int) -> None:
    loop = travelled(reach, rounds)
    table = torch.stack(displacements(reach, rounds)).double().numpy()
    for name, measure in (("mean", np.mean), ("sd", np.std)):
        for axis in (0, 1):
            assert measure(table[axis]) == pytest.approx(measure(loop[axis]), abs=0.12 * reach), (name, axis)
    far = [np.square(each).sum(0) for each in (loop, table)]
    assert np.mean(far[1]) == pytest.approx(np.mean(far[0]), rel=0.08)
    assert (far[1] == 0).mean() == pytest.approx((far[0] == 0).mean(), abs=0.03)
    assert np.all(np.diff(far[1]) >= 0), "near ones first"


def test_glass_moves_values_and_invents_none() -> None:
    x = pictures(1, 3, 64)
    out = damaged("glass_blur", x, 3, "imagenet", side=0, sigma=0.01)
    was = {tuple(p) for p in x[0].flatten(1).t().round(decimals=5).tolist()}
    now = {tuple(p) for p in out[0].flatten(1).t().round(decimals=5).tolist()}
    assert now <= was
    assert 0.4 < len(now) / len(was) < 0.9
    assert not torch.equal(x, out)


@pytest.mark.parametrize("edge", ["nearest", "reflect", "mirror"])
@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_edges_are_folded_as_numpy_does_it(edge: str, size: int) -> None:
    mode = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect"}[edge]
    x = torch.rand(1, 1, size, size + 1)
    truth = np.pad(x[0, 0].numpy(), ((7, 7), (11, 11)), mode=mode)  # type: ignore[call-overload]
    assert np.array_equal(padded(x, 7, 11, edge)[0, 0].numpy(), truth)
    assert int(inside(torch.arange(-50, 50), size, edge).max()) < size


# weather ----------------------------------------------------------------------------------------------------------------
def test_plasma_spans_the_range_and_decay_makes_it_smooth() -> None:
    rough, smooth = (
        _textures.plasma(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)), d) for d in (1.4, 3)
    )
    for heights in (rough, smooth):
        assert torch.equal(heights.flatten(1).amin(1), torch.zeros(3))
        assert torch.allclose(heights.flatten(1).amax(1), torch.ones(3))
    steps = [float(h.diff(dim=-1).square().mean() / h.var()) for h in (rough, smooth)]
    assert steps[0] > 3 * steps[1]
    ring = float((rough[..., 0] - rough[..., -1]).abs().mean())
    assert ring < 2 * float(rough.diff(dim=-1).abs().mean()), "the map does not close"


def test_plasma_sums_four_neighbours_at_each_level() -> None:
    drawn = torch.full((1, 4, 4), 0.5)  # noise of 0 all over
    drawn[0, 0, 0] = 1  # but in the first centre
    heights = _textures.plasma(drawn, 2.0)[0]
    # By hand: centre (2, 2) is 1, sides (0, 2) and (2, 0) are (1 + 1 + 0 + 0) / 4; then means again.
    want = torch.tensor(
        [[0, 0.4375, 0.5, 0.4375], [0.4375, 0.5, 0.625, 0.5], [0.5, 0.625, 1, 0.625], [0.4375, 0.5, 0.625, 0.5]]
    )
    assert torch.allclose(heights[0, 0], want[0, 0])
    assert torch.allclose(heights[2, 2], want[2, 2])
    assert torch.allclose(heights[0, 2], want[0, 2])
    assert torch.allclose(heights[2, 0], want[2, 0])
    assert torch.allclose(heights[1, 1], want[1, 1])
    assert torch.allclose(heights[1::2, 1::2], torch.full((2, 2), 0.5))
    assert torch.allclose(heights, heights.t())


def test_draws_shrink_by_decay_squared_at_each_level() -> None:
    drawn = torch.full((1, 4, 4), 0.5)
    drawn[0, 0, 0] = 1  # the first centre, which is the largest
    drawn[0, 0, 3] = 1  # the first centre of the second level
    assert float(_textures.plasma(drawn, 2.0)[0, 1, 1]) == pytest.approx(0.5 + 1 / 2.0**2)


def test_fog_adds_one_plasma_to_all_channels_and_keeps_the_largest_value() -> None:
    x = pictures(2, 3, 48)
    most = x.flatten(1).amax(1).view(-1, 1, 1, 1)
    out = damaged("fog", x, 4, "imagenet")
    density = OPERATORS["fog"].parameters["imagenet"][4]["density"]
    heights = (out * (most + density) / most - x) / density
    assert torch.allclose(heights[:, 0], heights[:, 2], atol=1e-5)
    assert float(heights.min()) + 1e-5 >= 0
    assert float(heights.max()) <= 1 + 1e-5
    assert bool((out.flatten(1).amax(1) <= most.flatten() + 1e-5).all())


def test_frost_pictures_have_the_colours_and_contrasts_of_the_published_ones() -> None:
    found = _textures.frost_pictures(96)
    assert found.shape == (5, 3, 240, 240)
    for picture, (colour, contrast) in zip(found, _textures.LOOKS, strict=True):
        assert torch.allclose(picture.mean((1, 2)), torch.tensor(colour), atol=0.02)
        assert float(picture.mean(0).std()) == pytest.approx(contrast, rel=0.12)
        power = torch.fft.fft2(picture.mean(0) - picture.mean()).abs().square()
        at = torch.fft.fftfreq(240)
        radius = (at[:, None] ** 2 + at[None] ** 2).sqrt()
        bands = [float(power[(radius >= low) & (radius < 2 * low)].mean()) for low in (0.01, 0.04, 0.16)]
        assert bands[0] > bands[1] > bands[2], "power falls with frequency"
        down, right = torch.gradient(picture.mean(0))
        a, b, c = (gaussian(each[None], 3.0)[0] for each in (right * right, down * down, right * down))
        along = float(
            (((a - b).square() + 4 * c * c).sqrt() / (a + b)).mean()
        )  # noise of this spectrum without directions: 0.22
        assert along > 0.3, "no needles"


@pytest.mark.parametrize("channels", [1, 3])
def test_frost_is_a_part_of_a_picture_that_differs_between_rows(channels: int) -> None:
    x = torch.zeros(12, channels, 40, 30)
    said = OPERATORS["frost"].parameters["imagenet"][3]
    ice = damaged("frost", x, 3, "imagenet")
    over = damaged("frost", x + 0.2, 3, "imagenet")
    inner = over < 1
    assert torch.allclose((over - ice)[inner], torch.tensor(0.2 * said["picture"]), atol=1e-5)
    assert len(torch.unique(ice.flatten(1), dim=0)) == 12
    assert len({round(float(row.mean()), 1) for row in ice}) >= 2


def test_large_pictures_get_enlarged_frost() -> None:
    x = torch.zeros(1, 3, 448, 300)
    ice = damaged("frost", x)
    assert float(ice.diff(dim=-1).square().mean()) < 0.5 * float(
        damaged("frost", x[..., ::2, ::2]).diff(dim=-1).square().mean()
    )


def test_snow_falls_twice_turned_by_180_degrees_and_whitens() -> None:
    black = torch.zeros(3, 1, 60, 60)
    said = OPERATORS["snow"].parameters["imagenet"][1]
    layer = damaged("snow", black, 1, "imagenet") - 0.5 * (1 - said["mix"])
    assert torch.allclose(layer, layer.flip(-1, -2), atol=1e-6)
    assert float(layer.min()) >= -1e-6
    assert 0.01 < float((layer > 0.05).float().mean()) < 0.6
    x = pictures(3, 3, 60)
    assert bool((damaged("snow", x, 1, "imagenet") >= x - 1e-6).all())


def test_flakes_fall_downwards() -> None:
    layer = damaged("snow", torch.zeros(24, 1, 96, 96), 5, "imagenet", side=0, zoom=1, mix=1.0)[:, 0]
    down, right = layer.diff(dim=1).square().mean(), layer.diff(dim=2).square().mean()
    assert float(right) > 1.3 * float(down)


def test_water_brightens_and_mud_covers() -> None:
    x = pictures(4, 3, 96) * 0.6
    water = damaged("spatter", x, 3, "imagenet", side=0)
    assert bool((water >= x - 1e-6).all())
    lit = (water - x).amax(1)
    assert 0.05 < float((lit > 0.02).float().mean()) < 0.5
    mud = damaged("spatter", x, 5, "imagenet", side=0)
    same = (mud - x).abs().amax(1) < 1e-6
    assert 0.3 < float(same.float().mean()) < 0.95
    covered = (mud - torch.tensor(MUD)[:, None, None]).abs().amax(1)[~same]
    before = (x - torch.tensor(MUD)[:, None, None]).abs().amax(1)[~same]
    assert bool((covered <= 0.2 * before + 1e-5).all()), "at least 0.8 of what is below mud is covered"


def test_spatter_covers_as_much_at_any_size() -> None:
    shares = []
    for size in (64, 112, 224):
        x = torch.zeros(120, 1, size, size)
        shares.append(float((damaged("spatter", x, 2, "imagenet", mud=1) > 0.01).float().mean()))
    assert max(shares) - min(shares) < 0.04, shares  # 0.12 at 224, 0.15 below


def test_distances_are_those_of_scipy() -> None:
    marked = torch.rand(3, 40, 57, generator=torch.Generator().manual_seed(0)) < 0.01
    found = _drops.distance(marked, 20)
    for one, distances in zip(marked.numpy(), found.numpy(), strict=True):
        truth = np.minimum(ndimage.distance_transform_edt(~one), 20)
        assert np.abs(distances - truth).max() < 1e-5


def test_edges_are_one_pixel_wide_and_where_drops_end() -> None:
    layer = torch.zeros(1, 40, 40)
    layer[:, 10:30, 12:28] = 250
    for sigma in (0.01, 1.0):
        found = _drops.edges(gaussian(layer, sigma))[0]
        rim = torch.zeros(40, 40, dtype=torch.bool)
        rim[8:32, 10:30] = True
        rim[12:28, 14:26] = False
        assert bool((found <= rim).all())
        assert found[20].sum() == found[:, 20].sum() == 2, "an edge on each side"
        assert 50 < int(found.sum()) < 90  # the rim has 72 pixels


def test_equalised_levels_are_as_frequent() -> None:
    levels = torch.tensor([[[0, 0, 0, 1], [1, 2, 2, 3]]] * 2, dtype=torch.int32)
    want = torch.tensor([[0.0, 0, 0, 102], [102, 204, 204, 255]])
    assert torch.equal(_drops.equalised(levels, 5), want.expand(2, -1, -1))
