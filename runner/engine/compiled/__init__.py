"""The engine `compile`: many iterations of a `train` step as one call of compiled code.

In: a session and its `train` instructions. Out: the rows and the state that the eager engine would give.
Everything else in the program runs as in the eager engine.
"""
