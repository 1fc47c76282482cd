"""Finds the first value that is not finite, and says where it came from.

In: what each step computed and changed. Out: a report with the tensor, the index, the operation and its place.
Also measures the health of gradients and updates.
"""
