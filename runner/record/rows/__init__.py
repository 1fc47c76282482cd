"""Rows on disk: batches, Arrow tables, Parquet parts, their digests, and reading them.

In: rows on the thread that computes. Out: part files, written by a thread of its own; tensors read back.
Each tensor comes back with its dtype and its bits.
"""
