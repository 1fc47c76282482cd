"""The report of a sweep: its points, their curves, what each value does, and the config with the values of a point.

In: a sweep directory, even of a sweep that goes on. Out: the sections of a page.
All views share one chosen point and one filter; the page opens at its best point.
"""
