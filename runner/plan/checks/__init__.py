"""Finds steps that cannot work, and code that is probably a mistake.

In: a program and its expressions. Out: problems and warnings, each with its place.
Checks do not change the plan.
"""
