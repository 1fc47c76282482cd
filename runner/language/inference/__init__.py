"""Finds what each node of an expression is, by running it once.

In: an operation and example operands. Out: its example result, within bounds of memory, nodes and time.
Guards refuse arguments on which torch's native code would crash.
"""
