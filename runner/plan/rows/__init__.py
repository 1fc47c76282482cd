"""What rows record: columns, the log, and health rules.

In: the program and the `log` section. Out: the columns of every row, in a fixed order.
Recording and comparison use no other information about rows.
"""
