"""The command line: `app` has the commands, `main` is the entry of the process.

In: arguments, standard input and signals. Out: text or JSON on the streams, and an exit code.
Commands import what is heavy when they are called.
"""
