"""Corruptions of images: ``[R, C, H, W]`` in [0, 1]; noise, blur, weather, digital faults, geometry and cameras."""

from kintsugi.imperfect.corrupt.image._common import preset_by_size

__all__ = ["preset_by_size"]
