"""Finds what an engine cannot run, and chooses the engine of `engine: auto`.

In: a program and its expressions. Out: problems, each with its place, and the name of an engine.
"""
