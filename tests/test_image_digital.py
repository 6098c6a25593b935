"""Digital faults, geometry and cameras: what comes out, measured against what the parameters say."""

from __future__ import annotations

import colorsys
import io
import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from torch import Tensor

from corruption_data import pictures
from kintsugi.core.batch import Batch
from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality, Schema
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.imperfect.corrupt.image._warp import frequencies, smooth_noise
from kintsugi.imperfect.operator import OPERATORS, Operator
from kintsugi.tasks.classification import Classification

COLOUR = ("saturate", "colour_cast")
EVERY = [
    *("brightness", "contrast", "saturate", "gamma", "colour_quantisation", "pixelate", "jpeg_compression"),
    *("elastic_transform", "rotation", "shear", "scaling"),
    *("salt_and_pepper", "low_light", "dead_pixels", "colour_cast", "cutout", "coarse_dropout", "occlusion"),
]
SIZES = [(3, 8, 8), (1, 28, 28), (3, 64, 48), (3, 224, 224)]


def dataset(x: Tensor) -> Dataset:
    schema = Schema((Modality("photo", "image", tuple(x.shape[1:])),), Classification(["a", "b"]))
    rows = len(x)
    return Dataset(
        TensorSource(
            schema,
            Batch(
                schema.names,
                {"photo": x},
                torch.ones(rows, 1, dtype=torch.bool),
                torch.arange(rows),
                torch.arange(rows) % 2,
            ),
        )
    )


def operator(key: str) -> Operator:
    found = OPERATORS[key]()
    assert isinstance(found, Operator)
    return found


def run(key: str, x: Tensor, severity: int = 3, seed: int = 0, preset: str | None = None, **given: float) -> Tensor:
    it = operator(key)
    plan = it.plan(dataset(x), "photo", severity, seed, preset, **given)
    return it.apply(x, torch.arange(len(x)), plan)[0]


def values(key: str, preset: str, severity: int) -> dict[str, float]:
    return dict(OPERATORS[key].parameters[preset][severity])


def ramps(rows: int, height: int, width: int) -> Tensor:
    """Images whose red is x and whose green is y, in shares of a side: what a result shows is where it was read."""
    across = torch.linspace(0, 1, width).expand(height, width)
    down = torch.linspace(0, 1, height)[:, None].expand(height, width)
    return torch.stack([across, down, torch.zeros(height, width)]).expand(rows, 3, height, width).clone()


