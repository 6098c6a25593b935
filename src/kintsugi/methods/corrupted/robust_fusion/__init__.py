"""Robust fusion: join so that no one modality decides

The layer that joins the modalities is built, or trained, so that a bad one cannot take over: gates, experts, votes,
sampled subsets. What is bad need not be named.
"""
