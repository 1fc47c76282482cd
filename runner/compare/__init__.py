"""Compares numbers: tensors, runs, variants, and runs with their snapshots.

In: plans and rows. Out: the first difference, its likely cause, and whether it is within the tolerance.
It uses rows and plans, and no engine internals except the eager engine's two seams.
"""
