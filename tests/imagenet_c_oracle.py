"""ImageNet-C's own corruptions, as the package imagecorruptions has them, next to those of this library.

The statistics here are what ``tests/test_imagenet_c.py`` compares and what ``scripts/oracle_table.py`` writes down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from corruption_data import pictures
from kintsugi.imperfect.operator import OPERATORS, Operator
from kintsugi.imperfect.plan import Plan

ALL = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "gaussian_blur",
    "snow",
    "frost",
    "fog",
    "spatter",
    "brightness",
    "contrast",
    "saturate",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
FIXED = (
    "defocus_blur",
    "zoom_blur",
    "gaussian_blur",
    "brightness",
    "contrast",
    "saturate",
    "pixelate",
    "jpeg_compression",
)
ELASTIC = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
RANDOM = tuple(key for key in ALL if key not in FIXED)


def scenes(rows: int, size: int = 224, seed: int = 0) -> Tensor:
    """Pictures of 8 bits, float32 ``[rows, 3, size, size]``."""
    return pictures(rows, 3, size, seed).mul(255).round().div(255)


def ours(key: str, x: Tensor, severity: int, seed: int = 0) -> Tensor:
    """By the published parameters for 224 pixels, with lengths as they stand there, whatever the size."""
    operator = OPERATORS[key]()
    assert isinstance(operator, Operator)
    values: dict[str, Any] = {"preset": "imagenet", **operator.options, **operator.parameters["imagenet"][severity]}
    if "side" in values:
        values["side"] = 0
    out, _ = operator.apply(x, torch.arange(len(x)), Plan(key, "image", severity, seed, values))
    return out


@contextmanager
def _five_pictures() -> Iterator[None]:
    """The published code draws frost from the first five of its six pictures; the package draws from all."""
    import imagecorruptions.corruptions as code  # type: ignore[import-untyped]

    def drawn(*args: Any, **kwargs: Any) -> Any:
        return original(*((5,) if args == (6,) else args), **kwargs)

    original = np.random.randint
    with patch.object(code.np.random, "randint", drawn):
        yield


def _elastic(image: np.ndarray[Any, Any], severity: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Elastic transform as hendrycks/robustness defines it for 224 pixels; the package has another one of that name."""
    import cv2
    from scipy.ndimage import map_coordinates
    from skimage.filters import gaussian

    alpha, sigma, affine = (244 * share for share in ELASTIC[severity - 1])
    height, width = image.shape[:2]
    centre, reach = np.array([height // 2, width // 2], np.float32), min(height, width) // 3
    corners = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    moved = corners + rng.uniform(-affine, affine, (3, 2)).astype(np.float32)
    matrix = cv2.getAffineTransform(corners, moved)
    bent = cv2.warpAffine(image / np.float32(255), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    down, across = (
        at + alpha * gaussian(rng.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3)
        for at in np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    )
    made = [map_coordinates(bent[..., c], (down, across), order=1, mode="reflect") for c in range(3)]
    return (np.clip(np.stack(made, -1), 0, 1) * 255).astype(np.uint8)


def theirs(key: str, x: Tensor, severity: int, seed: int = 0) -> Tensor:
    """The reference, in float32; its output is cut to 8 bits, which is made up for on average by half a grey level."""
    from imagecorruptions import corrupt

    bytes_ = x.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    made, state, rng = [], np.random.get_state(), np.random.default_rng(seed)
    try:
        np.random.seed(seed)
        with _five_pictures() if key == "frost" else nullcontext():
            for image in bytes_:
                bent = key == "elastic_transform"
                made.append(_elastic(image, severity, rng) if bent else corrupt(image, severity, key))
    finally:
        np.random.set_state(state)
    out = torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float()
    inner = (
        (out > 0) & (out < 255)
        if key not in ("pixelate", "jpeg_compression")
        else torch.zeros_like(out, dtype=torch.bool)
    )
    return (out + 0.5 * inner) / 255


def statistics(before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Of each picture ``[R]``: RMSE against the clean one, mean and contrast in grey levels, and where the damage is.

    fine: share of the damage's power above an eighth of the sampling frequency; colour: share that is not grey.
    """
    change = (after - before) * 255
    power = torch.fft.fft2(change).abs().square()
    size = before.shape[-2:]
    down, across = (torch.fft.fftfreq(n) for n in size)
    high = (down[:, None] ** 2 + across[None] ** 2).sqrt() > 0.125
    spread = change.square().mean((1, 2, 3))
    return {
        "rmse": spread.sqrt(),
        "mean": after.mean((1, 2, 3)) * 255,
        "contrast": after.mean(1).flatten(1).std(1) * 255,
        "fine": (power * high).sum((1, 2, 3)) / power.sum((1, 2, 3)),
        "colour": 1 - change.mean(1).square().mean((1, 2)) / spread,
    }


def measured(
    key: str, severity: int, x: Tensor, level: int | None = None
) -> dict[str, tuple[float, float, float, float]]:
    """Statistic -> mean by the reference, mean by ours, standard error of their difference, spread between pictures.

    ``level``: our severity, where it is not the same.
    """
    x = x.repeat(4, 1, 1, 1) if key == "frost" else x  # most of its chance is which of five pictures is drawn
    reference = statistics(x, theirs(key, x, severity))
    mine = statistics(x, ours(key, x, severity if level is None else level))
    found = {}
    for name, values in reference.items():
        error = float((values.var() / len(x) + mine[name].var() / len(x)).sqrt())
        found[name] = (float(values.mean()), float(mine[name].mean()), error, float(values.std()))
    return found
