"""Batches of data sources on the run's device.

In: source plans and files. Out: the current batch of each source, in the order that its stream draws.
A cursor counts what was drawn, so that a run resumes at the same sample.
"""
