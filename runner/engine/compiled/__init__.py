"""The engine `compile`: runs many iterations of a `train` step in one call of compiled code.

In: a session and its `train` instructions. Out: the rows and the state of the eager engine.
Everything else in the program runs as in the eager engine.
"""
