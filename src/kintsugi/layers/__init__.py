"""Layers that encoders and methods share."""

from kintsugi.layers.gaussian import LOGVAR_BOUND, GaussianHead, kl_unit, product_of_experts, sample
from kintsugi.layers.positions import sinusoid
from kintsugi.layers.streams import Attention, Block, Prefix, SingleStream, heads_for

__all__ = [
    "LOGVAR_BOUND",
    "Attention",
    "Block",
    "GaussianHead",
    "Prefix",
    "SingleStream",
    "heads_for",
    "kl_unit",
    "product_of_experts",
    "sample",
    "sinusoid",
]
