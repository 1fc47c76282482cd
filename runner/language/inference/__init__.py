"""Infers the shape and dtype of each node of an expression by running it once.

In: an operation and example operands. Out: its example result, within limits on memory, nodes and time.
Guards reject arguments on which torch's native code would crash.
"""
