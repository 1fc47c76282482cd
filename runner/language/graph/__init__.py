"""Graphs, and functions compiled from them.

In: a lowered expression and the values to compute. Out: a `Computation`, one Python function over tensors.
A run-time error is traced back to its node, and so to its place in the text.
"""
