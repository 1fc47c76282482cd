"""Compares two tensors, and writes tensors as text without loss.

In: two tensors, and a tolerance or an uncertainty. Out: how far apart they are, where, and whether that is allowed.
It does not know about rows or files.
"""
