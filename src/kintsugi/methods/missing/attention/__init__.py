"""Attention: weigh what is there

Weights that are computed from the row say how much each present modality, or each of its tokens, counts; an absent one
has weight zero.
"""
