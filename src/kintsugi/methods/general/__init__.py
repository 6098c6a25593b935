"""General: one architecture for whatever is there

Plain ways to join modalities: they differ in where the modalities meet, not in how they treat what is bad. They are what
the other leaves are compared with.
"""
