"""Runs two variants of a config in lockstep.

In: a config and what the other side changes. Out: a table of errors by tensor and row, and where they begin.
Serves `steprun compare`.
"""
