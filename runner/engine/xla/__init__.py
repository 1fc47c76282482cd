"""Runs `train` steps as one loop of XLA.

In: the step that the compiled engine traces. Out: the same step as a function of JAX.
"""
