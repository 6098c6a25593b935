"""Small default encoders, one a kind of modality; each registers itself for its kind."""

from kintsugi.encoders.audio import AudioEncoder
from kintsugi.encoders.image import ImageEncoder
from kintsugi.encoders.logmel import LogMel, mel_filters
from kintsugi.encoders.lowlevel import LowLevel, lowlevel
from kintsugi.encoders.series import SeriesEncoder
from kintsugi.encoders.tabular import TabularEncoder
from kintsugi.encoders.text import TextEncoder
from kintsugi.encoders.vector import VectorEncoder

__all__ = [
    "AudioEncoder",
    "ImageEncoder",
    "LogMel",
    "LowLevel",
    "SeriesEncoder",
    "TabularEncoder",
    "TextEncoder",
    "VectorEncoder",
    "lowlevel",
    "mel_filters",
]
