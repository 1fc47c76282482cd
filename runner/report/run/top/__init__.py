"""The top of a run's report: what ran, how it ended, what went wrong, and what it computes.

In: a `Subject`. Out: markup.
"""
