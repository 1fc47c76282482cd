"""Reads what a report needs of a run, column by column and in bounded memory.

In: a recorded run. Out: the rows to show, curves with every extreme, and the measures of tensors over rows.
What is left out because a run is large is counted, so that the page can say it.
"""
