"""Corruptions of time series: ``[R, T, C]`` with a mask of steps ``[R, T]``."""
