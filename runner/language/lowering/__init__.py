"""Lowers the syntax tree of an expression to a graph.

In: checked syntax, a scope, and the inference of shapes. Out: a `Lowered` graph with named values.
`lower` is the driver, `context` what all handlers share, the others lower one kind of syntax each.
"""
