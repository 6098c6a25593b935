"""Selective fusion: choose what to join

For each row it is decided which modalities, or which estimates of them, are joined; the others are not used.
"""
