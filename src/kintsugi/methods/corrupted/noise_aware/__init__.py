"""Noise-aware: model the noise

The noise is a part of the model, as a distribution, a mixture or a state of its own, and enters the loss or the fusion.
"""
