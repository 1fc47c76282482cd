"""Batches of data sources on the run's device.

In: source plans and files. Out: the current batch of each source, in the order of its random stream.
A cursor counts the drawn batches, so a run resumes at the same sample.
"""
