"""Writes and reads rows on disk: batches, Arrow tables, Parquet parts and their digests.

In: rows on the computing thread. Out: part files, written by a separate thread; tensors read back.
Each tensor is read back with its dtype and its bits.
"""
