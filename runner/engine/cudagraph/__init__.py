"""The engine `cudagraph`: records a `train` step once and replays it.

In: a session and its `train` instructions. Out: the rows of the eager engine, bit for bit.
Everything else in the program runs as in the eager engine.
"""
