"""Runs many runs of one program as one: each tensor has a row of memory for each of them, its lane.

In: a plan, and the seed, initial values and learning rates of each lane. Out: the rows and weights of all lanes.
"""
