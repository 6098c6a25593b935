"""Data with holes: tables of the user's, built-in sets, splits and loaders."""

from kintsugi.data.dataset import Dataset, Problem, Problems, Source, TensorSource
from kintsugi.data.readers import ReadError, audio, image, series, tabular, text, vector
from kintsugi.data.table import Table, TableSource

__all__ = [
    "Dataset", "Problem", "Problems", "ReadError", "Source", "Table", "TableSource", "TensorSource",
    "audio", "image", "series", "tabular", "text", "vector",
]  # fmt: skip
