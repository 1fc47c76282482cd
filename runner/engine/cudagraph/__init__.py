"""The engine `cudagraph`: a `train` step recorded once and replayed.

In: a session and its `train` instructions. Out: the rows of the eager engine, bit for bit.
Everything else in the program runs as in the eager engine.
"""
