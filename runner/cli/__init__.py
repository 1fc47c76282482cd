"""The command line: `app` defines the commands, `main` is the entry point of the process, `pytest_plugin` of pytest.

In: arguments, standard input and signals. Out: text or JSON on the streams, and an exit code.
Heavy modules are imported when a command is called.
"""
