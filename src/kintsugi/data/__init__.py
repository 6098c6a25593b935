"""Data with holes: tables of the user's, built-in sets, splits and loaders."""

from kintsugi.data import datasets
from kintsugi.data.dataset import Dataset, Problem, Problems, Source, TensorSource
from kintsugi.data.datasets import DATASETS
from kintsugi.data.describe import holes, patterns
from kintsugi.data.loaders import Loader
from kintsugi.data.readers import ReadError, audio, image, series, tabular, text, vector
from kintsugi.data.splits import split_rows
from kintsugi.data.table import Table, TableSource

__all__ = [
    "DATASETS", "Dataset", "Loader", "Problem", "Problems", "ReadError", "Source", "Table", "TableSource",
    "TensorSource", "audio", "datasets", "holes", "image", "patterns", "series", "split_rows", "tabular", "text",
    "vector",
]  # fmt: skip
