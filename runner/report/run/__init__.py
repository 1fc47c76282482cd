"""The report of one run: what happened, curves, steps, norms, distributions, pictures, config and environment.

In: a run directory. Out: the sections of a page.
`sections` is the table of the builders; each takes a `Subject`, which reads the run once.
"""
