"""Runs many runs of one program as one: each tensor has a row of memory for each of them, its lane.

In: a plan, and the seed, the initial values and the options of each lane. Out: the rows of all lanes, and their weights.
"""
