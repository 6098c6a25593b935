"""Alignment: bring modalities to one space

A loss pulls the embeddings of the modalities of a row together, so that in use one can stand for another and nothing has
to be imagined.
"""
