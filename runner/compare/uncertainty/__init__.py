"""Measures how uncertain the numbers of a run are on any machine.

In: a plan and its rows. Out: for each tensor and row the spread of runs whose rounding is perturbed.
The method is Monte Carlo arithmetic (Parker 1997); the rules for each operation are in `operations.txt`.
"""
