"""Shows rows to people: on the console while a run computes them, and as curves afterwards.

In: the columns and rows of a run. Out: text for a terminal, and figures as SVG.
`console` chooses between whole rows and a table of lines.
"""
