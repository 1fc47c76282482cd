"""Lanes with `engine: xla`: regions of `train` steps of all lanes, as one loop that JAX compiles.

In: a plan, its lanes, and the state of all of them. Out: rows in blocks `(rows, lanes, ...)`, and the state.
Importing it imports JAX.
"""
