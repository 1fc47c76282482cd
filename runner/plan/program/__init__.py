"""Plans the steps of a config as a flat program.

In: steps, and the values that expressions define. Out: a list of instructions, so that a position is one number.
Loops are jumps.
"""
