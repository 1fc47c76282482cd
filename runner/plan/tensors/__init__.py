"""Parameters and constants: where their values come from.

In: declarations of a config. Out: tensor plans, and initial values on request.
Planning does not allocate the tensors of the run.
"""
