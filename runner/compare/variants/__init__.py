"""Runs two variants of a config in lockstep.

In: a config and the changes of the other side. Out: a table of errors by tensor and row, and where they begin.
Serves `steprun compare`.
"""
