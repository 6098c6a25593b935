"""Where a method is judged: in the world of its premise, in another one and on a real set, beside what it has to beat."""
