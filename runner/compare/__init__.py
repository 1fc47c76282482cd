"""Comparing numbers: how two tensors, two runs, or a run and its snapshot differ, and what that points to."""
