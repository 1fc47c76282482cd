"""Finds what a config means to do and cannot, or does and seldom means.

In: a program and its expressions. Out: problems and warnings, each at its place.
Checks change nothing in a plan.
"""
