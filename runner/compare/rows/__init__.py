"""Compares two sequences of rows.

In: rows of both sides and what may differ. Out: a verdict: the first difference, its causes, a report.
Snapshots and recorded runs both use it.
"""
