"""Corruptions of audio: ``[R, samples]`` in [-1, 1]."""

from kintsugi.imperfect.corrupt.audio._common import sounding

__all__ = ["sounding"]
