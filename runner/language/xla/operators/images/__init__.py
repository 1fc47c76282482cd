"""Convolutions, pools, and images in other sizes.

In: facts and arrays of a node. Out: the rules of these operators.
"""
