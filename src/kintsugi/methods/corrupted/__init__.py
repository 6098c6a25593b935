"""Corrupted modalities

Every modality is there, but what some of them say is wrong, and the model is not told which.
"""
