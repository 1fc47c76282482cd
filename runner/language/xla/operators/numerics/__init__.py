"""Special functions.

In: facts and arrays of a node. Out: the rules of these operators.
"""
