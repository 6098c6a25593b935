"""Components that several methods share: teachers, students, fall-backs, watchers.

A class here is registered under a name of its own, so that a saved model finds it wherever it stands; a component of one
method alone stays in the file of that method.
"""
