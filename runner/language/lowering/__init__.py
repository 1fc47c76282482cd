"""Lowers the syntax tree of an expression to a graph.

In: checked syntax, a scope, and shape inference. Out: a `Lowered` graph with named values.
`lower` is the driver, `context` is the state that all handlers share, and every other module lowers one kind of syntax.
"""
