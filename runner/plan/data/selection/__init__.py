"""Which rows of a file a data source has: conditions, shares, folds and ranges.

In: a declaration `select:` and the raw columns that it names. Out: a frozen `Selection` that maps samples to rows.
The order that shares and folds cut is a function of a seed and a number of rows, and is never stored.
"""
