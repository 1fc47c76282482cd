"""Compares numbers: tensors, runs, variants, and runs with their snapshots.

In: plans and rows. Out: the first difference, its likely cause, and whether it is within what is allowed.
It uses rows and plans, and no engine internals but the eager engine's two seams.
"""
