"""Generative: imagine what is missing

What is absent is estimated from what is present, as data or as an embedding, and the rest of the network works on the
estimate. They differ in what is estimated and by what: autoencoders, adversarial networks, diffusion, retrieval.
"""
