"""Graphs, and functions compiled from them.

In: a lowered expression and the values that are wanted. Out: a `Computation`, one Python function of tensors.
A fault at run time is traced back to its node, and so to its place in the text.
"""
