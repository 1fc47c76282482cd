"""Finds how a value of a whole source is made from those of its batches.

In: a lowered expression. Out: for each value a rule: a mean, a sum, a weighted mean, or none that is exact.
`evaluate` and `accumulate` use it.
"""
