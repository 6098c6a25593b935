"""What is done with methods by their keys; see ``core.lazy``."""

from kintsugi.core.catalogue import METHODS as METHODS
from kintsugi.core.catalogue import card as card
from kintsugi.core.catalogue import forget_plugin as forget_plugin
from kintsugi.core.catalogue import list_methods as list
from kintsugi.core.catalogue import load_plugin as load_plugin
from kintsugi.core.citations import citation as citation
from kintsugi.core.methods import arguments as arguments
from kintsugi.core.methods import create as create
from kintsugi.core.methods import register as register
from kintsugi.core.methods import variant as variant
