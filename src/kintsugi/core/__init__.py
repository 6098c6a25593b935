"""The contract. Read in this order: schema, batch, features, prediction, stage, card, model, wrappers, pipeline.

What methods use is handed on here: ``from kintsugi.core import Card, Model, register``. Nothing is imported before it is
used, so that cards can be read without PyTorch.
"""

from kintsugi.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
