"""The expression language: text to a `torch.fx` graph.

In: the text of an expression and the meaning of its names. Out: a graph, and functions that compute its values.
User text is never evaluated as Python.
"""
