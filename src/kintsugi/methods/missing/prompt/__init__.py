"""Prompt: tell a frozen model what is missing

The backbone is pretrained and stays as it is; small learned inputs, picked by the pattern of what is present, adapt it.
"""
