"""Versions of what decides numbers and is registered nowhere; raised with the golden numbers that move."""

from __future__ import annotations

TRAINING = 1  # the trainer: stages, order of rows, optimiser, choice of the epoch
READING = 1  # from cells and files to tensors: decoding, scaling, categories, splits
REFIT = 1  # what readers of a table learn anew where training hides something of it; other trials do without
EVALUATION = 1  # from predictions to results: conditions, chunks, intervals, and what the bench measures beside metrics
