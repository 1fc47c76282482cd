"""What sources say of tables: which columns they read, how, and what they take from their rows.

In: declarations of sources, and their files. Out: the reading of each batch column, and a config with what was fitted.
`summary` says what any data file holds.
"""
