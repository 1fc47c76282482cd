"""The command line: one module a command group, heavy imports inside the commands."""
