"""Modular: parts that come and go

Every modality has parts of its own, and what joins them takes any number: the part of an absent modality is left out, or
a learned one stands in its place.
"""
