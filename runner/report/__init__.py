"""Reports: one self-contained HTML page that shows what a run computed.

In: a run directory, even of a run that goes on. Out: a page that opens without a server and without a network.
Text from a config or a file reaches the page as text only; all drawing is by the scripts in `assets`.
"""