def read_at(out: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (x, y), ``[R, H, W]`` float64, that the results of :func:`ramps` were read at."""
    height, width = out.shape[-2:]
    return out[:, 0].double() * (width - 1), out[:, 1].double() * (height - 1)


# all ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("key", EVERY)
def test_every_size_changes_stays_in_range_and_leaves_the_input(key: str, shape: tuple[int, int, int]) -> None:
    if shape[0] == 1 and key in COLOUR:
        pytest.skip("colours only")
    x = pictures(3, shape[0], max(shape[1:]))[..., : shape[1], : shape[2]].contiguous()
    kept = x.clone()
    for severity in (1, 5):
        out = run(key, x, severity)
        assert out.shape == x.shape
        assert bool(torch.isfinite(out).all())
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
        assert bool((out != x).any())  # of 64 pixels, 1 % may be none in a row
    assert torch.equal(x, kept)


@pytest.mark.parametrize("shape", [(3, 33, 35), (3, 9, 31), (3, 120, 250)], ids=str)
@pytest.mark.parametrize("key", EVERY)
def test_alone_or_together_with_one_thread_or_two(key: str, shape: tuple[int, int, int]) -> None:
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(2))
    it = operator(key)
    plan = it.plan(dataset(x), "photo", 4, 1)
    before = torch.get_num_threads()
    made = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(it.apply(x, torch.arange(3), plan)[0])
    finally:
        torch.set_num_threads(before)
    alone = [it.apply(x[i : i + 1], torch.tensor([i]), plan)[0] for i in range(3)]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    assert torch.equal(made[0], torch.cat(alone))


@pytest.mark.parametrize("key", COLOUR)
def test_grey_images_are_refused_where_colours_are_needed(key: str) -> None:
    with pytest.raises(ConfigError, match="red, green and blue"):
        operator(key).plan(dataset(torch.rand(2, 1, 28, 28)), "photo", 3, 0)


# digital ------------------------------------------------------------------------------------------------------------
def by_colorsys(x: Tensor, change: object) -> Tensor:
    out = torch.empty_like(x)
    for row, made in zip(x, out, strict=True):
        for h in range(x.shape[2]):
            for w in range(x.shape[3]):
                made[:, h, w] = torch.tensor(colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*row[:, h, w].tolist()))))  # type: ignore[operator]
    return out


def with_greys() -> Tensor:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x[0, :, :2] = 0
    x[1, :, :2] = 0.4
    x[2, :, :2] = 1
    x[3, 1:, :2] = 0
    return x


@pytest.mark.parametrize("severity", [1, 5])
def test_brightness_adds_to_the_value_of_hsv(severity: int) -> None:
    x, shift = with_greys(), values("brightness", "cifar", severity)["shift"]
    expected = by_colorsys(x, lambda h, s, v: (h, s, min(v + shift, 1)))
    assert torch.allclose(run("brightness", x, severity), expected, atol=2e-6)
    grey = x[:, :1]
    assert torch.allclose(run("brightness", grey, severity, preset="cifar"), (grey + shift).clamp(max=1))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
def test_saturate_scales_the_saturation_of_hsv(preset: str, severity: int) -> None:
    x, v = with_greys(), values("saturate", preset, severity)
    expected = by_colorsys(x, lambda h, s, b: (h, min(s * v["factor"] + v["shift"], 1), b))
    assert torch.allclose(run("saturate", x, severity, preset=preset), expected, atol=5e-6)


@pytest.mark.parametrize("key", ["brightness", "saturate", "gamma", "low_light"])
def test_gradients_are_finite_at_black_grey_and_white(key: str) -> None:
    x = with_greys().requires_grad_()
    run(key, x, 5).square().sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) < 1e3
    assert float(x.grad[:, :, 4:].abs().sum()) > 0


def test_contrast_keeps_the_means_and_shrinks_the_rest() -> None:
    x = pictures(3, 3, 64) * 0.5 + 0.2
    out = run("contrast", x, 4)
    assert torch.allclose(out.mean((2, 3)), x.mean((2, 3)), atol=1e-5)
    assert torch.allclose(out.std((2, 3)), 0.1 * x.std((2, 3)), rtol=1e-3)
    more = run("contrast", x, 4, factor=9.0)
    assert float(more.min()) == 0
    assert float(more.max()) == 1


def test_gamma_is_a_power_law_either_way() -> None:
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8).expand(40, 1, 8, 8)
    out = run("gamma", x, 4, preset="any")
    assert torch.equal(out[:, 0, 0, 0], torch.zeros(40))
    assert torch.equal(out[:, 0, 7, 7], torch.ones(40))
    power = out[:, 0, 3, 3].log() / x[0, 0, 3, 3].log()
    assert torch.allclose(out, x ** power.view(-1, 1, 1, 1), atol=1e-4)
    size = power.log().abs() / math.log(2.2)
    assert 0.499 < float(size.min()) < 0.6
    assert 0.9 < float(size.max()) < 1.001
    assert 8 < int((power > 1).sum()) < 32


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_colour_quantisation_leaves_so_many_levels(severity: int) -> None:
    x = torch.linspace(0, 1, 64 * 64).view(1, 1, 64, 64)
    out, bits = run("colour_quantisation", x, severity), 6 - severity
    assert len(out.unique()) == 2**bits
    assert float((out - x).abs().max()) <= 0.5 / (2**bits - 1) + 1e-6
    assert torch.equal(run("colour_quantisation", out, severity), out)


@pytest.mark.parametrize(
    ("severity", "shape"), [(1, (64, 48)), (3, (224, 224)), (4, (65, 99)), (5, (28, 28)), (5, (8, 8))]
)
def test_pixelate_is_what_pillow_does(severity: int, shape: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    x = pictures(2, 3, max(shape))[..., : shape[0], : shape[1]].contiguous()
    share = values("pixelate", "imagenet", severity)["share"]
    out = run("pixelate", x, severity, preset="imagenet")
    small = (int(shape[1] * share), int(shape[0] * share))
    for plane, made in zip(x.flatten(0, 1), out.flatten(0, 1), strict=True):
        shrunk = image.fromarray(plane.numpy()).resize(small, image.Resampling.BOX)
        expected = np.array(shrunk.resize(shape[::-1], image.Resampling.NEAREST))
        assert np.allclose(made.numpy(), expected, atol=1e-5)
        assert len(np.unique(made.numpy())) <= small[0] * small[1]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_jpeg_is_what_pillow_writes(channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    x = pictures(2, channels, 64)[..., :48].contiguous()
    out = run("jpeg_compression", x, 3)
    whole = (out * 255).round()
    assert torch.allclose(out * 255, whole, atol=1e-4), "a decoded picture has 8 bits"
    values8 = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for row, made in zip(values8, whole, strict=True):
        parts = [row] if channels == 3 else [row[..., c] for c in range(channels)]
        back = []
        for part in parts:
            file = io.BytesIO()
            image.fromarray(part).save(file, "JPEG", quality=15)
            back.append(np.array(image.open(file)).reshape(64, 48, -1))
        assert np.array_equal(np.concatenate(back, 2), made.permute(1, 2, 0).numpy())


def test_jpeg_without_pillow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"kintsugi-ml\[image\]"):
        run("jpeg_compression", torch.rand(1, 1, 28, 28))


# geometry -----------------------------------------------------------------------------------------------------------
def linear_part(out: Tensor) -> Tensor:
    """The matrices ``[R, 2, 2]`` by which results of :func:`ramps` were read, from pixels next to the centre."""
    x, y = read_at(out)
    h, w = out.shape[2] // 2, out.shape[3] // 2
    by_x = [(at[:, h, w + 2] - at[:, h, w - 2]) / 4 for at in (x, y)]
    by_y = [(at[:, h + 2, w] - at[:, h - 2, w]) / 4 for at in (x, y)]
    return torch.stack([torch.stack([by_x[0], by_y[0]], 1), torch.stack([by_x[1], by_y[1]], 1)], 1)


@pytest.mark.parametrize("key", ["rotation", "shear", "scaling"])
@pytest.mark.parametrize("shape", [(28, 28), (64, 48), (33, 21)])
def test_the_centre_stays_where_it_is(key: str, shape: tuple[int, int]) -> None:
    x, y = read_at(run(key, ramps(4, *shape), 2))
    h, w = shape[0] // 2, shape[1] // 2
    ys, xs = slice(h - 4, h + 4 + shape[0] % 2), slice(w - 4, w + 4 + shape[1] % 2)
    assert torch.allclose(x[:, ys, xs].mean((1, 2)), torch.full((4,), (shape[1] - 1) / 2).double(), atol=1e-3)
    assert torch.allclose(y[:, ys, xs].mean((1, 2)), torch.full((4,), (shape[0] - 1) / 2).double(), atol=1e-3)


@pytest.mark.parametrize(("preset", "least", "most"), [("imagenet", 12.5, 25.0), ("mnist", 45.83, 45.84)])
def test_rotation_turns_by_so_many_degrees_either_way(preset: str, least: float, most: float) -> None:
    matrix = linear_part(run("rotation", ramps(40, 65, 65), 4, preset=preset))
    assert torch.allclose(torch.linalg.det(matrix), torch.ones(40).double(), atol=1e-3)
    degrees = torch.rad2deg(torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    assert least - 0.05 <= float(degrees.abs().min())
    assert float(degrees.abs().max()) <= most + 0.05
    assert 8 < int((degrees > 0).sum()) < 32
    assert (float(degrees.abs().std()) > 2) == (preset == "imagenet")


def test_a_marked_point_goes_where_the_angle_says() -> None:
    x = torch.zeros(20, 1, 65, 65)
    x[:, :, 32, 52] = 1  # 20 pixels to the right of the centre
    for out in run("rotation", x, 3, preset="mnist"):
        weight = out[0] / out.sum()
        down = float((weight.sum(1) * torch.arange(65)).sum()) - 32
        right = float((weight.sum(0) * torch.arange(65)).sum()) - 32
        assert abs(math.hypot(down, right) - 20) < 0.3
        assert abs(abs(math.degrees(math.atan2(down, right))) - math.degrees(0.6)) < 1


def test_shear_is_that_of_mnist_c() -> None:
    matrix = linear_part(run("shear", ramps(40, 65, 65), 2, preset="mnist"))
    sign = torch.sign(-matrix[:, 0, 1])
    assert 8 < int((sign > 0).sum()) < 32
    expected = torch.tensor([[1, -math.sin(0.4)], [0, math.cos(0.4)]], dtype=torch.float64).expand(40, 2, 2).clone()
    expected[:, 0, 1] *= sign
    assert torch.allclose(matrix, expected, atol=1e-3)


def test_scaling_shrinks_and_enlarges() -> None:
    matrix = linear_part(run("scaling", ramps(40, 65, 65), 3, preset="mnist"))
    assert torch.allclose(matrix, torch.eye(2).double() / 0.7, atol=1e-3)
    step = linear_part(run("scaling", ramps(40, 65, 65), 3))[:, 0, 0]
    assert 8 < int((step > 1).sum()) < 32
    size = step.log().abs() / abs(math.log(0.7))
    assert 0.499 < float(size.min()) < 0.6
    assert 0.9 < float(size.max()) < 1.001


def test_borders_are_mirrored_or_black() -> None:
    x = torch.ones(2, 1, 28, 28)
    assert float(run("rotation", x, 5, preset="cifar").min()) > 0.999
    assert float(run("rotation", x, 5, preset="mnist")[:, 0, 0, 0].max()) == 0


def test_the_affine_part_of_elastic_moves_three_points_so_far() -> None:
    side, limit = 64, 0.08 * 64
    x, y = read_at(run("elastic_transform", ramps(60, side, side), 1, preset="cifar"))
    inner = slice(20, 44)
    for at in (x, y):
        bent = at[:, inner, inner].diff(n=2, dim=1).abs().max()
        assert float(bent) < 1e-3, "an affine map is straight"
    assert float((x[:, 32, 32] - 32).std()) > limit / 6
    # the centre lies midway between two of the points, so it moves at most as far as they do, in the map of the inverse
    assert float((x[:, 32, 32] - 32).abs().max()) < 1.3 * limit
    assert 0.15 * limit < float((y[:, 32, 32] - 32).std()) < limit


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_ripples_of_elastic_are_as_high_and_as_long_as_they_say(severity: int) -> None:
    side, v = 200, values("elastic_transform", "detection", severity)
    x, y = read_at(run("elastic_transform", ramps(6, side, side), severity, preset="detection"))
    at = torch.arange(side).double()
    moved = torch.stack([x - at, y - at[:, None]])[..., 20:-20, 20:-20]
    sigma = v["sigma"] * side
    # A gaussian of sigma leaves of white noise 1 / (2 sqrt(pi) sigma) of its standard deviation.
    expected = v["alpha"] * side / math.sqrt(3) / (2 * math.sqrt(math.pi) * sigma)
    assert abs(float(moved.std()) / expected - 1) < 0.06
    lag = round(sigma)
    alike = float((moved[..., lag:] * moved[..., :-lag]).mean() / moved.square().mean())
    assert abs(alike - math.exp(-((lag / sigma) ** 2) / 4)) < 0.03


@pytest.mark.parametrize(("size", "sigma"), [((64, 48), 2.4), ((60, 60), 12.0), ((32, 28), 40.0), ((16, 33), 0.6)])
def test_smooth_noise_is_white_noise_after_a_gaussian(size: tuple[int, int], sigma: float) -> None:
    white = np.random.default_rng(0).standard_normal((2, *size))
    wave = torch.from_numpy(dctn(white, axes=(1, 2), norm="ortho")).float()
    drawn = torch.zeros(1, 2, frequencies(size[0], sigma), frequencies(size[1], sigma))
    h, w = min(size[0], drawn.shape[2]), min(size[1], drawn.shape[3])
    drawn[0, :, :h, :w] = wave[:, :h, :w]
    expected = np.stack([gaussian_filter(each, sigma, mode="reflect", truncate=3) for each in white])
    off = smooth_noise(drawn, size, sigma)[0].numpy() - expected
    assert float(np.abs(off).max()) < 0.02 * np.abs(expected).max()


# holes and objects --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (64, 48), (224, 224)])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_cutout_is_one_square_of_the_area(shape: tuple[int, int], severity: int) -> None:
    out = run("cutout", torch.ones(12, 3, *shape), severity)
    side = round(math.sqrt(values("cutout", "any", severity)["area"] * shape[0] * shape[1]))
    corners = set()
    for row in out:
        assert torch.equal(row[0], row[1])
        ys, xs = (row[0] == 0).nonzero().unbind(1)
        assert len(ys) == side**2
        assert int(ys.max() - ys.min()) == int(xs.max() - xs.min()) == side - 1
        corners.add((int(ys.min()), int(xs.min())))
    assert len(corners) > 3


def test_cutout_has_the_squares_of_the_paper_and_a_colour() -> None:
    x = torch.ones(1, 1, 32, 32)
    assert int((run("cutout", x, 2, preset="any") == 0).sum()) == 8**2
    assert int((run("cutout", x, 4, preset="any") == 0).sum()) == 16**2
    assert int((run("cutout", x, 4, preset="any", fill=0.5) == 0.5).sum()) == 16**2


@pytest.mark.parametrize(("severity", "share"), [(1, 0.055), (2, 0.11), (3, 0.17), (4, 0.25), (5, 0.35)])
def test_coarse_dropout_covers_such_a_share(severity: int, share: float) -> None:
    gone = (run("coarse_dropout", torch.ones(100, 1, 64, 64), severity) == 0).double().mean((1, 2, 3))
    assert abs(float(gone.mean()) - share) < 0.02
    assert float(gone.std()) > 0.005


@pytest.mark.parametrize("key", ["coarse_dropout", "occlusion", "salt_and_pepper", "dead_pixels"])
def test_a_level_hits_what_the_level_below_hits(key: str) -> None:
    x = pictures(6, 3, 32) * 0.5 + 0.2
    hits = [(run(key, x, severity) != x).any(1) for severity in range(1, 6)]
    for less, more in pairwise(hits):
        assert bool((less <= more).all())
        assert int(more.sum()) > int(less.sum())


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (64, 48), (224, 224)])
def test_occlusion_covers_the_area_with_something_that_is_not_flat(shape: tuple[int, int]) -> None:
    x = torch.full((12, 3, *shape), -0.0009)  # no texture has this value
    out = run("occlusion", x, 4)
    hit = (out != x).any(1)
    assert hit.sum((1, 2)).unique().tolist() == [round(0.28 * shape[0] * shape[1])]
    assert min(float(row[:, there].std(1).mean()) for row, there in zip(out, hit, strict=True)) > 0.02
    assert len(torch.unique(hit.flatten(1), dim=0)) == 12


# sensors ------------------------------------------------------------------------------------------------------------
def test_salt_and_pepper_hits_whole_pixels_half_and_half() -> None:
    out = run("salt_and_pepper", torch.full((8, 3, 64, 64), 0.5), 4)
    white, black = out == 1, out == 0
    assert torch.equal(white.all(1), white.any(1))
    assert torch.equal(black.all(1), black.any(1))
    assert abs(float(white.double().mean()) - 0.085) < 0.006
    assert abs(float(black.double().mean()) - 0.085) < 0.006
    less = run("salt_and_pepper", torch.full((8, 3, 64, 64), 0.5), 2)
    assert bool(((white | (less != 1)) & (black | (less != 0))).all()), "black at one level and white at the next"


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_low_light_has_the_mean_and_the_noise_of_its_photons(severity: int) -> None:
    v = values("low_light", "any", severity)
    x = torch.full((20, 1, 64, 64), 0.7)
    x[..., 0, 0], x[..., 0, 1] = 0, 1
    patch = run("low_light", x, severity)[..., 8:, :].double()
    expected = v["top"] * 0.7**2
    assert abs(float(patch.mean()) - expected) < 0.003
    assert abs(float(patch.var()) / (expected / v["photons"] + v["sd"] ** 2) - 1) < 0.04


def test_low_light_with_another_gamma() -> None:
    x = pictures(4, 3, 64)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = 0, 1
    x[:, :, 32:] = 0.5
    out = run("low_light", x, 1, gamma=1.0)
    assert abs(float(out[:, :, 32:].mean()) - 0.3) < 0.002
    leaf = x.clone().requires_grad_()
    assert torch.allclose(run("low_light", leaf, 1, gamma=1.5).detach(), run("low_light", x, 1, gamma=1.5), atol=1e-5)


def test_low_light_of_a_flat_image() -> None:
    assert float(run("low_light", torch.full((2, 3, 28, 28), 0.5), 5).max()) < 0.2


def test_dead_pixels_belong_to_the_camera() -> None:
    x = torch.full((10, 3, 100, 100), 0.125)
    out = run("dead_pixels", x, 5)
    hit = out != x
    assert torch.equal(hit, hit[:1].expand_as(hit)), "another camera in every row"
    assert torch.equal(hit.all(1), hit.any(1))
    assert abs(float(hit.double().mean()) - 0.1) < 0.01
    black, white = (out == 0).all(0), (out == 1).all(0)
    hot = hit[0] & ~black & ~white
    for kind in (black, white, hot):
        assert abs(float(kind.double().mean()) - 0.1 / 3) < 0.005
    added = (out - x)[:, hot]
    assert 0.25 <= float(added.min()) < 0.3
    assert 0.7 < float(added.max()) < 0.7501
    assert float(added.std(0).min()) > 0.02, "the current of a hot pixel stays the same"
    other = run("dead_pixels", x, 5, seed=1) != x
    assert float((other & hit).double().mean()) < 0.03


def test_colour_cast_has_the_gains_and_keeps_the_brightness_of_grey() -> None:
    out = run("colour_cast", torch.full((40, 3, 8, 8), 0.25), 4)[:, :, 0, 0].double()
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    assert torch.allclose(out @ luma, torch.full((40,), 0.25).double(), atol=1e-6)
    red, blue = (out[:, 0] / out[:, 1]).log(), (out[:, 2] / out[:, 1]).log()
    assert torch.allclose((red**2 + blue**2).sqrt(), torch.full((40,), math.log(1.6)).double(), atol=1e-5)
    assert {(bool(r > 0), bool(b > 0)) for r, b in zip(red, blue, strict=True)} == {
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    }
