"""What the command line takes: options, requests, completion, signals and time limits.

In: words that a person typed. Out: a config or a plan, read within the limits they asked for.
Nothing here prints results.
"""
