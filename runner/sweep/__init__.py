"""Sweeps: many points of one config, as one resumable run.

In: a config with `sweep`, or axes on the command line. Out: a sweep directory, and a `Sweep` that reads it.
A point is the config with a few overrides; its numbers never depend on the other points.
"""
