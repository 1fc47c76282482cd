"""Parameters and constants: where their values come from.

In: declarations of a config. Out: tensor plans, and the initial values when asked.
Planning allocates no tensor of the run.
"""
