"""The report of a difference: where two sequences of rows first differ, and how the difference develops.

In: a verdict and what `recorder` saw while the rows were compared. Out: the sections of a page.
`diff`, `check` and `compare` use it; each makes a `Difference`, which has plain values only.
"""
