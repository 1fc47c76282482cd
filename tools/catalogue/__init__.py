"""Generates the tables of `runner/catalogue` from the installed torch: `python -m tools.catalogue`."""
