"""The step kinds: `forward`, `backward`, `step`, `train`, `evaluate` and the others.

In: a session and an instruction. Out: a function that does the step and returns the values of its row.
A step is bound once, and then called without decisions.
"""
