"""Every method, one file each under its leaf of the taxonomy; registered by being here.

``create(key, schema, **arguments)`` makes a pipeline, ``list("missing/*", task=…)`` names methods, ``card(key)`` says
what one is, ``citation(key)`` who published it, ``load_plugin(file)`` adds those of a file of your own. Listing and cards
read text: no method, and not PyTorch either, is imported for them.
"""

from kintsugi.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
