"""Corruptions of what modalities have to do with each other, and of labels."""
