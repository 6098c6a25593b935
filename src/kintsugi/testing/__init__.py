"""Tests that come with the library: golden numbers of everything registered, and checks of the code's shape.

Nothing in the library imports this package; it is for its own tests, and for whoever adds to it.
"""
