"""Co-learning: learn to learn with holes

Complete and incomplete rows teach the same network together: by meta-learning, by paths that agree with each other, or
by what one modality or data set hands to another.
"""
