"""Tables of runs, of sweeps and of the points of a sweep, and how they fit into a terminal.

In: summaries of runs, a sweep, the width of the terminal. Out: text, CSV or JSON on standard output.
"""
