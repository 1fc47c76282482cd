"""The expression language: text to a `torch.fx` graph.

In: the text of an expression and what its names stand for. Out: a graph, and functions that compute its values.
No text of the user's is ever evaluated as Python.
"""
