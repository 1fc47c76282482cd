"""Compares two recorded runs.

In: two run directories. Out: how configs, environments and rows differ, as text or plain values.
Serves `steprun diff`.
"""
