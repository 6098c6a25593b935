"""Corruption operators, one file a kind of modality; found by the registry."""
