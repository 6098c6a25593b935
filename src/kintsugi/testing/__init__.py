"""The promises that every method keeps, as checks that anyone can run on a method of their own.

``check_method("my_method")`` runs them all; each is a function of the method class that raises ``AssertionError`` and says
what is broken. They choose what to do by the card, never by the name. Golden numbers and checks of the code's shape stand
here too. Nothing in the library imports this package; it is for its own tests, and for whoever adds to it.
"""

from kintsugi.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
