"""Versions of what decides numbers and is registered nowhere; raised with the golden numbers that move."""

from __future__ import annotations

TRAINING = 2  # the trainer: stages, order of rows, optimiser, choice of the epoch, what readers learn from
READING = 1  # from cells and files to tensors: decoding, scaling, categories, splits
EVALUATION = 1  # from predictions to results: conditions, chunks, intervals, and what the bench measures beside metrics
