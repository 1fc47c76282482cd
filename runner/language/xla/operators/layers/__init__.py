"""What networks are made of: activations, normalisation, embeddings, distances and losses.

In: facts and arrays of a node. Out: the rules of these operators.
"""
