"""What runs the points of a sweep: a pool of processes, or a Ray cluster.

In: tasks, one for each point. Out: events, and part files of rows and weights.
"""
