"""What a sweep looks for, and which points run next.

In: the outcomes of points. Out: objectives, and the points of the next round.
"""
