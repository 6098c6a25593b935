"""Missing modalities

A modality of a row is absent, in training, in use, or in both, and the model is told so.
"""
