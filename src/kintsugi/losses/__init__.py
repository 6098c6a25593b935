"""Losses that methods share."""

from kintsugi.losses.distance import mse

__all__ = ["mse"]
