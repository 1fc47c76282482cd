"""The section that steps through rows: program, graph, and what each step changed.

In: the subject of a report. Out: a section, with the value and gradient of each node of the graph for each chosen row.
The gradients of inner nodes are computed again, and shown only if the objective comes out as the log has it.
"""
