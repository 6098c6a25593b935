"""Registered by being here: one file a method."""
