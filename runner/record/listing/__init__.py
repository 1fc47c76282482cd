"""Lists recorded runs, chooses some of them, and removes them.

In: a folder of runs, conditions and names. Out: runs with the values that a table shows of them.
Listing imports neither torch nor pyarrow; a condition imports both.
"""
