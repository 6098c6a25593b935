"""Kintsugi: multimodal learning when the data is imperfect."""

__version__ = "0.1.0"
