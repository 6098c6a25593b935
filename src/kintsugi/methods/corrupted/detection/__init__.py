"""Detection: find what is bad

A score says which modality, row or label is bad, often without having seen such damage before; what is found is left out
or reported.
"""
