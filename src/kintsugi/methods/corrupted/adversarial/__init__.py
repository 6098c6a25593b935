"""Adversarial: train against an attacker

Damage is chosen to do most harm, or a second network plays against the first; the model is attacked, or made to hold.
"""
