"""Cells of other libraries' types as what they hold: NumPy and Arrow scalars, tensors, arrays without axes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd

PLAIN = frozenset(
    {str, bytes, bytearray, memoryview, bool, int, float, list, tuple, dict, type(None)}
)  # stay as they are


def plain(cell: Any) -> Any:
    """What a cell holds.

    Scalars of NumPy and arrays without axes become Python's numbers and text; scalars of Arrow as ``as_py`` gives them,
    those of tensors as arrays of their shape; arrays of Arrow and tensors of PyTorch (of any device, with or without a
    gradient, sparse, of bfloat16) become arrays. Whatever else comes back as it is.
    """
    if type(cell) in PLAIN:
        return cell
    if isinstance(cell, np.ndarray):
        return plain(cell[()]) if cell.ndim == 0 else cell
    if isinstance(cell, np.generic):
        return _scalar(cell)
    torch, arrow = sys.modules.get("torch"), sys.modules.get("pyarrow")
    if torch is not None and isinstance(cell, torch.Tensor):
        return _array_of_tensor(cell)
    if arrow is not None and isinstance(cell, arrow.Scalar):
        if not cell.is_valid:
            return None
        return cell.to_numpy() if isinstance(cell, arrow.FixedShapeTensorScalar) else cell.as_py()
    if arrow is not None and isinstance(cell, (arrow.Array, arrow.ChunkedArray)):
        return cell.to_pylist()
    if arrow is not None and isinstance(cell, arrow.Tensor):
        return cell.to_numpy()
    return cell


def _scalar(cell: np.generic) -> Any:
    if isinstance(cell, (np.datetime64, np.timedelta64)):
        return pd.NaT if np.isnat(cell) else cell
    return cell.item() if not isinstance(cell, np.longdouble) else float(cell)


def _array_of_tensor(cell: Any) -> Any:
    import torch

    if cell.is_meta:  # without data, so it is nothing that a reader knows
        return cell
    values = cell.detach().cpu()
    values = (values if values.layout == torch.strided else values.to_dense()).resolve_conj().resolve_neg()
    if values.is_quantized:
        values = values.dequantize()
    try:
        array = values.numpy()
    except TypeError:  # bfloat16 and the types of 8 bits, which NumPy lacks
        array = values.float().numpy()
    return array[()].item() if array.ndim == 0 else array


def shaped(frame: pd.DataFrame, schema: Any = None) -> pd.DataFrame:
    """The same frame, with Arrow's fixed-shape tensors as arrays of their shape: pandas makes flat lists of them.

    Args:
        frame: as pandas read it; columns of Arrow types tell their shape themselves.
        schema: of the Parquet file, for columns that came as objects.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is None:
        return frame
    kinds = {} if schema is None else {field.name: field.type for field in schema}
    for column in frame.columns:
        dtype = frame[column].dtype if frame.columns.is_unique else None
        kind = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else kinds.get(column)
        if isinstance(kind, arrow.FixedShapeTensorType):
            cells = np.empty(len(frame), dtype=object)
            for row, cell in enumerate(frame[column].array):
                cells[row] = None if cell is None or cell is pd.NA else _of_shape(cell, kind)
            frame = frame.assign(**{column: pd.Series(cells, dtype=object, index=frame.index)})
    return frame


def _of_shape(cell: Any, kind: Any) -> np.ndarray:
    """Flat values in the order of memory -> an array of the logical shape."""
    order = list(kind.permutation or range(len(kind.shape)))
    return np.asarray(plain(cell)).reshape(tuple(kind.shape)).transpose(order)
