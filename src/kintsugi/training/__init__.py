"""One trainer for every method, and what several methods need in training."""

from kintsugi.layers.meta import fast_weights
from kintsugi.training.trainer import Trainer

__all__ = ["Trainer", "fast_weights"]
