"""Confidence: know how sure each modality is

Each modality answers with how sure it is, and is joined by that much; the joint answer can say how sure it is, too.
"""
