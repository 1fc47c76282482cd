"""Linear algebra: products, factorisations, solutions, Fourier transforms.

In: facts and arrays of a node. Out: the rules of these operators.
"""
