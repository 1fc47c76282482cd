"""Compares numbers: tensors, runs, variants, and runs with their snapshots.

In: plans and rows. Out: the first difference, its likely cause, and whether it is within the tolerance.
Of the eager engine it uses `bind`, to change how steps are bound.
"""
