"""Distillation: a teacher that saw more

A teacher that was trained on more than the student gets, more modalities or more rows, tells the student what to answer
or which features to have. In use the student works alone.
"""
