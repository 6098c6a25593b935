"""Hybrid: several of these

Two or more mechanisms of the other leaves in one method, and the paper's claim rests on their being together.
"""
