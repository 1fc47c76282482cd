"""Which points of a sweep are lanes of one computation, and what runs them.

In: tasks. Out: tasks with the number of their chunk, and the rows and outcomes of a chunk.
"""
