"""What rows record: columns, the log, rules of health.

In: the program and the `log` section. Out: the columns of every row, in a fixed order.
Recording and comparison read nothing else about rows.
"""
