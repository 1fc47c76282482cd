"""The output of the command line: plans, progress, errors.

In: plans, reports and exceptions. Out: text that is safe for a terminal, JSON, and exit codes.
Nothing here reads a config.
"""
