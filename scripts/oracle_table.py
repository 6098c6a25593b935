"""Write docs/corruptions/oracle.rst: the corruptions of ImageNet-C by this library next to the package imagecorruptions.

python scripts/oracle_table.py            # docs/corruptions/oracle.rst, a few minutes on one core
python scripts/oracle_table.py --rows 8   # fewer pictures
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

import torch

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME / "tests"))

from imagenet_c_oracle import FIXED, RANDOM, measured, ours, scenes, theirs  # noqa: E402

HEAD = """Against the reference
=====================

Written by ``python scripts/oracle_table.py --rows {rows}``: the nineteen corruptions of ImageNet-C by this library and by
imagecorruptions-imaug {version}, on {rows} pictures of 224 by 224 pixels with the spectrum of natural scenes, in grey
levels of 255. The reference cuts its output to whole grey levels; half a level is added where that loses something.

Without chance
--------------

Difference of single values, two pictures, severity 1 to 5. A mean of 0.25 and a largest of 0.5 is what the cut alone makes.

.. csv-table::
   :header: "corruption", "mean difference", "largest difference"

"""
CHANCE = """
With chance
-----------

Means over the pictures by the reference / by this library: root mean squared change, mean, contrast (standard deviation of
the grey picture), and the share of the change's power above an eighth of the sampling frequency. In brackets the
difference in standard errors. Elastic is compared with hendrycks/robustness, since the package defines it otherwise.

.. csv-table::
   :header: "corruption", "severity", "change", "mean", "contrast", "fine"

"""


def line(*cells: object) -> str:
    """A line of a csv-table."""
    return "   " + ", ".join(f'"{cell}"' for cell in cells) + "\n"


def fixed(key: str) -> str:
    """A line of the first table."""
    x = scenes(2)
    found = [(theirs(key, x, severity) - ours(key, x, severity)).abs() * 255 for severity in range(1, 6)]
    means = " ".join(f"{float(d.mean()):.2f}" for d in found)
    return line(key, means, " ".join(f"{float(d.max()):.1f}" for d in found))


def random(key: str, severity: int, rows: int) -> str:
    """A line of the second table."""
    found = measured(key, severity, scenes(rows))
    cells = []
    for name in ("rmse", "mean", "contrast", "fine"):
        reference, mine, error, _ = found[name]
        digits = 3 if name == "fine" else 1
        cells.append(f"{reference:.{digits}f} / {mine:.{digits}f} ({(mine - reference) / max(error, 1e-9):+.1f})")
    return line(key, severity, *cells)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32, help="pictures")
    parser.add_argument("--out", type=Path, default=HOME / "docs" / "corruptions" / "oracle.rst")
    given = parser.parse_args()
    torch.set_num_threads(1)
    text = HEAD.format(rows=given.rows, version=version("imagecorruptions-imaug"))
    text += "".join(fixed(key) for key in FIXED) + CHANCE
    for key in RANDOM:
        for severity in range(1, 6):
            text += random(key, severity, given.rows)
            print(key, severity, flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text)


if __name__ == "__main__":
    main()
