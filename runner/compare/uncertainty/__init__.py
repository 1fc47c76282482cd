"""Measures how uncertain the numbers of a run are across machines.

In: a plan and its rows. Out: for each tensor and row the spread over runs with perturbed rounding.
The method is Monte Carlo arithmetic (Parker 1997); the rules for each operation are in `operations.txt`.
"""
