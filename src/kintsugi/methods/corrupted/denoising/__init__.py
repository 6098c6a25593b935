"""Denoising: mend the input

A network learns to undo damage, from pairs of clean and damaged rows, and what comes after it works on the mended input.
"""
