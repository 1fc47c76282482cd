"""The steps of a config as a flat program.

In: steps, and the values that expressions define. Out: instructions; a position among them is one number.
Loops are jumps.
"""
