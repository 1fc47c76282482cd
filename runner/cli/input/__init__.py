"""The input of the command line: options, requests, completion, signals and time limits.

In: the words of a command line. Out: a config or a plan, read within its limits.
Nothing here prints results.
"""
