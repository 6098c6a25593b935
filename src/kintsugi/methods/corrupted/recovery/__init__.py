"""Recovery: replace what is bad

What was found to be bad, features, pairs or labels, is replaced by an estimate from what is trusted, and the row stays in
use.
"""
