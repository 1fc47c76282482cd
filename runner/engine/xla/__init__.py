"""The engine `xla`: runs many iterations of a `train` step in one call of code that JAX compiles.

In: a session and its `train` instructions. Out: the rows and the state of the eager engine.
Everything else in the program runs as in the eager engine.
"""
