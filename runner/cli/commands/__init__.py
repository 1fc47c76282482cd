"""One module for each group of commands.

In: an options object from `cli.input`. Out: what the command prints, through `cli.output`.
Each module has a `register` function that adds its commands to the application.
"""
