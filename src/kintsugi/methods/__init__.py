"""Every method, one file each under its leaf of the taxonomy; registered by being here.

``create(key, schema, **arguments)`` makes a pipeline, ``list("missing/*", task=…)`` names methods, ``card(key)`` says
what one is.
"""

from kintsugi.core.methods import METHODS, arguments, card, create, register, variant
from kintsugi.core.methods import list_methods as list

__all__ = ["METHODS", "arguments", "card", "create", "list", "register", "variant"]
