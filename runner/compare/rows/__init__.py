"""Compares two sequences of rows.

In: rows of both sides and a tolerance. Out: a verdict: the first difference, its causes, a report.
Snapshots and recorded runs both use it.
"""
