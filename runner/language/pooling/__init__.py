"""Finds how to combine the values of batches into the value over a whole source.

In: a lowered expression. Out: a rule for each value: a mean, a sum, a weighted mean, or none that is exact.
`evaluate` and `accumulate` use it.
"""
