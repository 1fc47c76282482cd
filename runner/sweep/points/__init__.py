"""The points of a sweep: which overrides each has, and when two are the same.

In: a config and the axes of its sweep. Out: points, each with its overrides and its identity.
"""
