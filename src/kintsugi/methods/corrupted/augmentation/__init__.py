"""Augmentation: train on damage

The data is changed, the network is not: rows are damaged on purpose, for training or as a measured test of robustness.
"""
