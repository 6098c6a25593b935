"""Kintsugi: multimodal learning when the data is imperfect.

Names are loaded when they are first used, so ``import kintsugi`` costs nothing.
"""

from kintsugi.core.lazy import attach

__version__ = "0.2.0.dev0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
__all__ += ["__version__"]
